"""The reference rows must come out in their order, or the measure is wrong."""

import numpy as np
import pytest

from training.evaluation.predicted import predict_whole
from training.evaluation.reference import (
    HeatmapNetwork,
    TorchBackend,
    heatmap_loss,
    squared_distance,
    train_supervised,
    untrained_network,
)
from training.evaluation.regression import regression
from training.evaluation.videos import LabelledVideo


def moving_squares(seed, frames=60):
    """Two coloured squares that move on their own in 32x32 images."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform(6, 25, (frames, 2, 2)).round()
    images = np.full((frames, 32, 32, 3), 30, np.uint8)
    for image, pair in zip(images, joints.astype(int), strict=True):
        for (x, y), colour in zip(pair, ((255, 40, 40), (40, 255, 40)), strict=True):
            image[y - 2 : y + 3, x - 2 : x + 3] = colour
    return LabelledVideo(f"video{seed}", "squares", images, joints, np.ones((frames, 2), bool), np.eye(2) < 0, None)


def test_supervised_beats_untrained_and_mean_pose():
    train, test = [moving_squares(seed) for seed in range(3)], [moving_squares(seed) for seed in range(10, 14)]
    network = train_supervised(HeatmapNetwork(2), heatmap_loss, train, steps=60, seed=0)
    supervised = regression([predict_whole(TorchBackend(network), video) for video in test])
    backend = TorchBackend(untrained_network(2, (32, 32), seed=1))
    untrained = regression([predict_whole(backend, video) for video in test])
    assert supervised["error"] < 0.3 * untrained["error"]
    assert supervised["error"] < 0.3 * supervised["baseline_mean_pose"]


@pytest.mark.parametrize(
    ("network", "loss"),
    [(HeatmapNetwork(2), heatmap_loss), (untrained_network(2, (32, 32), seed=0), squared_distance)],
)
def test_joints_that_are_not_annotated_teach_nothing(network, loss):
    video = moving_squares(0)
    half = video._replace(joints=np.where([[[False], [True]]], np.nan, video.joints))
    train_supervised(network, loss, [half], steps=3, seed=0)
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_any_detector_can_be_trained_with_labels():
    train = [moving_squares(seed) for seed in range(3)]
    network = train_supervised(untrained_network(2, (32, 32), seed=0), squared_distance, train, steps=60, seed=0)
    errors = regression([predict_whole(TorchBackend(network), video) for video in train])
    assert errors["error"] < 0.3 * errors["baseline_mean_pose"]
