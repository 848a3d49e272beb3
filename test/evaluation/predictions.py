"""Predicted videos out of numbers, for tests."""

import numpy as np

from keypoint_perception.geometry import Viewport
from training.evaluation.predicted import PredictedVideo
from training.evaluation.videos import LabelledVideo

SIZE = (101, 101)
"""Pixels; one normalised unit is 50 of them."""


def pixels(normalised):
    return (np.asarray(normalised, float) + 1) * 50


def video(points, joints, *, name="video", variant="thing", adjacency=None, **fields):
    """points (T, K, 2) and joints (T, N, 2), both normalised."""
    points, joints = np.asarray(points, float), np.asarray(joints, float)
    count, known = joints.shape[1], ~np.isnan(joints).any(axis=2)
    true = np.zeros((count, count), bool) if adjacency is None else adjacency
    frames = np.zeros((0, SIZE[1], SIZE[0], 3), np.uint8)
    labelled = LabelledVideo(name, variant, frames, pixels(joints), known, true, None)._replace(**fields)
    keypoints = points.shape[1]
    linked, graph = np.ones(points.shape[:2], bool), np.zeros((keypoints, keypoints))
    return PredictedVideo(labelled, points, linked, graph, joints, SIZE, Viewport.of(SIZE, SIZE))
