"""What the benchmark runs, and what it leaves as it is; no training here."""

import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from predictions import video

from keypoint_perception.command_line import run_command
from keypoint_perception.errors import UserError
from training.evaluation import benchmark
from training.evaluation.benchmark import (
    Plan,
    main,
    measure_cell,
    measure_references,
    parse_minutes,
    prepare_scene,
    train,
)
from training.evaluation.scenes import SCENES
from training.fit import MODEL_NAME


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have been run; a step takes half a second."""
    run = []

    def remember(*arguments):
        run.append(arguments)
        if "--no-export" in arguments:
            folder = arguments[arguments.index("-o") + 1]
            benchmark.Path(folder).mkdir(parents=True)

    monkeypatch.setattr(benchmark, "_training", remember)
    checkpoint = SimpleNamespace(about={"seconds_per_step": 0.5})
    monkeypatch.setattr(benchmark, "read_checkpoint", lambda path: checkpoint)
    return run


def plan(out, **changes):
    given = {"methods": ("imm",), "scenes": ("cartpoles",), "seeds": (3,), "minutes": 1.0}
    counts = {"train": 4, "labels": 3, "test": 2}
    return Plan(**{**given, "episodes": counts, "recordings": counts, "remeasure": False, "out": out, **changes})


def test_a_run_lasts_as_many_steps_as_fit_into_the_budget(tmp_path, commands):
    train(plan(tmp_path), SCENES["cartpoles"], "imm", 3, tmp_path / "data", tmp_path / "run")
    calibration, fit = commands
    assert calibration[:2] == fit[:2] == ("fit", "imm") and "--seed" in fit and "3" in fit
    assert "--steps=12" in calibration and "--no-export" in calibration
    assert "--steps=120" in fit and fit[fit.index("-o") + 1] == str(tmp_path / "run")
    assert not (tmp_path / "calibrate3").exists()


def test_a_trained_run_is_kept_and_a_stopped_one_goes_on(tmp_path, commands):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoint.pt").touch()
    train(plan(tmp_path), SCENES["cartpoles"], "imm", 3, tmp_path / "data", folder)
    assert commands == [("fit", "imm", "-o", str(folder), "--resume")]
    (folder / MODEL_NAME).touch()
    train(plan(tmp_path), SCENES["cartpoles"], "imm", 3, tmp_path / "data", folder)
    assert len(commands) == 1


def test_methods_that_learn_from_poses_get_some(tmp_path, commands):
    train(plan(tmp_path), SCENES["tabletop"], "keypointgan", 0, tmp_path / "data", tmp_path / "run")
    poses, _, fit = commands
    assert poses[:2] == ("simulate", "tabletop") and "--poses" in poses and "320x240" in poses
    assert f"--data.prior={tmp_path / 'data' / 'poses.npz'}" in fit


def test_no_body_is_measured_in_the_episodes_that_labels_are_fitted_on(tmp_path, commands):
    prepare_scene(plan(tmp_path), SCENES["spiders0shot"])
    given = {run[run.index("-o") + 1].rpartition("/")[2]: run for run in commands}
    option = {
        split: {name: run[run.index(name) + 1] for name in ("--episodes", "--seed", "--split")}
        for split, run in given.items()
    }
    assert [option[split]["--episodes"] for split in ("train", "labels", "test")] == ["4", "3", "2"]
    assert option["labels"]["--split"] == option["test"]["--split"] == "test"  # the same bodies,
    assert len({option[split]["--seed"] for split in option}) == 3  # in other episodes


def test_a_measured_cell_is_kept(tmp_path, commands):
    folder = tmp_path / "runs" / "cartpoles" / "imm" / "seed3"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text("{}")
    measure_cell(plan(tmp_path), SCENES["cartpoles"], "imm", 3, tmp_path / "data")
    assert commands == [] and (folder / "cell.json").read_text() == "{}"


def test_what_has_no_config_is_left_out_and_nothing_at_all_is_an_error(tmp_path, commands, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "measure_references", lambda *_: None)
    monkeypatch.setattr(benchmark.SCENES["whcm"].__class__, "fit_options", _no_config)
    with pytest.raises(UserError, match="has no measured cell"):
        main(["--methods", "imm", "--scenes", "whcm", "-o", str(tmp_path)])
    assert "left out: no config" in capsys.readouterr().err


def test_bodies_without_labels_are_named_before_anything_is_trained(tmp_path, monkeypatch):
    points = np.zeros((4, 3, 2))
    bodies = {"train": ("a", "b"), "labels": ("a",), "test": ("a", "b")}
    videos = {split: [video(points, points, variant=body).video for body in bodies[split]] for split in bodies}
    monkeypatch.setattr(benchmark, "_labelled", lambda scene, folder, size: videos[folder.name])
    monkeypatch.setattr(benchmark, "train_for", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(UserError, match=r"has labels of a, and of b none: .*; --labels-episodes makes more"):
        measure_references(plan(tmp_path), SCENES["cartpoles"], tmp_path)


WRITES_A_CHECKPOINT = """
import signal, sys, time
from pathlib import Path

def stop(number, frame):
    time.sleep(1)
    Path("checkpoint").touch()
    sys.exit(128 + number)

signal.signal(signal.SIGTERM, stop)
Path("runs").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_writes_its_checkpoint_where_the_benchmark_is_stopped(tmp_path, monkeypatch, number):
    (tmp_path / "training.py").write_text(WRITES_A_CHECKPOINT)
    monkeypatch.setattr(benchmark, "ROOT", tmp_path)

    def interrupt():
        while not (tmp_path / "runs").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    assert run_command(lambda: benchmark._training("fit")) == 128 + number
    assert (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("seeds", [("0", "-1"), ("9" * 25,)])
def test_seeds_that_are_none_are_refused(tmp_path, commands, seeds):
    with pytest.raises(UserError, match=f"--seeds is {' '.join(seeds)}: give numbers from 0"):
        main(["--seeds", *seeds, "-o", str(tmp_path)])
    assert not commands


def _no_config(scene, method):
    raise UserError("no config")


def test_a_report_is_made_of_what_is_there(tmp_path, capsys):
    folder = tmp_path / "runs" / "cartpoles" / "imm" / "seed0"
    folder.mkdir(parents=True)
    cell = {"method": "imm", "scene": "cartpoles", "seed": 0, "measures": {"regression": {"error": 0.125}}}
    (folder / "cell.json").write_text(json.dumps(cell))
    assert main(["--report", "-o", str(tmp_path)]) == 0
    assert "0.125" in capsys.readouterr().out and (tmp_path / "report.html").is_file()
    assert json.loads((tmp_path / "results.json").read_text())["cells"][0]["measures"]["joints"]["dist"] is None


@pytest.mark.parametrize(("text", "minutes"), [("90s", 1.5), ("30min", 30), ("2h", 120), ("0.5h", 30)])
def test_budgets(text, minutes):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "30", "-1min", "0s", "5 days"])
def test_bad_budgets_say_what_is_allowed(text):
    with pytest.raises(UserError, match="90s, 30min or 2h"):
        parse_minutes(text)
