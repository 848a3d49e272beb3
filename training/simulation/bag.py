"""Writing a rosbag2 folder without ROS: messages by type name, complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import Writer

from keypoint_perception.bags import BagMessages, message_store, reliable, write_bag
from keypoint_perception.errors import UserError

TRUE_KEYPOINTS, TRUE_SKELETON = "/ground_truth/keypoints", "/ground_truth/skeleton"
"""Topics of the truth, below a camera's namespace."""


class Bag:
    """A bag that is being written. Stamps are nanoseconds since 1970; topics are declared by their first message."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._store = message_store()
        self.make = BagMessages().make
        """A message, for example of kind "geometry_msgs/msg/Point"; what is not given is zero or empty."""
        self._connections: dict[str, Any] = {}

    def header(self, stamp: int, frame: str) -> Any:
        """A std_msgs Header."""
        time = self.make("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
        return self.make("std_msgs/msg/Header", stamp=time, frame_id=frame)

    def send(self, topic: str, kind: str, stamp: int, *, latched: bool = False, **fields: Any) -> None:
        """Writes one message; `latched` offers it to whoever subscribes later (transient local)."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=[reliable(latched=latched)]
            )
        message = self._store.serialize_cdr(self.make(kind, **fields), kind)
        self._writer.write(self._connections[topic], stamp, message)

    def send_image(self, topic: str, header: Any, encoding: str, picture: np.ndarray, stamp: int) -> None:
        """Writes (H, W[, C]) of a type that fits `encoding` (little endian, rows without padding) as an Image."""
        height, width = picture.shape[:2]
        data = np.ascontiguousarray(picture).view(np.uint8).reshape(-1)
        self.send(
            topic, "sensor_msgs/msg/Image", stamp,
            header=header, height=height, width=width, encoding=encoding, is_bigendian=0,
            step=data.size // height, data=data,
        )  # fmt: skip

    def send_compressed(self, topic: str, header: Any, text: str, data: np.ndarray, stamp: int) -> None:
        """Writes an encoded picture, (N,) uint8, as a CompressedImage of the format `text`."""
        self.send(topic, "sensor_msgs/msg/CompressedImage", stamp, header=header, format=text, data=data)


@contextmanager
def new_bag(path: str | os.PathLike[str]) -> Iterator[Bag]:
    """A bag folder that takes the name `path` when the block ends well, and is removed otherwise; see `write_bag`.

    Raises UserError where `path` exists or cannot be made.
    """
    if Path(path).exists():
        raise UserError(f"{path} exists already: name a new folder for the recording, or remove this one")
    with write_bag(path) as writer:
        yield Bag(writer)
