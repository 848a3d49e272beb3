"""A model loaded beside the running one, so that no image waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keypoint_perception.detector import Detector
from keypoint_perception.errors import UserError


@dataclass(frozen=True)
class Request:
    """A model to load, and how."""

    path: str
    backend: str
    threads: int
    batch_size: int
    """The largest batch that will be asked of it: the number of cameras."""


def load(request: Request, log: Callable[[str], None]) -> Detector:
    """Opens and warms up a model. Raises UserError that says what is wrong."""
    detector = Detector(request.path, request.backend, request.threads, log)
    detector.warm_up(request.batch_size)
    return detector


class BackgroundLoader:
    """Loads one model at a time in a thread of its own; the outcome is fetched by who owns the running one."""

    def __init__(self, log: Callable[[str], None], on_done: Callable[[], None]) -> None:
        """on_done: called in the loading thread when there is something to fetch."""
        self._log, self._on_done = log, on_done
        self._thread: threading.Thread | None = None
        self._outcome: tuple[Request, Detector | UserError] | None = None

    @property
    def busy(self) -> bool:
        """Whether a model is being loaded or waits to be fetched."""
        return self._thread is not None

    def start(self, request: Request) -> None:
        """Begins to load. Not while busy."""
        assert not self.busy
        # A daemon: a shutdown does not wait for an engine to be built.
        self._thread = threading.Thread(target=self._run, args=(request,), name="model loader", daemon=True)
        self._thread.start()

    def fetch(self) -> tuple[Request, Detector | UserError] | None:
        """What was asked for and what came of it, once; None where nothing is done."""
        outcome, self._outcome = self._outcome, None
        if outcome is not None:
            self._thread = None
        return outcome

    def _run(self, request: Request) -> None:
        try:
            result: Any = load(request, self._log)
        except UserError as error:
            result = error
        except Exception as error:  # an engine's own failure must not leave the loader busy for ever
            result = UserError(f"model {request.path} cannot be loaded ({type(error).__name__}: {error})")
        self._outcome = (request, result)
        self._on_done()
