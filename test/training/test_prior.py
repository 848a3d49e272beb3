"""Files of unpaired poses: what is written is read, and what is no such file is said."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from keypoint_perception.errors import UserError
from training.prior import Poses, read_poses, write_poses


def test_a_prior_in_pixels_is_told_from_one_that_reaches_out_of_the_picture(tmp_path: Path) -> None:
    poses = np.random.default_rng(0).uniform(0, 64, (50, 4, 2))
    np.savez(tmp_path / "poses.npz", keypoints=poses)
    with pytest.raises(UserError, match=r"has keypoints up to 6\d\.\d+: give them normalised"):
        read_poses(tmp_path / "poses.npz")
    far = poses / 32 - 1
    far[::4] *= 10
    np.savez(tmp_path / "poses.npz", keypoints=far)
    assert len(read_poses(tmp_path / "poses.npz").keypoints) == 50


def test_a_prior_that_is_damaged(tmp_path: Path) -> None:
    write_poses(tmp_path / "poses.npz", Poses(np.random.default_rng(0).random((50, 2, 2), np.float32)))
    whole = (tmp_path / "poses.npz").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(whole)
        for at in rng.integers(len(whole), size=3):
            changed[at] = rng.integers(256)
        (tmp_path / "poses.npz").write_bytes(changed)
        with suppress(UserError):
            read_poses(tmp_path / "poses.npz")


@pytest.mark.parametrize("edges", [np.array([[0, 4]]), np.array([[1, 1]]), np.array([0, 1]), np.array([[0.0, 1.0]])])
def test_edges_of_a_prior_that_are_none(edges: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "poses.npz", keypoints=np.zeros((3, 4, 2)), edges=edges)
    with pytest.raises(UserError, match="`edges`"):
        read_poses(tmp_path / "poses.npz")


def test_a_prior_has_a_name_for_each_joint_or_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "poses.npz", keypoints=np.zeros((3, 4, 2)), names=np.array(["a", "b"]))
    with pytest.raises(UserError, match="2 `names` for 4 joints"):
        read_poses(tmp_path / "poses.npz")


def test_poses_are_read_as_they_were_written(tmp_path: Path) -> None:
    poses = Poses(np.random.default_rng(0).random((3, 2, 2), np.float32), np.array([[0, 1]]), ("a", "b"), "table")
    write_poses(tmp_path / "poses.npz", poses)
    again = read_poses(tmp_path / "poses.npz")
    np.testing.assert_array_equal(again.keypoints, poses.keypoints)
    assert (again.edges.tolist(), again.names, again.scene, again.variant) == ([[0, 1]], ("a", "b"), "table", "")
