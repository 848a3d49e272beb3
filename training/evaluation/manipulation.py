"""For manipulation: how far in metres is what a robot would be told from where joints and grasp points are?

Joints are regressed in the picture from keypoints, looked up in the depth image and compared with the truth in the
camera's frame. Only joints that the truth calls visible count. A joint lies inside a link and depth sees the surface,
so that even true pixels have an error; it stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keypoint_perception.lifting import lift
from training.evaluation import landmarks
from training.evaluation.predicted import PredictedVideo
from training.evaluation.regression import DRAWS, fit_frames, mean_or_none, variants

GRASP_LABELS = (10, 100)
"""Labelled frames from which grasp points are learned, beside all of them."""
GRASP_WORDS = ("handle", "tip")
"""Joints with one of these words in their names are where one grasps: handles, and the fingertips of an arm."""


class _Frames:
    """One variant's frames: all that can be fitted on, and those with depth that are measured."""

    def __init__(self, videos: Sequence[PredictedVideo], chosen: np.ndarray) -> None:
        """`chosen` are the joints that count, (M,) indices."""
        fit = fit_frames(videos)
        joints = [video.video.joints[:, chosen] for video in videos]  # pixels
        self.train = np.concatenate([v.points[f] for v, f in zip(videos, fit, strict=True)])
        self.train_joints = np.concatenate([j[f] for j, f in zip(joints, fit, strict=True)])
        positions = [v.video.depth.joints[f] for v, f in zip(videos, fit, strict=True) if v.video.depth]
        self.mean_position = landmarks.mean_pose(np.concatenate(positions)[:, chosen])
        self.test = [
            (video, frame, video.points[frame], joints[number][frame])
            for number, video in enumerate(videos)
            if video.video.depth
            for frame in sorted(video.video.depth.images)
            if not fit[number][frame]
        ]
        self.chosen = chosen

    def errors(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Metres of each visible joint whose depth is known, from a (M, 2) prediction for each test frame."""
        errors = []
        for (video, frame, _, _), points in zip(self.test, pixels, strict=True):
            depth = video.video.depth
            assert depth is not None
            lifted = lift(points, depth.images[frame], depth.intrinsics).positions
            errors.append(self._visible(video, frame, np.linalg.norm(lifted - self._truth(video, frame), axis=1)))
        return np.concatenate(errors)

    def regressed(self, rows: np.ndarray | slice) -> np.ndarray:
        """`errors` of a regression with bias fitted on some of the training frames."""
        regressor = landmarks.Regressor.fit(self.train[rows], self.train_joints[rows], bias=True)
        return self.errors(list(regressor.predict(np.stack([points for _, _, points, _ in self.test]))))

    def mean_pose_errors(self) -> np.ndarray:
        """Metres of the mean of the training positions."""
        found = [
            self._visible(v, f, np.linalg.norm(self.mean_position - self._truth(v, f), axis=1))
            for v, f, _, _ in self.test
        ]
        return np.concatenate(found)

    def _truth(self, video: PredictedVideo, frame: int) -> np.ndarray:
        assert video.video.depth is not None
        return video.video.depth.joints[frame][self.chosen]

    def _visible(self, video: PredictedVideo, frame: int, errors: np.ndarray) -> np.ndarray:
        return errors[video.video.visible[frame][self.chosen]]


def lifted_joints(videos: Sequence[PredictedVideo]) -> dict[str, float | None]:
    """Metres of all joints after regression and lifting, as means over variants.

    error_m is the mean, median_m the median; true_pixels_m is the mean with true pixels lifted, baseline_mean_pose_m
    that of the mean 3-D pose; found is the share of visible joints that have a depth. None without depth.
    """
    names = ("error_m", "median_m", "true_pixels_m", "baseline_mean_pose_m", "found")
    rows = []
    for frames in _with_depth(videos):
        errors = frames.regressed(slice(None))
        known = errors[~np.isnan(errors)]
        rows.append(
            (
                landmarks.mean_of_known(errors),
                float(np.median(known)) if known.size else np.nan,
                landmarks.mean_of_known(frames.errors([truth for _, _, _, truth in frames.test])),
                landmarks.mean_of_known(frames.mean_pose_errors()),
                known.size / errors.size if errors.size else np.nan,
            )
        )
    return {name: mean_or_none([row[index] for row in rows]) for index, name in enumerate(names)}


def grasp_points(videos: Sequence[PredictedVideo]) -> dict[str, float | None]:
    """Median metres of grasp points after regression from few labels and lifting, as means over variants.

    error_m_10 and error_m_100 are means over draws of so many labelled frames, error_m is from all; true_pixels_m with
    true pixels, baseline_mean_pose_m of the mean position. None without depth, or where no joint is one to grasp.
    """
    rng = np.random.default_rng(0)
    counts = {f"error_m_{count}": count for count in GRASP_LABELS}
    rows: dict[str, list[float]] = {name: [] for name in (*counts, "error_m", "true_pixels_m", "baseline_mean_pose_m")}
    for frames in _with_depth(videos, GRASP_WORDS):
        for name, count in counts.items():
            if count <= len(frames.train):
                draws = [rng.choice(len(frames.train), count, replace=False) for _ in range(DRAWS)]
                rows[name].append(float(np.mean([_median(frames.regressed(draw)) for draw in draws])))
        rows["error_m"].append(_median(frames.regressed(slice(None))))
        rows["true_pixels_m"].append(_median(frames.errors([truth for _, _, _, truth in frames.test])))
        rows["baseline_mean_pose_m"].append(_median(frames.mean_pose_errors()))
    return {name: mean_or_none(values) for name, values in rows.items()}


def _with_depth(videos: Sequence[PredictedVideo], words: tuple[str, ...] = ("",)) -> list[_Frames]:
    """The frames of each variant with depth and joints that have one of `words` in their names."""
    found = []
    for same in variants(videos):
        names = same[0].video.names
        chosen = [index for index, name in enumerate(names) if any(word in name.lower() for word in words)]
        measured = [
            video
            for video, fit in zip(same, fit_frames(same), strict=True)
            if video.video.depth and any(not fit[frame] for frame in video.video.depth.images)
        ]
        fitted = [v for v, fit in zip(same, fit_frames(same), strict=True) if v.video.depth and fit.any()]
        if chosen and measured and fitted:
            found.append(_Frames(same, np.array(chosen)))
    return found


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else np.nan
