import numpy as np
import pytest

from keypoint_perception.errors import UserError
from training.evaluation.landmarks import (
    PENALTIES,
    Regressor,
    correct_share,
    direct_error,
    interocular_distance,
    mean_absolute_error,
    mean_error,
    mean_pose,
    mean_pose_error,
    mirror_of,
    ridge,
    root_mean_square_error,
    summed_absolute_error,
    torso_length,
)
from training.evaluation.stability import jitter, on_object_share, on_skeleton_share, same_part_share


def test_regression_recovers_a_linear_map_of_corner_coordinates():
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-1, 1, (50, 3, 2))
    joints = 3 * (keypoints[:, :2] + 1) / 2
    predicted = Regressor.fit(keypoints, joints).predict(keypoints)
    assert predicted == pytest.approx(joints)


def test_a_constant_offset_needs_the_bias():
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-1, 1, (50, 1, 2))
    joints = (keypoints + 1) / 2 + 7
    assert mean_error(Regressor.fit(keypoints, joints, bias=True).predict(keypoints), joints) < 1e-9
    assert mean_error(Regressor.fit(keypoints, joints).predict(keypoints), joints) > 0.5


def test_keypoints_that_hardly_move_cannot_do_worse_than_the_mean_pose():
    rng = np.random.default_rng(0)
    keypoints, joints = 1e-6 * rng.normal(size=(100, 4, 2)), rng.uniform(0, 1, (100, 1, 2))
    regressor = Regressor.fit(keypoints[:50], joints[:50])
    assert mean_error(regressor.predict(keypoints[50:]), joints[50:]) < 1.1 * mean_pose_error(joints[:50], joints[50:])


def test_errors_by_hand():
    joints = np.zeros((2, 1, 2))
    predicted = np.array([[[3.0, 4.0]], [[0.0, 0.0]]])
    assert mean_error(predicted, joints) == 2.5
    assert mean_error(predicted, joints, normaliser=np.array([5.0, 1.0])) == 0.5
    assert root_mean_square_error(predicted, joints) == 2.5  # sqrt((9 + 16) / 4)
    assert mean_absolute_error(predicted, joints) == 1.75  # (3 + 4) / 4
    assert summed_absolute_error(predicted, joints) == 3.5  # 1.5 + 2
    assert np.isnan(summed_absolute_error(np.full((2, 1, 2), np.nan), joints))  # not the best of all
    assert correct_share(predicted, joints, threshold=5) == 0.5  # a distance of exactly 5 is not below 5
    assert mean_pose_error(np.array([[[0.0, 0]], [[6.0, 8]]]), joints) == 5


def test_mirrored_poses_count_only_when_asked():
    pose = np.array([[[0.0, 0.0], [2.0, 0.0]]])
    assert direct_error(pose[:, ::-1], pose) == 2
    assert direct_error(pose[:, ::-1], pose, mirror=np.array([1, 0])) == 0


def test_each_image_counts_the_same_in_the_direct_error_however_many_joints_it_has():
    joints = np.zeros((3, 3, 2))
    joints[1, 1:] = joints[2] = np.nan  # one joint of the second image is annotated, and none of the third
    predicted = np.zeros((3, 3, 2))
    predicted[0], predicted[1] = (3, 4), (0, 0)
    assert direct_error(predicted, joints) == (5 + 0) / 2  # and not (5 + 5 + 5 + 0) / 4 = 3.75
    assert direct_error(predicted, joints, mirror=np.array([1, 0, 2])) == 2.5
    assert np.isnan(direct_error(predicted[2:], joints[2:]))


def test_on_object_share_counts_keypoints_near_the_mask():
    masks = np.zeros((1, 5, 5), bool)
    masks[0, 2, 2] = True
    keypoints = np.array([[[2, 2], [3, 2], [4, 4]]], float)  # centre, one pixel beside it, the corner
    assert on_object_share(keypoints, masks) == pytest.approx(2 / 3)


def test_same_part_share_and_jitter():
    joints = np.array([[[0, 0], [1, 0]]] * 4, float)
    keypoints = np.zeros((4, 1, 2))
    keypoints[3, 0, 0] = 1
    assert same_part_share(keypoints, joints) == 0.75
    assert jitter(np.arange(8.0).reshape(4, 1, 2)) == 0
    assert jitter(np.array([[[0.0, 0]], [[1, 0]], [[0, 0]]])) == 2


def test_on_skeleton_share_is_the_distance_to_the_nearest_link():
    joints = np.array([[[0, 0], [0.5, 0]]], float)
    link = ~np.eye(2, dtype=bool)
    keypoints = np.array([[[0.25, 0.09], [0.59, 0], [0.65, 0], [0.25, -0.3]]])  # beside it, at its end, beyond, off
    assert on_skeleton_share(keypoints, joints, link) == 0.5


def test_frames_without_a_whole_link_say_nothing_about_being_on_the_skeleton():
    joints = np.array([[[0, 0], [0.5, 0]], [[0, 0], [np.nan, np.nan]]])
    keypoints, link = np.full((2, 1, 2), 0.01), ~np.eye(2, dtype=bool)
    assert on_skeleton_share(keypoints, joints, link) == 1
    assert np.isnan(on_skeleton_share(keypoints[1:], joints[1:], link))


def test_joints_that_are_not_annotated_are_neither_fitted_nor_measured():
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-1, 1, (40, 3, 2))
    truth = (keypoints + 1) / 2
    joints = truth.copy()
    joints[::2, 0] = np.nan  # joint 0 in every second frame only
    joints[:, 2] = np.nan  # joint 2 never
    predicted = Regressor.fit(keypoints, joints).predict(keypoints)
    assert predicted[:, :2] == pytest.approx(truth[:, :2]) and np.isnan(predicted[:, 2]).all()
    assert mean_error(predicted, joints) < 1e-9


