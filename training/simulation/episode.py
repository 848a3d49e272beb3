"""One simulated episode and its file.

The file is an ordinary `.npz`: numpy reads it. Frames are kept as differences in time (modulo 256) and deflated
lightly, which is smaller and faster than frames deflated well; `np.cumsum(d, axis=0, dtype=np.uint8)` gives them back.
"""

from __future__ import annotations

import io
import itertools
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole

_DEFLATE_LEVEL = 1
_DIFFERENCES = "frame_differences"


@dataclass(frozen=True)
class Episode:
    """A film of one articulated object and what is true in it. T frames of H x W pixels, J joints.

    Pixel (0, 0) is the centre of the top-left pixel.
    """

    scene: str
    """The set, "spiders"."""
    variant: str
    """The object, "spider5"."""
    seed: int
    """Seed of the run that made it."""
    fps: float
    """Frames a second of simulated time."""
    frames: np.ndarray
    """(T, H, W, 3) uint8 RGB."""
    keypoints: np.ndarray
    """(T, J, 2) float32 pixels, (x, y), also of joints that are hidden."""
    keypoints_3d: np.ndarray
    """(T, J, 3) float32 metres in the camera's optical frame (x right, y down, z forward)."""
    visible: np.ndarray
    """(T, J) bool: in the picture, and no other part in front, measured in the depth picture."""
    mask: np.ndarray
    """(T, H, W) bool: pixels of which the object covers at least half."""
    adjacency: np.ndarray
    """(J, J) bool, symmetric, zero diagonal: the kinematic tree."""
    names: tuple[str, ...]
    """(J,) names of the joints."""


_ARRAYS = ("keypoints", "keypoints_3d", "visible", "mask", "adjacency")
_SCALARS = {"scene": str, "variant": str, "seed": int, "fps": float}


def write_episode(path: str | os.PathLike[str], episode: Episode) -> None:
    """Writes an episode, whole or not at all."""
    frames = episode.frames
    differences = np.concatenate([frames[:1], frames[1:] - frames[:-1]])
    members = {name: getattr(episode, name) for name in (*_SCALARS, *_ARRAYS)}
    members["names"] = np.array(episode.names, dtype=np.str_)
    members[_DIFFERENCES] = differences
    with written_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, value in members.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asanyarray(value), allow_pickle=False)
            # ZipInfo carries a fixed date: the same episode is the same file.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getbuffer(), zipfile.ZIP_DEFLATED, _DEFLATE_LEVEL)


def read_episode(path: str | os.PathLike[str]) -> Episode:
    """Reads what `write_episode` wrote. Raises UserError for anything else."""
    with _opened(path) as archive:
        arrays: dict[str, Any] = {name: archive[name] for name in _ARRAYS}
        scalars: dict[str, Any] = {name: kind(archive[name].item()) for name, kind in _SCALARS.items()}
        names = tuple(archive["names"].tolist())
        return Episode(frames=_summed(archive[_DIFFERENCES]), names=names, **arrays, **scalars)


def read_frames(path: str | os.PathLike[str]) -> tuple[np.ndarray, float]:
    """The frames (T, H, W, 3) uint8 RGB alone and how many there are a second. Raises UserError for anything else."""
    with _opened(path) as archive:
        differences, fps = archive[_DIFFERENCES], float(archive["fps"].item())
        if differences.ndim != 4 or differences.shape[3] != 3 or differences.dtype != np.uint8 or not fps > 0:
            raise ValueError(f"frames {differences.shape} {differences.dtype}, {fps} a second")
        return _summed(differences), fps


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Mapping[str, np.ndarray]]:
    """The members of an episode's file. What goes wrong with them becomes a UserError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive
    except KeyError as error:
        raise UserError(f"{path} is no simulated episode: it has no {error.args[0]!r}") from error
    except Exception as error:  # whatever a parser stumbles over in a damaged file
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read the episode {path}: {words}; delete it and run simulate again") from error


def _summed(differences: np.ndarray) -> np.ndarray:
    """Frames from their differences, in place; much faster than numpy's cumsum along the first axis."""
    for before, frame in itertools.pairwise(differences):
        frame += before
    return differences
