"""The topics of one camera, which the node publishes."""

from __future__ import annotations

import time
from copy import copy
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from keypoint_perception.errors import UserError
from keypoint_perception.model import Model
from keypoint_perception.ros.messages import RclpyMessages, message_class
from keypoint_perception.ros.results import LATCHED, TOPICS, Look, Result, ResultMessages

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

_LIVE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
_PICTURES = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_QOS = {"overlay": _PICTURES, "overlay/compressed": _PICTURES} | dict.fromkeys(LATCHED, _LATCHED)
_OVERRIDABLE = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)


class CameraOutput:
    """Publishers of one camera."""

    def __init__(self, node: LifecycleNode, prefix: str) -> None:
        """prefix: "" or "<camera>/"."""
        self._node, self._messages = node, ResultMessages(RclpyMessages())
        self._publishers: dict[str, Any] = {}
        self._overlaid_at = -np.inf
        try:
            for name, type_name in TOPICS.items():
                self._open(name, type_name, prefix)
        except Exception:  # rclpy's own, such as of a qos_overrides that is not allowed
            self.close()
            raise

    def forget(self) -> None:
        """The latched topics are published again with the next image."""
        self._messages.forget()

    def close(self) -> None:
        """Ends the topics."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, result: Result, model: Model, look: Look, overlay_rate: float) -> None:
        """Everything about one image; what is for the eye only where somebody looks.

        overlay_rate: at most this many overlays a second, 0 for one an image.
        """
        now = time.monotonic()
        overlays = not overlay_rate or now - self._overlaid_at >= 1 / overlay_rate

        def wanted(name: str) -> bool:
            publisher = self._publishers.get(name)
            allowed = overlays or not name.startswith("overlay")
            return allowed and publisher is not None and publisher.get_subscription_count() > 0

        for name, message in self._messages.of(result, model, look, wanted):
            self._publishers[name].publish(message)
            if name.startswith("overlay"):
                self._overlaid_at = now

    def _open(self, name: str, type_name: str, prefix: str) -> None:
        try:
            message_type = message_class(type_name)
        except UserError:  # Foxglove's messages are not installed everywhere
            return
        self._publishers[name] = self._node.create_lifecycle_publisher(
            message_type,
            f"~/{prefix}{name}",
            copy(_QOS.get(name, _LIVE)),  # rclpy writes what overrides a profile into it
            # Telling of an incompatible subscriber costs time in every turn of the executor.
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=name == "keypoints"),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )
