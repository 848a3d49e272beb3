"""Metres, on a wall that a camera looks at straight on."""

import numpy as np
import pytest
from predictions import SIZE, pixels, video

from keypoint_perception.lifting import Intrinsics
from training.evaluation.manipulation import grasp_points, lifted_joints
from training.evaluation.videos import Depth

CAMERA = Intrinsics(SIZE, np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]]))
WALL = 2.0
"""Metres away: a pixel is 2 cm wide there."""


def before_a_wall(points, joints, names=("base", "drawer_handle"), behind=0.0, **fields):
    """Joints `behind` metres behind the wall's surface, with depth in every frame."""
    joints = np.asarray(joints, float)
    rays = np.concatenate(((pixels(joints) - 50) / 100, np.ones((*joints.shape[:2], 1))), axis=2)
    images = {frame: np.full((SIZE[1], SIZE[0]), WALL, np.float32) for frame in range(len(joints))}
    depth = Depth(images, CAMERA, rays * (WALL + behind))
    return video(points, joints, names=names, depth=depth, **fields)


def moving(seed=0, frames=40):
    return np.random.default_rng(seed).uniform(-0.8, 0.8, (frames, 2, 2))


def test_keypoints_on_the_joints_are_lifted_to_them():
    joints = moving()
    figures = lifted_joints([before_a_wall(joints, joints)])
    assert figures["error_m"] == pytest.approx(0, abs=1e-6) and figures["median_m"] == pytest.approx(0, abs=1e-6)
    assert figures["found"] == 1 and figures["baseline_mean_pose_m"] > 0.3


def test_what_lies_under_the_surface_shows_in_the_row_of_true_pixels():
    joints = np.zeros((8, 2, 2))  # in the middle of the picture, where rays go straight ahead
    figures = lifted_joints([before_a_wall(joints, joints, behind=0.05)])
    assert figures["true_pixels_m"] == pytest.approx(0.05, abs=1e-6)


def test_keypoints_that_never_move_miss_by_the_pixels_between():
    joints = np.zeros((4, 1, 2))
    joints[2:, 0] = (0.2, 0)  # 10 pixels from where it was in the half that is fitted on: 20 cm
    figures = lifted_joints([before_a_wall(np.zeros((4, 1, 2)), joints, names=("base",))])
    assert figures["error_m"] == pytest.approx(0.2) and figures["baseline_mean_pose_m"] == pytest.approx(0.2)


def test_hidden_joints_and_unknown_depth_do_not_count():
    joints = moving(frames=8)
    hidden = before_a_wall(joints, joints, visible=np.tile([True, False], (8, 1)))
    hidden.video.depth.images[7][:] = np.nan
    assert lifted_joints([hidden])["found"] == 0.75  # one of four visible joints stands before unknown depth


def test_grasp_points_are_handles_and_need_few_labels():
    joints = moving(frames=60)
    figures = grasp_points([before_a_wall(joints, joints)])
    assert figures["error_m_10"] == pytest.approx(0, abs=1e-6) and figures["error_m"] == pytest.approx(0, abs=1e-6)
    assert figures["error_m_100"] is None  # 30 frames to fit on
    assert figures["baseline_mean_pose_m"] > 0.3


def test_nothing_to_grasp_or_no_depth_is_no_measure():
    joints = moving()
    assert set(grasp_points([before_a_wall(joints, joints, names=("a", "b"))]).values()) == {None}
    assert set(lifted_joints([video(joints, joints, names=("a", "b"))]).values()) == {None}
