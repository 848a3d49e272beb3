"""Why nothing comes on a topic, and which depth is due."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from rclpy.qos import DurabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from keypoint_perception.ros.depth import DepthBuffer
from keypoint_perception.ros.silence import explain_silence


def publisher(kind: str, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> SimpleNamespace:
    return SimpleNamespace(topic_type=f"sensor_msgs/msg/{kind}", qos_profile=SimpleNamespace(durability=durability))


@pytest.mark.parametrize(
    ("publishers", "name", "message_type", "is_error", "words"),
    [
        ([], "left/image", Image, False, "nobody publishes /t: remap `left/image`"),
        (
            [publisher("CompressedImage")],
            "image",
            Image,
            True,
            "carries sensor_msgs/msg/CompressedImage, .*image_transport",
        ),
        ([publisher("CompressedImage")], "a/depth", Image, True, "not sensor_msgs/msg/Image: set depth_transport"),
        ([publisher("Image")], "camera_info", CameraInfo, True, "remap `camera_info`"),
        ([publisher("Image")], "image", Image, False, "nothing has come for 10 s"),
        (
            [publisher("CameraInfo", DurabilityPolicy.TRANSIENT_LOCAL)],
            "camera_info",
            CameraInfo,
            True,
            "qos_overrides./t.subscription.reliability to reliable and qos_overrides./t.subscription.durability",
        ),
    ],
)
def test_the_cause_is_said_with_what_to_do(
    publishers: list, name: str, message_type: type, is_error: bool, words: str
) -> None:
    found = explain_silence(publishers, "/t", name, message_type)
    assert found.is_error == is_error
    assert re.search(words, found.text)


def test_depth_is_due_by_its_own_pace_though_some_was_lost() -> None:
    """At 30 Hz, of which a slow model let go by three of four, and then none."""
    buffer = DepthBuffer("/depth")
    for number in (0, 4, 8, 9, 10):
        buffer.add(_depth(number))
    assert not buffer.is_due(_ns(10)), "it is there"
    assert buffer.is_due(_ns(11)) and buffer.is_due(_ns(13))
    assert not buffer.is_due(_ns(15)), "depth has fallen silent"


@pytest.mark.parametrize("numbers", [(0, 1, 2, 2, 3), (0, 1, 1.2, 2, 3)])
def test_a_stamp_twice_or_late_does_not_end_the_pace_of_depth(numbers: tuple[float, ...]) -> None:
    buffer = DepthBuffer("/depth")
    for number in numbers:
        buffer.add(_depth(number))
    assert buffer.is_due(_ns(4))


def _ns(number: float) -> int:
    return round(number / 30 * 1e9)


def _depth(number: float) -> SimpleNamespace:
    seconds, nanoseconds = divmod(_ns(number), 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds)))
