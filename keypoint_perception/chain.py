"""A chain of links over time: which end is its first, and where the joints are that an image overlooks."""

from __future__ import annotations

import numpy as np

from keypoint_perception.linkage import Linkage
from keypoint_perception.observation import EDGE_THRESHOLD

# What a joint's places cost but for the one where the model saw it, as shares of the image's width:
_NEIGHBOURS = 0.05
"""where the model saw the joint before or behind: if it overlooks one, all behind that move up;"""
_SPREAD = 0.025
"""where it would be on the line that was seen, if the model saw more or fewer joints than there are."""


class Chain:
    """Follows the chain in one camera's images."""

    def __init__(self, count: int, either_end: bool) -> None:
        """count: of the model's keypoints, K. either_end: whether the model may begin at either end."""
        self._joints = np.arange(count)
        self._either_end = either_end
        self._last: np.ndarray = np.empty((0, 2))
        self._linkage = self._new()

    def __call__(
        self, keypoints: np.ndarray, scores: np.ndarray, there: int, width: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keypoints (K, 2) and scores (K,) of the chain whose first `there` keypoints are joints of the body.

        It begins where it began before, and its joints are where `Linkage` chooses. width: of the image, pixels. Also
        returns (K,) which of them were put where they were expected.
        """
        joints = self._joints
        if there != len(self._last):
            self._linkage = self._new()
        keypoints, scores, line = self._from_the_same_end(keypoints, scores, there)
        places = np.stack([keypoints, np.roll(keypoints, 1, axis=0), np.roll(keypoints, -1, axis=0), line], axis=1)
        costs = width * np.tile([0, _NEIGHBOURS, _NEIGHBOURS, _SPREAD], (len(joints), 1))
        costs[0, 1] = costs[-1, 2] = np.inf
        chain, put = self._linkage(places, costs, joints < there, width)
        if there == _count(scores):
            self._linkage.learn(keypoints, joints < there)
        self._last = chain[:there]
        return chain, scores, put

    def _new(self) -> Linkage:
        return Linkage(self._joints - 1)

    def _from_the_same_end(
        self, keypoints: np.ndarray, scores: np.ndarray, there: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keypoints and scores from the end where the chain began before, and its line (K, 2)."""
        seen, order = _count(scores), self._joints
        orders = [order, np.concatenate([order[:seen][::-1], order[seen:]])] if self._either_end else [order]
        found = [(keypoints[order], scores[order], self._spread(keypoints[order], seen, there)) for order in orders]
        shared = min(len(self._last), there)
        return min(found, key=lambda one: float(np.linalg.norm(one[2][:shared] - self._last[:shared], axis=1).sum()))

    def _spread(self, keypoints: np.ndarray, seen: int, there: int) -> np.ndarray:
        """(K, 2) the joints of the body spread over the line of the first `seen` keypoints, as they are wont."""
        if seen == there or min(seen, there) < 2:
            return keypoints
        usual = self._linkage.lengths[1:there]
        usual = usual if usual.all() else np.ones(there - 1)
        links = np.linalg.norm(np.diff(keypoints[:seen], axis=0), axis=1)
        at, wanted = (np.concatenate([[0], np.cumsum(parts)]) for parts in (links, usual))
        wanted *= at[-1] / max(wanted[-1], 1e-9)
        spread = np.stack([np.interp(wanted, at, axis) for axis in keypoints[:seen].T], axis=1)
        return np.concatenate([spread, keypoints[there:]])


def _count(scores: np.ndarray) -> int:
    """How many joints of a chain the model saw: scores (K,)."""
    return int((scores >= EDGE_THRESHOLD).sum())
