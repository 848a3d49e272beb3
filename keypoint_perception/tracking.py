"""One body over time: its limbs keep their numbers, its joints are counted over many images, hidden ones stay in place.

A model that looks at single images cannot know which leg of a spider is the first: it numbers legs by where they are,
or by their colours, and changes its mind when the object turns. It overlooks a leg that another one covers, and counts
the links of a chain anew in each image, wrongly where they lie in line. But a body keeps its limbs, and a limb its
colours (`link_colours`).

`LimbTracker` is for models that say for each image which joints of one tree the object has: their skeleton is
predicted (`ModelInfo.adjacency` is None) and its edges join keypoints to the ones above them (`ModelInfo.parent`). Of
other models that predict a skeleton, `SteadySkeleton` finds the one of all images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from keypoint_perception.chain import Chain
from keypoint_perception.limb_tree import depths, inner_limbs, is_chain
from keypoint_perception.linkage import Linkage
from keypoint_perception.model import ModelInfo
from keypoint_perception.observation import BELOW_EDGE, EDGE_THRESHOLD, Observation
from keypoint_perception.steady_skeleton import SteadySkeleton

_FAR = 0.25
"""What it costs to take a limb for one that was not seen before, or to miss one: a quarter of the image's width."""
_MOST_SURE = 0.95
"""No score counts for more, or for less than one minus it: networks are sure of their mistakes as well."""
_REMEMBERED = 20
"""So many images in which a joint is surely there are outweighed by as many in which it is surely not."""
_NEWEST = 0.1
"""Weight of an image in the mean of a link's colours."""
_COLOUR = 0.35
"""Limbs whose colours differ by 1 (red and yellow) are as unlike one another as two that are so far apart, as a share
of the image's width."""


def body_tracker(info: ModelInfo | None, max_gap: float) -> Callable[[Observation, float], Observation]:
    """What makes the observations of one camera, in the order of their times, those of one body.

    info: of the model; where it is unknown, or its skeleton is fixed, they stay as they are. max_gap: seconds after
    which the past no longer counts.
    """
    if info is None or info.adjacency is not None:
        return lambda observation, time: observation
    if info.predicts_tree:
        return LimbTracker(info, max_gap)
    return SteadySkeleton([k for limbs in info.alike for limb in limbs for k in limb], max_gap)


