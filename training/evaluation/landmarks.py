"""How much of an annotated pose is in the keypoints: linear regression and what is read off it.

A regression without bias depends on the origin: keypoints are taken from the top-left pixel's middle, (k + 1) / 2,
and joints have to be, too. Joints that are not annotated are NaN; they are neither fitted nor measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from keypoint_perception.errors import UserError

RANK_TOLERANCE = 1e-4
"""Directions in which keypoints vary less than this share of the most are left out: noise must not be amplified."""
PENALTIES = tuple(10.0**power for power in range(-4, 6))
_SINGULAR = 1e-9
"""Frames without which nothing could be fitted are predicted infinitely wrong; nearly so is enough."""
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}
_ONE_LETTER = r"(?<![a-z])[lr](?![a-z])"
_CAPITALS = re.compile("[LR][A-Z][A-Z0-9_]*")
"""Names that may begin with their side."""


@dataclass(frozen=True)
class Regressor:
    """A linear map from K keypoints to N joints, Y = X W (+ b)."""

    weight: np.ndarray
    """(2K [+ 1], 2N), NaN for joints that were never annotated."""
    bias: bool

    @classmethod
    def fit(cls, keypoints: np.ndarray, joints: np.ndarray, *, bias: bool = False) -> Regressor:
        """Least squares, argmin ‖X W - Y‖²: keypoints (T, K, 2) in [-1, 1], joints (T, N, 2) in any unit.

        Each joint is fitted on the frames in which it is annotated.
        """
        design, targets = _design(keypoints, bias), joints.reshape(len(joints), -1)
        known = ~np.isnan(joints).any(axis=2)  # (T, N)
        weight = np.full((design.shape[1], targets.shape[1]), np.nan)
        patterns, kind = np.unique(known, axis=1, return_inverse=True)
        for index, rows in enumerate(patterns.T):
            columns = np.repeat(kind.ravel() == index, 2)
            if rows.any():
                weight[:, columns] = np.linalg.lstsq(design[rows], targets[rows][:, columns], rcond=RANK_TOLERANCE)[0]
        return cls(weight, bias)

    def predict(self, keypoints: np.ndarray) -> np.ndarray:
        """(T, K, 2) to (T, N, 2) in the unit of the joints it was fitted to."""
        return (_design(keypoints, self.bias) @ self.weight).reshape(len(keypoints), -1, 2)


def ridge(keypoints: np.ndarray, joints: np.ndarray, asked: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """(S, N, 2) joints of `asked` (S, K, 2) by ridge regression with bias on (T, K, 2) and (T, N, 2).

    argmin ‖(X - x̄) W - (Y - ȳ)‖² + λ ‖W‖² of each joint, λ from PENALTIES by what is predicted of frames that are left
    out, as far as the joint is annotated. groups (T,) numbers: frames of one number are left out together, as those of
    a video must be, which resemble one another; None, or a single number, leaves out each on its own. Where labels are
    few, plain least squares follows every error of the keypoints instead.
    """
    found = np.full((len(asked), *joints.shape[1:]), np.nan)
    groups = np.arange(len(keypoints)) if groups is None else groups
    known = ~np.isnan(joints).any(axis=2)  # (T, N)
    patterns, kind = np.unique(known, axis=1, return_inverse=True)
    for index, rows in enumerate(patterns.T):
        if rows.any():
            columns = kind.ravel() == index
            inputs, targets = keypoints[rows].reshape(rows.sum(), -1), joints[rows][:, columns]
            found[:, columns] = _ridge_of_known(inputs, targets, asked.reshape(len(asked), -1), groups[rows])
    return found


def _ridge_of_known(inputs: np.ndarray, joints: np.ndarray, asked: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(S, N, 2) for inputs (T, C), joints (T, N, 2) that are all known, and asked (S, C).

    With H = 1/T + U diag(s² / (s² + λ)) Uᵀ of X - x̄ = U diag(s) Vᵀ, the frames g left out are predicted wrong by
    (1 - H_gg)⁻¹ (Y - H Y)_g: no fit is repeated.
    """
    if len(np.unique(groups)) == 1:
        groups = np.arange(len(groups))
    targets = joints.reshape(len(joints), -1)
    centre, mean = inputs.mean(axis=0), targets.mean(axis=0)
    left, spread, right = np.linalg.svd(inputs - centre, full_matrices=False)
    coordinates = left.T @ (targets - mean)
    shrinks = [spread**2 / (spread**2 + penalty) for penalty in PENALTIES]
    errors = [_left_out_error(left, shrink, targets - mean, groups) for shrink in shrinks]
    best = np.argmin(np.reshape(errors, (len(PENALTIES), -1, 2)).sum(axis=2), axis=0)  # (N,)
    penalties = np.repeat(np.take(PENALTIES, best), 2)  # of each column of the targets
    weight = right.T @ (spread[:, None] / (spread[:, None] ** 2 + penalties) * coordinates)
    return (mean + (asked - centre) @ weight).reshape(len(asked), -1, 2)


