"""Joints that links hold together: which of their places they take."""

import itertools

import numpy as np
import pytest

from keypoint_perception.linkage import Linkage

ABOVE = np.array([-1, 0, 1, 1, 3])
BODY = np.array([[20.0, 20], [40, 20], [60, 20], [40, 40], [40, 60]])
ALL = np.ones(5, bool)
WIDTH = 100


def seen(joints):
    """One place a joint: where the model saw it, which costs nothing."""
    return np.asarray(joints, float)[:, None], np.zeros((len(joints), 1))


def after(images, there=ALL):
    """A linkage that has seen a body of the joints that are `there` in some images."""
    linkage = Linkage(ABOVE)
    for _ in range(images):
        linkage(*seen(BODY), there, WIDTH)
        linkage.learn(BODY, there)
    return linkage


def assert_as_seen(linkage, joints, there=ALL):
    """That the next image's joints stay where the model saw them."""
    found, put = linkage(*seen(joints), there, WIDTH)
    np.testing.assert_allclose(found, joints)
    assert not put.any()


def test_joints_are_where_they_are_seen_while_links_have_their_lengths():
    linkage = after(20)
    for angle in np.linspace(0, np.pi, 20):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        turned = BODY + 0.0
        turned[3:] = BODY[1] + (BODY[3:] - BODY[1]) @ turn
        assert_as_seen(linkage, turned)


def test_a_joint_where_its_links_do_not_reach_is_put_where_it_is_expected():
    linkage = after(20)
    wrong = BODY.copy()
    wrong[3] = [70, 45]
    joints, put = linkage(*seen(wrong), ALL, WIDTH)
    np.testing.assert_allclose(joints, BODY)
    assert put.tolist() == [False, False, False, True, False]


def test_a_joint_that_goes_on_being_elsewhere_is_believed():
    linkage = after(20)
    longer = BODY.copy()
    longer[2] = [75, 20]
    put = [bool(linkage(*seen(longer), ALL, WIDTH)[1][2]) for _ in range(30)]
    assert put[0] and not put[-1] and sorted(put, reverse=True) == put


def test_a_body_may_leap():
    """As between the images of a slow camera."""
    linkage = after(20)
    for leap in ([30, 0], [-20, 30], [5, 5]):
        assert_as_seen(linkage, BODY + leap)


def test_a_link_that_is_seen_ever_more_from_its_end_is_believed():
    linkage = after(20)
    for angle in np.linspace(0, 1.5, 60):
        nearer = BODY.copy()
        nearer[2, 0] = 40 + 20 * np.cos(angle)
        joints, _ = linkage(*seen(nearer), ALL, WIDTH)
        linkage.learn(nearer, ALL)
        np.testing.assert_allclose(joints, nearer)


def test_usual_lengths_are_a_mean_that_the_newest_image_weighs_in_by_a_twentieth():
    linkage = after(1)
    np.testing.assert_allclose(linkage.lengths[1:], 20)
    longer = BODY.copy()
    longer[2, 0] = 70
    linkage.learn(longer, ALL)
    np.testing.assert_allclose(linkage.lengths[1:], [20, 25, 20, 20])
    for _ in range(98):
        linkage.learn(BODY, ALL)
    usual = linkage.lengths[2]
    linkage.learn(longer, ALL)
    np.testing.assert_allclose(linkage.lengths[2], usual + 0.05 * (30 - usual))
    linkage.learn(np.zeros((5, 2)), np.array([True, True, False, False, False]))
    np.testing.assert_allclose(linkage.lengths[3:], 20, err_msg="links that are not seen stay as they were")


def energy(places, costs, usual, varies):
    """What each choice of one place a joint costs, by its definition: places (K, C, 2), costs (K, C)."""
    for choice in itertools.product(range(places.shape[1]), repeat=len(places)):
        joints = places[np.arange(len(places)), choice]
        links = np.linalg.norm(joints[1:] - joints[ABOVE[1:]], axis=1)
        stretch = np.maximum(np.abs(links - usual) - varies, 0)
        yield costs[np.arange(len(places)), choice].sum() + 2 * stretch.sum(), joints


@pytest.mark.parametrize("seed", range(5))
def test_no_other_choice_costs_less(seed):
    rng = np.random.default_rng(seed)
    linkage = after(100)
    places = BODY[:, None] + rng.normal(0, 8, (5, 3, 2))
    costs = rng.uniform(0, 8, (5, 3)) * [0, 1, 1]
    joints, put = linkage(places, costs, ALL, WIDTH)
    away = np.linalg.norm(places - BODY[:, None], axis=-1)
    expected = 3.5 + 0.3 * np.maximum(away[:, 0] - 10, 0)
    every = np.concatenate([places, BODY[:, None]], axis=1)
    _, best = min(
        energy(every, np.column_stack([costs + 0.3 * away, expected]), 20, 1 + 20 / 100),
        key=lambda one: one[0],
    )
    np.testing.assert_allclose(joints, best)
    assert put.tolist() == (best == BODY).all(axis=1).tolist()


def test_joints_that_the_body_lacks_hold_nothing():
    lacks = np.array([True, True, True, False, False])
    far = BODY.copy()
    far[3:] = 0
    assert_as_seen(after(5, lacks), far, lacks)


def test_a_joint_that_is_no_number_is_forgotten_as_soon_as_it_is_one():
    linkage = after(20)
    broken = BODY.copy()
    broken[3] = np.nan
    linkage(*seen(broken), ALL, WIDTH)
    linkage.learn(broken, ALL)
    np.testing.assert_allclose(linkage.lengths[1:], 20)
    linkage(*seen(BODY), ALL, WIDTH)
    assert_as_seen(linkage, BODY)
