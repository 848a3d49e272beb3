"""Walker, hopper, cheetah and manipulator, seen from the side, without gravity.

Their proportions and hinges are close to those of the DeepMind Control Suite, written down as capsules from hinge to
hinge; the arm is thicker, to be seen at 64 pixels. The first three float: they drift and tumble, so that a foot is as
likely above as below. The manipulator turns about its base. Joints: every hinge, the end of every limb, and the trunk's
free ends; the walker's hips are one joint, since they fall together.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from training.simulation.articulated import Variant, mjcf, randomise_hinges
from training.simulation.scene import mujoco

_PERIOD = 0.02
_DURATION = 90 * _PERIOD
_SPIN = 1.8
"""Standard deviation of a body's first angular velocity, rad/s."""
_OPTION = 'timestep=".004" gravity="0 0 0" integrator="implicitfast"'
_ROOT = """
      <joint name="x" type="slide" axis="1 0 0" damping="0" armature="0" stiffness="0"/>
      <joint name="z" type="slide" axis="0 0 1" damping="0" armature="0" stiffness="0"/>
      <joint name="turn" axis="0 1 0" damping="0" armature="0" stiffness="0"/>"""


def walker() -> Variant:
    """A planar biped: head, hips, and knee, ankle and toe of each leg. The legs lie one behind the other."""
    sides = ("right", "left")
    world = f"""
    <body name="torso">{_ROOT}
      <geom fromto="0 0 0 0 0 .6" size=".07"/>
      <site name="head" pos="0 0 .6" size=".1"/>
      <site name="hips" size=".14"/>
      {"".join(_walker_leg(side, y) for side, y in zip(sides, (-0.05, 0.05), strict=True))}
    </body>"""
    edges = [("head", "hips")]
    for side in sides:
        edges += [("hips", f"{side}_knee"), (f"{side}_knee", f"{side}_ankle"), (f"{side}_ankle", f"{side}_toe")]
    motors = {f"{side}_{joint}": gear for side in sides for joint, gear in (("hip", 30), ("knee", 15), ("ankle", 5))}
    return _floating("walker", world, edges, motors, reach=1.08, joint='damping="1" armature=".02"')


def _walker_leg(side: str, y: float) -> str:
    return f"""
      <body name="{side}_thigh" pos="0 {y} 0">
        <joint name="{side}_hip" axis="0 -1 0" range="-20 100"/>
        <geom fromto="0 0 0 0 0 -.45" size=".05"/>
        <body name="{side}_leg" pos="0 0 -.45">
          <joint name="{side}_knee" axis="0 -1 0" range="-150 0"/>
          <geom fromto="0 0 0 0 0 -.5" size=".04"/>
          <site name="{side}_knee" size=".065"/>
          <body name="{side}_foot" pos="0 0 -.5">
            <joint name="{side}_ankle" axis="0 -1 0" range="-45 45"/>
            <geom fromto="0 0 0 .2 0 0" size=".05"/>
            <site name="{side}_ankle" size=".065"/>
            <site name="{side}_toe" pos=".2 0 0" size=".065"/>
          </body>
        </body>
      </body>"""


def hopper() -> Variant:
    """A planar monopod: head, waist, hip, knee, ankle, heel and toe."""
    world = f"""
    <body name="torso">{_ROOT}
      <geom fromto="0 0 .02 0 0 .35" size=".065"/>
      <site name="head" pos="0 0 .35" size=".09"/>
      <body name="pelvis">
        <joint name="waist" axis="0 -1 0" range="-40 40"/>
        <geom fromto="0 0 0 0 0 -.2" size=".06"/>
        <site name="waist" size=".09"/>
        <body name="thigh" pos="0 0 -.2">
          <joint name="hip" axis="0 -1 0" range="-170 10"/>
          <geom fromto="0 0 0 0 0 -.33" size=".049"/>
          <site name="hip" size=".08"/>
          <body name="calf" pos="0 0 -.33">
            <joint name="knee" axis="0 -1 0" range="5 150"/>
            <geom fromto="0 0 0 0 0 -.32" size=".039"/>
            <site name="knee" size=".065"/>
            <body name="foot" pos="0 0 -.32">
              <joint name="ankle" axis="0 -1 0" range="-45 45"/>
              <geom fromto="-.08 0 0 .17 0 0" size=".05"/>
              <site name="ankle" size=".07"/>
              <site name="heel" pos="-.08 0 0" size=".07"/>
              <site name="toe" pos=".17 0 0" size=".07"/>
            </body>
          </body>
        </body>
      </body>
    </body>"""
    chain = ("head", "waist", "hip", "knee", "ankle")
    edges = [*itertools.pairwise(chain), ("ankle", "heel"), ("ankle", "toe")]
    motors = {"waist": 15, "hip": 15, "knee": 8, "ankle": 3}
    return _floating("hopper", world, edges, motors, reach=0.7, joint='damping=".5" armature=".01"')


