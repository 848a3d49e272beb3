"""One body over time: its limbs keep their numbers, its joints are counted, hidden ones stay in place."""

from dataclasses import replace

import numpy as np

from keypoint_perception.model import ModelInfo
from keypoint_perception.observation import Observation
from keypoint_perception.smoothing import Follower
from keypoint_perception.tracking import LimbTracker, body_tracker

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


def test_scores_go_with_the_leg():
    track = LimbTracker(INFO, max_gap=1.0)
    track(seen(LEGS), 0.0)
    found = track(seen(LEGS[[1, 2, 0]], scores=(0.9, 0.8, 0.7)), 0.1)
    np.testing.assert_allclose(found.scores, [1, 0.7, 0.7, 0.9, 0.9, 0.8, 0.8], atol=1e-6)
    assert found.edges().tolist() == [[0, 1], [0, 3], [0, 5], [1, 2], [3, 4], [5, 6]]


def test_the_skeleton_is_what_most_images_spoke_for():
    track = LimbTracker(INFO, max_gap=1.0)
    found = track(seen(LEGS, scores=(0.9, 0.8, 0.1)), 0.0)
    assert found.edges().tolist() == [[0, 1], [0, 3], [1, 2], [3, 4]]
    np.testing.assert_allclose([found.adjacency[1, 2], found.adjacency[4, 3], found.adjacency[5, 0]], [0.9, 0.8, 0.1])
    found = track(seen(LEGS, scores=(0.9, 0.2, 0.3)), 0.1)
    odds = 0.8 / 0.2 * (0.2 / 0.8)
    np.testing.assert_allclose(found.adjacency[3, 0], odds / (1 + odds), atol=1e-6)
    assert track(seen(LEGS, scores=(0.9, 0.9, 0.9)), 0.2).edges().tolist() == [[0, 1], [0, 3], [1, 2], [3, 4]]
    assert len(track(seen(LEGS, scores=(0.9, 0.9, 0.9)), 0.3).edges()) == 6, "the third leg, two images against two"


def coloured(directions, hues):
    """As `seen`, with the colours of the legs' links."""
    colours = np.array([[1.0, 1, 1], *np.repeat(hues, 2, axis=0)], np.float32)
    return replace(seen(directions), colours=colours)


def test_legs_that_cross_are_told_apart_by_their_colours():
    legs = np.array([[30.0, 3.0], [30.0, -3.0], [-30.0, 0.0]])
    crossed = legs[[1, 0, 2]]
    red, orange, green = [1, 0, 0], [1, 0.5, 0], [0, 1, 0]
    for hues, expected in (([red, orange, green], crossed), ([red, red, green], legs)):
        track = LimbTracker(INFO, max_gap=1.0)
        track(coloured(legs, hues), 0.0)
        found = track(coloured(legs, [hues[1], hues[0], hues[2]]), 0.1)  # the model goes by their place
        assert tips(found) == expected.tolist()
    assert tips(track(seen(legs[[1, 0, 2]]), 0.2)) == legs.tolist(), "without colours by place alone"


def test_a_leg_elsewhere_is_not_taken_for_one_because_of_its_colour():
    legs = np.array([[30.0, 0.0], [-30.0, 0.0], [0.0, 30.0]])
    red, orange, green = [1, 0, 0], [1, 0.5, 0], [0, 1, 0]
    track = LimbTracker(INFO, max_gap=1.0)
    track(coloured(legs, [red, orange, green]), 0.0)
    assert tips(track(coloured(legs, [orange, red, green]), 0.1)) == legs.tolist(), "60 pixels in one image"


