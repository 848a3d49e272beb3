"""The joints of a body that links hold together: where they must be, by what is known of the images before."""

from __future__ import annotations

import numpy as np

from keypoint_perception.limb_tree import depths

_PACE = 0.5
"""Share of its last motion by which a joint is expected to go on."""
_NEWEST = 0.05
"""Weight of an image in what is usual of a link's length, once there were many."""

# Lengths below are shares of the image's width.
_NOISE = 0.01
"""A link that is so much longer or shorter still has its usual length."""
_EXPECTED = 0.035
"""What it costs to put a joint where it is expected,"""
_AGAIN = 0.025
"""and so much more for each image before, in a row, in which it was put there."""
_LEAP = 0.1
"""Beyond this a leap of a joint costs the expected place as much as the new one, so that a body may leap."""

_MOTION = 0.3
"""Cost per length from where a joint is expected,"""
_STRETCH = 2.0
"""and per length that a link is longer or shorter than usual."""


class Linkage:
    """Follows the joints of one body through the images of a camera."""

    def __init__(self, above: np.ndarray) -> None:
        """above (K,): the joint above each joint, -1 for the root."""
        self._above = above.clip(min=0)
        level = np.array(depths(above))
        self._by_level = [np.flatnonzero(level == depth) for depth in range(1, int(level.max()) + 1)]
        self._last: np.ndarray = np.full((len(above), 2), np.nan)
        self._motion: np.ndarray = np.zeros((len(above), 2))
        self._put: np.ndarray = np.zeros(len(above))
        """(K,) in how many images in a row a joint was put where it was expected."""
        self.lengths: np.ndarray = np.zeros(len(above))
        """(K,) usual lengths of the links above joints, 0 where none was seen;"""
        self._deviation: np.ndarray = np.zeros(len(above))
        """(K,) by how much they vary,"""
        self._images: np.ndarray = np.zeros(len(above))
        """(K,) and in how many images they were seen."""

    def __call__(
        self, places: np.ndarray, costs: np.ndarray, there: np.ndarray, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Chooses for each joint one of its places in an image (K, C, 2), or the one where it is expected.

        Those are taken that cost least for the whole body, found by dynamic programming on its tree:
        Σ cost of the place + 0.3 |x_k - expected_k| + 2 d(|x_k - x_above|), where d is how far a link's length is
        outside the range usual for it. The first place is where the model saw the joint. costs (K, C): of the places,
        pixels, infinite for what is none. there (K,): which joints the body has. width: of the image, pixels.
        Returns the joints (K, 2), and (K,) which of them were put where they were expected.
        """
        known = np.isfinite(self._last[:, 0])
        expected = np.where(known[:, None], self._last + _PACE * self._motion, places[:, 0])
        away = np.linalg.norm(places - expected[:, None], axis=-1)
        waiting = width * (_EXPECTED + _AGAIN * self._put) + _MOTION * (away[:, 0] - _LEAP * width).clip(min=0)
        costs = np.column_stack([costs + _MOTION * away, np.where(known, waiting, np.inf)])
        places = np.concatenate([places, expected[:, None]], axis=1)
        chosen = self._cheapest(places, costs, there, _NOISE * width)
        joints, put = places[np.arange(len(places)), chosen], there & (chosen == places.shape[1] - 1)
        self._put = np.where(put, self._put + 1, 0)
        self._motion = np.where((known & there)[:, None], joints - self._last, 0)
        self._last = np.where(there[:, None], joints, np.nan)
        return joints, put

    def learn(self, keypoints: np.ndarray, seen: np.ndarray) -> None:
        """Remembers how long the links of joints (K, 2) are in an image, where both ends are `seen` (K,)."""
        length = np.linalg.norm(keypoints - keypoints[self._above], axis=-1)
        seen = seen & seen[self._above] & np.isfinite(length)
        length = np.where(seen, length, self.lengths)
        self._images += seen
        weight = np.where(seen, np.maximum(1 / self._images.clip(min=1), _NEWEST), 0)
        off = np.where(self._images > 1, length - self.lengths, 0)
        self._deviation += weight * (np.abs(off) - self._deviation)
        self.lengths += weight * (length - self.lengths)

    def _cheapest(self, places: np.ndarray, costs: np.ndarray, there: np.ndarray, noise: float) -> np.ndarray:
        """(K,) which of its places (K, C, 2) each joint takes, all together at the least costs (K, C)."""
        images = self._images.clip(min=1)
        varies = np.maximum(self._deviation, noise) + self.lengths / images  # the fewer the images the less is known
        varies[self._images == 0] = np.inf
        paid, best = costs.copy(), np.zeros(costs.shape, int)
        for level in reversed(self._by_level):
            joints = level[there[level]]
            above = self._above[joints]
            length = np.linalg.norm(places[above][:, :, None] - places[joints][:, None], axis=-1)  # (J, above's, own)
            beyond = np.abs(length - self.lengths[joints, None, None]) - varies[joints, None, None]
            ways = paid[joints][:, None] + _STRETCH * beyond.clip(min=0)
            best[joints] = ways.argmin(axis=-1)
            np.add.at(paid, above, ways.min(axis=-1))
        chosen = paid.argmin(axis=-1)
        for level in self._by_level:
            joints = level[there[level]]
            chosen[joints] = best[joints, chosen[self._above[joints]]]
        return chosen
