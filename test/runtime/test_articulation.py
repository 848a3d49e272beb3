"""The tree that explains the points of a body in many images at the least cost."""

import numpy as np
import pytest

from keypoint_perception.articulation import articulated_tree, distances_to_links


def tree(points, weight=None):
    """The links, as pairs, of points (T, K) x + iy."""
    points = np.asarray(points)
    found = articulated_tree(points, np.ones(points.shape[1]) if weight is None else np.asarray(weight))
    return sorted(tuple(link) for link in found.tolist())


def bending(images=12):
    """Nine points on two rods of length 0.6 that turn, and bend in point 4, where they meet: (T, 9)."""
    along = np.linspace(0, 0.6, 5)
    first, bend = np.linspace(0, 1, images)[:, None], np.linspace(-np.pi / 2, np.pi / 2, images)[:, None]
    return np.exp(1j * first) * np.concatenate([-along[::-1] + 0 * bend, along[1:] * np.exp(1j * bend)], axis=1)


def test_joints_are_where_the_body_bends():
    assert tree(bending()) == [(0, 4), (4, 8)]


def test_a_rod_that_never_bends_has_no_joint_inside():
    turning = np.linspace(-0.6, 0.6, 9) * np.exp(1j * np.linspace(0, 2, 10))[:, None]
    assert tree(turning) == [(0, 8)]


def test_three_rods_that_meet():
    angles = np.linspace(0, 1, 10)
    ends = [0.5 * np.exp(1j * (start + speed * angles)) for start, speed in ((0, 1), (2, -1), (4, 0.5))]
    middles = [end / 2 for end in ends]
    assert tree(np.stack([0 * angles, *ends, *middles], axis=1)) == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize(
    ("points", "links"),
    [
        ([0, 0.5, 0.5 + 0.5j, 1 + 0.5j], [(0, 1), (1, 2), (2, 3)]),
        ([0, 0.5, 0.5j, -0.5, -0.5j], [(0, 1), (0, 2), (0, 3), (0, 4)]),
        ([-0.5j, 0, 0.5, -0.5, 0.5j], [(0, 1), (1, 2), (1, 3), (1, 4)]),
    ],
)
def test_each_corner_and_each_limb_of_a_body_with_few_points_is_linked(points, links):
    assert tree([points]) == links


CART = np.array([-0.2 - 0.1j, -0.2 + 0.1j, 0.2 - 0.1j, 0.2 + 0.1j, 0])
POLE = np.array([0.15, 0.3, 0.45, 0.6])


def test_what_moves_as_one_with_a_joint_needs_no_links_of_its_own():
    """The corners of a cart: no link is near them, but they stay where they are beside the joint of the pole."""
    shift = np.linspace(-0.3, 0.3, 12)
    poles = POLE * np.exp(1j * np.linspace(-2.5, -0.5, 12))[:, None]
    cart = CART + shift[:, None]
    assert tree(np.concatenate([cart, poles + shift[:, None]], axis=1)) == [(4, 8)]


def test_of_a_body_that_was_not_seen_to_bend_place_alone_says_what_belongs_to_a_link():
    still = np.concatenate([CART, -1j * POLE])[None]
    linked = {joint for link in tree(np.repeat(still, 5, axis=0)) for joint in link}
    assert len(linked & {0, 1, 2, 3}) >= 3
    assert 8 in linked


@pytest.mark.parametrize(("away", "linked"), [(0.05, False), (0.13, True), (0.30, True)])
def test_a_point_beside_a_link_is_a_joint_if_it_is_worth_one(away, linked):
    """By hand, in one image. A link from the end B of AB to C, away by d, costs 0.1 + 0.17 d + 3.3 max(0.12 - d, 0).

    At 0.05 B and C are one place: C is worth (1 - exp(-0.39)) / 2 = 0.16, less than the 0.34 of the link. At 0.13 it is
    worth 1 - exp(-2.64) = 0.93 and the link costs 0.12.
    """
    assert (len(tree([[-0.5, 0.5, 0.5 + 1j * away]])) == 2) == linked


def test_points_that_do_not_belong_to_the_body_are_not_linked():
    body = bending()
    points = np.concatenate([body, 1.5 * body[:, 8:]], axis=1)  # one more, beyond the end of the second rod
    assert tree(points, [1] * 9 + [0]) == [(0, 4), (4, 8)]
    assert tree(points) == [(0, 4), (4, 9)]


def test_the_order_of_the_points_does_not_matter():
    points, order = bending(), np.random.default_rng(0).permutation(9)
    expected = sorted(tuple(sorted(np.argsort(order)[list(link)].tolist())) for link in tree(points))
    assert tree(points[:, order]) == expected


def test_two_points_have_one_link():
    assert tree([[0, 0.4]]) == [(0, 1)]


def test_distances_to_links_are_those_to_segments():
    points = np.array([0, 1, 0.5 + 0.2j, 2 + 0j, -0.3 + 0.4j])
    assert np.allclose(distances_to_links(points, np.array([[0, 1]])), [[0, 0, 0.2, 1, 0.5]])
    assert distances_to_links(points, np.empty((0, 2), int)).shape == (0, 5)
