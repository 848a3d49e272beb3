"""What a detector says about one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

EDGE_THRESHOLD = 0.5
"""An adjacency entry at or above this is an edge. Every method scales its adjacency so that this one rule holds."""
BELOW_EDGE = float(np.nextafter(np.float32(EDGE_THRESHOLD), np.float32(0)))
"""The largest adjacency that is no edge."""


@dataclass(frozen=True)
class Observation:
    """Keypoints and skeleton of one image, in pixels of that image.

    Pixel (0, 0) is the centre of the top-left pixel. K is the model's number of keypoints; a keypoint is never
    dropped or renumbered, whatever its score.
    """

    keypoints: np.ndarray
    """(K, 2) float32, (x, y) in pixels."""
    scores: np.ndarray
    """(K,) float32 in [0, 1]."""
    adjacency: np.ndarray
    """(K, K) float32 in [0, 1], symmetric, zero diagonal."""
    image_size: tuple[int, int]
    """(width, height) of the image in pixels."""
    colours: np.ndarray | None = None
    """(K, 3) float32 in [0, 1], of the link above each keypoint, whatever the light; None where nothing needs them."""

    def edges(self, threshold: float = EDGE_THRESHOLD) -> np.ndarray:
        """The (E, 2) int pairs (i, j), i < j, whose adjacency is at least `threshold`, in lexicographic order."""
        return np.argwhere(np.triu(self.adjacency, k=1) >= threshold)


def adjacency_of(edges: ArrayLike, count: int, weights: ArrayLike = True) -> np.ndarray:
    """The symmetric (K, K) adjacency of `count` points that has `weights`, (E,) or one for all, at its edges (E, 2)."""
    i, j = np.asarray(edges, int).reshape(-1, 2).T
    adjacency = np.zeros((count, count), np.asarray(weights).dtype)
    adjacency[i, j] = adjacency[j, i] = weights
    return adjacency


class Hierarchy(NamedTuple):
    """A forest over keypoints and groups of keypoints, coarse to fine: a parent comes before its children.

    M nodes; a node is a keypoint or a group that is no keypoint itself.
    """

    parent: tuple[int, ...]
    """(M,) index of the parent node, -1 for a root."""
    keypoint_id: tuple[int, ...]
    """(M,) index of the keypoint, -1 for a group."""
    level: tuple[int, ...]
    """(M,) depth in the forest, 0 is coarsest."""
    name: tuple[str, ...]
    """(M,) keypoint or group names."""

    def root(self, node: int) -> int:
        """The root of the tree that `node` belongs to."""
        while self.parent[node] >= 0:
            node = self.parent[node]
        return node

    def groups(self, keypoints: int) -> np.ndarray:
        """(K,) int: for each of `keypoints` keypoints a number for the tree it stands in, 0-based in node order."""
        number: dict[int, int] = {}
        group = np.zeros(keypoints, dtype=int)
        for node, keypoint in enumerate(self.keypoint_id):
            if keypoint >= 0:
                group[keypoint] = number.setdefault(self.root(node), len(number))
        return group
