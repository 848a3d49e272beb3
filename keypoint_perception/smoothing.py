"""Keypoints over time: One-Euro smoothing, and what became of a keypoint that is not seen.

The filter is that of Casiez, Roussel and Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from keypoint_perception.model import ModelInfo
from keypoint_perception.observation import Observation
from keypoint_perception.tracking import body_tracker

MAX_GAP_S = 0.5
"""Seconds without an image, by default, after which the past of keypoints no longer counts."""


class State(IntEnum):
    """What is known of a keypoint; the values of keypoint_perception_msgs/Keypoint."""

    UNKNOWN = 0
    OBSERVED = 1
    OCCLUDED = 2
    OUT_OF_IMAGE = 3


@dataclass(frozen=True)
class OneEuroConfig:
    """Settings of the filter; the paper's section "Tuning" says how to choose them."""

    min_cutoff: float = 1.5
    """Hz: lower is smoother at rest."""
    beta: float = 0.05
    """Hz added to the cutoff for each percent of the image's width a second that a point moves: higher follows fast
    motion with less delay."""
    derivative_cutoff: float = 1.0
    """Hz: how much the speed itself is smoothed."""


class OneEuro:
    """Smooths (K, 2) points, each by its own speed. A time that goes back, or a gap, starts it afresh.

    Points of the same time as those before tell nothing of speed: they are passed through and do not count.
    """

    def __init__(self, config: OneEuroConfig, max_gap: float) -> None:
        """max_gap: seconds without a sample after which the past no longer counts."""
        self._config, self._max_gap = config, max_gap
        self._time = -math.inf
        self._points = self._speeds = np.zeros((0, 2))

    def __call__(self, points: np.ndarray, time: float, width: int) -> np.ndarray:
        """The smoothed (K, 2) of points (K, 2), pixels of an image `width` pixels wide, seen at `time` seconds.

        A point that is not finite is passed through and its past is forgotten.
        """
        elapsed = time - self._time
        if elapsed == 0 and len(points) == len(self._points):
            return points
        if not 0 < elapsed <= self._max_gap or len(points) != len(self._points):
            self._time, self._points, self._speeds = time, points.copy(), np.zeros_like(points)
            return points
        known = np.isfinite(self._points).all(axis=1) & np.isfinite(points).all(axis=1)
        previous = np.where(known[:, None], self._points, points)
        speeds = np.where(known[:, None], (points - previous) / elapsed, 0)
        self._speeds += _smoothing_factor(self._config.derivative_cutoff, elapsed) * (speeds - self._speeds)
        self._speeds[~known] = 0
        relative_speed = np.linalg.norm(self._speeds, axis=1, keepdims=True) / width * 100
        cutoff = self._config.min_cutoff + self._config.beta * relative_speed
        smoothed = previous + _smoothing_factor(cutoff, elapsed) * (points - previous)
        self._time, self._points = time, smoothed
        return smoothed.astype(points.dtype)


class StateTracker:
    """Tells apart keypoints that are seen, hidden behind something, and gone out of the picture."""

    def __init__(self, max_gap: float) -> None:
        """max_gap: seconds after which the past no longer counts."""
        self._max_gap = max_gap
        self._time = -math.inf
        self._pasts: list[_Past] = []

    def __call__(
        self, points: np.ndarray, scores: np.ndarray, time: float, size: tuple[int, int], threshold: float
    ) -> np.ndarray:
        """(K,) uint8 State of points (K, 2), pixels of an image of `size` (width, height), with scores (K,).

        UNKNOWN is a point that is not finite. OBSERVED is a score of at least `threshold` inside the picture. What is
        neither is OUT_OF_IMAGE where it lies outside, or where it was last seen so close to a border, and moving so,
        that it has crossed it by now; it is OCCLUDED otherwise.
        """
        if not 0 <= time - self._time <= self._max_gap or len(points) != len(self._pasts):
            self._pasts = [_Past() for _ in points]
        self._time = time
        # One by one: for so few numbers arrays would take several times as long.
        rows = zip(self._pasts, points.tolist(), scores.tolist(), strict=True)
        states = [past.state(point, score >= threshold, time, size, self._max_gap) for past, point, score in rows]
        return np.array(states, np.uint8)


class _Past:
    """Where one keypoint was last seen, and how it moved."""

    __slots__ = ("left", "speed", "time", "u", "v")

    def __init__(self) -> None:
        self.u, self.v = 0.0, 0.0  # which lies in every picture
        self.speed = 0.0, 0.0
        self.time = -math.inf
        self.left = False

    def state(
        self, point: tuple[float, float], certain: bool, time: float, size: tuple[int, int], max_gap: float
    ) -> State:
        """What is known of the keypoint that is found at `point` now. certain: whether it is believed to be there."""
        u, v = point
        if not (math.isfinite(u) and math.isfinite(v)):
            return State.UNKNOWN
        inside, elapsed = _inside(u, v, size), time - self.time
        if inside and certain:
            if elapsed > max_gap:
                self.speed = 0.0, 0.0
            elif elapsed > 0:
                self.speed = (u - self.u) / elapsed, (v - self.v) / elapsed
            self.u, self.v, self.time, self.left = u, v, time, False
            return State.OBSERVED
        ahead = min(elapsed, max_gap)
        if not _inside(self.u + self.speed[0] * ahead, self.v + self.speed[1] * ahead, size):
            self.left = True
        return State.OUT_OF_IMAGE if self.left or not inside else State.OCCLUDED


class Follower:
    """What becomes of one camera's keypoints over time: their numbers, states and, if asked for, smoothed positions.

    Starts afresh after a gap, where time goes back, and where the size of the images changes.
    """

    def __init__(self, max_gap: float, smoothing: OneEuroConfig | None, info: ModelInfo | None = None) -> None:
        """max_gap: seconds without an image after which the past no longer counts. info: of the model, if known."""
        self._max_gap, self._smoothing, self._info = max_gap, smoothing, info
        self._size: tuple[int, int] | None = None

    def __call__(self, observation: Observation, time: float, threshold: float) -> tuple[Observation, np.ndarray]:
        """The observation of the image taken at `time` seconds, smoothed, and (K,) uint8 State."""
        if observation.image_size != self._size:
            self._start(observation.image_size)
        observation = self._as_body(observation, time)
        states = self._track(observation.keypoints, observation.scores, time, observation.image_size, threshold)
        if self._smooth is not None:
            smoothed = self._smooth(observation.keypoints, time, observation.image_size[0])
            observation = replace(observation, keypoints=smoothed)
        return observation, states

    def _start(self, size: tuple[int, int]) -> None:
        """Nothing is known of images of `size`; what is known of others is in other pixels."""
        self._size = size
        self._as_body = body_tracker(self._info, self._max_gap)
        self._track = StateTracker(self._max_gap)
        self._smooth = None if self._smoothing is None else OneEuro(self._smoothing, self._max_gap)


def _smoothing_factor(cutoff: float | np.ndarray, elapsed: float) -> float | np.ndarray:
    """The weight of a new sample in a first-order low pass, equation 5 of the paper: 1 / (1 + tau / Te)."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * elapsed))


def _inside(u: float, v: float, size: tuple[int, int]) -> bool:
    """Whether a pixel lies in a picture of `size`, borders included."""
    return -0.5 <= u <= size[0] - 0.5 and -0.5 <= v <= size[1] - 0.5
