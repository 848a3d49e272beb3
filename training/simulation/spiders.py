"""Spiders with 3 to 8 legs, seen from above, floating, turning and tilting without gravity.

The paper names no model; this one has a round body and legs of two links, each with a hinge pair at hip and knee. Its
joints: the body's centre, and hip, knee and foot of each leg.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from training.simulation.articulated import Variant, mjcf, randomise_hinges

LEGS = (3, 4, 5, 6, 7, 8)
_BODY_RADIUS = 0.16
_UPPER, _LOWER = 0.34, 0.36
"""Lengths of a leg's links, metres."""
_UPPER_RADIUS, _LOWER_RADIUS = 0.045, 0.036
_FLOOR = 4.0
"""Half the side of the floor, metres; MuJoCo's infinite ones take longer to draw than everything else."""
_DRIFT = 0.14
"""How far the body may be from the middle, metres."""
_DURATION = 2.7
"""Seconds of an episode, in which the body drifts from one drawn place to another."""


def spider(legs: int) -> Variant:
    """The spider with that many legs."""
    edges = []
    for i in range(legs):
        edges += [("centre", f"hip{i}"), (f"hip{i}", f"knee{i}"), (f"knee{i}", f"foot{i}")]
    world = f"""
    <geom type="plane" size="{_FLOOR} {_FLOOR} 1" pos="0 0 -1.2" material="floor"/>
    <camera name="camera" pos="0 0 2.6" fovy="45"/>
    <body name="body">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="turn" axis="0 0 1" damping=".02"/>
      <joint name="roll" axis="1 0 0" range="-35 35"/>
      <joint name="pitch" axis="0 1 0" range="-35 35"/>
      <geom type="ellipsoid" size="{_BODY_RADIUS} {_BODY_RADIUS} {0.6 * _BODY_RADIUS}"/>
      <site name="centre" size="{1.4 * _BODY_RADIUS}"/>
      {"".join(_leg(i, legs) for i in range(legs))}
    </body>"""
    motors = {"turn": 0.8, "roll": 0.25, "pitch": 0.25}
    for i in range(legs):
        motors |= {f"hip_yaw{i}": 0.5, f"hip_pitch{i}": 0.25, f"knee_yaw{i}": 0.25, f"knee_pitch{i}": 0.15}
    return Variant(
        name=f"spider{legs}",
        mjcf=mjcf(
            f"spider{legs}",
            option='timestep=".005" gravity="0 0 0" integrator="implicitfast"',
            world=world,
            motors=motors,
            joint='damping=".03" armature=".003" solreflimit=".04 1"',
            geom='type="capsule" density="300"',
        ),
        edges=tuple(edges),
        period=_DURATION / 90,
        start=_start,
        limb_colours=True,
    )


def _leg(index: int, legs: int) -> str:
    """A leg in its direction: hip at the body's rim, then knee and foot. Neighbours cannot quite touch."""
    angle = 2 * np.pi * index / legs
    swing = 150 / legs
    x, y = _BODY_RADIUS * np.cos(angle), _BODY_RADIUS * np.sin(angle)
    return f"""
      <body name="upper{index}" pos="{x:.5f} {y:.5f} 0" euler="0 0 {np.rad2deg(angle):.4f}">
        <joint name="hip_yaw{index}" axis="0 0 1" range="-{swing} {swing}"/>
        <joint name="hip_pitch{index}" axis="0 1 0" range="-40 40"/>
        <geom fromto="0 0 0 {_UPPER} 0 0" size="{_UPPER_RADIUS}"/>
        <site name="hip{index}" size="{1.5 * _UPPER_RADIUS}"/>
        <body name="lower{index}" pos="{_UPPER} 0 0">
          <joint name="knee_yaw{index}" axis="0 0 1" range="-75 75"/>
          <joint name="knee_pitch{index}" axis="0 1 0" range="-30 70"/>
          <geom fromto="0 0 0 {_LOWER} 0 0" size="{_LOWER_RADIUS}"/>
          <site name="knee{index}" size="{1.5 * _UPPER_RADIUS}"/>
          <site name="foot{index}" pos="{_LOWER} 0 0" size="{1.5 * _LOWER_RADIUS}"/>
        </body>
      </body>"""


def _start(model: Any, data: Any, rng: np.random.Generator) -> None:
    randomise_hinges(model, data, rng)
    begin, end = rng.uniform(-_DRIFT, _DRIFT, (2, 2))
    data.qpos[:2], data.qvel[:2] = begin, (end - begin) / _DURATION
    data.qvel[2] = rng.normal(0, 1.5)
