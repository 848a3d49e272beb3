"""Labelled videos: what every measure is taken on. `reading` gets them from files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.geometry import rescale_pixels, resize
from keypoint_perception.lifting import Intrinsics


class Depth(NamedTuple):
    """What is known of the third dimension. T frames, N joints; metres in the camera's optical frame."""

    images: dict[int, np.ndarray]
    """Frame number to its depth, (H, W) float32, NaN unknown. Not every frame needs one."""
    intrinsics: Intrinsics
    joints: np.ndarray
    """(T, N, 3) true joints."""


class LabelledVideo(NamedTuple):
    """T frames of one object with its N true joints."""

    name: str
    variant: str
    """Videos of one variant have the same joints in the same order."""
    frames: np.ndarray
    """(T, H, W, 3) uint8 RGB."""
    joints: np.ndarray
    """(T, N, 2) pixels; NaN where a joint is not annotated."""
    visible: np.ndarray
    """(T, N) bool."""
    adjacency: np.ndarray
    """(N, N) bool."""
    mask: np.ndarray | None
    """(T, H, W) bool, where the object is; None where nobody knows."""
    ordered: bool = True
    """Whether the frames follow one another in time."""
    names: tuple[str, ...] = ()
    """(N,) names of the joints; empty where they have none."""
    fit: np.ndarray | None = None
    """(T,) bool, the frames that a regression is fitted on; None leaves the choice to the measure."""
    depth: Depth | None = None
    """None where there is none."""


def check_split(chosen: Iterable[bool], kind: str, those: str, hint: str) -> None:
    """Raises UserError where all or none are `chosen` to be fitted on: nothing is left to measure on, or to fit.

    kind: of what is listed, such as "files"; those: all that could be named; hint: how, in words.
    """
    found = set(chosen)
    if len(found) < 2:
        raise UserError(
            f"the list of {kind} to fit on names {'all' if True in found else 'none'} of {those}: it must name some, "
            f"{hint}, and leave some to measure on"
        )


def resized(video: LabelledVideo, size: tuple[int, int]) -> LabelledVideo:
    """The same video with frames of `size` (width, height) and without depth."""
    height, width = video.frames.shape[1:3]
    frames = np.stack([resize(frame, size) for frame in video.frames])
    mask = video.mask
    if mask is not None:
        mask = np.stack([resize(m.astype(np.uint8) * 255, size) > 127 for m in mask])
    joints = rescale_pixels(video.joints, (width, height), size)
    return video._replace(frames=frames, joints=joints, mask=mask, depth=None)