def cheetah() -> Variant:
    """A planar quadruped with two legs: head, shoulder, rump, and knee, ankle and toe of each leg."""
    world = f"""
    <body name="torso">{_ROOT}
      <geom fromto="-.5 0 0 .5 0 0" size=".046"/>
      <geom fromto=".5 0 0 .72 0 .2" size=".046"/>
      <site name="head" pos=".72 0 .2" size=".07"/>
      {_cheetah_leg("back", -0.5, ((0.16, -0.25), (-0.28, -0.14), (0.06, -0.2)), ((-30, 60), (-50, 50), (-100, 50)))}
      {_cheetah_leg("front", 0.5, ((-0.14, -0.24), (0.13, -0.18), (0.1, -0.14)), ((-57, 40), (-70, 50), (-28, 28)))}
    </body>"""
    edges = [("back_hip", "front_hip"), ("front_hip", "head")]
    motors: dict[str, float] = {}
    for end, strength in (("back", 1.0), ("front", 0.75)):
        edges += [(f"{end}_{a}", f"{end}_{b}") for a, b in (("hip", "knee"), ("knee", "ankle"), ("ankle", "toe"))]
        motors |= {f"{end}_{joint}": gear * strength for joint, gear in (("hip", 40), ("knee", 20), ("ankle", 10))}
    return _floating("cheetah", world, edges, motors, reach=1.0, joint='damping="1.5" armature=".05" stiffness="4"')


def _cheetah_leg(
    end: str, x: float, links: tuple[tuple[float, float], ...], ranges: tuple[tuple[float, float], ...]
) -> str:
    """Thigh, shin and foot; each link is where its far end lies, (x, z) metres."""
    joints = ("hip", "knee", "ankle")
    (foot_x, foot_z) = links[-1]
    body = f'<site name="{end}_toe" pos="{foot_x} 0 {foot_z}" size=".07"/>'
    anchors = ((x, 0.0), *links[:-1])
    for joint, (at_x, at_z), (to_x, to_z), (low, high) in reversed(
        list(zip(joints, anchors, links, ranges, strict=True))
    ):
        body = f"""
      <body name="{end}_{joint}" pos="{at_x} 0 {at_z}">
        <joint name="{end}_{joint}" axis="0 1 0" range="{low} {high}"/>
        <geom fromto="0 0 0 {to_x} 0 {to_z}" size=".046"/>
        <site name="{end}_{joint}" size=".07"/>
        {body}
      </body>"""
    return body


