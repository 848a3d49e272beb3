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
from keypoint_perception.files import make_folder, writing


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends a picture (H, W, 3) uint8 RGB to an mp4, which appears at `path` when it is complete.

    All pictures are brought to the size of the first. Raises UserError where it cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
    make_folder(path.parent)
    with writing(path):
        temporary.touch()
    writer: Any = None
    size = (0, 0)

    def write(picture: np.ndarray) -> None:
        nonlocal writer, size
        if writer is None:
            size = picture.shape[1::-1]
            writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            if not writer.isOpened():
                raise UserError(f"video {path} cannot be written: OpenCV here has no mp4 encoder, write a bag instead")
        writer.write(cv2.resize(picture, size)[:, :, ::-1])

    try:
        yield write
        if writer is not None:
            writer.release()
            with writing(path):
                os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
