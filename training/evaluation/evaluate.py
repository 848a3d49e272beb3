"""`python -m training evaluate`: a model file against data with known joints, by the papers' measures."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_perception.backends import open_backend
from keypoint_perception.command_line import Parser
from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.model import Model, read_model
from training.evaluation import protocols
from training.evaluation.curves import label_curve
from training.evaluation.measures import Measures, measure
from training.evaluation.predicted import PredictedVideo, predict
from training.evaluation.protocols import PROTOCOLS
from training.evaluation.reading import read_labelled
from training.evaluation.regression import fitted_on
from training.evaluation.scenes import epsilon_of


def predict_all(
    model: Model, data: Path, *, topic: str = "", fit_on: Path | None = None, seed: int = 0
) -> list[PredictedVideo]:
    """Runs a model over labelled data; see `read_labelled`. `seed` draws each video's frame whose skeleton counts."""
    backend = open_backend("onnxruntime", model)
    rng = np.random.default_rng(seed)
    return [predict(backend, model, video, rng) for video in read_labelled(data, topic, fit_on)]


def scene_epsilon(data: Path) -> float:
    """The matching distance of simulated episodes of a known scene, the default for all else."""
    description = data / "scene.json"
    try:
        return epsilon_of(json.loads(description.read_text()) if description.is_file() else {})
    except ValueError as error:
        raise UserError(f"{description} is damaged ({error}): simulate it again, or give --epsilon") from None


def table(measures: Measures) -> str:
    """The measures as aligned text, one family a line."""
    lines = []
    for family, values in measures.items():
        cells = "  ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in values.items())
        known = any(value is not None for value in values.values())
        lines.append(f"{family:<18} {cells if known else 'does not apply'}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    presets = "\n".join(f"  {name:<16} {p.about}; {p.unit}" for name, p in PROTOCOLS.items())
    parser = Parser(
        prog="python -m training evaluate",
        description=__doc__,
        epilog=f"protocols:\n{presets}\n\ndocs/evaluation.md defines every measure.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="model file (.onnx), or the folder of a training run")
    parser.add_argument("--data", type=Path, required=True, help="simulated episodes or bags, or COCO keypoints .json")
    parser.add_argument("--topic", default="", help="image topic of bags")
    parser.add_argument("--protocol", choices=list(PROTOCOLS), help="also the figure of a paper's protocol, see below")
    labels = parser.add_mutually_exclusive_group()
    labels.add_argument(
        "--fit-on", type=Path, metavar="FILE", help="names of what regressions are fitted on, one a line"
    )
    labels.add_argument(
        "--fit-data", type=Path, metavar="DATA", help="fit regressions on this labelled data and none of --data"
    )
    parser.add_argument("-o", "--out", type=Path, help="also write the measures to this JSON file")
    parser.add_argument("--label-efficiency", type=Path, metavar="X.svg", help="draw error by number of labels")
    parser.add_argument("--epsilon", type=float, help="largest distance of a matched joint, [-1, 1] units")
    parser.add_argument("--seed", type=int, default=0, help="draws the frame whose skeleton stands for its video")
    return parser


def main(argv: list[str]) -> int:
    """The command."""
    given = _parser().parse_args(argv)
    if given.label_efficiency and given.label_efficiency.suffix != ".svg":
        raise UserError(f"--label-efficiency is {given.label_efficiency}: the curve is an .svg")
    epsilon = scene_epsilon(given.data) if given.epsilon is None else given.epsilon
    if not 0 < epsilon < math.inf:
        raise UserError(f"--epsilon is {epsilon}: give a distance above 0, of images that are 2 wide and high")
    if given.seed < 0:
        raise UserError(f"--seed is {given.seed}: give a number from 0")
    model = read_model(_model_file(given.model))
    videos = predict_all(model, given.data, topic=given.topic, fit_on=given.fit_on, seed=given.seed)
    fitted = predict_all(model, given.fit_data, topic=given.topic) if given.fit_data else []
    measures = measure(videos, epsilon, model.info, fitted)
    print(f"{model.id} on {given.data}\n{table(measures)}")
    report: dict[str, Any] = {"model_id": model.id, "data": str(given.data), **measures}
    if given.protocol:
        protocol = PROTOCOLS[given.protocol]
        figures = protocols.apply(protocol, fitted_on(fitted, videos))
        report["protocol"] = {"name": given.protocol, "unit": protocol.unit, **figures}
        print(table({given.protocol: figures}) + f"  ({protocol.unit})")
        if not fitted and all(video.video.fit is None for video in videos):
            print("the data names no split: fitted on its first half, which is not the paper's split")
    if given.out:
        with written_whole(given.out) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")
    if given.label_efficiency:
        curve = {model.info.method: measures["label_efficiency"]}
        with written_whole(given.label_efficiency) as temporary:
            temporary.write_text(label_curve(curve, {"mean pose": measures["regression"]["baseline_mean_pose"]}))
    return 0


def _model_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    models = sorted(path.glob("*.onnx"))
    if len(models) != 1:
        command = f"python -m training export {path} -o {path}/model.onnx"
        raise UserError(f"{path} holds {len(models)} .onnx files: name one, or run `{command}`")
    return models[0]
