"""What one camera sends: the newest image, the depth that belongs to it, and the calibration."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from keypoint_perception.errors import UserError
from keypoint_perception.images import image_to_depth
from keypoint_perception.lifting import Intrinsics
from keypoint_perception.ros.faults import Faults
from keypoint_perception.ros.statistics import Statistics

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

NEWEST_ONLY = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""The sensor-data profile, but for the newest message only: what waits is what delays."""
_OVERRIDABLE = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY, QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)
_TYPES = {"raw": Image, "compressed": CompressedImage}
_DEPTH_KEPT = 8
_DEPTH_PATIENCE = 3.5
"""Depth that has missed this many of its periods has fallen silent."""
SILENCE_S = 10.0
"""After this long without an image, the cause is looked for."""


def stamp_ns(header: Any) -> int:
    """A header's time in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


@dataclass(frozen=True)
class Pending:
    """An image message that waits to be looked at."""

    message: Any
    arrived: float
    """Seconds of the steady clock."""

    @property
    def stamp_ns(self) -> int:
        """When the image was taken, nanoseconds."""
        return stamp_ns(self.message.header)


@dataclass(frozen=True)
class Topics:
    """Where one camera's messages are: names before remapping, and types."""

    prefix: str
    """"" or "<camera>/"."""
    image_transport: str
    depth_transport: str
    in_stereo: bool

    @property
    def lifts(self) -> bool:
        """Whether positions in metres are asked for."""
        return self.in_stereo or self.depth_transport != "none"


