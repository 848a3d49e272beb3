"""Keypoints, skeleton and groups drawn over a picture, and pictures laid out as a contact sheet.

Line widths and radii scale with the picture. A keypoint is a filled dot, an uncertain one a fainter open ring; an edge
is as opaque as it is certain.
"""

from __future__ import annotations

import colorsys
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.model import ModelInfo
from keypoint_perception.observation import Observation

SCORE_THRESHOLD = 0.3
"""A score below this is drawn as uncertain."""
_SUBPIXEL_BITS = 4
_REFERENCE_SIDE = 480.0
"""The shorter side of a picture, pixels, at which sizes below are as given."""
_DARK = (20, 20, 20)
_GAP = 4
"""White pixels between the pictures of a contact sheet."""


@dataclass(frozen=True)
class Style:
    """How a model's keypoints look: decided once, so that a keypoint keeps its colour."""

    colours: np.ndarray
    """(K, 3) uint8 RGB."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Keypoint ids of each group that gets a hull; none where there is only one."""
    names: tuple[str, ...] = ()
    """(K,) labels, or nothing for no labels."""
    threshold: float = SCORE_THRESHOLD

    @classmethod
    def of(cls, info: ModelInfo, *, labels: bool = False, threshold: float = SCORE_THRESHOLD) -> Style:
        """One hue a group (a tree of the hierarchy); a hue for each keypoint where all are of one group or of none."""
        group = info.hierarchy().groups(info.keypoint_count)
        members = [tuple(np.flatnonzero(group == g).tolist()) for g in range(group.max() + 1)]
        grouped = 1 < len(members) < info.keypoint_count
        colours = palette(len(members))[group] if grouped else palette(info.keypoint_count)
        return cls(colours, tuple(members) if grouped else (), info.keypoint_names if labels else (), threshold)


