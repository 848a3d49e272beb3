"""A COCO keypoints file and its images as one labelled video, for annotated real data."""

from __future__ import annotations

import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.geometry import rescale_pixels, resize
from keypoint_perception.images import image_file_to_rgb
from keypoint_perception.observation import adjacency_of
from training.evaluation.videos import LabelledVideo, check_split

FIT_SPLITS, MEASURE_SPLITS = ("train",), ("test", "val")
"""What `split` of an image may be."""
_FARTHEST_PX = 100_000
"""A label farther out is none."""


class _Labels(NamedTuple):
    """What a file says of T images, in the order of their names."""

    kind: str
    """What the joints are of."""
    names: tuple[str, ...]
    """(N,) of the joints."""
    adjacency: np.ndarray
    """(N, N) bool."""
    values: np.ndarray
    """(T, N, 3) float64, COCO's x, y and visibility."""
    images: list[dict[str, Any]]
    """(T,) COCO's images."""


def read_coco(path: Path, fit_on: frozenset[str] | None = None) -> LabelledVideo:
    """All annotations of one file, whole images of one object each, in the order of the file names.

    Images of several sizes are resized, with their keypoints, to the most frequent size (of two as frequent, the
    larger). Which frames a regression is fitted on say the file names in `fit_on`, else each image's `split`
    ("train", or "test" or "val") where every image has one, else nobody.
    Raises UserError where it is no such file, an image is missing, or a label makes no sense.
    """
    labels = _parsed(path)
    joints, labelled = _joints(path, labels)
    pictures = [_read_image(path.parent / image["file_name"]) for image in labels.images]
    _check_upright(path, labels.images, pictures)
    frames, joints = _one_size(pictures, joints)
    return LabelledVideo(
        name=path.stem,
        variant=labels.kind,
        frames=frames,
        joints=joints,
        visible=labelled,
        adjacency=labels.adjacency,
        mask=None,
        ordered=False,
        names=labels.names,
        fit=_fit(path, labels.images, fit_on),
    )


def _parsed(path: Path) -> _Labels:
    """Raises UserError where it is no such file, names no joints or annotations, or has several of one image."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): give a COCO keypoints file") from None
    images = _images(path, _objects(path, content, "images"))
    annotations = _objects(path, content, "annotations")
    for annotation in annotations:
        if _key(annotation.get("image_id")) not in images:
            raise UserError(
                f"{path} has an annotation of image {annotation.get('image_id')!r}, which is none of its images, such "
                f"as {next(iter(images), 'none at all')!r}: give it the `id` of its image"
            )
    annotations.sort(key=lambda a: images[a["image_id"]]["file_name"])
    category = _category(path, _objects(path, content, "categories"), annotations)
    try:
        names = tuple(map(str, category["keypoints"]))
        values = np.array([np.reshape(a["keypoints"], (len(names), 3)) for a in annotations], dtype=np.float64)
        adjacency = _adjacency(path, category.get("skeleton") or [], len(names))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{_no_coco(path)} ({type(error).__name__}: {error}): {_NEEDS}") from None
    if not annotations or not names:
        raise UserError(f"{path} has no {'joints' if annotations else 'annotations'}: give a file with at least one")
    used = [images[a["image_id"]] for a in annotations]
    twice = [image["file_name"] for image, other in pairwise(used) if image["id"] == other["id"]]
    if twice:
        raise UserError(f"{path} has several annotations of {twice[0]}: give one object an image")
    return _Labels(str(category.get("name", path.stem)), names, adjacency, values, used)


_NEEDS = "it needs images, annotations with 3 N numbers in `keypoints`, and one category with names in `keypoints`"


def _no_coco(path: Path) -> str:
    return f"{path} is not a COCO keypoints file"


def _objects(path: Path, content: Any, key: str) -> list[dict[str, Any]]:
    """A file's list of that name. Raises UserError where it has none."""
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise UserError(f"{_no_coco(path)} (its `{key}` are no list of objects): {_NEEDS}")
    return found


def _key(given: Any) -> Any:
    """An id as it can be looked up: None where it is neither a number nor a text."""
    return given if isinstance(given, (int, float, str)) else None


