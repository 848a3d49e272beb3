"""Recordings of the table and of the kitchen, as the command line asks for them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from training.simulation import kitchen, tabletop
from training.simulation.bag_sheet import write_bag_sheet
from training.simulation.recording import COLOUR_ENCODINGS, DEPTH_ENCODINGS, choose_streams
from training.simulation.recordings import recording_paths, simulate_many

ROOMS = {"tabletop": tabletop, "kitchen": kitchen}
"""Each module has `STREAMS` and a function that makes one recording."""


def add_options(parser: argparse.ArgumentParser, room: str) -> None:
    """The options of a room beside --out, --seed and --size."""
    cameras = [stream.camera for stream in ROOMS[room].STREAMS]
    parser.add_argument("--seconds", type=float, default=60.0, help="duration (default 60)")
    parser.add_argument("--rate", type=float, default=10.0, help="pictures per second of a camera (default 10)")
    parser.add_argument("--randomise", action="store_true", help="colours, light and camera pose from the seed too")
    parser.add_argument("--cameras", nargs="+", default=[], metavar="NAME", help=f"of {', '.join(cameras)} (all)")
    parser.add_argument("--colour", metavar="ENCODING", help=f"{', '.join(COLOUR_ENCODINGS)} (default jpeg)")
    parser.add_argument(
        "--depth",
        metavar="ENCODING",
        help=f"of every camera: {', '.join(DEPTH_ENCODINGS)} or none (default: png of the first)",
    )
    parser.add_argument("--jpeg-quality", type=int, metavar="1..100", help="higher is better (default: the scene's)")
    parser.add_argument(
        "--recordings", type=int, metavar="N", help="make N, of the seeds SEED, SEED+1, …, as OUTPUT/recording_00, …"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes for --recordings (default 1)")
    if room == "tabletop":
        parser.add_argument("--objects", type=int, default=4, help="loose objects, 0 to 8 (default 4)")


def run(arguments: argparse.Namespace, progress: Callable[[int, int], None]) -> list[str]:
    """Makes what was asked for, with a contact sheet beside each bag; returns a line on each. Raises UserError."""
    config, simulate = _config(arguments)
    settings: dict[str, Any] = {
        "seconds": arguments.seconds,
        "rate": arguments.rate,
        "streams": choose_streams(
            ROOMS[arguments.scene].STREAMS,
            cameras=arguments.cameras,
            colour=arguments.colour,
            depth=arguments.depth,
            jpeg_quality=arguments.jpeg_quality,
        ),
    }
    if arguments.recordings is None:
        simulate(arguments.out, config, progress=progress, **settings)
        bags = [arguments.out]
    else:
        configs = [replace(config, seed=config.seed + number) for number in range(arguments.recordings)]
        simulate_many(simulate, arguments.out, configs, workers=arguments.workers, progress=progress, **settings)
        bags = recording_paths(arguments.out, len(configs))
    lines = []
    for bag in bags:
        sheet = bag.with_name(f"{bag.name}.png")
        write_bag_sheet(sheet, bag)
        lines.append(f"{bag}: {arguments.seconds:g} s of {arguments.scene}; look at {sheet}")
    return lines


def _config(arguments: argparse.Namespace) -> tuple[Any, Callable[..., int]]:
    common = {"seed": arguments.seed, "size": arguments.size, "randomise": arguments.randomise}
    if arguments.scene == "tabletop":
        return tabletop.TabletopConfig(objects=arguments.objects, **common), tabletop.simulate_tabletop
    return kitchen.KitchenConfig(**common), kitchen.simulate_kitchen
