import json
import zipfile

import numpy as np
import pytest

from keypoint_perception.errors import UserError
from training.simulation.episode import Episode, read_episode, write_episode
from training.simulation.episodes import episode_paths, read_settings, simulate


def random_episode() -> Episode:
    rng = np.random.default_rng(0)
    return Episode(
        scene="spiders",
        variant="spider3",
        seed=7,
        fps=50.0,
        frames=rng.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8),
        keypoints=rng.normal(size=(5, 4, 2)).astype(np.float32),
        keypoints_3d=rng.normal(size=(5, 4, 3)).astype(np.float32),
        visible=rng.random((5, 4)) < 0.5,
        mask=rng.random((5, 6, 8)) < 0.5,
        adjacency=np.eye(4, k=1, dtype=bool) | np.eye(4, k=-1, dtype=bool),
        names=("centre", "hip", "knee", "foot"),
    )


def test_an_episode_comes_back_as_it_was(tmp_path):
    episode = random_episode()
    write_episode(tmp_path / "a.npz", episode)
    again = read_episode(tmp_path / "a.npz")
    for name, value in vars(episode).items():
        back = getattr(again, name)
        assert type(back) is type(value)
        np.testing.assert_array_equal(back, value)
        if isinstance(value, np.ndarray):
            assert back.dtype == value.dtype


def test_the_same_episode_is_the_same_file(tmp_path):
    write_episode(tmp_path / "a.npz", random_episode())
    write_episode(tmp_path / "b.npz", random_episode())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("damage", ["missing", "text", "truncated", "other arrays", "pickle", "header"])
def test_what_is_no_episode_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "a.npz"
    if damage == "text":
        path.write_text("hello")
    elif damage == "truncated":
        write_episode(path, random_episode())
        path.write_bytes(path.read_bytes()[:900])
    elif damage == "other arrays":
        np.savez(path, frames=np.zeros(3))
    elif damage == "pickle":
        np.savez(path, keypoints=np.array([object()]), allow_pickle=True)
    elif damage == "header":
        header = b"{'descr': '<f4', 'shape': (1,\n"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("keypoints.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(UserError, match=r"a\.npz") as caught:
        read_episode(path)
    assert "\n" not in str(caught.value)


def files(folder):
    return {path.name: path.read_bytes() for path in episode_paths(folder)}


def test_frames_depend_on_the_seed_and_not_on_workers_size_of_the_run_or_interruptions(tmp_path):
    simulate("whcm", tmp_path / "one", 3, seed=5, size=16)
    simulate("whcm", tmp_path / "two", 3, seed=5, size=16, workers=2)
    simulate("whcm", tmp_path / "cut", 3, seed=5, size=16)
    (tmp_path / "cut" / "episode_00001.npz").unlink()
    simulate("whcm", tmp_path / "cut", 3, seed=5, size=16)
    simulate("whcm", tmp_path / "other", 3, seed=6, size=16)
    expected = files(tmp_path / "one")
    assert len(expected) == 3
    assert files(tmp_path / "two") == expected
    assert files(tmp_path / "cut") == expected
    assert all(files(tmp_path / "other")[name] != content for name, content in expected.items())


def test_train_and_test_share_no_episode(tmp_path):
    simulate("cartpoles", tmp_path / "train", 2, size=16, split="train")
    simulate("cartpoles", tmp_path / "test", 2, size=16, split="test")
    train, test = (set(files(tmp_path / split).values()) for split in ("train", "test"))
    assert not train & test


def test_a_folder_can_grow_and_keeps_what_it_has(tmp_path):
    simulate("swimmers", tmp_path / "a", 1, size=16)
    first = (tmp_path / "a" / "episode_00000.npz").stat().st_mtime_ns
    told = []
    simulate("swimmers", tmp_path / "a", 2, size=16, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 1)]
    assert (tmp_path / "a" / "episode_00000.npz").stat().st_mtime_ns == first
    assert json.loads((tmp_path / "a" / "scene.json").read_text())["episodes"] == 2
    assert read_settings(tmp_path / "a").size == (16, 16)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    simulate("swimmers", tmp_path / "a", 1, size=16)
    before = files(tmp_path / "a")
    with pytest.raises(UserError, match="seed 0"):
        simulate("swimmers", tmp_path / "a", 1, seed=1, size=16)
    assert files(tmp_path / "a") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="mine"):
        simulate("swimmers", tmp_path / "mine", 1, size=16)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"scene": "octopus"}, "spiders"),
        ({"split": "dev"}, "train"),
        ({"episodes": 0}, "from 1"),
        ({"workers": 0}, "from 1"),
        ({"size": 4}, "4x4: width and height are from 16"),
        ({"size": 2049}, "to 2048"),  # rendered twice as large
        ({"size": (64, 4097), "bag": True}, "64x4097: .* to 4096"),
        ({"seed": -1}, "from 0"),
        ({"variant": "spider9"}, "spider8"),
        ({"scene": "spiders0shot", "variant": "spider4"}, "spider3"),
    ],
)
def test_bad_values_say_what_is_allowed(tmp_path, change, word):
    arguments = {"scene": "spiders", "out": tmp_path / "a", "episodes": 1} | change
    with pytest.raises(UserError, match=word):
        simulate(**arguments)
    assert not (tmp_path / "a").exists()


def test_zero_shot_spiders_keep_four_and_five_legs_for_the_test(tmp_path):
    simulate("spiders0shot", tmp_path / "train", 4, size=16)
    simulate("spiders0shot", tmp_path / "test", 4, size=16, split="test")
    legs = {
        split: {read_episode(path).variant for path in episode_paths(tmp_path / split)} for split in ("train", "test")
    }
    assert legs["test"] == {"spider4", "spider5"}
    assert legs["train"] <= {"spider3", "spider6", "spider7", "spider8"}
