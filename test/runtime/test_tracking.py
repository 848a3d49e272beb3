"""Limbs that look alike keep their numbers."""

from dataclasses import replace

import numpy as np

from keypoint_perception.model import ModelInfo
from keypoint_perception.observation import Observation
from keypoint_perception.smoothing import Follower
from keypoint_perception.tracking import LimbTracker

INFO = ModelInfo(
    name="star",
    method="limbs",
    input_size=(64, 64),
    keypoint_names=tuple("abcdefg"),
    adjacency=None,
    parent=(-1, 0, 1, 0, 3, 0, 5),
    level=(0, 1, 2, 1, 2, 1, 2),
    alike=(((1, 2), (3, 4), (5, 6)),),
)
CHAIN = replace(INFO, keypoint_names=tuple("abcd"), parent=(-1, 0, 1, 2), level=(0, 1, 2, 3), alike=(), either_end=True)
LEGS = np.array([[30.0, 0.0], [0.0, 30.0], [-30.0, -30.0]])


def seen(directions, scores=(1, 1, 1)):
    """A body at (50, 50) in a picture 100 pixels wide, with legs of two joints."""
    legs = [[50 + d / 2, 50 + d] for d in np.asarray(directions, float)]
    keypoints = np.array([[50.0, 50.0], *np.concatenate(legs)], np.float32)
    values = np.array([1, *np.repeat(scores, 2)], np.float32)
    adjacency = np.zeros((7, 7), np.float32)
    for first, score in zip((1, 3, 5), scores, strict=True):
        for i, j in ((0, first), (first, first + 1)):
            adjacency[i, j] = adjacency[j, i] = score
    return Observation(keypoints, values, adjacency, (100, 100))


def tips(observation):
    return (observation.keypoints[[2, 4, 6]] - 50).round().tolist()


def test_a_leg_keeps_its_number_when_the_model_numbers_anew():
    track = LimbTracker(INFO, max_gap=1.0)
    assert tips(track(seen(LEGS), 0.0)) == LEGS.tolist()
    moved = LEGS + [[1, 2], [-2, 1], [0, 1]]
    found = track(seen(moved[[2, 0, 1]]), 0.1)
    assert tips(found) == moved.tolist()
    assert found.keypoints[1].tolist() == [65.5, 51.0]


def test_scores_and_edges_go_with_the_leg():
    track = LimbTracker(INFO, max_gap=1.0)
    track(seen(LEGS), 0.0)
    found = track(seen(LEGS[[1, 2, 0]], scores=(0.9, 0.8, 0.7)), 0.1)
    np.testing.assert_allclose(found.scores, [1, 0.7, 0.7, 0.9, 0.9, 0.8, 0.8], atol=1e-6)
    assert found.edges().tolist() == [[0, 1], [0, 3], [0, 5], [1, 2], [3, 4], [5, 6]]
    np.testing.assert_allclose([found.adjacency[1, 2], found.adjacency[3, 4], found.adjacency[0, 5]], [0.7, 0.9, 0.8])


def test_a_leg_that_was_hidden_has_its_number_back():
    track = LimbTracker(INFO, max_gap=1.0)
    track(seen(LEGS), 0.0)
    hidden = track(seen([LEGS[1], LEGS[2], [5, 5]], scores=(1, 1, 0.1)), 0.1)
    assert tips(hidden)[1:] == LEGS[1:].tolist() and hidden.scores[1] < 0.5
    assert tips(track(seen(LEGS[[1, 0, 2]]), 0.2)) == LEGS.tolist()


def test_a_gap_and_a_clock_that_goes_back_start_afresh():
    for time in (0.0, 2.0, -5.0):
        track = LimbTracker(INFO, max_gap=1.0)
        track(seen(LEGS), 0.5)
        track(seen(LEGS), 0.6)
        assert tips(track(seen(LEGS[[2, 0, 1]]), time)) == LEGS[[2, 0, 1]].tolist()


def test_a_follower_renumbers_before_it_smooths():
    follow = Follower(1.0, None, INFO)
    follow(seen(LEGS), 0.0, threshold=0.5)
    found, states = follow(seen(LEGS[[1, 2, 0]], scores=(1, 1, 0.6)), 0.1, threshold=0.8)
    assert tips(found) == LEGS.tolist() and states.tolist() == [1, 2, 2, 1, 1, 1, 1]


def chain(*xs, last=0.1):
    """Joints at xs in a picture 100 pixels wide, and a fourth that is there as far as `last` says."""
    keypoints = np.array([[x, 50.0] for x in (*xs, 7.0)], np.float32)
    adjacency = np.diag([0.9, 0.8, last], 1)
    return Observation(keypoints, np.array([1, 0.9, 0.8, last]), adjacency + adjacency.T, (100, 100))


def test_a_chain_goes_on_from_the_end_where_it_began():
    track = LimbTracker(CHAIN, max_gap=1.0)
    assert track(chain(10, 30, 60), 0.0).keypoints[:, 0].tolist() == [10, 30, 60, 7]
    turned = track(chain(62, 31, 11), 0.1)
    assert turned.keypoints[:, 0].tolist() == [11, 31, 62, 7]
    assert turned.scores.tolist() == [0.8, 0.9, 1, 0.1]
    assert [turned.adjacency[0, 1], turned.adjacency[1, 2]] == [0.8, 0.9]
    assert track(chain(12, 30, 61), 0.2).keypoints[:, 0].tolist() == [12, 30, 61, 7]
    assert track(chain(61, 30, 12), 5.0).keypoints[:, 0].tolist() == [61, 30, 12, 7], "after a gap"


def test_without_limbs_that_are_alike_nothing_changes():
    observation = seen(LEGS)
    assert LimbTracker(replace(INFO, alike=()), 1.0)(observation, 0.0) is observation
