"""Whether anything comes on a topic and, if not, why: in words that say what to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSCompatibility, qos_check_compatible, qos_policy_name_from_kind
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo

from keypoint_perception.ros.faults import Faults

SILENCE_S = 10.0
"""After this long without a message, the cause is looked for."""


class Watch:
    """Watches one subscription for silence and for publishers of another quality of service."""

    def __init__(self, node: Node, name: str, faults: Faults) -> None:
        """name: of the topic before remapping."""
        self._node, self._name, self._faults = node, name, faults
        self._topic = node.resolve_topic_name(name)
        kind = name.rpartition("/")[2]
        self._silence, self._qos = f"silence {kind}", f"qos {kind}"
        self.last = time.monotonic()
        """When the last message came, or the watch began; seconds of the steady clock."""

    def note_message(self) -> None:
        """A message has come."""
        self.last = time.monotonic()
        self._faults.clear(self._silence)

    def note_incompatible(self, event: Any) -> None:
        """There is a publisher from which nothing comes for its QoS."""
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        self._faults.error(
            self._qos,
            f"a publisher of {self._topic} offers an incompatible {policy}, nothing comes from it: "
            f"change it, or set qos_overrides.{self._topic}.subscription.*",
        )

    def look(self, subscription: Subscription, *, is_missed: bool) -> None:
        """Looks whether incompatible publishers are gone and, where messages are missed, why none has come lately."""
        is_silent = is_missed and time.monotonic() - self.last >= SILENCE_S
        if not is_silent and not self._faults.has(self._qos):
            return
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        if not any(_is_incompatible(p, subscription) for p in publishers):
            self._faults.clear(self._qos)
        if is_silent:
            found = explain_silence(publishers, self._topic, self._name, subscription.msg_type)
            (self._faults.error if found.is_error else self._faults.warn)(self._silence, found.text)


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


def _is_incompatible(publisher: Any, subscription: Subscription) -> bool:
    return qos_check_compatible(publisher.qos_profile, subscription.qos_profile)[0] == QoSCompatibility.ERROR
