"""One body over time: its limbs keep their numbers, its joints are counted over many images, hidden ones stay in place.

A model that looks at single images cannot know which leg of a spider is the first: it numbers legs by where they are,
or by their colours, and changes its mind when the object turns. It overlooks a leg that another one covers, and counts
the links of a chain anew in each image, wrongly where they lie in line. But a body keeps its limbs.

This is for models that say for each image which joints of one tree the object has: their skeleton is predicted
(`ModelInfo.adjacency` is None) and its edges join keypoints to the ones above them (`ModelInfo.parent`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from keypoint_perception.limb_tree import inner_limbs, is_chain
from keypoint_perception.model import ModelInfo
from keypoint_perception.observation import EDGE_THRESHOLD, Observation

_FAR = 0.25
"""What it costs to take a limb for one that was not seen before, or to miss one: a quarter of the image's width."""
_MOST_SURE = 0.95
"""No score counts for more, or for less than one minus it: networks are sure of their mistakes as well."""
_REMEMBERED = 20
"""So many images in which a joint is surely there are outweighed by as many in which it is surely not."""
_NEWEST = 0.1
"""Weight of an image in the mean length of a chain's links."""


class LimbTracker:
    """Follows the body in one camera's observations. A time that goes back, or a gap, starts it afresh."""

    def __init__(self, info: ModelInfo, max_gap: float) -> None:
        """info: of the model; max_gap: seconds after which the past no longer counts."""
        self._above = np.array(info.parent)
        self._linked = np.flatnonzero(self._above >= 0)
        self._outwards = self._linked[np.argsort(np.array(info.level)[self._linked], kind="stable")]
        self._follows = info.adjacency is None and len(self._linked) > 0
        self._chain = _Chain(info.either_end) if self._follows and is_chain(self._above) else None
        self._limbs = [np.array(limbs) for limbs in info.alike]  # (L, M) each
        self._max_gap = max_gap
        self._time = math.nan
        self._inner: dict[bytes, list[np.ndarray]] = {}
        self._start()

    def _start(self) -> None:
        count = len(self._above)
        self._evidence = np.zeros(count)
        self._last = np.full((count, 2), np.nan)
        self._reach = np.full((count, 2), np.nan)
        if self._chain is not None:
            self._chain.start()

    def __call__(self, observation: Observation, time: float) -> Observation:
        """The observation of the image taken at `time` seconds, as one of the body that was followed so far.

        Limbs are numbered as before. The adjacency is that of the joints that the images so far spoke for. Of those, a
        joint that this image does not show keeps its own low score and is put where it was last, seen from the joint
        above it; in a chain, where the lengths of its links put it.
        """
        if not self._follows:
            return observation
        if not 0 < time - self._time <= self._max_gap:
            self._start()
        self._time = time
        if self._chain is not None:
            self._believe(observation.scores)
            order = self._chain.order(observation)
        else:
            order = self._order(observation)
            self._believe(observation.scores[order])
        return self._placed(observation, order)

    def _order(self, observation: Observation) -> np.ndarray:
        """(K,) the keypoints in the order in which limbs lie nearest to where they were."""
        order = np.arange(len(self._above))
        there = self._evidence > 0 if self._evidence.any() else observation.scores >= EDGE_THRESHOLD
        inner = self._inner.get(there.tobytes())
        if inner is None:
            inner = self._inner[there.tobytes()] = inner_limbs(self._above, there)
        for limbs in (*self._limbs, *inner):
            seen = observation.scores[limbs].min(axis=1) >= EDGE_THRESHOLD
            far = _FAR * observation.image_size[0]
            order[limbs] = limbs[_nearest(self._last[limbs], observation.keypoints[limbs], seen, far)]
        return order

    def _believe(self, scores: np.ndarray) -> None:
        """Adds up, joint by joint, the log odds that it is there: scores (K,)."""
        sure = np.clip(scores.astype(np.float64), 1 - _MOST_SURE, _MOST_SURE)
        most = _REMEMBERED * math.log(_MOST_SURE / (1 - _MOST_SURE))
        self._evidence = np.clip(self._evidence + np.log(sure / (1 - sure)), -most, most)

    def _placed(self, observation: Observation, order: np.ndarray) -> Observation:
        """The observation with its keypoints in that order, and the body's joints that it lacks filled in."""
        keypoints, scores = observation.keypoints[order], observation.scores[order]
        probability = 1 / (1 + np.exp(-self._evidence))
        there, seen = self._evidence > 0, scores >= EDGE_THRESHOLD
        if self._chain is not None:
            self._chain.place(keypoints, int(seen.sum()), int(there.sum()))
        else:
            self._hold(keypoints, seen, there)
        adjacency = np.zeros_like(observation.adjacency)
        above = self._above[self._linked]
        adjacency[self._linked, above] = adjacency[above, self._linked] = probability[self._linked]
        return replace(
            observation,
            keypoints=keypoints,
            scores=np.where(there, scores, np.minimum(scores, probability)).astype(scores.dtype),
            adjacency=adjacency,
        )

    def _hold(self, keypoints: np.ndarray, seen: np.ndarray, there: np.ndarray) -> None:
        """Puts, in place, joints that are there but not seen where they were last, seen from the joint above."""
        for joint in self._outwards:
            if there[joint] and not seen[joint] and np.isfinite(self._reach[joint, 0]):
                keypoints[joint] = keypoints[self._above[joint]] + self._reach[joint]
        shown = self._linked[seen[self._linked]]
        self._reach[shown] = keypoints[shown] - keypoints[self._above[shown]]
        known = seen | there
        self._last[known] = keypoints[known]


class _Chain:
    """A chain of links over time: which end is the first, and how its length is shared among its links."""

    def __init__(self, either_end: bool) -> None:
        self._either_end = either_end
        self.start()

    def start(self) -> None:
        """Forgets the past."""
        self._ends: np.ndarray | None = None
        self._shares: dict[int, np.ndarray] = {}

    def order(self, observation: Observation) -> np.ndarray:
        """(K,) the keypoints from the end that lies nearest to where the first was."""
        order = np.arange(len(observation.keypoints))
        chain = np.flatnonzero(observation.scores >= EDGE_THRESHOLD)
        if self._either_end and len(chain) > 1:
            ends = observation.keypoints[chain[[0, -1]]]
            if self._ends is not None and _apart(ends[::-1], self._ends) < _apart(ends, self._ends):
                order[chain], ends = chain[::-1], ends[::-1]
            self._ends = ends
        return order

    def place(self, keypoints: np.ndarray, seen: int, there: int) -> None:
        """Spreads, in place, the joints that are `there` over the line of the first `seen` keypoints, as they are wont.

        Where the image shows as many as there are, they stay, and their links' lengths are remembered.
        """
        if min(seen, there) < 2:
            return
        links = np.linalg.norm(np.diff(keypoints[:seen], axis=0), axis=1)
        length = links.sum()
        if length == 0:
            return
        usual = self._shares.get(there)
        if seen == there:
            shares = links / length
            self._shares[there] = shares if usual is None else usual + _NEWEST * (shares - usual)
            return
        if usual is None:
            usual = np.full(there - 1, 1 / (there - 1))
        at, wanted = (np.concatenate([[0], np.cumsum(parts)]) for parts in (links, usual * length))
        keypoints[:there] = np.stack([np.interp(wanted, at, axis) for axis in keypoints[:seen].T], axis=1)


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
