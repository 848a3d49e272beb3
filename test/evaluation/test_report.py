import pytest

from keypoint_perception.errors import UserError
from training.evaluation.benchmark import config_file, parse_minutes
from training.evaluation.report import COLUMNS, markdown, page


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
