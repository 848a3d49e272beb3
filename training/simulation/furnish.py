"""What rooms are made of: walls, lights, wood and cameras for a `mujoco.MjSpec`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from training.simulation.scene import mujoco

Vector = Sequence[float] | np.ndarray


def add_walls(spec: Any, walls: Iterable[tuple[Vector, Vector]], colour: Vector) -> None:
    """Upright planes; each is a point of it, metres, and the direction it faces."""
    for position, facing in walls:
        quaternion = np.zeros(4)
        mujoco.mju_quatZ2Vec(quaternion, np.asarray(facing, dtype=float))
        plane = mujoco.mjtGeom.mjGEOM_PLANE
        spec.worldbody.add_geom(type=plane, size=[3, 3, 0.1], pos=position, quat=quaternion, rgba=[*colour, 1])


def add_lights(spec: Any, at: np.ndarray, target: Vector, *, key: float, fill: float, side: Vector) -> None:
    """A lamp `at` that casts shadows, with strength `key` in 0..1, ambient light `fill`, and a weak lamp from `side`.

    Together they stay below 1 at most places, where colours would saturate.
    """
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse, headlight.specular = [fill] * 3, [0.5 * fill] * 3, [0.05] * 3
    kind = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    spec.worldbody.add_light(pos=at, dir=np.asarray(target) - at, type=kind, diffuse=[key] * 3, specular=[0.3] * 3)
    spec.worldbody.add_light(
        pos=[1.2, 0.9, 1.5], dir=np.negative(side), type=kind, diffuse=[0.18] * 3, castshadow=False
    )


def add_camera(spec: Any, name: str, at: np.ndarray, target: np.ndarray, vertical_degrees: float) -> None:
    """A fixed camera `at` a place, metres, that looks at `target` with the horizon level."""
    forward = (target - at) / np.linalg.norm(target - at)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(right, forward), -forward], axis=1).ravel())
    spec.worldbody.add_camera(name=name, fovy=vertical_degrees, pos=at, quat=quaternion)


def add_wood(spec: Any, name: str, colour: np.ndarray) -> None:
    """A material `name` that looks like a board of `colour` (3,) in 0..1."""
    rng = np.random.default_rng(7)
    v, u = np.mgrid[0:256, 0:256] / 256
    bend = [0.15 * np.sin(2 * np.pi * (v + k / (2 * np.pi))) for k in (3, 7, 13, 29)]
    grain = sum(
        np.sin(2 * np.pi * (k * u + rng.uniform() + bent)) / k for k, bent in zip((3, 7, 13, 29), bend, strict=True)
    )
    picture = (255 * np.clip(colour * (1 + 0.05 * np.asarray(grain)[..., None]), 0, 1)).astype(np.uint8)
    spec.add_texture(
        name=name,
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        width=256,
        height=256,
        nchannel=3,
        data=picture.ravel().tolist(),
    )
    material = spec.add_material(name=name, specular=0.15, shininess=0.3)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name


def finish(spec: Any, *, shadow_size: int, shadow_radius: float) -> Any:
    """Compiles; the shadow map of `shadow_size` pixels covers `shadow_radius` metres and no more."""
    model = spec.compile()
    model.vis.quality.shadowsize = shadow_size
    model.vis.map.shadowclip = shadow_radius / model.stat.extent
    model.vis.map.znear = 0.01 / model.stat.extent
    model.vis.map.zfar = 8 / model.stat.extent
    return model