def _left_out_error(left: np.ndarray, shrink: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(2N,) summed squared errors of the centred targets (T, 2N) of each group, fitted on all others."""
    residual = targets - left @ (shrink[:, None] * (left.T @ targets))
    total = np.zeros(targets.shape[1])
    for group in np.unique(groups):
        rows = groups == group
        hat = 1 / len(left) + (left[rows] * shrink) @ left[rows].T
        kept = np.eye(len(hat)) * (1 + _SINGULAR) - hat
        total += (np.linalg.solve(kept, residual[rows]) ** 2).sum(axis=0)
    return total


def mean_pose(joints: np.ndarray) -> np.ndarray:
    """(T, N, 2 or 3) to (N, 2 or 3): each joint's mean where it is annotated, NaN where it never is."""
    known = ~np.isnan(joints)
    return np.divide(
        np.nansum(joints, axis=0), known.sum(axis=0), out=np.full(joints.shape[1:], np.nan), where=known.any(axis=0)
    )


def mean_error(predicted: np.ndarray, joints: np.ndarray, normaliser: np.ndarray | float = 1.0) -> float:
    """Mean over all annotated joints of ‖ŷ - y‖ / normaliser: (T, N, 2) both, normaliser a number or (T,)."""
    distance = np.linalg.norm(predicted - joints, axis=-1)
    return mean_of_known(distance / np.reshape(normaliser, (-1, 1)))


def error_by_frame(predicted: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """(T,) mean over a frame's annotated joints of ‖ŷ - y‖, (T, N, 2) both; each frame has one that is predicted."""
    return np.nanmean(np.linalg.norm(predicted - joints, axis=-1), axis=1)


def root_mean_square_error(predicted: np.ndarray, joints: np.ndarray) -> float:
    """√ mean of squared coordinate differences, in the unit of the joints (Keypoint Pyramids, Table 1)."""
    return float(np.sqrt(mean_of_known((predicted - joints) ** 2)))


def mean_absolute_error(predicted: np.ndarray, joints: np.ndarray) -> float:
    """Mean of absolute coordinate differences, in the unit of the joints."""
    return mean_of_known(np.abs(predicted - joints))


def summed_absolute_error(predicted: np.ndarray, joints: np.ndarray) -> float:
    """Sum over the 2N coordinates of the mean absolute error over frames (the Taichi measure).

    NaN where a joint that is annotated is not predicted: without it the sum would be the smaller.
    """
    if (np.isnan(predicted) & ~np.isnan(joints)).any():
        return np.nan
    return float(np.nansum(mean_pose(np.abs(predicted - joints))))


def correct_share(
    predicted: np.ndarray, joints: np.ndarray, threshold: float, normaliser: np.ndarray | float = 1.0
) -> float:
    """PCK: share of annotated joints whose distance / normaliser is below `threshold`."""
    distance = np.linalg.norm(predicted - joints, axis=-1) / np.reshape(normaliser, (-1, 1))
    return mean_of_known(np.where(np.isnan(distance), np.nan, distance < threshold))


def mean_pose_error(train: np.ndarray, test: np.ndarray) -> float:
    """The error of always answering the mean training pose: the row that any detector must beat."""
    return mean_error(np.broadcast_to(mean_pose(train), test.shape), test)


def direct_error(predicted: np.ndarray, joints: np.ndarray, mirror: np.ndarray | None = None) -> float:
    """KeypointGAN's error without regression of (T, N, 2): mean over images of the mean distance of an image's joints.

    Only those count that are annotated, and images with one; NaN where there is none.
    mirror: (N,) index of each joint's left-right counterpart; given, an image's error is the smaller of those to the
    pose and to the pose with left and right exchanged.
    """
    distance = np.linalg.norm(predicted - nearer_pose(predicted, joints, mirror), axis=-1)
    return mean_of_known(np.array([mean_of_known(image) for image in distance]))


def nearer_pose(predicted: np.ndarray, joints: np.ndarray, mirror: np.ndarray | None) -> np.ndarray:
    """For each frame of (T, N, 2) the pose or, where it is nearer to the prediction, the pose with sides exchanged."""
    if mirror is None:
        return joints
    return exchanged(joints, mirror, nearer_exchanged(predicted, joints, mirror))


def exchanged(joints: np.ndarray, mirror: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Poses (T, N, 2), of which those `which` (T,) bool have their sides exchanged."""
    return np.where(which[:, None, None], joints[:, mirror], joints)


def nearer_exchanged(predicted: np.ndarray, joints: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(T,) bool: whether the pose with sides exchanged is nearer to the prediction, of (T, N, 2) both."""
    poses = (joints, joints[:, mirror])
    as_is, other = (np.nansum(np.linalg.norm(predicted - pose, axis=-1), axis=1) for pose in poses)
    return other < as_is


def mirror_of(names: tuple[str, ...]) -> np.ndarray | None:
    """(N,) index of each joint's left-right counterpart, itself for a joint of no side; None where none has a side.

    A side is a word `left`, `right`, `l` or `r` in the name, or the former two anywhere: left_hip, hip_l, LHip; in
    capitals a first letter, where there is the other side's name too: LHIP, RHIP. A joint without its counterpart is
    its own. Raises UserError where two joints of a side have one name, or names that differ in their spelling alone.
    """
    plain = _plain_names(names)
    sided = {number: _mirrored(name) for number, name in enumerate(plain) if _side(name)}
    index = {plain[number]: number for number in sided}
    if len(index) < len(sided):
        repeated = sorted({names[number] for number in sided if index[plain[number]] != number})
        raise UserError(
            f"left and right are told by the joints' names, and there is more than one {', '.join(repeated)}: give "
            "each joint that has a side a name of its own"
        )
    mirror = [index.get(sided.get(number, ""), number) for number in range(len(names))]
    return np.array(mirror) if mirror != list(range(len(names))) else None


def interocular_distance(joints: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """(T,) distance of the eyes in (T, N, 2).

    Raises UserError where the names have no two eyes, or where both are in one place.
    """
    return _between(joints, names, ("left", "eye"), ("right", "eye"))


def torso_length(joints: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """(T,) distance from the left shoulder to the right hip in (T, N, 2).

    Raises UserError where there are no such, or where both are in one place.
    """
    return _between(joints, names, ("left", "shoulder"), ("right", "hip"))


def _between(joints: np.ndarray, names: tuple[str, ...], first: tuple[str, str], second: tuple[str, str]) -> np.ndarray:
    ends = []
    for side, part in (first, second):
        found = [i for i, name in enumerate(_plain_names(names)) if part in name and _side(name) == side]
        if len(found) != 1:
            raise UserError(
                f"this normalisation needs one joint with {side} and {part} in its name: the joints are "
                f"{', '.join(names) or 'nameless'}"
            )
        ends.append(found[0])
    distance = np.linalg.norm(joints[:, ends[0]] - joints[:, ends[1]], axis=-1)
    if (distance == 0).any():
        both = " and ".join(names[end] for end in ends)
        raise UserError(
            f"{both} are in one place in {np.sum(distance == 0)} of {len(distance)} poses, and errors are divided by "
            "their distance: correct these labels, or leave them out"
        )
    return distance


def _plain_names(names: tuple[str, ...]) -> list[str]:
    """Names in small letters, their words apart, and LHIP as l_hip where there is an RHIP: a LIP has no RIP."""
    known = set(names)
    return [
        _plain(f"{name[0]}_{name[1:]}" if _CAPITALS.fullmatch(name) and _other_first(name) in known else name)
        for name in names
    ]


def _other_first(name: str) -> str:
    """RHIP of LHIP, and the other way round."""
    return _OTHER_SIDE[name[0].lower()].upper() + name[1:]


def _plain(name: str) -> str:
    """A name in small letters, its words apart: LeftHip and RHip to left_hip and r_hip."""
    return re.sub("(?<=[a-z0-9])(?=[A-Z])|(?<=[LR])(?=[A-Z][a-z])", "_", name).lower()


def _side(plain: str) -> str:
    """left, right, or nothing, of a plain name."""
    found = re.search("left|right", plain) or re.search(_ONE_LETTER, plain)
    return {"l": "left", "r": "right"}.get(found[0], found[0]) if found else ""


def _mirrored(plain: str) -> str:
    swapped = re.sub("left|right", lambda m: _OTHER_SIDE[m[0]], plain)
    return swapped if swapped != plain else re.sub(_ONE_LETTER, lambda m: _OTHER_SIDE[m[0]], plain)


def mean_of_known(values: np.ndarray) -> float:
    """The mean of what is no NaN; NaN where there is nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


def _design(keypoints: np.ndarray, bias: bool) -> np.ndarray:
    rows = ((keypoints + 1) / 2).reshape(len(keypoints), -1)
    return np.column_stack((rows, np.ones(len(rows)))) if bias else rows
