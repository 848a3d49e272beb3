"""Small recordings of every kind, as real files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

SIZE = (32, 24)
"""(width, height) of the recorded images."""
TOPIC = "/camera/image_raw"
START = 1_700_000_000_000_000_000
PERIOD = 100_000_000
"""Nanoseconds from one image to the next."""
ROS2 = get_typestore(Stores.ROS2_JAZZY)
ROS1 = get_typestore(Stores.ROS1_NOETIC)


def picture(index: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3) RGB: smooth, of different channels, and another one for each index."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    return (
        np.stack((40 + 4 * x, 200 - 4 * y - index, 60 + 2 * x + y + 3 * index), axis=-1).clip(0, 255).astype(np.uint8)
    )


class Message(NamedTuple):
    """One image message, for either ROS."""

    fields: dict[str, Any]
    stamp: int
    """Of its header, nanoseconds; 0 for none."""
    topic: str = TOPIC
    recorded: int | None = None
    """When it was recorded; None for `stamp`."""


def raw(rgb: np.ndarray, encoding: str) -> dict[str, Any]:
    """The fields of an Image that holds `rgb` in an encoding."""
    height, width = rgb.shape[:2]
    big, padding = 0, 0
    if encoding == "rgb8":
        rows = rgb
    elif encoding == "bgr8":
        rows, padding = rgb[..., ::-1], 3
    elif encoding == "mono16":
        rows, big = (rgb[..., 0].astype(np.uint16) << 8).astype(">u2"), 1
    elif encoding == "bayer_rggb8":
        rows = rgb[..., 1].copy()
        rows[0::2, 0::2], rows[1::2, 1::2] = rgb[0::2, 0::2, 0], rgb[1::2, 1::2, 2]
    else:
        yuv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
        y, u, v = yuv[:height], *yuv[height:].reshape(2, height // 2, width // 2)
        if encoding == "nv12":
            rows = np.vstack((y, np.stack((u, v), axis=-1).reshape(-1, width)))
        else:
            assert encoding == "yuyv"
            u, v = u.repeat(2, axis=0), v.repeat(2, axis=0)
            rows = np.stack((y[:, 0::2], u, y[:, 1::2], v), axis=-1)
    flat = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    flat = np.hstack((flat, np.zeros((len(flat), padding), np.uint8)))
    return {
        "height": height,
        "width": width,
        "encoding": encoding,
        "is_bigendian": big,
        "step": flat.shape[1],
        "data": flat.ravel(),
    }


def compressed(rgb: np.ndarray, kind: str) -> dict[str, Any]:
    """The fields of a CompressedImage."""
    suffix = ".jpg" if kind == "jpeg" else ".png"
    data = cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    return {"format": f"rgb8; {kind} compressed bgr8", "data": data.reshape(-1)}


def encode(rgb: np.ndarray, encoding: str) -> dict[str, Any]:
    """The fields of an Image or a CompressedImage."""
    return compressed(rgb, encoding) if encoding in ("jpeg", "png") else raw(rgb, encoding)


EXPECTED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "rgb8": (lambda rgb: rgb, 0),
    "bgr8": (lambda rgb: rgb, 0),
    "mono16": (lambda rgb: rgb[..., :1].repeat(3, axis=-1), 0),
    "bayer_rggb8": (lambda rgb: rgb, 6),
    "yuyv": (lambda rgb: rgb, 8),
    "nv12": (lambda rgb: rgb, 8),
    "png": (lambda rgb: rgb, 0),
    "jpeg": (lambda rgb: rgb, 8),
}
"""Encoding: what is read back, and by how many grey levels it may differ."""


def messages(count: int, encoding: str = "rgb8", topic: str = TOPIC, start: int = START) -> list[Message]:
    """`count` images at 10 Hz."""
    return [Message(encode(picture(i), encoding), start + i * PERIOD, topic) for i in range(count)]


def write_rosbag2(
    path: Path,
    content: Iterable[Message],
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode | None = None,
) -> Path:
    """A rosbag2 folder."""
    writer = Writer2(path, version=9, storage_plugin=storage)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        _fill(writer, content, ROS2, ROS2.serialize_cdr)
    return path


def write_rosbag1(path: Path, content: Iterable[Message], compression: Any = None) -> Path:
    """A ROS 1 .bag."""
    writer = Writer1(path)
    if compression is not None:
        writer.set_compression(compression)
    with writer:
        _fill(writer, content, ROS1, ROS1.serialize_ros1)
    return path


def _fill(writer: Any, content: Iterable[Message], store: Any, serialize: Callable[..., Any]) -> None:
    connections: dict[tuple[str, str], Any] = {}
    for fields, stamp, topic, recorded in content:
        kind = f"sensor_msgs/msg/{'CompressedImage' if 'format' in fields else 'Image'}"
        if (topic, kind) not in connections:
            connections[topic, kind] = writer.add_connection(topic, kind, typestore=store)
        time = store.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        extra = {"seq": 0} if store is ROS1 else {}
        header = store.types["std_msgs/msg/Header"](stamp=time, frame_id="camera", **extra)
        message = store.types[kind](header=header, **fields)
        writer.write(connections[topic, kind], stamp if recorded is None else recorded, serialize(message, kind))


def write_video(path: Path, frames: Iterable[np.ndarray], codec: str = "FFV1", rate: float = 10.0) -> Path:
    """A video; FFV1 and HFYU lose nothing."""
    writer = None
    for frame in frames:
        if writer is None:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, frame.shape[1::-1])
            assert writer.isOpened()
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    assert writer is not None
    writer.release()
    return path


def write_images(folder: Path, frames: Iterable[np.ndarray], suffix: str = ".png") -> Path:
    """A folder of images: img0.png, img1.png, …, without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"img{index}{suffix}"), np.ascontiguousarray(frame[..., ::-1]))
    return folder
