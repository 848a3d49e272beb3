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
from dataclasses import dataclass
from pathlib import Path

from keypoint_perception.command_line import Parser
from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.model import read_model
from training.checkpoint import CHECKPOINT_NAME, build_method, read_checkpoint
from training.evaluation.evaluate import predict_all
from training.evaluation.measures import direct, measure
from training.evaluation.predicted import predict_whole
from training.evaluation.reading import read_labelled
from training.evaluation.reference import (
    CALIBRATION_STEPS,
    HeatmapNetwork,
    TorchBackend,
    heatmap_loss,
    squared_distance,
    train_for,
    untrained_network,
)
from training.evaluation.regression import check_fittable, fitted_on, regression
from training.evaluation.report import TABLE_NAME, picture_of, write_report
from training.evaluation.results import collect
from training.evaluation.scenes import SCENES, SPLITS, Scene
from training.evaluation.videos import LabelledVideo, resized
from training.fit import MODEL_NAME
from training.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_EPISODES = {"train": 400, "labels": 120, "test": 60}
"""Of each set; the paper's test has 60."""
DEFAULT_RECORDINGS = {"train": 8, "labels": 4, "test": 4}
SUPERVISED_SHARE = 0.5
"""The supervised reference is trained for this share of a cell's time; it needs less."""
STOP_SECONDS = 60
"""A run that is stopped has so long for the step in progress and its checkpoint."""
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
    episodes: dict[str, int]
    """Of the sets, by one of SPLITS;"""
    recordings: dict[str, int]
    """of scenes that are bags."""
    remeasure: bool
    """Measure trained runs anew. A scene's references are kept; only KeypointGAN's own is trained with labels again."""
    out: Path


def parse_minutes(text: str) -> float:
    """ "90s", "30min" or "2h" to minutes. Raises UserError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", text.strip())
    if not match or float(match[1]) <= 0:
        raise UserError(f"--budget is {text!r}: give a time such as 90s, 30min or 2h")
    return float(match[1]) * {"s": 1 / 60, "min": 1.0, "h": 60.0}[match[2]]


def run(plan: Plan) -> None:
    """Trains and measures what is missing, and writes the report of all there is after each cell.

    Methods that have no config for a scene are left out of it, with a line that says so.
    """
    for name in plan.scenes:
        scene = SCENES[name]
        methods = _with_config(plan.methods, scene)
        data = prepare_scene(plan, scene)
        measure_references(plan, scene, data)
        for method in methods:
            for seed in plan.seeds:
                measure_cell(plan, scene, method, seed, data)
                report(plan.out)


def report(out: Path) -> None:
    """Writes results.json, the table and the page of all cells in `out`. Raises UserError where there is none."""
    results = collect(out)
    if not results["cells"]:
        raise UserError(f"{out} has no measured cell: run it without --report, or with other --methods")
    with written_whole(out / "results.json") as file:
        file.write_text(json.dumps(results, indent=1) + "\n")
    write_report(results, out)


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
    """The folder with a folder of the scene's data for each of SPLITS, simulated where it is missing."""
    folder = plan.out / "data" / scene.name
    counts = plan.recordings if scene.topic else plan.episodes
    for split in SPLITS:
        _training(*scene.simulation(split, counts[split], folder / split))
    return folder


def measure_references(plan: Plan, scene: Scene, data: Path) -> None:
    """Regression of an untrained detector and of one trained with labels, on the scene's test data, to a file there."""
    file = data / "references.json"
    if file.is_file():
        return
    size = scene.input_size((REFERENCE_WIDTH, REFERENCE_WIDTH))
    train, labels, test = (_labelled(scene, data / split, size) for split in SPLITS)
    try:
        check_fittable(labels, test)  # before anything is trained for hours
    except UserError as error:
        raise UserError(f"{data}: {error}; --labels-episodes makes more") from None
    most = max(video.joints.shape[1] for video in train)
    seconds = plan.minutes * 60 * SUPERVISED_SHARE
    supervised = train_for(lambda: HeatmapNetwork(most), heatmap_loss, train, seconds, seed=0)
    rows = {"supervised": supervised, "baseline_random_detector": untrained_network(most, size, seed=0)}
    errors = {}
    for name, network in rows.items():
        fitted, measured = ([predict_whole(TorchBackend(network), v) for v in videos] for videos in (labels, test))
        errors[name] = regression(fitted_on(fitted, measured))["error"]
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps(errors) + "\n")


def _labelled(scene: Scene, folder: Path, size: tuple[int, int]) -> list[LabelledVideo]:
    return [resized(video, size) for video in read_labelled(folder, scene.topic)]


