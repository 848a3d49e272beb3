"""Runs a model over a recording, as fast as the machine allows and without a ROS graph.

A bag comes out as the same bag with our topics beside its own, for RViz and Foxglove, or as a video.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Writer

from keypoint_perception.backends import CHOICES
from keypoint_perception.bags import IMAGE_TYPES, BagMessages, connections_of, message_store, open_bag, write_bag
from keypoint_perception.detector import DEFAULT_BACKEND, Detector, shipped_model
from keypoint_perception.drawing import SCORE_THRESHOLD, Style, draw
from keypoint_perception.errors import UserError
from keypoint_perception.images import image_to_depth, image_to_rgb
from keypoint_perception.lifting import Intrinsics, Lifted, lift
from keypoint_perception.model import Model
from keypoint_perception.observation import Observation
from keypoint_perception.ros.conversions import jpeg_image, keypoint_array, keypoint_hierarchy, skeleton_graph
from keypoint_perception.ros.markers import marker_positions, skeleton_markers
from keypoint_perception.smoothing import Follower, OneEuroConfig
from keypoint_perception.video import video_writer

BATCH = 8
MAX_GAP_S = 0.5
MARKER_DEPTH_M = 1.0
_DEPTH_KEPT = 4 * BATCH
_LOOK_AHEAD = 3
"""Images read beyond a batch, so that depth recorded a little after its image is known when that is served."""
_NEVER = QosTime(9223372036, 854775807)
_LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, _NEVER, _NEVER,
    QosLiveliness.AUTOMATIC, _NEVER, False,
)  # fmt: skip


@dataclass(frozen=True)
class Annotated:
    """One image and what was found in it. K keypoints."""

    recorded_ns: int
    """When the bag received it."""
    header: Any
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    observation: Observation
    states: np.ndarray
    """(K,) uint8 smoothing.State."""
    lifted: Lifted
    intrinsics: Intrinsics | None


@dataclass
class Tally:
    """What happened so far."""

    images: int = 0
    unreadable: int = 0
    score_sum: float = 0.0
    first_fault: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    try:
        annotate(_parser().parse_args(argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; nothing was written", file=sys.stderr)
        return 130
    return 0


def annotate(options: argparse.Namespace) -> None:
    """Does what the options of `_parser` say. Raises UserError; then nothing is written."""
    if options.out.exists():
        raise UserError(f"{options.out} exists: give another name with -o, or remove it")
    detector = Detector(options.model or shipped_model(), options.backend, options.threads, print)
    with open_bag(options.bag) as reader:
        topic = options.topic or _only_image_topic(reader)
        total = sum(c.msgcount for c in connections_of(reader, topic))
        print(f"{detector.model.id} in {detector.backend.describe()}, {total} images on {topic}", flush=True)
        tally, start = Tally(), time.monotonic()
        frames = _with_progress(_annotated(reader, topic, detector, options, tally), total, tally)
        if options.out.suffix == ".mp4":
            _write_video(
                options.out, frames, _fps(reader, topic, total), Style.of(detector.model.info, labels=options.labels)
            )
        else:
            _write_bag(options.out, reader, frames, detector.model, options)
    seconds = time.monotonic() - start
    if not tally.images:
        raise UserError(f"no image on {topic} could be read: {tally.first_fault or 'there is none'}")
    skipped = f", {tally.unreadable} unreadable ({tally.first_fault})" if tally.unreadable else ""
    print(
        f"{options.out}: {tally.images} images in {seconds:.1f} s ({tally.images / seconds:.0f} images/s), "
        f"mean score {tally.score_sum / tally.images:.3f}{skipped}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="annotate", description=__doc__)
    parser.add_argument("bag", type=Path, help="rosbag2 folder, .mcap or .db3 file, or ROS 1 .bag (to video only)")
    parser.add_argument("-o", "--out", type=Path, required=True, help="new bag, or a video where it ends in .mp4")
    parser.add_argument("--model", type=Path, help="model file (.onnx); the shipped one if not given")
    parser.add_argument("--topic", help="image topic; needed where the bag has several")
    parser.add_argument("--depth", help="depth topic, aligned with the images, to lift keypoints to 3-D")
    parser.add_argument("--camera-info", help="calibration topic; needed for --depth")
    parser.add_argument("--prefix", default="/detector", help="namespace of our topics (default: %(default)s)")
    parser.add_argument("--backend", default=DEFAULT_BACKEND, choices=CHOICES, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all)")
    parser.add_argument("--threshold", type=float, default=SCORE_THRESHOLD, help="least score that counts as observed")
    parser.add_argument("--smoothing", action="store_true", help="One-Euro smoothing")
    parser.add_argument("--labels", action="store_true", help="keypoint names on pictures and markers")
    return parser


def _only_image_topic(reader: AnyReader) -> str:
    topics = sorted({c.topic for c in reader.connections if c.msgtype in IMAGE_TYPES and "depth" not in c.topic})
    if len(topics) != 1:
        raise UserError(
            f"the bag has {len(topics)} image topics: choose with --topic, there is {', '.join(topics) or 'none'}"
        )
    return topics[0]


def _annotated(
    reader: AnyReader, topic: str, detector: Detector, options: argparse.Namespace, tally: Tally
) -> Iterator[Annotated]:
    """The images in order, with what was found in them."""
    smoothing = OneEuroConfig() if options.smoothing else None
    follow = Follower(MAX_GAP_S, smoothing)
    images = _Images(reader, topic, options, tally)
    for batch in images.batches():
        observations = detector.detect([image for _, _, image in batch])
        for (recorded, header, image), seen in zip(batch, observations, strict=True):
            observation, states = follow(seen, _stamp_ns(header) / 1e9, options.threshold)
            intrinsics, depth = images.intrinsics(observation.image_size), images.depth(header)
            lifted = Lifted.unknown(len(states))
            if depth is not None and intrinsics is not None and depth.shape == image.shape[:2]:
                lifted = lift(observation.keypoints, depth, intrinsics)
            tally.images += 1
            tally.score_sum += float(observation.scores.mean())
            yield Annotated(recorded, header, image, observation, states, lifted, intrinsics)


class _Images:
    """The images of a topic in batches, and the depth and calibration that were recorded around them."""

    def __init__(self, reader: AnyReader, topic: str, options: argparse.Namespace, tally: Tally) -> None:
        self._reader, self._topic, self._tally = reader, topic, tally
        self._wanted = connections_of(reader, topic)
        if (options.depth is None) != (options.camera_info is None):
            raise UserError("--depth and --camera-info are given together or not at all")
        if options.depth is not None:
            self._wanted = self._wanted + connections_of(reader, options.depth)
            self._wanted += connections_of(reader, options.camera_info, ["sensor_msgs/msg/CameraInfo"])
        self._depth_topic = options.depth
        self._depths: deque[Any] = deque(maxlen=_DEPTH_KEPT)
        self._info: Any = None
        self._intrinsics: Intrinsics | None = None

    def batches(self) -> Iterator[list[tuple[int, Any, np.ndarray]]]:
        """(time of recording, header, RGB image), up to BATCH at a time."""
        waiting: list[tuple[int, Any, np.ndarray]] = []
        for connection, recorded, data in self._reader.messages(self._wanted):
            message: Any = self._reader.deserialize(data, connection.msgtype)
            if connection.topic == self._topic:
                waiting += self._decoded(recorded, message)
            elif connection.topic == self._depth_topic:
                self._depths.append(message)
            elif self._info is None:
                self._info, self._intrinsics = message, Intrinsics.from_camera_info(message)
            if len(waiting) >= BATCH + _LOOK_AHEAD:
                yield waiting[:BATCH]
                del waiting[:BATCH]
        for start in range(0, len(waiting), BATCH):
            yield waiting[start : start + BATCH]

    def intrinsics(self, size: tuple[int, int]) -> Intrinsics | None:
        """The calibration, where it fits images of `size`."""
        return self._intrinsics if self._intrinsics is not None and self._intrinsics.size == size else None

    def depth(self, header: Any) -> np.ndarray | None:
        """Depth (H, W), metres, of the same instant."""
        for message in self._depths:
            if _stamp_ns(message.header) == _stamp_ns(header):
                return image_to_depth(message)
        return None

    def _decoded(self, recorded: int, message: Any) -> list[tuple[int, Any, np.ndarray]]:
        try:
            return [(recorded, message.header, image_to_rgb(message))]
        except UserError as error:
            self._tally.unreadable += 1
            self._tally.first_fault = self._tally.first_fault or str(error)
            return []


def _write_bag(
    path: Path, reader: AnyReader, frames: Iterable[Annotated], model: Model, options: argparse.Namespace
) -> None:
    """The recording's own messages, and ours beside them, in the order of time."""
    if not reader.is2:
        raise UserError("a ROS 1 bag cannot get ROS 2 topics: convert it with `rosbags-convert` first, or give an .mp4")
    with write_bag(path) as writer:
        own = _copied(writer, reader)
        ours = _Topics(writer, options.prefix, model, Style.of(model.info), options.labels)
        following = next(own, None)
        for frame in frames:
            while following is not None and following[1] <= frame.recorded_ns:
                writer.write(*following)
                following = next(own, None)
            ours.write(frame)
        for message in itertools.chain([] if following is None else [following], own):
            writer.write(*message)


