"""Runs a model over a recording, as fast as the machine allows and without a ROS graph.

A bag comes out as the same bag with our topics beside its own, for RViz and Foxglove, or as a video.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Writer

from keypoint_perception.backends import CHOICES
from keypoint_perception.bags import (
    BagMessages,
    connections_of,
    copied,
    is_of_ros2,
    message_store,
    open_bag,
    reliable,
    write_bag,
)
from keypoint_perception.command_line import Parser, run_command
from keypoint_perception.detector import DEFAULT_BACKEND, MOST_THREADS, Detector, shipped_model
from keypoint_perception.drawing import SCORE_THRESHOLD, Style, draw
from keypoint_perception.errors import UserError
from keypoint_perception.lifting import lift, why_flat
from keypoint_perception.model import Model
from keypoint_perception.picture_topics import encodings_in, only_picture_topic, topics_of
from keypoint_perception.recorded_images import RecordedImages
from keypoint_perception.ros.conversions import is_topic_part
from keypoint_perception.ros.depth import MAX_DELAY_S
from keypoint_perception.ros.results import LATCHED, TOPICS, Look, Result, ResultMessages
from keypoint_perception.smoothing import MAX_GAP_S, Follower, OneEuroConfig
from keypoint_perception.stamps import stamp_ns
from keypoint_perception.video import video_writer

BATCH = 8
FOR_THE_EYE = frozenset({"markers", "overlay/compressed"})
"""What a bag gets beside the keypoints and their structure."""
_BAG_FILES = {".bag", ".db3", ".mcap"}
"""What looks like a bag in one file and would become a folder."""
_OTHER_VIDEOS = {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mpeg", ".mpg", ".webm", ".wmv"}
"""What looks like a video and would become a bag's folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    return run_command(lambda: annotate(_parser().parse_args(argv)), "\nstopped; nothing was written")


@dataclass
class Tally:
    """What was served so far."""

    images: int = 0
    score_sum: float = 0.0


def annotate(options: argparse.Namespace) -> int:
    """Does what the options of `_parser` say, and returns 0. Raises UserError; then nothing is written."""
    _check(options)
    detector = Detector(options.model or shipped_model(), options.backend, options.threads, print)
    with open_bag(options.bag) as reader:
        topic = options.topic or only_picture_topic(options.bag, topics_of(reader), partial(encodings_in, reader))
        images = RecordedImages(reader, topic, options.depth, options.camera_info, rectified=options.rectified)
        print(f"{detector.model.id} in {detector.backend.describe()}, {images.count} images on {topic}", flush=True)
        tally, start = Tally(), time.monotonic()
        results = _with_progress(_results(images, detector, options, tally), images.count, tally)
        look = _look(detector.model, options)
        if options.out.suffix.lower() == ".mp4":
            _write_video(options.out, results, _fps(reader, topic), look.style)
        else:
            _write_bag(options.out, reader, results, options.prefix, detector.model, look)
    seconds = time.monotonic() - start
    skipped = f", {images.unreadable} unreadable ({images.first_fault})" if images.unreadable else ""
    skipped += f", {images.flat} without 3-D ({images.first_flat_fault})" if images.flat else ""
    print(
        f"{options.out}: {tally.images} images in {seconds:.1f} s ({tally.images / seconds:.0f} images/s), "
        f"mean score {tally.score_sum / tally.images:.3f}{skipped}"
    )
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raises UserError where options are not allowed; `prefix` then begins with a slash."""
    if options.out.exists():
        raise UserError(f"{options.out} exists: give another name with -o, or remove it")
    if options.out.suffix.lower() in _OTHER_VIDEOS:
        raise UserError(f"-o {options.out}: videos are written as .mp4; any other name is that of a bag's folder")
    if options.out.suffix.lower() in _BAG_FILES:
        raise UserError(
            f"-o {options.out}: a bag is written as a folder; give its name, as {options.out.with_suffix('')}, or that "
            "of a video, which ends in .mp4"
        )
    parts = options.prefix.removeprefix("/").split("/")
    if not all(map(is_topic_part, parts)):
        raise UserError(f"--prefix is {options.prefix!r}: give a namespace of letters, digits and _, as /detector")
    options.prefix = "/" + "/".join(parts)
    if (options.depth is None) != (options.camera_info is None):
        raise UserError("--depth and --camera-info are given together or not at all")
    if not 0 <= options.threshold <= 1:
        raise UserError(f"--threshold is {options.threshold}: give 0 to 1")
    if not options.max_depth_delay >= 0:
        raise UserError(f"--max-depth-delay is {options.max_depth_delay}: give seconds from 0")
    if not 1 <= options.threads <= MOST_THREADS:
        raise UserError(f"--threads is {options.threads}: give 1 to {MOST_THREADS}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="annotate", description=__doc__)
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .mcap or .db3 file, or ROS 1 .bag (to video only)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="new bag, or a video where it ends in .mp4")
    parser.add_argument("--model", type=Path, help="model file (.onnx); the shipped one if not given")
    parser.add_argument("--topic", help="image topic; needed where the bag has several")
    parser.add_argument("--depth", help="depth topic, aligned with the images, to lift keypoints to 3-D")
    parser.add_argument("--camera-info", help="calibration topic; needed for --depth")
    parser.add_argument("--rectified", action="store_true", help="images are rectified: P of --camera-info holds")
    parser.add_argument("--max-depth-delay", type=float, default=MAX_DELAY_S, help="seconds between depth and image")
    parser.add_argument("--prefix", default="/detector", help="namespace of our topics (default: %(default)s)")
    parser.add_argument("--backend", default=DEFAULT_BACKEND, choices=CHOICES, help="(default: %(default)s)")
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    parser.add_argument(
        "--threads", type=int, default=threads, help=f"CPU threads, up to {MOST_THREADS} (default: all)"
    )
    parser.add_argument("--threshold", type=float, default=SCORE_THRESHOLD, help="least score that counts as observed")
    parser.add_argument("--smoothing", action="store_true", help="One-Euro smoothing")
    parser.add_argument("--labels", action="store_true", help="keypoint names on pictures and markers")
    return parser


def _look(model: Model, options: argparse.Namespace) -> Look:
    style = Style.of(model.info, labels=options.labels, threshold=options.threshold)
    return Look(style, model.info.keypoint_names if options.labels else ())


def _results(
    images: RecordedImages, detector: Detector, options: argparse.Namespace, tally: Tally
) -> Iterator[tuple[int, Result]]:
    """(time of recording, what was found) of the images, in order. Raises UserError where none could be read."""
    follow = Follower(MAX_GAP_S, OneEuroConfig() if options.smoothing else None, detector.model.info)
    for batch in images.batches(BATCH):
        observations = detector.detect([recorded.image for recorded in batch])
        for recorded, seen in zip(batch, observations, strict=True):
            header, image = recorded.header, recorded.image
            taken_ns = stamp_ns(header) or recorded.received_ns
            observation, states = follow(seen, taken_ns / 1e9, options.threshold)
            intrinsics, depth = images.intrinsics(recorded), images.depth(recorded, options.max_depth_delay)
            lifted = lift(observation.keypoints, depth, intrinsics)
            images.note_flat(why_flat(lifted, depth, intrinsics))
            tally.images += 1
            tally.score_sum += float(observation.scores.mean())
            yield recorded.received_ns, Result(header, image, observation, states, lifted, intrinsics)
    if not tally.images:
        raise UserError(f"no image on {images.topic} could be read: {images.first_fault or 'there is none'}")


def _write_bag(
    path: Path, reader: AnyReader, results: Iterable[tuple[int, Result]], prefix: str, model: Model, look: Look
) -> None:
    """The recording's own messages, and ours beside them, in the order of time."""
    if not reader.is2:
        raise UserError("a ROS 1 bag cannot get ROS 2 topics: convert it with `rosbags-convert` first, or give an .mp4")
    names = {name: f"{prefix}/{name}" for name in TOPICS}
    taken = sorted({c.topic for c in reader.connections} & {*names.values()})
    if taken:
        raise UserError(f"the bag has {', '.join(taken)} already: choose another --prefix than {prefix}")
    others = sorted({c.topic for c in reader.connections if not is_of_ros2(c)})
    if others:
        print(f"left out, as their messages are not ROS 2's (cdr): {', '.join(others)}", file=sys.stderr)
    with write_bag(path) as writer:
        own = copied(writer, reader)
        ours = _Topics(writer, names, model, look)
        following = next(own, None)
        for received_ns, result in results:
            while following is not None and following[1] <= received_ns:
                writer.write(*following)
                following = next(own, None)
            ours.write(received_ns, result)
        for message in itertools.chain([] if following is None else [following], own):
            writer.write(*message)


