"""A skeleton as RViz markers: points and links coloured by group, and names."""

from __future__ import annotations

from typing import Any

import numpy as np

from keypoint_perception.drawing import Style
from keypoint_perception.lifting import Intrinsics, Lifted
from keypoint_perception.observation import Observation
from keypoint_perception.ros.conversions import Messages

LIFETIME_S = 1
"""Markers of a camera that fell silent go away by themselves."""
LINE_LIST, SPHERE_LIST, TEXT_VIEW_FACING, DELETEALL = 5, 7, 9, 3
"""Constants of visualization_msgs/Marker."""
_POINT_SIZE = 0.012
"""Diameter of a point per metre of distance; links are half as wide, letters twice as high."""


def marker_positions(
    observation: Observation, lifted: Lifted, intrinsics: Intrinsics | None, plane_depth: float
) -> np.ndarray:
    """(K, 3) metres: lifted where known; the rest lie on their rays, at the median depth of the lifted ones.

    With nothing lifted they lie on the plane z = plane_depth. Without intrinsics the camera is taken for one with a
    60 degree horizontal field of view.
    """
    intrinsics = intrinsics or Intrinsics.of_view(observation.image_size, horizontal_degrees=60)
    known = np.isfinite(lifted.positions).all(axis=1)
    depth = float(np.median(lifted.positions[known, 2])) if known.any() else plane_depth
    flat = intrinsics.rays(observation.keypoints) * depth
    return np.where(known[:, None], lifted.positions, flat)


def skeleton_markers(
    messages: Messages,
    header: Any,
    observation: Observation,
    positions: np.ndarray,
    style: Style,
    names: tuple[str, ...],
) -> Any:
    """A MarkerArray that replaces the one before, whatever number of keypoints that had.

    positions: (K, 3) metres in the frame of `header`. names: (K,) labels, or nothing for no labels.
    """
    shown = np.flatnonzero(np.isfinite(positions).all(axis=1))
    if shown.size == 0:
        return messages.make(
            "visualization_msgs/msg/MarkerArray", markers=[_marker(messages, header, action=DELETEALL)]
        )
    size = _POINT_SIZE * max(float(np.median(positions[shown, 2])), 1e-3)
    points = {k: _point(messages, positions[k]) for k in shown.tolist()}
    paints = {k: _paint(messages, style.colours[k], float(observation.scores[k])) for k in points}
    markers = [
        _marker(messages, header, action=DELETEALL),
        _marker(
            messages,
            header,
            ns="keypoints",
            type=SPHERE_LIST,
            scale=_vector(messages, size, size, size),
            points=list(points.values()),
            colors=list(paints.values()),
        ),
    ]
    ends = [k for edge in observation.edges().tolist() if set(edge) <= points.keys() for k in edge]
    if ends:
        markers.append(
            _marker(
                messages,
                header,
                ns="skeleton",
                type=LINE_LIST,
                scale=_vector(messages, size / 2, 0.0, 0.0),
                points=[points[k] for k in ends],
                colors=[paints[k] for k in ends],
            )
        )
    for k in points if names else ():
        beside = _point(messages, positions[k] - (0, 1.5 * size, 0))
        pose = messages.make("geometry_msgs/msg/Pose", position=beside, orientation=_upright(messages))
        markers.append(
            _marker(
                messages,
                header,
                ns="names",
                id=k,
                type=TEXT_VIEW_FACING,
                pose=pose,
                scale=_vector(messages, 0.0, 0.0, 2 * size),
                color=paints[k],
                text=names[k],
            )
        )
    return messages.make("visualization_msgs/msg/MarkerArray", markers=markers)


def _marker(messages: Messages, header: Any, **fields: Any) -> Any:
    fields.setdefault("pose", messages.make("geometry_msgs/msg/Pose", orientation=_upright(messages)))
    lifetime = messages.make("builtin_interfaces/msg/Duration", sec=LIFETIME_S, nanosec=0)
    return messages.make("visualization_msgs/msg/Marker", header=header, lifetime=lifetime, **fields)


def _point(messages: Messages, position: np.ndarray) -> Any:
    x, y, z = position.tolist()
    return messages.make("geometry_msgs/msg/Point", x=x, y=y, z=z)


def _vector(messages: Messages, x: float, y: float, z: float) -> Any:
    return messages.make("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def _upright(messages: Messages) -> Any:
    return messages.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)


def _paint(messages: Messages, colour: np.ndarray, score: float) -> Any:
    r, g, b = (colour / 255).tolist()
    return messages.make("std_msgs/msg/ColorRGBA", r=r, g=g, b=b, a=0.25 + 0.75 * score)
