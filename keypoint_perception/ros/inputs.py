"""What one camera sends: the newest image, the depth that belongs to it, and the calibration."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from keypoint_perception.errors import UserError
from keypoint_perception.lifting import Intrinsics
from keypoint_perception.ros.calibration import Calibration
from keypoint_perception.ros.depth import DepthBuffer
from keypoint_perception.ros.faults import Faults
from keypoint_perception.ros.overwritten import Overwritten
from keypoint_perception.ros.serialised import (
    SerialisedCompressedImage,
    SerialisedImage,
    read_compressed_image,
    read_image,
)
from keypoint_perception.ros.silence import Watch
from keypoint_perception.ros.statistics import Statistics
from keypoint_perception.stamps import stamp_ns

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

NEWEST_ONLY = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""The sensor-data profile, but for the newest message only: what waits is what delays."""
_ALL_DEPTH = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Depth that comes while an image is served is kept, too, as its pace says whether one is due."""
_OVERRIDABLE = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY, QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)
_TYPES = {"raw": Image, "compressed": CompressedImage}
_READERS: dict[str, Callable[[bytes], SerialisedImage | SerialisedCompressedImage]] = {
    "raw": read_image,
    "compressed": read_compressed_image,
}


@dataclass(frozen=True)
class Pending:
    """An image message that waits to be looked at."""

    message: SerialisedImage | SerialisedCompressedImage
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
    rectified: bool
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
        serve: Callable[[], object],
    ) -> None:
        """on_news: called when anything has come. serve: serves what is pending and waits for nothing."""
        self._node, self._topics, self._faults, self._statistics = node, topics, faults, statistics
        self._on_news, self._serve = on_news, serve
        self.image_topic = self._full_name("image")
        """Remapping included."""
        self._subscriptions: dict[str, Subscription] = {}
        self.pending: Pending | None = None
        self.calibration = Calibration(self._full_name("camera_info"), topics.rectified)
        self._takers = {"depth": self._take_depth, "camera_info": self.calibration.add, "image": self._take_image}
        self._depths = DepthBuffer(self._full_name("depth"))
        self._overwritten = Overwritten(self._image_publishers)
        self._watches: dict[str, Watch] = {}
        """Of each subscription."""
        self.overtaken = False
        """Whether the next image came while one was pending, which is then served without what it waits for."""

    @property
    def wants_depth(self) -> bool:
        """Whether depth is subscribed."""
        return self._topics.depth_transport != "none"

    def open(self) -> None:
        """Subscribes."""
        if self.wants_depth:
            self._subscribe("depth", _TYPES[self._topics.depth_transport])
        self._subscribe("camera_info", CameraInfo)
        self._subscribe("image", _TYPES[self._topics.image_transport])

    def close(self) -> None:
        """Unsubscribes and forgets."""
        self._count_overwritten()
        self._overwritten = Overwritten(self._image_publishers)
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._depths.clear()
        self.pending = None

    def fetch(self) -> None:
        """Takes what has come, as the executor would in its next turns; an image only where none is pending.

        A turn of rclpy's executor serves one message, and takes a fifth as long as a small model's inference.
        """
        for name, subscription in self._subscriptions.items():
            while name != "image" or self.pending is None:
                with subscription.handle:
                    taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
                if taken is None:
                    break
                self._take(name, *taken)

    def take(self) -> Pending:
        """The pending image, which is then no longer pending."""
        pending, self.pending = self.pending, None
        assert pending is not None
        self.overtaken = False
        return pending

    def waits_for_depth(self, now: float, longest: float) -> bool:
        """Whether depth for the pending image may still come within `longest` seconds of the image's arrival."""
        pending = self.pending
        if pending is None or self.overtaken or now - pending.arrived >= longest:
            return False
        return self._depths.is_due(pending.stamp_ns)

    def depth_of(self, header: Any, image_size: tuple[int, int], max_delay: float) -> np.ndarray | None:
        """Depth (H, W) that fits the image with that header, in the message's units (`images.to_metres`), or None.

        Then the reason is among the faults.
        """
        if not self.wants_depth:
            return None
        try:
            depth = self._depths.at(header, image_size, max_delay)
        except UserError as error:
            self._faults.warn("depth", f"no 3-D: {error}")
            return None
        self._faults.clear("depth")
        return depth

    def intrinsics_of(self, image_size: tuple[int, int]) -> Intrinsics | None:
        """The calibration, where there is one that fits images of `image_size`; where it is needed, else a fault."""
        if not (self.calibration.is_known or self._topics.lifts):
            return None
        try:
            intrinsics = self.calibration.intrinsics(image_size)
        except UserError as error:
            if self._topics.lifts:
                self._faults.warn("calibration", f"no 3-D: {error}")
            return None
        self._faults.clear("calibration")
        return intrinsics

    def note_unreadable(self, error: UserError) -> None:
        """An image was dropped for what it is."""
        self._statistics.dropped["unreadable"] += 1
        self._faults.error("image", f"image on {self.image_topic} dropped: {error}")

    def check_publishers(self) -> None:
        """Looks for a cause where nothing has come for a while, and whether incompatible publishers are gone.

        Counts, too, which images of theirs were superseded before they were taken.
        """
        self._count_overwritten()
        for name, subscription in self._subscriptions.items():
            self._watches[name].look(subscription, is_missed=self._is_missed(name))

    def _is_missed(self, name: str) -> bool:
        """Whether something is the worse for the silence of a topic."""
        if name == "camera_info":
            return self._topics.lifts and not self.calibration.is_known
        return True

    def _subscribe(self, name: str, message_type: Any) -> None:
        def receive(serialised: bytes, info: dict[str, Any]) -> None:
            self._take(name, serialised, info)
            self._on_news()

        has_info = hasattr(Subscription, "CallbackType")  # Humble gives none, and numbers no messages
        callback: Any = receive if has_info else lambda serialised: receive(serialised, {})
        profile = _ALL_DEPTH if name == "depth" else NEWEST_ONLY
        watch = self._watches[name] = Watch(self._node, f"{self._topics.prefix}{name}", self._faults)
        self._subscriptions[name] = self._node.create_subscription(
            message_type,
            f"{self._topics.prefix}{name}",
            callback,
            copy(profile),  # rclpy writes what overrides a profile into it
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=watch.note_incompatible,
                message_lost=self._note_lost if name == "image" else None,
                use_default_callbacks=False,  # each costs time in every turn of the executor
            ),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )

    def _take(self, name: str, serialised: bytes, info: dict[str, Any]) -> None:
        """info: what the middleware says of the message."""
        if name == "image":
            self._overwritten.note(info.get("publication_sequence_number"))
        self._watches[name].note_message()
        self._takers[name](serialised)

    def _take_image(self, serialised: bytes) -> None:
        self._statistics.received += 1
        try:
            message = _READERS[self._topics.image_transport](serialised)
        except UserError as error:
            self.note_unreadable(error)
            return
        if self.pending is not None and self._topics.lifts:
            self.overtaken = True  # so that it is served now, not lost
            self._serve()
        if self.pending is not None:
            self._statistics.dropped["superseded"] += 1
        self.pending = Pending(message, self._watches["image"].last)

    def _take_depth(self, serialised: bytes) -> None:
        try:
            self._depths.add(_READERS[self._topics.depth_transport](serialised))
        except UserError as error:
            self._faults.warn("depth", f"no 3-D: {error}")

    def _note_lost(self, event: Any) -> None:
        self._statistics.dropped["lost"] += event.total_count_change
        self._overwritten.note_lost(event.total_count_change)

    def _count_overwritten(self) -> None:
        count = self._overwritten.count()
        self._statistics.received += count
        self._statistics.dropped["superseded"] += count

    def _image_publishers(self) -> frozenset[bytes]:
        publishers = self._node.get_publishers_info_by_topic(self.image_topic)
        return frozenset(bytes(publisher.endpoint_gid) for publisher in publishers)

    def _full_name(self, name: str) -> str:
        return self._node.resolve_topic_name(f"{self._topics.prefix}{name}")
