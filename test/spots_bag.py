"""A recording of three coloured spots that move, with the truth: what a robot's camera bag looks like, in small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from colour_model import COLOURS, spots_image

from keypoint_perception.bags import BagMessages, message_store, write_bag

START_NS = 1_700_000_000_000_000_000
FRAME_ID = "table_optical_frame"
DEPTH_M = 0.8


def spot_centres(index: int, size: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """Whole pixels, on three circles of different pace."""
    width, height = size
    angles = index / 20 * np.array([1.0, 1.3, 0.7])
    middles = np.array([(0.25, 0.5), (0.5, 0.5), (0.75, 0.5)])
    points = (middles + 0.15 * np.stack([np.cos(angles), np.sin(angles)], 1)) * (width, height)
    return {colour: tuple(np.round(point).tolist()) for colour, point in zip(COLOURS, points, strict=True)}


def write_spots_bag(
    path: Path,
    *,
    frames: int = 60,
    fps: float = 30.0,
    size: tuple[int, int] = (192, 128),
    topic: str = "/table",
    compressed: bool = True,
    depth: bool = False,
) -> Path:
    """Images, camera_info and ground truth under `topic`; depth (16UC1, millimetres) too if asked for."""
    messages, store = BagMessages(), message_store()
    with write_bag(path) as writer:
        connections: dict[str, Any] = {}

        def send(name: str, message: Any, stamp: int) -> None:
            kind = message.__msgtype__
            if name not in connections:
                connections[name] = writer.add_connection(f"{topic}/{name}", kind, typestore=store)
            writer.write(connections[name], stamp, store.serialize_cdr(message, kind))

        for index in range(frames):
            stamp = START_NS + round(index / fps * 1e9)
            header = _header(messages, stamp)
            centres = spot_centres(index, size)
            picture = spots_image(size, centres)
            if compressed:
                send("image_raw/compressed", _compressed(messages, header, picture), stamp)
            else:
                send("image_raw", _image(messages, header, picture, "rgb8"), stamp)
            send("camera_info", _camera_info(messages, header, size), stamp)
            if depth:
                millimetres = np.full(size[::-1], round(DEPTH_M * 1000), np.uint16)
                send("depth/image_raw", _image(messages, header, millimetres, "16UC1"), stamp)
            send("ground_truth/keypoints", _truth(messages, header, centres, size), stamp)
    return path


def _header(messages: BagMessages, stamp: int) -> Any:
    time = messages.make("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
    return messages.make("std_msgs/msg/Header", stamp=time, frame_id=FRAME_ID)


def _image(messages: BagMessages, header: Any, picture: np.ndarray, encoding: str) -> Any:
    return messages.make(
        "sensor_msgs/msg/Image",
        header=header,
        height=picture.shape[0],
        width=picture.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=picture.strides[0],
        data=picture.reshape(-1).view(np.uint8),
    )


def _compressed(messages: BagMessages, header: Any, picture: np.ndarray) -> Any:
    _, data = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return messages.make(
        "sensor_msgs/msg/CompressedImage", header=header, format="rgb8; jpeg compressed bgr8", data=data.ravel()
    )


def _camera_info(messages: BagMessages, header: Any, size: tuple[int, int]) -> Any:
    width, height = size
    matrix = [width, 0, (width - 1) / 2, 0, width, (height - 1) / 2, 0, 0, 1]
    return messages.make(
        "sensor_msgs/msg/CameraInfo",
        header=header,
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=np.array(matrix, float),
        r=np.eye(3).ravel(),
        p=np.insert(np.array(matrix, float).reshape(3, 3), 3, 0, axis=1).ravel(),
        binning_x=0,
        binning_y=0,
        roi=messages.make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        ),
    )


def _truth(messages: BagMessages, header: Any, centres: dict[str, tuple[float, float]], size: tuple[int, int]) -> Any:
    unknown = messages.make("geometry_msgs/msg/Point", x=np.nan, y=np.nan, z=np.nan)
    keypoints = [
        messages.make(
            "keypoint_perception_msgs/msg/Keypoint",
            id=index,
            name=name,
            state=1,
            score=1.0,
            u=u,
            v=v,
            position=unknown,
            position_stddev=np.nan,
        )
        for index, (name, (u, v)) in enumerate(centres.items())
    ]
    return messages.make(
        "keypoint_perception_msgs/msg/KeypointArray",
        header=header,
        model_id="truth",
        image_width=size[0],
        image_height=size[1],
        position_frame_id="",
        keypoints=keypoints,
    )
