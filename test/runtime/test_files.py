"""Files appear whole or not at all, and what cannot be written is one clear line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from full_disk import full_disk

from keypoint_perception.bags import write_bag
from keypoint_perception.drawing import write_png
from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.video import video_writer


def test_a_file_that_cannot_be_written_is_one_clear_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("as it was")
    before = set(tmp_path.rglob("*"))
    with (
        pytest.raises(UserError, match=r"cannot write .*folder \(Is a directory\)"),
        written_whole(tmp_path / "folder") as path,
    ):
        path.write_text("new")
    for write in (written_whole, write_bag, lambda path: video_writer(path, 30)):
        with (
            pytest.raises(UserError, match=r"cannot write .*file.* \([NF].*\): name another place"),
            write(tmp_path / "file" / "x"),
        ):
            pass
    with pytest.raises(KeyError), written_whole(tmp_path / "file") as path:
        path.write_text("new")
        raise KeyError
    assert set(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == "as it was"


def test_a_disk_that_cannot_be_written_any_more_is_said_though_nothing_can_be_removed_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", fail)
    monkeypatch.setattr("keypoint_perception.files.os.replace", fail)
    words = r"cannot write .*x\.mp4 \(Read-only file system\)"
    with pytest.raises(UserError, match=words), written_whole(tmp_path / "x.mp4"):
        pass
    with pytest.raises(UserError, match=words), video_writer(tmp_path / "x.mp4", 30) as write:
        write(np.zeros((8, 8, 3), np.uint8))


def test_a_full_disk_takes_no_half_of_a_picture_or_video(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with full_disk(5000):
        with pytest.raises(UserError, match=r"cannot write .*x\.png \(File too large\): .*make room"):
            write_png(tmp_path / "x.png", picture)
        with (
            pytest.raises(UserError, match=r"cannot write .*x\.mp4 \(20 of its 20 pictures are lost; the disk may be"),
            video_writer(tmp_path / "x.mp4", 30) as write,
        ):
            for _ in range(20):
                write(picture)
    assert not any(tmp_path.iterdir())


def test_a_video_has_all_pictures_and_one_of_a_pixel_is_refused(tmp_path: Path) -> None:
    with video_writer(tmp_path / "x.mp4", 7.77) as write:
        for _ in range(20):
            write(np.zeros((15, 2, 3), np.uint8))
    assert cv2.VideoCapture(str(tmp_path / "x.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 20
    with (
        pytest.raises(UserError, match=r"y\.mp4 cannot be of 1 x 50 pixels: write a bag instead"),
        video_writer(tmp_path / "y.mp4", 30) as write,
    ):
        write(np.zeros((50, 1, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