class CameraInput:
    """Subscriptions of one camera, and the newest of what they brought."""

    def __init__(
        self,
        node: LifecycleNode,
        topics: Topics,
        faults: Faults,
        statistics: Statistics,
        on_news: Callable[[], None],
        serve: Callable[[], None],
    ) -> None:
        """on_news: called when an image or depth has come. serve: serves what is pending and waits for nothing."""
        self._node, self._topics, self._faults, self._statistics = node, topics, faults, statistics
        self._on_news, self._serve = on_news, serve
        self._subscriptions: list[Any] = []
        self.pending: Pending | None = None
        self.camera_info: Any = None
        self._intrinsics: Intrinsics | None = None
        self._depths: deque[Any] = deque(maxlen=_DEPTH_KEPT)
        self._image_arrived = -math.inf
        self._overtaken = False

    @property
    def wants_depth(self) -> bool:
        """Whether depth is subscribed."""
        return self._topics.depth_transport != "none"

    @property
    def image_topic(self) -> str:
        """The image topic's full name, remapping included."""
        return self._node.resolve_topic_name(f"{self._topics.prefix}image")

    def open(self) -> None:
        """Subscribes."""
        self._image_arrived = time.monotonic()
        self._subscribe("image", _TYPES[self._topics.image_transport], self._take_image)
        self._subscribe("camera_info", CameraInfo, self._take_camera_info)
        if self.wants_depth:
            self._subscribe("depth", _TYPES[self._topics.depth_transport], self._take_depth)

    def close(self) -> None:
        """Unsubscribes and forgets."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._depths.clear()
        self.pending = None

    def take(self) -> Pending:
        """The pending image, which is then no longer pending."""
        pending, self.pending = self.pending, None
        assert pending is not None
        self._overtaken = False
        return pending

    def waits_for_depth(self, now: float, longest: float) -> bool:
        """Whether depth for the pending image may still come within `longest` seconds of the image's arrival.

        Depth is often slower than the images, and may fall silent: an image waits only at an instant when, by the
        pace of the depth so far, one is due.
        """
        pending = self.pending
        if pending is None or len(self._depths) < 2 or self._overtaken or now - pending.arrived >= longest:
            return False
        before, last = (stamp_ns(self._depths[i].header) for i in (-2, -1))
        return 0.75 <= (pending.stamp_ns - last) / max(last - before, 1) <= _DEPTH_PATIENCE

    def depth_of(self, header: Any, image_size: tuple[int, int], max_delay: float) -> np.ndarray | None:
        """Depth (H, W), metres, that fits the image with that header, or None with the reason among the faults."""
        if not self.wants_depth:
            return None
        try:
            depth = self._fitting_depth(header, image_size, max_delay)
        except UserError as error:
            self._faults.warn("depth", f"no 3-D: {error}")
            return None
        self._faults.clear("depth")
        return depth

    def intrinsics_of(self, image_size: tuple[int, int]) -> Intrinsics | None:
        """The calibration, where there is one that fits images of `image_size`; where it is needed, else a fault."""
        try:
            calibration = self._fitting_intrinsics(image_size)
        except UserError as error:
            if self._topics.lifts:
                self._faults.warn("calibration", f"no 3-D: {error}")
            return None
        self._faults.clear("calibration")
        return calibration

    def check_publishers(self) -> None:
        """Looks for a cause where no image has come for a while: nobody publishes, or something of another type."""
        if time.monotonic() - self._image_arrived < SILENCE_S:
            return
        wanted = _TYPES[self._topics.image_transport]
        wanted_name = f"sensor_msgs/msg/{wanted.__name__}"
        types = {info.topic_type for info in self._node.get_publishers_info_by_topic(self.image_topic)}
        if not types:
            self._faults.warn("silence", f"nobody publishes {self.image_topic}: remap `image` to your camera's topic")
        elif wanted_name not in types:
            self._faults.error(
                "silence",
                f"{self.image_topic} carries {', '.join(sorted(types))}, not {wanted_name}: set image_transport",
            )
        else:
            self._faults.clear("silence")

    def _subscribe(self, name: str, message_type: Any, callback: Callable[[Any], None]) -> None:
        self._subscriptions.append(
            self._node.create_subscription(
                message_type,
                f"{self._topics.prefix}{name}",
                callback,
                NEWEST_ONLY,
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=lambda event: self._note_incompatible(name, event),
                    message_lost=self._note_lost if name == "image" else None,
                    use_default_callbacks=False,  # each costs time in every turn of the executor
                ),
                qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
            )
        )

    def _take_image(self, message: Any) -> None:
        self._statistics.received += 1
        self._faults.clear("silence")
        self._image_arrived = time.monotonic()
        if self.pending is not None and self.wants_depth:
            self._overtaken = True  # the next image is here: its depth will not come, and it need not be lost for that
            self._serve()
        if self.pending is not None:
            self._statistics.dropped["superseded"] += 1
        self.pending = Pending(message, self._image_arrived)
        self._on_news()

    def _take_depth(self, message: Any) -> None:
        if self._depths and stamp_ns(message.header) < stamp_ns(self._depths[-1].header):
            self._depths.clear()  # the clock went back
        self._depths.append(message)
        if self.pending is not None:
            self._on_news()

    def _take_camera_info(self, message: Any) -> None:
        if self.camera_info is not None:
            message.header = self.camera_info.header  # the stamp changes with each image, the calibration does not
        if message != self.camera_info:
            self.camera_info, self._intrinsics = message, None

    def _note_incompatible(self, name: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        topic = self._full_name(name)
        self._faults.error(
            f"qos {name}",
            f"a publisher of {topic} offers an incompatible {policy}, nothing comes from it: "
            f"change it, or set qos_overrides.{topic}.subscription.*",
        )

    def _note_lost(self, event: Any) -> None:
        self._statistics.dropped["lost"] += event.total_count_change

    def _fitting_intrinsics(self, image_size: tuple[int, int]) -> Intrinsics:
        if self.camera_info is None:
            raise UserError(f"nothing on {self._full_name('camera_info')} yet")
        if self._intrinsics is None:
            self._intrinsics = Intrinsics.from_camera_info(self.camera_info)
        if self._intrinsics.size != image_size:
            raise UserError(
                f"camera_info is for {_times(self._intrinsics.size)} pixels, the image has {_times(image_size)}: "
                "publish the calibration of these images"
            )
        return self._intrinsics

    def _fitting_depth(self, header: Any, image_size: tuple[int, int], max_delay: float) -> np.ndarray:
        if not self._depths:
            raise UserError(f"nothing on {self._full_name('depth')} yet")
        instant = stamp_ns(header)
        nearest = min(self._depths, key=lambda depth: abs(stamp_ns(depth.header) - instant))
        apart = abs(stamp_ns(nearest.header) - instant) / 1e9
        if apart > max_delay:
            raise UserError(
                f"the nearest depth is {apart:.3f} s from the image, allowed is max_depth_delay {max_delay} s"
            )
        frame = nearest.header.frame_id
        if frame != header.frame_id:
            raise UserError(
                f"depth is in frame {frame!r}, the image in {header.frame_id!r}: give depth aligned with the image"
            )
        depth = image_to_depth(nearest)
        if depth.shape[1::-1] != image_size:
            raise UserError(
                f"depth has {_times(depth.shape[1::-1])} pixels, the image {_times(image_size)}: "
                "give depth aligned with the image"
            )
        return depth

    def _full_name(self, name: str) -> str:
        return self._node.resolve_topic_name(f"{self._topics.prefix}{name}")


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
