"""What a training run says while it runs: a bar with time left, and curves for TensorBoard."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from keypoint_perception.files import make_folder, writing

LOG_FOLDER = "tensorboard"


class Curves:
    """A file for TensorBoard. torch's own writer writes in a thread, where nobody catches that the disk is full."""

    def __init__(self, folder: Path, start: int) -> None:
        """start: what an earlier file in the folder has of this step and later ones does not count any more.

        Raises UserError, as do all methods, where it cannot be written.
        """
        from tensorboard.compat.proto import event_pb2  # takes a second to import, with torch's
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard import summary

        self._events, self._summary = event_pb2, summary
        make_folder(folder)
        self.path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        with writing(self.path):
            self._file = self.path.open("wb")
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        self._add(step=start, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def scalar(self, step: int, name: str, value: float) -> None:
        """A point of a curve."""
        self._add(step=step, summary=self._summary.scalar(name, value))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture (H, W, 3) uint8 RGB."""
        self._add(step=step, summary=self._summary.image(name, image, dataformats="HWC"))

    def _add(self, **fields: Any) -> None:
        event = self._events.Event(wall_time=time.time(), **fields)
        with writing(self.path):
            self._records.write(event.SerializeToString())
            self._file.flush()

    def close(self) -> None:
        """Closes the file; what could not be written to it was said."""
        with suppress(OSError):
            self._file.close()


class Progress:
    """Bar and curves of one run. Silent where `shown` is false, as in all but the first of several processes."""

    def __init__(
        self,
        out: Path,
        start: int,
        steps: int,
        log_steps: int,
        shown: bool,
        before: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """before: seconds that the run took until it was resumed, and of these waited for data."""
        interval = 0.5 if sys.stderr.isatty() else 30.0
        self.bar = tqdm(
            total=steps, initial=start, disable=not shown, mininterval=interval, maxinterval=interval, unit="step"
        )
        self.writer = None
        if shown:
            self.writer = Curves(out / LOG_FOLDER, start)
        self.log_steps = log_steps
        self._before = before
        self._start_counting()
        self._opening = True

    def _start_counting(self) -> None:
        seconds, self.waited = self._before
        self.started = time.perf_counter() - seconds

    def waiting(self, seconds: float) -> None:
        """Adds time that the loop stood still for data."""
        self.waited += seconds

    @property
    def wait_share(self) -> float:
        """Share of the run's time that went into waiting for data, in [0, 1].

        The first step, and that after each resumption, does not count: it opens files.
        """
        return self.waited / max(time.perf_counter() - self.started, 1e-9)

    def step(self, step: int, terms: dict[str, float], rates: dict[str, float]) -> None:
        """One step is done: its loss terms and learning rates."""
        if self._opening:
            self._opening = False
            self._start_counting()
        losses = " ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self.bar.set_postfix_str(f"{losses} wait {self.wait_share:.0%}", refresh=False)
        self.bar.update()
        if self.writer and step % self.log_steps == 0:
            self.scalars(step, {**terms, **{f"lr/{name}": rate for name, rate in rates.items()}})
            self.scalars(step, {"data_wait_share": self.wait_share})

    def scalars(self, step: int, values: dict[str, float], group: str = "") -> None:
        """More curves."""
        if self.writer:
            for name, value in values.items():
                self.writer.scalar(step, f"{group}/{name}" if group else name, value)

    def picture(self, step: int, image: np.ndarray) -> None:
        """A picture (H, W, 3) uint8 RGB beside the curves."""
        if self.writer:
            self.writer.picture(step, "preview", image)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if not self.bar.disable:
            self.bar.write(line, file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if self.writer:
            self.writer.close()
