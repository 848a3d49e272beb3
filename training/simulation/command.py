"""`python -m training simulate SCENE -o PATH`: simulated robots, with exact ground truth.

The sets (spiders, spiders0shot, cartpoles, swimmers, whcm) become a folder of episodes, or of one bag an episode;
tabletop and kitchen become one rosbag2 that looks like a robot's own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from keypoint_perception.errors import UserError
from training.simulation.episodes import SCENES, SPLITS, Settings, episode_paths, simulate, variants
from training.simulation.kitchen import KitchenConfig, simulate_kitchen
from training.simulation.poses import sample_poses, write_poses
from training.simulation.sheet import write_sheet
from training.simulation.tabletop import TabletopConfig, simulate_tabletop

SHEET_FILE = "sheet.png"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every command does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def main(argv: list[str]) -> int:
    """The command."""
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m training simulate", description=__doc__)
    scenes = parser.add_subparsers(metavar="SCENE", dest="scene", required=True)
    for name, splits in SCENES.items():
        objects = sorted({variant for builders in splits.values() for variant in builders})
        scene = scenes.add_parser(
            name, help=f"{objects[0]} … {objects[-1]}", description=f"Objects: {', '.join(objects)}."
        )
        _common(scene, "folder of episodes to make or to add to", "64", "of all randomness; each split has its own")
        scene.add_argument(
            "--episodes", type=int, default=100, help="how many there shall be (default 100; 90 frames each)"
        )
        scene.add_argument("--split", default="train", help=f"{' or '.join(SPLITS)} (default train)")
        scene.add_argument("--workers", type=int, default=1, help="processes (default 1); they change no frame")
        scene.add_argument("--variant", default="", help="only this object, instead of all of the set at random")
        scene.add_argument("--bag", action="store_true", help="one rosbag2 an episode")
        scene.add_argument("--poses", type=int, metavar="N", help="write N poses of --variant to -o X.npz, no pictures")
        scene.set_defaults(run=_make_episodes)
    for name, run in (("tabletop", _make_tabletop), ("kitchen", _make_kitchen)):
        scene = scenes.add_parser(name, help="a rosbag2 with two cameras, depth, joint states and tf")
        _common(scene, "bag folder to make", "640x480", "of the motion and of the objects")
        scene.add_argument("--seconds", type=float, default=60.0, help="duration (default 60)")
        scene.add_argument("--rate", type=float, default=10.0, help="pictures per second of a camera (default 10)")
        scene.add_argument("--randomise", action="store_true", help="colours, light and camera pose from the seed too")
        scene.add_argument("--bag", action="store_true", help="as it is anyway")
        if name == "tabletop":
            scene.add_argument("--objects", type=int, default=4, help="loose objects, 0 to 8 (default 4)")
        scene.set_defaults(run=run)
    return parser


def _common(parser: argparse.ArgumentParser, output: str, size: str, seed: str) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, help=output)
    parser.add_argument("--seed", type=int, default=0, help=f"{seed} (default 0)")
    parser.add_argument("--size", type=_size, default=size, help=f"pixels, WIDTHxHEIGHT or one side (default {size})")


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give 64 or 640x480")
    return int(sides[0]), int(sides[-1])


def _make_episodes(arguments: argparse.Namespace) -> None:
    settings = Settings(arguments.scene, arguments.split, arguments.seed, arguments.size, arguments.variant)
    if arguments.poses is not None:
        return _make_poses(arguments)
    with _progress("episode") as progress:
        simulate(
            settings.scene,
            arguments.output,
            arguments.episodes,
            settings.seed,
            settings.size,
            settings.split,
            arguments.workers,
            variant=settings.variant,
            bag=arguments.bag,
            progress=progress,
        )
    print(f"{arguments.output}: {arguments.episodes} episodes of {', '.join(_objects(settings))}")
    if not arguments.bag:
        write_sheet(arguments.output / SHEET_FILE, episode_paths(arguments.output))
        print(f"{arguments.output / SHEET_FILE}: look at it")


def _objects(settings: Settings) -> list[str]:
    return list(variants(settings.scene, settings.split, settings.variant))


def _make_poses(arguments: argparse.Namespace) -> None:
    if arguments.output.suffix != ".npz":
        raise UserError(f"poses are one file: -o {arguments.output} must end in .npz")
    poses = sample_poses(arguments.scene, arguments.variant, arguments.poses, arguments.seed)
    write_poses(arguments.output, poses)
    print(f"{arguments.output}: {len(poses.keypoints)} poses of {poses.variant}, {len(poses.names)} joints")


def _make_tabletop(arguments: argparse.Namespace) -> None:
    config = TabletopConfig(arguments.seed, arguments.size, arguments.objects, arguments.randomise)
    with _progress("picture") as progress:
        simulate_tabletop(arguments.output, config, seconds=arguments.seconds, rate=arguments.rate, progress=progress)
    print(f"{arguments.output}: {arguments.seconds:g} s of {arguments.scene}")


def _make_kitchen(arguments: argparse.Namespace) -> None:
    config = KitchenConfig(arguments.seed, arguments.size, arguments.randomise)
    with _progress("picture") as progress:
        simulate_kitchen(arguments.output, config, seconds=arguments.seconds, rate=arguments.rate, progress=progress)
    print(f"{arguments.output}: {arguments.seconds:g} s of {arguments.scene}")


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left; in a log file, a line now and then."""
    interval = 0.2 if sys.stderr.isatty() else 15.0
    with tqdm(unit=unit, mininterval=interval, maxinterval=interval) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
