"""What a viewer of an overlay can rely on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import write_colour_model

from keypoint_perception.drawing import Style, contact_sheet, draw, palette, write_png
from keypoint_perception.errors import UserError
from keypoint_perception.model import Group, ModelInfo
from keypoint_perception.observation import Observation


def _observation(points: list, scores: list, size: tuple[int, int] = (160, 120)) -> Observation:
    count = len(points)
    adjacency = np.zeros((count, count), np.float32)
    adjacency[0, 1] = adjacency[1, 0] = 1
    return Observation(np.array(points, np.float32), np.array(scores, np.float32), adjacency, size)


def _info(count: int, groups: tuple[Group, ...] = ()) -> ModelInfo:
    names = tuple(f"k{i}" for i in range(count))
    return ModelInfo("m", "colours", (16, 16), names, ((0.0,) * count,) * count, (-1,) * count, (0,) * count, groups)


def _changed(image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    return np.any(image != drawn, axis=2)


def test_the_picture_given_is_left_alone_and_marked_where_the_keypoints_are() -> None:
    image = np.full((120, 160, 3), 128, np.uint8)
    drawn = draw(image, _observation([(40, 30), (120, 90), (20, 100)], [1, 1, 1]), Style.of(_info(3)))
    assert (image == 128).all()
    changed = _changed(image, drawn)
    assert changed[30, 40] and changed[90, 120] and changed[100, 20]
    assert changed[60, 80], "the edge passes half way"
    assert not changed[10, 150]


def test_a_keypoint_has_its_colour_at_its_centre_and_a_low_score_is_an_open_fainter_ring() -> None:
    image = np.full((480, 640, 3), 128, np.uint8)
    style = Style.of(_info(3))
    drawn = draw(image, _observation([(100, 100), (500, 100), (300, 400)], [1.0, 1.0, 0.1], (640, 480)), style)
    np.testing.assert_allclose(drawn[100, 100], style.colours[0], atol=2)
    assert (drawn[400, 300] == 128).all(), "the ring is open"
    assert _changed(image, drawn)[390:410, 290:310].any()


def test_groups_share_a_colour_and_single_groups_do_not_hide_which_keypoint_is_which() -> None:
    two = Style.of(_info(4, (Group("a", (0, 2)), Group("b", (1, 3)))))
    assert (two.colours[0] == two.colours[2]).all() and (two.colours[1] == two.colours[3]).all()
    assert (two.colours[0] != two.colours[1]).any()
    one = Style.of(_info(4, (Group("a", (0, 1, 2, 3)),)))
    assert len({tuple(c) for c in one.colours.tolist()}) == 4


def test_a_group_of_three_gets_a_hull() -> None:
    info = _info(4, (Group("a", (0, 1, 2)), Group("b", (3,))))
    image = np.full((120, 160, 3), 128, np.uint8)
    drawn = draw(image, _observation([(20, 20), (140, 20), (80, 110), (5, 5)], [1, 1, 1, 1]), Style.of(info))
    assert _changed(image, drawn)[50, 80]


def test_unknown_and_far_away_keypoints_do_no_harm() -> None:
    image = np.full((120, 160, 3), 128, np.uint8)
    points = [(np.nan, np.nan), (1e9, -1e9), (-3000, 60)]
    drawn = draw(image, _observation(points, [1, 1, 1]), Style.of(_info(3), labels=True))
    assert drawn.shape == image.shape


def test_labels_are_drawn_when_asked_for(tmp_path) -> None:
    info = write_colour_model(tmp_path / "m.onnx").info
    image = np.zeros((480, 640, 3), np.uint8)
    observation = _observation([(100, 100), (300, 300), (500, 100)], [1, 1, 1], (640, 480))
    plain, labelled = (draw(image, observation, Style.of(info, labels=labels)) for labels in (False, True))
    assert _changed(plain, labelled).sum() > 50


def test_sizes_scale_with_the_picture() -> None:
    areas = []
    for scale in (1, 2):
        image = np.full((480 * scale, 640 * scale, 3), 128, np.uint8)
        points = [(100 * scale, 100 * scale), (np.nan, 0)]
        areas.append(_changed(image, draw(image, _observation(points, [1, 0]), Style.of(_info(2)))).sum())
    assert 3 < areas[1] / areas[0] < 5


def test_colours_differ() -> None:
    for count in (1, 2, 12, 40):
        assert len({tuple(colour) for colour in palette(count).tolist()}) == count


def test_a_contact_sheet_keeps_proportions_and_order() -> None:
    red, blue = np.zeros((10, 20, 3), np.uint8), np.zeros((40, 20, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = contact_sheet([red, blue, red], columns=2, tile_width=20)
    assert sheet.shape == (4 + 44 + 14, 2 * 24 + 4, 3)
    assert sheet[5, 10].tolist() == [255, 0, 0] and sheet[30, 30].tolist() == [0, 0, 255]
    assert sheet[50, 10].tolist() == [255, 0, 0] and sheet[50, 40].tolist() == [255, 255, 255]


def test_a_picture_is_written_as_png_or_not_at_all(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    write_png(tmp_path / "new" / "picture.png", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "picture.png"))[..., ::-1], picture)
    with pytest.raises(UserError, match="must end in it"):
        write_png(tmp_path / "picture.txt", picture)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
