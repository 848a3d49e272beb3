"""From a training run to one .onnx file: `python -m training export RUN -o MODEL.onnx [--precision fp32|fp16|int8]`.

The graph takes uint8 images and holds everything after the resize. What does not depend on the image (adjacency,
parent, level) goes into the description, not into the graph. A model whose keypoints differ from PyTorch's on real
frames by more than `TOLERANCE_PX` is not written.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from keypoint_perception.command_line import Parser
from keypoint_perception.errors import UserError
from keypoint_perception.geometry import normalised_to_pixels
from keypoint_perception.model import Alike, Group, ModelInfo, write_model
from training.checkpoint import Checkpoint, read_checkpoint
from training.data import load_data
from training.kinematics import estimate_kinematics, numbers_leap, spectral_groups
from training.method import Method
from training.onnx_graph import TOLERANCE_PX, Precision, detect_frames, parity, to_onnx

PARITY_FRAMES = 64
TRAJECTORY_FRAMES = 2000
LEAST_FRAMES = 5
"""Of a short recording at least so many are looked at: in fewer nothing seems to move."""
STRETCHES, STRETCH_FRAMES = 20, 40
"""So many stretches of so many successive frames show whether a model's numbers stay on one part of the body."""
LEAPS = 1.8
"""From here on of `numbers_leap` they do not."""


def sample_frames(data: Any, count: int) -> np.ndarray:
    """`count` frames (N, H, W, 3) uint8 or all there are, evenly over those of all recordings.

    Raises UserError where there is none.
    """
    sequences = [frames for _, frames in data.sequences()]
    starts = np.cumsum([0, *map(len, sequences)])
    if not starts[-1]:
        raise UserError("the recordings hold no frames: give others")
    chosen = np.unique(np.linspace(0, starts[-1] - 1, count).astype(int))
    shares = np.split(chosen, np.searchsorted(chosen, starts[1:-1]))
    return np.concatenate([f[share - start] for f, share, start in zip(sequences, shares, starts[:-1], strict=True)])


