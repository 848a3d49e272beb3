"""Unions of skeletons and the numbering of limbs, by hand-made poses."""

import numpy as np

from training.simulation.trees import Tree, from_the_left, numbered_by_place, place_matters, tell_apart, unite


def tree(**parents):
    """Joints by name with the name of their parent, "" for the root, which is first."""
    names = list(parents)
    adjacency = np.zeros((len(names), len(names)), bool)
    for name, parent in parents.items():
        if parent:
            i, j = names.index(name), names.index(parent)
            adjacency[i, j] = adjacency[j, i] = True
    return Tree.of(names, adjacency)


def test_a_shorter_chain_ends_where_its_last_joint_is():
    short, long = tree(a="", b="a"), tree(a="", b="a", c="b", d="c")
    union, (of_short, of_long) = unite([short, long])
    assert union == long
    assert union.edges.tolist() == [[0, 1], [1, 2], [2, 3]]
    pose = np.array([[0.0, 0.0], [0.5, 0.1]])
    assert pose[of_short].tolist() == [[0, 0], [0.5, 0.1], [0.5, 0.1], [0.5, 0.1]]
    assert of_long.tolist() == [0, 1, 2, 3]


def test_a_missing_leg_lies_on_the_root():
    one = tree(centre="", hip0="centre", foot0="hip0")
    two = tree(centre="", hip0="centre", foot0="hip0", hip1="centre", foot1="hip1")
    union, (of_two, of_one) = unite([two, one])
    assert union == two
    assert of_one.tolist() == [0, 1, 2, 0, 0] and of_two.tolist() == [0, 1, 2, 3, 4]


def test_bodies_of_different_shape_lie_over_one_another_from_their_roots():
    """The longer limb of one pairs with the longer of the other; what finds no partner is a joint of its own."""
    cat = tree(head="", neck="head", paw="neck", tail="neck", tip="tail")
    crane = tree(base="", arm="base", hook="arm", left="hook", right="hook")
    union, (of_cat, of_crane) = unite([cat, crane])
    assert union.names == ("head/base", "neck/arm", "paw", "tail/hook", "tip/left", "right")
    assert union.parents == (-1, 0, 1, 1, 3, 3)
    assert of_cat.tolist() == [0, 1, 2, 3, 4, 3]
    assert of_crane.tolist() == [0, 1, 1, 2, 3, 4]


def test_every_edge_of_a_body_is_drawn_by_the_union():
    bodies = [
        tree(a="", b="a", c="b", d="b"),
        tree(a="", b="a", c="b", d="c", e="c"),
        tree(a="", b="a", c="a", d="c", e="c", f="e"),
    ]
    union, stand_ins = unite(bodies)
    for body, own in zip(bodies, stand_ins, strict=True):
        drawn = {tuple(sorted(own[list(edge)])) for edge in union.edges.tolist()}
        assert {pair for pair in drawn if pair[0] != pair[1]} == set(map(tuple, body.edges.tolist()))


def test_legs_are_numbered_clockwise_from_the_right_of_the_picture():
    spider = tree(centre="", hip0="centre", foot0="hip0", hip1="centre", foot1="hip1", hip2="centre", foot2="hip2")
    up, left, right = (0.0, -1.0), (-1.0, 0.1), (1.0, 0.1)  # y is down
    pose = np.array([(0, 0), up, np.multiply(up, 2), left, np.multiply(left, 2), right, np.multiply(right, 2)])
    renumbered = tell_apart(spider, pose[None] + 5, [1, 3, 5])[0] - 5
    np.testing.assert_allclose(renumbered[[0, 1, 3, 5]], [(0, 0), right, left, up])
    np.testing.assert_allclose(renumbered[[2, 4, 6]], 2 * renumbered[[1, 3, 5]])


def test_legs_of_a_body_with_a_head_are_numbered_from_the_head_however_it_turns():
    walker = tree(head="", hips="head", right="hips", left="hips")
    pose = np.array([(0, -1), (0, 0), (-0.5, 1), (0.5, 1)], float)
    for angle in np.linspace(0, 2 * np.pi, 9):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        for swapped in (pose, pose[[0, 1, 3, 2]]):
            renumbered = tell_apart(walker, (swapped @ turn)[None], [2, 3])[0]
            np.testing.assert_allclose(renumbered @ turn.T, pose[[0, 1, 3, 2]], atol=1e-9)


def test_a_chain_begins_at_its_left_end():
    pose = np.array([[(3.0, 0.0), (2.0, 9.0), (1.0, 4.0)], [(1.0, 0.0), (2.0, 9.0), (3.0, 4.0)]])
    assert from_the_left(pose)[..., 0].tolist() == [[1, 2, 3], [1, 2, 3]]


def test_only_objects_with_limbs_that_look_alike_are_numbered_by_place():
    chain = np.eye(3, k=1, dtype=bool) | np.eye(3, k=-1, dtype=bool)
    pose = np.array([[(3.0, 0.0), (2.0, 9.0), (1.0, 4.0)]])
    names = ("a", "b", "c")
    assert place_matters("swimmer2", names, chain) and not place_matters("cartpole2", names, chain)
    assert numbered_by_place("swimmer2", names, chain, pose)[0, :, 0].tolist() == [1, 2, 3]
    assert numbered_by_place("cartpole2", names, chain, pose) is pose
    knees = ("left_knee", "hips", "right_knee")
    assert place_matters("walker", knees, chain)
    assert not place_matters("walker", names, chain)  # somebody else's walker
    assert not place_matters("walker", knees, chain & False)  # without a skeleton
