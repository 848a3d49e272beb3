"""Every measure against cases small enough to work out by hand."""

import numpy as np
import pytest

from keypoint_perception.errors import UserError
from training.evaluation.structure import (
    Matching,
    joint_scores,
    linked_points,
    match_trajectories,
    structure_scores,
)


def adjacency(count, *edges):
    matrix = np.zeros((count, count))
    for i, j in edges:
        matrix[i, j] = matrix[j, i] = 1.0
    return matrix


IDENTITY = Matching(np.arange(3), np.arange(3))


def test_perfect_structure_scores_one_everywhere():
    chain = adjacency(3, (0, 1), (1, 2))
    assert structure_scores(chain, chain, IDENTITY) == (1, 1, 1, 1, 1)


def test_structure_counts_by_hand():
    # True chain 0-1-2, predicted edges 0-1 and 0-2: one hit, one false alarm, one miss, no true negative.
    scores = structure_scores(adjacency(3, (0, 1), (0, 2)), adjacency(3, (0, 1), (1, 2)), IDENTITY)
    assert scores.acc == pytest.approx(1 / 3)
    assert scores.precision == scores.recall == scores.f1 == 0.5
    assert scores.bcc == pytest.approx(0.25)  # recall ½, specificity 0 / 1


def test_edges_of_unmatched_joints_are_misses_unless_lenient():
    # Four joints in a chain, only joints 0 and 1 have a partner and their edge is found.
    true = adjacency(4, (0, 1), (1, 2), (2, 3))
    two = Matching(np.array([0, 1]), np.array([0, 1]))
    strict = structure_scores(adjacency(2, (0, 1)), true, two)
    assert strict.recall == pytest.approx(1 / 3) and strict.precision == 1
    assert structure_scores(adjacency(2, (0, 1)), true, two, lenient=True).recall == 1


def test_edges_of_a_point_without_a_joint_count_nowhere_but_among_the_joints():
    # Point i lies on joint i of the chain 0-1-2; edges 0-1 and 0-2 are predicted, and 2-3 to a point off all joints.
    joints = np.array([[[0, 0], [1, 0], [2, 0]]] * 2, float)
    points = np.concatenate((joints, np.full((2, 1, 2), 9.0)), axis=1)
    predicted = adjacency(4, (0, 1), (0, 2), (2, 3))
    linked = linked_points(predicted)
    matching = match_trajectories(points, joints, linked)
    scores = structure_scores(predicted, adjacency(3, (0, 1), (1, 2)), matching)
    assert linked.tolist() == [0, 1, 2, 3] and matching.points.tolist() == matching.joints.tolist() == [0, 1, 2]
    assert scores.precision == scores.recall == 0.5  # a hit, a false alarm, a miss; with 2-3 precision would be 1/3
    assert scores.acc == pytest.approx(1 / 3)
    parts = joint_scores(points, joints, linked, epsilon=0.2)
    assert parts.precision == 0.75 and parts.recall == 1 and parts.diff == 1


def test_empty_graphs_give_zero_not_nan():
    scores = structure_scores(np.zeros((3, 3)), np.zeros((3, 3), bool), IDENTITY)
    assert scores.acc == 1 and scores.bcc == 0.5 and scores.f1 == scores.precision == scores.recall == 0


def test_half_is_an_edge():
    assert linked_points(0.5 * adjacency(3, (0, 2))).tolist() == [0, 2]
    assert linked_points(0.49 * adjacency(3, (0, 2))).tolist() == []


def test_matching_follows_the_whole_video_not_one_frame():
    joints = np.array([[[0, 0], [1, 0]]] * 3, float)
    points = joints[:, ::-1].copy()
    points[0] = joints[0]  # in the first frame the points look swapped back
    matching = match_trajectories(points, joints)
    assert dict(zip(matching.points, matching.joints, strict=True)) == {0: 1, 1: 0}


def test_only_candidates_are_matched():
    joints = np.zeros((2, 1, 2))
    points = np.stack((np.zeros((2, 2)), np.ones((2, 2))), axis=1)
    assert match_trajectories(points, joints, np.array([1])).points.tolist() == [1]


def test_equal_distances_still_match_every_joint_once():
    matching = match_trajectories(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)))
    assert sorted(matching.points) == [0, 1] and sorted(matching.joints) == [0, 1]


def test_joint_scores_by_hand():
    # Two frames, joints at x = 0 and 1. Point 0 is exact; point 1 is off by 0.1, then by 0.5; point 2 is a third one.
    joints = np.array([[[0, 0], [1, 0]]] * 2, float)
    points = np.array([[[0, 0], [1.1, 0], [9, 9]], [[0, 0], [1.5, 0], [9, 9]]], float)
    scores = joint_scores(points, joints, np.array([0, 1, 2]), epsilon=0.2)
    assert scores.dist == pytest.approx((0 + 0.1 + 0 + 0.5) / 4)
    assert scores.precision == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert scores.recall == pytest.approx((1 + 0.5) / 2)
    assert scores.f1 == pytest.approx((0.8 + 0.4) / 2)
    assert scores.consistency == 1 and scores.diff == 1


def test_a_swap_in_one_of_four_frames_costs_consistency():
    joints = np.array([[[0, 0], [1, 0]]] * 4, float)
    points = joints.copy()
    points[3] = joints[3, ::-1]
    assert joint_scores(points, joints, np.array([0, 1]), 0.2).consistency == pytest.approx(0.75)


def test_unknown_places_are_refused():
    points, joints = np.zeros((4, 2, 2)), np.zeros((4, 2, 2))
    joints[1:, 0] = np.nan
    for score in (lambda: match_trajectories(points, joints), lambda: joint_scores(points, joints, np.arange(2), 0.2)):
        with pytest.raises(UserError, match="joints are NaN in 3 of 4 frames, and all have to be known"):
            score()
    with pytest.raises(UserError, match="points are NaN in 3 of 4 frames"):
        match_trajectories(joints, points)
    assert match_trajectories(joints, points, np.array([1])).points.tolist() == [1]


def test_no_predicted_joint():
    scores = joint_scores(np.zeros((2, 3, 2)), np.zeros((2, 2, 2)), np.array([], int), 0.2)
    assert np.isnan(scores.dist) and scores[1:] == (0, 0, 0, 0, 2)
