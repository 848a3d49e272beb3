"""A robot arm that moves about a table and pushes things, seen by a table camera and a wrist camera.

The arm is Trossen's WidowX AI (six joints and a gripper) from the PyPI package `trossen-arm-sim`. It is the counterpart
of the Bot-and-Objects recordings of Keypoint Pyramids: one arm, several loose objects, two RGB-D cameras.
"""

from __future__ import annotations

import colorsys
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_perception.errors import UserError
from training.simulation.furnish import add_camera, add_lights, add_walls, add_wood, finish
from training.simulation.recording import CameraStream, record
from training.simulation.scene import COLLISION_GROUP, Node, World, check_setting, minimum_jerk, mujoco

TABLE_CAMERA, WRIST_CAMERA = "table", "wrist"
ARM_JOINTS = tuple(f"joint_{index}" for index in range(6))
GRIPPER_JOINTS = ("left_carriage_joint", "right_carriage_joint")
EDGES = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (5, 7))
"""The chain of the arm, which ends in two fingers."""
_LINK_RADII = (0.06, 0.06, 0.08, 0.065, 0.065, 0.065)
"""How deep the arm's joints lie below its own surface, metres."""
_FINGER_TIPS = {"carriage_left": (0.065, -0.018, 0.0), "carriage_right": (0.065, 0.018, 0.0)}
_GRIPPER_OPEN = 0.044

# Postures are drawn from these ranges (radians) and kept if the gripper ends up over the table, in this box (metres).
_POSTURE_LOW = np.array([-0.95, 0.4, 0.3, -1.3, -0.7, -1.3])
_POSTURE_HIGH = np.array([0.95, 2.3, 2.1, 1.1, 0.7, 1.3])
_HOME = np.array([0.0, 1.2, 1.0, -0.3, 0.0, 0.0])
_REACH_LOW, _REACH_HIGH = np.array([0.16, -0.32, 0.025]), np.array([0.56, 0.32, 0.44])
_LOW_ABOVE_TABLE = 0.1
"""A gripper below this height, metres, meets the objects."""
_LOW_SHARE = 0.6
"""So many of the postures bring it there,"""
_PUSH_SHARE = 0.5
"""and so many of those to an object."""
_MOVE_SECONDS = (0.7, 1.5)
_BORDER = 0.04
"""Share of the picture at each side that the arm's joints keep out of."""

_LINK_COLOURS = {
    "base_link": (0.16, 0.17, 0.19),
    "link_1": (0.95, 0.45, 0.08),
    "link_2": (0.86, 0.87, 0.88),
    "link_3": (0.13, 0.36, 0.62),
    "link_4": (0.95, 0.45, 0.08),
    "link_5": (0.86, 0.87, 0.88),
    "link_6": (0.20, 0.21, 0.24),
    "carriage_left": (0.80, 0.12, 0.14),
    "carriage_right": (0.10, 0.55, 0.35),
}
_SHAPES = ("mjGEOM_BOX", "mjGEOM_CYLINDER", "mjGEOM_ELLIPSOID", "mjGEOM_CAPSULE")
_WALLS = (
    ((-1.2, 0, 0), (1, 0, 0)),
    ((2.2, 0, 0), (-1, 0, 0)),
    ((0, 1.4, 0), (0, -1, 0)),
    ((0, -1.8, 0), (0, 1, 0)),
)
_FENCE = (
    ("near", (0.64, 0, 0.1), (0.01, 0.45, 0.1)),
    ("left", (0.35, 0.42, 0.1), (0.3, 0.01, 0.1)),
    ("right", (0.35, -0.42, 0.1), (0.3, 0.01, 0.1)),
)
"""Unseen boxes, position and half size, that keep the objects where the camera sees them."""


@dataclass(frozen=True)
class TabletopConfig:
    """What a recording at the table looks like. The same config gives the same frames."""

    seed: int = 0
    """Of the motion and of the objects."""
    size: tuple[int, int] = (640, 480)
    """(width, height) of both cameras in pixels."""
    objects: int = 4
    """How many loose objects lie on the table, 0 to 8."""
    randomise: bool = False
    """Draw colours, light and the table camera's pose from the seed too; otherwise every seed shares one laboratory."""

    def __post_init__(self) -> None:
        if not 0 <= self.objects <= 8:
            raise UserError(f"{self.objects} objects on the table: allowed are 0 to 8")
        check_setting(self.seed, self.size)


