"""How every command ends, whatever ends it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from keypoint_perception.command_line import run_command
from keypoint_perception.errors import UserError


def test_sigterm_ends_a_command_even_where_a_library_makes_an_error_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise UserError("ONNX Runtime cannot be imported") from None
        return 0

    assert run_command(command) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped\n"


def test_processes_that_a_command_forks_are_ended_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    def command() -> int:
        context = multiprocessing.get_context("fork")
        runs = context.Event()

        def work() -> None:
            runs.set()
            while True:  # Python looks for signals between two sleeps, and can miss one that comes just before a sleep
                time.sleep(0.05)

        worker = context.Process(target=work)
        worker.start()
        assert runs.wait(20)
        worker.terminate()
        worker.join(20)
        return worker.exitcode or 0

    assert run_command(command) == -signal.SIGTERM
    assert capfd.readouterr().err == ""
