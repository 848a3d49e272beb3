"""The papers' protocols on annotated data by name: normalisation, bias, split and measure in one option.

Papers: IMM (MAFL, AFLW), AutoLink (CelebA, Human3.6M, DeepFashion, Taichi, CUB), Keypoint Pyramids (Human3.6M by
halves). The split is that of the data: the images' `split`, or what --fit-on or --fit-data gives. Where the data
names none, the first half is fitted on and the figure is not the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from keypoint_perception.errors import UserError
from training.evaluation import landmarks
from training.evaluation.predicted import PredictedVideo
from training.evaluation.regression import Labels, labels, mean_or_none

Normalisation = Literal["interocular", "torso", "image", "pixels"]
Measure = Literal["distance", "correct", "summed_absolute", "rmse"]
PERCENT = 100.0
FLIPS_LEFT = 10
"""With flips: poses to fit are exchanged, and fitted anew, until no more than so many would change."""
FLIP_ROUNDS = 100
"""With flips: no more rounds than that; the code has no end of its own where poses go back and forth."""
OUTLIER_DEVIATIONS = 3.0
"""With flips: of the errors in fitting, by which a pose must lie above their mean to be left out."""


@dataclass(frozen=True)
class Protocol:
    """How one paper turns keypoints and labels into a figure."""

    about: str
    """Data, split and measure, for `--help`."""
    unit: str
    """Of the figure."""
    normalisation: Normalisation
    """interocular and torso divide by a distance in the pose, image by the picture's side; pixels are those of a
    picture resized to `side` in both directions, 0 for the picture as it is."""
    measure: Measure = "distance"
    bias: bool = False
    joints: int | None = None
    """N that the data must have; None where any will do."""
    side: float = 0.0
    threshold: float = 0.0
    """Of `correct`, in the unit of the normalised joints."""
    mirrored: bool = False
    """Also give the error with left and right exchanged in the truth wherever that lowers it; in fitting, too, until
    few change, and then without the poses that stay farthest."""
    fit_share: float = 1.0
    """Of the frames to fit on so many are used, the first ones."""


PROTOCOLS = {
    "mafl": Protocol(
        "MAFL as in IMM: 5 points, fitted on 90% of the training labels, inter-ocular",
        "% of the inter-ocular distance",
        "interocular",
        joints=5,
        fit_share=0.9,
    ),
    "aflw": Protocol(
        "AFLW as in IMM: 5 points, fitted on 90% of the training labels, inter-ocular",
        "% of the inter-ocular distance",
        "interocular",
        joints=5,
        fit_share=0.9,
    ),
    "celeba": Protocol(
        "CelebA as in AutoLink: trained without MAFL, fitted on MAFL's training labels, inter-ocular",
        "% of the inter-ocular distance",
        "interocular",
        joints=5,
    ),
    "human36m": Protocol(
        "Human3.6M as in AutoLink: 32 joints, fitted on S1, 5, 6, 7, 8, 9, measured on S11, with and without flips",
        "% of the picture's side",
        "image",
        joints=32,
        mirrored=True,
    ),
    "human36m_halves": Protocol(
        "Human3.6M as in Keypoint Pyramids: fitted on one half of the test data, root mean square error on the other",
        "pixels",
        "pixels",
        measure="rmse",
        bias=True,
    ),
    "taichi": Protocol(
        "Taichi as in AutoLink: 18 joints, with bias, sum over coordinates of the mean absolute error",
        "pixels at 256, summed",
        "pixels",
        measure="summed_absolute",
        bias=True,
        joints=18,
        side=256,
    ),
    "deepfashion": Protocol(
        "DeepFashion as in AutoLink: share of joints with an error below 6 pixels at 255",
        "% of joints",
        "pixels",
        measure="correct",
        side=255,
        threshold=6,
    ),
    "cub": Protocol(
        "CUB as in AutoLink: 15 parts, each fitted on the images that show it, mean over all seen, by the crop's side",
        "% of the picture's side",
        "image",
        joints=15,
    ),
    "torso": Protocol(
        "no one paper's: share of joints nearer than a fifth of the torso (left shoulder to right hip)",
        "% of joints",
        "torso",
        measure="correct",
        threshold=0.2,
    ),
}
"""By name."""


def apply(protocol: Protocol, videos: Sequence[PredictedVideo]) -> dict[str, float | None]:
    """The protocol's figure as `value`, that of the mean pose as `baseline_mean_pose`, means over variants.

    With flips also `value_with_flips`. Raises UserError where the joints are not those of the protocol.
    """
    for video in videos:
        count = video.joints.shape[1]
        if protocol.joints not in (None, count):
            raise UserError(f"the protocol is for {protocol.joints} joints and {video.video.name} has {count}")
    names = videos[0].video.names
    rows: dict[str, list[float]] = {"value": [], "baseline_mean_pose": []}
    for part in labels(videos, lambda video: _scaled(protocol, video), protocol.fit_share):
        fitted = part.fitted(bias=protocol.bias)
        average = np.broadcast_to(landmarks.mean_pose(part.train_joints), part.test_joints.shape)
        rows["value"].append(_measured(protocol, fitted, part.test_joints, names))
        rows["baseline_mean_pose"].append(_measured(protocol, average, part.test_joints, names))
        if protocol.mirrored:
            rows.setdefault("value_with_flips", []).append(_with_flips(protocol, part, names))
    return {name: mean_or_none(values) for name, values in rows.items()}


def _scaled(protocol: Protocol, video: PredictedVideo) -> np.ndarray:
    """(T, N, 2) joints as shares of the picture's sides, or in pixels.

    They count from where keypoints do in a regression without bias, the middle of the first pixel that the model sees,
    so that keypoints that are the joints leave no error.
    """
    shares = (video.video.joints - video.viewport.to_pixels(np.array((-1.0, -1.0)))) / np.array(video.size)
    if protocol.normalisation == "image":
        return shares
    return shares * (protocol.side or np.array(video.size))


def _measured(protocol: Protocol, predicted: np.ndarray, joints: np.ndarray, names: tuple[str, ...]) -> float:
    normaliser: np.ndarray | float = 1.0
    if protocol.normalisation == "interocular":
        normaliser = landmarks.interocular_distance(joints, names)
    elif protocol.normalisation == "torso":
        normaliser = landmarks.torso_length(joints, names)
    percent = 1.0 if protocol.normalisation == "pixels" else PERCENT
    if protocol.measure == "distance":
        return percent * landmarks.mean_error(predicted, joints, normaliser)
    if protocol.measure == "correct":
        return PERCENT * landmarks.correct_share(predicted, joints, protocol.threshold, normaliser)
    if protocol.measure == "summed_absolute":
        return landmarks.summed_absolute_error(predicted, joints)
    return landmarks.root_mean_square_error(predicted, joints)


def _with_flips(protocol: Protocol, part: Labels, names: tuple[str, ...]) -> float:
    """The figure where poses may have left and right exchanged, as in AutoLink's code for Human3.6M.

    Two deviations: the code leaves up to FLIPS_LEFT of the measured poses as they are, here each is exchanged where
    that is nearer; and sides go by the joints' names, where the code's list gives joint 21 the partner of joint 20. NaN
    where no name has a side, or where a measured joint is left in no pose to fit.
    """
    mirror = landmarks.mirror_of(names)
    if mirror is None:
        return np.nan
    settled = _without_outliers(_with_sides_settled(part, mirror, protocol.bias), protocol.bias)
    fitted = settled.fitted(bias=protocol.bias)
    truth = landmarks.nearer_pose(fitted, part.test_joints, mirror)
    if (np.isnan(fitted) & ~np.isnan(truth)).any():
        return np.nan
    return _measured(protocol, fitted, truth, names)


def _with_sides_settled(part: Labels, mirror: np.ndarray, bias: bool) -> Labels:
    """Fitted anew and exchanged where that is nearer, until it is so for at most FLIPS_LEFT poses, which stay."""
    for _ in range(FLIP_ROUNDS):
        nearer = landmarks.nearer_exchanged(_fitted_to_train(part, bias), part.train_joints, mirror)
        if nearer.sum() <= FLIPS_LEFT:
            break
        part = part._replace(train_joints=landmarks.exchanged(part.train_joints, mirror, nearer))
    return part


def _without_outliers(part: Labels, bias: bool) -> Labels:
    """Without the poses to fit whose error in fitting is above mean + OUTLIER_DEVIATIONS standard deviations."""
    errors = landmarks.error_by_frame(_fitted_to_train(part, bias), part.train_joints)
    deviation = errors.std(ddof=min(1, len(errors) - 1))
    return part.only(np.flatnonzero(errors <= errors.mean() + OUTLIER_DEVIATIONS * deviation))


def _fitted_to_train(part: Labels, bias: bool) -> np.ndarray:
    """(T, N, 2) what a regression says about the frames it was fitted on."""
    return part._replace(test=part.train).fitted(bias=bias)
