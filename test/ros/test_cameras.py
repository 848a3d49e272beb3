"""Several cameras in one node process: a batch, depth, a stereo pair."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from colour_model import spots_image
from diagnostic_msgs.msg import DiagnosticArray
from harness import LATCHED, Bench, NodeProcess, image_message, set_header
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from keypoint_perception_msgs.msg import KeypointArray, SkeletonGraph

SIZE = (192, 128)
FOCAL = 200.0
BASELINE_M = 0.1
DEPTH_M = 0.8
CENTRES = {"red": (50, 50), "green": (150, 90), "blue": (100, 20)}
CAMERAS = ("left", "right", "wrist")


@pytest.fixture(scope="module")
def node(bench: Bench, colour_model_path: Path) -> Iterator[NodeProcess]:
    parameters = {
        "model": colour_model_path,
        "cameras": CAMERAS,
        "stereo": ("left", "right"),
        "wrist.depth_transport": "raw",
        "diagnostics_period": 0.2,
        "stereo_wait": 0.5,
        "depth_wait": 0.5,
    }
    node = NodeProcess(parameters)
    for camera in CAMERAS:
        bench.listen(f"/detector/{camera}/keypoints", KeypointArray)
    bench.listen("/diagnostics", DiagnosticArray)
    for camera in CAMERAS:
        bench.publisher(f"/{camera}/image")
        bench.publisher(f"/{camera}/camera_info", CameraInfo)
    bench.publisher("/wrist/depth")
    yield node
    node.stop()


def test_three_dimensions_from_depth(bench: Bench, node: NodeProcess) -> None:
    bench.listen("/detector/wrist/skeleton", SkeletonGraph, LATCHED)
    found = _lifted(bench, "wrist", lambda stamp: _send_with_depth(bench, stamp, np.full(SIZE[::-1], 800, np.uint16)))
    assert found.position_frame_id == "wrist_optical"
    expected = [((u - 95.5) / FOCAL * DEPTH_M, (v - 63.5) / FOCAL * DEPTH_M, DEPTH_M) for u, v in CENTRES.values()]
    np.testing.assert_allclose(_positions(found), expected, atol=0.004)
    assert all(k.position_stddev < 0.01 for k in found.keypoints)
    graph = bench.heard["/detector/wrist/skeleton"][-1]
    length = np.linalg.norm(np.subtract(expected[0], expected[1]))
    assert graph.edge_length[0] == pytest.approx(length, abs=0.01)


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        (np.full((64, 96), 800, np.uint16), "depth has 96x64 pixels, the image 192x128"),
        (np.zeros(SIZE[::-1], np.uint16), "no keypoint has a position: each is outside the image"),
        (np.full(SIZE[::-1], np.nan, np.float32), "no keypoint has a position: each is outside the image"),
    ],
    ids=["another size", "all zero", "all NaN"],
)
def test_depth_that_does_not_fit_gives_no_position_instead_of_a_wrong_one(
    bench: Bench, node: NodeProcess, depth: np.ndarray, words: str
) -> None:
    found = _answer(bench, "wrist", lambda stamp: _send_with_depth(bench, stamp, depth))
    assert np.isnan(_positions(found)).all()
    node.wait_for(words)


def test_depth_in_another_frame_is_told(bench: Bench, node: NodeProcess) -> None:
    depth = np.full(SIZE[::-1], 800, np.uint16)
    found = _answer(bench, "wrist", lambda stamp: _send_with_depth(bench, stamp, depth, frame_id="depth_optical"))
    assert np.isnan(_positions(found)).all()
    node.wait_for("depth is in frame 'depth_optical', the image in 'wrist_optical'")


def test_a_calibration_of_another_size_is_told(bench: Bench, node: NodeProcess) -> None:
    depth = np.full(SIZE[::-1], 800, np.uint16)
    found = _answer(bench, "wrist", lambda stamp: _send_with_depth(bench, stamp, depth, calibrated_for=(64, 48)))
    assert np.isnan(_positions(found)).all()
    node.wait_for("camera_info is for 64x48 pixels, the image has 192x128")


def test_a_damaged_calibration_is_told(bench: Bench, node: NodeProcess) -> None:
    def send(stamp: float) -> None:
        bench.publisher("/wrist/camera_info", CameraInfo).publish(b"\0\1\0\0" + b"\xff" * 30)
        bench.spin(0.05)
        bench.publisher("/wrist/image").publish(image_message(spots_image(SIZE, CENTRES), stamp, "wrist_optical"))

    assert np.isnan(_positions(_answer(bench, "wrist", send))).all()
    node.wait_for("no 3-D: /wrist/camera_info carries a damaged message")


def test_a_stereo_pair_gives_positions_in_both_frames(bench: Bench, node: NodeProcess) -> None:
    shift = FOCAL * BASELINE_M / DEPTH_M

    def send(stamp: float) -> None:
        _calibrate(bench, "left")
        _calibrate(bench, "right", baseline=BASELINE_M)
        seen_right = {colour: (u - shift, v) for colour, (u, v) in CENTRES.items()}
        for camera, centres in (("left", CENTRES), ("right", seen_right)):
            message = image_message(spots_image(SIZE, centres), stamp, f"{camera}_optical")
            bench.publisher(f"/{camera}/image").publish(message)

    left = _lifted(bench, "left", send)
    right = _answer_to(bench, "right", left.header.stamp)
    expected = np.array(
        [((u - 95.5) / FOCAL * DEPTH_M, (v - 63.5) / FOCAL * DEPTH_M, DEPTH_M) for u, v in CENTRES.values()]
    )
    np.testing.assert_allclose(_positions(left), expected, atol=0.03)
    np.testing.assert_allclose(_positions(right), _positions(left) - (BASELINE_M, 0, 0), atol=1e-5)
    assert (left.position_frame_id, right.position_frame_id) == ("left_optical", "right_optical")


def test_what_fails_for_one_camera_stops_no_other(bench: Bench, node: NodeProcess) -> None:
    """An overlay that no jpeg can hold; images of one instant are served together."""
    overlay = "/detector/left/overlay/compressed"

    def send(stamp: float, width: int = 70_000) -> None:
        pictures = {"left": np.zeros((1, width, 3), np.uint8), "right": spots_image(SIZE, CENTRES)}
        for camera, picture in pictures.items():
            bench.publisher(f"/{camera}/image").publish(image_message(picture, stamp, f"{camera}_optical"))

    bench.listen(overlay, CompressedImage)
    for _ in range(3):
        _answer(bench, "right", send)
    node.wait_for("left: an image failed: 70000 x 1 pixels are too many for a jpeg")
    _answer(bench, "left", lambda stamp: send(stamp, width=90))
    bench.until(lambda: bool(bench.heard[overlay]), "the next overlay does not come")
    bench.stop_listening(overlay)


@pytest.mark.parametrize(("camera", "other"), [("left", "right"), ("right", "left")])
def test_why_one_image_of_a_stereo_pair_alone_gives_no_position_is_told(
    bench: Bench, node: NodeProcess, camera: str, other: str
) -> None:
    message = image_message(spots_image(SIZE, CENTRES), time.time(), f"{camera}_optical")
    assert np.isnan(_positions(bench.ask(f"/{camera}/image", message, f"/detector/{camera}/keypoints"))).all()
    node.wait_for(f"left: no 3-D: no image of {other} within max_stereo_delay 0.02 s of the other's came within")


def test_the_projection_of_rectified_images_is_that_of_camera_info(bench: Bench, colour_model_path: Path) -> None:
    """Beside image_rect there is the raw camera's K and D, here those of an unknown distortion model, and P."""
    remap = {name: f"/rectified/{name}" for name in ("image", "depth", "camera_info")}
    remap |= {"~/keypoints": "/detector/rectified/keypoints", "__node": "other"}
    node = NodeProcess({"model": colour_model_path, "depth_transport": "raw", "rectified": True}, remap)
    depth, raw = np.full(SIZE[::-1], 800, np.uint16), {"distortion_model": "thin_prism", "d": [0.3] * 8}
    raw["k"] = [FOCAL / 2, 0.0, 80.0, 0.0, FOCAL / 2, 60.0, 0.0, 0.0, 1.0]
    try:
        bench.listen("/detector/rectified/keypoints", KeypointArray)
        send = partial(_send_with_depth, bench, depth=depth, camera="rectified", **raw)
        found = _positions(_lifted(bench, "rectified", send))
    finally:
        node.stop()
    expected = [((u - 95.5) / FOCAL * DEPTH_M, (v - 63.5) / FOCAL * DEPTH_M, DEPTH_M) for u, v in CENTRES.values()]
    np.testing.assert_allclose(found, expected, atol=0.004)