def trajectories(method: Method, data: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Keypoints (T, K, 2) in input pixels and scores (T, K) of recordings, one to two `TRAJECTORY_FRAMES` in all.

    Evenly of each recording; where they are many and short, of the longest.
    """
    sequences = [frames for _, frames in data.sequences() if len(frames) > 1]
    stride = sum(map(len, sequences)) // TRAJECTORY_FRAMES
    thinned = [frames[:: max(min(stride, len(frames) // LEAST_FRAMES), 1)] for frames in sequences]
    thinned.sort(key=len, reverse=True)
    ends = np.cumsum([len(frames) for frames in thinned])
    return [_trajectory(method, frames) for frames in thinned[: 1 + np.searchsorted(ends, 2 * TRAJECTORY_FRAMES)]]


def _trajectory(method: Method, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (T, K, 2) in input pixels and scores (T, K) of frames (T, H, W, 3)."""
    detection = detect_frames(method, frames)
    size = frames.shape[2], frames.shape[1]
    return normalised_to_pixels(detection.keypoints.numpy(), size), detection.scores.numpy()


def alike_points(method: Method, data: Any) -> Alike:
    """All points, where the method numbers them by their place in the picture (`numbers_leap`), else none."""
    sequences = [frames for _, frames in data.sequences() if len(frames) > 1]
    each = -(-STRETCHES // max(len(sequences), 1))
    stretches = []
    for frames in sequences[:: max(len(sequences) // STRETCHES, 1)]:
        for start in np.unique(np.linspace(0, max(len(frames) - STRETCH_FRAMES, 0), each).astype(int)):
            stretches.append(_trajectory(method, frames[start : start + STRETCH_FRAMES])[0])
    if not stretches or numbers_leap(stretches) < LEAPS:
        return ()
    return (tuple((point,) for point in range(method.keypoint_count)),)


class Skeleton(NamedTuple):
    """The static part of a model and where it comes from."""

    adjacency: np.ndarray | None
    """(K, K), None where the method predicts one per image."""
    parent: tuple[int, ...]
    level: tuple[int, ...]
    groups: tuple[Group, ...]
    origin: str


def skeleton(method: Method, data: Any, frames: np.ndarray) -> Skeleton:
    """Graph, forest and groups: the method's own or, where it learns no graph, estimated from trajectories.

    Where no recording has two frames there is no graph.
    """
    found = detect_frames(method, frames[:2])
    parent = tuple(found.parent[0].tolist())
    level = tuple(found.level[0].tolist())
    if "adjacency" not in method.static_fields:
        return Skeleton(None, parent, level, (), "predicted for each image")
    adjacency = found.adjacency[0].double().numpy()
    if adjacency.any():
        groups = _groups(spectral_groups(adjacency))
        return Skeleton(adjacency, parent, level, groups, method.graph_origin)
    moving = trajectories(method, data)
    if not moving:
        return Skeleton(adjacency, parent, level, (), "none: no recording has two frames to estimate one from")
    estimate = estimate_kinematics(moving)
    return Skeleton(
        estimate.adjacency,
        parent,
        level,
        _groups(estimate.groups),
        f"estimated from trajectories over {estimate.frames} frames: constant distances, spanning tree, clusters",
    )


def _groups(members: list[tuple[int, ...]]) -> tuple[Group, ...]:
    return tuple(Group(f"part_{number}", keypoints) for number, keypoints in enumerate(members) if len(keypoints) > 1)


def describe(checkpoint: Checkpoint, data: Any, name: str, method: Method, found: Skeleton) -> ModelInfo:
    """The model's description."""
    config = checkpoint.config
    adjacency = None if found.adjacency is None else tuple(map(tuple, found.adjacency.tolist()))
    count = len(found.parent)
    digits = len(str(count - 1))
    info = ModelInfo(
        name=name,
        method=config.name,
        input_size=config.data.input_size,
        keypoint_names=method.keypoint_names or tuple(f"k{index:0{digits}d}" for index in range(count)),
        adjacency=adjacency,
        parent=found.parent,
        level=found.level,
        groups=found.groups,
        alike=method.alike,
        either_end=method.either_end,
        roi=data.viewport_roi,
        training={
            **checkpoint.about,
            "steps": checkpoint.step,
            "seed": config.loop.seed,
            "graph": found.origin,
            "options": config.to_dict()["method"],
        },
    )
    if adjacency is not None or info.predicts_tree:
        return info
    return replace(info, alike=alike_points(method, data))


def read_figures(path: Path) -> dict[str, Any]:
    """Measured quality from a JSON file. Raises UserError where it holds no object."""
    try:
        figures = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"figures {path} cannot be read ({error}): give a JSON file, as `evaluate -o` writes") from None
    if not isinstance(figures, dict):
        raise UserError(f"figures {path} hold a {type(figures).__name__}: give a JSON object of names and values")
    return figures


def export_run(
    run: Path,
    out: Path,
    precision: Precision = "fp32",
    name: str | None = None,
    data: Any = None,
    figures: dict[str, Any] | None = None,
    sources: list[str] | None = None,
) -> str:
    """Writes the model of a run. Returns a line that says what was written and how it compares to PyTorch.

    data: the run's recordings where they are loaded already; sources: where they are, if not where the run found them.
    figures: measured quality for the description.
    Raises UserError, and writes nothing, where the run or its recordings cannot be read or the parity check fails.
    """
    checkpoint = read_checkpoint(run)
    method = checkpoint.build()
    if data is None:
        config = checkpoint.config.data
        data = load_data(replace(config, sources=sources) if sources else config)
        if sources and data.fingerprint != checkpoint.about["data"]:
            raise UserError(f"{', '.join(sources)} are not the recordings of {run}: give those, wherever they are now")
    frames = sample_frames(data, PARITY_FRAMES)
    onnx = to_onnx(method, frames, precision)
    gap = parity(method, onnx, frames)
    if not gap.accepted(precision):
        raise UserError(
            f"{out} is not written: {precision} keypoints differ from PyTorch's by {gap}, allowed is"
            f" {TOLERANCE_PX[precision]} px: use --precision fp32"
        )
    info = describe(checkpoint, data, name or out.stem, method, skeleton(method, data, frames))
    info.figures.update(figures or {})
    info.figures["parity_px"] = {key: round(value, 5) for key, value in gap._asdict().items()}
    info.training["precision"] = precision
    model = write_model(out, onnx, info)
    return f"wrote {out} ({len(model.data) / 1e6:.2f} MB, {precision}): against PyTorch on {len(frames)} frames {gap}"


def main(argv: list[str]) -> int:
    """Runs `export`."""
    parser = Parser(prog="python -m training export", description="Write a trained model as .onnx.")
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run that `fit` made")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="MODEL.onnx", help="the model's file")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
    parser.add_argument("--name", help="name of the model; the file's name by default")
    parser.add_argument("--data", nargs="+", metavar="PATH", help="the recordings, where they have moved since")
    parser.add_argument("--figures", type=Path, metavar="JSON", help="measured quality, for the model's description")
    given = parser.parse_args(argv)
    figures = read_figures(given.figures) if given.figures else None
    if given.out.suffix != ".onnx":
        raise UserError(f"-o is {given.out}: a model file must end in .onnx")
    print(export_run(given.run, given.out, given.precision, given.name, figures=figures, sources=given.data))
    return 0
