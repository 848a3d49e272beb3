from xml.etree import ElementTree

from training.evaluation.curves import label_curve
from training.evaluation.report import markdown, page


def cell(seed, f1, error, **families):
    measures = {
        "structure": {"f1": f1},
        "joints": {"dist": None},
        "regression": {"error": error, "baseline_mean_pose": 0.4, "baseline_random_detector": 0.3, "supervised": 0.05},
        **families,
    }
    return {
        "method": "npt", "scene": "cartpoles", "seed": seed, "measures": measures, "picture": "a.png", "minutes": 30,
        "machine": "x86_64, 2 cores",
    }  # fmt: skip


def tables(text):
    """Each table of a Markdown text: name of a row to its title: value."""
    for block in text.split("\n\n"):
        lines = [[part.strip() for part in line.split("|")[1:-1]] for line in block.splitlines() if line[:1] == "|"]
        if lines:
            yield {row[0]: dict(zip(lines[0][1:], row[1:], strict=True)) for row in lines[2:]}


def test_the_tables_hold_means_spreads_references_and_the_paper():
    text = markdown({"cells": [cell(0, 0.5, 0.1), cell(1, 0.7, 0.3)]})
    paper, more = tables(text)
    assert paper["npt"]["S.F1"] == "0.600 ± 0.141" and paper["npt"]["Dist"] == "–" and paper["npt"]["seeds"] == "2"
    assert paper["NPT, as printed in its paper"]["Acc"] == "0.95"
    transporter = paper["Transporter, as printed there"]
    assert transporter["S.Rec"] == "–" and transporter["Dist"] == "0.126" and transporter["Diff"] == "1.9"
    assert more["npt"]["Regression"] == "0.200 ± 0.141"
    assert more["mean pose"]["Regression"] == "0.400" and more["trained with labels"]["Regression"] == "0.050"
    assert "most frequent class" not in more  # no cell has it
    assert "Trained on x86_64, 2 cores, 30 minutes each." in text


def test_single_images_have_a_row_of_their_own_where_a_body_was_followed():
    alone = {"structure_single": {"f1": 0.25}, "joints_single": {"dist": 0.125}}
    paper, more = tables(markdown({"cells": [cell(0, 0.5, 0.1, **alone)]}))
    assert paper["npt"]["S.F1"] == "0.500" and paper["npt, single images"]["S.F1"] == "0.250"
    assert paper["npt, single images"]["Dist"] == "0.125" and paper["npt, single images"]["Acc"] == "–"
    assert "npt, single images" not in more
    never = {"structure_single": {"f1": None}, "joints_single": {"dist": None}}
    assert "single" not in markdown({"cells": [cell(0, 0.5, 0.1, **never)]})


def test_references_stand_in_the_columns_they_belong_to():
    families = {"motion": {"accuracy": 0.6, "chance": 0.3, "true_joints": 0.8}, "direct": {"supervised": 0.04}}
    families |= {"lifting": {"true_pixels_m": 0.02, "baseline_mean_pose_m": 0.3}}
    _, more = tables(markdown({"cells": [cell(0, 0.5, 0.1, **families)]}))
    assert more["npt"]["Motion"] == "0.600" and more["most frequent class"]["Motion"] == "0.300"
    assert more["true joints"]["Motion"] == "0.800" and more["true joints"]["3-D, m"] == "0.020"
    assert more["trained with labels"]["Direct"] == "0.040" and more["mean pose"]["3-D, m"] == "0.300"


def test_the_page_shows_pictures_and_the_curve_of_labels():
    bare = page({"cells": [cell(0, 0.5, 0.1)]})
    assert '<img src="a.png"' in bare and "<svg" not in bare  # a cell of an earlier release has no curve
    drawn = page({"cells": [cell(0, 0.5, 0.1, label_efficiency={"1": 0.4, "10": 0.2, "all": 0.1})]})
    assert "<svg" in drawn and drawn.count("<circle") == 3 and "labelled examples" in drawn


def test_curves_fall_from_left_to_right_as_errors_do():
    picture = label_curve({"imm": {"1": 0.4, "10": 0.2, "all": 0.1}, "npt": {"all": None}}, {"mean pose": 0.5})
    root = ElementTree.fromstring(picture)
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    places = [(float(c.get("cx")), float(c.get("cy"))) for c in circles]
    assert places == sorted(places) and len(places) == 3  # to the right and, as y counts downwards, lower errors
    assert "mean pose" in picture
