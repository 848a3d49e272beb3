"""Which frames are fitted on, and the figures that come of it."""

from dataclasses import replace

import numpy as np
import pytest
from predictions import video

from keypoint_perception.errors import UserError
from training.evaluation.predicted import SingleImages
from training.evaluation.regression import fit_frames, fitted_on, label_efficiency, labels, points_by_place, regression


def moving(seed, frames=8, joints=2, **fields):
    """Keypoints that are the joints."""
    points = np.random.default_rng(seed).uniform(-0.9, 0.9, (frames, joints, 2))
    return video(points, points, name=f"video{seed}", **fields)


def test_one_video_is_cut_in_time_and_several_are_dealt_whole():
    assert fit_frames([moving(0, frames=5)])[0].tolist() == [True, True, False, False, False]
    assert [fit.all() for fit in fit_frames([moving(0), moving(1), moving(2)])] == [True, False, False]


def test_the_split_of_the_data_comes_first():
    chosen = np.array([False, True] * 4)
    assert fit_frames([moving(0, fit=chosen)])[0].tolist() == chosen.tolist()
    (part,) = labels([moving(0, fit=chosen)])
    assert len(part.train) == len(part.test) == 4


def test_labels_of_other_data_are_all_fitted_on_and_none_of_what_is_measured():
    other, part = labels(fitted_on([moving(0), moving(1, variant="other")], [moving(2), moving(3, variant="other")]))
    assert (len(part.train), len(part.test)) == (len(other.train), len(other.test)) == (8, 8)
    assert part.train == pytest.approx(moving(0).points) and part.test == pytest.approx(moving(2).points)
    assert fitted_on([], [moving(2)])[0].video.fit is None


def test_what_the_labels_do_not_show_is_named():
    with pytest.raises(UserError, match="labels of walker, and of cheetah, hopper none"):
        fitted_on([moving(0, variant="walker")], [moving(1, variant=name) for name in ("walker", "hopper", "cheetah")])


def test_labels_of_other_joints_are_refused():
    with pytest.raises(UserError, match="joints of thing are a, b in the data to fit on, and b, a in what is measured"):
        fitted_on([moving(0, names=("a", "b"))], [moving(1, names=("b", "a"))])
    with pytest.raises(UserError, match="2 without names in the data to fit on, and 3 without names"):
        fitted_on([moving(0)], [moving(1, joints=3)])


def test_variants_are_fitted_apart():
    videos = [moving(0, joints=2, variant="a"), moving(1, joints=3, variant="b"), moving(2, joints=3, variant="b")]
    assert [part.train_joints.shape for part in labels(videos)] == [(4, 2, 2), (8, 3, 2)]


def test_keypoints_that_are_the_joints_leave_no_error():
    figures = regression([moving(0), moving(1)])
    assert figures["error"] == pytest.approx(0, abs=1e-9) and figures["rmse"] == pytest.approx(0, abs=1e-9)
    assert figures["pck"] == 1 and figures["baseline_mean_pose"] > 0.3


def test_keypoints_that_never_move_are_the_mean_pose():
    joints = np.array([[[-0.5, 0.0]], [[0.5, 0.0]], [[0.0, 0.3]], [[0.0, -0.3]]])  # the mean of the first two is 0, 0
    figures = regression([video(np.zeros((4, 1, 2)), joints)])
    assert figures["error"] == pytest.approx(0.3) and figures["baseline_mean_pose"] == pytest.approx(0.3)
    assert figures["mean_absolute"] == pytest.approx(0.15) and figures["rmse"] == pytest.approx(0.3 / 2**0.5)


def test_a_pose_without_labels_is_no_measure():
    nowhere = np.full((4, 1, 2), np.nan)
    assert set(regression([video(np.zeros((4, 1, 2)), nowhere)]).values()) == {None}


def test_a_joint_that_is_annotated_only_where_errors_are_measured_is_named():
    joints = np.zeros((4, 2, 2))
    joints[:2, 1] = np.nan
    with pytest.raises(UserError, match=r"of thing are .* nowhere where they are fitted: tail: fit on other frames"):
        regression([video(np.zeros((4, 1, 2)), joints, names=("nose", "tail"))])
    assert regression([video(np.zeros((4, 1, 2)), joints[::-1])])["error"] == pytest.approx(0)  # never measured


def test_more_labels_help_until_the_map_is_known():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (400, 4, 2))
    curve = label_efficiency([video(points, points[:, :2] + rng.normal(0, 0.01, (400, 2, 2)))])
    assert list(curve) == ["1", "10", "100", "all"]
    assert curve["1"] > curve["10"] > curve["100"] >= 0.9 * curve["all"] > 0
    assert curve["all"] < 0.03 < curve["1"]


