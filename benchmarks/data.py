"""How fast recordings become training data, side by side with what bounds it.

    python -m benchmarks.data [--frames 450] [--rounds 3] [--json FILE]

Into the store: frames a second from each kind of source into its frame store (read, decode, resize, write, in as many
threads as there are cores), against bare decoding of the same frames to RGB arrays, and against decoding and resizing
them. Both of these are in one thread and keep nothing, and they are what anybody would write with the public library
for that kind of file, without this package's readers: rosbags' AnyReader and its deserialize, then `image_to_rgb` (for
jpeg and png that is cv2.imdecode); cv2.VideoCapture, which has threads of its own; cv2.imread; np.load.

Out of the store: samples a second from a store on disk with two workers against the same samples out of a plain array
in memory with two workers. Each figure is the best of several rounds, taken in turn, so that what else the machine does
falls on both alike.

Processor time hardly depends on what else runs. A frame takes the store at least its processor time divided by the
cores; `free` is the share of bare decoding that follows for a machine on which nothing else runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from keypoint_perception.geometry import resize
from keypoint_perception.images import image_to_rgb
from training.data import DataConfig, load_data, loader
from training.data.build import build_store
from training.data.opening import open_source
from training.data.pairs import Frames, TimePairs
from training.data.store import View
from training.simulation.episode import Episode, write_episode

SIZE = (640, 480)
INPUT = (128, 128)
EPISODE = (64, 64)
"""Simulated episodes have the size that they are trained on and keep it."""
TOPIC = "/camera/image_raw"
PERIOD = 33_333_333


def films(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Frames (H, W, 3) RGB with the detail of a camera picture: smooth colours, edges, a little noise, motion."""
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC)
    noise = rng.integers(0, 9, (size[1], size[0], 3), np.uint8)
    frames = []
    for index in range(count):
        frame = cv2.add(ground, np.roll(noise, 7 * index, axis=1))
        cv2.circle(
            frame, (size[0] // 8 + 5 * index % (size[0] * 3 // 4), size[1] // 2), size[1] // 8, (220, 40, 40), -1
        )
        frames.append(frame)
    return frames


def image_fields(frame: np.ndarray, encoding: str) -> dict[str, object]:
    """An Image's or a CompressedImage's fields."""
    if encoding in ("jpeg", "png"):
        data = cv2.imencode(f".{encoding}", np.ascontiguousarray(frame[..., ::-1]))[1].reshape(-1)
        return {"format": f"rgb8; {encoding} compressed bgr8", "data": data}
    height, width = frame.shape[:2]
    data = frame[..., ::-1] if encoding == "bgr8" else frame
    return {
        "height": height, "width": width, "encoding": encoding, "is_bigendian": 0, "step": 3 * width,
        "data": np.ascontiguousarray(data).reshape(-1),
    }  # fmt: skip


def write_bag(path: Path, frames: Iterable[np.ndarray], encoding: str, kind: str) -> Path:
    """A rosbag2 (mcap, mcap-zstd, sqlite3) or a ROS 1 bag."""
    store = get_typestore(Stores.ROS1_NOETIC if kind == "ros1" else Stores.ROS2_JAZZY)
    writer: Writer1 | Writer2
    if kind == "ros1":
        writer = Writer1(path)
    else:
        writer = Writer2(path, version=9, storage_plugin=getattr(StoragePlugin, kind.split("-")[0].upper()))
        if kind == "mcap-zstd":
            writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    type_name = f"sensor_msgs/msg/{'CompressedImage' if encoding in ('jpeg', 'png') else 'Image'}"
    with writer:
        connection = writer.add_connection(TOPIC, type_name, typestore=store)
        for index, frame in enumerate(frames):
            stamp = 10**18 + index * PERIOD
            time_ = store.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
            extra = {"seq": index} if kind == "ros1" else {}
            header = store.types["std_msgs/msg/Header"](stamp=time_, frame_id="camera", **extra)
            message = store.types[type_name](header=header, **image_fields(frame, encoding))
            raw = (store.serialize_ros1 if kind == "ros1" else store.serialize_cdr)(message, type_name)
            writer.write(connection, stamp, raw)
    return path


def write_video(path: Path, frames: list[np.ndarray]) -> Path:
    """MPEG-4."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, SIZE)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def write_images(path: Path, frames: list[np.ndarray]) -> Path:
    """jpeg files."""
    path.mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(path / f"{index:05d}.jpg"), np.ascontiguousarray(frame[..., ::-1]))
    return path


def write_episodes(path: Path, count: int) -> Path:
    """Episodes of 90 frames."""
    for number in range(count):
        frames = np.stack(films(90, EPISODE))
        joints = np.zeros((90, 4, 2), np.float32)
        write_episode(
            path / f"episode_{number:05d}.npz",
            Episode(
                "benchmark", "four", number, 30.0, frames, joints, np.zeros((90, 4, 3), np.float32),
                np.ones((90, 4), bool), np.zeros((90, *EPISODE), bool), np.zeros((4, 4), bool), ("a", "b", "c", "d"),
            ),
        )  # fmt: skip
    return path


def make_sources(folder: Path, count: int) -> dict[str, Path]:
    """One recording of each kind, of the same frames."""
    frames = films(count)
    made = {
        f"{kind}, {encoding}": write_bag(folder / f"{kind}_{encoding}", frames, encoding, kind)
        for kind in ("mcap", "mcap-zstd", "sqlite3")
        for encoding in ("jpeg", "rgb8")
    }
    made["mcap, png"] = write_bag(folder / "mcap_png", frames, "png", "mcap")
    for encoding in ("jpeg", "rgb8"):
        made[f"ROS 1 bag, {encoding}"] = write_bag(folder / f"{encoding}.bag", frames, encoding, "ros1")
    made["video, mp4v"] = write_video(folder / "video.mp4", frames)
    made["folder of jpeg files"] = write_images(folder / "images", frames)
    made["simulated episodes"] = write_episodes(folder / "episodes", max(count // 30, 2))
    return made


def bag_images(path: Path) -> Iterator[np.ndarray]:
    with AnyReader([path]) as reader:
        for connection, _, data in reader.messages():
            yield image_to_rgb(reader.deserialize(data, connection.msgtype))


def video_images(path: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    while (frame := capture.read()[1]) is not None:
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def folder_images(path: Path) -> Iterator[np.ndarray]:
    for file in sorted(path.iterdir()):
        yield cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)


def episode_images(path: Path) -> Iterator[np.ndarray]:
    for file in sorted(path.iterdir()):
        with np.load(file) as archive:
            yield from np.cumsum(archive["frame_differences"], axis=0, dtype=np.uint8)


def bare_images(kind: str, path: Path) -> Iterator[np.ndarray]:
    """Images (H, W, 3) RGB of a source, by the plainest way that there is."""
    plain = {"video, mp4v": video_images, "folder of jpeg files": folder_images, "simulated episodes": episode_images}
    return plain.get(kind, bag_images)(path)


def decoding(images: Iterator[np.ndarray], size: tuple[int, int] | None) -> int:
    """Goes through images, resizes each to `size`, if any, and keeps none."""
    frames = 0
    for image in images:
        if size:
            resize(image, size)
        frames += 1
    return frames


def into_store(path: Path, root: Path, size: tuple[int, int]) -> int:
    """Builds a store that is not there yet, of frames of `size`."""
    (source,) = open_source(path)
    view = View(source.choose(""), size, None)
    return build_store(source, view, root, progress=False).items


def measure(jobs: dict[str, Callable[[], int]], rounds: int) -> dict[str, dict[str, float]]:
    """The best of each job over `rounds`, the jobs taken in turn.

    Units a second, and milliseconds a unit of processor time of all threads and loader workers.
    """
    best = {name: {"per_second": 0.0, "cpu_ms": np.inf} for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            started, busy = time.perf_counter(), processor_time()
            units = job()
            found = best[name]
            found["per_second"] = max(found["per_second"], units / (time.perf_counter() - started))
            found["cpu_ms"] = min(found["cpu_ms"], 1e3 * (processor_time() - busy) / units)
    return best


def processor_time() -> float:
    """Seconds, of all threads of this process and of the processes that it has started and that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class InMemory(TimePairs):
    """The same pairs out of a plain array."""

    def __init__(self, stored: TimePairs) -> None:
        self.__dict__.update(stored.__dict__)
        self.frames = Frames([_ArrayStore(store) for store in stored.frames.stores])  # type: ignore[list-item]


class _ArrayStore:
    def __init__(self, store: object) -> None:
        self.frames = np.array(store.frames)  # type: ignore[attr-defined]
        self.shape, self.stamps = store.shape, store.stamps  # type: ignore[attr-defined]


def out_of_store(path: Path, root: Path, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Samples a second with two workers, from the store and from memory."""
    config = DataConfig(sources=[str(path)], input_size=INPUT, store=str(root), validation=0.0)
    stored = load_data(config, progress=False).train
    assert isinstance(stored, TimePairs)
    samplers = {"store": stored, "memory": InMemory(stored)}

    def consume(sampler: TimePairs) -> int:
        return sum(len(batch["image"]) for batch in loader(sampler, 0, steps, 32, seed=0, workers=2))

    return measure({name: lambda s=sampler: consume(s) for name, sampler in samplers.items()}, rounds)


def row(kind: str, found: dict[str, dict[str, float]]) -> str:
    """A line of the table."""
    speeds = {name: figures["per_second"] for name, figures in found.items()}
    shares = [speeds["store"] / speeds[name] for name in ("bare", "resized")]
    shares.append(found["bare"]["cpu_ms"] / found["store"]["cpu_ms"] * (os.cpu_count() or 1))
    times = [figures["cpu_ms"] for figures in found.values()]
    return (
        f"{kind:<22}"
        + "".join(f"{speed:>9.0f}" for speed in speeds.values())
        + "".join(f"{share:>9.0%}" for share in shares)
        + "".join(f"{milliseconds:>9.2f}" for milliseconds in times)
    )


def samples_row(what: str, store: float, memory: float) -> str:
    """A line of the second table."""
    return f"{what:<22}{store:>9.0f}{memory:>9.0f}{store / memory:>9.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=450, help="frames of each recording [450]")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the best counts [3]")
    parser.add_argument("--steps", type=int, default=100, help="batches of 32 pairs out of the store [100]")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{os.cpu_count()} cores, {given.frames} frames of {SIZE[0]}x{SIZE[1]} to {INPUT[0]}x{INPUT[1]}")
        print(f"{'':<22}{'frames/s':>27}{'store against':>27}{'processor ms/frame':>27}")
        columns = ("store", "bare", "resized", "bare", "resized", "free", "store", "bare", "resized")
        print(f"{'source':<22}" + "".join(f"{column:>9}" for column in columns))
        sources = make_sources(folder, given.frames)
        for kind, path in sources.items():
            count, size = itertools.count(), EPISODE if kind == "simulated episodes" else INPUT
            jobs = {
                "store": lambda p=path, c=count, s=size: into_store(p, folder / f"stores_{p.name}_{next(c)}", s),
                "bare": lambda k=kind, p=path: decoding(bare_images(k, p), None),
                "resized": lambda k=kind, p=path, s=size: decoding(bare_images(k, p), s),
            }
            figures[kind] = measure(jobs, given.rounds)
            print(row(kind, figures[kind]), flush=True)
        figures["samples"] = out_of_store(sources["mcap, jpeg"], folder / "samples", given.rounds, given.steps)
        print("\nout of the store, pairs with 2 workers")
        print(f"{'':<22}{'store':>9}{'memory':>9}{'share':>9}")
        store, memory = (figures["samples"][name] for name in ("store", "memory"))
        print(samples_row("samples/s", store["per_second"], memory["per_second"]))
        print(samples_row("samples/processor s", 1e3 / store["cpu_ms"], 1e3 / memory["cpu_ms"]))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