class _Topics:
    """Our topics in a bag."""

    def __init__(self, writer: Writer, names: dict[str, str], model: Model, look: Look) -> None:
        """names: each of TOPICS to what it is called in the bag."""
        self._writer, self._names, self._model, self._look = writer, names, model, look
        self._messages = ResultMessages(BagMessages())
        self._connections: dict[str, Connection] = {}

    def write(self, received_ns: int, result: Result) -> None:
        """Everything about one image."""
        for name, message in self._messages.of(result, self._model, self._look, FOR_THE_EYE.__contains__):
            is_serialised = isinstance(message, bytes)
            data = message if is_serialised else message_store().serialize_cdr(message, TOPICS[name])
            self._writer.write(self._connection(name), received_ns, data)

    def _connection(self, name: str) -> Connection:
        if name not in self._connections:
            self._connections[name] = self._writer.add_connection(
                self._names[name],
                TOPICS[name],
                typestore=message_store(),
                offered_qos_profiles=[reliable(latched=True)] if name in LATCHED else [],
            )
        return self._connections[name]


def _write_video(path: Path, results: Iterable[tuple[int, Result]], fps: float, style: Style) -> None:
    with video_writer(path, fps) as write:
        for _, result in results:
            write(draw(result.image, result.observation, style))


def _fps(reader: AnyReader, topic: str) -> float:
    """Images a second of a topic from its first message to its last, 30 where they tell nothing."""
    times = [at for _, at, _ in reader.messages(connections_of(reader, topic))]
    seconds = (times[-1] - times[0]) / 1e9 if times else 0.0
    return float(np.clip((len(times) - 1) / seconds, 1, 240)) if seconds > 0 else 30.0


def _with_progress(results: Iterator[tuple[int, Result]], total: int, tally: Tally) -> Iterator[tuple[int, Result]]:
    start = shown = time.monotonic()
    interactive = sys.stdout.isatty()
    for result in results:
        yield result
        now = time.monotonic()
        if now - shown > (0.2 if interactive else 5.0):
            shown = now
            text = f"{tally.images}/{total} images, {tally.images / (now - start):.0f} images/s"
            print(f"\r{text:<50}" if interactive else text, end="" if interactive else "\n", flush=True)
    if interactive:
        print("\r" + " " * 50 + "\r", end="")


if __name__ == "__main__":
    raise SystemExit(main())