def _copied(writer: Writer, reader: AnyReader) -> Iterator[tuple[Connection, int, bytes]]:
    """The messages of a recording, for connections of a new one."""
    connections = {}
    for c in reader.connections:
        ext: Any = c.ext
        connections[c.id] = writer.add_connection(
            c.topic, c.msgtype, typestore=reader.typestore, offered_qos_profiles=ext.offered_qos_profiles
        )
    for connection, at, data in reader.messages():
        yield connections[connection.id], at, data


class _Topics:
    """Our topics in a bag."""

    def __init__(self, writer: Writer, prefix: str, model: Model, style: Style, labels: bool) -> None:
        self._writer, self._prefix, self._model, self._style = writer, prefix.rstrip("/"), model, style
        self._names = model.info.keypoint_names if labels else ()
        self._messages = BagMessages()
        self._connections: dict[str, Connection] = {}

    def write(self, frame: Annotated) -> None:
        """Everything about one image."""
        messages, header, model = self._messages, frame.header, self._model
        if not self._connections:
            self._send("hierarchy", keypoint_hierarchy(messages, header, model), frame, latched=True)
        found = keypoint_array(messages, header, model, frame.observation, frame.states, frame.lifted)
        self._send("keypoints", found, frame)
        graph = skeleton_graph(messages, header, model, frame.observation, frame.lifted)
        self._send("skeleton", graph, frame, latched=True)
        positions = marker_positions(frame.observation, frame.lifted, frame.intrinsics, MARKER_DEPTH_M)
        markers = skeleton_markers(messages, header, frame.observation, positions, self._style, self._names)
        self._send("markers", markers, frame)
        picture = draw(frame.image, frame.observation, self._style)
        self._send("overlay/compressed", jpeg_image(messages, header, picture), frame)

    def _send(self, name: str, message: Any, frame: Annotated, latched: bool = False) -> None:
        kind = message.__msgtype__
        if name not in self._connections:
            self._connections[name] = self._writer.add_connection(
                f"{self._prefix}/{name}",
                kind,
                typestore=message_store(),
                offered_qos_profiles=[_LATCHED] if latched else [],
            )
        data = message_store().serialize_cdr(message, kind)
        self._writer.write(self._connections[name], frame.recorded_ns, data)


def _write_video(path: Path, frames: Iterable[Annotated], fps: float, style: Style) -> None:
    with video_writer(path, fps) as write:
        for frame in frames:
            write(draw(frame.image, frame.observation, style))


def _fps(reader: AnyReader, topic: str, total: int) -> float:
    """Images a second of the recording, 30 where it tells nothing."""
    seconds = reader.duration / 1e9
    return float(np.clip((total - 1) / seconds, 1, 240)) if total > 1 and seconds > 0 else 30.0


def _with_progress(frames: Iterator[Annotated], total: int, tally: Tally) -> Iterator[Annotated]:
    start = shown = time.monotonic()
    interactive = sys.stdout.isatty()
    for frame in frames:
        yield frame
        now = time.monotonic()
        if now - shown > (0.2 if interactive else 5.0):
            shown = now
            text = f"{tally.images}/{total} images, {tally.images / (now - start):.0f} images/s"
            print(f"\r{text:<50}" if interactive else text, end="" if interactive else "\n", flush=True)
    if interactive:
        print("\r" + " " * 50 + "\r", end="")


def _stamp_ns(header: Any) -> int:
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


if __name__ == "__main__":
    raise SystemExit(main())
