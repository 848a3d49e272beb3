"""Reference rows: what an untrained network gives, an IMM of fresh weights, and what labels teach, a U-Net of heatmaps.

The first says how much a regression makes of any keypoints, the second what labels bring. What learns without
labels should be better than the first; the second is no bound, it may be better than that too.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from keypoint_perception.backends import Backend
from keypoint_perception.geometry import pixels_to_normalised
from training.evaluation.regression import told_apart
from training.evaluation.videos import LabelledVideo
from training.heatmaps import around_mode, heatmap_targets, spatial_softmax
from training.method import Batch, Detection, Method, independent_keypoints
from training.methods.imm import IMM, IMMConfig
from training.networks import UNet
from training.precision import processor_has_bf16

BATCH_SIZE = 32
LEARNING_RATE = 2e-3
CALIBRATION_STEPS = 12
SIGMA = 0.05
"""Of the heatmaps that are learned with labels."""


class TorchBackend(Backend):
    """A method's detector in PyTorch, behind the interface of a compiled model."""

    def __init__(self, method: Method) -> None:
        self._method = copy.deepcopy(method).eval()

    @torch.no_grad()
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See Backend.run."""
        detection = self._method.detect(_to_tensor(images))
        return {
            "keypoints": detection.keypoints.numpy(),
            "scores": detection.scores.numpy(),
            "adjacency": detection.adjacency.numpy(),
        }

    def describe(self) -> str:
        """See Backend.describe."""
        return f"torch {torch.__version__} (CPU)"


class HeatmapNetwork(Method):
    """What labels teach: a U-Net with a heatmap of each joint. Its input's sides are multiples of 16 pixels."""

    def __init__(self, joints: int) -> None:
        super().__init__()
        self.keypoint_count = joints
        self.network = UNet(3, joints, width=16, depth=3, stride=2)

    def detect(self, image: Tensor) -> Detection:
        """See Method.detect; scores are 1."""
        keypoints = around_mode(spatial_softmax(self.network(2 * image - 1)))
        return independent_keypoints(keypoints, torch.ones_like(keypoints[..., 0]))

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Cross-entropy of the heatmaps of joints that are annotated, those of `batch["keypoints"]` that are no NaN."""
        heat, joints = self.network(2 * batch["image"] - 1).float(), batch["keypoints"]
        known = joints[..., 0].isfinite()
        target = heatmap_targets(joints, heat.shape[-2], heat.shape[-1], SIGMA)
        entropy = -(target * heat.flatten(2).log_softmax(dim=-1)).sum(dim=-1)
        return {"heatmaps": entropy[known].mean()}


def untrained_network(keypoints: int, input_size: tuple[int, int], seed: int) -> IMM:
    """A small detector with fresh weights."""
    torch.manual_seed(seed)
    config = IMMConfig(keypoints=keypoints, width=24, map_stride=4, early_stride=True, features="pixels", init_std=None)
    return IMM(config, input_size)


SupervisedLoss = Callable[[Method, Tensor, Tensor], Tensor]
"""Of a network, images (B, 3, H, W) in [0, 1] and joints (B, K, 2), NaN where they are not annotated."""


def heatmap_loss(network: Method, images: Tensor, joints: Tensor) -> Tensor:
    """The cross-entropy that a HeatmapNetwork learns by."""
    return network.loss({"image": images, "keypoints": joints}, "main")["heatmaps"]


def squared_distance(network: Method, images: Tensor, joints: Tensor) -> Tensor:
    """Of a method's keypoints to the joints: what any network can learn by."""
    known = ~joints.isnan()
    return (network.detect(images).keypoints - joints.nan_to_num())[known].square().mean()


def train_for(
    make: Callable[[], Method], loss: SupervisedLoss, videos: Sequence[LabelledVideo], seconds: float, seed: int
) -> Method:
    """`train_supervised` of a fresh network for about so many seconds, as a few steps measure them.

    A process' first steps are slower, and so do not count.
    """
    labels = _labels(videos, make().keypoint_count)
    _train(make(), loss, *labels, CALIBRATION_STEPS, seed)
    start = time.monotonic()
    _train(make(), loss, *labels, CALIBRATION_STEPS, seed)
    step_seconds = (time.monotonic() - start) / CALIBRATION_STEPS
    return _train(make(), loss, *labels, max(1, int(seconds / step_seconds)), seed)


def train_supervised(
    network: Method, loss: SupervisedLoss, videos: Sequence[LabelledVideo], *, steps: int, seed: int
) -> Method:
    """Trains a network to put keypoint n on joint n; limbs that look alike are numbered by `told_apart`.

    videos: all of one frame size, the input; each joint counts where it is annotated. The network has at least as many
    keypoints as there are joints. Returns the network, in evaluation mode.
    """
    return _train(network, loss, *_labels(videos, network.keypoint_count), steps, seed)


def _train(network: Method, loss: SupervisedLoss, frames: Tensor, joints: Tensor, steps: int, seed: int) -> Method:
    """On frames (F, H, W, 3) uint8 with joints (F, K, 2)."""
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(steps):
        rows = torch.randint(len(frames), (BATCH_SIZE,), generator=generator)
        images = _to_tensor(frames[rows].numpy())  # channels_last, as the frames are
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=processor_has_bf16()):
            value = loss(network, images, joints[rows])
        value.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _labels(videos: Sequence[LabelledVideo], count: int) -> tuple[Tensor, Tensor]:
    """Frames (F, H, W, 3) of all videos, and joints (F, count, 2), normalised, NaN where a video has no such joint."""
    parts = []
    for video in videos:
        height, width = video.frames.shape[1:3]
        padded = np.full((len(video.joints), count, 2), np.nan, np.float32)
        padded[:, : video.joints.shape[1]] = told_apart(video, pixels_to_normalised(video.joints, (width, height)))
        parts.append(padded)
    frames = np.concatenate([video.frames for video in videos])
    return torch.from_numpy(frames), torch.from_numpy(np.concatenate(parts))


def _to_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