class Tabletop(World):
    """The table, and the arm that never rests: `act` moves it along smooth paths between random safe postures."""

    def __init__(self, config: TabletopConfig = TabletopConfig()) -> None:
        self._rng = np.random.default_rng(config.seed)
        model = _Builder(config, self._rng).model()
        super().__init__(model, _nodes(model), EDGES, config.size, shadows=True)
        self._qpos = [model.jnt_qposadr[model.joint(name).id] for name in ARM_JOINTS]
        self._objects = [model.body(f"object_{index}").id for index in range(config.objects)]
        self._ghost = mujoco.MjData(model)
        self._ghost.qpos[[model.jnt_qposadr[model.joint(name).id] for name in GRIPPER_JOINTS]] = _GRIPPER_OPEN
        self._first_object = max(model.body(name).id for name in _FINGER_TIPS) + 1
        self._settle()
        self._from = self._to = np.r_[_HOME, 0.5 * _GRIPPER_OPEN]
        self._elapsed = self._duration = 0.0

    def act(self, seconds: float) -> None:
        """Moves the arm on by `seconds`; the physics follows, objects included."""
        remaining = self.steps(seconds)
        tick = 10
        while remaining > 0:
            if self._elapsed >= self._duration:
                self._next_move()
            steps = min(tick, remaining)
            remaining -= steps
            self._elapsed += steps * self.model.opt.timestep
            blend = minimum_jerk(self._elapsed / self._duration)
            self.data.ctrl[:] = self._from + blend * (self._to - self._from)
            mujoco.mj_step(self.model, self.data, steps)
        self.refresh()

    def _settle(self) -> None:
        self.data.qpos[self._qpos] = _HOME
        self.data.ctrl[:6] = _HOME
        self.advance(0.8)

    def _next_move(self) -> None:
        self._from, self._elapsed = self._to, 0.0
        for _ in range(200):
            posture = self._posture()
            if self._is_safe(np.linspace(self._from[:6], posture, 8)[1:]):
                break
        else:
            posture = _HOME
        opening = _GRIPPER_OPEN * self._rng.uniform() if self._rng.uniform() < 0.7 else self._from[6]
        self._to = np.r_[posture, opening]
        distance = np.abs(self._to[:6] - self._from[:6]).max()
        self._duration = self._rng.uniform(*_MOVE_SECONDS) * (0.6 + 0.5 * distance)

    def _posture(self) -> np.ndarray:
        """Joint angles that bring the gripper into its box: to an object, elsewhere low above the table, or up."""
        low = self._rng.uniform() < _LOW_SHARE
        target = None
        if low and self._objects and self._rng.uniform() < _PUSH_SHARE:
            target = self.data.xpos[self._rng.choice(self._objects), :2]
        for _ in range(1500):
            posture = self._rng.uniform(_POSTURE_LOW, _POSTURE_HIGH)
            tip = self._pose(posture).site("ee_site").xpos
            within = (tip > _REACH_LOW).all() and (tip < _REACH_HIGH).all() and (tip[2] < _LOW_ABOVE_TABLE) == low
            if within and (target is None or np.linalg.norm(tip[:2] - target) < 0.06):
                return posture
        return _HOME

    def _is_safe(self, path: np.ndarray) -> bool:
        """Whether the arm, on `path`, meets neither the table nor itself and stays in the table camera's picture."""
        return all(self._is_free(posed) and self._is_seen(posed) for posed in map(self._pose, path))

    def _is_free(self, posed: Any) -> bool:
        mujoco.mj_collision(self.model, posed)
        bodies = self.model.geom_bodyid[posed.contact.geom]
        return not (bodies < self._first_object).all(axis=1).any()

    def _is_seen(self, posed: Any) -> bool:
        view = self.camera(TABLE_CAMERA)
        pixels = view.intrinsics.project(view.to_optical(self.positions(posed))) / self.size
        return bool(((pixels > _BORDER) & (pixels < 1 - _BORDER)).all())

    def _pose(self, posture: np.ndarray) -> Any:
        """The arm in a posture, without physics."""
        self._ghost.qpos[self._qpos] = posture
        mujoco.mj_kinematics(self.model, self._ghost)
        return self._ghost


STREAMS = (
    CameraStream(TABLE_CAMERA, "/table", depth="png", depth_every=3, jpeg_quality=88),
    CameraStream(WRIST_CAMERA, "/wrist", jpeg_quality=80),
)
"""What is recorded unless something else is asked for."""


