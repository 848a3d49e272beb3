"""The skeleton of points that were followed through images of one body: its links are rigid, its joints are points.

A link explains a point that is near it in all images, or that moves with it as one rigid body, as the corners of a cart
move with the cart: of those its place beside the link matters less, the more the body was seen to bend. Links cost, the
more so if they are long, too short, or change their length. The tree of least costs is looked for from the minimum
spanning tree of all points, which follows the body but bends at each of them: as long as that costs less, a joint is
given up, its links going to one next to it, or a point takes the place of a joint.

Points are complex numbers x + iy in half widths of the image. A link is a number: that of a pair of points in `Pairs`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

_NEAR = 0.08
"""A point so far from a link is explained to 1/e."""
_PLACE = 0.08
"""Points closer than this stand for one place, which counts as one, however many they are."""
_LINK = 0.1
"""What a link costs, in places that are not explained,"""
_LENGTH = 0.25
"""on top for each unit of its mean length,"""
_STRETCH = 1.7
"""of the mean deviation of its length,"""
_SHORT = 3.3
"""and of what it lacks to the shortest length:"""
_SHORTEST = 0.12
_BESIDE = 0.05
"""Share that the distance of a point from a link counts where the two were seen to move as one body."""
_BENT = 0.035
"""A body that was seen to bend so much, in lengths between its points, was seen to bend to 1 - 1/e."""


class Pairs(NamedTuple):
    """All pairs of K points."""

    ends: np.ndarray
    """(2, E) the points of each pair, the smaller one first."""
    number: np.ndarray
    """(K, K) of the pair of two points."""


class Links(NamedTuple):
    """What the links between all pairs of points are worth."""

    cover: np.ndarray
    """(E, Q) how much of each of Q things a link explains: of each point in each image, of all together the places."""
    cost: np.ndarray
    """(E,)."""
    apart: np.ndarray
    """(E,) mean distances of their points, more where it changes."""


def articulated_tree(points: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The links (L, 2) of the tree that explains points (T, K) in T images of one body at the least cost.

    weight (K,): from 0 for a point that does not belong to the body to 1.
    """
    pairs = _pairs(points.shape[1])
    links = _links(points.astype(np.complex64), weight, pairs)
    tree = _simplified(_spanning_tree(links.apart, pairs), links, pairs)
    return pairs.ends[:, tree].T


@cache
def _pairs(count: int) -> Pairs:
    ends = np.stack(np.triu_indices(count, k=1))
    number = np.zeros((count, count), int)
    number[ends[0], ends[1]] = number[ends[1], ends[0]] = np.arange(ends.shape[1])
    return Pairs(ends, number)


def _links(points: np.ndarray, weight: np.ndarray, pairs: Pairs) -> Links:
    seen_from, lengths = _seen_from(points, pairs.ends)  # (T, E, K), (T, E)
    mean = lengths.mean(axis=0)
    changes = np.abs(lengths - np.median(lengths, axis=0)).mean(axis=0)
    bent = _bent(lengths, (weight[pairs.ends] > 0.5).all(axis=0))
    distance = _unexplained(points, seen_from, lengths, pairs, bent)
    places = (np.abs(points[:, :, None] - points[:, None]) < _PLACE).sum(axis=2).mean(axis=0)  # (K,)
    cover = np.exp(-((distance / _NEAR) ** 2)) * (weight / places / len(points)).astype(np.float32)
    short = np.maximum(_SHORTEST - lengths, 0).mean(axis=0)
    cost = _LINK + _LENGTH * mean + _STRETCH * changes + _SHORT * short
    return Links(cover.swapaxes(0, 1).reshape(len(cost), -1), cost, mean + 2 * changes)


def _bent(lengths: np.ndarray, belongs: np.ndarray) -> float:
    """How surely a body was seen to bend, in [0, 1], by lengths (T, E) of pairs, of which some belong to it (E,)."""
    far = belongs & (lengths.mean(axis=0) > _SHORTEST)
    change = np.quantile(lengths[:, far].std(axis=0), 0.9) if far.any() else 0.0
    return float(1 - np.exp(-((change / _BENT) ** 2)))