def test_the_curve_ends_with_what_there_is():
    assert list(label_efficiency([moving(0, frames=8)])) == ["1", "all"]  # 4 frames to fit on


def test_ends_that_look_alike_are_numbered_by_their_place():
    """A swimmer's left end is fitted, whichever of its ends that is in a video."""
    ends = np.random.default_rng(0).uniform(0.1, 0.9, (8, 2, 2)) * [[-1, 1], [1, 1]]
    chain = ~np.eye(2, dtype=bool)
    named = {"adjacency": chain, "names": ("joint0", "joint1"), "variant": "swimmer1"}
    videos = [video(ends, ends, name="a", **named), video(ends, ends[:, ::-1], name="b", **named)]
    assert regression(videos)["error"] == pytest.approx(0, abs=1e-9)
    others = [v.__class__(**{**vars(v), "video": v.video._replace(variant="rod")}) for v in videos]
    assert regression(others)["error"] > 0.5


def test_limbs_that_are_alike_are_fitted_by_their_place():
    """The same two legs, right and below: tracked under other numbers in every video."""
    rng = np.random.default_rng(0)
    body = rng.uniform(-0.3, 0.3, (9, 1, 2))
    legs = body + [[0.5, 0.1], [0.1, 0.5]] + rng.uniform(-0.05, 0.05, (9, 2, 2))
    truth, videos = np.concatenate([body, legs], axis=1), []
    for name, numbers in (("a", [1, 2, 0]), ("b", [2, 1, 0])):
        points = np.concatenate([truth[:, [0]], truth[:, numbers]], axis=1)  # the fourth keypoint is no leg
        found = replace(video(points, truth, name=name), alike=(((1,), (2,), (3,)),), parent=(-1, 0, 0, 0))
        found.linked[:, 3] = False
        videos.append(found)
    assert points_by_place(videos[1])[:, 1:3] == pytest.approx(truth[:, 1:])
    assert regression(videos)["error"] == pytest.approx(0, abs=1e-9)


def test_a_chain_that_may_begin_at_either_end_is_fitted_from_the_left():
    """A chain of three joints and a fourth keypoint that it lacks, begun at the right end in the second video."""
    rng = np.random.default_rng(0)
    chain = np.array([[-0.6, 0.1], [0.0, 0.3], [0.6, -0.2]]) + rng.uniform(-0.1, 0.1, (8, 3, 2))
    spare = rng.uniform(-1, 1, (8, 1, 2))
    videos = []
    for name, points in (("a", chain), ("b", chain[:, ::-1])):
        found = replace(video(np.concatenate([points, spare], axis=1), chain, name=name), either_end=True)
        found.linked[:, 3] = False
        videos.append(found)
    assert points_by_place(videos[1])[:, :3] == pytest.approx(chain)
    assert regression(videos)["error"] == pytest.approx(0, abs=1e-9)


def test_single_points_are_regressed_by_the_model_s_own_numbers():
    """Over time the second video's points have other numbers, as its first image had."""
    videos = [moving(0), moving(1)]
    for number, found in enumerate(videos):
        exchanged = replace(found, points=found.points[:, ::-1] if number else found.points)
        single = SingleImages(found.points, np.zeros((2, 2)))
        videos[number] = replace(exchanged, single=single, alike=(((0,), (1,)),), parent=(-1, -1))
    assert regression(videos)["error"] == pytest.approx(0, abs=1e-9)


def test_single_points_that_are_alike_have_the_model_s_numbers_also_where_nothing_was_followed():
    """As of pictures that do not follow one another."""
    alike = (((0,), (1,), (2,)),)
    videos = [replace(moving(seed, joints=3), alike=alike, parent=(-1, -1, -1)) for seed in (0, 1)]
    assert regression(videos)["error"] == pytest.approx(0, abs=1e-9)


def test_a_draw_of_labels_that_lacks_a_joint_does_not_count():
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (50, 2, 2))
    joints = points.copy()
    whole = label_efficiency([video(points, joints)])["10"]
    joints[1:25, 1] = np.nan  # of the 25 frames to fit on one has it
    found = label_efficiency([video(points, joints)])
    assert whole == pytest.approx(0, abs=1e-6)
    assert found["1"] is None, "no draw of one has that one"
    assert found["10"] > 0.01, "from a single label, in those draws that have it"
