"""Snakes of 2 to 7 rods in a viscous fluid, seen from above by a camera that follows: the control suite's swimmer.

Joints: both ends and every hinge between two rods. A rod is 0.1 m long; the camera stands the higher the longer the
swimmer is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from training.simulation.articulated import Variant, mjcf, randomise_hinges

RODS = (2, 3, 4, 5, 6, 7)
_LENGTH = 0.1
_FLOOR = 3.0
"""Half the side of the floor, metres."""
_CAMERA_TO_MIDDLE = 0.07
"""How far the swimmer's centre of mass may be from the middle of the picture, as a share of its length."""


def swimmer(rods: int) -> Variant:
    """The swimmer of that many rods."""
    # As wide in the picture as it is long, whatever the number of rods.
    radius = 0.006 + 0.003 * rods
    chain = f'<site name="joint{rods}" pos="{_LENGTH} 0 0" size="{1.5 * radius}"/>'
    turn = min(540 / rods, 110)
    for i in reversed(range(1, rods)):
        chain = f"""
        <body name="rod{i}" pos="{_LENGTH} 0 0">
          <joint name="hinge{i}" axis="0 0 1" range="-{turn} {turn}"/>
          {_rod(radius)}<site name="joint{i}" size="{1.5 * radius}"/>{chain}
        </body>"""
    world = f"""
    <geom type="plane" size="{_FLOOR} {_FLOOR} .3" pos="0 0 -.1" material="floor"/>
    <body name="head">
      <camera name="camera" mode="trackcom" pos="0 0 {1.55 * rods * _LENGTH}" xyaxes="1 0 0 0 1 0" fovy="45"/>
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="turn" axis="0 0 1"/>
      {_rod(radius)}<site name="joint0" size="{1.5 * radius}"/>{chain}
    </body>"""
    return Variant(
        name=f"swimmer{rods}",
        mjcf=mjcf(
            f"swimmer{rods}",
            option='timestep=".004" density="3000" gravity="0 0 0"',
            world=world,
            motors={f"hinge{i}": 6e-4 * rods**2 for i in range(1, rods)},
            joint='solreflimit=".05 1" armature="1e-6"',
        ),
        edges=tuple((f"joint{i}", f"joint{i + 1}") for i in range(rods)),
        period=0.06,
        start=_start,
    )


def _rod(radius: float) -> str:
    return f'<geom type="capsule" fromto="0 0 0 {_LENGTH} 0 0" size="{radius}" density="1000"/>'


def _start(model: Any, data: Any, rng: np.random.Generator) -> None:
    randomise_hinges(model, data, rng)
    # Off the middle, so that where the middle is says nothing about the swimmer.
    length = _LENGTH * (model.njnt - 2)
    model.cam_poscom0[0, :2] = rng.uniform(-1, 1, 2) * _CAMERA_TO_MIDDLE * length
