"""Files of unpaired poses: skeletons of an object without its pictures, for methods that learn from such a prior.

The file is an ordinary `.npz`: keypoints (P, J, 2) float32 normalised to [-1, 1] and, where the skeleton is known,
edges (E, 2) int and names (J,); for simulated objects also the scene and the variant they were drawn from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole

PRIOR_REMEDY = "as `python -m training simulate SCENE --poses P -o X.npz` writes"
_FAR = 2.0
"""Normalised poses may reach out of the picture, and yet half of their coordinates are nearer to its middle."""


@dataclass(frozen=True)
class Poses:
    """P poses of a skeleton of J joints."""

    keypoints: np.ndarray
    """(P, J, 2) float32, (x, y), normalised: -1 and 1 are the centres of the outermost pixels."""
    edges: np.ndarray | None = None
    """(E, 2) int, pairs i < j of joints that a limb joins; None where the file does not say."""
    names: tuple[str, ...] = ()
    """(J,) names of the joints; empty where the file does not say."""
    scene: str = ""
    variant: str = ""
    """The one object of the scene, empty for all of them."""


def write_poses(path: str | os.PathLike[str], poses: Poses) -> None:
    """Writes poses, whole or not at all."""
    arrays: dict[str, Any] = {"scene": poses.scene, "variant": poses.variant, "keypoints": poses.keypoints}
    if poses.edges is not None:
        arrays["edges"] = poses.edges
    if poses.names:
        arrays["names"] = np.array(poses.names)
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read_poses(path: str | os.PathLike[str]) -> Poses:
    """Reads a file of poses; a pose with a joint that is nowhere is left out. Raises UserError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            keypoints = np.asarray(archive["keypoints"], np.float32)
            edges = np.asarray(archive["edges"]) if "edges" in archive else None
            names = tuple(map(str, archive["names"].tolist())) if "names" in archive else ()
            scene, variant = (str(archive[key]) if key in archive else "" for key in ("scene", "variant"))
    except Exception as error:  # whatever a parser stumbles over in a damaged file
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"prior {path} holds no poses ({words}): give an .npz with `keypoints` (P, J, 2), {PRIOR_REMEDY}"
        ) from None
    if keypoints.ndim == 3 and keypoints.shape[2] == 2:
        keypoints = keypoints[np.isfinite(keypoints).all(axis=(1, 2))]
    if keypoints.ndim != 3 or keypoints.shape[2] != 2 or not keypoints.size:
        raise UserError(
            f"prior {path} has `keypoints` of shape {keypoints.shape}: allowed is (P, J, 2) of finite poses"
        )
    if np.median(np.abs(keypoints)) > _FAR:
        raise UserError(
            f"prior {path} has keypoints up to {np.abs(keypoints).max():g}: give them normalised, -1 and 1 being the "
            "outermost pixels"
        )
    joints = keypoints.shape[1]
    if names and len(names) != joints:
        raise UserError(f"prior {path} has {len(names)} `names` for {joints} joints: give one for each, or none")
    return Poses(keypoints, None if edges is None else _checked(edges, joints, path), names, scene, variant)


def parents_of_tree(edges: np.ndarray, joints: int) -> tuple[int, ...]:
    """The joint above each of `joints` joints in the tree of edges (E, 2) whose root is joint 0. Raises UserError."""
    above = {0: -1}
    reached = [0]
    for joint in reached:  # grows as it goes
        neighbours = [int(other) for edge in edges if joint in edge for other in edge if other not in above]
        above |= dict.fromkeys(neighbours, joint)
        reached += neighbours
    if len(above) < joints or len(edges) != joints - 1:
        raise UserError(
            f"the prior has {len(edges)} edges, which join {len(above)} of its {joints} joints to the first: "
            "give edges that are one tree"
        )
    return tuple(above[joint] for joint in range(joints))


def _checked(edges: np.ndarray, joints: int, path: str | os.PathLike[str]) -> np.ndarray:
    """Edges (E, 2) of int64, the smaller joint first."""
    pairs = edges.reshape(-1, 2) if edges.size == 0 else edges
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(edges.dtype, np.integer):
        raise UserError(f"prior {path} has `edges` of shape {edges.shape}, {edges.dtype}: allowed are (E, 2) integers")
    if pairs.size and (pairs.min() < 0 or pairs.max() >= joints or (pairs[:, 0] == pairs[:, 1]).any()):
        raise UserError(f"prior {path} has `edges` that are no pairs of two different joints of 0 to {joints - 1}")
    return np.sort(pairs.astype(np.int64), axis=1)
