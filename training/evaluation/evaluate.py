"""`python -m training evaluate`: a model file against data with known joints, by the papers' measures."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_perception.backends import Backend, open_backend
from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.geometry import Viewport, pixels_to_normalised
from keypoint_perception.model import Model, read_model
from training.evaluation import landmarks, stability, structure
from training.evaluation.scenes import epsilon_of
from training.evaluation.videos import LabelledVideo, read_labelled

BATCH = 64


@dataclass(frozen=True)
class PredictedVideo:
    """What a model says about a labelled video. Coordinates are normalised, in [-1, 1]."""

    video: LabelledVideo
    points: np.ndarray
    """(T, K, 2)."""
    scores: np.ndarray
    """(T, K)."""
    adjacency: np.ndarray
    """(K, K) of one frame, which stands for the whole video."""
    joints: np.ndarray
    """(T, N, 2) true joints."""


def predict(backend: Backend, model: Model, video: LabelledVideo, rng: np.random.Generator) -> PredictedVideo:
    """Runs a model over a video; `rng` draws the frame whose skeleton counts."""
    height, width = video.frames.shape[1:3]
    viewport = Viewport.of((width, height), model.info.input_size, model.info.roi)
    inputs = np.stack([viewport.view(frame) for frame in video.frames])
    outputs = [backend.run(inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)]
    points, scores = (np.concatenate([o[name] for o in outputs]) for name in ("keypoints", "scores"))
    frame = int(rng.integers(len(inputs)))
    if model.info.adjacency is None:
        adjacency = outputs[frame // BATCH]["adjacency"][frame % BATCH]
    else:
        adjacency = np.asarray(model.info.adjacency)
    without_frames = video._replace(frames=video.frames[:0].copy())  # they may be gigabytes, and have been seen
    return PredictedVideo(without_frames, points, scores, adjacency, viewport.to_normalised(video.joints))


def normalised_joints(video: LabelledVideo) -> np.ndarray:
    """The (T, N, 2) true joints of a video in [-1, 1] units of its whole frames."""
    height, width = video.frames.shape[1:3]
    return pixels_to_normalised(video.joints, (width, height))


def measure(videos: list[PredictedVideo], epsilon: float) -> dict[str, dict[str, float | None]]:
    """All measures of a model on a set of videos, as means over videos.

    `structure` and `joints` as in the skeleton paper; `regression` in [-1, 1] units without and with bias; `identity`.
    A measure that does not apply is None.
    """
    structures, lenient, joints = [], [], []
    for video in videos:
        linked = structure.linked_points(video.adjacency)
        complete = ~np.isnan(video.joints).any(axis=(1, 2))
        if not complete.any():
            continue
        matching = structure.match_trajectories(video.points[complete], video.joints[complete], linked)
        structures.append(structure.structure_scores(video.adjacency, video.video.adjacency, matching))
        lenient.append(structure.structure_scores(video.adjacency, video.video.adjacency, matching, lenient=True))
        joints.append(structure.joint_scores(video.points[complete], video.joints[complete], linked, epsilon))
    return {
        "structure": _mean(structures),
        "structure_lenient": _mean(lenient),
        "joints": _mean(joints),
        "regression": regression(videos),
        "identity": identity(videos),
    }


def regression(videos: list[PredictedVideo]) -> dict[str, float | None]:
    """Linear regression from keypoints to joints, for each variant fitted on one half and measured on the other.

    Halves are by video where a variant has several, else by time. Errors are mean distances in [-1, 1] units.
    """
    errors: dict[str, list[float]] = {"error": [], "error_with_bias": [], "baseline_mean_pose": []}
    for variant in sorted({video.video.variant for video in videos}):
        same = [video for video in videos if video.video.variant == variant]
        points = np.concatenate([video.points for video in same])
        joints = np.concatenate([video.joints for video in same]) + 1  # from the top-left corner, as the keypoints
        usable = ~np.isnan(joints).any(axis=(1, 2))
        boundary = sum(len(video.points) for video in same[: len(same) // 2]) or len(points) // 2
        train, test = np.flatnonzero(usable[:boundary]), boundary + np.flatnonzero(usable[boundary:])
        if len(train) == 0 or len(test) == 0:
            continue
        for name, bias in (("error", False), ("error_with_bias", True)):
            regressor = landmarks.Regressor.fit(points[train], joints[train], bias=bias)
            errors[name].append(landmarks.mean_error(regressor.predict(points[test]), joints[test]))
        errors["baseline_mean_pose"].append(landmarks.mean_pose_error(joints[train], joints[test]))
    return {name: float(np.mean(values)) if values else None for name, values in errors.items()}


def identity(videos: list[PredictedVideo]) -> dict[str, float | None]:
    """On the object, on the same part, without jitter."""
    on_object = [_on_object(v) for v in videos if v.video.mask is not None or v.video.adjacency.any()]
    moving = [v.points for v in videos if v.video.ordered and len(v.points) > 2]
    labelled = [v for v in videos if not np.isnan(v.joints).any()]
    return {
        "on_object": _mean_or_none(on_object),
        "same_part": _mean_or_none([stability.same_part_share(v.points, v.joints) for v in labelled]),
        "jitter": _mean_or_none([stability.jitter(points) for points in moving]),
    }


def _on_object(video: PredictedVideo) -> float:
    """By the mask, else by the true skeleton: its links, SKELETON_TOLERANCE thick to each side."""
    if video.video.mask is not None:
        return stability.on_object_share(video.points, video.video.mask)
    return stability.on_skeleton_share(video.points, video.joints, video.video.adjacency)


def evaluate_model(
    model: Model, data: Path, *, topic: str = "", epsilon: float | None = None, seed: int = 0
) -> dict[str, Any]:
    """Measures a model on labelled data. `seed` draws the frame of each video whose skeleton counts."""
    backend = open_backend("onnxruntime", model)
    rng = np.random.default_rng(seed)
    predicted = [predict(backend, model, video, rng) for video in read_labelled(data, topic)]
    return measure(predicted, epsilon or _scene_epsilon(data))


def _scene_epsilon(data: Path) -> float:
    description = data / "scene.json"
    return epsilon_of(json.loads(description.read_text()) if description.is_file() else {})


def _mean(rows: list[Any]) -> dict[str, float | None]:
    if not rows:
        return {}
    columns = {name: np.array([getattr(row, name) for row in rows]) for name in rows[0]._fields}
    return {name: None if np.isnan(v).all() else float(np.nanmean(v)) for name, v in columns.items()}


def _mean_or_none(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def table(measures: dict[str, dict[str, float | None]]) -> str:
    """The measures as aligned text, one family a line."""
    lines = []
    for family, values in measures.items():
        cells = "  ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in values.items())
        lines.append(f"{family:<18} {cells or 'does not apply'}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training evaluate", description=__doc__)
    parser.add_argument("model", type=Path, help="model file (.onnx), or the folder of a training run")
    parser.add_argument("--data", type=Path, required=True, help="simulated episodes or bag, or COCO keypoints .json")
    parser.add_argument("--topic", default="", help="image topic of a bag")
    parser.add_argument("-o", "--output", type=Path, help="also write the measures to this JSON file")
    parser.add_argument("--epsilon", type=float, help="largest distance of a matched joint, [-1, 1] units")
    parser.add_argument("--seed", type=int, default=0, help="draws the frame whose skeleton stands for its video")
    arguments = parser.parse_args(argv)
    model = read_model(_model_file(arguments.model))
    measures = evaluate_model(
        model, arguments.data, topic=arguments.topic, epsilon=arguments.epsilon, seed=arguments.seed
    )
    print(f"{model.id} on {arguments.data}\n{table(measures)}")
    if arguments.output:
        report = {"model_id": model.id, "data": str(arguments.data), **measures}
        with written_whole(arguments.output) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    models = sorted(path.glob("*.onnx"))
    if len(models) != 1:
        raise UserError(f"{path} holds {len(models)} .onnx files: name one, or run `python -m training export {path}`")
    return models[0]