def test_each_camera_has_its_diagnostics(bench: Bench, node: NodeProcess) -> None:
    bench.heard["/diagnostics"].clear()
    bench.until(lambda: bool(bench.heard["/diagnostics"]), "no diagnostics")
    names = [status.name for status in bench.heard["/diagnostics"][-1].status]
    assert names == ["detector: model", *(f"detector: {camera}" for camera in CAMERAS)]


def _send_with_depth(
    bench: Bench,
    stamp: float,
    depth: np.ndarray,
    frame_id: str = "wrist_optical",
    calibrated_for: tuple[int, int] = SIZE,
    camera: str = "wrist",
    **calibration: object,
) -> None:
    image = image_message(spots_image(SIZE, CENTRES), stamp, "wrist_optical")
    message = Image(height=depth.shape[0], width=depth.shape[1], step=depth.strides[0])
    message.encoding = "16UC1" if depth.dtype == np.uint16 else "32FC1"
    message.data = depth.tobytes()
    set_header(message, stamp, frame_id)
    _calibrate(bench, camera, size=calibrated_for, **calibration)
    bench.publisher(f"/{camera}/depth").publish(message)
    bench.spin(0.05)
    bench.publisher(f"/{camera}/image").publish(image)


def _calibrate(
    bench: Bench, camera: str, baseline: float = 0.0, size: tuple[int, int] = SIZE, **changes: object
) -> None:
    info = CameraInfo(width=size[0], height=size[1], distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [FOCAL, 0.0, 95.5, 0.0, FOCAL, 63.5, 0.0, 0.0, 1.0]
    info.r = np.eye(3).ravel().tolist()
    info.p = [FOCAL, 0.0, 95.5, -FOCAL * baseline, 0.0, FOCAL, 63.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    for name, value in changes.items():
        setattr(info, name, value)
    bench.publisher(f"/{camera}/camera_info", CameraInfo).publish(info)


def _answer(bench: Bench, camera: str, send: Callable[[float], None]) -> KeypointArray:
    """Sends until there is an answer with the same stamp."""
    heard = bench.heard[f"/detector/{camera}/keypoints"]
    for _ in range(50):
        stamp, before = time.time(), len(heard)
        send(stamp)
        bench.spin(0.3)
        if len(heard) > before:
            return heard[-1]
    raise AssertionError(f"no answer of {camera}")


def _lifted(bench: Bench, camera: str, send: Callable[[float], None]) -> KeypointArray:
    """Sends until there is an answer with positions."""
    for _ in range(20):
        found = _answer(bench, camera, send)
        if np.isfinite(_positions(found)).all():
            return found
    raise AssertionError(f"nothing of {camera} is lifted")


def _answer_to(bench: Bench, camera: str, stamp: object) -> KeypointArray:
    heard = bench.heard[f"/detector/{camera}/keypoints"]
    bench.until(lambda: any(m.header.stamp == stamp for m in heard), f"no answer of {camera}")
    return next(m for m in heard if m.header.stamp == stamp)


def _positions(found: KeypointArray) -> np.ndarray:
    return np.array([(k.position.x, k.position.y, k.position.z) for k in found.keypoints])