def distances_to_links(points: np.ndarray, links: np.ndarray) -> np.ndarray:
    """(…, L, K) from links (L, 2) to points (…, K) of the same images."""
    seen_from, lengths = _seen_from(points, links.T)
    return np.hypot(*_outside(seen_from, lengths))


def _seen_from(points: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (…, K) in the frames of links with `ends` (2, L), from 0 along x: (…, L, K), and their lengths (…, L)."""
    start = points[..., ends[0]]
    along = points[..., ends[1]] - start
    lengths = np.abs(along)
    turn = (along / np.maximum(lengths, 1e-6)).conj()
    return (points[..., None, :] - start[..., None]) * turn[..., None], lengths


def _outside(seen_from: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(…, L, K) how far points are beyond the ends of links in whose frames they are given, and beside the links."""
    return seen_from.real - seen_from.real.clip(0, lengths[..., None]), seen_from.imag


def _unexplained(
    points: np.ndarray, seen_from: np.ndarray, lengths: np.ndarray, pairs: Pairs, bent: float
) -> np.ndarray:
    """(T, E, K) the distances of points (T, K) from links, less for those that move with the link or one of its ends.

    What moves with a link beside it is part of it; what is beyond its end makes it longer.
    """
    turning = np.abs(seen_from - seen_from.mean(axis=0)).mean(axis=0)  # (E, K)
    apart = points[:, None] - points[..., None]
    shifting = np.abs(apart - apart.mean(axis=0)).mean(axis=0)[pairs.ends].min(axis=0)  # (E, K)
    beyond, beside = _outside(seen_from, lengths)
    distance = np.hypot(beyond, beside)
    share = 1 - bent * (1 - _BESIDE)
    as_one = np.minimum(turning + np.hypot(beyond, share * beside), shifting + share * distance)
    return np.minimum(distance, as_one)


def _spanning_tree(apart: np.ndarray, pairs: Pairs) -> list[int]:
    """The minimum spanning tree (Prim) of points by the distances (E,) of pairs."""
    between = apart[pairs.number]
    np.fill_diagonal(between, np.inf)
    nearest, reached, tree = np.zeros(len(between), int), between[0].copy(), []
    between[:, 0] = np.inf
    for _ in range(len(between) - 1):
        point = int(reached.argmin())
        tree.append(int(pairs.number[point, nearest[point]]))
        closer = between[point] < reached
        nearest[closer], reached[closer] = point, between[point][closer]
        between[:, point] = reached[point] = np.inf
    return tree


def _simplified(tree: list[int], links: Links, pairs: Pairs) -> list[int]:
    """The tree after all changes that make it cost less, always the best one first."""
    worth = links.cover[tree].max(axis=0).sum() - links.cost[tree].sum()
    replacing = False
    while True:
        changed = _best_change(tree, links, pairs, replacing)
        if changed is not None and changed[0] > worth + 1e-6:
            worth, tree = changed
        elif replacing:
            return tree
        else:
            replacing = True


def _best_change(tree: list[int], links: Links, pairs: Pairs, replacing: bool) -> tuple[float, list[int]] | None:
    """The best of all trees with one joint less or, `replacing`, another joint, and what it is worth."""
    ends = pairs.ends[:, tree]
    joints = np.unique(ends)
    others = np.setdiff1d(np.arange(len(pairs.number)), joints)
    best: tuple[float, list[int]] | None = None
    for joint in joints:
        its = (ends == joint).any(axis=0)
        rest = [link for link, own in zip(tree, its, strict=True) if not own]
        neighbours = ends[:, its].sum(axis=0) - joint
        covered, paid = links.cover[rest].max(axis=0, initial=0), links.cost[rest].sum()
        taken = [(n, neighbours[neighbours != n]) for n in neighbours] if len(tree) > 1 else []
        if replacing:
            taken += [(other, neighbours) for other in others]
        for place, to in taken:
            new = pairs.number[place, to]
            cover = np.maximum(links.cover[new].max(axis=0, initial=0), covered)
            worth = float(cover.sum() - links.cost[new].sum() - paid)
            if best is None or worth > best[0]:
                best = worth, rest + new.tolist()
    return best
