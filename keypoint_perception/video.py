"""Pictures to a video file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.files import temporary_beside, writing


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends a picture (H, W, 3) uint8 RGB to an mp4, which appears at `path` when it is complete.

    All pictures are brought to the size of the first. Raises UserError where it cannot be written.
    """
    writer: Any = None
    size, count = (0, 0), 0

    def write(picture: np.ndarray) -> None:
        nonlocal writer, size, count
        if writer is None:
            size = picture.shape[1::-1]
            if min(size) < 2:
                raise UserError(f"video {path} cannot be of {size[0]} x {size[1]} pixels: write a bag instead")
            writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            if not writer.isOpened():
                raise UserError(f"video {path} cannot be written: OpenCV here has no mp4 encoder, write a bag instead")
        writer.write(cv2.resize(picture, size)[:, :, ::-1])
        count += 1

    with temporary_beside(path) as temporary:
        with writing(path):
            temporary.touch()
        yield write
        if writer is not None:
            writer.release()
            _check_whole(temporary, count, path)
            with writing(path):
                os.replace(temporary, path)


def _check_whole(video: Path, count: int, path: Path) -> None:
    """Raises UserError where a video, to be called `path`, has not `count` pictures: OpenCV does not say that."""
    capture = cv2.VideoCapture(str(video))
    found = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    if found != count:
        lost = f"{count - found} of its {count} pictures are lost"
        raise UserError(f"cannot write {path} ({lost}; the disk may be full): name another place, or make room")
