"""The recording that the tests of annotate are about, and copies of it that differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rosbags.highlevel import AnyReader

from keypoint_perception.annotate import main
from keypoint_perception.bags import open_bag, write_bag

SIZE, FRAMES = (192, 128), 20
IMAGES, DEPTH, CAMERA_INFO = "/table/image_raw/compressed", "/table/depth/image_raw", "/table/camera_info"
CALIBRATED = ("--depth", DEPTH, "--camera-info", CAMERA_INFO)


def annotate(bag: Path, out: Path, model: Path, *more: str) -> int:
    """The command's exit status."""
    return main([str(bag), "-o", str(out), "--model", str(model), "--threads", "1", *more])


def messages(bag: Path, topic: str) -> list:
    """All messages of a topic."""
    with open_bag(bag) as reader:
        wanted = [c for c in reader.connections if c.topic == topic]
        return [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(wanted)]


def copied(bag: Path, out: Path, topic: str, change: Callable[[AnyReader, int, bytes], bytes]) -> Path:
    """A bag with the messages of one topic changed: by their number, from 1, and their bytes."""
    with open_bag(bag) as reader, write_bag(out) as writer:
        connections = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore) for c in reader.connections
        }
        number = 0
        for connection, at, data in reader.messages():
            if connection.topic == topic:
                number += 1
                data = change(reader, number, data)
            writer.write(connections[connection.id], at, data)
    return out
