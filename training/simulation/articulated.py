"""Articulated objects that move at random: what the five sets of simulated videos have in common.

After the paper that learns skeletons from pairs of images, section IX: an episode draws an object, its pose, its
colours and its size, films 90 frames and takes a random action every 5. A set is a module that writes its objects down
as `Variant`s. An `Actor` builds one of them once and plays any number of episodes with it: colours and sizes are
changed in the compiled model, which costs nothing.
"""

from __future__ import annotations

import colorsys
import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from keypoint_perception.geometry import rescale_pixels
from training.simulation.episode import Episode
from training.simulation.recording import CameraStream, record
from training.simulation.scene import Node, World, mujoco

FRAMES = 90
"""Frames of an episode."""
ACTION_FRAMES = 5
"""Frames from one random action to the next."""
SUPERSAMPLING = 2
"""Pictures are rendered this many times larger and averaged down: with a software renderer faster than multisampling,
it smooths the floor's texture too, and the depth it brings along tells how much of a pixel the object covers."""
CAMERA = "camera"
STREAMS = (CameraStream(CAMERA, "/camera", colour="rgb8", depth="32FC1"),)
"""What a bag of an episode holds."""
_SITE_GROUP = 4
"""A group that MuJoCo does not draw."""
_ZOOM = (0.82, 1.0)
"""The object's size in the picture, 1 is as large as the variant's camera shows it."""
_THICKNESS = (0.85, 1.25)
"""How thick limbs are drawn, 1 is as the variant has them. Their mass does not change."""

Start = Callable[[Any, Any, np.random.Generator], None]
"""Draws a pose: sets qpos and qvel of (MjModel, MjData), with randomness from the generator."""


@dataclass(frozen=True)
class Variant:
    """One object of a set.

    Every site of the MJCF is a joint to be found: the anchor of a hinge, the end of a limb, the root. A site's size is
    how far the limb's own surface lies before it. The camera is named "camera" and sees all of the object in
    nearly all poses.
    """

    name: str
    mjcf: str
    edges: tuple[tuple[str, str], ...]
    """Names of the sites that a limb joins."""
    period: float
    """Seconds from frame to frame."""
    start: Start
    limb_colours: bool = False
    """Each limb has a colour of its own; otherwise all limbs are shades of one."""


class Actor:
    """Plays episodes of one variant. Use it as a context manager, or call `close`.

    `size` is (width, height) of the pictures in pixels. Raises UserError where there is no headless rendering.
    """

    def __init__(self, variant: Variant, size: tuple[int, int], supersampling: int = SUPERSAMPLING) -> None:
        self.variant = variant
        self.size = size
        model = mujoco.MjModel.from_xml_string(variant.mjcf)
        nodes = [
            Node(model.site(i).name, int(model.site_bodyid[i]), tuple(model.site_pos[i]), float(model.site_size[i, 0]))
            for i in range(model.nsite)
        ]
        index = {node.name: i for i, node in enumerate(nodes)}
        width, height = size
        self._limbs = np.flatnonzero((model.geom_bodyid > 0) & (model.geom_rgba[:, 3] > 0))
        self._thickness = model.geom_size[self._limbs, 0].copy()
        # A field of view is vertical: a picture that is narrower than high must still show all of the width.
        self._half_view = np.tan(np.deg2rad(model.camera(CAMERA).fovy.item()) / 2) * max(1.0, height / width)
        low, high = model.actuator_ctrlrange.T
        self._low, self._high = low.copy(), high.copy()
        self.world = World(
            model,
            nodes,
            [(index[a], index[b]) for a, b in variant.edges],
            (width * supersampling, height * supersampling),
            antialiasing=0 if supersampling > 1 else 4,
        )
        self._camera_moves = self.world.is_moving(CAMERA)

    def __enter__(self) -> Actor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the rendering context."""
        self.world.close()

    def episode(self, scene: str, seed: int, rng: np.random.Generator, frames: int = FRAMES) -> Episode:
        """An episode that depends on `rng` alone; `scene` and `seed` are written into it."""
        width, height = self.size
        joints = len(self.world.nodes)
        pictures = np.empty((frames, height, width, 3), np.uint8)
        mask = np.empty((frames, height, width), bool)
        visible = np.empty((frames, joints), bool)
        keypoints = np.empty((frames, joints, 2), np.float32)
        points = np.empty((frames, joints, 3), np.float32)
        self._begin(rng)
        self._colour(rng)
        backdrop = self.world.backdrop(CAMERA)
        # As far as the camera stays at its distance, where it follows the object.
        background = np.where(np.isnan(backdrop.depth), np.inf, backdrop.depth)
        for t in range(frames):
            self._move(t, rng)
            colour, depth = self.world.render_with_depth(CAMERA, None if self._camera_moves else backdrop)
            pictures[t] = cv2.resize(colour, self.size, interpolation=cv2.INTER_AREA)
            mask[t] = self._covered(depth < 0.999 * background)
            pixels, points[t] = self.world.project(CAMERA)
            visible[t] = self.world.visible(CAMERA, depth, (pixels, points[t]))
            keypoints[t] = rescale_pixels(pixels, self.world.size, self.size)
        return Episode(
            scene=scene,
            variant=self.variant.name,
            seed=seed,
            fps=1 / self.variant.period,
            frames=pictures,
            keypoints=keypoints,
            keypoints_3d=points,
            visible=visible,
            mask=mask,
            adjacency=self.world.adjacency,
            names=self.world.names,
        )

    def record(self, path: str | os.PathLike[str], rng: np.random.Generator, frames: int = FRAMES) -> None:
        """The episode that `rng` gives as a bag folder, in the world's own size; see `recording.record`."""
        numbers = itertools.count(1)
        self._begin(rng)
        self._colour(rng)
        self._move(0, rng)
        record(
            path,
            self.world,
            lambda seconds: self._move(next(numbers), rng),
            STREAMS,
            seconds=frames * self.variant.period,
            rate=1 / self.variant.period,
        )

    def poses(self, rng: np.random.Generator, frames: int = FRAMES) -> np.ndarray:
        """The joints of an episode that is not filmed: (T, J, 2) float32 pixels."""
        self._begin(rng)
        poses = []
        for t in range(frames):
            self._move(t, rng)
            poses.append(self.world.project(CAMERA)[0])
        return rescale_pixels(np.stack(poses), self.world.size, self.size)

    def _begin(self, rng: np.random.Generator) -> None:
        """A size and a pose."""
        model = self.world.model
        half_view = self._half_view / rng.uniform(*_ZOOM)
        model.camera(CAMERA).fovy = np.rad2deg(2 * np.arctan(half_view))
        model.geom_size[self._limbs, 0] = self._thickness * rng.uniform(*_THICKNESS)
        self.world.reset()
        self.variant.start(model, self.world.data, rng)
        self.world.refresh()

    def _move(self, frame: int, rng: np.random.Generator) -> None:
        """To the next frame, with a new random action where it is time for one."""
        if frame % ACTION_FRAMES == 0:
            self.world.data.ctrl[:] = rng.uniform(self._low, self._high)
        self.world.advance(self.variant.period)

    def _covered(self, fine: np.ndarray) -> np.ndarray:
        """Which pixels have at least half of their samples set."""
        return cv2.resize(fine.view(np.uint8) * np.uint8(100), self.size, interpolation=cv2.INTER_AREA) >= 50

    def _colour(self, rng: np.random.Generator) -> None:
        """New colours for the limbs, bright enough to stand out from the floor."""
        base = rng.uniform()
        for limb in self._limbs:
            hue = rng.uniform() if self.variant.limb_colours else (base + rng.uniform(-0.05, 0.05)) % 1
            self.world.model.geom_rgba[limb] = (
                *colorsys.hsv_to_rgb(hue, rng.uniform(0.45, 1), rng.uniform(0.6, 1)),
                1,
            )


