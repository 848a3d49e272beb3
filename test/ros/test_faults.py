"""What goes wrong on a robot, done to one node process: it says so once, and serves what follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from colour_model import spots_image
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import BEST_EFFORT, Bench, NodeProcess, image_message, set_header
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from keypoint_perception_msgs.msg import KeypointArray

KEYPOINTS = "/detector/keypoints"
SIZE = (192, 128)
PICTURE = spots_image(SIZE, {"red": (40, 50), "green": (150, 90), "blue": (100, 20)})


@pytest.fixture(scope="module", autouse=True)
def diagnostics(bench: Bench) -> None:
    bench.listen("/diagnostics", DiagnosticArray)


@pytest.fixture(scope="module")
def node(bench: Bench, colour_model_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess({"model": colour_model_path, "diagnostics_period": 0.2, "smoothing": True})
    bench.listen(KEYPOINTS, KeypointArray)
    yield node
    status, seconds = node.stop()
    assert status == 0 and seconds < 3


def _unknown_encoding(message: Image) -> None:
    message.encoding = "plaid9"


def _short_rows(message: Image) -> None:
    message.step = 100


def _too_little_data(message: Image) -> None:
    message.data = b"abc"


def _no_pixels(message: Image) -> None:
    message.height = message.width = message.step = 0
    message.data = b""


@pytest.mark.parametrize("spoil", [_unknown_encoding, _short_rows, _too_little_data, _no_pixels])
def test_an_image_that_cannot_be_read_is_told_once_and_the_next_is_served(
    bench: Bench, node: NodeProcess, spoil: Callable[[Image], None]
) -> None:
    before = node.log.count("dropped:")
    message = image_message(PICTURE)
    spoil(message)
    publisher = bench.publisher("/image")
    bench.heard["/diagnostics"].clear()
    for _ in range(5):
        publisher.publish(message)
        bench.spin(0.05)
    bench.until(lambda: _camera_level(bench) == DiagnosticStatus.ERROR, "no diagnostic tells of it")
    assert node.log.count("dropped:") == before + 1
    bench.ask("/image", image_message(PICTURE), KEYPOINTS)
    bench.until(lambda: _camera_level(bench) == DiagnosticStatus.OK, "the diagnostic does not recover")


@pytest.mark.parametrize("length", [4, 11, 30, 60, 1000])
def test_bytes_that_end_too_early_are_told_and_the_next_image_is_served(
    bench: Bench, node: NodeProcess, length: int
) -> None:
    publisher = bench.publisher("/image")
    bench.heard["/diagnostics"].clear()
    cut = serialize_message(image_message(PICTURE))[:length]
    for _ in range(3):
        publisher.publish(cut)
        bench.spin(0.05)
    bench.until(lambda: _camera_level(bench) == DiagnosticStatus.ERROR, "no diagnostic tells of it")
    assert "is damaged" in node.log
    bench.ask("/image", image_message(PICTURE), KEYPOINTS)
    bench.until(lambda: _camera_level(bench) == DiagnosticStatus.OK, "the diagnostic does not recover")


def test_stamps_of_zero_backwards_and_ahead_are_served(bench: Bench, node: NodeProcess) -> None:
    zero = image_message(PICTURE)
    zero.header.stamp.sec = zero.header.stamp.nanosec = 0
    bench.ask("/image", zero, KEYPOINTS)
    node.wait_for("have no stamp")
    now = time.time()
    for stamp in (now, now - 100, now + 1000, 1.0):
        found = bench.ask("/image", image_message(PICTURE, stamp=stamp), KEYPOINTS)
        np.testing.assert_allclose((found.keypoints[0].u, found.keypoints[0].v), (40, 50), atol=0.6)
    node.wait_for("s ahead")


def test_images_without_a_frame_are_told_until_they_have_one(bench: Bench, node: NodeProcess) -> None:
    bench.ask("/image", image_message(PICTURE, frame_id=""), KEYPOINTS)
    node.wait_for("images on /image have no frame_id")
    bench.until(lambda: "no frame_id" in _camera_message(bench, "detector"), "no diagnostic tells of it")
    bench.ask("/image", image_message(PICTURE), KEYPOINTS)
    bench.until(lambda: "no frame_id" not in _camera_message(bench, "detector"), "the diagnostic stays")


def test_what_was_wrong_is_over_where_nothing_is_asked_any_more(bench: Bench, colour_model_path: Path) -> None:
    parameters = {"model": colour_model_path, "diagnostics_period": 0.2}
    node = NodeProcess(parameters, {"image": "/unstamped", "__node": "idle"})
    try:
        bench.listen("/idle/keypoints", KeypointArray)
        zero = image_message(PICTURE)
        zero.header.stamp.sec = zero.header.stamp.nanosec = 0
        bench.ask("/unstamped", zero, "/idle/keypoints")
        bench.until(lambda: "no stamp" in _camera_message(bench, "idle"), "no diagnostic tells of it")
        deactivate = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        assert bench.call(ChangeState, "/idle/change_state", deactivate).success
        bench.until(lambda: "no stamp" not in _camera_message(bench, "idle"), "the diagnostic stays")
    finally:
        node.stop()


def test_a_huge_image_is_served(bench: Bench, colour_model_path: Path) -> None:
    """By a node that asks for reliable images: of 100 MB sent best effort, a part is easily lost on the way."""
    size = (7680, 4320)
    picture = spots_image(size, {"red": (1000, 3000)}, half=200)
    parameters = {"model": colour_model_path, "qos_overrides./huge.subscription.reliability": "reliable"}
    node = NodeProcess(parameters, {"image": "/huge", "__node": "patient"})
    try:
        bench.listen("/patient/keypoints", KeypointArray)
        publisher = bench.publisher("/huge")
        bench.spin(0.5)  # the way back is found a little later
        publisher.publish(image_message(picture))
        heard = bench.heard["/patient/keypoints"]
        bench.until(lambda: bool(heard), "no answer")
        assert (heard[0].image_width, heard[0].image_height) == size
        np.testing.assert_allclose((heard[0].keypoints[0].u, heard[0].keypoints[0].v), (1000, 3000), atol=40)
    finally:
        node.stop()


def test_a_burst_is_thinned_to_the_newest(bench: Bench, node: NodeProcess) -> None:
    publisher = bench.publisher("/image")
    heard = bench.heard[KEYPOINTS]
    heard.clear()
    start = time.time()
    for index in range(100):
        publisher.publish(image_message(PICTURE, stamp=start + index * 0.005))
        bench.spin(0.005)
    bench.spin(0.5)
    stamps = [message.header.stamp.sec + message.header.stamp.nanosec / 1e9 for message in heard]
    assert len(stamps) > 5 and stamps == sorted(stamps)
    assert stamps[-1] > start + 0.4, "what is served last is new"


def test_an_incompatible_publisher_and_a_corrupt_jpeg_are_told(bench: Bench, colour_model_path: Path) -> None:
    """On a node that takes compressed images, and only reliable ones."""
    parameters = {
        "model": colour_model_path,
        "image_transport": "compressed",
        "qos_overrides./jpegs.subscription.reliability": "reliable",
        "diagnostics_period": 0.2,
    }
    node = NodeProcess(parameters, {"image": "/jpegs", "__node": "other"})
    try:
        node.wait_for("active")
        unreliable = bench.node.create_publisher(CompressedImage, "/jpegs", BEST_EFFORT)
        node.wait_for("incompatible RELIABILITY")
        told = "offers an incompatible RELIABILITY"
        bench.until(lambda: told in _camera_message(bench, "other"), "no diagnostic tells of it")
        bench.node.destroy_publisher(unreliable)
        bench.until(lambda: told not in _camera_message(bench, "other"), "the diagnostic does not recover")

        bench.listen("/other/keypoints", KeypointArray)
        _, jpeg = cv2.imencode(".jpg", PICTURE[:, :, ::-1])
        broken = CompressedImage(format="jpeg", data=jpeg.tobytes()[:200])
        set_header(broken, time.time())
        publisher = bench.publisher("/jpegs", CompressedImage)
        publisher.publish(broken)
        node.wait_for("dropped:")
        whole = CompressedImage(format="jpeg", data=jpeg.tobytes())
        set_header(whole, time.time())
        found = bench.ask("/jpegs", whole, "/other/keypoints")
        np.testing.assert_allclose((found.keypoints[0].u, found.keypoints[0].v), (40, 50), atol=1)
    finally:
        node.stop()


def test_images_that_are_too_old_are_dropped_and_that_is_told(bench: Bench, colour_model_path: Path) -> None:
    parameters = {"model": colour_model_path, "max_age": 5.0, "diagnostics_period": 0.2}
    node = NodeProcess(parameters, {"image": "/recorded", "__node": "strict"})
    try:
        bench.listen("/strict/keypoints", KeypointArray)
        publisher = bench.publisher("/recorded")
        bench.ask("/recorded", image_message(PICTURE), "/strict/keypoints")
        publisher.publish(image_message(PICTURE, stamp=time.time() - 100))
        node.wait_for("allowed is max_age 5.0 s")
        bench.until(lambda: "max_age" in _camera_message(bench, "strict"), "no diagnostic tells of it")
        bench.ask("/recorded", image_message(PICTURE), "/strict/keypoints")
        bench.until(lambda: "max_age" not in _camera_message(bench, "strict"), "the diagnostic does not recover")
    finally:
        node.stop()


def test_simulated_time_that_stands_still_stops_nothing(bench: Bench, colour_model_path: Path) -> None:
    """Nothing is on /clock: an image that waits for its depth is served all the same, and diagnostics come."""
    parameters = {
        "model": colour_model_path,
        "use_sim_time": True,
        "depth_transport": "raw",
        "depth_wait": 0.3,
        "diagnostics_period": 0.2,
    }
    node = NodeProcess(parameters, {"image": "/sim/image", "depth": "/sim/depth", "__node": "simulated"})
    try:
        bench.listen("/simulated/keypoints", KeypointArray)
        depth_publisher = bench.publisher("/sim/depth")
        bench.ask("/sim/image", image_message(PICTURE, stamp=10), "/simulated/keypoints")
        for stamp in (20.0, 20.1):
            depth_publisher.publish(image_message(PICTURE, stamp=stamp))
            bench.spin(0.1)
        late = image_message(PICTURE, stamp=20.2)  # for which depth is due
        bench.publisher("/sim/image").publish(late)
        heard = bench.heard["/simulated/keypoints"]
        bench.until(lambda: any(m.header == late.header for m in heard), "the waiting image is not served")
        bench.until(lambda: "/clock" in _camera_message(bench, "simulated"), "no diagnostic tells of it")
    finally:
        node.stop()


def _camera_message(bench: Bench, node: str) -> str:
    """What the last diagnostic says of the camera of a node, "" where there is none."""
    for message in reversed(bench.heard["/diagnostics"]):
        for status in message.status:
            if status.name == f"{node}: camera":
                return status.message
    return ""


def _camera_level(bench: Bench) -> bytes | None:
    for message in reversed(bench.heard["/diagnostics"]):
        for status in message.status:
            if status.name == "detector: camera":
                return status.level
    return None
