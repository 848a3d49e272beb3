"""A COCO keypoints file and its images as one labelled video, for annotated real data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keypoint_perception.decoding import decoded
from keypoint_perception.errors import UserError
from keypoint_perception.geometry import rescale_pixels, resize
from training.evaluation.videos import LabelledVideo, adjacency_of

FIT_SPLITS, MEASURE_SPLITS = ("train",), ("test", "val")
"""What `split` of an image may be."""


def read_coco(path: Path, fit_on: frozenset[str] | None = None) -> LabelledVideo:
    """All annotations of one file, whole images of one object each, in the order of the file names.

    Images of several sizes are resized, with their keypoints, to the most frequent size (of two as frequent, the
    larger). Which frames a regression is fitted on say the file names in `fit_on`, else each image's `split`
    ("train", or "test" or "val") where every image has one, else nobody.
    Raises UserError where it is no such file or an image is missing.
    """
    try:
        content = json.loads(path.read_text())
        category = content["categories"][0]
        images = {image["id"]: image for image in content["images"]}
        annotations = sorted(content["annotations"], key=lambda a: images[a["image_id"]]["file_name"])
        names = tuple(map(str, category["keypoints"]))
        values = np.array([np.reshape(a["keypoints"], (len(names), 3)) for a in annotations], dtype=np.float64)
        edges = np.array(category.get("skeleton", []), dtype=int).reshape(-1, 2) - 1
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{path} is not a COCO keypoints file ({type(error).__name__}: {error}): it needs images, annotations with "
            "3 N numbers in `keypoints`, and one category with names in `keypoints`"
        ) from None
    if not annotations:
        raise UserError(f"{path} has no annotations: give a file with at least one")
    used = [images[a["image_id"]] for a in annotations]
    labelled = values[..., 2] > 0
    joints = np.where(labelled[..., None], values[..., :2], np.nan)
    frames, joints = _one_size([_read_image(path.parent / image["file_name"]) for image in used], joints)
    return LabelledVideo(
        name=path.stem,
        variant=str(category.get("name", path.stem)),
        frames=frames,
        joints=joints,
        visible=labelled,
        adjacency=adjacency_of(edges, len(names)),
        mask=None,
        ordered=False,
        names=names,
        fit=_fit(path, used, fit_on),
    )


def _one_size(frames: list[np.ndarray], joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames as one array (T, H, W, 3), and joints (T, N, 2) in its pixels."""
    sizes = [(frame.shape[1], frame.shape[0]) for frame in frames]
    counts = Counter(sizes)
    size = max(counts, key=lambda s: (counts[s], s[0] * s[1]))
    joints = np.stack([rescale_pixels(pose, own, size) for pose, own in zip(joints, sizes, strict=True)])
    return np.stack([resize(frame, size) for frame in frames]), joints


def _fit(path: Path, images: list[dict[str, Any]], fit_on: frozenset[str] | None) -> np.ndarray | None:
    if fit_on is not None:
        chosen = np.array([image["file_name"] in fit_on for image in images])
        if not chosen.any() or chosen.all():
            raise UserError(
                f"the list of files to fit on names {'all' if chosen.all() else 'none'} of the images of {path}: "
                "it must name some, as they are written in its file_name, and leave some to measure on"
            )
        return chosen
    splits = [image.get("split") for image in images]
    if None in splits:
        return None
    strange = sorted({str(split) for split in splits if split not in (*FIT_SPLITS, *MEASURE_SPLITS)})
    if strange:
        raise UserError(f"{path} has images of split {', '.join(strange)}: allowed are train, test and val")
    return np.array([split in FIT_SPLITS for split in splits])


def _read_image(path: Path) -> np.ndarray:
    image = decoded(cv2.imread, str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path} cannot be read as an image: it must stand beside the .json that names it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
