"""What memory a frame store takes, for a recording and for one ten times its length.

    python -m benchmarks.memory [--gigabytes 3] [--limit 1] [--folder /tmp]

Two recordings of raw 640x480 images are made into stores of frames of the same size, each by a process of its own that
tells the most memory it had. Then two workers draw pairs at random from all over the larger store. Every process
may have at most `limit` GB of memory of its own (RLIMIT_DATA) and fails when it wants more. Pages of the mapped store
are not its own: processes share them, and the kernel takes them back when it needs them. Needs 2.2 times the size of
the recording on the disk, for as long as it runs.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from benchmarks.data import SIZE, films, write_bag
from training.data import DataConfig, load_data, loader
from training.data.build import build_store
from training.data.opening import open_source
from training.data.store import View

MEGABYTE = 1 << 20
FRAME_BYTES = SIZE[0] * SIZE[1] * 3
WORKERS, BATCH = 2, 4


class Built(NamedTuple):
    """How a store was made."""

    frames: int
    before: float
    """Resident memory of the process before it began, MB, and the most until it ended."""
    peak: float
    seconds: float


class Drawn(NamedTuple):
    """How pairs were drawn."""

    pairs: int
    own: float
    """The most memory of its own that any one process had, MB; it was looked at after each batch."""
    seconds: float


def build(recording: Path, root: Path, limit: int) -> Built:
    """Makes a store of the images at their own size."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    (source,) = open_source(recording)
    before, started = memory("VmRSS"), time.perf_counter()
    store = build_store(source, View(source.choose(""), SIZE, None), root, progress=False)
    return Built(len(store.stamps), before, memory("VmHWM"), time.perf_counter() - started)


def draw(recording: Path, root: Path, limit: int, pairs: int) -> Drawn:
    """Draws from a store that is there."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    config = DataConfig(
        sources=[str(recording)], input_size=SIZE, store=str(root), validation=0.0, min_frames=1, max_frames=1_000_000
    )
    sampler = load_data(config, progress=False).train
    started, own, drawn = time.perf_counter(), 0.0, 0
    for batch in loader(sampler, 0, pairs // BATCH, BATCH, seed=0, workers=WORKERS):
        drawn += len(batch["image"])
        processes = ["self", *(str(worker.pid) for worker in multiprocessing.active_children())]
        own = max(own, *(memory("RssAnon", process) for process in processes))
    return Drawn(drawn, own, time.perf_counter() - started)


def memory(field: str, process: str = "self") -> float:
    """A figure of /proc/PID/status in MB; 0 where the process has just ended."""
    try:
        lines = Path("/proc", process, "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=3.0, help="size of the larger recording [3]")
    parser.add_argument("--limit", type=float, default=1.0, help="GB of its own that a process may have [1]")
    parser.add_argument("--folder", type=Path, help="where the recordings and stores are made, and removed again")
    given = parser.parse_args()
    limit = int(given.limit * 1e9)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        print(f"{'recording':<12}{'frames':>8}{'memory before':>16}{'at most':>12}{'seconds':>10}")
        for gigabytes in (given.gigabytes / 10, given.gigabytes):
            count = int(gigabytes * 1e9 / FRAME_BYTES)
            recording = folder / f"{gigabytes:g}GB"
            write_bag(recording, itertools.islice(itertools.cycle(films(30)), count), "rgb8", "mcap")
            made = _apart(build, recording, folder / "stores", limit)
            print(
                f"{f'{gigabytes:g} GB':<12}{made.frames:>8}{made.before:>13.0f} MB{made.peak:>9.0f} MB"
                f"{made.seconds:>10.1f}",
                flush=True,
            )
        drawn = _apart(draw, recording, folder / "stores", limit, count // 2)
        print(
            f"\n{drawn.pairs} pairs ({2 * drawn.pairs * FRAME_BYTES / 1e9:.1f} GB of frames) at random out of a store "
            f"of {count * FRAME_BYTES / 1e9:.1f} GB by {WORKERS} workers in {drawn.seconds:.1f} s: at most "
            f"{drawn.own:.0f} MB of its own in any process, {limit / MEGABYTE:.0f} MB allowed"
        )


def _apart(function, *arguments):  # type: ignore[no-untyped-def]
    """Calls in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    main()
