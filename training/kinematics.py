"""A skeleton and its parts from how keypoints move: for methods that learn no graph themselves.

Two points of one rigid link keep their distance, however far the link moves. The spread of a distance over the spread
of the points' own positions says how loosely a pair is coupled, whatever the scale; the distance itself would be a poor
measure to divide by, as it flatters far pairs and blames noise on near ones. Spreads are taken from quantiles weighted
by score, so that single false detections do not count. The skeleton is the spanning tree whose distances vary least in
all, where of two equally rigid pairs the shorter wins; the parts are clusters of points with cheap edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.cluster.vq import kmeans2
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import squareform

from keypoint_perception.observation import EDGE_THRESHOLD
from keypoint_perception.steady_skeleton import least_steps

HALF_RIGID = 0.35
"""Variation at which a pair counts as half rigid; the projection of a turning link alone varies by 0.1 to 0.3."""
STANDING = 0.03
"""A point whose position spreads by less than this share of the points' overall extent stands still."""
NORMAL_SPREAD = 2.563
"""From the 10% to the 90% quantile of a normal distribution, in standard deviations."""
LENGTH_COST = 0.1
"""What an edge's length costs in the spanning tree, against its spread."""
UNRELATED = 0.1
"""A spanning edge that costs more than this joins nothing: its ends belong to different objects."""
ONE_PART = 0.06
"""Keypoints whose edges would cost at most this on average are one part."""
MOST_GROUPS = 8


@dataclass(frozen=True)
class Kinematics:
    """What the trajectories of K keypoints say."""

    adjacency: np.ndarray
    """(K, K) in [0, 1], symmetric, zero diagonal: at least 0.5 on the edges of the spanning tree, below elsewhere."""
    groups: list[tuple[int, ...]]
    """Disjoint sets of keypoints that move as one, every keypoint in one of them."""
    frames: int
    """Number of frames that were seen."""


def estimate_kinematics(recordings: list[tuple[np.ndarray, np.ndarray]]) -> Kinematics:
    """Keypoints (T, K, 2) and scores (T, K) of one or more recordings to a skeleton and groups.

    Units do not matter, but must be equal in x and y. Recordings may differ in scale.
    """
    count = recordings[0][0].shape[1]
    cost, variation = _variation(recordings)
    rigidity = np.exp2(-((variation / HALF_RIGID) ** 2))
    np.fill_diagonal(rigidity, 0)
    tree = minimum_spanning_tree(cost + 1e-9).toarray() > 0
    edge = (tree | tree.T) & (cost < UNRELATED)
    adjacency = np.where(edge, EDGE_THRESHOLD + (1 - EDGE_THRESHOLD) * rigidity, 0.98 * EDGE_THRESHOLD * rigidity)
    np.fill_diagonal(adjacency, 0)
    frames = sum(len(keypoints) for keypoints, _ in recordings)
    return Kinematics(adjacency, part_groups(cost) if count > 1 else [(0,)], frames)


def numbers_leap(recordings: list[np.ndarray]) -> float:
    """How much farther points (T, K, 2) leap from image to image by their numbers than by their places.

    The mean squared step of the points with one number, over that of the points in the order in which it is least. 1
    where numbers stay on the part of the body that they are on; recordings of at least two successive images.
    """
    by_number = by_place = 0.0
    for points in recordings:
        for before, after in pairwise(points):
            by_number += np.square(after - before).sum()
            by_place += np.square(after[least_steps(before, after)] - before).sum()
    return by_number / max(by_place, 1e-12)


def part_groups(cost: np.ndarray) -> list[tuple[int, ...]]:
    """Clusters (average linkage) of keypoints that stay together; by their smallest member. cost (K, K) of edges."""
    distance = cost.copy()
    np.fill_diagonal(distance, 0)
    labels = fcluster(linkage(squareform(distance, checks=False), "average"), t=ONE_PART, criterion="distance")
    return _by_label(labels)


def spectral_groups(adjacency: np.ndarray) -> list[tuple[int, ...]]:
    """Clusters of a weighted graph (K, K) by its normalised Laplacian; their number from the largest eigengap.

    Unconnected parts are always apart. At most `MOST_GROUPS`, or as many as there are unconnected parts.
    """
    count = len(adjacency)
    parts, labels = connected_components(adjacency > 0)
    if parts >= min(MOST_GROUPS, count):
        return _by_label(labels)
    scale = 1 / np.sqrt(np.maximum(adjacency.sum(axis=1), 1e-12))
    laplacian = np.eye(count) - scale[:, None] * adjacency * scale
    values, vectors = np.linalg.eigh(laplacian)
    most = min(MOST_GROUPS, count - 1)
    clusters = parts + int(np.argmax(np.diff(values[parts - 1 : most + 1])))
    if clusters == parts:
        return _by_label(labels)
    rows = vectors[:, :clusters] / np.maximum(np.linalg.norm(vectors[:, :clusters], axis=1, keepdims=True), 1e-12)
    return _by_label(kmeans2(rows, clusters, minit="++", seed=0)[1])


def _variation(recordings: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """(K, K) costs of edges in shares of the recording's extent, and relative variations; scores weigh."""
    count = recordings[0][0].shape[1]
    cost, variation, total = (np.zeros((count, count)) for _ in range(3))
    for keypoints, scores in recordings:
        low, high = np.quantile(keypoints.reshape(-1, 2), (0.1, 0.9), axis=0)
        extent = max(float(np.linalg.norm(high - low)), 1e-9)
        moved = np.hypot(*(_spread(keypoints[..., axis] / extent, scores + 1e-6) for axis in (0, 1)))  # (K,)
        for i in range(count):
            distance = np.linalg.norm(keypoints - keypoints[:, i : i + 1], axis=-1) / extent  # (T, K)
            weight = scores * scores[:, i : i + 1] + 1e-6
            middle = _weighted_quantiles(distance, weight, (0.5,))[0]
            deviation, weight_sum = _spread(distance, weight), weight.sum(axis=0)
            cost[i] += weight_sum * (deviation + LENGTH_COST * middle)
            variation[i] += weight_sum * deviation / np.maximum(np.minimum(moved, moved[i]), STANDING)
            total[i] += weight_sum
    cost, variation = cost / total, variation / total
    return (cost + cost.T) / 2, (variation + variation.T) / 2  # equal but for rounding


def _spread(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    low, high = _weighted_quantiles(values, weights, (0.1, 0.9))
    return (high - low) / NORMAL_SPREAD


def _weighted_quantiles(values: np.ndarray, weights: np.ndarray, shares: tuple[float, ...]) -> list[np.ndarray]:
    """Quantiles along the first axis: values, weights (T, K) to one (K,) for each share."""
    order = np.argsort(values, axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    running = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0)
    reached = [(running < share * running[-1]).sum(axis=0) for share in shares]
    return [np.take_along_axis(ordered, row[None], axis=0)[0] for row in reached]


def _by_label(labels: np.ndarray) -> list[tuple[int, ...]]:
    groups = [tuple(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)]
    return sorted(groups)
