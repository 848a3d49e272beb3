import cv2
import numpy as np
import pytest

from keypoint_perception.bags import message_store
from training.__main__ import main
from training.prior import read_poses
from training.simulation.episode import read_episode
from training.simulation.episodes import episode_paths
from training.simulation.poses import sample_poses


def run(*words):
    return main(["simulate", *map(str, words)])


def test_episodes_and_a_sheet(tmp_path, capsys):
    assert run("cartpoles", "--out", tmp_path / "a", "--episodes", 2, "--size", "32x24", "--variant", "cartpole2") == 0
    assert "cartpole2" in capsys.readouterr().out
    episodes = [read_episode(path) for path in episode_paths(tmp_path / "a")]
    assert [e.frames.shape for e in episodes] == [(90, 24, 32, 3)] * 2
    assert {e.variant for e in episodes} == {"cartpole2"}
    assert cv2.imread(str(tmp_path / "a" / "sheet.png")).std() > 10


def test_bags_hold_the_truth_beside_the_pictures(tmp_path):
    from rosbags.highlevel import AnyReader

    assert run("swimmers", "-o", tmp_path / "a", "--episodes", 1, "--size", 32, "--variant", "swimmer2", "--bag") == 0
    store = message_store()
    with AnyReader([tmp_path / "a" / "episode_00000"], default_typestore=store) as reader:
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
        assert counts["/camera/image_raw"] == counts["/camera/ground_truth/keypoints"] == 90
        wanted = [c for c in reader.connections if c.topic == "/camera/ground_truth/keypoints"]
        connection, _, raw = next(reader.messages(wanted))
        message = reader.deserialize(raw, connection.msgtype)
    assert [k.name for k in message.keypoints] == ["joint0", "joint1", "joint2"]


def test_poses_for_methods_that_learn_from_unpaired_ones(tmp_path):
    path = tmp_path / "poses.npz"
    assert run("whcm", "--variant", "walker", "--poses", 25, "-o", path) == 0
    poses = read_poses(path)
    assert poses.keypoints.shape == (25, 8, 2) and poses.keypoints.dtype == np.float32
    assert np.abs(poses.keypoints).max() < 1.2 and np.abs(poses.keypoints).max() > 0.3
    assert len(poses.edges) == 7 and poses.names[:2] == ("head", "hips")
    np.testing.assert_array_equal(poses.keypoints, sample_poses("whcm", "walker", 25, 0).keypoints)
    assert len(np.unique(poses.keypoints.round(3), axis=0)) == 25


def test_poses_of_a_set_whose_objects_differ_share_a_skeleton(tmp_path, capsys):
    path = tmp_path / "poses.npz"
    assert run("cartpoles", "--poses", 120, "-o", path) == 0
    assert "120 poses of cartpoles, 6 joints" in capsys.readouterr().out
    poses = read_poses(path)
    assert poses.names == tuple(f"pole{n}" for n in range(6)) and poses.edges.tolist() == [[n, n + 1] for n in range(5)]
    lengths = np.linalg.norm(np.diff(poses.keypoints, axis=1), axis=-1)
    poles = (lengths > 0).sum(axis=1)
    assert len(set(poles)) > 2
    for pose_lengths, count in zip(lengths, poles, strict=True):
        assert (pose_lengths[:count] > 0).all() and not pose_lengths[count:].any()


def test_poses_of_the_table_are_of_its_arm(tmp_path):
    path = tmp_path / "poses.npz"
    assert run("tabletop", "--poses", 4, "--size", "320x240", "-o", path) == 0
    poses = read_poses(path)
    assert poses.keypoints.shape == (4, 8, 2) and len(poses.edges) == 7
    assert np.abs(poses.keypoints).max() < 1
    assert np.ptp(poses.keypoints, axis=0)[-1].max() > 0.01  # it moves


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["octopus", "-o", "a"], "spiders"),
        (["spiders"], "-o"),
        (["spiders", "-o", "a", "--size", "big"], "640x480"),
        (["spiders", "-o", "a", "--split", "dev"], "train"),
        (["spiders", "-o", "a", "--episodes", "0"], "from 1"),
        (["spiders", "-o", "a", "--episodes", "many"], "--episodes"),
        (["spiders", "-o", "a", "--variant", "spider9"], "spider8"),
        (["spiders", "-o", "a", "--seconds", "3"], "--seconds"),
        (["spiders", "-o", "a", "--seed", "-1"], "from 0"),
        (["spiders", "-o", "a", "--seed", "9" * 25], "below 2^63"),
        (["spiders", "-o", "poses.npz", "--poses", "0"], "from 1"),
        (["spiders", "-o", "a", "--poses", "9"], ".npz"),
        (["tabletop", "-o", "a", "--poses", "9"], ".npz"),
        (["kitchen", "-o", "poses.npz", "--poses", "9"], "--poses"),
        (["tabletop", "-o", "a", "--objects", "99"], "0 to 8"),
        (["tabletop", "-o", "a", "--seconds", "0"], "at least one"),
    ],
)
def test_bad_input_gives_one_clear_line(tmp_path, monkeypatch, capsys, words, hint):
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and hint in said[0]
    assert not (tmp_path / "a").exists()
