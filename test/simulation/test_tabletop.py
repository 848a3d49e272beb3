import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from keypoint_perception.errors import UserError
from training.simulation.recording import CameraStream
from training.simulation.recordings import simulate_many
from training.simulation.tabletop import TABLE_CAMERA, WRIST_CAMERA, Tabletop, TabletopConfig, simulate_tabletop

SIZE = (64, 48)


def film(config, frames=4, camera=TABLE_CAMERA):
    with Tabletop(config) as table:
        pictures = []
        for _ in range(frames):
            table.act(0.2)
            pictures.append(table.render(camera))
        return np.stack(pictures)


def test_the_skeleton_is_the_arms():
    with Tabletop(TabletopConfig(size=SIZE)) as table:
        assert table.names == (*(f"joint_{i}" for i in range(6)), "carriage_left_tip", "carriage_right_tip")
        assert table.adjacency.sum() == 2 * 7
        assert table.adjacency[5].nonzero()[0].tolist() == [4, 6, 7]
        points = table.positions()
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)[~np.eye(8, dtype=bool)]
        assert distances.min() > 0.01  # no two nodes are one point


def test_same_seed_same_frames():
    config = TabletopConfig(seed=3, size=SIZE)
    np.testing.assert_array_equal(film(config), film(config))


def test_seeds_share_a_laboratory_unless_randomised():
    def empty_wall(config):
        return film(config, frames=1)[0, :4, :8].astype(int)

    plain = [empty_wall(TabletopConfig(seed, SIZE)) for seed in (1, 2)]
    varied = [empty_wall(TabletopConfig(seed, SIZE, randomise=True)) for seed in (1, 2)]
    assert np.abs(plain[0] - plain[1]).max() <= 1
    assert np.abs(varied[0] - varied[1]).max() > 10


@pytest.mark.parametrize("seed", [0, 1])
def test_the_arm_roams_in_view_and_meets_objects(seed):
    with Tabletop(TabletopConfig(seed, SIZE)) as table:
        before = [table.data.body(f"object_{i}").xpos.copy() for i in range(4)]
        tracks, angles = [], []
        for _ in range(60):
            table.act(0.5)
            tracks.append(table.project(TABLE_CAMERA)[0])
            angles.append(table.data.qpos[:6].copy())
        tracks = np.array(tracks)
        assert ((tracks > 0) & (tracks < (SIZE[0] - 1, SIZE[1] - 1))).all()
        assert np.ptp(angles, axis=0).min() > 0.5  # radians, every joint
        assert np.ptp(tracks[:, 6], axis=0).min() > 0.3 * SIZE[1]
        after = [table.data.body(f"object_{i}").xpos for i in range(4)]
        assert max(np.linalg.norm(a - b) for a, b in zip(before, after, strict=True)) > 0.05
        assert min(a[2] for a in after) > 0  # none fell off the table


def test_what_is_visible_is_told_by_depth():
    with Tabletop(TabletopConfig(5, SIZE)) as table:
        seen = []
        for _ in range(15):
            table.act(0.5)
            seen.append(table.visible(TABLE_CAMERA))
        rate = np.mean(seen, axis=0)
        assert (rate > 0.3).all()
        assert rate.mean() < 1  # the arm hides some of its joints some of the time
        assert not table.visible(WRIST_CAMERA)[0]  # the base is behind the gripper


def test_a_recording_from_the_table(tmp_path):
    streams = (CameraStream(TABLE_CAMERA, "/table"), CameraStream(WRIST_CAMERA, "/wrist", depth="32FC1"))
    config = TabletopConfig(size=SIZE, objects=0)
    assert simulate_tabletop(tmp_path / "bag", config, seconds=0.3, rate=10, streams=streams) == 3
    with Reader(tmp_path / "bag") as reader:
        assert {"/table/image_raw/compressed", "/wrist/depth/image_raw"} <= set(reader.topics)


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match="0 to 8"):
        TabletopConfig(objects=9)
    with pytest.raises(UserError, match="16 to 4096"):
        TabletopConfig(size=(8, 64))


def test_two_processes_make_what_one_makes_and_keep_what_is_there(tmp_path):
    configs = [TabletopConfig(seed, SIZE, objects=1) for seed in (0, 1)]
    streams = (CameraStream(TABLE_CAMERA, "/table"),)
    simulate_tabletop(tmp_path / "one" / "recording_01", configs[1], seconds=0.2, rate=10, streams=streams)
    simulate_many(simulate_tabletop, tmp_path / "two", configs, workers=2, seconds=0.2, rate=10, streams=streams)
    bags = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.glob("*/*/*.mcap")}
    assert len(bags) == 3
    alone, together = (bags[f"{name}/recording_01/recording_01.mcap"] for name in ("one", "two"))
    assert alone.read_bytes() == together.read_bytes()
    written = together.stat().st_mtime_ns
    simulate_many(simulate_tabletop, tmp_path / "two", configs, workers=2, seconds=0.2, rate=10, streams=streams)
    assert together.stat().st_mtime_ns == written