def measure_cell(plan: Plan, scene: Scene, method: str, seed: int, data: Path) -> None:
    """One method on one scene with one seed: trained for the budget, exported, measured, written to cell.json."""
    folder = plan.out / "runs" / scene.name / method / f"seed{seed}"
    file = folder / "cell.json"
    if file.is_file() and not plan.remeasure:
        return
    previous = json.loads(file.read_text()) if file.is_file() else {}
    train(plan, scene, method, seed, data, folder)
    model = read_model(folder / MODEL_NAME)
    fitted, videos = (predict_all(model, data / split, topic=scene.topic) for split in ("labels", "test"))
    measures = measure(videos, scene.epsilon, model.info, fitted)
    if measures["direct"]["error"] is not None:
        measures["direct"] |= supervised_direct(plan, scene, folder, data)
    picture = picture_of(model, read_labelled(data / "test", scene.topic), folder / "predictions.png")
    cell = {
        "method": method,
        "scene": scene.name,
        "seed": seed,
        "machine": previous.get("machine") or f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "minutes": model.info.training.get("minutes"),
        "measures": measures,
        "picture": str(picture.relative_to(plan.out)),
    }
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps(cell, indent=1) + "\n")


def train(plan: Plan, scene: Scene, method: str, seed: int, data: Path, folder: Path) -> None:
    """Trains and exports a run for the plan's time where it is not there yet, or goes on with one that stopped."""
    if (folder / MODEL_NAME).is_file():
        return
    if (folder / CHECKPOINT_NAME).is_file():
        _training("fit", method, "-o", str(folder), "--resume")
        return
    common = [method, *scene.fit_options(method), "--data", *scene.sources(data / "train"), "--seed", str(seed)]
    common.append("--precision=auto")  # the time is the same for all: each step as fast as this machine can
    if METHODS[method].uses_prior:
        poses = data / "poses.npz"
        if not poses.is_file():
            _training(*scene.poses(poses))
        common.append(f"--data.prior={poses}")
    calibration = folder.with_name(f"calibrate{seed}")
    shutil.rmtree(calibration, ignore_errors=True)
    few = scene.schedule_options(method, CALIBRATION_STEPS)
    _training("fit", *common, *few, "-o", str(calibration), "--no-export")
    seconds = max(float(read_checkpoint(calibration / CHECKPOINT_NAME).about["seconds_per_step"]), 1e-3)
    shutil.rmtree(calibration)
    steps = max(CALIBRATION_STEPS, int(plan.minutes * 60 / seconds))
    _training("fit", *common, *scene.schedule_options(method, steps), "-o", str(folder))


def supervised_direct(plan: Plan, scene: Scene, folder: Path, data: Path) -> dict[str, float | None]:
    """The direct error of the run's own network trained with labels instead, as `supervised…`."""
    config = read_checkpoint(folder).config
    size = (config.data.input_size[0], config.data.input_size[1])
    train_videos, test = (_labelled(scene, data / split, size) for split in ("train", "test"))
    seconds = plan.minutes * 60 * SUPERVISED_SHARE
    network = TorchBackend(
        train_for(lambda: build_method(config), squared_distance, train_videos, seconds, config.loop.seed)
    )
    errors = direct([predict_whole(network, video) for video in test])
    return {"supervised": errors["error"], "supervised_with_flips": errors["error_with_flips"]}


def _training(*arguments: str) -> None:
    """A training command in a process of its own, which may write its checkpoint where this one is stopped.

    Raises UserError with its last line where it fails.
    """
    command = [sys.executable, "-m", "training", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            said = process.communicate()[1]
        except KeyboardInterrupt:
            process.terminate()
            _end(process)
            raise
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UserError(f"`python -m training {' '.join(arguments)}` failed: {lines[-1].removeprefix('error: ')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Waits for a process that was told to end; one that does not is killed."""
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def main(argv: list[str]) -> int:
    """The command."""
    parser = Parser(
        prog="python -m training benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="(default all)")
    parser.add_argument("--scenes", nargs="+", default=list(SCENES), choices=list(SCENES), help="(default all)")
    seeds = "every method is trained on every scene once with each (default 0)"
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help=seeds)
    parser.add_argument("--budget", default="30min", help="training time of each cell: 90s, 30min or 2h")
    for split, count in DEFAULT_EPISODES.items():
        parser.add_argument(f"--{split}-episodes", type=int, default=count, help=f"of each set (default {count})")
    for split, count in DEFAULT_RECORDINGS.items():
        about = f"of a minute, where a scene is bags (default {count})"
        parser.add_argument(f"--{split}-recordings", type=int, default=count, help=about)
    remeasure = "measure the trained models anew; KeypointGAN's network is trained with labels again for it"
    parser.add_argument("--remeasure", action="store_true", help=remeasure)
    parser.add_argument("--report", action="store_true", help="only write the report of what is measured")
    folder = f"sets, runs, results and report; what is there is not made again. The tables are DIR/{TABLE_NAME}"
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help=folder)
    given = parser.parse_args(argv)
    if not all(0 <= seed < 2**63 for seed in given.seeds):
        raise UserError(f"--seeds is {' '.join(map(str, given.seeds))}: give numbers from 0, below 2^63")
    out = given.out.resolve()
    if given.report:
        report(out)
    else:
        run(
            Plan(
                methods=tuple(given.methods),
                scenes=tuple(given.scenes),
                seeds=tuple(given.seeds),
                minutes=parse_minutes(given.budget),
                episodes={split: getattr(given, f"{split}_episodes") for split in SPLITS},
                recordings={split: getattr(given, f"{split}_recordings") for split in SPLITS},
                remeasure=given.remeasure,
                out=out,
            )
        )
        report(out)
    print((out / TABLE_NAME).read_text())
    return 0
