"""The model file: one .onnx that carries its own description, and nothing else crosses from training to the robot.

Input `image` uint8 (N, H, W, 3) RGB; outputs `keypoints` (N, K, 2) normalised, `scores` (N, K) in [0, 1] and, where
the skeleton depends on the image, `adjacency` (N, K, K). The description is JSON under the metadata key
`keypoint_perception`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.files import reading, written_whole
from keypoint_perception.geometry import checked_roi
from keypoint_perception.observation import Hierarchy
from keypoint_perception.onnx_file import append_metadata, read_structure

METADATA_KEY = "keypoint_perception"
FORMAT_VERSION = 1

Alike = tuple[tuple[tuple[int, ...], ...], ...]
"""Groups of limbs that look alike, each limb its keypoints from the body outwards."""


@dataclass(frozen=True)
class Group:
    """Keypoints that belong together, an object or a rigid part."""

    name: str
    keypoints: tuple[int, ...]


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says of itself. K keypoints."""

    name: str
    method: str
    input_size: tuple[int, int]
    """(width, height) in pixels."""
    keypoint_names: tuple[str, ...]
    adjacency: tuple[tuple[float, ...], ...] | None
    """(K, K) static skeleton in [0, 1], at least 0.5 is an edge; None where the model predicts one per image."""
    parent: tuple[int, ...]
    """(K,) parent keypoint, -1 for a root."""
    level: tuple[int, ...]
    """(K,) 0 is coarsest."""
    groups: tuple[Group, ...] = ()
    """Disjoint groups of keypoints, coarser than every level."""
    alike: Alike = ()
    """Limbs whose numbers may change from one image to another."""
    either_end: bool = False
    """Whether the keypoints are one chain, in their order, which may begin at either end in an image."""
    roi: tuple[float, float, float, float] | None = None
    """The part of the camera image the model was trained on: x0, y0, x1, y1 as fractions; None is all of it."""
    training: dict[str, Any] = field(default_factory=dict)
    """Command, data fingerprint, seed, time, machine."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Measured quality."""
    format_version: int = FORMAT_VERSION

    @property
    def keypoint_count(self) -> int:
        """K."""
        return len(self.keypoint_names)

    @property
    def predicts_tree(self) -> bool:
        """Whether the model says for each image which joints of one tree, `parent`, the object has."""
        return self.adjacency is None and any(above >= 0 for above in self.parent)

    def hierarchy(self) -> Hierarchy:
        """Groups first (level 0), then the keypoints coarse to fine; a keypoint of no group and no parent is a root."""
        group_of = {k: g for g, group in enumerate(self.groups) for k in group.keypoints}
        parent, keypoint_id = [-1] * len(self.groups), [-1] * len(self.groups)
        level, name = [0] * len(self.groups), [group.name for group in self.groups]
        node_of: dict[int, int] = {}
        for keypoint in sorted(range(self.keypoint_count), key=lambda k: (self.level[k], k)):
            node_of[keypoint] = len(parent)
            above = node_of[self.parent[keypoint]] if self.parent[keypoint] >= 0 else group_of.get(keypoint, -1)
            parent.append(above)
            keypoint_id.append(keypoint)
            level.append(level[above] + 1 if above >= 0 else 0)
            name.append(self.keypoint_names[keypoint])
        return Hierarchy(tuple(parent), tuple(keypoint_id), tuple(level), tuple(name))

    def to_json(self) -> str:
        """The metadata value."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """Parses and validates a metadata value. Raises UserError that names the first thing wrong."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"its description is not JSON ({error}): export the model again") from None
        if not isinstance(raw, dict):
            raise UserError(f"its description is a JSON {type(raw).__name__}, not an object: export the model again")
        version = raw.get("format_version")
        if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            allowed = f"this release reads 1 to {FORMAT_VERSION}"
            raise UserError(f"its format_version is {version!r}, {allowed}: update keypoint_perception")
        known = {f.name for f in fields(cls)}
        try:
            info = cls(**{key: value for key, value in raw.items() if key in known})
            return info._validated()
        except (UserError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise UserError(f"its description is inconsistent ({error}): export the model again") from None

    def _validated(self) -> ModelInfo:
        """A copy with exact types. Raises ValueError, TypeError or UserError where fields disagree."""
        count = len(self.keypoint_names)
        if count == 0 or not all(isinstance(name, str) for name in self.keypoint_names):
            raise ValueError("keypoint_names must be at least one string")
        width, height = self.input_size
        if not all(isinstance(side, int) and 8 <= side <= 4096 for side in (width, height)):
            raise ValueError(f"input_size is {self.input_size}, allowed are 8 to 4096 pixels a side")
        adjacency = None if self.adjacency is None else _skeleton(self.adjacency, count)
        parent, level = tuple(int(p) for p in self.parent), tuple(int(n) for n in self.level)
        _check_forest(parent, level, count)
        groups = tuple(Group(str(g["name"]), tuple(int(k) for k in g["keypoints"])) for g in map(_as_dict, self.groups))
        members = [k for group in groups for k in group.keypoints]
        if len(members) != len(set(members)) or any(not 0 <= k < count for k in members):
            raise ValueError("groups must be disjoint sets of keypoint ids")
        alike = tuple(tuple(tuple(int(k) for k in limb) for limb in limbs) for limbs in self.alike)
        _check_alike(alike, parent)
        roi = None if self.roi is None else checked_roi(self.roi)
        if not isinstance(self.training, dict) or not isinstance(self.figures, dict):
            raise ValueError("training and figures must be objects")
        return ModelInfo(
            name=str(self.name),
            method=str(self.method),
            input_size=(width, height),
            keypoint_names=tuple(self.keypoint_names),
            adjacency=adjacency,
            parent=parent,
            level=level,
            groups=groups,
            alike=alike,
            either_end=bool(self.either_end),
            roi=roi,
            training=self.training,
            figures=self.figures,
        )


@dataclass(frozen=True)
class Model:
    """A model file that has been read and found consistent; no engine has been made of it yet."""

    path: Path
    data: bytes
    """The whole file, read once, so that what was validated is what runs."""
    info: ModelInfo
    sha256: str

    @property
    def id(self) -> str:
        """name@hash, the `model_id` of every message."""
        return f"{self.info.name}@{self.sha256[:12]}"


def check_is_file(path: Path) -> None:
    """Raises UserError where there is no model file."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not there"
        raise UserError(f"model {path} is {kind}: give the .onnx file that `python -m training export` wrote")


def read_model(path: str | os.PathLike[str]) -> Model:
    """Reads and validates a model file without running anything of it. Raises UserError that says what is wrong."""
    path = Path(path)
    check_is_file(path)
    with reading(path):
        data = path.read_bytes()
    try:
        structure = read_structure(data)
        if METADATA_KEY not in structure.metadata:
            raise UserError("it is an ONNX model but not one of ours: export it with `python -m training export`")
        info = ModelInfo.from_json(structure.metadata[METADATA_KEY])
        structure.check_interface(info.input_size, info.keypoint_count, dynamic_adjacency=info.adjacency is None)
    except UserError as error:
        raise UserError(f"model {path} is refused: {error}") from None
    return Model(path, data, info, hashlib.sha256(data).hexdigest())


def write_model(path: str | os.PathLike[str], onnx: bytes, info: ModelInfo) -> Model:
    """Writes an ONNX graph with its description, to a temporary name first, and reads it back.

    Raises UserError where the graph and the description disagree; then nothing is left behind.
    """
    path = Path(path)
    with written_whole(path) as temporary:
        temporary.write_bytes(append_metadata(onnx, METADATA_KEY, info.to_json()))
        model = read_model(temporary)
    return Model(path, model.data, model.info, model.sha256)


def _skeleton(adjacency: Any, count: int) -> tuple[tuple[float, ...], ...]:
    matrix = np.asarray(adjacency, dtype=np.float64)
    if matrix.shape != (count, count) or not np.array_equal(matrix, matrix.T):
        raise ValueError(f"adjacency must be a symmetric {count} x {count} matrix")
    if not (matrix.min() >= 0 and matrix.max() <= 1) or matrix.diagonal().any():  # NaN is neither
        raise ValueError("adjacency must be in [0, 1] with a zero diagonal")
    return tuple(map(tuple, matrix.tolist()))


def _check_forest(parent: tuple[int, ...], level: tuple[int, ...], count: int) -> None:
    if len(parent) != count or len(level) != count:
        raise ValueError(f"parent and level must have {count} entries each, got {len(parent)} and {len(level)}")
    for child, above in enumerate(parent):
        if above >= count or above < -1 or (above >= 0 and level[above] >= level[child]):
            raise ValueError(f"parent[{child}] is {above}: a parent must exist and have a smaller level")


def _check_alike(alike: Alike, parent: tuple[int, ...]) -> None:
    members = [k for limbs in alike for limb in limbs for k in limb]
    if len(members) != len(set(members)) or any(not 0 <= k < len(parent) for k in members):
        raise ValueError("alike must be disjoint limbs of keypoint ids")
    for limbs in alike:
        # What is above a keypoint: its place in the limb or, where the limb begins, another keypoint.
        above = {tuple(_place(parent[k], limb) for k in limb) for limb in limbs}
        if len(limbs) < 2 or len(above) != 1:
            raise ValueError(f"limbs that are alike must be at least two of one shape, at one keypoint: {limbs}")


def _place(keypoint: int, limb: tuple[int, ...]) -> tuple[bool, int]:
    return (True, limb.index(keypoint)) if keypoint in limb else (False, keypoint)


def _as_dict(group: Any) -> dict[str, Any]:
    return asdict(group) if isinstance(group, Group) else group
