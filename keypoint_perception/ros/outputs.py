"""What the node says of one camera: keypoints, skeleton, hierarchy, markers and pictures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from keypoint_perception.drawing import Style, draw
from keypoint_perception.lifting import Intrinsics, Lifted
from keypoint_perception.model import Model
from keypoint_perception.observation import Observation
from keypoint_perception.ros.annotations import TYPE as ANNOTATIONS_TYPE
from keypoint_perception.ros.annotations import image_annotations
from keypoint_perception.ros.conversions import (
    jpeg_image,
    keypoint_array,
    keypoint_hierarchy,
    rgb_image,
    skeleton_graph,
)
from keypoint_perception.ros.markers import marker_positions, skeleton_markers
from keypoint_perception.ros.messages import RclpyMessages, message_class
from keypoint_perception.ros.parameters import Settings
from keypoint_perception_msgs.msg import KeypointArray, KeypointHierarchy, SkeletonGraph

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

LIVE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
PICTURES = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_OVERRIDABLE = (QoSPolicyKind.RELIABILITY, QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)


@dataclass(frozen=True)
class Result:
    """What was found in one image of a camera. K keypoints."""

    header: Any
    """The image's."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    observation: Observation
    states: np.ndarray
    """(K,) uint8 smoothing.State."""
    lifted: Lifted
    intrinsics: Intrinsics | None


class CameraOutput:
    """Publishers of one camera."""

    def __init__(self, node: LifecycleNode, prefix: str) -> None:
        """prefix: "" or "<camera>/"."""
        self._node, self._messages = node, RclpyMessages()
        self._publishers: list[Any] = []
        self._keypoints = self._publisher(KeypointArray, f"~/{prefix}keypoints", LIVE, watched=True)
        self._skeleton = self._publisher(SkeletonGraph, f"~/{prefix}skeleton", LATCHED)
        self._hierarchy = self._publisher(KeypointHierarchy, f"~/{prefix}hierarchy", LATCHED)
        self._markers = self._publisher(MarkerArray, f"~/{prefix}markers", LIVE)
        self._overlay = self._publisher(Image, f"~/{prefix}overlay", PICTURES)
        self._overlay_jpeg = self._publisher(CompressedImage, f"~/{prefix}overlay/compressed", PICTURES)
        self._annotations = self._publisher_if_installed(ANNOTATIONS_TYPE, f"~/{prefix}annotations", LIVE)
        self._overlaid_at = -np.inf
        self.forget()

    def forget(self) -> None:
        """The latched topics are published again with the next image."""
        self._model_id: str | None = None
        self._skeleton_is_static = False

    def close(self) -> None:
        """Ends the topics."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, result: Result, model: Model, style: Style, settings: Settings) -> None:
        """Everything about one image; keypoints first, pictures only where somebody looks."""
        header, observation, lifted = result.header, result.observation, result.lifted
        self._keypoints.publish(keypoint_array(self._messages, header, model, observation, result.states, lifted))
        self._publish_structure(header, model, observation, lifted)
        if self._markers.get_subscription_count():
            positions = marker_positions(observation, lifted, result.intrinsics, settings.marker_depth)
            names = model.info.keypoint_names if settings.marker_labels else ()
            self._markers.publish(skeleton_markers(self._messages, header, observation, positions, style, names))
        if self._annotations is not None and self._annotations.get_subscription_count():
            names = model.info.keypoint_names if settings.overlay_labels else ()
            self._annotations.publish(image_annotations(self._messages, header, observation, style, names))
        self._publish_overlay(result, style, settings)

    def _publish_structure(self, header: Any, model: Model, observation: Observation, lifted: Lifted) -> None:
        """The latched topics: the hierarchy once a model, the skeleton whenever it may have changed."""
        if self._model_id != model.id:
            self._model_id, self._skeleton_is_static = model.id, False
            self._hierarchy.publish(keypoint_hierarchy(self._messages, header, model))
        static = model.info.adjacency is not None and not np.isfinite(lifted.stddev).any()  # nor are there lengths
        if not (static and self._skeleton_is_static):
            self._skeleton_is_static = static
            self._skeleton.publish(skeleton_graph(self._messages, header, model, observation, lifted))

    def _publish_overlay(self, result: Result, style: Style, settings: Settings) -> None:
        raw, jpeg = self._overlay.get_subscription_count(), self._overlay_jpeg.get_subscription_count()
        now = time.monotonic()
        if not (raw or jpeg) or (settings.overlay_rate and now - self._overlaid_at < 1 / settings.overlay_rate):
            return
        self._overlaid_at = now
        picture = draw(result.image, result.observation, style)
        if raw:
            self._overlay.publish(rgb_image(self._messages, result.header, picture))
        if jpeg:
            self._overlay_jpeg.publish(jpeg_image(self._messages, result.header, picture))

    def _publisher(self, message_type: Any, topic: str, qos: QoSProfile, watched: bool = False) -> Any:
        """watched: whether an incompatible subscriber is logged, which costs time in every turn of the executor."""
        publisher = self._node.create_lifecycle_publisher(
            message_type,
            topic,
            qos,
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=watched),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )
        self._publishers.append(publisher)
        return publisher

    def _publisher_if_installed(self, type_name: str, topic: str, qos: QoSProfile) -> Any:
        """A publisher, or None where the package of its messages is not installed."""
        try:
            return self._publisher(message_class(type_name), topic, qos)
        except ImportError:
            return None