class LimbTracker:
    """Follows the body in one camera's observations. A time that goes back, or a gap, starts it afresh."""

    def __init__(self, info: ModelInfo, max_gap: float) -> None:
        """info: of the model; max_gap: seconds after which the past no longer counts."""
        self._above = np.array(info.parent)
        self._linked = np.flatnonzero(self._above >= 0)
        self._outwards = self._linked[np.argsort(np.array(depths(self._above))[self._linked], kind="stable")]
        self._either_end = info.either_end
        self._limbs = [np.array(limbs) for limbs in info.alike]  # (L, M) each
        self._max_gap = max_gap
        self._time = math.nan
        self._body: np.ndarray | None = None
        self._inner: list[np.ndarray] = []
        """Limbs that are alike in `_body`, the joints that were there last."""
        self._start()

    def _start(self) -> None:
        count = len(self._above)
        self._evidence = np.zeros(count)
        self._last = np.full((count, 2), np.nan)
        self._colours = np.full((count, 3), np.nan)
        self._reach = np.full((count, 2), np.nan)
        self._chain = Chain(count, self._either_end) if is_chain(self._above) else None
        self._linkage = Linkage(self._above)

    def __call__(self, observation: Observation, time: float) -> Observation:
        """The observation of the image taken at `time` seconds, as one of the body that was followed so far.

        Limbs are numbered as before. The adjacency is that of the joints that the images so far spoke for. Of those, a
        joint that this image does not show, or shows where its links would not reach, has a low score and is put where
        it was last, seen from the joint above it, or where it is expected (`Linkage`).
        """
        if not 0 <= time - self._time <= self._max_gap:
            self._start()
        self._time = time
        width = observation.image_size[0]
        if self._chain is not None:
            self._believe(observation.scores)
            count = int((self._evidence > 0).sum())
            return self._as_body(observation, *self._chain(observation.keypoints, observation.scores, count, width))
        order = self._order(observation)
        keypoints, scores = observation.keypoints[order], observation.scores[order]
        seen = scores >= EDGE_THRESHOLD
        if observation.colours is not None:
            self._recolour(observation.colours[order], seen)
        self._believe(scores)
        there = self._evidence > 0
        self._hold(keypoints, seen, there)
        joints, put = self._linkage(keypoints[:, None], np.zeros((len(scores), 1)), there, width)
        self._linkage.learn(keypoints, seen)
        return self._as_body(observation, joints, scores, put)

    def _order(self, observation: Observation) -> np.ndarray:
        """(K,) the keypoints in the order in which limbs are most like those before, in place and colours."""
        order = np.arange(len(self._above))
        there = self._evidence > 0 if self._evidence.any() else observation.scores >= EDGE_THRESHOLD
        if self._body is None or not np.array_equal(there, self._body):
            self._body, self._inner = there, inner_limbs(self._above, there)
        width = observation.image_size[0]
        for limbs in (*self._limbs, *self._inner):
            seen = observation.scores[limbs].min(axis=1) >= EDGE_THRESHOLD
            known = np.isfinite(self._last[limbs[:, 0], 0])
            unlike = _unlike(self._last[limbs], observation.keypoints[limbs])
            if observation.colours is not None:
                in_colour = np.nan_to_num(_unlike(self._colours[limbs], observation.colours[limbs]))
                unlike = unlike + _COLOUR * width * in_colour
            order[limbs] = limbs[_assigned(unlike, known, seen, _FAR * width)]
        return order

    def _recolour(self, colours: np.ndarray, seen: np.ndarray) -> None:
        """Remembers the colours (K, 3) of links that are seen (K,)."""
        usual = self._colours
        changed = np.where(np.isnan(usual), colours, usual + _NEWEST * (colours - usual))
        self._colours[seen] = changed[seen]

    def _believe(self, scores: np.ndarray) -> None:
        """Adds up, joint by joint, the log odds that it is there: scores (K,), of which NaN says nothing."""
        sure = np.clip(np.nan_to_num(scores.astype(np.float64), nan=0.5), 1 - _MOST_SURE, _MOST_SURE)
        most = _REMEMBERED * math.log(_MOST_SURE / (1 - _MOST_SURE))
        self._evidence = np.clip(self._evidence + np.log(sure / (1 - sure)), -most, most)

    def _as_body(
        self, observation: Observation, keypoints: np.ndarray, scores: np.ndarray, put: np.ndarray
    ) -> Observation:
        """The observation with these keypoints and scores, and the skeleton that the images so far spoke for.

        put (K,): which joints are elsewhere than the model saw them. They were not seen: their score is at most one
        minus what the model said. Colours are left out: they are in the model's order of links, not in the tracked one.
        """
        there, probability = self._evidence > 0, 1 / (1 + np.exp(-self._evidence))
        strength = np.where(there, probability, np.minimum(probability, BELOW_EDGE))
        adjacency = np.zeros_like(observation.adjacency)
        above = self._above[self._linked]
        adjacency[self._linked, above] = adjacency[above, self._linked] = strength[self._linked]
        values = np.where(there, scores, np.minimum(scores, probability))
        values = np.where(put, np.minimum(values, 1 - values), values)
        return replace(
            observation,
            keypoints=keypoints.astype(np.float32),
            scores=values.astype(np.float32),
            adjacency=adjacency,
            colours=None,
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


def _unlike(last: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(L, L) mean distance of the joints, or colours, of limbs `last` (L, M, D) from those of limbs `found`."""
    return np.linalg.norm(last[:, None] - found[None], axis=-1).mean(axis=-1)


def _assigned(unlike: np.ndarray, known: np.ndarray, seen: np.ndarray, far: float) -> np.ndarray:
    """(L,) for each limb so far, which of the limbs found it is now, so that all together are least unlike (L, L).

    known (L,) bool says what was ever there, seen (L,) bool what of the limbs found is there; `far` is what it costs
    to miss one or to find a new one. At first all keep their numbers.
    """
    cost = np.where(known[:, None] & seen[None], unlike, far * (known[:, None] | seen[None]))
    cost -= far * 1e-3 * np.eye(len(cost))
    chosen = np.arange(len(cost))
    # Two exchange their places as long as that costs less; for so few limbs that is hardly ever not the best.
    while True:
        paid = cost[:, chosen]
        own = np.diagonal(paid)
        gain = own[:, None] + own - paid - paid.T
        first, second = np.unravel_index(np.argmax(gain), gain.shape)
        if not gain[first, second] > 1e-9 * far:  # nor where it is no number
            return chosen
        chosen[[first, second]] = chosen[[second, first]]
