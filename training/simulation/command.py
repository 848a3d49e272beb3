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

from tqdm import tqdm

from keypoint_perception.command_line import Parser
from keypoint_perception.errors import UserError
from training.prior import write_poses
from training.simulation.episodes import SCENES, SPLITS, Settings, episode_paths, simulate, variants
from training.simulation.poses import sample_poses, sample_table_poses
from training.simulation.rooms import ROOMS, add_options, run
from training.simulation.sheet import write_sheet

SHEET_FILE = "sheet.png"
_POSES_HELP = (
    "write N poses to -o X.npz instead, whatever the split, size and episodes; "
    "objects that differ share the union of their skeletons"
)


def main(argv: list[str]) -> int:
    """The command."""
    arguments = _parser().parse_args(argv)
    arguments.run(arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m training simulate", description=__doc__)
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
        scene.add_argument("--poses", type=int, metavar="N", help=_POSES_HELP)
        scene.set_defaults(run=_make_episodes)
    for name in ROOMS:
        scene = scenes.add_parser(name, help="a rosbag2 with two cameras, depth, joint states and tf")
        _common(scene, "bag folder to make", "640x480", "of the motion and of the objects")
        add_options(scene, name)
        if name == "tabletop":
            scene.add_argument("--poses", type=int, metavar="N", help="write N poses of the arm to -o X.npz instead")
        scene.set_defaults(run=_make_room)
    return parser


def _common(parser: argparse.ArgumentParser, output: str, size: str, seed: str) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, help=output)
    parser.add_argument("--seed", type=int, default=0, help=f"{seed} (default 0)")
    parser.add_argument("--size", type=_size, default=size, help=f"pixels, WIDTHxHEIGHT or one side (default {size})")


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give 64 or 640x480")
    return int(sides[0]), int(sides[-1])


def _make_episodes(arguments: argparse.Namespace) -> None:
    settings = Settings(
        arguments.scene, arguments.split, arguments.seed, arguments.size, arguments.variant, arguments.bag
    )
    if arguments.poses is not None:
        return _make_poses(arguments)
    with _progress("episode") as progress:
        simulate(
            settings.scene,
            arguments.out,
            arguments.episodes,
            settings.seed,
            settings.size,
            settings.split,
            arguments.workers,
            variant=settings.variant,
            bag=settings.bag,
            progress=progress,
        )
    print(f"{arguments.out}: {arguments.episodes} episodes of {', '.join(_objects(settings))}")
    if not settings.bag:
        write_sheet(arguments.out / SHEET_FILE, episode_paths(arguments.out))
        print(f"{arguments.out / SHEET_FILE}: look at it")


def _objects(settings: Settings) -> list[str]:
    return list(variants(settings.scene, settings.split, settings.variant))


def _make_poses(arguments: argparse.Namespace) -> None:
    if arguments.out.suffix != ".npz":
        raise UserError(f"poses are one file: -o {arguments.out} must end in .npz")
    if arguments.scene == "tabletop":
        poses = sample_table_poses(arguments.poses, arguments.seed, arguments.size)
    else:
        poses = sample_poses(arguments.scene, arguments.variant, arguments.poses, arguments.seed)
    write_poses(arguments.out, poses)
    of = poses.variant or poses.scene
    print(f"{arguments.out}: {len(poses.keypoints)} poses of {of}, {len(poses.names)} joints")


def _make_room(arguments: argparse.Namespace) -> None:
    if getattr(arguments, "poses", None) is not None:
        return _make_poses(arguments)
    with _progress("picture" if arguments.recordings is None else "recording") as progress:
        lines = run(arguments, progress)
    print("\n".join(lines))


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left; in a log file, a line now and then."""
    interval = 0.2 if sys.stderr.isatty() else 15.0
    with tqdm(unit=unit, mininterval=interval, maxinterval=interval) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
