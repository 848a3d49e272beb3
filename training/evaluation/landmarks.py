"""How much of an annotated pose is in the keypoints: linear regression and what is read off it.

A regression without bias depends on the origin: keypoints are taken from the top-left corner, (k + 1) / 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RANK_TOLERANCE = 1e-4
"""Directions in which keypoints vary less than this share of the most are left out: noise must not be amplified."""


@dataclass(frozen=True)
class Regressor:
    """A linear map from K keypoints to N joints, Y = X W (+ b)."""

    weight: np.ndarray
    """(2K [+ 1], 2N)."""
    bias: bool

    @classmethod
    def fit(cls, keypoints: np.ndarray, joints: np.ndarray, *, bias: bool = False) -> Regressor:
        """Least squares, argmin ‖X W - Y‖²: keypoints (T, K, 2) in [-1, 1], joints (T, N, 2) in any unit."""
        design = _design(keypoints, bias)
        return cls(np.linalg.lstsq(design, joints.reshape(len(joints), -1), rcond=RANK_TOLERANCE)[0], bias)

    def predict(self, keypoints: np.ndarray) -> np.ndarray:
        """(T, K, 2) to (T, N, 2) in the unit of the joints it was fitted to."""
        return (_design(keypoints, self.bias) @ self.weight).reshape(len(keypoints), -1, 2)


def halves(count: int) -> tuple[slice, slice]:
    """The first and the second half of `count` frames in time order, to fit on and to measure on."""
    return slice(0, count // 2), slice(count // 2, count)


def mean_error(predicted: np.ndarray, joints: np.ndarray, normaliser: np.ndarray | float = 1.0) -> float:
    """Mean over frames and joints of ‖ŷ - y‖ / normaliser: (T, N, 2) both, normaliser a number or (T,)."""
    distance = np.linalg.norm(predicted - joints, axis=-1)
    return float((distance / np.reshape(normaliser, (-1, 1))).mean())


def root_mean_square_error(predicted: np.ndarray, joints: np.ndarray) -> float:
    """√ mean of squared coordinate differences, in the unit of the joints (Keypoint Pyramids, Table 1)."""
    return float(np.sqrt(((predicted - joints) ** 2).mean()))


def summed_absolute_error(predicted: np.ndarray, joints: np.ndarray) -> float:
    """Sum over the 2N coordinates of the mean absolute error over frames (the Taichi measure)."""
    return float(np.abs(predicted - joints).mean(axis=0).sum())


def correct_share(
    predicted: np.ndarray, joints: np.ndarray, threshold: float, normaliser: np.ndarray | float = 1.0
) -> float:
    """PCK: share of joints whose distance / normaliser is below `threshold`."""
    distance = np.linalg.norm(predicted - joints, axis=-1) / np.reshape(normaliser, (-1, 1))
    return float((distance < threshold).mean())


def mean_pose_error(train: np.ndarray, test: np.ndarray, normaliser: np.ndarray | float = 1.0) -> float:
    """The error of always answering the mean training pose: the row that any detector must beat."""
    return mean_error(np.broadcast_to(train.mean(axis=0), test.shape), test, normaliser)


def direct_error(predicted: np.ndarray, joints: np.ndarray, mirror: np.ndarray | None = None) -> float:
    """KeypointGAN's error without regression: mean joint distance over (T, N, 2).

    mirror: (N,) index of each joint's left-right counterpart; given, an image's error is the smaller of those to the
    pose and to the pose with left and right exchanged.
    """
    error = np.linalg.norm(predicted - joints, axis=-1).mean(axis=-1)
    if mirror is not None:
        error = np.minimum(error, np.linalg.norm(predicted - joints[:, mirror], axis=-1).mean(axis=-1))
    return float(error.mean())


def _design(keypoints: np.ndarray, bias: bool) -> np.ndarray:
    rows = ((keypoints + 1) / 2).reshape(len(keypoints), -1)
    return np.column_stack((rows, np.ones(len(rows)))) if bias else rows
