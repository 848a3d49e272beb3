"""Linear regression from keypoints to joints on labelled videos: what is fitted on which frames, and all figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from keypoint_perception.errors import UserError
from training.evaluation import landmarks
from training.evaluation.predicted import PredictedVideo
from training.evaluation.videos import LabelledVideo
from training.simulation.trees import from_the_left, in_order, numbered_by_place

LABEL_COUNTS = (1, 10, 100, 1000)
"""The curve by number of labelled examples has these points, as far as there are so many, and all."""
DRAWS = 5
"""Each point of the curve is the mean over so many draws of its examples."""
CORRECT_BELOW = 0.1
"""Threshold of the share of correct joints, [-1, 1] units: a twentieth of the picture's side."""


class Labels(NamedTuple):
    """Frames of one variant, in two parts that share no frame."""

    train: np.ndarray
    """(T, K, 2) keypoints to fit on, normalised, and"""
    train_joints: np.ndarray
    """(T, N, 2) their joints, NaN where not annotated."""
    test: np.ndarray
    """(S, K, 2) keypoints to measure on, and"""
    test_joints: np.ndarray
    """(S, N, 2) their joints."""
    train_groups: np.ndarray
    """(T,) int; frames to fit on that resemble one another, since they are of one video, have one number."""

    def fitted(self, *, bias: bool = False) -> np.ndarray:
        """(S, N, 2) what a regression says about the test frames."""
        return landmarks.Regressor.fit(self.train, self.train_joints, bias=bias).predict(self.test)

    def ridge(self) -> np.ndarray:
        """(S, N, 2) what a regression with a penalty says about the test frames."""
        return landmarks.ridge(self.train, self.train_joints, self.test, self.train_groups)

    def first(self, share: float) -> Labels:
        """With that share of the frames to fit on, the first of them."""
        return self.only(np.arange(max(1, round(share * len(self.train)))))

    def only(self, rows: np.ndarray) -> Labels:
        """With those of the frames to fit on, by their numbers."""
        return self._replace(
            train=self.train[rows], train_joints=self.train_joints[rows], train_groups=self.train_groups[rows]
        )


