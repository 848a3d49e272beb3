"""Memory does not grow with the recording: neither while its store is made nor while it is drawn from."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recording_files import PERIOD, START, Message, raw, write_rosbag1, write_rosbag2
from rosbags.rosbag2 import StoragePlugin

from training.data import store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits what Linux limits")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
SIZE = (160, 120)
MEGABYTE = 1 << 20

BUILD = """
import sys
from pathlib import Path
from training.data.build import build_store
from training.data.opening import open_source
from training.data.store import View

for path in sys.argv[1:]:
    (source,) = open_source(Path(path))
    frames = len(build_store(source, View(source.choose(""), (32, 24), None), threads=2, progress=False).stamps)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(frames, 1024 * int(peak.split()[1]))
"""


def write_recordings(folder: Path, count: int) -> list[Path]:
    """The same raw images as mcap, sqlite3, ROS 1 bag and as an mcap that was cut off."""
    rng = np.random.default_rng(0)
    fields = [raw(rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8), "rgb8") for _ in range(4)]
    content = [Message(fields[i % 4], START + i * PERIOD) for i in range(count)]
    folder.mkdir()
    made = [
        write_rosbag2(folder / "mcap", content),
        write_rosbag2(folder / "sqlite3", content, StoragePlugin.SQLITE3),
        write_rosbag1(folder / "ros1.bag", content),
    ]
    (whole,) = made[0].glob("*.mcap")
    cut = folder / "cut.mcap"
    shutil.copy(whole, cut)
    os.truncate(cut, whole.stat().st_size - 100_000)
    return [*made, cut]


def test_a_store_of_ten_times_the_frames_takes_no_more_memory(tmp_path: Path) -> None:
    few, many = 60, 600
    paths = write_recordings(tmp_path / "few", few) + write_recordings(tmp_path / "many", many)
    run = subprocess.run(
        [sys.executable, "-c", BUILD, *map(str, paths)],
        env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    frames, peaks = np.array([line.split() for line in run.stdout.splitlines()], int).T
    assert frames[[0, 1, 2, 4, 5, 6]].tolist() == 3 * [few] + 3 * [many] and frames[7] > 0.9 * many
    grown = (many - few) * SIZE[0] * SIZE[1] * 3
    assert peaks[7] - peaks[3] < 8 * MEGABYTE < grown / 3  # the peak of a process never falls
    shutil.rmtree(tmp_path)


DRAW = """
import resource, sys
from pathlib import Path
from training.data.config import Drawing
from training.data.loading import loader
from training.data.pairs import Frames, TimePairs, Track
from training.data.store import FrameStore

limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # of memory that is the process's own
store = FrameStore(Path(sys.argv[1]))
pairs = TimePairs(Frames([store]), [Track("", "", 0, 0, len(store.stamps))], Drawing("time", 1, 1000, "frames"))
print(store.frames.nbytes > 2 * limit, sum(len(batch["image"]) for batch in loader(pairs, 0, 20, 8, seed=0, workers=2)))
"""


def test_workers_draw_from_a_store_that_is_larger_than_the_memory_they_may_have(tmp_path: Path) -> None:
    shape, limit = (480, 640, 3), 1 << 30
    count = 2 * limit // int(np.prod(shape)) + 1
    np.arange(count, dtype=np.int64).tofile(tmp_path / store.STAMPS)
    (tmp_path / store.FRAMES).touch()
    os.truncate(tmp_path / store.FRAMES, count * int(np.prod(shape)))  # a file of holes takes no room on the disk
    about = {"frame_shape": shape, "sequences": [], "skips": {}, "items": count, "count": count, "checksum": 0}
    (tmp_path / store.STORE).write_text(json.dumps(about))
    run = subprocess.run(
        [sys.executable, "-c", DRAW, str(tmp_path), str(limit)],
        env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.stdout.split() == ["True", "160"], run.stderr


FAULTS = """
import resource
from keypoint_perception.heap import keep_freed_memory

keep_freed_memory()
for round in range(60):
    if round == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    images = [b"x" * 921_600 for _ in range(8)]
    del images
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_the_memory_of_an_image_is_used_for_the_next() -> None:
    run = subprocess.run([sys.executable, "-c", FAULTS], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    pages = 50 * 8 * 921_600 / 4096
    assert int(run.stdout) < 0.05 * pages
