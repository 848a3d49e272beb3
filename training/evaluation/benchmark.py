"""`python -m training benchmark`: every method on every scene by every measure, in one table beside the papers'.

What is there already is kept: scenes that were simulated, runs that were trained, cells that were measured. Runs go
through `python -m training fit` in a process of their own, for the same time each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_perception.backends import Backend
from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.model import read_model
from training.checkpoint import CHECKPOINT_NAME, read_checkpoint
from training.evaluation.evaluate import PredictedVideo, evaluate_model, normalised_joints, regression
from training.evaluation.reference import TorchBackend, reference_network, train_supervised
from training.evaluation.report import TABLE_NAME, picture_of, write_report
from training.evaluation.scenes import SCENES, Scene
from training.evaluation.videos import LabelledVideo, read_labelled, resized
from training.fit import MODEL_NAME
from training.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
CALIBRATION_STEPS = 12
SUPERVISED_SHARE = 0.5
"""The supervised reference is trained for this share of a cell's time; it needs less."""
REFERENCE_WIDTH = 128
"""Reference networks see frames of at most this many pixels in width."""


@dataclass(frozen=True)
class Plan:
    """What a benchmark measures and how long it may take."""

    methods: tuple[str, ...]
    scenes: tuple[str, ...]
    seeds: tuple[int, ...]
    minutes: float
    """Of training, for each cell."""
    episodes: tuple[int, int]
    """For training and for testing, of the sets;"""
    recordings: tuple[int, int]
    """of scenes that are bags."""
    out: Path


def parse_minutes(text: str) -> float:
    """ "90s", "30min" or "2h" to minutes. Raises UserError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text.strip())
    if not match or float(match[1]) <= 0:
        raise UserError(f"--budget is {text!r}: give a time such as 90s, 30min or 2h")
    return float(match[1]) * {"s": 1 / 60, "min": 1.0, "h": 60.0}[match[2]]


def run(plan: Plan) -> dict[str, Any]:
    """Trains and measures what is missing and writes results.json, table.md and report.html. Returns the results.

    Methods that have no config for a scene are left out of it, with a line that says so.
    """
    cells = []
    for name in plan.scenes:
        scene = SCENES[name]
        methods = _with_config(plan.methods, scene)
        data = prepare_scene(plan, scene)
        references = measure_references(plan, scene, data)
        for method in methods:
            for seed in plan.seeds:
                cell = measure_cell(plan, scene, method, seed, data)
                cell["measures"]["regression"] |= references
                cells.append(cell)
                results = {"cells": cells}
                with written_whole(plan.out / "results.json") as file:
                    file.write_text(json.dumps(results, indent=1) + "\n")
                write_report(results, plan.out)
    if not cells:
        raise UserError("nothing to measure: choose --methods that have a config for the --scenes, see config/train")
    return {"cells": cells}


def _with_config(methods: tuple[str, ...], scene: Scene) -> list[str]:
    fitting = []
    for method in methods:
        try:
            scene.fit_options(method)
            fitting.append(method)
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    return fitting


def prepare_scene(plan: Plan, scene: Scene) -> Path:
    """The folder with the scene's `train` and `test` data, simulated where it is missing."""
    folder = plan.out / "data" / scene.name
    counts = plan.recordings if scene.topic else plan.episodes
    for split, count in zip(("train", "test"), counts, strict=True):
        _training(*scene.simulation(split, count, folder / split))
    return folder


def measure_references(plan: Plan, scene: Scene, data: Path) -> dict[str, float | None]:
    """Regression of an untrained detector and of one trained with labels, on the scene's test data."""
    file = data / "references.json"
    if file.is_file():
        return json.loads(file.read_text())
    size = scene.input_size((REFERENCE_WIDTH, REFERENCE_WIDTH))
    train, test = (
        [resized(video, size) for video in read_labelled(data / split, scene.topic)] for split in ("train", "test")
    )
    start = time.monotonic()
    train_supervised(train, steps=CALIBRATION_STEPS, seed=0)
    seconds = (time.monotonic() - start) / CALIBRATION_STEPS
    supervised = train_supervised(train, steps=max(1, int(plan.minutes * 60 * SUPERVISED_SHARE / seconds)), seed=0)
    untrained = reference_network(supervised.keypoint_count, size, seed=0).eval()
    rows = {"supervised": supervised, "baseline_random_detector": untrained}
    errors = {name: regression([_predict(TorchBackend(net), v) for v in test])["error"] for name, net in rows.items()}
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps(errors) + "\n")
    return errors


