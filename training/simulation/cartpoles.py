"""Carts on a rail that carry a chain of 1 to 5 poles, swinging under gravity: the control suite's cartpole.

Joints: the cart, the anchor of each pole (the first is the cart itself) and the end of the last one. Poles are a metre
long; the more there are, the farther the camera stands back and, so that they stay as wide in the picture as the
suite's one, the thicker they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from training.simulation.articulated import Variant, mjcf

POLES = (1, 2, 3, 4, 5)
_SLIDE = (0.4, 0.12)
"""How far the cart goes to either side, metres: with one pole, and more for each further one."""
_HEIGHT = 1.0
_FLOOR = 25.0
"""Half the side of the floor, metres."""
_FOLD = np.deg2rad(100)
"""The most that a pole is turned against the one before it at the start: a chain in a heap shows little."""


def cartpole(poles: int) -> Variant:
    """The cart with that many poles."""
    thickness = 0.5 + 0.5 * poles
    radius = 0.045 * thickness
    slide = _SLIDE[0] + _SLIDE[1] * (poles - 1)
    reach = poles**0.93 + 2 * radius
    # The chain hangs more often than it stands, so the cart is above the middle of the picture.
    lowered = 0.3 * max(poles - 2, 0)
    view = reach + 0.7 * slide - lowered
    cart = np.array([0.2, 0.15, 0.1]) * thickness
    world = f"""
    <geom type="plane" size="{_FLOOR} {_FLOOR} 1" pos="0 0 {_HEIGHT - poles - 0.3}" material="floor"/>
    <camera name="camera" pos="0 {-view / np.tan(np.deg2rad(20))} {_HEIGHT - lowered}" xyaxes="1 0 0 0 0 1" fovy="40"/>
    <geom type="capsule" fromto="-{2 * reach} 0 {_HEIGHT} {2 * reach} 0 {_HEIGHT}" size="{0.02 * thickness}"
          rgba=".3 .3 .3 1"/>
    <body name="cart" pos="0 0 {_HEIGHT}">
      <joint name="slider" type="slide" axis="1 0 0" range="-{slide} {slide}" solreflimit=".08 1"/>
      <geom type="box" size="{cart[0]} {cart[1]} {cart[2]}" mass="1"/>
      <site name="pole0" size="{1.2 * cart[1]}"/>
      {_chain(poles, radius)}
    </body>"""
    return Variant(
        name=f"cartpole{poles}",
        mjcf=mjcf(
            f"cartpole{poles}",
            option='timestep=".01" integrator="RK4"',
            world=world,
            motors={"slider": 12 + 6 * poles},
        ),
        edges=tuple((f"pole{i}", f"pole{i + 1}") for i in range(poles)),
        period=0.03,
        start=_start,
    )


def _chain(poles: int, radius: float) -> str:
    """MJCF of poles, each on the end of the one before; the radius is in metres."""
    chain = f"""<site name="pole{poles}" pos="0 0 1" size="{1.5 * radius}"/>"""
    for i in reversed(range(poles)):
        # The anchor of the first pole is the cart's own joint.
        anchor = f'<site name="pole{i}" size="{1.5 * radius}"/>' if i else ""
        chain = f"""
        <body name="pole{i}" pos="0 0 {1 if i else 0}">
          <joint name="hinge{i}" type="hinge" axis="0 1 0" damping=".002"/>
          <geom type="capsule" fromto="0 0 0 0 0 1" size="{radius}" mass=".1"/>
          {anchor}{chain}
        </body>"""
    return chain


def _start(model: Any, data: Any, rng: np.random.Generator) -> None:
    data.qpos[0] = rng.uniform(*model.jnt_range[0])
    data.qpos[1] = rng.uniform(-np.pi, np.pi)
    data.qpos[2:] = rng.uniform(-_FOLD, _FOLD, model.nq - 2)
    data.qvel[1:] = rng.normal(0, 1, model.nv - 1)
