"""A kitchen whose doors and drawers open and close by themselves: articulated things for manipulation.

A base cabinet with a door, two drawers, an oven, a microwave and a wall cabinet with two doors, seen by two cameras.
Every thing has its handle as a named node. A thing with a door has the middle of its hinge too, a drawer the upper
corners of its front; these are joined to the handle. Different things are not joined: the truth is a forest.
"""

from __future__ import annotations

import colorsys
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.simulation.furnish import add_camera, add_lights, add_walls, add_wood, finish
from training.simulation.recording import CameraStream, record
from training.simulation.scene import Node, World, check_setting, minimum_jerk, mujoco

FRONT_CAMERA, SIDE_CAMERA = "front", "side"
STREAMS = (CameraStream(FRONT_CAMERA, "/front", depth="png"), CameraStream(SIDE_CAMERA, "/side"))
"""What is recorded unless something else is asked for."""
_MOVE_SECONDS = (0.8, 2.0)
_REST_SECONDS = (0.0, 0.6)
_PANEL = 0.02
"""Thickness of boards, metres."""
_DEPTH_OF_NODES = 0.05
"""How far a thing's own surface may lie before its nodes, metres."""
_GRIP = 0.011
"""Radius of a handle's bar, metres."""


@dataclass(frozen=True)
class KitchenConfig:
    """What a recording of the kitchen looks like. The same config gives the same frames."""

    seed: int = 0
    """Of the motion."""
    size: tuple[int, int] = (640, 480)
    """(width, height) of both cameras in pixels."""
    randomise: bool = False
    """Draw colours, light and the front camera's pose from the seed too; otherwise every seed shares one kitchen."""

    def __post_init__(self) -> None:
        check_setting(self.seed, self.size)


class Kitchen(World):
    """The kitchen; `act` moves each door and drawer along smooth paths between random openings, with rests."""

    def __init__(self, config: KitchenConfig = KitchenConfig()) -> None:
        self._rng = np.random.default_rng(config.seed)
        builder = _Builder(config, self._rng)
        model = builder.model()
        super().__init__(model, builder.nodes(model), builder.edges, config.size, shadows=True)
        self._low, self._high = model.jnt_range.T
        self._from = self._to = self._rng.uniform(0, 0.6, model.njnt)
        self._elapsed, self._duration = np.zeros(model.njnt), np.full(model.njnt, 1e-9)
        self.act(0.0)

    def act(self, seconds: float) -> None:
        """Moves everything on by `seconds`. Nothing here touches anything, so motion is kinematic."""
        before = self.data.qpos.copy()
        self._elapsed += seconds
        for joint in np.flatnonzero(self._elapsed >= self._duration):
            self._next_move(joint)
        phase = [minimum_jerk(p) for p in self._elapsed / self._duration]
        opening = self._from + np.array(phase) * (self._to - self._from)
        self.data.qpos[:] = self._low + opening * (self._high - self._low)
        self.data.qvel[:] = (self.data.qpos - before) / seconds if seconds > 0 else 0.0
        self.refresh()

    def _next_move(self, joint: int) -> None:
        self._from, self._to = self._from.copy(), self._to.copy()
        self._from[joint] = self._to[joint]
        self._to[joint] = self._rng.choice([0.0, 1.0, self._rng.uniform()], p=[0.2, 0.2, 0.6])
        self._elapsed[joint] = -self._rng.uniform(*_REST_SECONDS)
        self._duration[joint] = self._rng.uniform(*_MOVE_SECONDS)