# ------------------------------------------------------------------------------------------------- pieces of MJCF


def mjcf(name: str, option: str, world: str, motors: Mapping[str, float], joint: str = "", geom: str = "") -> str:
    """A whole MJCF model with the look of the DeepMind Control Suite: blue checkers, a sky, soft light.

    `option` is the attributes of <option>, `world` what stands in <worldbody>, `motors` the gear of the motor of each
    joint that has one, driven by actions in [-1, 1]; `joint` and `geom` are default attributes. Nothing collides. Few
    slices make round things cheap to render; sites are not drawn.
    """
    actuators = "".join(f'<motor joint="{driven}" gear="{gear}"/>' for driven, gear in motors.items())
    return f"""
<mujoco model="{name}">
  <compiler angle="degree" autolimits="true"/>
  <option {option}/>
  <visual>
    <headlight ambient=".4 .4 .4" diffuse=".6 .6 .6" specular=".1 .1 .1"/>
    <map znear=".02" zfar="60"/>
    <rgba haze=".2 .3 .4 1"/>
    <quality numslices="12" numstacks="8" numquads="2"/>
  </visual>
  <statistic extent="1" center="0 0 0"/>
  <asset>
    <texture name="checkers" type="2d" builtin="checker" rgb1=".1 .2 .3" rgb2=".2 .3 .4" width="128" height="128"/>
    <material name="floor" texture="checkers" texrepeat="1 1" texuniform="true"/>
    <texture name="sky" type="skybox" builtin="gradient" rgb1=".4 .6 .8" rgb2="0 0 0" width="64" height="64"/>
  </asset>
  <default>
    <geom contype="0" conaffinity="0" {geom}/>
    <joint {joint}/>
    <site group="{_SITE_GROUP}"/>
    <motor ctrlrange="-1 1"/>
  </default>
  <worldbody>
    <light pos="0 0 4" dir="0 0 -1" directional="true" castshadow="false"/>
    {world}
  </worldbody>
  <actuator>{actuators}</actuator>
</mujoco>"""


def randomise_hinges(model: Any, data: Any, rng: np.random.Generator) -> None:
    """Every hinge to an angle drawn from its range, from a whole turn where it has none."""
    for j in np.flatnonzero(model.jnt_type == int(mujoco.mjtJoint.mjJNT_HINGE)):
        low, high = model.jnt_range[j] if model.jnt_limited[j] else (-np.pi, np.pi)
        data.qpos[model.jnt_qposadr[j]] = rng.uniform(low, high)
