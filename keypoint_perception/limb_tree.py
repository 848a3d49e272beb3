"""Which limbs of a tree look alike. The tree is `above` (K,): the keypoint above each keypoint, -1 for the root."""

from __future__ import annotations

import numpy as np

Shape = tuple["Shape", ...]
"""Of a branch: the shapes of the branches that leave its first joint, sorted."""


def depths(above: np.ndarray) -> list[int]:
    """How many links each joint is away from the root."""
    found = []
    for joint in range(len(above)):
        depth = 0
        while above[joint] >= 0:
            joint, depth = int(above[joint]), depth + 1
        found.append(depth)
    return found


def is_chain(above: np.ndarray) -> bool:
    """Whether every slot hangs on the one before."""
    return bool((np.diff(above) == 1).all())


def root_limbs(above: np.ndarray) -> list[np.ndarray]:
    """The limbs (L, M) that leave the root and are alike in the whole tree; a body may have any number of them."""
    return [limbs for limbs in interchangeable(above) if above[above[limbs[0, 0]]] < 0]


def inner_limbs(above: np.ndarray, present: np.ndarray) -> list[np.ndarray]:
    """The limbs (L, M) that are alike in a body of the joints `present` (K,) bool, and are no root limbs."""
    taken = np.concatenate([[], *(limbs.ravel() for limbs in root_limbs(above))])
    return [limbs for limbs in interchangeable(above, present) if not np.isin(limbs, taken).any()]


def interchangeable(above: np.ndarray, present: np.ndarray | None = None) -> list[np.ndarray]:
    """Limbs that are alike: for each joint with several branches of one shape, (L, M) slots of L branches of M joints.

    above (K,): the slot above each slot, -1 for the root. present (K,) bool: of which slots the tree consists, None for
    all. Corresponding joints are in one column. Of limbs within limbs that are alike only the outermost change places.
    """
    below: list[list[int]] = [[] for _ in above]
    for slot in np.flatnonzero(above >= 0) if present is None else np.flatnonzero((above >= 0) & present):
        below[above[slot]].append(int(slot))
    groups: list[np.ndarray] = []
    pending = np.flatnonzero(above < 0).tolist()
    for slot in pending:  # grows as it goes
        branches: dict[Shape, list[list[int]]] = {}
        for child in below[slot]:
            shape, slots = _branch(below, child)
            branches.setdefault(shape, []).append(slots)
        groups += [np.array(alike) for alike in branches.values() if len(alike) > 1]
        pending += [alike[0][0] for alike in branches.values() if len(alike) == 1]
    return groups


def _branch(below: list[list[int]], slot: int) -> tuple[Shape, list[int]]:
    """The shape of a slot and all below it, and the slots, in the same order for branches of one shape."""
    children = sorted(_branch(below, child) for child in below[slot])
    return tuple(shape for shape, _ in children), [slot, *(s for _, slots in children for s in slots)]
