"""Pixels to metres, against cameras whose projection is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from keypoint_perception.errors import UserError
from keypoint_perception.lifting import Intrinsics, Lifted, edge_lengths, lift, stereo_pose, triangulate

SIZE = (640, 480)
MATRIX = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
POINTS = np.array([(0.0, 0.0, 1.0), (0.3, -0.2, 1.5), (-0.25, 0.15, 0.8), (0.1, 0.3, 2.0)])
CAMERAS = {
    "pinhole": Intrinsics(SIZE, MATRIX),
    "plumb_bob": Intrinsics(SIZE, MATRIX, "plumb_bob", np.array([-0.3, 0.1, 0.001, -0.002, -0.01])),
    "rational_polynomial": Intrinsics(
        SIZE, MATRIX, "rational_polynomial", np.array([0.5, -0.2, 0.001, 0.0005, 0.05, 0.8, -0.1, 0.02])
    ),
    "equidistant": Intrinsics(SIZE, MATRIX, "equidistant", np.array([-0.01, 0.02, -0.005, 0.001])),
}


def _info(**changes: object) -> SimpleNamespace:
    """A sensor_msgs/CameraInfo."""
    fields = {
        "width": 640,
        "height": 480,
        "k": MATRIX.ravel(),
        "d": np.zeros(5),
        "r": np.eye(3).ravel(),
        "p": np.hstack([MATRIX, np.zeros((3, 1))]).ravel(),
        "distortion_model": "plumb_bob",
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    return SimpleNamespace(**(fields | changes))


@pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)
def test_rays_undo_the_projection(camera: Intrinsics) -> None:
    pixels = camera.project(POINTS)
    rays = camera.rays(pixels)
    np.testing.assert_allclose(rays * POINTS[:, 2:], POINTS, atol=1e-5)


def test_the_projection_is_the_pinholes() -> None:
    np.testing.assert_allclose(
        CAMERAS["pinhole"].project(POINTS), POINTS[:, :2] / POINTS[:, 2:] * (500, 510) + (320, 240)
    )


def test_what_is_unknown_or_behind_stays_unknown() -> None:
    camera = CAMERAS["plumb_bob"]
    assert np.isnan(camera.project(np.array([(0, 0, -1.0), (np.nan, 0, 1)]))).all()
    assert np.isnan(camera.rays(np.array([(np.nan, 3.0)]))).all()


def test_where_a_distortion_has_no_inverse_there_is_no_ray() -> None:
    barrel = Intrinsics(SIZE, MATRIX, "plumb_bob", np.array([-1.5, 0, 0, 0, 0]))
    assert np.isnan(barrel.rays(np.array([(639.0, 479.0)]))).all()
    assert np.isfinite(barrel.rays(np.array([(330.0, 250.0)]))).all()


def test_camera_info_with_region_and_binning() -> None:
    region = SimpleNamespace(x_offset=100, y_offset=50, width=400, height=300)
    camera = Intrinsics.from_camera_info(_info(roi=region, binning_x=2, binning_y=2))
    assert camera.size == (200, 150)
    full = CAMERAS["pinhole"].project(POINTS)
    np.testing.assert_allclose(camera.project(POINTS), (full - (100, 50) + 0.5) / 2 - 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": np.zeros(9)}, "uncalibrated.* in its K"),
        ({"distortion_model": "thin_prism"}, "thin_prism.*supported are plumb_bob.*set `rectified`"),
        ({"d": np.ones(3)}, "3 coefficients"),
        ({"d": np.array([0.1, np.nan, 0, 0, 0])}, r"no numbers \(0.1, nan, 0, 0, 0\): calibrate the camera again"),
        ({"d": np.array([-1e6, 1e9, 0, 0, 0])}, r"distortion -1e\+06, 1e\+09, .* no inverse in its 640x480 pixels"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused(changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Intrinsics.from_camera_info(_info(**changes))


def test_of_rectified_images_the_projection_holds_whatever_the_raw_ones_distortion() -> None:
    matrix = np.array([[400.0, 0, 310, -48], [0, 400, 230, 0], [0, 0, 1, 0]])
    raw = {"distortion_model": "thin_prism", "d": np.ones(3), "p": matrix.ravel(), "binning_x": 2, "binning_y": 2}
    camera = Intrinsics.from_camera_info(_info(**raw), rectified=True)
    np.testing.assert_allclose(
        camera.project(POINTS), (POINTS[:, :2] / POINTS[:, 2:] * 400 + (310, 230) + 0.5) / 2 - 0.5
    )
    np.testing.assert_allclose(camera.rays(camera.project(POINTS)) * POINTS[:, 2:], POINTS, atol=1e-6)
    with pytest.raises(UserError, match=r"uncalibrated.* in its P"):
        Intrinsics.from_camera_info(_info(p=np.zeros(12)), rectified=True)


@pytest.mark.parametrize("count", [0, 3, 5, 6])
@pytest.mark.parametrize("model", ["plumb_bob", "equidistant", ""])
def test_a_camera_without_distortion_may_say_so_in_any_number_of_zeros(model: str, count: int) -> None:
    camera = Intrinsics.from_camera_info(_info(d=np.zeros(count), distortion_model=model))
    plain = Intrinsics(SIZE, MATRIX, "equidistant", np.zeros(4)) if model == "equidistant" else CAMERAS["pinhole"]
    np.testing.assert_allclose(camera.project(POINTS), plain.project(POINTS))
    assert np.isfinite(camera.rays(np.array([(400.0, 300.0)]))).all()


def test_depth_lifts_to_the_surface_and_tells_its_spread() -> None:
    camera = CAMERAS["plumb_bob"]
    rng = np.random.default_rng(0)
    depth = (1.5 + rng.normal(0, 0.005, SIZE[::-1])).astype(np.float32)
    pixels = camera.project(np.array([(0.3, -0.2, 1.5), (-0.4, 0.1, 1.5)]))
    lifted = lift(pixels, depth, camera, window=9)
    np.testing.assert_allclose(lifted.positions, [(0.3, -0.2, 1.5), (-0.4, 0.1, 1.5)], atol=0.004)
    assert np.all((lifted.stddev > 0.003) & (lifted.stddev < 0.008))


def test_a_thin_limb_before_a_wall_has_the_limbs_depth() -> None:
    depth = np.full(SIZE[::-1], 2.0, np.float32)
    depth[:, 318:321] = 0.6  # three of seven columns
    lifted = lift(np.array([(319.0, 200.0), (321.5, 200.0)]), depth, CAMERAS["pinhole"], window=7)
    np.testing.assert_allclose(lifted.positions[:, 2], 0.6, atol=1e-6)


def test_holes_and_zeros_are_no_depth() -> None:
    depth = np.full(SIZE[::-1], np.nan, np.float32)
    depth[100:110, 100:110] = 0.0
    depth[300:310, 300:302] = 1.0
    lifted = lift(np.array([(50, 50), (105, 105), (300, 305), (700, 10), (np.nan, 1)]), depth, CAMERAS["pinhole"])
    assert np.isnan(lifted.positions[[0, 1, 3, 4]]).all() and np.isnan(lifted.stddev[[0, 1, 3, 4]]).all()
    assert lifted.positions[2, 2] == 1.0


def test_depth_may_be_as_messages_have_it() -> None:
    """Integers are millimetres, 0 and infinity unknown."""
    millimetres = np.full(SIZE[::-1], 1500, np.uint16)
    millimetres[100:104, 100:107] = 0
    metres = np.where(millimetres > 0, millimetres / np.float32(1000), np.float32("inf"))
    points = np.array([(103.0, 103.0), (50.0, 60.0)])
    for depth in (millimetres, millimetres.astype(">u2"), metres):
        np.testing.assert_allclose(lift(points, depth, CAMERAS["pinhole"]).positions[:, 2], 1.5)


def test_at_the_border_the_window_is_cut() -> None:
    lifted = lift(np.array([(0.0, 0.0), (639.4, 479.4)]), np.ones(SIZE[::-1], np.float32), CAMERAS["pinhole"])
    np.testing.assert_allclose(lifted.positions[:, 2], 1)


def test_two_cameras_see_where_it_is() -> None:
    angle = 0.3
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    translation = np.array([-0.4, 0.02, 0.05])
    left, right = CAMERAS["plumb_bob"], CAMERAS["equidistant"]
    seen_right = right.project((POINTS - translation) @ rotation)
    lifted = triangulate(left, right, left.project(POINTS), seen_right, rotation, translation)
    np.testing.assert_allclose(lifted.positions, POINTS, atol=1e-4)
    assert np.all((lifted.stddev > 1e-4) & (lifted.stddev < 0.02))
    far, near = lifted.stddev[3], lifted.stddev[2]
    assert far > near, "the farther, the less certain"


def test_rays_that_do_not_meet_are_no_position() -> None:
    camera = CAMERAS["pinhole"]
    baseline = np.array([0.2, 0, 0])
    left = camera.project(POINTS)
    right = camera.project(POINTS - baseline)
    wrong = right + (0, 120)
    assert np.isnan(triangulate(camera, camera, left, wrong, np.eye(3), baseline).positions).all()
    behind = left + (30, 0)
    assert np.isnan(triangulate(camera, camera, left, behind, np.eye(3), baseline).positions).all()
    assert np.isnan(triangulate(camera, camera, left, left, np.eye(3), baseline).positions).all(), "parallel"


def test_the_pose_of_a_stereo_pair_is_in_its_camera_info() -> None:
    shift = np.hstack([MATRIX, [[-500 * 0.12], [0], [0]]]).ravel()
    rotation, translation = stereo_pose(_info(), _info(p=shift))
    np.testing.assert_allclose(rotation, np.eye(3))
    np.testing.assert_allclose(translation, (0.12, 0, 0))
    turned = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).ravel()
    rotation, translation = stereo_pose(_info(r=turned), _info(p=shift), rectified=True)
    np.testing.assert_allclose(rotation, np.eye(3), err_msg="rectified cameras face the same way")
    np.testing.assert_allclose(translation, (0.12, 0, 0))
    with pytest.raises(UserError, match="no baseline"):
        stereo_pose(_info(), _info())
    with pytest.raises(UserError, match="uncalibrated"):
        stereo_pose(_info(), _info(r=np.zeros(9)))


def test_links_have_lengths_where_both_ends_are_known() -> None:
    positions = np.array([(0, 0, 1), (0, 0.3, 1.4), (np.nan, np.nan, np.nan)])
    lengths = edge_lengths(Lifted(positions, np.zeros(3)), np.array([(0, 1), (1, 2)]))
    np.testing.assert_allclose(lengths, [0.5, np.nan])


@pytest.mark.parametrize("name", ["none", "Pinhole", "PLUMB_BOB"])
def test_a_camera_without_distortion_may_say_so_in_its_own_words(name: str) -> None:
    assert Intrinsics.from_camera_info(_info(d=[], distortion_model=name)).model == "plumb_bob"
    with pytest.raises(UserError, match="distortion model 'fisheye'"):
        Intrinsics.from_camera_info(_info(d=[], distortion_model="fisheye"))
