"""Downstream: what is the object doing? A small recurrent network that sees keypoints alone says, clip by clip.

The protocol of Keypoint Pyramids' action recognition, on classes that simulated recordings give: a clip's class is
where the joint that moves farthest in it goes: right, down, left or up in the picture, or nowhere. No single frame
tells. What regressions are fitted on is trained on, half of the videos if nothing else is said. Beside the keypoints
stand the most frequent class and the same network on the true joints. The paper's text does not say what its network
is; here it is one GRU of 32 units, the last state of which goes through one linear layer, trained for 150 full-batch
steps of Adam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.evaluation.predicted import PredictedVideo
from training.evaluation.regression import fit_frames, variants

CLASSES = ("right", "down", "left", "up", "rest")
CLIP_FRAMES = 10
STRIDE = 2
"""A clip begins every so many frames."""
REST_BELOW = 0.1
"""A clip in which no joint ends farther than this from where it began is at rest, [-1, 1] units."""
UNITS, STEPS, LEARNING_RATE = 32, 150, 0.02
FEWEST_CLIPS = 20
"""With fewer clips in a half nothing is measured."""


class MotionClassifier(nn.Module):
    """A sequence of poses to a class."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(channels, UNITS, batch_first=True)
        self.last = nn.Linear(UNITS, len(CLASSES))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, C) to logits (B, classes)."""
        states, _ = self.recurrent(clips)
        return self.last(states[:, -1])


def motion_class(joints: np.ndarray) -> int:
    """The index in CLASSES of a clip (T, N, 2) in [-1, 1] units without NaN."""
    moved = joints[-1] - joints[0]
    x, y = moved[np.linalg.norm(moved, axis=1).argmax()]
    if np.hypot(x, y) < REST_BELOW:
        return CLASSES.index("rest")
    if abs(x) >= abs(y):
        return CLASSES.index("right" if x > 0 else "left")
    return CLASSES.index("down" if y > 0 else "up")


def motion_recognition(videos: Sequence[PredictedVideo]) -> dict[str, float | None]:
    """accuracy from the keypoints, true_joints from the joints in their place, and chance: that of the best guess
    without looking, the most frequent class.

    None where there are too few clips in time order with all joints annotated.
    """
    train, test = _halves(videos)
    if min(len(train), len(test)) < FEWEST_CLIPS:
        return dict.fromkeys(("accuracy", "chance", "true_joints"))
    classes = torch.tensor([clip.motion for clip in test])
    return {
        "accuracy": _accuracy(train, test, "points"),
        "chance": float(torch.bincount(classes).max() / len(test)),
        "true_joints": _accuracy(train, test, "joints"),
    }


def motion_accuracy(videos: Sequence[PredictedVideo]) -> float | None:
    """`accuracy` of `motion_recognition` alone, in half the time."""
    train, test = _halves(videos)
    return None if min(len(train), len(test)) < FEWEST_CLIPS else _accuracy(train, test, "points")


class _Clip(NamedTuple):
    points: np.ndarray
    """(T, 2K)."""
    joints: np.ndarray
    """(T, 2N)."""
    motion: int
    """Index in CLASSES."""


def _halves(videos: Sequence[PredictedVideo]) -> tuple[list[_Clip], list[_Clip]]:
    """The clips to train on and those to measure, of videos in time order."""
    halves: tuple[list[_Clip], list[_Clip]] = ([], [])
    for same in variants(videos):
        for video, fit in zip(same, fit_frames(same), strict=True):
            if video.video.ordered:
                for half, chosen in zip(halves, (fit, ~fit), strict=True):
                    half += _clips(video, np.flatnonzero(chosen))
    return halves


def _clips(video: PredictedVideo, frames: np.ndarray) -> list[_Clip]:
    """The clips in a run of a video's frames."""
    clips = []
    for first in range(0, len(frames) - CLIP_FRAMES + 1, STRIDE):
        rows = frames[first : first + CLIP_FRAMES]
        joints = video.joints[rows]
        if rows[-1] - rows[0] == CLIP_FRAMES - 1 and not np.isnan(joints).any():
            points = video.points[rows].reshape(CLIP_FRAMES, -1)
            clips.append(_Clip(points, joints.reshape(CLIP_FRAMES, -1), motion_class(joints)))
    return clips


def _padded(sequences: list[np.ndarray]) -> Tensor:
    """(B, T, C) of the most channels; those that a variant lacks are 0."""
    channels = max(sequence.shape[1] for sequence in sequences)
    return torch.tensor(
        np.stack([np.pad(sequence, ((0, 0), (0, channels - sequence.shape[1]))) for sequence in sequences]),
        dtype=torch.float32,
    )


def _accuracy(train_clips: list[_Clip], test_clips: list[_Clip], seen: Literal["points", "joints"]) -> float:
    """Of a network trained on what is `seen` of clips: of each its first pose and the differences to it."""
    halves = (train_clips, test_clips)
    train_classes, test_classes = (torch.tensor([clip.motion for clip in half]) for half in halves)
    train, test = (_padded([getattr(clip, seen) for clip in half]) for half in halves)
    channels = max(train.shape[2], test.shape[2])
    train, test = (F.pad(clips, (0, channels - clips.shape[2])) for clips in (train, test))
    train, test = (torch.cat((clips, clips - clips[:, :1]), dim=2) for clips in (train, test))
    mean, spread = train.mean(dim=(0, 1)), train.std(dim=(0, 1)) + 1e-3
    train, test = (train - mean) / spread, (test - mean) / spread
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = MotionClassifier(2 * channels)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(network(train), train_classes).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return float((network(test).argmax(dim=1) == test_classes).float().mean())
