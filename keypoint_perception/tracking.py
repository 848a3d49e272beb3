"""Limbs that look alike keep their numbers from image to image.

A model that looks at single images cannot know which leg of a spider is the first: it numbers legs by where they are,
or by their colours, and changes its mind when the object turns. What it calls alike (`ModelInfo.alike`) is therefore
put into the order in which it lies nearest to where it was; so is a chain that may begin at either end.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from keypoint_perception.model import ModelInfo
from keypoint_perception.observation import EDGE_THRESHOLD, Observation

_FAR = 0.25
"""What it costs to take a limb for one that was not seen before, or to miss one: a quarter of the image's width."""


class LimbTracker:
    """Renumbers the limbs of one camera's observations. A time that goes back, or a gap, starts it afresh."""

    def __init__(self, info: ModelInfo, max_gap: float) -> None:
        """info: of the model, what it says of its limbs; max_gap: seconds after which the past no longer counts."""
        self._groups = [np.array(limbs) for limbs in info.alike]  # (L, M) each
        self._either_end = info.either_end
        self._max_gap = max_gap
        self._time = math.nan
        self._limbs: list[np.ndarray] = []
        self._ends: np.ndarray | None = None

    def __call__(self, observation: Observation, time: float) -> Observation:
        """The observation of the image taken at `time` seconds, its limbs numbered as before."""
        if not self._groups and not self._either_end:
            return observation
        if not 0 < time - self._time <= self._max_gap:
            self._limbs, self._ends = [np.full((*limbs.shape, 2), np.nan) for limbs in self._groups], None
        self._time = time
        order = self._turned(observation) if self._either_end else self._sorted(observation)
        return replace(
            observation,
            keypoints=observation.keypoints[order],
            scores=observation.scores[order],
            adjacency=observation.adjacency[np.ix_(order, order)],
        )

    def _sorted(self, observation: Observation) -> np.ndarray:
        """(K,) the keypoints in the order in which limbs lie nearest to where they were."""
        order = np.arange(len(observation.keypoints))
        for limbs, last in zip(self._groups, self._limbs, strict=True):
            found = observation.keypoints[limbs]
            seen = observation.scores[limbs].min(axis=1) >= EDGE_THRESHOLD
            chosen = _nearest(last, found, seen, _FAR * observation.image_size[0])
            order[limbs] = limbs[chosen]
            last[seen[chosen]] = found[chosen][seen[chosen]]
        return order

    def _turned(self, observation: Observation) -> np.ndarray:
        """(K,) the keypoints of a chain from the end that lies nearest to where the first was."""
        order = np.arange(len(observation.keypoints))
        chain = np.flatnonzero(observation.scores >= EDGE_THRESHOLD)
        if len(chain) > 1:
            ends = observation.keypoints[chain[[0, -1]]]
            if self._ends is not None and _apart(ends[::-1], self._ends) < _apart(ends, self._ends):
                order[chain], ends = chain[::-1], ends[::-1]
            self._ends = ends
        return order


def _apart(ends: np.ndarray, others: np.ndarray) -> float:
    return float(np.linalg.norm(ends - others, axis=1).sum())


def _nearest(last: np.ndarray, found: np.ndarray, seen: np.ndarray, far: float) -> np.ndarray:
    """(L,) for each limb, last seen at `last` (L, M, 2), which of those `found` (L, M, 2) it is now.

    last is NaN for what was never seen; seen (L,) bool says what of `found` is there. At first all keep their numbers.
    """
    known = np.isfinite(last[:, 0, 0])
    distance = np.linalg.norm(last[:, None] - found[None], axis=-1).mean(axis=-1)  # (L, L)
    cost = np.where(known[:, None] & seen[None], distance, far * (known[:, None] | seen[None]))
    cost -= far * 1e-3 * np.eye(len(cost))
    chosen = np.empty(len(cost), int)
    for _ in chosen:  # the nearest first
        limb, now = np.unravel_index(np.argmin(cost), cost.shape)
        chosen[limb] = now
        cost[limb], cost[:, now] = np.inf, np.inf
    return chosen
