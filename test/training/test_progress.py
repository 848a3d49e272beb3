"""What a run says of its own time."""

from __future__ import annotations

import numpy as np
import pytest
from full_disk import full_disk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import tiny_train

import training.progress
from keypoint_perception.errors import UserError
from training.checkpoint import CHECKPOINT_NAME, read_checkpoint, write_checkpoint
from training.progress import LOG_FOLDER, Curves, Progress


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


def test_tensorboard_reads_the_curves_and_those_of_a_resumed_run_follow(tmp_path) -> None:
    for start, value in ((0, 1.0), (2, 5.0)):
        with Progress(tmp_path, start, steps=4, log_steps=1, shown=True) as progress:
            progress.step(start + 1, {"loss": value}, {"main/0": 0.5})
            progress.scalars(start + 2, {"loss": 2 * value}, "validation")
            progress.picture(start + 2, np.zeros((6, 8, 3), np.uint8))
    curves = EventAccumulator(str(tmp_path / LOG_FOLDER))
    curves.Reload()
    points = {name: [(e.step, e.value) for e in curves.Scalars(name)] for name in curves.Tags()["scalars"]}
    assert points["loss"] == [(1, 1.0), (3, 5.0)] and points["validation/loss"] == [(4, 10.0)]
    assert points["lr/main/0"] == [(1, 0.5), (3, 0.5)] and set(points) > {"data_wait_share"}
    assert (curves.Images("preview")[0].width, curves.Images("preview")[0].height) == (8, 6)


def test_a_full_disk_is_one_line(tmp_path, capfd) -> None:
    curves = Curves(tmp_path, 0)
    with full_disk(300), pytest.raises(UserError, match=r"cannot write .*tfevents.* \(File too large\)"):
        for step in range(100):
            curves.scalar(step, "loss", 1.0)
    curves.close()
    assert capfd.readouterr().err == ""