def test_a_leg_that_was_hidden_is_known_by_its_colour():
    legs = np.array([[30.0, 3.0], [30.0, -3.0], [-30.0, 0.0]])
    hues = [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    track = LimbTracker(INFO, max_gap=1.0)
    for image in range(5):
        track(coloured(legs, hues), image / 30)
    for image in range(5, 10):  # one leg covers the other: what is seen at the hidden one's place is no colour of it
        one = replace(coloured(legs, hues[:1] * 2 + hues[2:]), scores=np.array([1, 1, 1, 0.1, 0.1, 1, 1], np.float32))
        track(one, image / 30)
    found = track(coloured(legs[[1, 0, 2]], hues), 10 / 30)
    assert tips(found) == legs[[1, 0, 2]].tolist()


def test_a_body_that_changes_is_believed_after_as_many_images_at_most_as_are_remembered():
    track = LimbTracker(INFO, max_gap=1.0)
    for image in range(100):
        track(seen(LEGS), image / 30)
    lost = [len(track(seen(LEGS, scores=(1, 1, 0)), image / 30).edges()) for image in range(100, 125)]
    assert lost[:19] == [6] * 19 and lost[21:] == [4] * 4


def test_a_leg_that_was_hidden_has_its_number_back():
    track = LimbTracker(INFO, max_gap=1.0)
    track(seen(LEGS), 0.0)
    hidden = track(seen([LEGS[1], LEGS[2], [5, 5]], scores=(1, 1, 0.1)), 0.1)
    assert tips(hidden) == LEGS.tolist(), "it is where it was"
    assert hidden.scores[1] < 0.5 and [0, 1] in hidden.edges().tolist(), "not seen, and still part of the body"
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


def chain(*xs, last=0.1, end=7.0):
    """Joints at xs in a picture 100 pixels wide, and a fourth at `end` that is there as far as `last` says."""
    keypoints = np.array([[x, 50.0] for x in (*xs, end)], np.float32)
    adjacency = np.diag([0.9, 0.8, last], 1)
    return Observation(keypoints, np.array([1, 0.9, 0.8, last]), adjacency + adjacency.T, (100, 100))


def test_a_chain_goes_on_from_the_end_where_it_began():
    track = LimbTracker(CHAIN, max_gap=1.0)
    assert track(chain(10, 30, 60), 0.0).keypoints[:, 0].tolist() == [10, 30, 60, 7]
    turned = track(chain(62, 31, 11), 0.1)
    assert turned.keypoints[:, 0].tolist() == [11, 31, 62, 7]
    np.testing.assert_allclose(turned.scores[:3], [0.8, 0.9, 1])
    assert turned.scores[3] < 0.1
    assert track(chain(12, 30, 61), 0.2).keypoints[:, 0].tolist() == [12, 30, 61, 7]
    assert track(chain(61, 30, 12), 5.0).keypoints[:, 0].tolist() == [61, 30, 12, 7], "after a gap"


def test_a_joint_that_an_image_overlooks_is_put_where_the_links_of_a_chain_are_wont_to_meet():
    track = LimbTracker(CHAIN, max_gap=1.0)
    for image in range(3):
        track(chain(10, 20, 40, last=0.9, end=80), image / 30)
    straight = track(chain(12, 42, 82), 0.1)
    np.testing.assert_allclose(straight.keypoints[:, 0], [12, 22, 42, 82], atol=1e-4)
    assert len(straight.edges()) == 3 and straight.scores[3] < 0.5


def test_a_joint_too_many_is_left_out_of_a_chain():
    track = LimbTracker(CHAIN, max_gap=1.0)
    for image in range(3):
        track(chain(10, 30, 60), image / 30)
    found = track(chain(12, 32, 50, last=0.9, end=62), 0.1)
    np.testing.assert_allclose(found.keypoints[:3, 0], [12, 32, 62], atol=1e-4)
    assert found.edges().tolist() == [[0, 1], [1, 2]] and found.scores[3] < 0.5


def test_a_joint_seen_twice_does_not_move_the_others_along_a_chain():
    """The model takes the first joint for two, and the rest for one further on each; the last has no number left."""
    track = LimbTracker(CHAIN, max_gap=1.0)
    for image in range(10):
        track(chain(10, 30, 60, last=0.9, end=80), image / 30)
    found = track(chain(10, 12, 30, last=0.9, end=60), 10 / 30)
    np.testing.assert_allclose(found.keypoints[:, 0], [10, 30, 60, 80], atol=1e-4)
    assert found.scores[3] < 0.5 < found.scores[:3].min(), "the last joint was not seen"


def test_legs_within_a_body_that_look_alike_keep_their_numbers_too():
    """Two legs of two joints at the hips, keypoint 1, which the head, 0, is above: no limbs of the root."""
    info = replace(INFO, keypoint_names=tuple("abcdef"), parent=(-1, 0, 1, 2, 1, 4), level=(0, 1, 2, 3, 2, 3), alike=())
    track = LimbTracker(info, max_gap=1.0)

    def walker(left, right):
        keypoints = np.array([[50, 10], [50, 30], [left / 2, 50], [left, 70], [right / 2, 50], [right, 70]], np.float32)
        return Observation(keypoints, np.ones(6, np.float32), np.zeros((6, 6), np.float32), (100, 100))

    track(walker(20, 80), 0.0)
    assert track(walker(78, 22), 0.1).keypoints[[3, 5], 0].tolist() == [22, 78]


def test_limbs_move_as_little_as_they_can_all_together():
    """The first leg is nearest to where the second was, which would then have to move a long way."""
    track = LimbTracker(INFO, max_gap=1.0)
    track(seen([[20, 0], [30, 0], [-30, -30]]), 0.0)
    assert tips(track(seen([[29, 0], [41, 0], [-30, -30]]), 0.1)) == [[29, 0], [41, 0], [-30, -30]]


def test_keypoints_and_scores_that_are_no_numbers_end_nothing():
    track = LimbTracker(INFO, max_gap=1.0)
    track(seen(LEGS), 0.0)
    track(seen(LEGS * np.nan), 0.1)
    track(seen(LEGS, scores=(np.nan, 1, 1)), 0.2)
    assert tips(track(seen(LEGS), 0.3)) == LEGS.tolist()


def test_a_model_with_a_fixed_skeleton_is_left_alone():
    observation = seen(LEGS)
    assert body_tracker(replace(INFO, adjacency=((0.0,) * 7,) * 7), 1.0)(observation, 0.0) is observation


def test_what_speaks_for_a_joint_as_much_as_against_it_is_no_edge():
    track = LimbTracker(INFO, max_gap=1.0)
    for time, score in ((0.0, 0.99), (0.1, 0.01)):
        found = track(seen(LEGS, (1, 1, score)), time)
    assert found.edges().tolist() == [[0, 1], [0, 3], [1, 2], [3, 4]]
    assert track(seen(LEGS, (1, 1, 0.99)), 0.2).edges().tolist()[2] == [0, 5]
