"""A skeleton as Foxglove ImageAnnotations: drawn over the camera's own picture, so that none needs to be sent."""

from __future__ import annotations

from typing import Any

import numpy as np

from keypoint_perception.drawing import Style
from keypoint_perception.observation import Observation
from keypoint_perception.ros.conversions import Messages

TYPE = "foxglove_msgs/msg/ImageAnnotations"
LINE_LIST = 4
"""Constant of foxglove_msgs/PointsAnnotation."""
_REFERENCE_HEIGHT = 480.0
_CORNER = 0.5
"""Foxglove counts pixels from the top-left pixel's corner, we from its centre."""


def image_annotations(
    messages: Messages, header: Any, observation: Observation, style: Style, names: tuple[str, ...]
) -> Any:
    """Circles for keypoints, lines for edges, and texts for `names`, (K,) labels or nothing."""
    unit = max(observation.image_size[1] / _REFERENCE_HEIGHT, 0.25)
    shown = np.flatnonzero(np.isfinite(observation.keypoints).all(axis=1)).tolist()
    points = {k: _point(messages, observation.keypoints[k]) for k in shown}
    paints = {k: _paint(messages, style.colours[k], float(observation.scores[k])) for k in shown}
    clear = _colour(messages, 0.0, 0.0, 0.0, 0.0)
    edges = [(i, j) for i, j in observation.edges().tolist() if i in points and j in points]
    circles = [
        messages.make(
            "foxglove_msgs/msg/CircleAnnotation",
            timestamp=header.stamp,
            position=points[k],
            diameter=10 * unit,
            thickness=2 * unit,
            fill_color=paints[k] if observation.scores[k] >= style.threshold else clear,
            outline_color=paints[k],
        )
        for k in shown
    ]
    lines = messages.make(
        "foxglove_msgs/msg/PointsAnnotation",
        timestamp=header.stamp,
        type=LINE_LIST,
        points=[points[k] for edge in edges for k in edge],
        outline_colors=[paints[i] for i, _ in edges],
        thickness=3 * unit,
    )
    texts = [_text(messages, header, points[k], names[k], 14 * unit) for k in (shown if names else ())]
    return messages.make(TYPE, circles=circles, points=[lines], texts=texts)


def _text(messages: Messages, header: Any, position: Any, text: str, size: float) -> Any:
    return messages.make(
        "foxglove_msgs/msg/TextAnnotation",
        timestamp=header.stamp,
        position=position,
        text=text,
        font_size=size,
        text_color=_colour(messages, 1.0, 1.0, 1.0, 1.0),
        background_color=_colour(messages, 0.0, 0.0, 0.0, 0.5),
    )


def _point(messages: Messages, pixel: np.ndarray) -> Any:
    x, y = (pixel + _CORNER).tolist()
    return messages.make("foxglove_msgs/msg/Point2", x=x, y=y)


def _paint(messages: Messages, colour: np.ndarray, score: float) -> Any:
    r, g, b = (colour / 255).tolist()
    return _colour(messages, r, g, b, 0.3 + 0.7 * score)


def _colour(messages: Messages, r: float, g: float, b: float, a: float) -> Any:
    return messages.make("foxglove_msgs/msg/Color", r=r, g=g, b=b, a=a)
