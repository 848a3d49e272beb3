"""The skeleton of a body is the one, of those found in its images, that explains all of them best."""

import numpy as np
import pytest

from keypoint_perception.model import ModelInfo
from keypoint_perception.observation import Observation
from keypoint_perception.tracking import body_tracker

INFO = ModelInfo(
    name="points",
    method="npt",
    input_size=(64, 64),
    keypoint_names=tuple("abcde"),
    adjacency=None,
    parent=(-1,) * 5,
    level=(0,) * 5,
)
STRAIGHT = np.array([[10, 50], [30, 50], [50, 50], [70, 50], [90, 50]], np.float32)
BENT = np.array([[10, 50], [30, 50], [50, 50], [50, 70], [50, 90]], np.float32)
"""The same limb with a joint in its middle, in a picture 100 pixels wide."""
ONE, TWO, FAR = [(0, 4)], [(0, 2), (2, 4)], [(0, 4), (1, 3), (1, 4)]


def seen(points, links, strength=0.9):
    adjacency = np.full((5, 5), 0.2, np.float32) * (1 - np.eye(5, dtype=np.float32))
    for i, j in links:
        adjacency[i, j] = adjacency[j, i] = strength
    return Observation(points.copy(), adjacency.max(axis=1), adjacency, (100, 100))


def links(observation):
    return [tuple(edge) for edge in observation.edges().tolist()]


def test_a_joint_that_one_image_shows_stays_where_the_limb_is_straight():
    track = body_tracker(INFO, max_gap=1.0)
    assert links(track(seen(STRAIGHT, ONE), 0.0)) == ONE
    for time, points, found in ((0.1, BENT, TWO), (0.2, STRAIGHT, ONE), (0.3, BENT, ONE), (0.4, STRAIGHT, ONE)):
        assert links(track(seen(points, found), time)) == TWO


def test_links_that_explain_no_more_are_not_taken():
    track = body_tracker(INFO, max_gap=1.0)
    assert links(track(seen(STRAIGHT, FAR), 0.0)) == FAR
    assert links(track(seen(STRAIGHT, ONE), 0.1)) == ONE
    assert links(track(seen(STRAIGHT, FAR), 0.2)) == ONE


@pytest.mark.parametrize("width", [100, 1000])
def test_the_choice_is_the_same_at_every_size_of_image(width):
    """By hand, in half widths: in a straight image ONE costs 0.3 + 2 · 1.6 and TWO 0.6 + 2 · 1.6.

    In a bent one ONE costs 0.3 + 2 · 1.131 and leaves (1 - exp(-2.83)) · 2 + 1 - exp(-5.66) = 2.879 unexplained,
    together 1.642 more than TWO. So one bent image outweighs five straight ones, and not six.
    """
    for straight, expected in ((5, TWO), (6, ONE)):
        track = body_tracker(INFO, max_gap=1.0)
        for time in range(straight + 1):
            points, found = (BENT, TWO) if time == 0 else (STRAIGHT, ONE)
            observation = seen(points * (width / 100), found)
            followed = track(Observation(*list(vars(observation).values())[:3], (width, width)), time / 10)
        assert links(followed) == expected


def test_scores_are_those_of_joints_of_the_skeleton():
    track = body_tracker(INFO, max_gap=1.0)
    for time in (0.0, 0.1):
        track(seen(BENT, TWO), time)
    found = track(seen(BENT, [(1, 3)]), 0.2)
    assert (found.scores >= 0.5).tolist() == [True, False, True, False, True]
    assert np.array_equal(found.keypoints, BENT)


def test_images_that_say_nothing_change_nothing():
    track = body_tracker(INFO, max_gap=1.0)
    nothing = seen(BENT, [])
    assert track(nothing, 0.0) is nothing
    track(seen(BENT, TWO), 0.1)
    assert links(track(nothing, 0.2)) == TWO
    found = track(Observation(BENT * np.nan, np.full(5, np.nan), nothing.adjacency * np.nan, (100, 100)), 0.3)
    assert links(found) == TWO
    assert np.isfinite(found.scores).all()
    assert links(track(seen(BENT * np.nan, ONE), 0.4)) == TWO


def test_a_gap_and_a_clock_that_goes_back_start_afresh():
    for then in (5.0, -1.0):
        track = body_tracker(INFO, max_gap=1.0)
        for time in range(3):
            track(seen(BENT, TWO), time / 10)
        assert links(track(seen(STRAIGHT, ONE), then)) == ONE


def test_the_oldest_images_are_forgotten():
    track = body_tracker(INFO, max_gap=1.0)
    track(seen(BENT, TWO), 0.0)
    for time in range(1, 60):
        track(seen(STRAIGHT, FAR), time / 10)
    assert links(track(seen(STRAIGHT, FAR), 6.0)) == FAR  # TWO, which is cheaper, is the sixty-first
