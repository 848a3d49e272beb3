"""Unpaired poses: skeletons of a simulated object without its pictures, for methods that learn from such a prior.

The file is an ordinary `.npz`: keypoints (N, J, 2) float32 normalised to [-1, 1], edges (E, 2) int, names (J,) and the
scene and variant they were drawn from.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.geometry import pixels_to_normalised
from training.simulation.articulated import FRAMES, Actor
from training.simulation.episodes import Settings, generator, variants

_POSE_FRAMES = 10
"""Every so many frames of an episode a pose is taken."""
_SIZE = (64, 64)


@dataclass(frozen=True)
class Poses:
    """Poses of one object."""

    scene: str
    variant: str
    keypoints: np.ndarray
    """(N, J, 2) float32, (x, y), normalised: -1 and 1 are the centres of the outermost pixels."""
    edges: np.ndarray
    """(E, 2) int, pairs i < j of joints that a limb joins."""
    names: tuple[str, ...]
    """(J,) names of the joints."""


def sample_poses(scene: str, variant: str = "", count: int = 10_000, seed: int = 0) -> Poses:
    """Poses as they occur in the episodes of a set, but from episodes of their own: no picture has one of them.

    `variant` may be empty where the set has one object only. Raises UserError for what is not there.
    """
    if count < 1:
        raise UserError(f"{count} poses: give a number from 1")
    builders = variants(scene, "train", variant)
    if len(builders) > 1:
        raise UserError(f"the objects of {scene} differ in their joints: choose one of {', '.join(builders)}")
    settings = Settings(scene, "train", seed, _SIZE, variant)
    ((name, build),) = builders.items()
    with Actor(build(), _SIZE) as actor:
        episodes = -(-count // len(range(0, FRAMES, _POSE_FRAMES)))
        poses = [actor.poses(generator(settings, "poses", n))[::_POSE_FRAMES] for n in range(episodes)]
        pixels = np.concatenate(poses)[:count]
        edges = np.argwhere(np.triu(actor.world.adjacency))
        return Poses(scene, name, pixels_to_normalised(pixels, _SIZE).astype(np.float32), edges, actor.world.names)


def write_poses(path: str | os.PathLike[str], poses: Poses) -> None:
    """Writes poses, whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            scene=poses.scene,
            variant=poses.variant,
            keypoints=poses.keypoints,
            edges=poses.edges,
            names=np.array(poses.names),
        )


def read_poses(path: str | os.PathLike[str]) -> Poses:
    """Reads what `write_poses` wrote. Raises UserError for anything else."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Poses(
                str(archive["scene"]),
                str(archive["variant"]),
                archive["keypoints"],
                archive["edges"],
                tuple(archive["names"].tolist()),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise UserError(f"{path} holds no poses ({error}); make some with simulate SCENE --poses N") from error