def _predict(backend: Backend, video: LabelledVideo) -> PredictedVideo:
    outputs = backend.run(video.frames)
    empty = np.zeros(outputs["adjacency"].shape[1:])
    return PredictedVideo(video, outputs["keypoints"], outputs["scores"], empty, normalised_joints(video))


def measure_cell(plan: Plan, scene: Scene, method: str, seed: int, data: Path) -> dict[str, Any]:
    """One method on one scene with one seed: trained for the budget, exported, measured."""
    folder = plan.out / "runs" / scene.name / method / f"seed{seed}"
    file = folder / "cell.json"
    if file.is_file():
        return json.loads(file.read_text())
    common = [method, *scene.fit_options(method), "--data", *scene.sources(data / "train"), "--seed", str(seed)]
    if (folder / CHECKPOINT_NAME).is_file() and not (folder / MODEL_NAME).is_file():
        _training("fit", method, "-o", str(folder), "--resume")
    elif not (folder / MODEL_NAME).is_file():
        seconds = _seconds_per_step(common, folder.with_name(f"calibrate{seed}"))
        steps = max(CALIBRATION_STEPS, int(plan.minutes * 60 / seconds))
        _training("fit", *common, "-o", str(folder), "--steps", str(steps))
    model = read_model(folder / MODEL_NAME)
    cell = {
        "method": method,
        "scene": scene.name,
        "seed": seed,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "minutes": model.info.training.get("minutes"),
        "measures": evaluate_model(model, data / "test", topic=scene.topic, epsilon=scene.epsilon),
    }
    videos = read_labelled(data / "test", scene.topic)
    cell["picture"] = str(picture_of(model, videos, folder / "predictions.png").relative_to(plan.out))
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps(cell, indent=1) + "\n")
    return cell


def _seconds_per_step(common: list[str], folder: Path) -> float:
    _training("fit", *common, "-o", str(folder), "--steps", str(CALIBRATION_STEPS), "--no-export")
    seconds = float(read_checkpoint(folder / CHECKPOINT_NAME).about["seconds_per_step"])
    shutil.rmtree(folder)
    return max(seconds, 1e-3)


def _training(*arguments: str) -> None:
    """A training command in a process of its own. Raises UserError with its last line where it fails."""
    done = subprocess.run([sys.executable, "-m", "training", *arguments], cwd=ROOT, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UserError(f"`python -m training {' '.join(arguments)}` failed: {lines[-1].removeprefix('error: ')}")


def main(argv: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m training benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=list(SCENES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--budget", default="30min", help="training time of each cell: 90s, 30min or 2h")
    parser.add_argument("--train-episodes", type=int, default=400, help="of each set (default 400)")
    parser.add_argument("--test-episodes", type=int, default=60, help="of each set (default 60, as in the paper)")
    parser.add_argument(
        "--train-recordings", type=int, default=8, help="of a minute, where a scene is bags (default 8)"
    )
    parser.add_argument("--test-recordings", type=int, default=4, help="the same (default 4)")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    given = parser.parse_args(argv)
    minutes = parse_minutes(given.budget)
    plan = Plan(
        tuple(given.methods),
        tuple(given.scenes),
        tuple(given.seeds),
        minutes,
        (given.train_episodes, given.test_episodes),
        (given.train_recordings, given.test_recordings),
        given.out.resolve(),
    )
    run(plan)
    print((plan.out / TABLE_NAME).read_text())
    return 0
