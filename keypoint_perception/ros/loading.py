"""The model that serves, and the next one, loaded beside it so that no image waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.task import Future

from keypoint_perception.detector import Detector
from keypoint_perception.errors import UserError
from keypoint_perception.model import check_is_file


@dataclass(frozen=True)
class Request:
    """A model to load, and how."""

    path: str
    backend: str
    threads: int
    batch_size: int
    """The largest batch that will be asked of it: the number of cameras."""

    def check(self) -> None:
        """Raises UserError where there is no such file."""
        check_is_file(Path(self.path))


@dataclass
class _Load:
    """A model that is being loaded."""

    changes: dict[str, Any]
    """The parameters that it comes with."""
    answer: Future
    given_up: bool = False


class ModelHost:
    """Holds the running detector and swaps it between two images."""

    def __init__(self, node: Node, on_swap: Callable[[dict[str, Any], UserError | None], None]) -> None:
        """on_swap: called in the executor's thread after a swap, or one that failed, with its `changes`.

        Where the model was given up meanwhile there are none.
        """
        self._log, self._on_swap = node.get_logger().info, on_swap
        self.detector: Detector | None = None
        self._under_way: _Load | None = None
        self._outcome: Detector | UserError | None = None
        # The thread says that it is done; what follows from that is done between two callbacks of the node.
        self._loaded = node.create_guard_condition(self._finish)

    @property
    def busy(self) -> bool:
        """Whether a model is being loaded beside the running one."""
        return self._under_way is not None

    @property
    def loading(self) -> dict[str, Any]:
        """The changes of parameters that come with the model that is being loaded, empty where there is none."""
        return self._under_way.changes if self._under_way is not None else {}

    def open(self, request: Request) -> None:
        """Loads a model while nothing runs. Raises UserError that says what is wrong."""
        self._serve(self._load(request))
        self._log(self.describe())

    def close(self) -> None:
        """Gives the model back, and gives up the one that is being loaded."""
        self._serve(None)
        if self._under_way is not None:
            self._under_way.changes, self._under_way.given_up = {}, True

    def describe(self) -> str:
        """The running model and its engine, in words."""
        assert self.detector is not None
        return f"model {self.detector.model.id} in {self.detector.backend.describe()}"

    def begin(self, request: Request, changes: dict[str, Any]) -> Future:
        """Starts to load a model beside the running one.

        changes: the parameters that it comes with, passed on with the new model. The future's result is a sentence, its
        exception a UserError. Raises UserError where it cannot even begin.
        """
        request.check()
        if self.busy:
            raise UserError("a model is being loaded: wait until it is there")
        answer = Future()
        self._under_way = _Load(changes, answer)
        # A daemon: a shutdown does not wait for an engine to be built.
        threading.Thread(target=self._run, args=(request,), name="model loader", daemon=True).start()
        return answer

    def _load(self, request: Request) -> Detector:
        detector = Detector(request.path, request.backend, request.threads, self._log)
        try:
            detector.warm_up(request.batch_size)
        except Exception:
            detector.close()
            raise
        return detector

    def _serve(self, detector: Detector | None) -> None:
        """Replaces the running model, which is closed."""
        if self.detector is not None:
            self.detector.close()
        self.detector = detector

    def _run(self, request: Request) -> None:
        try:
            self._outcome = self._load(request)
        except UserError as error:
            self._outcome = error
        except Exception as error:  # an engine's own failure must not leave us busy for ever
            self._outcome = UserError(f"model {request.path} cannot be loaded ({type(error).__name__}: {error})")
        with suppress(Exception):  # the node may have ended meanwhile
            self._loaded.trigger()

    def _finish(self) -> None:
        load, outcome = self._under_way, self._outcome
        if load is None or outcome is None:
            return
        self._under_way = self._outcome = None
        if load.given_up:
            if isinstance(outcome, Detector):
                outcome.close()
            outcome = UserError("the node was cleaned up meanwhile")
        if isinstance(outcome, UserError):
            load.answer.set_exception(outcome)
            load.answer.exception()  # told by on_swap: nobody need fetch it
            self._on_swap(load.changes, outcome)
        else:
            self._serve(outcome)
            self._log(self.describe())
            load.answer.set_result(self.describe())
            self._on_swap(load.changes, None)
