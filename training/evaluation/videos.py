"""Labelled videos, from wherever they come: what every measure is taken on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from keypoint_perception.errors import UserError
from training.simulation.episodes import read_episode


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


def read_labelled(path: Path) -> Iterator[LabelledVideo]:
    """The labelled videos of a path: a folder of simulated episodes or a COCO keypoints file (.json).

    Raises UserError that says what the path is and what is allowed.
    """
    if path.is_file() and path.suffix == ".json":
        yield _read_coco(path)
        return
    episodes = sorted(path.glob("episode_*.npz")) if path.is_dir() else []
    if not episodes:
        raise UserError(
            f"{path} has no labels that can be measured against: give a folder of simulated episodes "
            "(`python -m training simulate SCENE -o DIR`) or a COCO keypoints .json beside its images"
        )
    for file in episodes:
        episode = read_episode(file)
        yield LabelledVideo(
            name=file.stem,
            variant=episode.variant,
            frames=episode.frames,
            joints=episode.keypoints,
            visible=episode.visible,
            adjacency=episode.adjacency,
            mask=episode.mask,
        )


def _read_coco(path: Path) -> LabelledVideo:
    """All annotations of one COCO keypoints file, cropped to nothing: whole images, one object each."""
    try:
        content = json.loads(path.read_text())
        category = content["categories"][0]
        files = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = sorted(content["annotations"], key=lambda a: files[a["image_id"]])
        count = len(category["keypoints"])
        values = np.array([a["keypoints"] for a in annotations], dtype=np.float64).reshape(-1, count, 3)
        edges = np.array(category.get("skeleton", []), dtype=int).reshape(-1, 2) - 1
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{path} is not a COCO keypoints file ({type(error).__name__}: {error}): it needs images, annotations with "
            "3 N numbers in `keypoints`, and one category with names in `keypoints`"
        ) from None
    frames = [_read_image(path.parent / files[a["image_id"]]) for a in annotations]
    if len({frame.shape for frame in frames}) > 1:
        raise UserError(f"the images of {path} have different sizes: resize them and their keypoints to one size")
    adjacency = np.zeros((count, count), bool)
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = True
    labelled = values[..., 2] > 0
    joints = np.where(labelled[..., None], values[..., :2], np.nan)
    return LabelledVideo(
        path.stem, category["name"], np.stack(frames), joints, labelled, adjacency, None, ordered=False
    )


def _read_image(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path} cannot be read as an image: it must stand beside the .json that names it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
