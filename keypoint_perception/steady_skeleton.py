"""One skeleton over time, of models that find points in each image and then say which of them are linked.

Where such a model numbers points by their place in the picture, numbers go from one part of the body to another as it
turns; then they are kept over time instead, by where points were.

Single images cannot agree about it: of two neighbouring points either is as good a joint, and where a limb is straight
nothing tells that it has a joint in its middle. But a body keeps its skeleton, and its parts are rigid. So the skeleton
is looked for in many images together (`articulation`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from keypoint_perception.articulation import articulated_tree, distances_to_links
from keypoint_perception.observation import BELOW_EDGE, EDGE_THRESHOLD, Observation, adjacency_of

_REMEMBERED = 20
"""So many images at most are remembered, at equal intervals,"""
_LONGEST_INTERVAL = 8
"""of at most so many images: then the oldest is forgotten."""
_RARELY = 16
"""The skeleton is looked for anew after a quarter more images, and after so many at the latest."""
_ON_BODY = 0.15
"""A point that is nearer than this to the links that the model found in an image is on the body there, half widths."""


class SteadySkeleton:
    """Finds the skeleton of one camera's observations. A time that goes back, or a gap, starts it afresh."""

    def __init__(self, alike: Sequence[int], max_gap: float) -> None:
        """alike: points whose numbers may change between images. max_gap: seconds after which the past is forgotten."""
        self._alike = np.array(alike, int)
        if len(self._alike):
            least_steps(*np.zeros((2, 1, 2)))  # loads what it needs now rather than at the second image
        self._max_gap = max_gap
        self._time = math.nan
        self._start()

    def _start(self) -> None:
        self._images = 0
        self._wait = 0
        """So many images more until the skeleton is looked for."""
        self._interval = 1
        self._memory: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        """Of each image its points (K,) x + iy in half widths, whether they are on the body (K,), and its adjacency."""
        self._adjacency = np.empty(0)
        self._last: np.ndarray | None = None
        """(K, 2) where the points were in the last image with a link."""

    def __call__(self, observation: Observation, time: float) -> Observation:
        """The observation of the image taken at `time` seconds, with the skeleton of all so far and numbers as before.

        An edge has a strength of a half and more, the more often the model linked its ends in single images. A score
        says how surely a keypoint is a joint: it is that of its strongest edge, and below a half where it has none.
        Where the model finds no link, nothing is there: that image has no edges, and no later one is compared with it.
        """
        if not 0 <= time - self._time <= self._max_gap:
            self._start()
        self._time = time
        if not np.isfinite(observation.keypoints).all():
            return observation
        if len(self._alike) and self._last is not None:
            observation = self._numbered(observation, self._last)
        if len(observation.edges()) == 0:
            return observation
        self._last = observation.keypoints
        if self._images % self._interval == 0:
            self._remember(observation)
        if self._wait == 0:
            self._adjacency = self._skeleton()
            self._wait = min(1 + self._images // 4, _RARELY)
        self._images += 1
        self._wait -= 1
        return replace(observation, scores=self._adjacency.max(axis=1), adjacency=self._adjacency)

    def _numbered(self, observation: Observation, last: np.ndarray) -> Observation:
        """The observation with points that are alike in the order in which they move least from `last` (K, 2)."""
        points = observation.keypoints
        order = np.arange(len(points))
        order[self._alike] = self._alike[least_steps(last[self._alike], points[self._alike])]
        return replace(
            observation,
            keypoints=points[order],
            scores=observation.scores[order],
            adjacency=observation.adjacency[np.ix_(order, order)],
        )

    def _remember(self, observation: Observation) -> None:
        """Puts an image with its links into the memory.

        A full memory first lets every second image go, or at last the oldest.
        """
        if len(self._memory) == _REMEMBERED and self._interval < _LONGEST_INTERVAL:
            self._memory = self._memory[::2]
            self._interval *= 2
        elif len(self._memory) == _REMEMBERED:
            del self._memory[0]
        points = observation.keypoints @ np.array([1, 1j], np.complex64) * (2 / observation.image_size[0])
        on_body = distances_to_links(points, observation.edges()).min(axis=0) < _ON_BODY
        self._memory.append((points, on_body, observation.adjacency))

    def _skeleton(self) -> np.ndarray:
        """(K, K) the adjacency that the remembered images speak for."""
        points, on_body, adjacency = (np.stack(each) for each in zip(*self._memory, strict=True))
        links = articulated_tree(points, on_body.mean(axis=0))
        linked = adjacency_of(links, len(on_body[0]))
        strength = EDGE_THRESHOLD * adjacency.mean(axis=0)
        return np.where(linked, EDGE_THRESHOLD + strength, np.minimum(strength, BELOW_EDGE)).astype(np.float32)


def least_steps(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(K,) the order of points `after` in which they are those `before`, both (K, 2), by the least squared steps.

    So a row of points moves along by one rather than that one leaps from its end to the other.
    """
    from scipy.optimize import linear_sum_assignment  # a third of a second and 48 MB that few models need

    return linear_sum_assignment(np.square(before[:, None] - after).sum(axis=-1))[1]
