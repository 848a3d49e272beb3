"""What the demo writes and prints: figures, the detector's words as a bag, and pictures."""

from __future__ import annotations

import argparse
import bisect
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_perception.bags import connections_of, message_store, open_bag, write_bag
from keypoint_perception.drawing import Style, contact_sheet, draw, write_png
from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.images import image_to_rgb
from keypoint_perception.model import Model
from keypoint_perception.observation import Observation, adjacency_of
from keypoint_perception.stamps import serialised_stamp_ns
from keypoint_perception.video import video_writer

OUTPUTS = {"keypoints": "KeypointArray", "skeleton": "SkeletonGraph", "hierarchy": "KeypointHierarchy"}
PACKAGE = "keypoint_perception_msgs/msg"
SHEET_COLUMNS, SHEET_ROWS = 4, 3
VIDEO_FPS = 30.0


@dataclass
class Heard:
    """What the detector said, as it came."""

    messages: dict[str, list[tuple[int, bytes]]] = field(default_factory=lambda: {name: [] for name in OUTPUTS})
    """By output: (time of receipt in nanoseconds, serialised message)."""
    backend: str = ""


def write_results(options: argparse.Namespace, model: Model, heard: Heard, played: list[tuple[int, int]]) -> None:
    """All that is left of a run. played: the (recorded, played) stamps of the images, in nanoseconds."""
    observations = _observations(heard)
    report = _report(heard, played, observations, model.id, options)
    _write_bag(options.out / "bag", heard)
    _write_pictures(options, model, heard, played, observations)
    with written_whole(options.out / "report.json") as file:
        file.write_text(json.dumps(report, indent=2) + "\n")
    _print_table(report, options.out)


def camera_of(topic: str) -> str:
    """The namespace of a camera, `/table`, from the topic of its images, `/table/image_raw/compressed`."""
    return topic.removesuffix("/compressed").rpartition("/")[0]


@dataclass(frozen=True)
class Observed:
    """One KeypointArray, read."""

    stamp_ns: int
    latency_ms: float
    keypoints: np.ndarray
    """(K, 2) pixels."""
    scores: np.ndarray
    lifted: bool
    """Whether a keypoint has a position in metres."""
    image_size: tuple[int, int]


def _observations(heard: Heard) -> list[Observed]:
    found = []
    for received, data in heard.messages["keypoints"]:
        message: Any = message_store().deserialize_cdr(data, f"{PACKAGE}/KeypointArray")
        stamp = serialised_stamp_ns(data)
        found.append(
            Observed(
                stamp,
                (received - stamp) / 1e6,
                np.array([(k.u, k.v) for k in message.keypoints], np.float32),
                np.array([k.score for k in message.keypoints], np.float32),
                bool(message.position_frame_id),
                (message.image_width, message.image_height),
            )
        )
    return found


def _report(
    heard: Heard, played: list[tuple[int, int]], observed: list[Observed], model_id: str, options: argparse.Namespace
) -> dict[str, Any]:
    """The figures."""
    if not observed:
        raise UserError("the detector published nothing: its log is above")
    p50, p99 = np.percentile([o.latency_ms for o in observed], (50, 99))
    seconds = (played[-1][1] - played[0][1]) / 1e9
    report = {
        "frames_in": len(played),
        "observations": len(observed),
        "rate_hz": round((len(played) - 1) / seconds, 2) if seconds > 0 else None,
        "latency_ms": {"p50": round(float(p50), 2), "p99": round(float(p99), 2)},
        "mean_score": round(float(np.mean([o.scores for o in observed])), 4),
        "observations_in_3d": sum(o.lifted for o in observed),
        "backend": heard.backend or options.backend,
        "model_id": model_id,
    }
    truth = _ground_truth(options)
    if truth:
        report["joint_error_percent_of_width"] = _regression_error(played, observed, truth)
    return report


def _ground_truth(options: argparse.Namespace) -> dict[int, np.ndarray]:
    """Recorded stamp to the true joints (J, 2), pixels, where the bag has them of that camera."""
    topic, truth = f"{camera_of(options.topic)}/ground_truth/keypoints", {}
    with open_bag(options.bag) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        for connection, _, data in reader.messages(connections) if connections else ():
            message: Any = reader.deserialize(data, connection.msgtype)
            truth[serialised_stamp_ns(data)] = np.array([(k.u, k.v) for k in message.keypoints])
    return truth


