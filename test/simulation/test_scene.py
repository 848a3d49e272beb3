import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from segmented import segmentation

from training.simulation.scene import Node, World, mujoco

BALL = """
<mujoco>
  <worldbody>
    <light pos="0 -1 3"/>
    <camera name="front" pos="0 -2 1" xyaxes="1 0 0 0 .3 1" fovy="50"/>
    <body name="ball" mocap="true"><geom size=".06" rgba="1 0 0 1"/></body>
    <body name="screen" mocap="true" pos="0 0 -9"><geom type="box" size=".2 .01 .2"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(params=[(64, 64), (96, 72)], ids=str)
def world(request):
    model = mujoco.MjModel.from_xml_string(BALL)
    node = Node("ball", model.body("ball").id, (0.0, 0.0, 0.0), radius=0.061)
    with World(model, [node], [], request.param, antialiasing=0) as world:
        yield world


def place(world, *position):
    world.data.mocap_pos[0] = position
    world.refresh()


def test_projection_lands_on_the_rendered_marker(world):
    rng = np.random.default_rng(1)
    errors = []
    last = np.array(world.size) - 1
    with segmentation(world) as bodies_seen:
        for _ in range(200):
            place(world, *rng.uniform([-0.4, -0.4, 0.6], [0.4, 0.4, 1.3]))
            pixels = np.argwhere(bodies_seen("front") == world.nodes[0].body)[:, ::-1]
            if ((pixels > 0) & (pixels < last)).all():  # the whole ball is in the picture
                errors.append(world.project("front")[0][0] - pixels.mean(axis=0))
    errors = np.array(errors)
    assert len(errors) > 100
    assert np.abs(errors.mean(axis=0)).max() < 0.05
    assert np.linalg.norm(errors, axis=1).mean() < 0.2


def test_depth_is_metres_along_the_optical_axis(world):
    place(world, 0.0, 0.0, 1.0)
    pixels, points = world.project("front")
    column, row = np.rint(pixels[0]).astype(int)
    depth = world.depth("front")
    assert depth[row, column] == pytest.approx(points[0, 2] - 0.06, abs=0.01)  # the sphere is drawn with facets
    assert np.isnan(depth[0, 0])


def test_a_node_is_hidden_by_what_stands_before_it_and_by_leaving_the_picture(world):
    place(world, 0.0, 0.0, 1.0)
    assert world.visible("front").tolist() == [True]
    world.data.mocap_pos[1] = (0.0, -0.5, 1.0)
    world.refresh()
    assert world.visible("front").tolist() == [False]
    world.data.mocap_pos[1] = (0.0, 0.5, 1.0)
    world.refresh()
    assert world.visible("front").tolist() == [True]
    place(world, 5.0, 0.0, 1.0)
    assert world.visible("front").tolist() == [False]
    place(world, 0.0, -5.0, 1.0)
    assert world.visible("front").tolist() == [False]
    assert np.isnan(world.project("front")[0]).all()


def test_positions_do_not_lag_behind_the_physics():
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><option timestep=".01"/><worldbody><camera name="c" pos="0 -3 0"/>'
        '<body name="b"><freejoint/><geom size=".1"/></body></worldbody></mujoco>'
    )
    with World(model, [Node("b", 1, (0.0, 0.0, 0.0))], [], (16, 16)) as world:
        world.advance(0.1)
        np.testing.assert_allclose(world.positions()[0], world.data.qpos[:3])


def test_the_physics_keeps_time_at_rates_that_are_no_multiple_of_its_step(world):
    step = world.model.opt.timestep
    for tick in range(1, 61):
        world.advance(1 / 30)
        assert abs(world.data.time - tick / 30) <= 0.51 * step


def test_colour_and_depth_of_one_pass_are_those_of_two(world):
    place(world, 0.1, 0.0, 0.9)
    colour, depth = world.render_with_depth("front")
    np.testing.assert_array_equal(colour, world.render("front"))
    apart = world.depth("front")
    np.testing.assert_array_equal(np.isnan(depth), np.isnan(apart))
    np.testing.assert_allclose(depth, apart, rtol=1e-3)


def test_a_picture_over_its_backdrop_is_the_whole_picture():
    still = '<geom type="plane" size="3 3 1" rgba=".2 .5 .3 1"/><geom type="box" size=".1 .1 .1" pos=".2 -.3 .9"/>'
    model = mujoco.MjModel.from_xml_string(BALL.replace('<body name="ball"', still + '<body name="ball"'))
    with World(model, [Node("ball", 1, (0.0, 0.0, 0.0))], [], (96, 72), antialiasing=0) as world:
        backdrop = world.backdrop("front")
        assert not world.is_moving("front")
        for x in (-0.4, 0.1, 0.2, 0.3, 9.0):  # beside the box, behind it, out of sight; the screen stands in the floor
            place(world, x, 0.0, 0.9)
            world.data.mocap_pos[1] = (x, 0.0, 0.0)
            world.refresh()
            for over, whole in zip(
                world.render_with_depth("front", backdrop), world.render_with_depth("front"), strict=True
            ):
                np.testing.assert_array_equal(over, whole)


def test_missing_egl_is_named_with_the_line_that_installs_it():
    script = (
        "from training.simulation.scene import World, mujoco\n"
        "World(mujoco.MjModel.from_xml_string('<mujoco/>'), [], [], (16, 16))"
    )
    environment = os.environ | {"MUJOCO_GL": "egl", "PYOPENGL_PLATFORM": "none"}  # as on a machine without it
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0
    last = run.stderr.strip().splitlines()[-1]
    assert "UserError" in last and "apt install libegl1" in last
