"""Videos, folders of images and simulated episodes as sources of images."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.images import image_file_to_rgb
from training.data.salvage import Damage
from training.data.sources import Item, Source, Topic, natural
from training.simulation.episode import read_frames

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
IMAGE_RATE = 30.0
"""Files in a folder have no time: they are taken to be this many to the second."""
_ENDS_EARLY = 0.02
"""Containers only estimate their number of frames; a video this much shorter than it says is cut off."""
_Read = TypeVar("_Read")


class Video(Source):
    """A video file that OpenCV can read."""

    kind = "video"

    def files(self) -> list[Path]:
        """See Source."""
        return [self.path]

    def topics(self) -> list[Topic]:
        """See Source."""
        return [Topic("", "video", self._frame_count, True)]

    @cached_property
    def _frame_count(self) -> int:
        capture = self._open()
        try:
            return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        finally:
            capture.release()

    def items(self, topic: str, start: int = 0) -> Iterator[Item | Damage]:
        """See Source."""
        capture, name = self._open(), self.path.name
        rate = capture.get(cv2.CAP_PROP_FPS)
        period = round(1e9 / (rate if 0 < rate < 1e4 else IMAGE_RATE))
        codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace").strip("\0 ")
        stamp, number = -period, 0
        try:
            while capture.grab():
                told = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                stamp = told if told > stamp else stamp + period
                if number >= start:
                    read, frame = capture.retrieve()
                    if read:
                        yield Item(name, stamp, f"frame {number}", codec, partial(_rgb, frame))
                    else:
                        yield Damage(f"frame {number}", "cannot be decoded")
                number += 1
        finally:
            capture.release()
        if start <= number < self._frame_count * (1 - _ENDS_EARLY) - 1:
            yield Damage(f"frame {number}", f"the video ends here, of {self._frame_count} frames")

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG, _decoding_threads())
        if not capture.isOpened():  # something that FFmpeg does not read, or not in this OpenCV
            capture.open(str(self.path))
        if not capture.isOpened():
            raise UserError(
                f"{self.path} cannot be opened as a video: it is cut off, or of a kind OpenCV does not read"
            )
        return capture


def _decoding_threads() -> list[int]:
    """FFmpeg takes all cores; here half of them, as what is decoded has work for the others."""
    try:
        return [cv2.CAP_PROP_N_THREADS, max(1, (os.cpu_count() or 1) // 2)]
    except AttributeError:  # OpenCV before 4.7
        return []


class ImageFolder(Source):
    """A folder of images, in natural order of their names; each of them counts as one instant."""

    kind = "folder of images"

    def files(self) -> list[Path]:
        """See Source."""
        return self._files

    @cached_property
    def _files(self) -> list[Path]:
        there = (path for path in self.path.iterdir() if not path.name.startswith("."))
        found = (path for path in there if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        return sorted(found, key=lambda path: natural(path.name))

    def topics(self) -> list[Topic]:
        """See Source."""
        return [Topic("", "image files", len(self._files), True)]

    def items(self, topic: str, start: int = 0) -> Iterator[Item | Damage]:
        """See Source."""
        for number, path in enumerate(self._files[start:], start):
            stamp, encoding = round(number * 1e9 / IMAGE_RATE), path.suffix[1:].lower()
            yield Item(self.path.name, stamp, path.name, encoding, partial(image_file_to_rgb, path))


class Episodes(Source):
    """A folder of simulated episodes, each of them a recording of its own, or a single one."""

    kind = "simulated episodes"
    is_decoded = True

    def files(self) -> list[Path]:
        """See Source."""
        return self._files

    @cached_property
    def _files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        found = (path for path in self.path.iterdir() if re.fullmatch(r"episode_\d+\.npz", path.name))
        return sorted(found, key=lambda path: natural(path.name))

    @cached_property
    def _first(self) -> int:
        for path in self._files:
            try:
                return len(read_frames(path)[0])
            except UserError:
                continue
        raise UserError(f"none of the {len(self._files)} episodes in {self.path} can be read: simulate them again")

    def topics(self) -> list[Topic]:
        """See Source."""
        return [Topic("", "episodes", len(self._files) * self._first, True)]

    def items(self, topic: str, start: int = 0) -> Iterator[Item | Damage]:
        """See Source. While an episode is used the next is read."""
        number = 0
        for path, found in zip(self._files, _one_ahead(_read_frames, self._files), strict=True):
            if isinstance(found, Damage):
                if number >= start:
                    yield found
                number += 1
                continue
            frames, fps = found
            name, recording = path.name, path.stem
            for index in range(max(start - number, 0), len(frames)):
                decode = partial(np.asarray, frames[index])
                yield Item(recording, round(index * 1e9 / fps), f"{name}, frame {index}", "rgb8", decode)
            number += len(frames)


def _read_frames(path: Path) -> tuple[np.ndarray, float] | Damage:
    try:
        return read_frames(path)
    except UserError as error:
        return Damage(path.name, str(error))


def _one_ahead(read: Callable[[Path], _Read], paths: list[Path]) -> Iterator[_Read]:
    """What `read` gives for each path, in order; one more is read in a thread of its own meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        waiting: deque[Future[_Read]] = deque()
        for path in paths:
            waiting.append(reader.submit(read, path))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """Of what OpenCV read: the same pixels, seen from red to blue."""
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if pixels.ndim == 2 else pixels[..., 2::-1]
