"""What a run says of its own time."""

from __future__ import annotations

import pytest
from tiny_run import tiny_train

import training.progress
from training.checkpoint import CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from training.progress import Progress


def test_wait_share_counts_from_the_end_of_the_first_step(tmp_path, monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr(training.progress.time, "perf_counter", lambda: now)
    with Progress(tmp_path, start=0, steps=9, log_steps=1, shown=False) as progress:
        now += 10
        progress.waiting(9.0)  # opens files
        progress.step(1, {}, {})
        for step in (2, 3):
            now += 5
            progress.waiting(0.5)
            progress.step(step, {}, {})
        assert progress.wait_share == pytest.approx(0.1)
    with Progress(tmp_path, start=3, steps=9, log_steps=1, shown=False, before=(10.0, 1.0)) as resumed:
        now += 10
        resumed.waiting(9.0)
        resumed.step(4, {}, {})
        now += 10
        resumed.waiting(4.0)
        assert resumed.wait_share == pytest.approx(5 / 20)


def test_a_resumed_run_tells_what_it_waited_from_its_beginning(tmp_path) -> None:
    tiny_train(tmp_path / "run", "--steps", "2")
    stopped = read_checkpoint(tmp_path / "run")
    stopped.about.update(minutes=100.0, data_wait_share=0.5)
    write_checkpoint(tmp_path / "run" / CHECKPOINT_NAME, stopped)
    assert tiny_train(tmp_path / "run", "--steps", "3", resume=True).wait_share == pytest.approx(0.5, abs=0.01)
