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
    markers = [_marker(messages, header, action=DELETEALL)]
    shown = np.flatnonzero(np.isfinite(positions).all(axis=1)).tolist()
    if shown:
        size = _POINT_SIZE * max(float(np.median(positions[shown, 2])), 1e-3)
        points = {k: _point(messages, positions[k]) for k in shown}
        paints = {k: _paint(messages, style.colours[k], float(observation.scores[k])) for k in shown}
        ends = [k for edge in observation.edges().tolist() if set(edge) <= points.keys() for k in edge]
        spheres = {"type": SPHERE_LIST, "scale": _vector(messages, size, size, size)}
        lines = {"type": LINE_LIST, "scale": _vector(messages, size / 2, 0.0, 0.0)}
        for name, look, ids in (("keypoints", spheres, shown), ("skeleton", lines, ends)):
            if ids:
                spots, colours = [points[k] for k in ids], [paints[k] for k in ids]
                markers.append(_marker(messages, header, ns=name, points=spots, colors=colours, **look))
        for k in shown if names else ():
            beside = _point(messages, positions[k] - (0, 1.5 * size, 0))
            markers.append(_label(messages, header, k, names[k], beside, 2 * size, paints[k]))
    return messages.make("visualization_msgs/msg/MarkerArray", markers=markers)


def _label(messages: Messages, header: Any, keypoint: int, text: str, position: Any, height: float, paint: Any) -> Any:
    return _marker(
        messages,
        header,
        ns="names",
        id=keypoint,
        type=TEXT_VIEW_FACING,
        pose=messages.make("geometry_msgs/msg/Pose", position=position, orientation=_upright(messages)),
        scale=_vector(messages, 0.0, 0.0, height),
        color=paint,
        text=text,
    )


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