def simulate_tabletop(
    out: str | os.PathLike[str],
    config: TabletopConfig,
    *,
    seconds: float,
    rate: float = 10.0,
    streams: Sequence[CameraStream] = STREAMS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes a bag folder `out` of one table and returns its number of ticks; see `record`."""
    with Tabletop(config) as world:
        return record(out, world, world.act, streams, seconds=seconds, rate=rate, progress=progress)


def _nodes(model: Any) -> list[Node]:
    joints = [
        Node(name, int(model.joint(name).bodyid[0]), (0.0, 0.0, 0.0), radius)
        for name, radius in zip(ARM_JOINTS, _LINK_RADII, strict=True)
    ]
    tips = [Node(f"{name}_tip", model.body(name).id, at, 0.02) for name, at in _FINGER_TIPS.items()]
    return joints + tips


class _Builder:
    """Puts the arm, the table, things, lights and cameras together."""

    def __init__(self, config: TabletopConfig, rng: np.random.Generator) -> None:
        self._config, self._rng = config, rng
        self._places: list[np.ndarray] = []
        assets = _arm_assets()
        self._spec = mujoco.MjSpec.from_file(str(assets / "wxai_follower.xml"))
        self._spec.meshdir = str(assets)

    def model(self) -> Any:
        self._light()
        self._room()
        for index in range(self._config.objects):
            self._object(index)
        self._cameras()
        self._paint_arm()
        for site in self._spec.sites:
            site.group = COLLISION_GROUP  # frames of the arm, drawn as dots otherwise
        detailed = min(self._config.size) > 200
        return finish(self._spec, shadow_size=2048 if detailed else 512, shadow_radius=0.75)

    def _light(self) -> None:
        key, fill, at = 0.55, 0.3, np.array([0.5, -0.7, 1.8])
        if self._config.randomise:
            key, fill = self._rng.uniform(0.4, 0.65), self._rng.uniform(0.2, 0.4)
            at = self._rng.uniform([0.1, -1.0, 1.4], [0.9, 0.4, 2.2])
        add_lights(self._spec, at, (0.25, 0.0, 0.1), key=key, fill=fill, side=(0.8, 0.7, 1.0))

    def _room(self) -> None:
        table, wall, floor = (0.72, 0.56, 0.40), (0.90, 0.92, 0.94), (0.36, 0.37, 0.40)
        if self._config.randomise:
            table, wall, floor = (tuple(self._rng.uniform(0.3, 0.85, 3)) for _ in range(3))
        add_wood(self._spec, "table", np.array(table))
        world, geom = self._spec.worldbody, mujoco.mjtGeom
        box = dict(type=geom.mjGEOM_BOX)
        world.add_geom(name="table", size=[0.45, 0.55, 0.02], pos=[0.25, 0, -0.02], material="table", **box)
        world.add_geom(name="floor", type=geom.mjGEOM_PLANE, size=[4, 4, 0.1], pos=[0, 0, -0.75], rgba=[*floor, 1])
        add_walls(self._spec, _WALLS, wall)
        for name, at, half in _FENCE:
            world.add_geom(name=f"fence_{name}", size=half, pos=at, group=COLLISION_GROUP, **box)

    def _object(self, index: int) -> None:
        body = self._spec.worldbody.add_body(name=f"object_{index}", pos=[*self._free_place(), 0.04])
        body.add_freejoint(name=f"object_{index}")
        hue = (index * 0.29 + 0.13 + self._rng.uniform(-0.04, 0.04)) % 1
        colour = colorsys.hsv_to_rgb(hue, self._rng.uniform(0.6, 0.9), self._rng.uniform(0.6, 0.9))
        if self._config.randomise:
            colour = colorsys.hsv_to_rgb(*self._rng.uniform([0, 0.3, 0.4], [1, 1, 1]))
        body.add_geom(
            type=getattr(mujoco.mjtGeom, _SHAPES[index % 4]),
            size=self._rng.uniform(0.02, 0.034, 3),
            rgba=[*colour, 1],
            mass=0.05,
            condim=6,
            friction=[0.9, 0.01, 0.004],
        )

    def _free_place(self) -> np.ndarray:
        """Where on the table no object lies yet, (x, y) metres."""
        while True:
            angle, distance = self._rng.uniform([-0.9, 0.26], [0.9, 0.52])
            place = distance * np.array([np.cos(angle), np.sin(angle)])
            if all(np.linalg.norm(place - other) > 0.085 for other in self._places):
                self._places.append(place)
                return place

    def _cameras(self) -> None:
        at, target = np.array([0.98, -0.62, 0.62]), np.array([0.2, 0.0, 0.15])
        if self._config.randomise:
            at, target = at + self._rng.uniform(-0.08, 0.08, 3), target + self._rng.uniform(-0.03, 0.03, 3)
        add_camera(self._spec, TABLE_CAMERA, at, target, vertical_degrees=36)
        wrist = self._spec.camera("cam")
        wrist.name, wrist.fovy = WRIST_CAMERA, 58
        wrist.pos = [0.066, 0.009, 0.0565]  # in front of the camera's housing, which would hide everything

    def _paint_arm(self) -> None:
        material = self._spec.add_material(name="painted", specular=0.35, shininess=0.5)
        for body in self._spec.bodies:
            colour = _LINK_COLOURS.get(body.name)
            if colour is None:
                continue
            if self._config.randomise:
                colour = colorsys.hsv_to_rgb(*self._rng.uniform([0, 0, 0.2], [1, 0.7, 0.85]))
            for geom in body.geoms:
                if geom.group != COLLISION_GROUP and geom.classname.name == "visual":
                    geom.material = material.name
                    geom.rgba = [*colour, 1]


def _arm_assets() -> Path:
    found = importlib.util.find_spec("trossen_arm_sim")
    if found is None or found.origin is None:
        raise UserError("the table's robot arm is not installed: pip install -r requirements/training.txt")
    return Path(found.origin).parent / "assets"
