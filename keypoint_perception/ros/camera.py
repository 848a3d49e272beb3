"""One camera of the node: from its newest message to its published keypoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode

from keypoint_perception.errors import UserError
from keypoint_perception.images import image_to_rgb
from keypoint_perception.lifting import lift, why_flat
from keypoint_perception.model import Model, ModelInfo
from keypoint_perception.observation import Observation
from keypoint_perception.ros.faults import Faults
from keypoint_perception.ros.inputs import CameraInput, Pending, Topics
from keypoint_perception.ros.outputs import CameraOutput
from keypoint_perception.ros.parameters import Settings
from keypoint_perception.ros.results import Look, Result
from keypoint_perception.ros.statistics import Statistics
from keypoint_perception.smoothing import Follower, OneEuroConfig
from keypoint_perception.stamps import stamp_ns

_FUTURE_TOLERANCE_S = 0.1


@dataclass(frozen=True)
class Frame:
    """An image that is ready for the detector."""

    header: Any
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    seconds: float
    """When it was taken; when it arrived, where its header does not say."""


class Camera:
    """Inputs, outputs and the past of one camera."""

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        topics: Topics,
        on_news: Callable[[], None],
        serve: Callable[[], object],
    ) -> None:
        """on_news, serve: see CameraInput. It serves nothing before settings are applied."""
        self.name = name
        self._node = node
        self.faults = Faults(node.get_logger(), name)
        self.statistics = Statistics()
        self.input = CameraInput(node, topics, self.faults, self.statistics, on_news, serve)
        self.output = CameraOutput(node, topics.prefix)
        self._model_id = ""
        self._info: ModelInfo | None = None
        self._filter: tuple[float, OneEuroConfig | None] | None = None

    def apply(self, settings: Settings) -> None:
        """Takes new settings; what is smoothed starts afresh where the filter changes."""
        if self._filter != (settings.max_gap, settings.one_euro()):
            self._filter = (settings.max_gap, settings.one_euro())
            self._follow = Follower(*self._filter, self._info)

    def close(self) -> None:
        """Ends topics and subscriptions."""
        self.input.close()
        self.output.close()

    def take(self, settings: Settings) -> Frame | None:
        """The pending image, decoded; None where it is too old or unreadable, which is counted."""
        pending = self.input.take()
        if self._is_old(pending, settings.max_age):
            self.statistics.dropped["old"] += 1
            return None
        self.faults.clear("age")
        message = pending.message
        self._check_frame(message.header)
        try:
            image = image_to_rgb(message)
        except UserError as error:
            self.input.note_unreadable(error)
            return None
        self.faults.clear("image")
        return Frame(message.header, image, pending.stamp_ns / 1e9 or pending.arrived)

    def finish(self, frame: Frame, model: Model, observation: Observation, settings: Settings) -> Result:
        """States, smoothing and depth for what the detector found."""
        if model.id != self._model_id:
            self._model_id, self._info, self._filter = model.id, model.info, None
            self.apply(settings)
        observation, states = self._follow(observation, frame.seconds, settings.threshold)
        size = observation.image_size
        intrinsics = self.input.intrinsics_of(size)
        depth = self.input.depth_of(frame.header, size, settings.max_depth_delay)
        lifted = lift(observation.keypoints, depth, intrinsics, settings.depth_window)
        flat = why_flat(lifted, depth, intrinsics)
        if flat:
            self.faults.warn("lifting", f"no 3-D: {flat}")
        else:
            self.faults.clear("lifting")
        return Result(frame.header, frame.image, observation, states, lifted, intrinsics)

    def publish(self, result: Result, model: Model, look: Look, settings: Settings) -> None:
        """Sends it, and notes when."""
        self.output.publish(result, model, look, settings.overlay_rate)
        latency = (self._node.get_clock().now().nanoseconds - stamp_ns(result.header)) / 1e9
        self.statistics.note_published(time.monotonic(), latency, result.observation.scores, settings.threshold)

    def _check_frame(self, header: Any) -> None:
        """Says where an image has no frame: its positions and markers are then in none, either."""
        if header.frame_id:
            self.faults.clear("frame")
            return
        self.faults.warn(
            "frame",
            f"images on {self.input.image_topic} have no frame_id: positions are in no frame, and RViz cannot place "
            "markers; set the camera's frame in its driver",
        )

    def _is_old(self, pending: Pending, max_age: float) -> bool:
        """Whether the stamp is too long ago, which is said. Without a stamp or a clock there is no age; said, too."""
        topic, now = self.input.image_topic, self._node.get_clock().now().nanoseconds
        age = (now - pending.stamp_ns) / 1e9
        if pending.stamp_ns == 0:
            self.faults.warn("stamp", f"images on {topic} have no stamp: their age is unknown")
            return False
        if now == 0:
            self.faults.warn("stamp", "use_sim_time is true and nothing comes on /clock: the age of images is unknown")
            return False
        if age < -_FUTURE_TOLERANCE_S:
            self.faults.warn("stamp", f"an image on {topic} is from {-age:.1f} s ahead: set the clocks")
        else:
            self.faults.clear("stamp")
        if not 0 < max_age < age:
            return False
        self.faults.warn(
            "age",
            f"images on {topic} are dropped: they are {age:.1f} s old, allowed is max_age {max_age} s; for a recording "
            "set it to 0.0, or play with --clock and set use_sim_time",
        )
        return True