def _images(path: Path, images: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """The images by id. Raises UserError where an id or a file's name is none, or of two images."""
    by_id: dict[Any, dict[str, Any]] = {}
    names = set()
    for image in images:
        number, name = image.get("id"), image.get("file_name")
        if _key(number) is None:
            raise UserError(f"{path} has an image with the id {number!r}: give each image a number")
        if not _is_file_name(name):
            raise UserError(f"{path} has an image with the file_name {name!r}: give the name of its file")
        if number in by_id:
            raise UserError(f"{path} has two images with the id {number!r}: give each its own")
        if name in names:
            raise UserError(f"{path} has two images with the file_name {name!r}: give each file once")
        by_id[number] = image
        names.add(name)
    return by_id


def _is_file_name(given: Any) -> bool:
    try:
        return isinstance(given, str) and b"\0" not in os.fsencode(given)
    except UnicodeEncodeError:  # half of a character, as JSON can have it
        return False


def _category(path: Path, categories: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """The one that all annotations are of; the first where they do not say."""
    named = {_key(a.get("category_id")) for a in annotations} - {None}
    if len(named) > 1:
        listed = ", ".join(map(repr, sorted(named, key=lambda c: (isinstance(c, str), c))))
        raise UserError(f"{path} has annotations of categories {listed}: give a file for each")
    known = [category for category in categories if not named or _key(category.get("id")) in named]
    if not known:
        raise UserError(f"{path} has annotations of category {named.pop()!r}, which is none of its categories: add it")
    return known[0]


def _adjacency(path: Path, skeleton: list[Any], count: int) -> np.ndarray:
    """(N, N) bool of links in COCO's way of counting."""
    links = np.array(skeleton, dtype=np.float64).reshape(len(skeleton), 2)
    for given, link in zip(skeleton, links.tolist(), strict=True):
        if link[0] == link[1] or not all(end in range(1, count + 1) for end in link):
            raise UserError(
                f"{path} has the link {given} in its skeleton: COCO counts joints from 1, here to {count}, and a link "
                "joins two of them"
            )
    return adjacency_of(links.astype(int) - 1, count)


def _joints(path: Path, labels: _Labels) -> tuple[np.ndarray, np.ndarray]:
    """(T, N, 2) pixels, NaN where there is no label, and (T, N) whether there is."""
    labelled = labels.values[..., 2] > 0
    joints = np.where(labelled[..., None], labels.values[..., :2], np.nan)
    nowhere = labelled & ~(np.abs(joints) <= _FARTHEST_PX).all(axis=-1)
    if nowhere.any():
        frame, joint = np.argwhere(nowhere)[0]
        raise UserError(
            f"{path} has {labels.names[joint]} of {labels.images[frame]['file_name']} at "
            f"{joints[frame, joint].tolist()}: give pixels, at most {_FARTHEST_PX} from 0, or visibility 0"
        )
    return joints, labelled


def _check_upright(path: Path, images: list[dict[str, Any]], pictures: list[np.ndarray]) -> None:
    """Raises UserError where a picture (H, W, 3) is as high as the labels' image is wide: those are of it turned."""
    for image, picture in zip(images, pictures, strict=True):
        height, width = picture.shape[:2]
        if height != width and (image.get("width"), image.get("height")) == (height, width):
            raise UserError(
                f"{path}: {image['file_name']} has {width} x {height} pixels and is turned for show by its EXIF, after "
                "which it was labelled: save it upright"
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
        chosen = [image["file_name"] in fit_on for image in images]
        check_split(chosen, "files", f"the images of {path}", "as they are written in its file_name")
        return np.array(chosen)
    splits = [image.get("split") for image in images]
    if None in splits:
        return None
    strange = sorted({str(split) for split in splits if split not in (*FIT_SPLITS, *MEASURE_SPLITS)})
    if strange:
        raise UserError(f"{path} has images of split {', '.join(strange)}: allowed are train, test and val")
    return np.array([split in FIT_SPLITS for split in splits])


def _read_image(path: Path) -> np.ndarray:
    try:
        return image_file_to_rgb(path)
    except UserError as error:
        raise UserError(f"{path}: {error}; images must stand beside the .json that names them") from None
