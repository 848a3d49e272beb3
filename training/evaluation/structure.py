"""Skeleton measures: are the right joints found, tracked and linked?

The protocol of "Learning skeletons from pairs" (NPT), Tables I and II. Coordinates are in [-1, 1]. The paper leaves
open what follows, fixed here: only points with a link are matched, or all where a model has one graph for all images;
a true edge whose joint found no partner is a miss (strict; the lenient count leaves it out); measures are means over
videos; 0/0 is 0, and a distance that does not exist is NaN and left out of means.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from keypoint_perception.errors import UserError
from keypoint_perception.observation import EDGE_THRESHOLD


class Matching(NamedTuple):
    """M matched pairs of one video."""

    points: np.ndarray
    """(M,) indices of predicted points."""
    joints: np.ndarray
    """(M,) indices of true joints."""


class StructureScores(NamedTuple):
    """Agreement of predicted and true edges."""

    acc: float
    bcc: float
    f1: float
    precision: float
    recall: float


class JointScores(NamedTuple):
    """Agreement of predicted and true joints."""

    dist: float
    """Mean distance of matched joints over all frames, in [-1, 1] units."""
    consistency: float
    """Share of (frame, matched joint) whose match in that frame alone is the video's match."""
    f1: float
    precision: float
    recall: float
    diff: float
    """|number of predicted joints - number of true joints|."""


def linked_points(adjacency: np.ndarray) -> np.ndarray:
    """The indices of points with at least one edge: adjacency (K, K) in [0, 1]."""
    return np.flatnonzero((adjacency >= EDGE_THRESHOLD).any(axis=1))


def match_trajectories(points: np.ndarray, joints: np.ndarray, candidates: np.ndarray | None = None) -> Matching:
    """Matches points (T, K, 2) to joints (T, J, 2) by mean distance over the video, Hungarian.

    candidates: the point indices that may be matched, None for all. Raises UserError where one of these or a joint
    is NaN in some frame: its mean distance would be of other frames than the others'.
    """
    candidates = np.arange(points.shape[1]) if candidates is None else np.asarray(candidates, dtype=int)
    _check_known(points[:, candidates], joints)
    cost = _distances(points[:, candidates], joints).mean(axis=0)
    rows, columns = linear_sum_assignment(cost)
    return Matching(candidates[rows], columns)


def structure_scores(
    adjacency: np.ndarray, true_adjacency: np.ndarray, matching: Matching, *, lenient: bool = False
) -> StructureScores:
    """Compares edges over all unordered pairs of matched joints.

    adjacency (K, K) in [0, 1]; true_adjacency (J, J) bool. Strict: a true edge with an unmatched end is one false
    negative more. A predicted edge with an unmatched end counts nowhere, as in the paper.
    """
    upper = np.triu_indices(len(matching.points), k=1)
    predicted = adjacency[np.ix_(matching.points, matching.points)][upper] >= EDGE_THRESHOLD
    true = true_adjacency.astype(bool)
    actual = true[np.ix_(matching.joints, matching.joints)][upper]
    tp, tn = int((predicted & actual).sum()), int((~predicted & ~actual).sum())
    fp, fn = int((predicted & ~actual).sum()), int((~predicted & actual).sum())
    if not lenient:
        fn += int(np.triu(true, k=1).sum()) - int(actual.sum())
    precision, recall = _ratio(tp, tp + fp), _ratio(tp, tp + fn)
    return StructureScores(
        acc=_ratio(tp + tn, tp + tn + fp + fn),
        bcc=0.5 * (recall + _ratio(tn, tn + fp)),
        f1=_ratio(2 * precision * recall, precision + recall),
        precision=precision,
        recall=recall,
    )


def joint_scores(points: np.ndarray, joints: np.ndarray, predicted: np.ndarray, epsilon: float) -> JointScores:
    """Scores predicted joints over one video.

    points (T, K, 2), joints (T, J, 2); predicted: the indices of the points that are joints; epsilon: the largest
    distance at which a match counts for precision and recall, in [-1, 1] units. Raises UserError as
    `match_trajectories` does.
    """
    _check_known(points[:, predicted], joints)
    diff = float(abs(len(predicted) - joints.shape[1]))
    if len(predicted) == 0:
        return JointScores(np.nan, 0.0, 0.0, 0.0, 0.0, diff)
    video = match_trajectories(points, joints, predicted)
    matched = np.linalg.norm(points[:, video.points] - joints[:, video.joints], axis=-1)
    kept = (matched <= epsilon).sum(axis=1)
    precision, recall = kept / len(predicted), kept / joints.shape[1]
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return JointScores(
        dist=float(matched.mean()),
        consistency=_consistency(points, joints, video, predicted),
        f1=float(f1.mean()),
        precision=float(precision.mean()),
        recall=float(recall.mean()),
        diff=diff,
    )


def _consistency(points: np.ndarray, joints: np.ndarray, video: Matching, predicted: np.ndarray) -> float:
    partner = dict(zip(video.joints.tolist(), video.points.tolist(), strict=True))
    same = 0
    for distances in _distances(points[:, predicted], joints):
        rows, columns = linear_sum_assignment(distances)
        same += sum(partner.get(j) == predicted[i] for i, j in zip(rows, columns.tolist(), strict=True))
    return same / (len(points) * len(partner))


def _check_known(points: np.ndarray, joints: np.ndarray) -> None:
    """Raises UserError where points (T, K, 2) or joints (T, J, 2) are NaN."""
    for name, places in (("points", points), ("joints", joints)):
        unknown = np.isnan(places).any(axis=(1, 2))
        if unknown.any():
            raise UserError(
                f"{name} are NaN in {unknown.sum()} of {len(places)} frames, and all have to be known in each: leave "
                "out those that are known in no frame, then the frames in which one is not"
            )


def _distances(points: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """(T, K, 2) and (T, J, 2) to (T, K, J)."""
    return np.linalg.norm(points[:, :, None] - joints[:, None], axis=-1)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