def _regression_error(
    played: list[tuple[int, int]], observed: list[Observed], truth: dict[int, np.ndarray]
) -> float | None:
    """Mean distance of each true joint from its linear regression on all keypoints, in percent of the image width.

    Fitted on half of the recording, in blocks of a second that alternate with those it is measured on. Of joints that
    are always in front of the camera; None where there are none, or too few observations.
    """
    recorded = {stamp: original for original, stamp in played}
    pairs = [(o, truth[recorded[o.stamp_ns]]) for o in observed if recorded.get(o.stamp_ns) in truth]
    if len(pairs) < 60:
        return None
    x = np.array([np.append(o.keypoints.ravel() / o.image_size[0] - 0.5, 1) for o, _ in pairs])
    y = np.array([joints / o.image_size[0] for o, joints in pairs])
    y = y[:, np.isfinite(y).all(axis=(0, 2))].reshape(len(pairs), -1)
    if y.size == 0:
        return None
    start = pairs[0][0].stamp_ns
    fit = np.array([(o.stamp_ns - start) // 1_000_000_000 % 2 == 0 for o, _ in pairs])
    ridge = 1e-4 * np.eye(x.shape[1])
    weights = np.linalg.solve(x[fit].T @ x[fit] + ridge, x[fit].T @ y[fit])
    missed = (x[~fit] @ weights - y[~fit]).reshape(-1, 2)
    return round(float(np.linalg.norm(missed, axis=1).mean()) * 100, 2)


def _write_bag(path: Path, heard: Heard) -> None:
    """What the detector said, as a bag."""
    with write_bag(path) as writer:
        rows = []
        for name, kind in OUTPUTS.items():
            connection = writer.add_connection(f"/detector/{name}", f"{PACKAGE}/{kind}", typestore=message_store())
            rows += [(received, connection, data) for received, data in heard.messages[name]]
        for received, connection, data in sorted(rows, key=lambda row: row[0]):
            writer.write(connection, received, data)


def _write_pictures(
    options: argparse.Namespace,
    model: Model,
    heard: Heard,
    played: list[tuple[int, int]],
    observed: list[Observed],
) -> None:
    """The overlay as a video and as a contact sheet."""
    recorded = {stamp: original for original, stamp in played}
    by_recorded = {recorded[o.stamp_ns]: o for o in observed if o.stamp_ns in recorded}
    chosen = set(np.linspace(0, max(len(by_recorded) - 1, 0), SHEET_COLUMNS * SHEET_ROWS).astype(int).tolist())
    adjacency = _adjacencies(heard, model.info.keypoint_count)
    style, tiles = Style.of(model.info), []
    with open_bag(options.bag) as reader, video_writer(options.out / "overlay.mp4", VIDEO_FPS) as show:
        index = 0
        for connection, _, data in reader.messages(connections_of(reader, options.topic)):
            seen = by_recorded.get(serialised_stamp_ns(data))
            if seen is None:
                continue
            image = image_to_rgb(reader.deserialize(data, connection.msgtype))
            found = Observation(seen.keypoints, seen.scores, adjacency(seen.stamp_ns), seen.image_size)
            picture = draw(image, found, style)
            show(picture)
            if index in chosen:
                tiles.append(picture)
            index += 1
    write_png(options.out / "overlay.png", contact_sheet(tiles, SHEET_COLUMNS))


def _adjacencies(heard: Heard, keypoints: int) -> Callable[[int], np.ndarray]:
    """A function from a stamp to the adjacency (K, K) that held then: the newest skeleton that is not younger."""
    stamps, matrices = [], []
    for _, data in heard.messages["skeleton"]:
        graph: Any = message_store().deserialize_cdr(data, f"{PACKAGE}/SkeletonGraph")
        edges = np.stack([graph.edge_source, graph.edge_target], axis=1)
        stamps.append(serialised_stamp_ns(data))
        matrices.append(adjacency_of(edges, keypoints, graph.edge_weight))
    return lambda stamp: matrices[max(bisect.bisect_right(stamps, stamp) - 1, 0)]


def _print_table(report: dict[str, Any], out: Path) -> None:
    rows = {
        "frames in": f"{report['frames_in']} at {report['rate_hz']} Hz",
        "observations": f"{report['observations']} ({100 * report['observations'] / report['frames_in']:.1f} %)",
        "latency p50": f"{report['latency_ms']['p50']} ms from image stamp to keypoints received",
        "latency p99": f"{report['latency_ms']['p99']} ms",
        "mean score": report["mean_score"],
        "in 3-D": f"{report['observations_in_3d']} observations",
        "backend": report["backend"],
    }
    if report.get("joint_error_percent_of_width") is not None:
        rows["joint error"] = f"{report['joint_error_percent_of_width']} % of the image width, regressed"
    print()
    for name, value in rows.items():
        print(f"  {name:<14}{value}")
    print(f"\n  {out}/report.json  overlay.png  overlay.mp4  bag/")
