"""Skeletons as rooted trees: one tree for bodies that differ, and one numbering for limbs that look alike.

`unite` lays the trees of several bodies over one another, root on root. From there the children of joints that lie on
one another pair up, those with more joints behind them first; whoever finds no partner becomes a joint of its own.
Where one body is another with some limbs or links left out, the union is the larger one's tree. A pose of a smaller
body becomes a pose of the union by putting each joint it lacks on that joint's parent: on the end of a chain that is
shorter, on the root for a limb that is not there. The edges that come with it have no length, so no drawing shows
them.

`numbered_by_place` numbers limbs that only their place distinguishes by that place, as a drawing shows it: whoever
reads joints off a drawing or a picture could otherwise do no better than the mean of all that might be meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.prior import parents_of_tree

_ALIKE = {"spider": r"hip\d", "walker": r"(left|right)_knee"}
"""Objects with limbs that only their place tells apart, and the names of the limbs' first joints."""
_REVERSIBLE = ("swimmer",)
"""Chains whose ends look alike."""


@dataclass(frozen=True)
class Tree:
    """J joints, the first of which is the root."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    """(J,), -1 for the root."""

    @classmethod
    def of(cls, names: Sequence[str], adjacency: np.ndarray) -> Tree:
        """The tree of a symmetric adjacency (J, J) bool, seen from joint 0."""
        return cls(tuple(names), parents_of_tree(np.argwhere(np.triu(adjacency)), len(names)))

    @property
    def edges(self) -> np.ndarray:
        """(J - 1, 2) int, pairs i < j."""
        pairs = [sorted(pair) for pair in enumerate(self.parents) if pair[1] >= 0]
        return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def children(parents: Sequence[int], joint: int) -> list[int]:
    """The joints of a tree `parents` (J,) next behind one, those with more joints behind them first."""
    return sorted((j for j, p in enumerate(parents) if p == joint), key=lambda j: -len(behind(parents, j)))


def behind(parents: Sequence[int], joint: int) -> list[int]:
    """A joint of a tree `parents` (J,) and all behind it, in the same order for limbs of the same shape."""
    return [joint, *(further for child in children(parents, joint) for further in behind(parents, child))]


def unite(trees: Sequence[Tree]) -> tuple[Tree, list[np.ndarray]]:
    """The union of trees, and for each of them which of its joints stands for each joint of the union, (J,) int.

    The union is numbered as the largest tree is, and then goes on; of a joint that bodies name differently the name has
    all of them, joined by slashes.
    """
    parents: list[int] = []
    names: list[list[str]] = []
    own: list[dict[int, int]] = [{} for _ in trees]  # joint of the union to joint of the tree
    for index in sorted(range(len(trees)), key=lambda i: -len(trees[i].names)):
        tree, found = trees[index], own[index]
        if not parents:
            parents, names = list(tree.parents), [[name] for name in tree.names]
            found |= {joint: joint for joint in range(len(parents))}
            continue
        pending = [(0, 0)]
        for place, joint in pending:
            found[place] = joint
            if tree.names[joint] not in names[place]:
                names[place].append(tree.names[joint])
            free = children(parents, place)
            for number, child in enumerate(children(tree.parents, joint)):
                if number >= len(free):
                    parents.append(place)
                    names.append([])
                pending.append((free[number] if number < len(free) else len(parents) - 1, child))
    stand_ins = []
    for found in own:
        for place in behind(parents, 0):
            found.setdefault(place, found[parents[place]] if place else 0)
        stand_ins.append(np.array([found[place] for place in range(len(parents))]))
    return Tree(tuple("/".join(parts) for parts in names), tuple(parents)), stand_ins


def place_matters(variant: str, names: Sequence[str], adjacency: np.ndarray) -> bool:
    """Whether an object, such as spider5, has limbs or ends that only their place tells apart.

    names (J,) and adjacency (J, J) bool are its own: another object of the same name, in data that somebody labelled,
    need not be a tree with such limbs.
    """
    kind = _kind(variant)
    is_tree = np.count_nonzero(adjacency) == 2 * (len(names) - 1)
    return is_tree and (kind in _REVERSIBLE or len(_alike(kind, names)) > 1)


def numbered_by_place(variant: str, names: Sequence[str], adjacency: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Poses (T, J, 2), numbered so that a picture tells which joint is which.

    Limbs that look alike are numbered clockwise, chains from the left; the poses of an object whose place does not
    matter are returned as they are.
    """
    if not place_matters(variant, names, adjacency):
        return poses
    kind = _kind(variant)
    if kind in _REVERSIBLE:
        return from_the_left(poses)
    return tell_apart(Tree.of(names, adjacency), poses, _alike(kind, names))


def _kind(variant: str) -> str:
    return variant.rstrip("0123456789")


def _alike(kind: str, names: Sequence[str]) -> list[int]:
    """The first joints of limbs that look alike."""
    return [joint for joint, name in enumerate(names) if kind in _ALIKE and re.fullmatch(_ALIKE[kind], name)]


def tell_apart(tree: Tree, poses: np.ndarray, alike: Sequence[int]) -> np.ndarray:
    """Renumbers limbs of one shape in each pose: (T, J, 2) pixels to the same.

    `alike` are the first joints of limbs that leave the same joint. They are numbered clockwise around it, from the
    direction of its own parent or, at the root, from the picture's right.
    """
    centre = tree.parents[alike[0]]
    arms = poses[:, alike] - poses[:, None, centre]
    back = poses[:, tree.parents[centre]] - poses[:, centre] if centre else np.array([[1.0, 0.0]])
    angles = np.arctan2(arms[..., 1], arms[..., 0]) - np.arctan2(back[..., 1], back[..., 0])[:, None]
    limbs = np.array([behind(tree.parents, joint) for joint in alike])  # (limbs, joints of one)
    return in_order(poses, limbs, angles % (2 * np.pi))


def in_order(poses: np.ndarray, limbs: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Renumbers limbs (L, M), joints of each, of poses (T, J, 2), the one of the least key (T, L) first."""
    order = np.argsort(key, axis=1)
    renumbered = poses.copy()
    renumbered[:, limbs] = poses[np.arange(len(poses))[:, None, None], limbs[order]]
    return renumbered


def from_the_left(poses: np.ndarray) -> np.ndarray:
    """Renumbers chains (T, J, 2) whose ends look alike: the first joint is the end farther left in the picture."""
    turned = poses[:, -1, 0] < poses[:, 0, 0]
    return np.where(turned[:, None, None], poses[:, ::-1], poses)
