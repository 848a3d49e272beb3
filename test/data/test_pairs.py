"""Pairs over time, across cameras and by warp; the split; batches as pure functions of the step."""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recording_files import PERIOD, START, TOPIC, Message, encode, messages, picture, write_rosbag2, write_video

from keypoint_perception.errors import UserError
from training.data import Data, DataConfig, load_data, loader
from training.data.config import SAMPLINGS
from training.method import Batch
from training.prior import Poses, write_poses

INPUT = (16, 12)
OTHER = "/wrist/image_raw"


def tagged(index: int, recording: int = 0) -> np.ndarray:
    """A picture that says which frame of which recording it is, in red and green, and is readable after resizing."""
    return np.full((12, 16, 3), (index, 40 * recording, 7), np.uint8)


def tags(images: torch.Tensor) -> list[tuple[int, int]]:
    """(frame, recording) of (B, 3, H, W) images."""
    pixels = (images[:, :2, 0, 0] * 255).round().int().tolist()
    return [(index, recording // 40) for index, recording in pixels]


def bag(path: Path, count: int = 40, recording: int = 0, topic: str = TOPIC, offset: int = 0) -> list[Message]:
    """10 Hz."""
    return [Message(encode(tagged(i, recording), "rgb8"), START + i * PERIOD + offset, topic) for i in range(count)]


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    """Three recordings of 40, 30 and 20 frames at 10 Hz."""
    counts = (40, 30, 20)
    return [str(write_rosbag2(tmp_path / f"bag{r}", bag(tmp_path, n, r))) for r, n in enumerate(counts)]


def load(sources: list[str], **options: Any) -> Data:
    return load_data(DataConfig(sources=sources, input_size=INPUT, **options), progress=False)


def drawn(data: Data, steps: int = 20) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Tags of (image, reference) of many pairs."""
    batches = [data.train.batch(step, 16, seed=1) for step in range(steps)]
    return [pair for b in batches for pair in zip(tags(b["image"]), tags(b["reference"]), strict=True)]


def test_time_pairs_keep_their_distance_and_their_recording(recordings: list[str]) -> None:
    pairs = drawn(load(recordings, min_seconds=0.3, max_seconds=0.8, validation=0.0))
    distances = [other - one for (one, _), (other, _) in pairs]
    assert {abs(d) for d in distances} == {3, 4, 5, 6, 7, 8}
    assert 0.4 < np.mean([d > 0 for d in distances]) < 0.6  # either may be the image
    assert all(a == b for (_, a), (_, b) in pairs)
    assert {recording for (_, recording), _ in pairs} == {0, 1, 2}


def test_all_pairs_of_a_track_are_drawn_equally_often(tmp_path: Path) -> None:
    """Eight frames have 28 pairs: the last two no more often than any others."""
    data = load([str(write_rosbag2(tmp_path / "bag", bag(tmp_path, 8)))], sampling="npt", validation=0.0)
    pairs = [tuple(sorted((one, other))) for (one, _), (other, _) in drawn(data, steps=350)]
    often = np.unique(pairs, axis=0, return_counts=True)[1]
    assert len(often) == 28
    assert set(often) <= set(range(150, 250))  # 200 of 5600 each, with a standard deviation of 14


def test_tracks_are_drawn_as_often_as_they_have_frames(recordings: list[str]) -> None:
    data = load(recordings, sampling="npt", validation=0.0)
    tracks = [recording for (_, recording), _ in drawn(data, steps=200)]
    assert np.bincount(tracks) / len(tracks) == pytest.approx([40 / 90, 30 / 90, 20 / 90], abs=0.04)


def test_distances_in_frames_do_not_ask_for_the_time(tmp_path: Path) -> None:
    content = [m._replace(stamp=START + int(i**2 * 1e9)) for i, m in enumerate(bag(tmp_path))]
    data = load([str(write_rosbag2(tmp_path / "bag", content))], min_frames=2, max_frames=4, validation=0.0)
    assert {abs(one - other) for (one, _), (other, _) in drawn(data)} == {2, 3, 4}


def test_a_gap_is_not_bridged_by_frames_that_are_near_in_number(tmp_path: Path) -> None:
    content = bag(tmp_path)
    content = content[:20] + [m._replace(stamp=m.stamp + 60 * 10**9) for m in content[20:]]
    data = load([str(write_rosbag2(tmp_path / "bag", content))], max_seconds=1.0, validation=0.0)
    assert all((one < 20) == (other < 20) for (one, _), (other, _) in drawn(data))


def test_a_batch_is_a_pure_function(recordings: list[str]) -> None:
    data, again = load(recordings), load(recordings)
    first = data.train.batch(5, 8, seed=3)
    data.train.batch(6, 8, seed=3)
    for batch in (data.train.batch(5, 8, seed=3), again.train.batch(5, 8, seed=3), unpickled(data).batch(5, 8, seed=3)):
        assert same(batch, first)
    assert not same(data.train.batch(6, 8, seed=3), first)
    assert not same(data.train.batch(5, 8, seed=4), first)


def unpickled(data: Data) -> Any:
    return pickle.loads(pickle.dumps(data.train))


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)  # type: ignore[literal-required]


@pytest.mark.parametrize("pairs", ["time", "warp", "still"])
def test_what_a_batch_holds(pairs: Any, recordings: list[str]) -> None:
    batch = load(recordings, pairs=pairs).train.batch(0, 4, seed=0)
    shapes = {"image": (4, 3, 12, 16), "reference": (4, 3, 12, 16), "loss_mask": (4, 1, 12, 16)}
    keys = {"time": {"image", "reference"}, "warp": set(shapes), "still": {"image"}}[pairs]
    assert {key: tuple(value.shape) for key, value in batch.items()} == {key: shapes[key] for key in keys}  # type: ignore[attr-defined]
    for value in batch.values():
        assert value.dtype == torch.float32 and value.min() >= 0 and value.max() <= 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_the_batches_of_its_steps(workers: int, recordings: list[str]) -> None:
    sampler = load(recordings, pairs="warp").train
    loaded = list(loader(sampler, 7, 5, batch_size=4, seed=2, workers=workers))
    assert len(loaded) == 5
    assert all(same(batch, sampler.batch(step, 4, 2)) for step, batch in zip(range(7, 12), loaded, strict=True))


def test_processes_share_the_steps_among_them(recordings: list[str]) -> None:
    sampler = load(recordings).train
    ranks = [list(loader(sampler, 3, 2, 4, seed=0, rank=rank, world=2)) for rank in range(2)]
    order = [ranks[0][0], ranks[1][0], ranks[0][1], ranks[1][1]]
    assert all(same(batch, sampler.batch(step, 4, 0)) for step, batch in zip(range(6, 10), order, strict=True))


def cameras(tmp_path: Path, offset: int, **options: Any) -> Data:
    content = bag(tmp_path) + bag(tmp_path, recording=1, topic=OTHER, offset=offset)
    path = write_rosbag2(tmp_path / "bag", content)
    return load([str(path)], topic=TOPIC, reference_topic=OTHER, pairs="cameras", **options)


def test_camera_pairs_are_of_one_instant_and_of_both_cameras(tmp_path: Path) -> None:
    pairs = drawn(cameras(tmp_path, offset=5_000_000))
    assert all(one == other and {a, b} == {0, 1} for (one, a), (other, b) in pairs)
    assert 0.4 < np.mean([a for (_, a), _ in pairs]) < 0.6  # either may be the image


def test_cameras_that_are_never_at_one_instant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the nearest are 0\.050 s: choose a larger --data.slop_seconds"):
        cameras(tmp_path, offset=50_000_000)


def test_the_nearest_instant_within_the_slop(tmp_path: Path) -> None:
    pairs = drawn(cameras(tmp_path, offset=-70_000_000, slop_seconds=0.03))
    assert all((b if a == 0 else one) is not None for (one, a), (_, b) in pairs)
    assert {(other - one) if a == 0 else (one - other) for (one, a), (other, _) in pairs} == {1}


def test_two_parts_of_one_image_are_two_cameras(tmp_path: Path) -> None:
    halves = [np.hstack((tagged(i, 0), tagged(i, 1))) for i in range(20)]
    path = write_video(tmp_path / "mirror.avi", halves)
    data = load([str(path)], pairs="cameras", roi=(0.0, 0.0, 0.5, 1.0), reference_roi=(0.5, 0.0, 1.0, 1.0))
    assert all(one == other and {a, b} == {0, 1} for (one, a), (other, b) in drawn(data))
    assert data.viewport_roi == (0.0, 0.0, 0.5, 1.0)


def test_one_camera_makes_no_camera_pairs(recordings: list[str]) -> None:
    with pytest.raises(UserError, match=r"set --data\.reference_topic, or --data\.reference_roi"):
        load(recordings, pairs="cameras")


def frames_of(sampler: Any) -> set[tuple[int, int]]:
    return {(int(s), int(i)) for t in sampler.tracks for s in [t.store] for i in range(t.start, t.stop)}


def test_a_split_by_recording(recordings: list[str]) -> None:
    data = load(recordings, validation=0.34)
    train, held_out = {t.store for t in data.train.tracks}, {t.store for t in data.validation.tracks}
    assert len(held_out) == 1 and len(train) == 2 and not train & held_out


def test_a_split_by_time_holds_out_the_end_of_each(recordings: list[str]) -> None:
    data = load(recordings, validation=0.2)  # no whole recording of three fits into a fifth
    assert [(t.start, t.stop) for t in data.train.tracks] == [(0, 32), (0, 24), (0, 16)]
    assert [(t.start, t.stop) for t in data.validation.tracks] == [(32, 40), (24, 30), (16, 20)]
    assert not frames_of(data.train) & frames_of(data.validation)
    pairs = [data.train.batch(step, 16, 0) for step in range(20)]
    assert max(index for b in pairs for index, recording in tags(b["image"]) + tags(b["reference"])) < 32


def test_a_split_may_be_chosen(recordings: list[str]) -> None:
    assert len({t.store for t in load(recordings, validation=0.1, split="recording").validation.tracks}) == 1
    assert len({t.store for t in load(recordings, validation=0.4, split="time").validation.tracks}) == 3


def test_no_validation_repeats_training(recordings: list[str]) -> None:
    data = load(recordings, validation=0.0)
    assert data.validation is data.train


def test_a_held_out_part_too_short_for_pairs_repeats_training_and_says_so(
    recordings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = DataConfig(sources=recordings[:1], input_size=INPUT, min_seconds=1.0, max_seconds=2.0, validation=0.1)
    data = load_data(config)
    assert data.validation is data.train
    assert re.search("warning: validation is on training data, .* the longest has 4 frames", capsys.readouterr().err)


def test_recordings_too_short_for_the_distance(recordings: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"no two frames .* 100 to 200 seconds apart: the longest has 40 .*--data\.max_seconds"
    ):
        load(recordings, min_seconds=100.0, max_seconds=200.0, validation=0.0)


def test_sequences_are_whole_recordings_in_order(recordings: list[str]) -> None:
    found = list(load(recordings).sequences())
    assert [name for name, _ in found] == ["0:bag0", "1:bag1", "2:bag2"]
    assert [frames.shape for _, frames in found] == [(n, 12, 16, 3) for n in (40, 30, 20)]
    assert found[1][1][:, 0, 0, 0].tolist() == list(range(30))


def test_the_fingerprint_follows_the_content_not_the_place(recordings: list[str], tmp_path: Path) -> None:
    before = load(recordings[:1]).fingerprint
    moved = Path(recordings[0]).rename(tmp_path / "elsewhere")
    assert load([str(moved)]).fingerprint == before
    assert load(recordings[1:2]).fingerprint != before
    assert load([str(moved)], max_seconds=1.0).fingerprint != before


def test_poses_of_the_same_name_and_other_content_make_another_run(recordings: list[str], tmp_path: Path) -> None:
    found = set()
    for seed in (0, 1, 1):
        poses = np.random.default_rng(seed).uniform(-1, 1, (5, 3, 2)).astype(np.float32)
        write_poses(tmp_path / "poses.npz", Poses(poses))
        found.add(load(recordings, prior=str(tmp_path / "poses.npz")).fingerprint)
    assert len(found) == 2


def test_however_much_is_held_out_something_is_left(recordings: list[str]) -> None:
    data = load(recordings[:1], pairs="still", validation=0.99)
    assert {index for index, _ in tags(data.train.batch(0, 32, 0)["image"])} == {0}
    with pytest.raises(UserError, match=r"split is recording and there is one.*--data\.split time"):
        load(recordings[:1], split="recording")


def test_unpaired_poses(recordings: list[str], tmp_path: Path) -> None:
    poses = np.random.default_rng(0).uniform(-1, 1, (50, 6, 2)).astype(np.float32)
    np.savez(tmp_path / "poses.npz", keypoints=poses)
    data = load(recordings, prior=str(tmp_path / "poses.npz"))
    found = data.train.batch(0, 8, 0)["prior_keypoints"].numpy()
    assert found.shape == (8, 6, 2)
    assert all(any(np.array_equal(pose, known) for known in poses) for pose in found)


@pytest.mark.parametrize("arrays", [{}, {"keypoints": np.zeros((3, 4))}, {"keypoints": np.full((3, 4, 2), np.nan)}])
def test_a_prior_that_is_none(arrays: dict[str, np.ndarray], recordings: list[str], tmp_path: Path) -> None:
    np.savez(tmp_path / "poses.npz", **arrays)
    with pytest.raises(UserError, match=r"prior .*\(P, J, 2\)"):
        load(recordings, prior=str(tmp_path / "poses.npz"))


@pytest.mark.parametrize("most", [1e300, math.inf])
def test_pairs_may_be_however_far_apart(most: float, recordings: list[str]) -> None:
    found, all_pairs = (load(recordings, max_seconds=far).train.batch(0, 32, 0) for far in (most, 1e6))
    assert torch.equal(found["image"], all_pairs["image"]) and torch.equal(found["reference"], all_pairs["reference"])
    with pytest.raises(UserError, match="no two frames of a recording are inf to inf seconds apart"):
        load(recordings, min_seconds=math.inf)
    assert "reference" in load(recordings, max_frames=2**63 - 2).train.batch(0, 2, 0)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_papers_ways_to_draw(sampling: Any, tmp_path: Path) -> None:
    path = write_rosbag2(tmp_path / "bag", messages(60))
    data = load([str(path)], sampling=sampling, validation=0.0)
    assert "image" in data.train.batch(0, 2, 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sampling": "transporter"}, ("time", 1, 19, "frames")),
        ({"sampling": "imm_video"}, ("time", 3, 30, "frames")),
        ({"sampling": "imm"}, ("warp",)),
        ({"sampling": "autolink"}, ("still",)),
        ({"sampling": "keypointgan", "max_frames": 5}, ("time", 1, 5, "frames")),
        ({"sampling": "npt", "max_seconds": 3.0}, ("time", 0.0, 3.0, "seconds")),
        ({"pairs": "warp"}, ("warp",)),
        ({}, ("time", 0.1, 2.0, "seconds")),
    ],
)
def test_options_precede_the_named_way(options: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert tuple(DataConfig(**options).drawing())[: len(expected)] == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_size": (4, 64)}, "8 to 4096"),
        ({"validation": 1.0}, "from 0 to below 1"),
        ({"min_seconds": 3.0, "max_seconds": 1.0}, "give a min_seconds from 0 on, and a max_seconds no smaller"),
        ({"min_seconds": 1.0, "max_frames": 3}, "set min_seconds and max_seconds, or min_frames"),
        ({"sampling": "unheard"}, "allowed are default, imm"),
        ({"slop_seconds": -1.0}, "data: slop_seconds is -1.0: give 0 or more"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        DataConfig(**options)


def test_a_roi_outside_the_image(recordings: list[str]) -> None:
    with pytest.raises(UserError, match="fractions of the image"):
        load(recordings, roi=(0.5, 0.0, 1.5, 1.0))


def test_pictures_are_what_was_recorded(tmp_path: Path) -> None:
    path = write_rosbag2(tmp_path / "bag", messages(3, "png"))
    data = load_data(DataConfig(sources=[str(path)], input_size=(32, 24), pairs="still"), progress=False)
    image = data.train.batch(0, 1, 0)["image"][0]
    known = [torch.from_numpy(picture(i)).permute(2, 0, 1).float() / 255 for i in range(3)]
    assert any(torch.equal(image, k) for k in known)