def simulate_kitchen(
    out: str | os.PathLike[str],
    config: KitchenConfig,
    *,
    seconds: float,
    rate: float = 10.0,
    streams: Sequence[CameraStream] = STREAMS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes a bag folder `out` of one kitchen and returns its number of ticks; see `record`."""
    with Kitchen(config) as world:
        return record(out, world, world.act, streams, seconds=seconds, rate=rate, progress=progress)


class _Builder:
    """Puts the kitchen together. Boxes are given by their corners in metres: x right, y away from the camera, z up."""

    def __init__(self, config: KitchenConfig, rng: np.random.Generator) -> None:
        self._config, self._rng = config, rng
        self._spec = mujoco.MjSpec()
        self._spec.compiler.degree = False
        self._points: list[tuple[str, str, np.ndarray]] = []
        self.edges: list[tuple[int, int]] = []

    def model(self) -> Any:
        self._room()
        self._carcasses()
        self._door("cabinet", hinge=(-0.9, 0.1), reach=0.55, z=(0.12, 0.86), colour=(0.62, 0.74, 0.66))
        self._drawer("top_drawer", x=(-0.33, 0.27), z=(0.64, 0.86), colour=(0.87, 0.72, 0.42))
        self._drawer("bottom_drawer", x=(-0.33, 0.27), z=(0.12, 0.6), colour=(0.80, 0.50, 0.42))
        self._oven(x=(0.31, 0.9), z=(0.18, 0.78), colour=(0.25, 0.26, 0.29))
        self._door("microwave", hinge=(-0.84, 0.15), reach=0.4, z=(0.93, 1.2), colour=(0.20, 0.22, 0.26))
        self._door("left_wall_cabinet", hinge=(-0.2, 0.3), reach=0.53, z=(1.42, 1.95), colour=(0.45, 0.58, 0.75))
        self._door("right_wall_cabinet", hinge=(0.9, 0.3), reach=-0.53, z=(1.42, 1.95), colour=(0.72, 0.52, 0.68))
        at, target = np.array([-0.15, -2.75, 1.75]), np.array([-0.02, 0.0, 0.99])
        if self._config.randomise:
            at, target = at + self._rng.uniform(-0.2, 0.2, 3), target + self._rng.uniform(-0.05, 0.05, 3)
        add_camera(self._spec, FRONT_CAMERA, at, target, vertical_degrees=42)
        add_camera(self._spec, SIDE_CAMERA, np.array([1.5, -2.5, 1.9]), target, vertical_degrees=45)
        detailed = min(self._config.size) > 200
        return finish(self._spec, shadow_size=2048 if detailed else 512, shadow_radius=2.0)

    def nodes(self, model: Any) -> list[Node]:
        """The named points, in the order that `edges` counts them."""
        return [Node(name, model.body(body).id, tuple(at), _DEPTH_OF_NODES) for name, body, at in self._points]

    # -------------------------------------------------------------------------------------------------------- parts

    def _room(self) -> None:
        wall, floor, counter = np.array([0.88, 0.86, 0.82]), (0.50, 0.46, 0.42), np.array([0.62, 0.46, 0.32])
        key, fill, at = 0.45, 0.35, np.array([0.9, -2.6, 2.9])
        if self._config.randomise:
            wall, counter = self._rng.uniform(0.5, 0.85, 3), self._rng.uniform(0.25, 0.8, 3)
            key, at = self._rng.uniform(0.35, 0.6), at + self._rng.uniform(-0.6, 0.6, 3)
        add_lights(self._spec, at, (0.0, 0.2, 1.0), key=key, fill=fill, side=(-0.6, -1.0, 0.6))
        add_wood(self._spec, "counter", counter)
        world, plane = self._spec.worldbody, mujoco.mjtGeom.mjGEOM_PLANE
        world.add_geom(type=plane, size=[5, 5, 0.1], pos=[0, 0, 0], rgba=[*floor, 1])
        walls = [((0, 0.66, 0), (0, -1, 0)), ((-3, 0, 0), (1, 0, 0)), ((3, 0, 0), (-1, 0, 0))]
        add_walls(self._spec, walls, wall)

    def _carcasses(self) -> None:
        self._box(self._spec.worldbody, (-0.95, 0.06, 0.88), (0.95, 0.65, 0.92), (1, 1, 1), material="counter")
        self._box(self._spec.worldbody, (-0.92, 0.16, 0.0), (0.92, 0.65, 0.1), (0.2, 0.2, 0.2))  # plinth
        white, steel = (0.83, 0.82, 0.80), (0.60, 0.62, 0.65)
        self._shell((-0.92, 0.12, 0.1), (-0.34, 0.65, 0.88), white)
        self._shell((-0.34, 0.12, 0.1), (0.28, 0.65, 0.88), white)
        self._shell((0.30, 0.12, 0.1), (0.92, 0.65, 0.88), (0.35, 0.36, 0.38))
        self._shell((-0.86, 0.17, 0.92), (-0.3, 0.55, 1.22), steel)
        self._box(self._spec.worldbody, (-0.43, 0.15, 0.93), (-0.31, 0.17, 1.21), (0.28, 0.29, 0.32))  # its controls
        for z in (1.02, 1.13):
            self._box(self._spec.worldbody, (-0.39, 0.135, z - 0.02), (-0.35, 0.15, z + 0.02), (0.85, 0.86, 0.88))
        self._shell((-0.22, 0.32, 1.4), (0.92, 0.65, 1.97), white)

    def _door(
        self, name: str, *, hinge: tuple[float, float], reach: float, z: tuple[float, float], colour: Sequence[float]
    ) -> None:
        """A door with an upright hinge at (x, y); `reach` metres wide, to the right or (negative) to the left."""
        middle = (z[0] + z[1]) / 2
        body = self._spec.worldbody.add_body(name=name, pos=[*hinge, middle])
        body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, -np.sign(reach)], range=[0, 1.75])
        half = (z[1] - z[0]) / 2
        x0, x1 = sorted((0.0, reach))
        self._box(body, (x0, -_PANEL, -half), (x1, 0, half), self._colour(colour))
        grip = np.array([reach - 0.05 * np.sign(reach), -0.055, 0.0])
        self._handle(body, grip, (0, 0, 1), min(0.22, 1.2 * half))
        self._link(name, [("hinge", np.zeros(3)), ("handle", grip)], [(0, 1)])

    def _drawer(self, name: str, *, x: tuple[float, float], z: tuple[float, float], colour: Sequence[float]) -> None:
        centre = np.array([(x[0] + x[1]) / 2, 0.12, (z[0] + z[1]) / 2])
        w, h, depth = (x[1] - x[0]) / 2, (z[1] - z[0]) / 2, 0.45
        body = self._spec.worldbody.add_body(name=name, pos=centre)
        body.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, -1, 0], range=[0, 0.38])
        self._box(body, (-w, -_PANEL, -h), (w, 0, h), self._colour(colour))
        inside, top = (0.78, 0.70, 0.58), 0.4 * h
        self._box(body, (-w + 0.02, 0, -h + 0.02), (w - 0.02, depth, -h + 0.03), inside)
        for side in (-w + 0.02, w - 0.03):
            self._box(body, (side, 0, -h + 0.02), (side + 0.01, depth, top), inside)
        self._box(body, (-w + 0.02, depth, -h + 0.02), (w - 0.02, depth + 0.01, top), inside)
        grip = np.array([0.0, -0.055, 0.0])
        self._handle(body, grip, (1, 0, 0), 0.24)
        corners = [("left_corner", np.array([-w, -_PANEL, h])), ("right_corner", np.array([w, -_PANEL, h]))]
        self._link(name, [("handle", grip), *corners], [(0, 1), (0, 2)])

    def _oven(self, *, x: tuple[float, float], z: tuple[float, float], colour: Sequence[float]) -> None:
        """A door with its hinge below, that falls open towards the camera."""
        body = self._spec.worldbody.add_body(name="oven", pos=[(x[0] + x[1]) / 2, 0.1, z[0]])
        body.add_joint(name="oven", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[1, 0, 0], range=[0, 1.4])
        w, height = (x[1] - x[0]) / 2, z[1] - z[0]
        self._box(body, (-w, -_PANEL, 0), (w, 0, height), self._colour(colour))
        self._box(body, (-0.7 * w, -_PANEL - 0.002, 0.2 * height), (0.7 * w, 0.002, 0.7 * height), (0.55, 0.60, 0.62))
        grip = np.array([0.0, -0.055, 0.88 * height])
        self._handle(body, grip, (1, 0, 0), 0.4)
        self._link("oven", [("hinge", np.zeros(3)), ("handle", grip)], [(0, 1)])

    # ------------------------------------------------------------------------------------------------------- pieces

    def _box(
        self, body: Any, low: Sequence[float], high: Sequence[float], colour: Sequence[float], material: str = ""
    ) -> None:
        corners = np.array([low, high])
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(corners[1] - corners[0]) / 2,
            pos=corners.mean(axis=0),
            rgba=[*colour, 1],
            material=material,
            contype=0,
            conaffinity=0,
        )

    def _shell(self, low: Sequence[float], high: Sequence[float], colour: Sequence[float]) -> None:
        """A box without its front."""
        (x0, y0, z0), (x1, y1, z1), world, t = low, high, self._spec.worldbody, _PANEL
        self._box(world, (x0, y0, z0), (x0 + t, y1, z1), colour)
        self._box(world, (x1 - t, y0, z0), (x1, y1, z1), colour)
        self._box(world, (x0, y0, z0), (x1, y1, z0 + t), colour)
        self._box(world, (x0, y0, z1 - t), (x1, y1, z1), colour)
        self._box(world, (x0, y1 - t, z0), (x1, y1, z1), colour)

    def _handle(self, body: Any, centre: np.ndarray, along: Sequence[float], length: float) -> None:
        """A bar parallel to the front at y = -_PANEL, on two posts."""
        steel, reach = (0.85, 0.86, 0.88), np.array(along) * length / 2
        kind = dict(type=mujoco.mjtGeom.mjGEOM_CAPSULE, rgba=[*steel, 1], contype=0, conaffinity=0)
        body.add_geom(fromto=[*(centre - reach), *(centre + reach)], size=[_GRIP, 0, 0], **kind)
        for end in (centre - 0.8 * reach, centre + 0.8 * reach):
            body.add_geom(fromto=[*end, end[0], -_PANEL, end[2]], size=[0.7 * _GRIP, 0, 0], **kind)

    def _colour(self, colour: Sequence[float]) -> Sequence[float]:
        if not self._config.randomise:
            return colour
        return colorsys.hsv_to_rgb(*self._rng.uniform([0, 0.2, 0.3], [1, 0.8, 0.9]))

    def _link(self, body: str, points: Sequence[tuple[str, np.ndarray]], edges: Sequence[tuple[int, int]]) -> None:
        first = len(self._points)
        self._points += [(f"{body}_{name}", body, at) for name, at in points]
        self.edges += [(first + i, first + j) for i, j in edges]
