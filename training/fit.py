"""Training from the command line: `python -m training fit METHOD --data BAG --topic T -o RUN`."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shlex
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import lightning_fabric
from lightning_fabric.strategies import DDPStrategy

from keypoint_perception.command_line import Parser
from keypoint_perception.errors import UserError, first_line
from keypoint_perception.files import make_folder, written_whole
from training.checkpoint import CHECKPOINT_NAME, read_checkpoint
from training.config import RunConfig, config_parser, method_class, parse_config
from training.data import load_data
from training.methods import METHODS
from training.precision import AutocastAlone, resolve_precision
from training.prior import read_poses
from training.trainer import Trainer

CONFIG_NAME = "config.yaml"
MODEL_NAME = "model.onnx"


def make_fabric(config: RunConfig) -> lightning_fabric.Fabric:
    """Devices, precision and processes. Raises UserError where this machine has not what is asked for."""
    loop = config.loop
    assert loop.precision != "auto", "training.precision.resolve_precision chooses first"
    several = loop.devices * loop.num_nodes > 1
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    try:
        return lightning_fabric.Fabric(
            accelerator=loop.accelerator,
            devices=loop.devices,
            num_nodes=loop.num_nodes,
            plugins=AutocastAlone(loop.accelerator) if loop.precision == "bf16" else None,
            strategy=DDPStrategy(find_unused_parameters=True) if several else "auto",
        )
    except (RuntimeError, ValueError) as error:  # Lightning's own refusals, e.g. no GPU
        what = f"{loop.devices} {loop.accelerator} device(s)"
        why = first_line(error).rstrip(".!")
        raise UserError(f"cannot train on {what}: {why}: use --accelerator cpu, or fewer --devices") from None


def train(
    config: RunConfig, data: Any, out: Path, fabric: lightning_fabric.Fabric, resume: bool = False, command: str = ""
) -> Trainer:
    """Trains a method into the folder `out`. SIGTERM and Ctrl-C write a checkpoint and raise `Stopped`.

    Raises UserError where `out` holds a run already and `resume` is not set, or where the loss is not finite.
    """
    checkpoint = out / CHECKPOINT_NAME
    if checkpoint.exists() and not resume:
        raise UserError(f"{out} holds a run already: add --resume to continue it, or choose another -o")
    trainer = Trainer(config, data, out, fabric, command)
    if checkpoint.exists():
        trainer.resume(read_checkpoint(checkpoint))
    if fabric.is_global_zero:
        _write_config(out, config)
    with stop_on_signal(trainer):
        trainer.run()
    return trainer


@contextlib.contextmanager
def stop_on_signal(trainer: Trainer) -> Iterator[None]:
    """Lets SIGINT and SIGTERM end the run after the step in progress, with a checkpoint."""

    def remember(number: int, frame: FrameType | None) -> None:
        trainer.stop_signal = number

    previous = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m training fit",
        description="Train a method from recordings. Every option of the loop (--steps), of the method"
        " (--method.keypoints) and of the data (--data.pairs) can be given here or in the YAML file.",
        epilog="`python -m training methods METHOD` lists all options, of the loop, the method and the data, with their"
        " defaults and what they mean; `fit METHOD --options` lists them in short.",
        allow_abbrev=False,
    )
    parser.add_argument("method", metavar="METHOD", help=", ".join(METHODS))
    kinds = "rosbag2 folders or files, ROS 1 bags, videos, folders of images, simulated episodes"
    parser.add_argument("--data", nargs="+", metavar="PATH", help=kinds)
    parser.add_argument("--topic", help="image topic of the bags; needed where one has several of pictures")
    parser.add_argument("--roi", metavar="X0,Y0,X1,Y1", help="part of the images to use, as fractions: 0.25,0,0.75,1")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--config", type=Path, help="YAML file, see config/train")
    parser.add_argument("--resume", action="store_true", help="continue the run in RUN with its own config")
    parser.add_argument("--no-export", action="store_true", help=f"do not write RUN/{MODEL_NAME} at the end")
    return parser


def _arguments(given: argparse.Namespace, rest: list[str]) -> list[str]:
    """The short flags in the names of the config, after the files they override."""
    files = [given.out / CONFIG_NAME] if given.resume else []
    arguments = [f"--config={path}" for path in files + ([given.config] if given.config else [])]
    if given.data:
        arguments.append(f"--data.sources={json.dumps(given.data, ensure_ascii=False)}")
    if given.topic:
        arguments.append(f"--data.topic={given.topic}")
    if given.roi:
        if given.roi.count(",") != 3:
            raise UserError(f"--roi is {given.roi}: give X0,Y0,X1,Y1, as 0.25,0,0.75,1")
        arguments.append(f"--data.roi=[{given.roi}]")
    return arguments + rest


def _resumed(given: argparse.Namespace) -> RunConfig | None:
    """The config of the run to be resumed, which is written where its file is missing.

    Raises UserError where there is none, or it is of another method.
    """
    if not given.resume:
        return None
    if not (given.out / CHECKPOINT_NAME).is_file():
        raise UserError(f"{given.out} holds no run to resume: leave out --resume, or give -o the folder of one")
    was = read_checkpoint(given.out).config
    if was.name != given.method:
        raise UserError(f"{given.out} cannot be resumed: method is {given.method}, was {was.name}: name that one")
    if not (given.out / CONFIG_NAME).exists():
        _write_config(given.out, was)
    return was


def _write_config(out: Path, config: RunConfig) -> None:
    with written_whole(out / CONFIG_NAME) as temporary:
        temporary.write_text(config.to_yaml())


def main(argv: list[str]) -> int:
    """Runs `fit`."""
    if argv[1:] == ["--options"]:
        config_parser(argv[0]).print_help()
        return 0
    given, rest = _parser().parse_known_args(argv)
    method_class(given.method)
    resumed = _resumed(given)
    config = parse_config(given.method, _arguments(given, rest))
    if not config.data.sources:
        raise UserError("no recordings given: add --data BAG [BAG …] (and --topic T for bags)")
    prior = read_poses(config.data.prior) if config.data.prior else None
    config = replace(config, options=method_class(config.name).fill_from_prior(config.options, prior))
    config = resolve_precision(config, resumed)
    fabric = make_fabric(config)
    fabric.launch()
    if fabric.is_global_zero:
        make_folder(given.out)  # where that cannot be, nothing need be loaded
        print(f"training on {fabric.device.type} in {config.loop.precision}", file=sys.stderr)
    with fabric.rank_zero_first(local=True):
        data = load_data(config.data, progress=fabric.is_global_zero)
    command = shlex.join(["python", "-m", "training", "fit", *argv])
    train(config, data, given.out, fabric, given.resume, command)
    if fabric.is_global_zero and not given.no_export:
        from training.export import export_run  # takes a second to import

        print(export_run(given.out, given.out / MODEL_NAME, data=data))
    return 0
