"""What the diagnostics count of images that are not served."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from colour_model import spots_image
from diagnostic_msgs.msg import DiagnosticArray
from harness import BEST_EFFORT, PATIENCE_S, Bench, NodeProcess, image_message
from sensor_msgs.msg import Image

from keypoint_perception.ros.overwritten import Overwritten
from keypoint_perception_msgs.msg import KeypointArray

SMALL = spots_image((192, 128), {"red": (40, 50)})


@pytest.fixture(scope="module")
def node(bench: Bench, colour_model_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess({"model": colour_model_path, "diagnostics_period": 0.2})
    bench.listen("/diagnostics", DiagnosticArray)
    bench.listen("/detector/keypoints", KeypointArray)
    node.wait_for("active, waiting")
    yield node
    node.stop()


@contextmanager
def _camera(bench: Bench, qos: object = BEST_EFFORT) -> Iterator[Any]:
    """A publisher of images."""
    publisher = bench.node.create_publisher(Image, "/image", qos)
    yield publisher
    bench.node.destroy_publisher(publisher)


@pytest.mark.parametrize("qos", [BEST_EFFORT, 100])
def test_images_that_came_while_the_node_was_held_up_are_counted(bench: Bench, node: NodeProcess, qos: object) -> None:
    """A newer one is served, and those before it are counted: by the middleware as lost, or as superseded."""
    with _camera(bench, qos) as camera:
        for _ in range(2):  # the first only tells the node that this is another camera than before
            _publish_slowly(bench, camera, 1)
            before = _counts(bench)
        node.send(signal.SIGSTOP)
        for _ in range(60):
            camera.publish(image_message(SMALL))
            bench.spin(0.001)
        node.send(signal.SIGCONT)
        sent = 60 + _publish_slowly(bench, camera, 1)
        after = _counts(bench)
    received, published, superseded, lost = (now - then for now, then in zip(after, before, strict=True))
    assert published > 0 and superseded + lost > 0
    assert received == published + superseded and received + lost <= sent


def test_of_cameras_that_start_anew_or_share_a_topic_no_image_is_made_up(bench: Bench, node: NodeProcess) -> None:
    """Each publisher numbers its own images, and a message does not say which it is from."""
    before = _counts(bench)
    with _camera(bench) as camera:
        _publish_slowly(bench, camera, 30)
    with _camera(bench) as first, _camera(bench) as second:
        _publish_slowly(bench, first, 50)
        for _ in range(5):
            _publish_slowly(bench, second, 1)
            _publish_slowly(bench, first, 1)
    assert _counts(bench)[2] - before[2] < 20, "some were overtaken as they came, and not 49 at each turn"


def test_numbers_that_are_missing_count_only_where_they_were_overwritten() -> None:
    publishers = [b"camera"]
    overwritten = Overwritten(lambda: frozenset(publishers))

    def counted(*numbers: int) -> int:
        for number in numbers:
            overwritten.note(number)
        return overwritten.count()

    assert counted(700, 701, 704) == 2, "it had sent 699 before it was heard"
    overwritten.note_lost(3)
    assert counted() == 0 and counted(710) == 2, "5 are missing, of which 3 did not arrive"
    publishers[:] = [b"restarted"]
    assert counted(900) == 0, "these are other numbers"
    assert counted(910, 912) == 1
    publishers.clear()
    assert counted(914) == 1, "it has gone since"


def _publish_slowly(bench: Bench, camera: Any, count: int) -> int:
    """Each image once the one before is served; again, where it did not arrive. Returns how many were sent."""
    sent, heard = 0, bench.heard["/detector/keypoints"]
    bench.until(lambda: camera.get_subscription_count() > 0, "nobody subscribes")
    for _ in range(count):
        heard.clear()
        end = time.monotonic() + PATIENCE_S
        while not heard:
            assert time.monotonic() < end, "an image is not served"
            camera.publish(image_message(SMALL))
            sent += 1
            bench.spin(0.05)
    return sent


def _counts(bench: Bench) -> list[int]:
    """Images received, published, superseded and lost, once all is counted."""
    bench.spin(0.5)
    bench.heard["/diagnostics"].clear()
    bench.until(lambda: len(bench.heard["/diagnostics"]) > 1, "no diagnostics")
    values = {pair.key: pair.value for pair in bench.heard["/diagnostics"][-1].status[1].values}
    return [int(values[name]) for name in ("images_received", "images_published", "dropped_superseded", "dropped_lost")]
