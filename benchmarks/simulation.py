"""How fast the simulated sets are made, and what writing their episodes costs.

    python -m benchmarks.simulation [--size 64] [--episodes 3]

For each object annotated frames a second of one core (physics, antialiased picture, depth, joints, visibility, mask) in
processor time, which other programs disturb little, and in wall time; then what a picture of the table costs; then size
and time of several packings of an episode; then a whole run by one and by two processes, start and files included. It
wants two idle cores. Nothing is kept.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.data import processor_time
from training.data.salvage import zstd
from training.simulation.articulated import FRAMES, Actor
from training.simulation.episode import Episode, read_episode, write_episode
from training.simulation.episodes import SCENES, simulate
from training.simulation.tabletop import TABLE_CAMERA, Tabletop, TabletopConfig

NEEDED = 400
"""Annotated frames a second of one core, at 64x64, so that a set of 10,000 episodes takes a few hours at most."""
TABLE_SIZE, TABLE_FRAMES = (320, 240), 8
"""Of the pictures of the table, (width, height), and how many are timed."""
SCALING_EPISODES = 40
"""Of the run by one and by two processes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures, pixels [64]")
    parser.add_argument("--episodes", type=int, default=3, help="episodes of each object [3]")
    arguments = parser.parse_args()
    print(f"annotated frames/s of one core at {arguments.size}x{arguments.size}, median (best) of {arguments.episodes}")
    print(f"{'object':<14}{'processor time':>20}{'wall time':>20}")
    kept: list[Episode] = []
    medians: dict[str, float] = {}
    for scene in ("spiders", "cartpoles", "swimmers", "whcm"):
        for name, build in SCENES[scene]["train"].items():
            with Actor(build(), (arguments.size, arguments.size)) as actor:
                actor.episode(scene, 0, np.random.default_rng(0), frames=3)
                rates = [_rates(actor, scene, seed) for seed in range(arguments.episodes)]
                kept.append(actor.episode(scene, 0, np.random.default_rng(0)))
            cpu, wall = np.array(rates).T
            print(f"{name:<14}{np.median(cpu):>12.0f} ({cpu.max():.0f}){np.median(wall):>13.0f} ({wall.max():.0f})")
            medians[name] = float(np.median(cpu))
    slowest = min(medians, key=lambda name: medians[name])
    print(f"slowest: {slowest}, {medians[slowest]:.0f} frames/s of one core; needed at 64x64: {NEEDED}")
    _table()
    _formats(kept)
    _scaling(arguments.size)


def _rates(actor: Actor, scene: str, seed: int) -> tuple[float, float]:
    """Frames a second of processor time, and of wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    actor.episode(scene, seed, np.random.default_rng(seed))
    return FRAMES / (time.process_time() - cpu), FRAMES / (time.perf_counter() - wall)


def _formats(episodes: list[Episode]) -> None:
    """Frames alone in several packings, then the whole file."""
    print(f"\n{'packing of the frames':<32}{'kB an episode':>15}{'ms to pack':>12}{'ms to unpack':>14}")
    packings: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
        f"deflate {level}": (functools.partial(zlib.compress, level=level), zlib.decompress) for level in (1, 6)
    }
    packings["zstd 1"] = (functools.partial(zstd.compress, level=1), zstd.decompress)
    for how in ("plain", "differences"):
        for name, (pack, unpack) in packings.items():
            results = [_packed(e.frames, how == "differences", pack, unpack) for e in episodes]
            kilobytes, packing, unpacking = np.median(results, axis=0)
            print(f"{f'{name}, {how}':<32}{kilobytes:>15.0f}{packing:>12.1f}{unpacking:>14.1f}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "episode.npz"
        results = []
        for episode in episodes:
            start = time.process_time()
            write_episode(path, episode)
            middle = time.process_time()
            read_episode(path)
            results.append((path.stat().st_size / 1024, (middle - start) * 1e3, (time.process_time() - middle) * 1e3))
    kilobytes, writing, reading = np.median(results, axis=0)
    print(f"{'write_episode, read_episode':<32}{kilobytes:>15.0f}{writing:>12.1f}{reading:>14.1f}")


def _table() -> None:
    """Where the time of a picture of the table goes."""
    with Tabletop(TabletopConfig(size=TABLE_SIZE)) as table:
        parts: dict[str, Callable[[], object]] = {
            "physics of 0.1 s": lambda: table.act(0.1),
            "colour, with shadows": lambda: table.render(TABLE_CAMERA),
            "depth, for visibility": lambda: table.visible(TABLE_CAMERA),
        }
        print(f"\ntabletop at {TABLE_SIZE[0]}x{TABLE_SIZE[1]}, processor ms a frame, median of {TABLE_FRAMES}")
        for name, part in parts.items():
            print(f"{name:<32}{1e3 * np.median([_seconds(part) for _ in range(TABLE_FRAMES)]):>8.1f}")


def _seconds(part: Callable[[], object]) -> float:
    """Processor time."""
    started = time.process_time()
    part()
    return time.process_time() - started


def _scaling(size: int) -> None:
    """A whole run by one process and by two."""
    print(f"\n{'simulate spiders':<20}{'frames/s':>10}{'frames/processor s':>20}{'cores kept busy':>18}")
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            started, busy = time.perf_counter(), processor_time()
            simulate("spiders", Path(folder) / str(workers), SCALING_EPISODES, size=size, workers=workers)
            wall, busy = time.perf_counter() - started, processor_time() - busy
            frames = SCALING_EPISODES * FRAMES
            print(f"{f'{workers} process(es)':<20}{frames / wall:>10.0f}{frames / busy:>20.0f}{busy / wall:>18.2f}")


def _packed(
    frames: np.ndarray, differences: bool, pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes]
) -> tuple[float, float, float]:
    """Kilobytes, milliseconds of processor time to pack and to unpack."""
    start = time.process_time()
    values = np.concatenate([frames[:1], frames[1:] - frames[:-1]]) if differences else frames
    packed = pack(values.tobytes())
    middle = time.process_time()
    back = np.frombuffer(bytearray(unpack(packed)), np.uint8).reshape(frames.shape)
    if differences:
        for before, frame in itertools.pairwise(back):
            frame += before
    end = time.process_time()
    assert (back == frames).all(), "a packing loses nothing"
    return len(packed) / 1024, (middle - start) * 1e3, (end - middle) * 1e3


if __name__ == "__main__":
    main()
