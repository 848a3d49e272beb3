"""What is wrong at present: said once in the log, and kept for the diagnostics until it is over."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from keypoint_perception.errors import UserError

REPEAT_AFTER_S = 60.0
"""What comes and goes is not logged again before this, nor where only its numbers differ."""
_MOST_REMEMBERED = 100


class Faults:
    """The faults of one part of the node, by cause."""

    def __init__(self, logger: Any, part: str = "") -> None:
        self._logger, self._prefix = logger, f"{part}: " if part else ""
        self._active: dict[str, tuple[bytes, str]] = {}
        self._logged: dict[str, float] = {}

    def warn(self, cause: str, text: str, *, answers: bool = False) -> None:
        """Something works less well than it should. answers: see `error`."""
        self._report(cause, text, DiagnosticStatus.WARN, answers)

    def error(self, cause: str, text: str, *, answers: bool = False) -> None:
        """Something does not work. answers: whether somebody asked for it just now, who is told each time."""
        self._report(cause, text, DiagnosticStatus.ERROR, answers)

    def clear(self, cause: str) -> None:
        """It is over."""
        self._active.pop(cause, None)

    def clear_all(self) -> None:
        """Nothing is asked of this part any more."""
        self._active.clear()

    @contextmanager
    def kept(self, cause: str, what: str) -> Iterator[None]:
        """Makes a fault of what the block raises, which then goes no further. what: the words for what failed."""
        try:
            yield
        except UserError as error:
            self.error(cause, f"{what} failed: {error}")
        except Exception as error:
            self.error(cause, f"{what} failed: {type(error).__name__}: {error}")
        else:
            self.clear(cause)

    def has(self, cause: str) -> bool:
        """Whether there is a fault of this cause at present."""
        return cause in self._active

    def worst(self) -> tuple[bytes, str]:
        """The level and the texts of all faults, worst first; OK and nothing where there are none."""
        if not self._active:
            return DiagnosticStatus.OK, ""
        ordered = sorted(self._active.values(), key=lambda fault: fault[0], reverse=True)
        return ordered[0][0], "; ".join(text for _, text in ordered)

    def _report(self, cause: str, text: str, level: bytes, answers: bool) -> None:
        self._active[cause] = (level, text)
        now, words = time.monotonic(), re.sub(r"[-\d.]+", "#", text)
        if answers or now - self._logged.get(words, -math.inf) >= REPEAT_AFTER_S:
            if len(self._logged) >= _MOST_REMEMBERED:
                self._logged.clear()
            self._logged[words] = now
            # One call a level: rclpy refuses a place in the source that changes its severity.
            if level == DiagnosticStatus.ERROR:
                self._logger.error(self._prefix + text)
            else:
                self._logger.warning(self._prefix + text)
