"""Observations to messages, for the live node and for bags alike: no middleware is imported here.

`Messages` makes a message of either world, so that what is published and what is written to a bag cannot differ.
"""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.lifting import Lifted, edge_lengths
from keypoint_perception.model import Model
from keypoint_perception.observation import EDGE_THRESHOLD, Observation

PACKAGE = "keypoint_perception_msgs/msg"
_JPEG_QUALITY = 85
_MAX_JPEG_SIDE = 65_500
"""OpenCV's limit."""


class Messages(Protocol):
    """Makes messages by type name."""

    def make(self, type_name: str, **fields: Any) -> Any:
        """A message such as "std_msgs/msg/Header"; fields that are not given have their defaults."""

    def numbers(self, values: Any, dtype: str) -> Any:
        """Numbers as this world wants an array field of element type `dtype` (numpy name)."""


def is_topic_part(name: str) -> bool:
    """Whether a name may stand between the slashes of a topic: letters, digits and _, no digit first."""
    return name.isidentifier() and name.isascii()


def skeleton_graph(messages: Messages, header: Any, model: Model, observation: Observation, lifted: Lifted) -> Any:
    """A SkeletonGraph: the edges of the observation with their weights and, where both ends are known, lengths."""
    edges = observation.edges(EDGE_THRESHOLD)
    return messages.make(
        f"{PACKAGE}/SkeletonGraph",
        header=header,
        model_id=model.id,
        edge_source=messages.numbers(edges[:, 0], "uint16"),
        edge_target=messages.numbers(edges[:, 1], "uint16"),
        edge_weight=messages.numbers(observation.adjacency[edges[:, 0], edges[:, 1]], "float32"),
        edge_length=messages.numbers(edge_lengths(lifted, edges), "float32"),
    )


def keypoint_hierarchy(messages: Messages, header: Any, model: Model) -> Any:
    """A KeypointHierarchy: the model's groups and keypoints as a forest, a parent before its children."""
    forest = model.info.hierarchy()
    return messages.make(
        f"{PACKAGE}/KeypointHierarchy",
        header=header,
        model_id=model.id,
        parent=messages.numbers(forest.parent, "int32"),
        keypoint_id=messages.numbers(forest.keypoint_id, "int32"),
        level=messages.numbers(forest.level, "uint8"),
        name=list(forest.name),
    )


def rgb_image(messages: Messages, header: Any, image: np.ndarray) -> Any:
    """A sensor_msgs Image, rgb8, of a picture (H, W, 3) uint8."""
    height, width = image.shape[:2]
    return messages.make(
        "sensor_msgs/msg/Image",
        header=header,
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=width * 3,
        data=messages.numbers(image.ravel(), "uint8"),
    )


def jpeg_image(messages: Messages, header: Any, image: np.ndarray) -> Any:
    """A sensor_msgs CompressedImage, jpeg, of a picture (H, W, 3) uint8 RGB. Raises UserError where it is too large."""
    height, width = image.shape[:2]
    if max(width, height) > _MAX_JPEG_SIDE:
        raise UserError(
            f"{width} x {height} pixels are too many for a jpeg: at most {_MAX_JPEG_SIDE} a side, give smaller images"
        )
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return messages.make(
        "sensor_msgs/msg/CompressedImage",
        header=header,
        format="rgb8; jpeg compressed bgr8",
        data=messages.numbers(data, "uint8"),
    )
