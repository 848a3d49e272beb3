import numpy as np
from segmented import segmentation

from training.simulation.kitchen import FRONT_CAMERA, SIDE_CAMERA, Kitchen, KitchenConfig, simulate_kitchen
from training.simulation.recording import CameraStream

SIZE = (64, 48)


def test_everything_opens_and_closes_in_view():
    with Kitchen(KitchenConfig(size=SIZE)) as kitchen:
        openings, tracks = [], {FRONT_CAMERA: [], SIDE_CAMERA: []}
        for _ in range(150):
            kitchen.act(0.25)
            openings.append(kitchen.data.qpos.copy())
            for camera, track in tracks.items():
                track.append(kitchen.project(camera)[0])
        openings = np.array(openings)
        low, high = kitchen.model.jnt_range.T
        assert (openings >= low - 1e-9).all() and (openings <= high + 1e-9).all()
        assert (np.ptp(openings, axis=0) > 0.6 * (high - low)).all()
        assert np.abs(np.diff(openings, axis=0)).max() < 0.9  # nothing jumps
        for track in tracks.values():
            assert ((np.array(track) > -0.5) & (np.array(track) < (SIZE[0] - 0.5, SIZE[1] - 0.5))).mean() > 0.97


def test_every_thing_has_a_handle_joined_to_its_own_nodes_only():
    with Kitchen(KitchenConfig(size=SIZE)) as kitchen:
        things = {kitchen.model.body(node.body).name for node in kitchen.nodes}
        assert {"cabinet", "top_drawer", "oven", "microwave", "left_wall_cabinet"} <= things
        assert {f"{thing}_handle" for thing in things} <= set(kitchen.names)
        for i, j in np.argwhere(kitchen.adjacency):
            assert kitchen.nodes[i].body == kitchen.nodes[j].body
        assert (kitchen.adjacency.sum(axis=1) > 0).all()


def test_handles_are_where_the_camera_sees_them():
    with Kitchen(KitchenConfig(size=(160, 120))) as kitchen, segmentation(kitchen) as bodies_seen:
        for _ in range(5):
            kitchen.act(0.7)
            bodies, visible = bodies_seen(FRONT_CAMERA), kitchen.visible(FRONT_CAMERA)
            for node, (u, v), seen in zip(kitchen.nodes, kitchen.project(FRONT_CAMERA)[0], visible, strict=True):
                if node.name.endswith("handle") and seen:
                    column, row = round(float(u)), round(float(v))
                    around = bodies[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                    assert node.body in around, node.name


def test_same_seed_same_bag(tmp_path):
    streams = [CameraStream(FRONT_CAMERA, "/front", depth="16UC1"), CameraStream(SIDE_CAMERA, "/side", colour="rgb8")]
    for name in ("a", "b"):
        config = KitchenConfig(seed=4, size=SIZE, randomise=True)
        assert simulate_kitchen(tmp_path / name / "bag", config, seconds=0.4, rate=5, streams=streams) == 2
    first, second = ((tmp_path / name / "bag" / "bag.mcap").read_bytes() for name in ("a", "b"))
    assert first == second
