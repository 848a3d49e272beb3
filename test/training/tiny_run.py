"""A training run of seconds: IMM on frames made here; a script, too: `tiny_run.py OUT '{"pause": 0.1}' [FLAG …]`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.config import RunConfig, parse_config
from training.fit import make_fabric, train
from training.trainer import Trainer

SIZE = (32, 24)
FLAGS = [
    *("--data.sources", '["memory"]', "--data.input_size", f"[{SIZE[0]}, {SIZE[1]}]"),
    *("--method.keypoints", "4", "--method.width", "4", "--method.map_stride", "4", "--method.early_stride", "true"),
    *("--method.generator_width", "8", "--method.generator_least_width", "4", "--method.features", "pyramid"),
    *("--batch_size", "4", "--steps", "8", "--log_steps", "1", "--preview_steps", "4", "--accelerator", "cpu"),
]


def moving_square(frames: int = 24) -> np.ndarray:
    """(T, H, W, 3) uint8: a red square on a path over grey."""
    film = np.full((frames, SIZE[1], SIZE[0], 3), 70, np.uint8)
    for t, frame in enumerate(film):
        x, y = 2 + t * (SIZE[0] - 12) // frames, round(7 + 6 * np.sin(t / 3))
        frame[y : y + 8, x : x + 8] = (220, 40, 40)
    return film


class MemorySampler:
    """Random pairs of frames, each batch a function of step, size and seed.

    Each comes `pause` seconds late; batch `poison` is bad, and who asks for batch `interrupt` gets a SIGTERM.
    """

    def __init__(
        self, frames: np.ndarray, pause: float = 0.0, poison: int | None = None, interrupt: int | None = None
    ) -> None:
        self.frames = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        self.pause, self.poison, self.interrupt = pause, poison, interrupt

    def batch(self, step: int, batch_size: int, seed: int) -> dict[str, torch.Tensor]:
        """See training.data."""
        time.sleep(self.pause)
        if step == self.interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
        target, source = np.random.default_rng((seed, step)).integers(0, len(self.frames), (2, batch_size))
        batch = {"image": self.frames[target], "reference": self.frames[source]}
        if step == self.poison:
            batch["image"] = torch.full_like(batch["image"], float("nan"))
        return batch


class MemoryData:
    """What the loop needs of a `training.data.Data`."""

    fingerprint = "memory"
    viewport_roi = None

    def __init__(self, **harm: Any) -> None:
        self.frames = moving_square()
        self.train = MemorySampler(self.frames, **harm)
        self.validation = MemorySampler(self.frames)

    def sequences(self) -> Iterator[tuple[str, np.ndarray]]:
        """The one recording."""
        yield "memory", self.frames


def tiny_config(*flags: str) -> RunConfig:
    """The config of the run; later flags win."""
    return parse_config("imm", [*FLAGS, *flags])


def tiny_train(out: Path, *flags: str, resume: bool = False, **harm: Any) -> Trainer:
    """Trains into `out`. harm: see MemorySampler."""
    config = tiny_config(*flags)
    fabric = make_fabric(config)
    fabric.launch()
    return train(config, MemoryData(**harm), out, fabric, resume)


if __name__ == "__main__":
    tiny_train(Path(sys.argv[1]), *sys.argv[3:], **json.loads(sys.argv[2]))
