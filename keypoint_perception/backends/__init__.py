"""Engines that run a model file; one file each, all behind one small interface.

`open_backend` imports an engine only when it is asked for, so that a robot needs just the one it uses.
"""

from __future__ import annotations

import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.model import Model

BACKENDS = {
    "tensorrt": "keypoint_perception.backends.tensorrt",
    "openvino": "keypoint_perception.backends.openvino",
    "onnxruntime": "keypoint_perception.backends.onnxruntime",
}
"""Backend name to the module whose `create(model, threads, log) -> Backend` opens it; see `open_backend`."""
CHOICES = ("auto", *BACKENDS)
TRIAL_RUNS = 20
TOLERANCE_PX = {"fp32": 0.01, "fp16": 0.1, "int8": 0.5}
"""Precision to how far keypoints of a model file may be from those of the network it was made of, or of another engine,
in pixels of the input; for int8 the median counts."""


class Backend(ABC):
    """A compiled model, ready to run. Not shared between threads."""

    @abstractmethod
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs a batch: images (N, H, W, 3) uint8 RGB at the model's input size, C-contiguous, N >= 1.

        Returns `keypoints` (N, K, 2) float32 normalised, `scores` (N, K) float32 in [0, 1] and, where the skeleton
        depends on the image, `adjacency` (N, K, K) float32. The arrays are the caller's to keep.
        """

    @abstractmethod
    def describe(self) -> str:
        """Engine, version and device, for a log line."""

    def close(self) -> None:  # noqa: B027 - most engines need not
        """Gives back at once what would otherwise stay taken. To be called once; nothing runs afterwards."""


class BackendUnavailable(UserError):
    """This engine cannot run here; the message says why and what would change that."""


def open_backend(
    name: str, model: Model, *, threads: int = 1, log: Callable[[str], None] = lambda line: None
) -> Backend:
    """Opens a model in the engine `name`, or, for "auto", in the one that proves fastest here.

    threads: CPU threads for one inference, at least 1. log: receives a line an engine that "auto" tried, and
    what an engine has to say of its start.
    Raises UserError (BackendUnavailable where the engine is missing) that says what to do.
    """
    if name == "auto":
        return _fastest(model, threads, log)
    if name not in BACKENDS:
        raise UserError(f"backend is {name!r}: allowed are {', '.join(CHOICES)}")
    return importlib.import_module(BACKENDS[name]).create(model, threads, log)


def trial_ms(backend: Backend, model: Model) -> float:
    """Median milliseconds of one single-image inference, after warming up."""
    width, height = model.info.input_size
    image = np.zeros((1, height, width, 3), np.uint8)
    seconds = []
    for _ in range(TRIAL_RUNS + 3):
        start = time.perf_counter()
        backend.run(image)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[3:])) * 1e3


def _fastest(model: Model, threads: int, log: Callable[[str], None]) -> Backend:
    tried: list[tuple[float, Backend]] = []
    reasons = []
    for name in BACKENDS:
        try:
            tried.append(_trial(name, model, threads, log))
            log(f"backend auto: {tried[-1][1].describe()} takes {tried[-1][0]:.2f} ms")
        except Exception as error:  # also an engine's own, such as of a GPU without memory
            reasons.append(str(error) or type(error).__name__)
            log(f"backend auto: not {name}: {reasons[-1]}")
    if not tried:
        raise BackendUnavailable("no backend works here: " + "; ".join(reasons))
    (_, chosen), *slower = sorted(tried, key=lambda trial: trial[0])
    for _, backend in slower:
        backend.close()
    return chosen


def _trial(name: str, model: Model, threads: int, log: Callable[[str], None]) -> tuple[float, Backend]:
    """Milliseconds that an engine takes, and the engine. Where it raises anything as it runs, it is closed."""
    backend = open_backend(name, model, threads=threads, log=log)
    try:
        return trial_ms(backend, model), backend
    except Exception:
        backend.close()
        raise
