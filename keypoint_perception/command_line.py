"""What the commands of this package share."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from keypoint_perception.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, as everything else that a user gets wrong."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; see {self.prog} --help")


class Terminated(KeyboardInterrupt):
    """SIGTERM came, which ends a command as Ctrl-C does: what is half written is removed."""


def run_command(command: Callable[[], int], stopped: str = "stopped") -> int:
    """Runs a command. Returns its exit status, as shells expect it where it was ended.

    A UserError is printed as one line and gives 2. stopped: what is said after Ctrl-C or SIGTERM.
    """
    try:
        with _terminated_as_interrupted():
            status = command()
            sys.stdout.flush()
            return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(stopped, file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Makes SIGTERM raise Terminated in this process. Those that it forks end as ever, without a word."""
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    ours, came = os.getpid(), False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if os.getpid() == ours:
            came = True
            raise Terminated
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except UserError:
        if came:  # while a library was imported, which then says that it cannot be
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
