"""The skeleton of a body is the one that explains its points best in all images."""

from dataclasses import replace

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
BENT = np.array([[18, 26], [34, 38], [50, 50], [50, 70], [50, 90]], np.float32)
"""The same limb with a joint in its middle, both halves turned, in a picture 100 pixels wide."""
ONE, TWO, FAR = [(0, 4)], [(0, 2), (2, 4)], [(0, 4), (1, 3), (1, 4)]


def seen(points, links, strength=0.9):
    adjacency = np.full((5, 5), 0.2, np.float32) * (1 - np.eye(5, dtype=np.float32))
    for i, j in links:
        adjacency[i, j] = adjacency[j, i] = strength
    return Observation(points.copy(), adjacency.max(axis=1), adjacency, (100, 100))


def links(observation):
    return [tuple(edge) for edge in observation.edges().tolist()]


def tracker(*images):
    """One that has seen these points, a tenth of a second apart from 0 on."""
    track = body_tracker(INFO, max_gap=1.0)
    for number, points in enumerate(images):
        track(seen(points, TWO), number / 10)
    return track


def test_a_joint_that_one_image_shows_stays_where_the_limb_is_straight():
    track = tracker()
    assert links(track(seen(STRAIGHT, ONE), 0.0)) == ONE
    for time, points, found in ((0.1, BENT, TWO), (0.2, STRAIGHT, ONE), (0.3, BENT, ONE), (0.4, STRAIGHT, ONE)):
        assert links(track(seen(points, found), time)) == TWO


def test_links_that_explain_no_more_are_not_taken():
    track = tracker()
    for time in range(3):
        assert links(track(seen(STRAIGHT, FAR), time / 10)) == ONE


@pytest.mark.parametrize("width", [10, 1000])
def test_the_size_of_images_does_not_matter(width):
    track = body_tracker(INFO, max_gap=1.0)
    for time, points in enumerate((STRAIGHT, BENT)):
        adjacency = seen(points, ONE).adjacency
        image = Observation(points * (width / 100), adjacency.max(axis=1), adjacency, (width, width))
        followed = track(image, time / 10)
    assert links(followed) == TWO


def test_scores_say_which_keypoints_are_joints_and_how_often_images_agreed():
    track = tracker()
    for time, strength in ((0.0, 0.7), (0.1, 0.9)):
        found = track(seen(BENT, TWO, strength), time)
    assert found.adjacency[0, 2] == found.adjacency[2, 0] == pytest.approx(0.5 + 0.5 * 0.8)
    assert found.scores == pytest.approx([0.9, 0.1, 0.9, 0.1, 0.9])
    assert np.array_equal(found.keypoints, BENT)
    assert found.scores.dtype == found.adjacency.dtype == np.float32
    assert not found.adjacency.diagonal().any()


def test_links_of_single_images_alone_are_no_edges_however_sure():
    track = tracker()
    for time in range(4):
        found = track(seen(STRAIGHT, FAR, strength=1.0), time / 10)
    assert links(found) == ONE
    assert (found.scores >= 0.5).tolist() == [True, False, False, False, True]


def test_points_beside_the_links_that_single_images_find_are_not_explained():
    """What stands in the background belongs to no body."""
    stray = 95, 5
    track = tracker()
    for time, limb in enumerate(([(30, 50), (50, 50), (50, 70), (50, 90)], [(50, 30), (50, 50), (70, 50), (90, 50)])):
        found = track(seen(np.array([stray, *limb], np.float32), [(1, 2), (2, 4)]), time / 10)
    assert links(found) == [(1, 2), (2, 4)]


def test_images_that_say_nothing_change_nothing():
    track = tracker()
    nothing = seen(STRAIGHT[::-1] + 40, [])
    assert track(nothing, 0.0) is nothing
    track(seen(BENT, TWO), 0.1)
    assert track(nothing, 0.2) is nothing
    nowhere = seen(BENT * np.nan, ONE)
    assert track(nowhere, 0.3) is nowhere
    assert links(track(seen(STRAIGHT, ONE), 0.4)) == TWO


def test_a_gap_and_a_clock_that_goes_back_start_afresh():
    for then in (5.0, -1.0):
        track = tracker(BENT, STRAIGHT, BENT)
        assert links(track(seen(STRAIGHT, ONE), then)) == ONE


def test_what_was_seen_long_ago_is_forgotten():
    track = tracker(*[BENT] * 10, *[STRAIGHT] * 60)
    assert links(track(seen(STRAIGHT, ONE), 7.0)) == TWO
    for time in range(71, 400):
        found = track(seen(STRAIGHT, ONE), time / 10)
    assert links(found) == ONE


ALIKE = replace(INFO, alike=(tuple((k,) for k in range(5)),))


def renumbered(observation, order):
    """The same image by a model that numbers its points otherwise."""
    order = np.array(order)
    adjacency = observation.adjacency[np.ix_(order, order)]
    return replace(
        observation, keypoints=observation.keypoints[order], adjacency=adjacency, scores=adjacency.max(axis=1)
    )


def test_points_that_are_alike_keep_their_numbers_over_time():
    track = body_tracker(ALIKE, max_gap=1.0)
    track(seen(BENT, TWO), 0.0)
    moved = seen(BENT + 3, TWO)
    for time, order in ((0.1, [4, 3, 2, 1, 0]), (0.2, [1, 0, 4, 2, 3]), (0.3, [0, 1, 2, 3, 4])):
        found = track(renumbered(moved, order), time)
        np.testing.assert_array_equal(found.keypoints, moved.keypoints)
        assert links(found) == TWO
    lost = track(renumbered(seen(BENT + 3, []), [4, 3, 2, 1, 0]), 0.4)
    np.testing.assert_array_equal(lost.keypoints, moved.keypoints)
    assert links(lost) == []
    track(seen(90 - STRAIGHT, []), 0.5)  # no link: nothing is there, and no later image is compared with it
    turned = renumbered(moved, [4, 3, 2, 1, 0])
    np.testing.assert_array_equal(track(turned, 0.6).keypoints, moved.keypoints)
    np.testing.assert_array_equal(track(turned, 2.0).keypoints, turned.keypoints)  # a gap: numbers are the model's


def test_points_that_are_not_alike_have_the_model_s_numbers():
    track = body_tracker(INFO, max_gap=1.0)
    track(seen(BENT, TWO), 0.0)
    turned = renumbered(seen(BENT, TWO), [4, 3, 2, 1, 0])
    np.testing.assert_array_equal(track(turned, 0.1).keypoints, turned.keypoints)


def test_a_row_of_points_moves_along_by_one_rather_than_that_one_leaps():
    track = body_tracker(ALIKE, max_gap=1.0)
    track(seen(STRAIGHT, ONE), 0.0)
    onwards = np.concatenate((STRAIGHT[1:], [[110, 50]])).astype(np.float32)
    np.testing.assert_array_equal(track(seen(onwards[::-1], ONE), 0.1).keypoints, onwards)
