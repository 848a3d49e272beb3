"""The only place where pixels, normalised coordinates and resizing meet.

Normalised coordinates are in [-1, 1] with -1 and +1 at the CENTRES of the first and last pixel of the network's
input. Pixel (0, 0) is the centre of an image's top-left pixel. Always (x, y).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from keypoint_perception.errors import UserError

_WORTH_A_CALL = 4096
"""Values for which a call of OpenCV from Python is worth its time, about a microsecond."""


def normalised_to_pixels(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., 2) normalised points to pixels of an image of `size` (width, height): u = (x + 1) / 2 * (W - 1)."""
    return (np.asarray(points) + 1) / 2 * (np.asarray(size) - 1)


def pixels_to_normalised(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(..., 2) pixels of an image of `size` (width, height) to normalised points. Inverse of the above."""
    return np.asarray(points) / (np.asarray(size) - 1) * 2 - 1


def rescale_pixels(points: np.ndarray, size: tuple[int, int], to_size: tuple[int, int]) -> np.ndarray:
    """(..., 2) pixels of an image to pixels of the same image resized: (u + ½) · to / from - ½."""
    return (np.asarray(points) + 0.5) * np.asarray(to_size) / np.asarray(size) - 0.5


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W[, C]) resized to `size` (width, height), alike in training and on the robot.

    Area averaging where the image shrinks in both directions (no aliasing), bilinear otherwise. An image that has the
    size already is returned itself.
    """
    height, width = image.shape[:2]
    if (width, height) == tuple(size):
        return image
    if width < size[0] or height < size[1]:
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    if _is_faster_by_rows(image, size):
        return _average_areas(image, size)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _is_faster_by_rows(image: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether `_average_areas` gains: each of its calls has enough to do, and OpenCV knows no better for this size."""
    height, width = image.shape[:2]
    if image.dtype != np.uint8 or (width, height) == (2 * size[0], 2 * size[1]):
        return False
    return math.gcd(height, size[1]) * image[0].size >= _WORTH_A_CALL


def _average_areas(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What OpenCV's INTER_AREA makes of an image (H, W[, C]) uint8, but for rounding, two to four times as fast.

    OpenCV goes through all pixels one by one. Here rows are averaged first, which it does many pixels at a time: edges
    of rows of input and output meet every `period` input rows, and what is done to the first rows of all periods is
    done in one call. Only what is left is narrowed pixel by pixel.
    """
    periods = math.gcd(len(image), size[1])
    period, per_period = len(image) // periods, size[1] // periods
    averages = np.empty((per_period, periods, *image.shape[1:]), np.float32)
    for average, start in zip(averages, range(0, per_period * period, period), strict=True):
        stop, weights = start + period, 0  # edges of an output row, in units of 1 / per_period input rows
        for row in range(start // per_period, -(-stop // per_period)):
            weight = min(stop, (row + 1) * per_period) - max(start, row * per_period)
            weights += weight
            if weights == weight:
                np.copyto(average, image[row::period])
            else:
                cv2.accumulateWeighted(image[row::period], average, weight / weights)
    narrow = cv2.resize(averages.reshape(size[1], *image.shape[1:]), size, interpolation=cv2.INTER_AREA)
    resized = cv2.convertScaleAbs(narrow).reshape(per_period, periods, *narrow.shape[1:])
    return np.ascontiguousarray(resized.swapaxes(0, 1)).reshape(narrow.shape)


def checked_roi(roi: Iterable[float]) -> tuple[float, float, float, float]:
    """The same part of an image, (x0, y0, x1, y1) as fractions of it. Raises UserError where it is none."""
    x0, y0, x1, y1 = (float(fraction) for fraction in roi)
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UserError(f"roi is {roi}: give x0,y0,x1,y1 as fractions of the image with 0 <= x0 < x1 <= 1, likewise y")
    return x0, y0, x1, y1


@dataclass(frozen=True)
class Viewport:
    """The part of a camera image that a network sees, and the size at which it sees it."""

    x: int
    y: int
    width: int
    height: int
    """Crop in pixels of the camera image; (x, y) is its top-left pixel."""
    input_size: tuple[int, int]
    """(width, height) of the network's input."""

    @classmethod
    def of(
        cls,
        image_size: tuple[int, int],
        input_size: tuple[int, int],
        roi: tuple[float, float, float, float] | None = None,
    ) -> Viewport:
        """The viewport of an image of `image_size` (width, height) pixels.

        roi: (x0, y0, x1, y1) as fractions of the image in [0, 1], None for all of it. At least one pixel remains.
        Raises UserError where the roi is empty or reaches outside.
        """
        x0, y0, x1, y1 = checked_roi(roi or (0, 0, 1, 1))
        width, height = image_size
        left, top = min(round(x0 * width), width - 1), min(round(y0 * height), height - 1)
        right, bottom = max(round(x1 * width), left + 1), max(round(y1 * height), top + 1)
        return cls(left, top, right - left, bottom - top, (input_size[0], input_size[1]))

    def view(self, image: np.ndarray) -> np.ndarray:
        """The network's input, (H_in, W_in, C), cut out of a camera image (H, W, C)."""
        return resize(image[self.y : self.y + self.height, self.x : self.x + self.width], self.input_size)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) normalised coordinates of the network's input to pixels of the camera image."""
        inside = normalised_to_pixels(points, self.input_size)
        return rescale_pixels(inside, self.input_size, (self.width, self.height)) + (self.x, self.y)

    def to_normalised(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the camera image to normalised coordinates of the network's input."""
        inside = np.asarray(points) - (self.x, self.y)
        return pixels_to_normalised(rescale_pixels(inside, (self.width, self.height), self.input_size), self.input_size)
