"""One skeleton over time, of models that find points in each image and then say which of them are linked.

Single images cannot agree about it: of two neighbouring points either is as good a joint, and where a limb is straight
nothing tells that it has a joint in its middle. But a body keeps its skeleton. So of the skeletons that were found the
one is taken that explains the points of all images best, with few and short links.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from keypoint_perception.observation import EDGE_THRESHOLD, Observation

_REMEMBERED = 60
"""So many images are remembered."""
_NEAR = 0.1
"""A point this far from the skeleton, in half widths of the image, is explained to 1/e."""
_LINK = 0.3
"""What a link costs, in points that are not explained,"""
_LENGTH = 2.0
"""and, on top, each half width of the image that it is long."""


class SteadySkeleton:
    """Chooses the skeleton of one camera's observations. A time that goes back, or a gap, starts it afresh."""

    def __init__(self, max_gap: float) -> None:
        """max_gap: seconds after which the past no longer counts."""
        self._max_gap = max_gap
        self._time = math.nan
        self._start()

    def _start(self) -> None:
        self._count = 0
        self._seen: list[Observation] = []
        self._links: list[np.ndarray] = []
        """M times (L, 2), the links of the remembered skeletons."""
        self._points: list[np.ndarray] = []
        """M times (K,) x + iy, in half widths of the image."""
        self._cost = np.zeros((_REMEMBERED, _REMEMBERED))
        """(M, M) of each skeleton in each image."""

    def __call__(self, observation: Observation, time: float) -> Observation:
        """The observation of the image taken at `time` seconds, with the skeleton that explains all images so far best.

        A joint of that skeleton has at least the score that it had where the skeleton was found, any other keypoint at
        most. Images without a link say nothing.
        """
        if not 0 < time - self._time <= self._max_gap:
            self._start()
        self._time = time
        self._remember(observation)
        if not self._seen:
            return observation
        known = len(self._seen)
        chosen = self._seen[int(self._cost[:known, :known].sum(axis=1).argmin())]
        joint = (chosen.adjacency >= EDGE_THRESHOLD).any(axis=1)
        now, then = observation.scores, chosen.scores
        scores = np.where(joint, np.fmax(now, then), np.fmin(now, then))
        return replace(observation, adjacency=chosen.adjacency, scores=scores)

    def _remember(self, observation: Observation) -> None:
        """Puts an image and its skeleton in the place of the oldest, and their costs."""
        edges = observation.edges()
        if len(edges) == 0 or not np.isfinite(observation.keypoints).all():
            return
        points = observation.keypoints @ np.array([1, 1j], np.complex64) * (2 / observation.image_size[0])
        place = self._count % _REMEMBERED
        self._count += 1
        self._seen[place : place + 1] = [observation]
        self._links[place : place + 1] = [edges]
        self._points[place : place + 1] = [points]
        known = len(self._seen)
        first = np.cumsum([0, *(len(links) for links in self._links[:-1])])
        distance, price = _distances_and_prices(points, np.concatenate(self._links))
        self._cost[:known, place] = _unexplained(np.minimum.reduceat(distance, first)) + np.add.reduceat(price, first)
        distance, price = _distances_and_prices(np.stack(self._points), edges)
        self._cost[place, :known] = _unexplained(distance.min(axis=1)) + price.sum(axis=1)


def _unexplained(distance: np.ndarray) -> np.ndarray:
    """(M,) how many points are not explained: distances (M, K) from points to the nearest link."""
    return (1 - np.exp(-distance / _NEAR)).sum(axis=1)


def _distances_and_prices(points: np.ndarray, links: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(…, L, K) from each link to each point, and (…, L) what the links cost: points (…, K) x + iy, links (L, 2)."""
    start = points[..., links[:, 0], None]  # (…, L, 1)
    along = points[..., links[:, 1], None] - start
    length = np.abs(along)
    from_start = points[..., None, :] - start  # (…, L, K)
    part = np.clip((from_start * along.conj()).real / np.maximum(length**2, 1e-12), 0, 1)
    return np.abs(from_start - part * along), _LINK + _LENGTH * length[..., 0]
