"""Unpaired poses of simulated objects, for methods that learn from such a prior; no picture has one of them.

Where the objects of a set differ in their joints, poses of all of them have one skeleton: the union of theirs, see
`training.simulation.trees`. For Spiders, Cartpoles and Swimmers that is the largest body's.
"""

from __future__ import annotations

import zlib
from contextlib import ExitStack

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.geometry import pixels_to_normalised
from training.prior import Poses
from training.simulation.articulated import FRAMES, Actor
from training.simulation.episodes import Settings, generator, variants
from training.simulation.tabletop import TABLE_CAMERA, Tabletop, TabletopConfig
from training.simulation.trees import Tree, numbered_by_place, unite

_POSE_FRAMES = 5
"""Every so many frames of an episode a pose is taken,"""
_TABLE_SECONDS = 0.5
"""and at the table after so long."""
_SIZE = (64, 64)


def sample_poses(scene: str, variant: str = "", count: int = 10_000, seed: int = 0) -> Poses:
    """Poses as they occur in the episodes of a set, but from episodes of their own.

    Without `variant` each episode draws one of the set's objects. Raises UserError for what is not there.
    """
    _check_count(count)
    settings = Settings(scene, "train", seed, _SIZE, variant)
    builders = variants(scene, "train", variant)
    with ExitStack() as stack:
        actors = [stack.enter_context(Actor(build(), _SIZE)) for build in builders.values()]
        trees = [Tree.of(actor.world.names, actor.world.adjacency) for actor in actors]
        union, stand_ins = unite(trees)
        sampled = []
        for number in range(-(-count // len(range(0, FRAMES, _POSE_FRAMES)))):
            rng = generator(settings, "poses", number)
            chosen = int(rng.integers(len(actors))) if len(actors) > 1 else 0
            pixels = actors[chosen].poses(rng)[::_POSE_FRAMES]
            world = actors[chosen].world
            numbered = numbered_by_place(actors[chosen].variant.name, world.names, world.adjacency, pixels)
            sampled.append(numbered[:, stand_ins[chosen]])
    keypoints = pixels_to_normalised(np.concatenate(sampled)[:count], _SIZE).astype(np.float32)
    return Poses(keypoints, union.edges, union.names, scene, variant)


def sample_table_poses(count: int = 10_000, seed: int = 0, size: tuple[int, int] = (640, 480)) -> Poses:
    """Poses of the table's arm as its table camera sees them in pictures of the proportions of `size` (width, height).

    The arm moves as in no recording, of this seed or another. Raises UserError for values that are not allowed.
    """
    _check_count(count)
    TabletopConfig(seed, size)  # raises for bad values
    small = _SIZE[0], round(_SIZE[0] * size[1] / size[0])
    with Tabletop(TabletopConfig(zlib.crc32(f"poses/{seed}".encode()), small)) as world:
        pixels = []
        for _ in range(count):
            world.act(_TABLE_SECONDS)
            pixels.append(world.project(TABLE_CAMERA)[0])
        edges = np.argwhere(np.triu(world.adjacency))
        keypoints = pixels_to_normalised(np.stack(pixels), small).astype(np.float32)
        return Poses(keypoints, edges, world.names, "tabletop")


def _check_count(count: int) -> None:
    if count < 1:
        raise UserError(f"{count} poses: give a number from 1")