def fit_frames(videos: Sequence[PredictedVideo]) -> list[np.ndarray]:
    """For each video of one variant (T,) bool: whether a frame is fitted on, or measured on.

    As the data says where it does; else the first half of the videos; of a single video the first half of its frames.
    """
    if any(video.video.fit is not None for video in videos):
        return [np.zeros(len(v.points), bool) if v.video.fit is None else v.video.fit for v in videos]
    if len(videos) == 1:
        count = len(videos[0].points)
        return [np.arange(count) < count // 2]
    return [np.full(len(v.points), number < len(videos) // 2) for number, v in enumerate(videos)]


def fitted_on(fitted: Sequence[PredictedVideo], videos: Sequence[PredictedVideo]) -> Sequence[PredictedVideo]:
    """`fitted`, all frames of which are fitted on, and then `videos`, which are measured on; `videos` as they are
    where nothing is `fitted`.

    Raises UserError where a variant has videos to measure on and none to fit, or joints that are not the same.
    """
    if not fitted:
        return videos
    check_fittable([video.video for video in fitted], [video.video for video in videos])
    return [*(_marked(video, True) for video in fitted), *(_marked(video, False) for video in videos)]


def check_fittable(fitted: Sequence[LabelledVideo], videos: Sequence[LabelledVideo]) -> None:
    """Raises UserError where a variant of `videos` is not among those `fitted`, or has other joints there."""
    known = {video.variant: video for video in fitted}
    unknown = sorted({video.variant for video in videos} - known.keys())
    if unknown:
        raise UserError(
            f"the data to fit on has labels of {', '.join(sorted(known))}, and of {', '.join(unknown)} none: fit on "
            "data with all that is measured"
        )
    for video in videos:
        there, here = _joints_of(known[video.variant]), _joints_of(video)
        if there != here:
            raise UserError(
                f"the joints of {video.variant} are {there} in the data to fit on, and {here} in what is "
                "measured: give data with the same joints in the same order"
            )


def _joints_of(video: LabelledVideo) -> str:
    return ", ".join(video.names) or f"{video.joints.shape[1]} without names"


def _marked(video: PredictedVideo, fit: bool) -> PredictedVideo:
    return replace(video, video=video.video._replace(fit=np.full(len(video.points), fit)))


def variants(videos: Sequence[PredictedVideo]) -> list[list[PredictedVideo]]:
    """The videos of each variant, in order of its name."""
    names = sorted({video.video.variant for video in videos})
    return [[video for video in videos if video.video.variant == name] for name in names]


def told_apart(video: LabelledVideo, joints: np.ndarray) -> np.ndarray:
    """A video's true joints (T, N, 2), where limbs that look alike are numbered by their place in the picture.

    Which of them a label means, nobody could tell from the picture otherwise.
    """
    return numbered_by_place(video.variant, video.names, video.adjacency, joints)


def corner_joints(video: PredictedVideo) -> np.ndarray:
    """(T, N, 2) true joints in [-1, 1] units from the top-left corner, the keypoints' origin in a regression."""
    return told_apart(video.video, video.joints) + 1


def points_by_place(video: PredictedVideo) -> np.ndarray:
    """(T, K, 2) the keypoints, numbered by their place as the truth is, where the model cannot tell them apart.

    Limbs that it calls alike are numbered clockwise from the picture's right, chains from the left; single points have
    the numbers that it gives them in each image, which is by their place.
    """
    points = video.points
    if video.either_end:
        return _chains_by_place(points, video.linked.sum(axis=1))
    if max(video.parent, default=-1) < 0:  # single points
        return points if video.single is None else video.single.points
    for group in video.alike:
        limbs = np.array(group)
        arms = points[:, limbs[:, 0]] - points[:, None, video.parent[limbs[0, 0]]]
        angles = np.arctan2(arms[..., 1], arms[..., 0]) % (2 * np.pi)
        angles[~video.linked[:, limbs[:, 0]]] = np.inf  # what is not there comes last
        points = in_order(points, limbs, angles)
    return points


def _chains_by_place(points: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Keypoints (T, K, 2), the first counts (T,) of which are a chain, its end that is farther left the first."""
    points = points.copy()
    for count in np.unique(counts[counts > 0]):
        rows = counts == count
        points[rows, :count] = from_the_left(points[rows, :count])
    return points


def labels(
    videos: Sequence[PredictedVideo],
    joints_of: Callable[[PredictedVideo], np.ndarray] = corner_joints,
    fit_share: float = 1.0,
) -> Iterator[Labels]:
    """The labels of each variant that has some to fit and some to measure. `joints_of` gives them in any unit.

    fit_share: of the frames to fit on so many are used, the first ones.

    Raises UserError where a joint is annotated to be measured and nowhere to be fitted: no error could count it.
    """
    for same in variants(videos):
        points = np.concatenate([points_by_place(video) for video in same])
        joints = np.concatenate([joints_of(video) for video in same])
        usable = ~np.isnan(joints).all(axis=(1, 2))
        fit = np.concatenate(fit_frames(same))
        train, test = usable & fit, usable & ~fit
        groups = np.repeat(np.arange(len(same)), [len(video.points) for video in same])[train]
        if train.any() and test.any():
            part = Labels(points[train], joints[train], points[test], joints[test], groups).first(fit_share)
            _check_fitted(same[0].video, part.train_joints, part.test_joints)
            yield part


def _check_fitted(video: LabelledVideo, fitted: np.ndarray, measured: np.ndarray) -> None:
    """Raises UserError that names the joints annotated in `measured` (S, N, 2) and nowhere in `fitted` (T, N, 2)."""
    alone = ~np.isnan(measured).all(axis=(0, 2)) & np.isnan(fitted).all(axis=(0, 2))
    if alone.any():
        names = ", ".join(video.names[joint] if video.names else str(joint) for joint in np.flatnonzero(alone))
        raise UserError(
            f"joints of {video.variant} are annotated where errors are measured and nowhere where they are fitted: "
            f"{names}: fit on other frames (--fit-on, --fit-data, or `split` of the images), or leave them out"
        )


def regression(videos: Sequence[PredictedVideo]) -> dict[str, float | None]:
    """Fitted on one part of each variant's frames and measured on the other, as means over variants, [-1, 1] units.

    error (no bias), error_with_bias, error_ridge and baseline_mean_pose are mean distances; pck (no bias) is the share
    of joints nearer than CORRECT_BELOW; mean_absolute and rmse (no bias) are over coordinates.
    """
    rows = []
    for part in labels(videos):
        fitted, truth = part.fitted(), part.test_joints
        rows.append(
            {
                "error": landmarks.mean_error(fitted, truth),
                "error_with_bias": landmarks.mean_error(part.fitted(bias=True), truth),
                "error_ridge": landmarks.mean_error(part.ridge(), truth),
                "baseline_mean_pose": landmarks.mean_pose_error(part.train_joints, truth),
                "pck": landmarks.correct_share(fitted, truth, CORRECT_BELOW),
                "mean_absolute": landmarks.mean_absolute_error(fitted, truth),
                "rmse": landmarks.root_mean_square_error(fitted, truth),
            }
        )
    names = ("error", "error_with_bias", "error_ridge", "baseline_mean_pose", "pck", "mean_absolute", "rmse")
    return {name: mean_or_none([row[name] for row in rows]) for name in names}


def label_efficiency(videos: Sequence[PredictedVideo]) -> dict[str, float | None]:
    """Error of the regression without bias by the number of labelled frames of each variant, and with "all".

    Mean distances in [-1, 1] units, means over DRAWS draws of the frames and over variants. A draw in which a joint is
    nowhere annotated does not count: without that joint its error would be the smaller.
    """
    rng = np.random.default_rng(0)
    parts = list(labels(videos))
    fewest = min((len(part.train) for part in parts), default=0)
    curve: dict[str, float | None] = {}
    for count in [count for count in LABEL_COUNTS if count < fewest]:
        errors = []
        for part in parts:
            for _ in range(DRAWS):
                drawn = rng.choice(len(part.train), count, replace=False)
                fitted = part.only(drawn).fitted()
                whole = not (np.isnan(fitted) & ~np.isnan(part.test_joints)).any()
                errors.append(landmarks.mean_error(fitted, part.test_joints) if whole else np.nan)
        curve[str(count)] = mean_or_none(errors)
    curve["all"] = mean_or_none([landmarks.mean_error(part.fitted(), part.test_joints) for part in parts])
    return curve


def mean_or_none(values: Sequence[float]) -> float | None:
    """The mean of what is known, None where nothing is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None