def palette(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB, bright and as different as that many hues can be."""
    hues = [(index / max(count, 1) + 0.02) % 1 for index in range(count)]
    rows = [colorsys.hsv_to_rgb(hue, 0.85 if i % 2 == 0 else 0.6, 1.0) for i, hue in enumerate(hues)]
    return np.round(np.array(rows).reshape(-1, 3) * 255).astype(np.uint8)


def draw(image: np.ndarray, observation: Observation, style: Style) -> np.ndarray:
    """A copy of `image` (H, W, 3) uint8 RGB with `observation`, in pixels of that image, drawn over it."""
    canvas = _Canvas(np.ascontiguousarray(image).copy())
    points, scores = observation.keypoints, observation.scores
    drawable = np.isfinite(points).all(axis=1)
    certain = drawable & (scores >= style.threshold)
    for members in style.groups:
        corners = [k for k in members if certain[k]]
        if len(corners) >= 3:
            canvas.hull(points[corners], style.colours[corners[0]], alpha=0.18)
    for i, j in observation.edges():
        if drawable[i] and drawable[j]:
            alpha = float(observation.adjacency[i, j] * min(scores[i], scores[j]))
            colour = (style.colours[i].astype(int) + style.colours[j]) // 2
            canvas.line(points[i], points[j], colour, alpha=0.15 + 0.75 * alpha)
    for k in np.flatnonzero(drawable):
        canvas.dot(points[k], style.colours[k], alpha=0.3 + 0.7 * float(scores[k]), filled=bool(certain[k]))
    if style.names:
        for k in np.flatnonzero(certain):
            canvas.text(points[k], style.names[k])
    return canvas.image


def contact_sheet(images: Sequence[np.ndarray], columns: int, tile_width: int = 320) -> np.ndarray:
    """Pictures (H, W, 3) uint8 RGB, row by row, each `tile_width` pixels wide, with white between them.

    Needs at least one picture; each keeps its proportions and a row is as high as its highest.
    """
    tiles = []
    for image in images:
        height = max(round(image.shape[0] * tile_width / image.shape[1]), 1)
        shrinks = tile_width < image.shape[1]
        tiles.append(
            cv2.resize(image, (tile_width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        )
    rows = []
    for start in range(0, len(tiles), columns):
        row = tiles[start : start + columns]
        strip = np.full(
            (max(t.shape[0] for t in row) + _GAP, columns * (tile_width + _GAP) + _GAP, 3), 255, dtype=np.uint8
        )
        for index, tile in enumerate(row):
            left = _GAP + index * (tile_width + _GAP)
            strip[: tile.shape[0], left : left + tile_width] = tile
        rows.append(strip)
    return np.vstack([np.full((_GAP, rows[0].shape[1], 3), 255, np.uint8), *rows])


def write_png(path: str | os.PathLike[str], picture: np.ndarray) -> None:
    """Writes (H, W, 3) uint8 RGB, whole or not at all. Raises UserError for a name that is no .png's, or unwritable."""
    if Path(path).suffix.lower() != ".png":
        raise UserError(f"pictures are written as .png: {path} must end in it")
    _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    with written_whole(path) as temporary:  # cv2.imwrite does not say why it cannot, or that it could not
        temporary.write_bytes(png.data)


class _Canvas:
    """A picture on which anti-aliased shapes are blended, each within its own bounding box."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image
        unit = min(image.shape[:2]) / _REFERENCE_SIDE
        self.radius = max(5.5 * unit, 1.5)
        self.width = max(round(3 * unit), 1)
        self.outline = max(round(1.5 * unit), 1)
        self.font_scale = max(0.42 * unit, 0.3)

    def dot(self, centre: np.ndarray, colour: np.ndarray, *, alpha: float, filled: bool) -> None:
        """A filled dot with a dark rim, or an open ring."""
        rim = self.radius + self.outline
        layer = _Layer(self.image, centre[None], rim + 2)
        if filled:
            layer.circle(centre, rim, -1)
            layer.blend(_DARK, alpha * 0.9)
            layer.circle(centre, self.radius, -1)
        else:
            layer.circle(centre, self.radius, self.width)
        layer.blend(colour, alpha)

    def line(self, start: np.ndarray, end: np.ndarray, colour: np.ndarray, *, alpha: float) -> None:
        """A line with a dark rim."""
        layer = _Layer(self.image, np.stack([start, end]), self.width + 2 * self.outline + 2)
        layer.segment(start, end, self.width + 2 * self.outline)
        layer.blend(_DARK, alpha * 0.6)
        layer.segment(start, end, self.width)
        layer.blend(colour, alpha)

    def hull(self, points: np.ndarray, colour: np.ndarray, *, alpha: float) -> None:
        """The convex hull of points (N, 2), N >= 3, filled, with round corners."""
        layer = _Layer(self.image, points, self.radius * 2 + 2)
        layer.polygon(cv2.convexHull(points.astype(np.float32))[:, 0], round(self.radius * 2))
        layer.blend(colour, alpha)

    def text(self, anchor: np.ndarray, text: str) -> None:
        """A label to the upper right of a point."""
        limit = np.array(self.image.shape[1::-1]) * 2
        x, y = np.clip(anchor + (self.radius * 1.4, -self.radius * 1.2), -limit, limit).round().astype(int).tolist()
        for colour, width in ((_DARK, 3), ((255, 255, 255), 1)):
            thickness = max(round(width * self.font_scale / 0.42), width)
            cv2.putText(
                self.image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, self.font_scale, colour, thickness, cv2.LINE_AA
            )


class _Layer:
    """A coverage mask over the part of an image that some points, widened by a margin, lie in."""

    def __init__(self, image: np.ndarray, points: np.ndarray, margin: float) -> None:
        limit = np.array(image.shape[1::-1])
        low = np.clip(np.floor(points.min(axis=0) - margin), 0, limit).astype(int)
        high = np.clip(np.ceil(points.max(axis=0) + margin) + 1, 0, limit).astype(int)
        self._origin = low
        self._part = image[low[1] : high[1], low[0] : high[0]]
        self._mask = np.zeros(tuple(np.maximum(high - low, 1)[::-1]), np.uint8)  # OpenCV refuses an empty one
        self._reach = 4 * int(limit.max())

    def circle(self, centre: np.ndarray, radius: float, thickness: int) -> None:
        scaled = round(radius * (1 << _SUBPIXEL_BITS))
        cv2.circle(self._mask, self._fixed(centre), scaled, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def segment(self, start: np.ndarray, end: np.ndarray, thickness: int) -> None:
        cv2.line(self._mask, self._fixed(start), self._fixed(end), 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)

    def polygon(self, corners: np.ndarray, rounding: int) -> None:
        fixed = np.array([self._fixed(corner) for corner in corners])
        cv2.fillConvexPoly(self._mask, fixed, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.polylines(self._mask, [fixed], True, 255, max(rounding, 1), cv2.LINE_AA, _SUBPIXEL_BITS)

    def blend(self, colour: Sequence[int] | np.ndarray, alpha: float) -> None:
        """Paints `colour` through the mask and clears it."""
        rows, columns = self._part.shape[:2]
        covered = np.nonzero(self._mask[:rows, :columns])  # of a long line's box, a small part
        cover = self._mask[covered][:, None] * np.float32(alpha / 255)
        before = self._part[covered]
        self._part[covered] = before + cover * (np.asarray(colour, np.float32) - before) + 0.5
        self._mask[...] = 0

    def _fixed(self, point: np.ndarray) -> tuple[int, int]:
        """Fixed-point coordinates in this layer; what is far outside is pulled to where OpenCV can still count."""
        x, y = np.clip(point - self._origin, -self._reach, self._reach) * (1 << _SUBPIXEL_BITS)
        return round(float(x)), round(float(y))
