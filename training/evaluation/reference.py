"""Reference rows: what the same network gives untrained, and what it gives trained with labels.

Whatever learns without labels must come out between the two.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from keypoint_perception.backends import Backend
from keypoint_perception.geometry import pixels_to_normalised
from training.evaluation.videos import LabelledVideo
from training.methods.imm import IMM, IMMConfig


class TorchBackend(Backend):
    """An IMM detector in PyTorch, behind the interface of a compiled model."""

    name = "torch"

    def __init__(self, method: IMM) -> None:
        self._method = copy.deepcopy(method).eval()

    @torch.no_grad()
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See Backend.run; the adjacency is empty."""
        detection = self._method.detect(_to_tensor(images))
        return {
            "keypoints": detection.keypoints.numpy(),
            "scores": detection.scores.numpy(),
            "adjacency": detection.adjacency.numpy(),
        }

    def describe(self) -> str:
        """See Backend.describe."""
        return f"torch {torch.__version__} (CPU)"


def reference_network(keypoints: int, input_size: tuple[int, int], seed: int) -> IMM:
    """The small detector that all reference rows use, with fresh weights."""
    torch.manual_seed(seed)
    config = IMMConfig(keypoints=keypoints, width=24, map_stride=4, early_stride=True, features="pixels", init_std=None)
    return IMM(config, input_size)


def train_supervised(
    videos: list[LabelledVideo],
    *,
    steps: int,
    seed: int,
    batch_size: int = 32,
    lr: float = 2e-3,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> IMM:
    """Trains the reference network on labelled frames by squared joint distance.

    videos: all of one frame size; fewer joints than the most are padded and do not count. progress: receives step and
    loss. Returns the network, in evaluation mode.
    """
    frames = torch.from_numpy(np.concatenate([video.frames for video in videos]))
    joints = _padded_joints(videos)
    height, width = frames.shape[1:3]
    network = reference_network(joints.shape[1], (width, height), seed)
    optimizer = torch.optim.Adam(network.detector.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(frames), (batch_size,), generator=generator)
        predicted = network.detect(_to_tensor(frames[rows].numpy())).keypoints
        known = ~joints[rows].isnan()
        loss = (predicted - joints[rows].nan_to_num())[known].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress(step + 1, loss.item())
    return network.eval()


def _padded_joints(videos: list[LabelledVideo]) -> Tensor:
    """(frames of all videos, most joints, 2) normalised, NaN where a video has no such joint."""
    most = max(video.joints.shape[1] for video in videos)
    parts = []
    for video in videos:
        height, width = video.frames.shape[1:3]
        padded = np.full((len(video.joints), most, 2), np.nan, np.float32)
        padded[:, : video.joints.shape[1]] = pixels_to_normalised(video.joints, (width, height))
        parts.append(padded)
    return torch.from_numpy(np.concatenate(parts))


def _to_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