def test_a_joint_counts_as_often_as_it_is_annotated():
    joints = np.zeros((4, 2, 2))
    joints[1:, 1] = np.nan  # joint 1 is annotated once
    predicted = np.zeros((4, 2, 2))
    predicted[0] = (3, 4)
    assert mean_error(predicted, joints) == (5 + 5) / 5
    assert mean_pose(joints).tolist() == [[0, 0], [0, 0]]
    assert correct_share(predicted, joints, threshold=1) == 3 / 5


def test_counterparts_are_found_by_name():
    assert mirror_of(("nose", "left_hip", "right_hip")).tolist() == [0, 2, 1]
    assert mirror_of(("R_knee", "L_knee")).tolist() == [1, 0]
    assert mirror_of(("LeftEye", "RightEye", "tail")).tolist() == [1, 0, 2]
    assert mirror_of(("joint_0", "roller")) is None  # neither names a side


def test_joints_without_a_side_keep_their_place_however_often_a_name_is_there():
    assert mirror_of(("site", "site", "left_x", "right_x")).tolist() == [0, 1, 3, 2]
    assert mirror_of(("left_x", "Site", "right_x", "tail", "site")).tolist() == [2, 1, 0, 3, 4]
    assert mirror_of(("site", "left_x")) is None  # whose counterpart is not annotated


def test_joints_of_a_side_with_one_name_are_refused():
    with pytest.raises(UserError, match="more than one left_x: give each joint that has a side a name of its own"):
        mirror_of(("left_x", "right_x", "left_x"))
    with pytest.raises(UserError, match="more than one LeftX"):
        mirror_of(("LeftX", "left_x"))


def test_a_first_letter_in_capitals_is_a_side_where_there_is_its_counterpart():
    assert mirror_of(("LHIP", "RHIP", "LIP", "RANKLE", "LANKLE", "NOSE")).tolist() == [1, 0, 2, 4, 3, 5]
    assert mirror_of(("LHIP", "RHIP_2")) is None
    assert mirror_of(("lower_leg", "rim", "LIP", "RIM", "rip", "L", "roller")) is None
    assert mirror_of(("RIGHT_EYE", "LEFT_EYE", "LHip", "RHip", "l_hip_2", "r_hip_2")).tolist() == [1, 0, 3, 2, 5, 4]
    joints, names = np.array([[[0.0, 0], [6, 8], [9, 9], [9, 9]]]), ("LSHOULDER", "RHIP", "RSHOULDER", "LHIP")
    assert torso_length(joints, names).tolist() == [10]


def test_normalisers_measure_the_pose_itself():
    joints = np.array([[[0.0, 0], [3, 4], [0, 0], [6, 8]]])
    names = ("left_eye", "right_eye", "left_shoulder", "right_hip")
    assert interocular_distance(joints, names).tolist() == [5] and torso_length(joints, names).tolist() == [10]
    with pytest.raises(UserError, match="right and eye in its name: the joints are left_eye, nose"):
        interocular_distance(joints[:, :2], ("left_eye", "nose"))


def test_ridge_finds_a_linear_map_and_falls_back_to_the_mean_pose():
    rng = np.random.default_rng(0)
    keypoints, weight = rng.normal(size=(40, 3, 2)), rng.normal(size=(6, 4))
    joints = (keypoints.reshape(40, 6) @ weight + 0.5).reshape(40, 2, 2)
    joints[:10, 0] = np.nan
    exact = ridge(keypoints[:30], joints[:30], keypoints[30:])
    np.testing.assert_allclose(exact, joints[30:], atol=1e-3)
    noise = rng.normal(size=(30, 2, 2)) + 7
    unrelated = ridge(keypoints[:30], noise, keypoints[30:])
    plain = Regressor.fit(keypoints[:30], noise, bias=True).predict(keypoints[30:])
    centre = noise.mean(axis=0)
    assert np.abs(unrelated - centre).mean() < 0.5 * np.abs(plain - centre).mean()
    assert np.isnan(ridge(keypoints, np.full((40, 1, 2), np.nan), keypoints)).all()


def test_where_one_video_alone_shows_a_joint_its_frames_are_left_out_one_by_one():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(24, 4, 2)), rng.normal(size=(24, 1, 2))
    y[12:] = np.nan
    found = ridge(x, y, x, np.repeat([0, 1], 12))
    np.testing.assert_allclose(found, ridge(x[:12], y[:12], x))


@pytest.mark.parametrize("groups", [np.arange(12), np.repeat([3, 1, 2], 4)])
def test_ridge_takes_the_penalty_that_predicts_best_what_was_left_out(groups):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 2, 2)), rng.normal(size=(12, 1, 2))
    inputs, targets = x.reshape(12, 4), y[:, 0]

    def fit(rows, penalty):
        centre, mean = inputs[rows].mean(axis=0), targets[rows].mean(axis=0)
        a = inputs[rows] - centre
        weight = np.linalg.solve(a.T @ a + penalty * np.eye(4), a.T @ (targets[rows] - mean))
        return lambda row: mean + (row - centre) @ weight

    def left_out(penalty):
        apart = [(groups == group, fit(groups != group, penalty)) for group in np.unique(groups)]
        return sum(((predict(inputs[rows]) - targets[rows]) ** 2).sum() for rows, predict in apart)

    best = min(PENALTIES, key=left_out)
    expected = np.stack([fit(np.arange(12), best)(row) for row in inputs])
    np.testing.assert_allclose(ridge(x, y, x, groups)[:, 0], expected, atol=1e-6)
