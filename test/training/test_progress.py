"""What a run says of its own time."""

from __future__ import annotations

import pytest

import training.progress
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
