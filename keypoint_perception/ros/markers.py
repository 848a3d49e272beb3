"""A skeleton as RViz markers: points and links coloured by group, and names."""

from __future__ import annotations

from typing import Any

import numpy as np

from keypoint_perception.lifting import Intrinsics, Lifted
from keypoint_perception.observation import Observation
from keypoint_perception.ros.messages import message_class

LIFETIME_S = 1
"""Markers of a camera that fell silent go away by themselves."""
_TYPE = "visualization_msgs/msg/Marker"
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
    header: Any,
    observation: Observation,
    positions: np.ndarray,
    colours: np.ndarray,
    names: tuple[str, ...],
) -> Any:
    """A MarkerArray that replaces the one before, whatever number of keypoints that had.

    positions: (K, 3) metres in the frame of `header`. colours: (K, 3) uint8 RGB.
    names: (K,) labels, or nothing for no labels.
    """
    point, colour = message_class("geometry_msgs/msg/Point"), message_class("std_msgs/msg/ColorRGBA")
    scale = _POINT_SIZE * max(float(np.nanmedian(positions[:, 2])), 1e-3)
    points = [point(x=x, y=y, z=z) for x, y, z in positions.tolist()]
    paints = [
        colour(r=r, g=g, b=b, a=0.25 + 0.75 * score)
        for (r, g, b), score in zip((colours / 255).tolist(), observation.scores.tolist(), strict=True)
    ]
    dots = _marker(header, "keypoints", 0, "SPHERE_LIST", (scale, scale, scale))
    links = _marker(header, "skeleton", 0, "LINE_LIST", (scale / 2, 0.0, 0.0))
    dots.points, dots.colors = points, paints
    for i, j in observation.edges().tolist():
        links.points += [points[i], points[j]]
        links.colors += [paints[i], paints[j]]
    markers = [_marker(header, "", 0, "", action="DELETEALL"), dots]
    if links.points:
        markers.append(links)
    markers += [_label(header, index, name, points[index], paints[index], scale) for index, name in enumerate(names)]
    return message_class("visualization_msgs/msg/MarkerArray")(markers=markers)


def _marker(
    header: Any,
    namespace: str,
    index: int,
    kind: str,
    size: tuple[float, float, float] = (0.0, 0.0, 0.0),
    action: str = "ADD",
) -> Any:
    cls = message_class(_TYPE)
    marker = cls(header=header, ns=namespace, id=index, action=getattr(cls, action))
    marker.type = getattr(cls, kind) if kind else 0
    marker.scale.x, marker.scale.y, marker.scale.z = size
    marker.pose.orientation.w = 1.0
    marker.lifetime.sec = LIFETIME_S
    return marker


def _label(header: Any, index: int, name: str, point: Any, colour: Any, scale: float) -> Any:
    marker = _marker(header, "names", index, "TEXT_VIEW_FACING", (0.0, 0.0, 2 * scale))
    marker.text, marker.color = name, colour
    marker.pose.position.x, marker.pose.position.y, marker.pose.position.z = point.x, point.y - 1.5 * scale, point.z
    return marker