def manipulator() -> Variant:
    """A planar arm of three links with a hand of two fingers: base, shoulder, elbow, wrist, and two joints a finger."""
    world = f"""
    <body name="upper_arm">
      <joint name="base" axis="0 1 0" limited="false"/>
      <geom fromto="0 0 0 0 0 .18" size=".03"/>
      <site name="base" size=".07"/>
      <body name="middle_arm" pos="0 0 .18">
        <joint name="shoulder" axis="0 1 0" range="-120 120"/>
        <geom fromto="0 0 0 0 0 .15" size=".026"/>
        <site name="shoulder" size=".045"/>
        <body name="lower_arm" pos="0 0 .15">
          <joint name="elbow" axis="0 1 0" range="-120 120"/>
          <geom fromto="0 0 0 0 0 .12" size=".023"/>
          <site name="elbow" size=".04"/>
          <body name="hand" pos="0 0 .12">
            <joint name="wrist" axis="0 1 0" range="-110 110"/>
            <geom fromto="0 0 0 .055 0 .03" size=".018"/>
            <geom fromto="0 0 0 -.055 0 .03" size=".018"/>
            <site name="wrist" size=".035"/>
            {_finger("thumb", 1)}
            {_finger("finger", -1)}
          </body>
        </body>
      </body>
    </body>"""
    chain = ("base", "shoulder", "elbow", "wrist")
    edges = [*itertools.pairwise(chain)]
    for finger in ("thumb", "finger"):
        edges += [("wrist", finger), (finger, f"{finger}_tip")]
    motors = {"base": 0.25, "shoulder": 0.15, "elbow": 0.08, "wrist": 0.04, "thumb": 0.008, "finger": 0.008}
    view = _side_view(reach=0.59)
    return Variant(
        name="manipulator",
        mjcf=_model("manipulator", view + world, motors, 'damping=".005" armature=".0005"'),
        edges=tuple(edges),
        period=_PERIOD,
        start=_start_manipulator,
    )


def _finger(name: str, side: int) -> str:
    closed, spread = sorted((-25 * side, 50 * side))
    return f"""
            <body name="{name}" pos="{0.055 * side} 0 .03">
              <joint name="{name}" axis="0 1 0" range="{closed} {spread}"/>
              <geom fromto="0 0 0 {-0.01 * side} 0 .08" size=".016"/>
              <site name="{name}" size=".028"/>
              <site name="{name}_tip" pos="{-0.01 * side} 0 .08" size=".026"/>
            </body>"""


def _floating(
    name: str, world: str, edges: list[tuple[str, str]], motors: Mapping[str, float], reach: float, joint: str
) -> Variant:
    """A body whose parts stay within `reach` metres of its centre of mass, nearly in the middle of the picture."""
    return Variant(
        name=name,
        mjcf=_model(name, _side_view(1.15 * reach) + world, motors, joint),
        edges=tuple(edges),
        period=_PERIOD,
        start=lambda model, data, rng: _start_floating(model, data, rng, drift=0.15 * reach),
    )


def _side_view(reach: float) -> str:
    """A camera that sees `reach` metres to either side of the origin, and a floor below all that."""
    distance = 3.0 * reach
    fovy = np.rad2deg(2 * np.arctan(reach / distance))
    return f"""
    <geom type="plane" size="{8 * reach} {8 * reach} 1" pos="0 0 {-1.1 * reach}" material="floor"/>
    <camera name="camera" pos="0 {-distance} 0" xyaxes="1 0 0 0 0 1" fovy="{fovy}"/>"""


def _model(name: str, world: str, motors: Mapping[str, float], joint: str) -> str:
    return mjcf(
        name,
        option=_OPTION,
        world=world,
        motors=motors,
        joint=joint,
        geom='type="capsule"',
    )


def _start_floating(model: Any, data: Any, rng: np.random.Generator, drift: float) -> None:
    """Any pose and turn; the centre of mass drifts from one place near the middle to another."""
    randomise_hinges(model, data, rng)
    data.qvel[2] = rng.normal(0, _SPIN)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_comVel(model, data)
    mujoco.mj_subtreeVel(model, data)
    begin, end = rng.uniform(-drift, drift, (2, 2))
    data.qpos[:2] = begin - data.subtree_com[0, [0, 2]]
    data.qvel[:2] = (end - begin) / _DURATION - data.subtree_linvel[0, [0, 2]]


def _start_manipulator(model: Any, data: Any, rng: np.random.Generator) -> None:
    randomise_hinges(model, data, rng)
    data.qvel[0] = rng.normal(0, _SPIN)
    # The base does not move, so the camera does: off the middle, elsewhere each time.
    model.cam_pos[0, [0, 2]] = rng.uniform(-0.1, 0.1, 2)
