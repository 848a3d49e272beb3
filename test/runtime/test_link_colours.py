"""The colours of a body's links in an image."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from keypoint_perception.link_colours import LinkColours
from keypoint_perception.model import ModelInfo

STAR = ModelInfo(
    name="star",
    method="limbs",
    input_size=(64, 64),
    keypoint_names=tuple("abc"),
    adjacency=None,
    parent=(-1, 0, 0),
    level=(0, 1, 1),
    alike=(((1,), (2,)),),
)
KEYPOINTS = np.array([[0, 0], [0.8, 0], [0, 0.8]], np.float32)


def drawn(first, second):
    """Two rods that leave the middle of a picture, to the right and down."""
    image = np.full((65, 65, 3), 40, np.uint8)
    cv2.line(image, (32, 32), (58, 32), first, 3)
    cv2.line(image, (32, 32), (32, 58), second, 3)
    return image


@pytest.mark.parametrize("light", [1.0, 0.5, 0.2])
def test_a_link_has_its_colour_whatever_the_light(light):
    image = drawn(*(tuple(int(light * c) for c in colour) for colour in ((200, 100, 0), (0, 50, 250))))
    found = LinkColours(STAR)(image, KEYPOINTS)
    np.testing.assert_allclose(found[1:], [[1, 0.5, 0], [0, 0.2, 1]], atol=0.01)


def test_what_covers_a_small_part_of_a_link_does_not_change_its_colour():
    image = drawn((200, 100, 0), (0, 50, 250))
    cv2.circle(image, (45, 32), 3, (255, 255, 255), -1)
    np.testing.assert_allclose(LinkColours(STAR)(image, KEYPOINTS)[1], [1, 0.5, 0], atol=0.01)


@pytest.mark.parametrize("factor", [3, np.nan, 1e9])
def test_black_has_no_colour_and_links_may_leave_the_image(factor):
    found = LinkColours(STAR)(np.zeros((65, 65, 3), np.uint8), factor * KEYPOINTS)
    assert (found == 0).all()


@pytest.mark.parametrize(
    "other",
    [
        {"adjacency": ((0.0,) * 3,) * 3},
        {"parent": (-1, -1, -1), "level": (0, 0, 0), "alike": ()},
        {"parent": (-1, 0, 1), "level": (0, 1, 2), "alike": ()},
    ],
    ids=["fixed skeleton", "no tree", "chain"],
)
def test_models_that_follow_no_limbs_need_no_colours(other):
    assert LinkColours(replace(STAR, **other))(drawn((9, 9, 9), (9, 9, 9)), KEYPOINTS) is None
