"""All measures of a model on labelled videos, as one table of families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keypoint_perception.model import ModelInfo
from training.evaluation import landmarks, stability, structure
from training.evaluation.manipulation import grasp_points, lifted_joints
from training.evaluation.motion import motion_accuracy, motion_recognition
from training.evaluation.predicted import PredictedVideo
from training.evaluation.regression import (
    fitted_on,
    label_efficiency,
    mean_or_none,
    points_by_place,
    regression,
    told_apart,
    variants,
)
from training.methods import METHODS

Measures = dict[str, dict[str, float | None]]


def measure(
    videos: Sequence[PredictedVideo],
    epsilon: float,
    info: ModelInfo | None = None,
    fitted: Sequence[PredictedVideo] = (),
) -> Measures:
    """Every family of measures by name; a measure that does not apply is None. docs/evaluation.md defines them all.

    epsilon: the largest distance of a matched joint, [-1, 1] units. info: of the model, to know whether its keypoints
    are joints. fitted: what is fitted to labels is fitted to these videos; without any, to a part of `videos`.
    """
    both = fitted_on(fitted, videos)
    return {
        **structure_and_joints(videos, epsilon),
        "regression": regression(both),
        "label_efficiency": label_efficiency(both),
        "direct": direct(videos) if info and keypoints_are_joints(videos, info) else direct([]),
        "identity": identity(videos),
        "motion": motion_recognition(both),
        "levels": levels(both, info) if info else {},
        "lifting": lifted_joints(both),
        "grasp": grasp_points(both),
    }


def structure_and_joints(videos: Sequence[PredictedVideo], epsilon: float) -> Measures:
    """`structure`, `structure_lenient` and `joints` of the skeleton paper, as means over videos.

    The first and the last also as the paper takes them, `…_single`: by each image alone, with one image's skeleton.
    Joints that a video never has annotated are left out of it, with their edges; of the rest, frames in which one is
    not annotated do not count.
    """
    followed = [(video, video.points, video.adjacency) for video in videos]
    single = [(video, *video.single) for video in videos if video.single is not None]
    alone = _skeleton_measures(single, epsilon)
    return {
        **_skeleton_measures(followed, epsilon),
        "structure_single": alone["structure"],
        "joints_single": alone["joints"],
    }


def _skeleton_measures(found: list[tuple[PredictedVideo, np.ndarray, np.ndarray]], epsilon: float) -> Measures:
    """Of videos, each with points (T, K, 2) and an adjacency (K, K)."""
    strict, lenient, joints = [], [], []
    for video, points, adjacency in found:
        frames, known = _annotated(video)
        if not frames.any():
            continue
        points, truth = points[frames], video.joints[frames][:, known]
        edges = video.video.adjacency[np.ix_(known, known)]
        candidates = np.arange(points.shape[1]) if video.one_graph else structure.linked_points(adjacency)
        matching = structure.match_trajectories(points, truth, candidates)
        strict.append(structure.structure_scores(adjacency, edges, matching))
        lenient.append(structure.structure_scores(adjacency, edges, matching, lenient=True))
        joints.append(structure.joint_scores(points, truth, candidates, epsilon))
    return {
        "structure": _means(structure.StructureScores, strict),
        "structure_lenient": _means(structure.StructureScores, lenient),
        "joints": _means(structure.JointScores, joints),
    }


def _annotated(video: PredictedVideo) -> tuple[np.ndarray, np.ndarray]:
    """(T,) and (N,) bool: the frames that count, and the joints, which are annotated in all of these.

    Left out are joints that are annotated in no frame and, then, frames in which one of the others is not.
    """
    annotated = ~np.isnan(video.joints).any(axis=2)
    known = annotated.any(axis=0)
    return annotated[:, known].all(axis=1) & known.any(), known


def keypoints_are_joints(videos: Sequence[PredictedVideo], info: ModelInfo) -> bool:
    """Whether keypoint k is joint k: the names say so, or the method learned its keypoints from poses of so many."""
    if any(info.keypoint_count != video.joints.shape[1] for video in videos):
        return False
    method = METHODS.get(info.method)
    from_poses = method is not None and "prior_keypoints" in method.required_keys
    return from_poses or all(info.keypoint_names == video.video.names for video in videos)


def direct(videos: Sequence[PredictedVideo]) -> dict[str, float | None]:
    """KeypointGAN's error: keypoints are the joints, nothing is fitted. Mean distance in an image, [-1, 1] units.

    error, and error_with_flips, where in each image the truth may have left and right exchanged if that is nearer; a
    mean over the images of each variant (the paper's activity), then over variants. None where keypoints are no joints,
    and with flips where no joint's name has a side.
    """
    rows: dict[str, list[float]] = {"error": [], "error_with_flips": []}
    for same in variants(videos):
        points = np.concatenate([points_by_place(video) for video in same])
        joints = np.concatenate([told_apart(video.video, video.joints) for video in same])
        rows["error"].append(landmarks.direct_error(points, joints))
        mirror = landmarks.mirror_of(same[0].video.names)
        if mirror is not None:
            rows["error_with_flips"].append(landmarks.direct_error(points, joints, mirror))
    return {name: mean_or_none(values) for name, values in rows.items()}


def levels(videos: Sequence[PredictedVideo], info: ModelInfo) -> dict[str, float | None]:
    """What the keypoints of each level of a hierarchy are worth alone: `error`, `rmse` and `motion`, with its number.

    Empty for models whose keypoints have one level, and for those whose levels are only depths in a body's tree.
    """
    figures: dict[str, float | None] = {}
    if info.predicts_tree or max(info.level) == 0:
        return figures
    for level in sorted(set(info.level)):
        chosen = np.flatnonzero(np.array(info.level) == level)
        alone = [video.only(chosen) for video in videos]
        fitted = regression(alone)
        figures |= {f"error_{level}": fitted["error"], f"rmse_{level}": fitted["rmse"]}
        figures[f"motion_{level}"] = motion_accuracy(alone)
    return figures


def identity(videos: Sequence[PredictedVideo]) -> dict[str, float | None]:
    """on_object, same_part and jitter, as means over the videos where each applies."""
    ordered = [v for v in videos if v.video.ordered and len(v.points) > 2]
    known = [v for v in videos if v.video.mask is not None or v.video.adjacency.any()]
    parts = [
        stability.same_part_share(v.points[frames], v.joints[frames][:, joints])
        for v, (frames, joints) in zip(videos, map(_annotated, videos), strict=True)
        if frames.any()
    ]
    return {
        "on_object": mean_or_none([_on_object(video) for video in known]),
        "same_part": mean_or_none(parts),
        "jitter": mean_or_none([stability.jitter(video.points) for video in ordered]),
    }


def _on_object(video: PredictedVideo) -> float:
    """By the mask, else by the true skeleton."""
    if video.video.mask is not None:
        return stability.on_object_share(video.viewport.to_pixels(video.points), video.video.mask)
    return stability.on_skeleton_share(video.points, video.joints, video.video.adjacency)


def _means(kind: Any, rows: list[Any]) -> dict[str, float | None]:
    """Field by field of a NamedTuple."""
    return {name: mean_or_none([getattr(row, name) for row in rows]) for name in kind._fields}
