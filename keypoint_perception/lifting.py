"""Keypoints from pixels to metres, by depth or by two calibrated cameras.

Positions are in the camera's optical frame (x right, y down, z forward); what is unknown is NaN, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.images import to_metres

DISTORTION_MODELS = ("plumb_bob", "rational_polynomial", "equidistant")
DEPTH_WINDOW = 7
"""Pixels, by default: the side of the square around a keypoint that its depth is taken from."""
_MAX_REPROJECTION_ERROR_PX = 0.5
_MIN_VALID_SHARE = 0.25
_SURFACE_QUANTILE = 0.25
_SURFACE_THICKNESS = 0.04
"""What lies within this fraction of the distance is taken for one surface."""
_MAD_TO_STDDEV = 1.4826
_PIXEL_STDDEV = 0.5
_MIN_PARALLAX_RAD = np.radians(0.5)
_MAX_RAY_GAP = 0.05
"""Two rays that miss each other by more than this fraction of the distance do not see the same point."""


class Lifted(NamedTuple):
    """K keypoints in metres."""

    positions: np.ndarray
    """(K, 3) float64, NaN where unknown."""
    stddev: np.ndarray
    """(K,) float64, NaN where the position is unknown."""

    @property
    def is_known(self) -> bool:
        """Whether any position is known."""
        return bool(np.isfinite(self.stddev).any())

    @classmethod
    def unknown(cls, count: int) -> Lifted:
        """Nothing is known of `count` keypoints."""
        return cls(np.full((count, 3), np.nan), np.full(count, np.nan))


@dataclass(frozen=True)
class Intrinsics:
    """A calibrated camera."""

    size: tuple[int, int]
    """(width, height) in pixels of the images this holds for."""
    matrix: np.ndarray
    """(3, 3) camera matrix in pixels."""
    model: str = "plumb_bob"
    distortion: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Coefficients in the order of sensor_msgs/CameraInfo and OpenCV."""

    @classmethod
    def of_view(cls, size: tuple[int, int], horizontal_degrees: float) -> Intrinsics:
        """An ideal pinhole camera with that horizontal field of view."""
        focal = size[0] / 2 / np.tan(np.radians(horizontal_degrees) / 2)
        matrix = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
        return cls(size, matrix)

    @classmethod
    def from_camera_info(cls, info: Any, *, rectified: bool = False) -> Intrinsics:
        """From a sensor_msgs/CameraInfo (rclpy or rosbags), region of interest and binning included.

        rectified: whether the images are, so that P without distortion holds for them instead of K with D. Rays are
        then in the frame of the rectified camera, as are depth aligned with such images and what is published of them.
        Raises UserError where the camera is uncalibrated or its distortion is not supported or makes no sense.
        """
        matrix = np.array(info.p, float).reshape(3, 4)[:, :3] if rectified else np.array(info.k, float).reshape(3, 3)
        if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
            raise UserError(
                f"camera_info is uncalibrated (the focal length in its {'P' if rectified else 'K'} is 0): calibrate "
                "the camera, or leave depth off"
            )
        model, distortion = ("plumb_bob", np.zeros(0)) if rectified else _distortion(info)
        binning = max(int(info.binning_x), 1), max(int(info.binning_y), 1)
        roi = info.roi
        whole = roi.width == 0 or roi.height == 0
        width, height = (info.width, info.height) if whole else (roi.width, roi.height)
        for axis, offset in enumerate((roi.x_offset, roi.y_offset)):
            matrix[axis, axis] /= binning[axis]
            matrix[axis, 2] = (matrix[axis, 2] - (0 if whole else offset) + 0.5) / binning[axis] - 0.5
        intrinsics = cls((int(width) // binning[0], int(height) // binning[1]), matrix, model, distortion)
        intrinsics._check_distortion()
        return intrinsics

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises UserError where images are of another `size`, (width, height), than this holds for."""
        if self.size != size:
            known, given = (f"{width}x{height}" for width, height in (self.size, size))
            raise UserError(
                f"camera_info is for {known} pixels, the image has {given}: give the calibration of these images"
            )

    def _check_distortion(self) -> None:
        """Raises UserError where pixels well inside the image have no ray, with which no lens is described."""
        inside = np.array([(x, y) for x in (0.25, 0.75) for y in (0.25, 0.75)]) * self.size
        if self.distortion.size and not np.isfinite(self.rays(inside)).any():
            numbers = ", ".join(f"{value:g}" for value in self.distortion)
            raise UserError(
                f"camera_info has the distortion {numbers} ({self.model}), which has no inverse in its "
                f"{self.size[0]}x{self.size[1]} pixels: calibrate the camera again"
            )

    def rays(self, points: np.ndarray) -> np.ndarray:
        """(N, 2) pixels to (N, 3) undistorted rays with z = 1, NaN where the distortion has no inverse."""
        points = np.asarray(points, float).reshape(-1, 2)
        rays = np.full((len(points), 3), np.nan)
        known = np.isfinite(points).all(axis=1)
        if known.any():
            rays[known, :2] = self._undistorted(points[known])
            rays[known, 2] = 1
            missed = ~(np.linalg.norm(self.project(rays) - points, axis=1) < _MAX_REPROJECTION_ERROR_PX)
            rays[missed] = np.nan
        return rays

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) metres to (N, 2) pixels, NaN where a point is unknown or not in front of the camera."""
        points = np.asarray(points, float).reshape(-1, 3)
        pixels = np.full((len(points), 2), np.nan)
        ahead = points[:, 2] > 0  # NaN is not
        if ahead.any():
            args = points[ahead][:, None], np.zeros(3), np.zeros(3), self.matrix
            if self.model == "equidistant":
                found, _ = cv2.fisheye.projectPoints(*args, self._equidistant())
            else:
                found, _ = cv2.projectPoints(*args, self.distortion)
            pixels[ahead] = found[:, 0]
        return pixels

    def _undistorted(self, points: np.ndarray) -> np.ndarray:
        if self.model == "equidistant":
            return cv2.fisheye.undistortPoints(points[:, None], self.matrix, self._equidistant())[:, 0]
        enough = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
        return cv2.undistortPointsIter(points[:, None], self.matrix, self.distortion, np.eye(3), np.eye(3), enough)[
            :, 0
        ]

    def _equidistant(self) -> np.ndarray:
        return self.distortion if self.distortion.size == 4 else np.zeros(4)


def _distortion(info: Any) -> tuple[str, np.ndarray]:
    """Model and coefficients of a sensor_msgs/CameraInfo. Raises UserError where they are not supported."""
    coefficients, model = np.array(info.d, float), info.distortion_model.lower() or "plumb_bob"
    if not np.isfinite(coefficients).all():
        raise UserError(
            f"camera_info has coefficients that are no numbers ({', '.join(f'{value:g}' for value in coefficients)}): "
            "calibrate the camera again, or give rectified images and set `rectified`"
        )
    if model in ("none", "pinhole") and not coefficients.any():
        model = "plumb_bob"
    if model not in DISTORTION_MODELS:
        raise UserError(
            f"camera_info has distortion model {model!r}: supported are {', '.join(DISTORTION_MODELS)}; "
            "give rectified images and set `rectified`"
        )
    if not coefficients.any():
        return model, np.zeros(0)
    if coefficients.size not in ((4,) if model == "equidistant" else (4, 5, 8, 12, 14)):
        raise UserError(f"camera_info has {coefficients.size} coefficients for {model}: calibrate the camera again")
    return model, coefficients


def lift(
    points: np.ndarray, depth: np.ndarray | None, intrinsics: Intrinsics | None, window: int = DEPTH_WINDOW
) -> Lifted:
    """Keypoints (K, 2), pixels, to metres with a depth image (H, W) of the same camera, of which little is looked at.

    depth: integers in millimetres or floats in metres; 0, negative, infinite or NaN is unknown. Nothing is known
    without a depth image or the camera's intrinsics. window: odd, so that a keypoint is in its middle.
    The depth of a keypoint is that of the nearest surface that fills a quarter of the `window` x `window` pixels
    around it, so that a thin limb before a far wall has the limb's depth: the median of what lies near the lower
    quartile. stddev is the spread of that surface. Unknown where less than a quarter of the window is known.
    """
    if depth is None or intrinsics is None:
        return Lifted.unknown(len(points))
    points = np.asarray(points, float)
    distance, spread = np.full(len(points), np.nan), np.full(len(points), np.nan)
    height, width = depth.shape
    reach = window // 2
    for k, (x, y) in enumerate(points):
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            continue
        column, row = round(x), round(y)
        patch = depth[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
        distance[k], spread[k] = _nearest_surface(to_metres(patch))
    positions = intrinsics.rays(points) * distance[:, None]
    return Lifted(positions, np.where(np.isfinite(positions[:, 2]), spread, np.nan))


def why_flat(lifted: Lifted, depth: np.ndarray | None, intrinsics: Intrinsics | None) -> str:
    """Why `lift` knows no position though it had depth and intrinsics; "" where it knows one or lacked either."""
    if depth is None or intrinsics is None or lifted.is_known:
        return ""
    return (
        "depth and camera_info fit the image, and no keypoint has a position: each is outside the image, or depth "
        "around it is unknown (0, infinite or NaN); look at the keypoints, the depth image and the range of its camera"
    )


def triangulate(
    first: Intrinsics,
    second: Intrinsics,
    points_first: np.ndarray,
    points_second: np.ndarray,
    rotation: np.ndarray,
    translation: np.ndarray,
) -> Lifted:
    """The same K keypoints, pixels (K, 2) in two cameras, to metres in the first camera's frame.

    rotation (3, 3), translation (3,) in metres: the pose of the second camera in the first's frame. A position is the
    midpoint where the two rays pass closest; its stddev adds half their gap to half a pixel of error at that
    parallax. Unknown where rays are nearly parallel, miss each other, or meet behind a camera.
    """
    a = _unit(first.rays(points_first))
    b = _unit(second.rays(points_second)) @ np.asarray(rotation).T
    along = (a * b).sum(axis=1)
    sine_squared = 1 - along**2
    with np.errstate(divide="ignore", invalid="ignore"):
        on_a, on_b = a @ translation, b @ translation
        range_a = (on_a - along * on_b) / sine_squared
        range_b = (along * on_a - on_b) / sine_squared
        end_a, end_b = a * range_a[:, None], translation + b * range_b[:, None]
        gap = np.linalg.norm(end_a - end_b, axis=1)
        angular = _PIXEL_STDDEV / first.matrix[0, 0]
        stddev = np.hypot(gap / 2, angular * np.maximum(range_a, range_b) / np.sqrt(sine_squared))
        good = (range_a > 0) & (range_b > 0) & (gap < _MAX_RAY_GAP * range_a)
        good &= sine_squared > np.sin(_MIN_PARALLAX_RAD) ** 2
    positions = (end_a + end_b) / 2
    return Lifted(np.where(good[:, None], positions, np.nan), np.where(good, stddev, np.nan))


def stereo_pose(first: Any, second: Any, *, rectified: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and translation (3,) of a calibrated pair's second camera in the first's frame.

    first, second: the pair's two sensor_msgs/CameraInfo; their rectification R and projection P hold the pose.
    rectified: whether the images are; the cameras then face the same way, side by side.
    Raises UserError where they hold none.
    """
    rotations = [np.eye(3) if rectified else np.array(info.r, float).reshape(3, 3) for info in (first, second)]
    projections = [np.array(info.p, float).reshape(3, 4) for info in (first, second)]
    if any(abs(np.linalg.det(r) - 1) > 1e-3 for r in rotations) or any(p[0, 0] <= 0 for p in projections):
        raise UserError("camera_info of the stereo pair is uncalibrated (R or P is 0): calibrate, or give stereo_pose")
    baseline = projections[0][0, 3] / projections[0][0, 0] - projections[1][0, 3] / projections[1][0, 0]
    if baseline == 0:
        raise UserError(
            "camera_info of the stereo pair has no baseline (P[3] is 0 in both): calibrate as a stereo pair"
        )
    return rotations[0].T @ rotations[1], rotations[0].T @ np.array([baseline, 0.0, 0.0])


def edge_lengths(lifted: Lifted, edges: np.ndarray) -> np.ndarray:
    """(E,) metres between the ends of edges (E, 2), NaN where an end is unknown."""
    return np.linalg.norm(lifted.positions[edges[:, 0]] - lifted.positions[edges[:, 1]], axis=1)


def _nearest_surface(patch: np.ndarray) -> tuple[float, float]:
    """(depth, stddev) of the nearest surface of a depth patch, metres, NaN unknown."""
    known = np.sort(patch[np.isfinite(patch)])
    if known.size < max(_MIN_VALID_SHARE * patch.size, 1):
        return np.nan, np.nan
    anchor = known[int(_SURFACE_QUANTILE * (known.size - 1))]
    surface = known[np.abs(known - anchor) <= _SURFACE_THICKNESS * anchor]
    depth = _middle(surface)
    return depth, _MAD_TO_STDDEV * _middle(np.sort(np.abs(surface - depth)))


def _middle(values: np.ndarray) -> float:
    """The median of sorted values (N,), N > 0; several times as fast as NumPy's for so few."""
    return float(values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def _unit(rays: np.ndarray) -> np.ndarray:
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)
