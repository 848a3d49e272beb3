import numpy as np
import pytest

from training.kinematics import estimate_kinematics, numbers_leap, part_groups, spectral_groups


def swinging_arm(frames=200, seed=0):
    """Two links of three points each, hinged at the origin and at the first link's end; and two points of a table."""
    rng = np.random.default_rng(seed)
    first = np.cumsum(rng.normal(0, 0.15, frames))
    second = first + np.cumsum(rng.normal(0, 0.15, frames))
    along = np.stack([np.cos(first), np.sin(first)], -1), np.stack([np.cos(second), np.sin(second)], -1)
    points = [r * along[0] for r in (20, 40, 60)]
    points += [60 * along[0] + r * along[1] for r in (20, 40, 60)]
    points += [np.full((frames, 2), (150.0, 90.0)), np.full((frames, 2), (150.0, 120.0))]
    return np.stack(points, axis=1) + rng.normal(0, 0.3, (frames, 8, 2)), np.ones((frames, 8))


def edges(adjacency):
    return {tuple(pair) for pair in np.argwhere(np.triu(adjacency, 1) >= 0.5).tolist()}


def test_links_of_an_arm_are_found_and_grouped():
    found = estimate_kinematics([swinging_arm()])
    assert {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7)} <= edges(found.adjacency)
    assert found.groups == [(0, 1, 2), (3, 4, 5), (6, 7)]
    assert np.array_equal(found.adjacency, found.adjacency.T)
    assert not found.adjacency.diagonal().any()
    assert 0 <= found.adjacency.min() <= found.adjacency.max() <= 1
    assert found.frames == 200


def test_scale_changes_nothing_and_recordings_of_different_scale_agree():
    points, scores = swinging_arm()
    one = estimate_kinematics([(points, scores)])
    both = estimate_kinematics([(points, scores), (points * 7, scores)])
    assert both.adjacency == pytest.approx(one.adjacency)


def test_false_detections_with_a_low_score_do_not_count():
    points, scores = swinging_arm()
    clean = estimate_kinematics([(points, scores)])
    points, scores = points.copy(), scores.copy()
    points[::3, 1] = (500, -300)
    scores[::3, 1] = 0.0
    disturbed = estimate_kinematics([(points, scores)])
    on_arm = [{(i, j) for i, j in edges(found.adjacency) if j < 6} for found in (clean, disturbed)]
    assert on_arm[0] == on_arm[1]


def test_one_keypoint_has_no_edges():
    found = estimate_kinematics([(np.zeros((5, 1, 2)), np.ones((5, 1)))])
    assert found.adjacency.tolist() == [[0.0]]
    assert found.groups == [(0,)]


def test_part_groups_of_two_blocks():
    cost = np.array([[0, 0.02, 0.3], [0.02, 0, 0.2], [0.3, 0.2, 0.0]])
    assert part_groups(cost) == [(0, 1), (2,)]


def test_noise_on_near_points_does_not_part_them():
    """Two points a few pixels apart on a link that swings widely, each found to a pixel or two."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 12, 300)
    centre = 80 * np.stack([np.cos(angle), np.sin(angle)], -1)
    points = np.stack([centre, centre * 1.05, np.full_like(centre, 30.0)], 1) + rng.normal(0, 1, (300, 3, 2))
    found = estimate_kinematics([(points, np.ones((300, 3)))])
    assert found.groups == [(0, 1), (2,)]
    assert edges(found.adjacency) == {(0, 1)}


def test_spectral_groups_cut_the_weak_link():
    graph = np.zeros((6, 6))
    for i, j, weight in [(0, 1, 1), (1, 2, 1), (0, 2, 1), (3, 4, 1), (4, 5, 1), (3, 5, 1), (2, 3, 0.01)]:
        graph[i, j] = graph[j, i] = weight
    assert spectral_groups(graph) == [(0, 1, 2), (3, 4, 5)]
    graph[2, 3] = graph[3, 2] = 0
    assert spectral_groups(graph) == [(0, 1, 2), (3, 4, 5)]


def test_numbers_leap_where_points_exchange_them():
    still = np.array([[[0.0, 0], [1, 0]], [[0.1, 0], [1.1, 0]]])
    assert numbers_leap([still]) == pytest.approx(1)
    exchanged = np.array([[[0.0, 0], [1, 0]], [[1.1, 0], [0.1, 0]]])
    assert numbers_leap([exchanged]) == pytest.approx((1.1**2 + 0.9**2) / (2 * 0.1**2))
    assert numbers_leap([still, exchanged]) == pytest.approx((1.1**2 + 0.9**2 + 2 * 0.1**2) / (4 * 0.1**2))
