"""Which body each pixel shows: another rendering than the depth that the simulator's own truth is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from training.simulation.scene import COLLISION_GROUP, World, mujoco


@contextmanager
def segmentation(world: World) -> Iterator[Callable[[str], np.ndarray]]:
    """What gives a camera's present (H, W) body ids, 0 for what is fixed to the world, -1 for nothing."""
    options = mujoco.MjvOption()
    options.geomgroup[COLLISION_GROUP] = 0

    def bodies_seen(camera: str) -> np.ndarray:
        renderer.update_scene(world.data, camera, options)
        ids, kinds = np.moveaxis(renderer.render(), -1, 0)
        is_geom = kinds == int(mujoco.mjtObj.mjOBJ_GEOM)
        return np.where(is_geom, world.model.geom_bodyid[np.where(is_geom, ids, 0)], -1)

    width, height = world.size
    with mujoco.Renderer(world.model, height, width) as renderer:
        renderer.enable_segmentation_rendering()
        yield bodies_seen
