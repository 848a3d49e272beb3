"""Why nothing comes on a topic, in words that say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rclpy.qos import DurabilityPolicy
from sensor_msgs.msg import CameraInfo

SILENCE_S = 10.0
"""After this long without a message, the cause is looked for."""


class Silence(NamedTuple):
    """A cause of silence."""

    is_error: bool
    """Whether it will not pass by itself."""
    text: str


def explain_silence(publishers: Sequence[Any], topic: str, name: str, message_type: Any) -> Silence:
    """Why nothing has come on `topic`, by what the graph knows of its publishers.

    name: of the topic before remapping; message_type: what was subscribed.
    """
    types = {publisher.topic_type for publisher in publishers}
    wanted = f"sensor_msgs/msg/{message_type.__name__}"
    if not types:
        return Silence(False, f"nobody publishes {topic}: remap `{name}` to your camera's topic")
    if wanted not in types:
        kind = name.rpartition("/")[2]
        remedy = f"remap `{name}`" if message_type is CameraInfo else f"set {kind}_transport"
        return Silence(True, f"{topic} carries {', '.join(sorted(types))}, not {wanted}: {remedy}")
    latched = any(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers)
    if latched and message_type is CameraInfo:
        override = f"qos_overrides.{topic}.subscription"
        remedy = f"set {override}.reliability to reliable and {override}.durability to transient_local"
        return Silence(True, f"{topic} was published before this node was there, and is kept for late ones: {remedy}")
    return Silence(
        False,
        f"{topic} has a publisher, but nothing has come for {SILENCE_S:.0f} s: is the camera running, and are both "
        "sides started with config/fastdds.xml?",
    )
