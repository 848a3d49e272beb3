import pytest

from keypoint_perception.errors import UserError
from training.evaluation.benchmark import parse_minutes
from training.evaluation.report import COLUMNS, markdown, page
from training.evaluation.scenes import SCENES, config_file


def cell(seed, f1, error):
    measures = {
        "structure": {"f1": f1},
        "joints": {"dist": None},
        "regression": {"error": error, "baseline_mean_pose": 0.4, "baseline_random_detector": 0.3, "supervised": 0.05},
    }
    return {"method": "npt", "scene": "cartpoles", "seed": seed, "measures": measures, "picture": "a.png"}


def test_the_table_holds_means_spreads_references_and_the_paper():
    table = markdown({"cells": [cell(0, 0.5, 0.1), cell(1, 0.7, 0.3)]})
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in table.splitlines()[2:]}
    titles = ["seeds", *(title for _, title in COLUMNS)]
    ours = dict(zip(titles, rows["npt"], strict=True))
    assert ours["S.F1"] == "0.600 ± 0.141" and ours["Regression"] == "0.200 ± 0.141" and ours["Dist"] == "–"
    assert rows["mean pose"][-2] == "0.400" and rows["trained with labels"][-2] == "0.050"
    assert dict(zip(titles, rows["NPT, as printed in its paper"], strict=True))["Acc"] == "0.95"
    assert len({len(row) for row in rows.values()}) == 1


def test_the_page_shows_the_pictures():
    assert '<img src="a.png"' in page({"cells": [cell(0, 0.5, 0.1)]})


@pytest.mark.parametrize(("text", "minutes"), [("90s", 1.5), ("30min", 30), ("2h", 120), ("0.5h", 30)])
def test_budgets(text, minutes):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "30", "-1min", "0s", "5 days"])
def test_bad_budgets_say_what_is_allowed(text):
    with pytest.raises(UserError, match="90s, 30min or 2h"):
        parse_minutes(text)


def test_a_missing_config_is_named():
    with pytest.raises(UserError, match=r"nothing_moon\.yaml"):
        config_file("nothing", "moon")


def test_scenes_bring_their_own_sizes_and_topics():
    small = SCENES["cartpoles"].fit_options("imm")  # imm_small.yaml is for 128 x 128 pixels, the sets have 64
    assert small[1].endswith("imm_small.yaml") and "--data.input_size=[64,64]" in small
    assert SCENES["tabletop"].fit_options("transporter")[2:] == [
        "--data.input_size=[64,48]", "--topic", "/table/image_raw/compressed",
    ]  # fmt: skip
    own = SCENES["tabletop"].fit_options("imm")  # imm_tabletop.yaml knows its size
    assert own[1].endswith("imm_tabletop.yaml") and own[2] == "--topic"


def test_sets_of_the_same_animals_share_their_config():
    assert config_file("limbs", "spiders0shot").name == "limbs_spiders.yaml"
