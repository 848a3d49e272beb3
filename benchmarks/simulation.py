"""How fast the simulated sets are made, and what writing their episodes costs.

    python benchmarks/simulation.py [--size 64] [--episodes 5]

For each object annotated frames a second of one core (physics, antialiased picture, depth, joints, visibility, mask) in
processor time, which other programs disturb little, and in wall time; then size and time of several packings of an
episode; then a whole run by one and by two processes, which wants two idle cores. Nothing is kept.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from training.simulation.articulated import FRAMES, Actor
from training.simulation.episode import Episode, read_episode, write_episode
from training.simulation.episodes import SCENES, simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures, pixels")
    parser.add_argument("--episodes", type=int, default=5, help="episodes of each object")
    arguments = parser.parse_args()
    print(f"annotated frames/s of one core at {arguments.size}x{arguments.size}, median (best) of {arguments.episodes}")
    print(f"{'object':<14}{'processor time':>20}{'wall time':>20}")
    kept: list[Episode] = []
    for scene in ("spiders", "cartpoles", "swimmers", "whcm"):
        for name, build in SCENES[scene]["train"].items():
            with Actor(build(), (arguments.size, arguments.size)) as actor:
                actor.episode(scene, 0, np.random.default_rng(0), frames=3)
                rates = [_rates(actor, scene, seed) for seed in range(arguments.episodes)]
                kept.append(actor.episode(scene, 0, np.random.default_rng(0)))
            cpu, wall = np.array(rates).T
            print(f"{name:<14}{np.median(cpu):>12.0f} ({cpu.max():.0f}){np.median(wall):>13.0f} ({wall.max():.0f})")
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
    try:
        import zstandard

        packings["zstd 1"] = (zstandard.ZstdCompressor(level=1).compress, zstandard.ZstdDecompressor().decompress)
    except ImportError:
        print("zstd: not installed, skipped")
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


def _scaling(size: int, episodes: int = 40) -> None:
    """Wall time of a whole run, start and files included, by one process and by two."""
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2):
            start = time.perf_counter()
            simulate("spiders", Path(folder) / str(workers), episodes, size=size, workers=workers)
            seconds = time.perf_counter() - start
            print(f"simulate spiders, {workers} workers: {episodes * FRAMES / seconds:.0f} frames/s, files included")


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
