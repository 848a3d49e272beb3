"""What was found in an image, and the messages that say so: the same for the live node and for bags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keypoint_perception.drawing import Style, draw
from keypoint_perception.lifting import Intrinsics, Lifted
from keypoint_perception.model import Model
from keypoint_perception.observation import Observation
from keypoint_perception.ros.annotations import TYPE as ANNOTATIONS_TYPE
from keypoint_perception.ros.annotations import image_annotations
from keypoint_perception.ros.conversions import (
    PACKAGE,
    Messages,
    jpeg_image,
    keypoint_hierarchy,
    rgb_image,
    skeleton_graph,
)
from keypoint_perception.ros.keypoint_arrays import KeypointArrays
from keypoint_perception.ros.markers import marker_positions, skeleton_markers

TOPICS = {
    "keypoints": f"{PACKAGE}/KeypointArray",
    "skeleton": f"{PACKAGE}/SkeletonGraph",
    "hierarchy": f"{PACKAGE}/KeypointHierarchy",
    "markers": "visualization_msgs/msg/MarkerArray",
    "overlay": "sensor_msgs/msg/Image",
    "overlay/compressed": "sensor_msgs/msg/CompressedImage",
    "annotations": ANNOTATIONS_TYPE,
}
"""Name, below the node's or the camera's own, to message type."""
LATCHED = frozenset({"skeleton", "hierarchy"})


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


@dataclass(frozen=True)
class Look:
    """How results are shown."""

    style: Style
    marker_names: tuple[str, ...] = ()
    """(K,) labels of the markers, or nothing for no labels."""
    marker_depth: float = 1.0
    """Metres; where markers are shown when there is no depth."""


class ResultMessages:
    """The messages about one camera's results, in the order in which they are wanted."""

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self.forget()

    def forget(self) -> None:
        """What is latched is said again with the next result."""
        self._model_id: str | None = None
        self._skeleton_is_static = False

    def of(self, result: Result, model: Model, look: Look, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
        """(topic, message) of a result.

        Keypoints come first and always, and serialised; the hierarchy once a model; the skeleton whenever it may have
        changed.
        wanted: whether somebody looks at a topic, asked for what is only for the eye.
        """
        messages, header, observation, lifted = self._messages, result.header, result.observation, result.lifted
        is_new = self._model_id != model.id
        if is_new:
            self._model_id, self._skeleton_is_static = model.id, False
            self._keypoints = KeypointArrays(model)
        yield "keypoints", self._keypoints.serialise(header, observation, result.states, lifted)
        if is_new:
            yield "hierarchy", keypoint_hierarchy(messages, header, model)
        static = model.info.adjacency is not None and not lifted.is_known  # nor are there lengths
        if not (static and self._skeleton_is_static):
            self._skeleton_is_static = static
            yield "skeleton", skeleton_graph(messages, header, model, observation, lifted)
        if wanted("markers"):
            positions = marker_positions(observation, lifted, result.intrinsics, look.marker_depth)
            markers = skeleton_markers(messages, header, observation, positions, look.style, look.marker_names)
            yield "markers", markers
        if wanted("annotations"):
            yield "annotations", image_annotations(messages, header, observation, look.style, look.style.names)
        raw, jpeg = wanted("overlay"), wanted("overlay/compressed")
        if raw or jpeg:
            picture = draw(result.image, observation, look.style)
            if raw:
                yield "overlay", rgb_image(messages, header, picture)
            if jpeg:
                yield "overlay/compressed", jpeg_image(messages, header, picture)
