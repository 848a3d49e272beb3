"""A contact sheet of a simulated bag: pictures of each camera with the ground truth drawn over them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import Reader

from keypoint_perception.bags import message_store
from keypoint_perception.drawing import Style, contact_sheet, draw, palette, write_png
from keypoint_perception.images import image_to_rgb
from keypoint_perception.observation import Observation, adjacency_of
from keypoint_perception.smoothing import State
from training.simulation.bag import TRUE_KEYPOINTS, TRUE_SKELETON

_COLUMNS = 6
_TILE = 320
"""Width of a picture, pixels."""
_HIDDEN_SCORE = 0.2


def write_bag_sheet(path: str | os.PathLike[str], bag: str | os.PathLike[str]) -> None:
    """Writes a PNG with a row for each camera of `bag` that has ground truth, from its first picture to its last."""
    store = message_store()
    with Reader(Path(bag)) as reader:
        cameras = sorted(
            topic.removesuffix(TRUE_KEYPOINTS) for topic in reader.topics if topic.endswith(TRUE_KEYPOINTS)
        )
        tiles = [tile for camera in cameras for tile in _row(reader, store, camera)]
    write_png(path, contact_sheet(tiles, _COLUMNS, _TILE))


def _row(reader: Reader, store: Any, camera: str) -> list[np.ndarray]:
    images = f"{camera}/image_raw"
    images = images if images in reader.topics else f"{images}/compressed"
    count = reader.topics[images].msgcount
    wanted = {int(number) for number in np.linspace(0, count - 1, _COLUMNS).round()}
    chosen: dict[str, list[Any]] = {images: [], camera + TRUE_KEYPOINTS: [], camera + TRUE_SKELETON: []}
    for topic, messages in chosen.items():  # each has one message a picture, in the same order
        connections = [connection for connection in reader.connections if connection.topic == topic]
        for number, (connection, _, raw) in enumerate(reader.messages(connections)):
            if number in wanted:
                messages.append(store.deserialize_cdr(raw, connection.msgtype))
    return [_tile(*messages) for messages in zip(*chosen.values(), strict=True)]


def _tile(image: Any, truth: Any, skeleton: Any) -> np.ndarray:
    keypoints = np.array([(keypoint.u, keypoint.v) for keypoint in truth.keypoints], np.float32)
    seen = np.array([keypoint.state == State.OBSERVED for keypoint in truth.keypoints])
    edges = np.column_stack((skeleton.edge_source, skeleton.edge_target))
    observation = Observation(
        keypoints,
        np.where(seen, 1, _HIDDEN_SCORE).astype(np.float32),
        adjacency_of(edges, len(seen), skeleton.edge_weight),
        (truth.image_width, truth.image_height),
    )
    return draw(image_to_rgb(image), observation, Style(palette(len(seen))))
