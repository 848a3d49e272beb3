"""A simulated world as a rosbag2 that looks like a robot's own, with the ground truth in topics of its own.

For a camera stream with the topic `/table` the bag holds `/table/image_raw` (or `…/compressed`), `/table/camera_info`,
`/table/depth/image_raw` (or `…/compressed`), `/table/ground_truth/keypoints` and `/table/ground_truth/skeleton`; beside
them `/joint_states`, `/tf` and `/tf_static`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from keypoint_perception.errors import UserError
from training.simulation.scene import World, mujoco

COLOUR_ENCODINGS = ("jpeg", "png", "rgb8", "bgr8")
"""The first two are written as CompressedImage."""
DEPTH_ENCODINGS = ("png", "16UC1", "32FC1")
"""`png` and 16UC1 are millimetres, 0 for unknown, the former as CompressedImage; 32FC1 is metres, NaN for unknown."""
START = 1_767_225_600
"""Stamp of the first picture, seconds since 1970. Constant, so that the same seed gives the same bag."""
WORLD_FRAME = "world"
_OWN_MESSAGES = Path(__file__).parents[2] / "keypoint_perception_msgs" / "msg"
_OBSERVED, _OCCLUDED, _OUT_OF_IMAGE = 1, 2, 3


@dataclass(frozen=True)
class CameraStream:
    """One camera of a world and how it is recorded."""

    camera: str
    """Its name in the model."""
    topic: str
    """Its namespace, for example "/table"."""
    colour: str = "jpeg"
    """One of COLOUR_ENCODINGS."""
    depth: str | None = None
    """One of DEPTH_ENCODINGS, or None for no depth."""
    every: int = 1
    """Write colour at every n-th tick,"""
    depth_every: int = 1
    """and depth. Where it is a multiple of `every`, each depth picture has a colour picture of the same stamp."""
    jpeg_quality: int = 90
    """0 to 100."""

    def __post_init__(self) -> None:
        if self.colour not in COLOUR_ENCODINGS:
            raise UserError(f"colour encoding {self.colour!r}: allowed are {', '.join(COLOUR_ENCODINGS)}")
        if self.depth is not None and self.depth not in DEPTH_ENCODINGS:
            raise UserError(f"depth encoding {self.depth!r}: allowed are {', '.join(DEPTH_ENCODINGS)}")

    @property
    def frame(self) -> str:
        """The optical frame that stamps its messages."""
        return f"{self.topic.strip('/').replace('/', '_')}_optical_frame"


def record(
    path: str | os.PathLike[str],
    world: World,
    act: Callable[[float], None],
    streams: Sequence[CameraStream],
    *,
    seconds: float,
    rate: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes a bag folder (mcap, version 9) of `world` while `act(dt)` moves it; returns the number of ticks.

    `rate` is in ticks per second. `progress(done, total)` is called after each. Raises UserError where `path` exists;
    an interrupted recording leaves nothing behind.
    """
    ticks = round(seconds * rate)
    if ticks < 1:
        raise UserError(f"a recording of {seconds} s at {rate} Hz has no frame: allowed is at least one")
    with _bag(Path(path)) as writer:
        bag = _Recorder(writer, world, streams)
        for tick in range(ticks):
            if tick:
                act(1 / rate)
            bag.write(tick, round((START + tick / rate) * 1e9))
            progress(tick + 1, ticks)
    return ticks


@contextmanager
def _bag(path: Path) -> Iterator[Writer]:
    """A writer whose folder takes the name `path` when the block ends well, and is removed otherwise."""
    if path.exists():
        raise UserError(f"{path} exists already: name a new folder for the recording, or remove this one")
    path.parent.mkdir(parents=True, exist_ok=True)
    workplace = path.parent / f".{path.name}.{os.getpid()}.tmp"
    shutil.rmtree(workplace, ignore_errors=True)
    workplace.mkdir()
    try:
        with Writer(workplace / path.name, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            yield writer
        os.rename(
            workplace / path.name, path
        )  # files in a bag are named after their folder, so it has its name already
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


class _Recorder:
    """Turns the world's present state into messages."""

    def __init__(self, writer: Writer, world: World, streams: Sequence[CameraStream]) -> None:
        self._writer, self._world, self._streams = writer, world, streams
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._store.register(_own_types())
        self._connections: dict[str, Any] = {}
        self._edges = np.argwhere(np.triu(world.adjacency)).astype(np.uint16)
        model = world.model
        movable = (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE))
        self._joints = [j for j in range(model.njnt) if int(model.jnt_type[j]) in movable]
        self._bodies = [b for b in range(1, model.nbody) if model.body(b).name]

    def write(self, tick: int, stamp: int) -> None:
        """All messages of one tick; `stamp` is in nanoseconds."""
        if tick == 0:
            self._static_transforms(stamp)
        self._joint_states(stamp)
        self._transforms(stamp)
        for stream in self._streams:
            if tick % stream.every == 0:
                self._colour(stream, stamp)
            depth = None
            if stream.depth is not None and tick % stream.depth_every == 0:
                depth = self._world.depth(stream.camera)
                self._depth(stream, depth, stamp)
            if tick % stream.every == 0:
                self._truth(stream, depth, stamp)

    # ----------------------------------------------------------------------------------------------------- pictures

    def _colour(self, stream: CameraStream, stamp: int) -> None:
        picture, header = self._world.render(stream.camera), self._header(stamp, stream.frame)
        if stream.colour in ("jpeg", "png"):
            options = [cv2.IMWRITE_JPEG_QUALITY, stream.jpeg_quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
            data = _encode(f".{stream.colour}", picture[..., ::-1], options if stream.colour == "jpeg" else [])
            text = f"rgb8; {stream.colour} compressed bgr8"
            self._compressed(f"{stream.topic}/image_raw/compressed", header, text, data, stamp)
        else:
            picture = picture if stream.colour == "rgb8" else picture[..., ::-1]
            self._image(f"{stream.topic}/image_raw", header, stream.colour, picture, stamp)
        self._camera_info(stream, header, stamp)

    def _depth(self, stream: CameraStream, depth: np.ndarray, stamp: int) -> None:
        header, topic = self._header(stamp, stream.frame), f"{stream.topic}/depth/image_raw"
        millimetres = np.rint(np.nan_to_num(depth * 1000, nan=0)).clip(0, 65535).astype(np.uint16)
        if stream.depth == "png":
            data = _encode(".png", millimetres, [cv2.IMWRITE_PNG_COMPRESSION, 9])
            self._compressed(f"{topic}/compressed", header, "16UC1; png compressed ", data, stamp)
        elif stream.depth == "16UC1":
            self._image(topic, header, "16UC1", millimetres, stamp)
        else:
            self._image(topic, header, "32FC1", depth, stamp)

    def _compressed(self, topic: str, header: Any, text: str, data: np.ndarray, stamp: int) -> None:
        self._send(topic, "sensor_msgs/msg/CompressedImage", stamp, header=header, format=text, data=data)

    def _image(self, topic: str, header: Any, encoding: str, picture: np.ndarray, stamp: int) -> None:
        height, width = picture.shape[:2]
        data = np.ascontiguousarray(picture).view(np.uint8).reshape(-1)
        self._send(
            topic, "sensor_msgs/msg/Image", stamp,
            header=header, height=height, width=width, encoding=encoding, is_bigendian=0,
            step=data.size // height, data=data,
        )  # fmt: skip

    def _camera_info(self, stream: CameraStream, header: Any, stamp: int) -> None:
        view = self._world.camera(stream.camera)
        projection = np.hstack([view.K, np.zeros((3, 1))])
        roi = self._make(
            "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        self._send(
            f"{stream.topic}/camera_info", "sensor_msgs/msg/CameraInfo", stamp,
            header=header, height=view.size[1], width=view.size[0], distortion_model="plumb_bob", d=np.zeros(5),
            k=view.K.ravel(), r=np.eye(3).ravel(), p=projection.ravel(), binning_x=0, binning_y=0, roi=roi,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------------- truth

    def _truth(self, stream: CameraStream, depth: np.ndarray | None, stamp: int) -> None:
        header, topic = self._header(stamp, stream.frame), f"{stream.topic}/ground_truth"
        pixels, points = self._world.project(stream.camera)
        visible = self._world.visible(stream.camera, depth)
        (width, height), keypoints = self._world.size, []
        for index, name in enumerate(self._world.names):
            (u, v), (x, y, z) = pixels[index].tolist(), points[index].astype(float).tolist()
            inside = -0.5 <= u <= width - 0.5 and -0.5 <= v <= height - 0.5  # not so for NaN, behind the camera
            keypoints.append(
                self._make(
                    "keypoint_perception_msgs/msg/Keypoint",
                    id=index, name=name, score=1.0, u=u, v=v, position_stddev=0.0,
                    state=_OBSERVED if visible[index] else _OCCLUDED if inside else _OUT_OF_IMAGE,
                    position=self._make("geometry_msgs/msg/Point", x=x, y=y, z=z),
                )
            )  # fmt: skip
        self._send(
            f"{topic}/keypoints", "keypoint_perception_msgs/msg/KeypointArray", stamp,
            header=header, model_id="ground_truth", image_width=width, image_height=height,
            position_frame_id=stream.frame, keypoints=keypoints,
        )  # fmt: skip
        source, target = self._edges.T
        lengths = np.linalg.norm(points[source] - points[target], axis=1).astype(np.float32)
        self._send(
            f"{topic}/skeleton", "keypoint_perception_msgs/msg/SkeletonGraph", stamp,
            header=header, model_id="ground_truth", edge_source=source, edge_target=target,
            edge_weight=np.ones(len(lengths), np.float32), edge_length=lengths,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------------- robot

    def _joint_states(self, stamp: int) -> None:
        model, data = self._world.model, self._world.data
        at, speed = model.jnt_qposadr[self._joints], model.jnt_dofadr[self._joints]
        self._send(
            "/joint_states", "sensor_msgs/msg/JointState", stamp,
            header=self._header(stamp, ""), name=[model.joint(j).name for j in self._joints],
            position=data.qpos[at], velocity=data.qvel[speed], effort=data.qfrc_actuator[speed],
        )  # fmt: skip

    def _transforms(self, stamp: int) -> None:
        data = self._world.data
        moving = [stream for stream in self._streams if self._is_moving(stream)]
        transforms = [
            self._transform(stamp, self._world.model.body(b).name, data.xpos[b], data.xquat[b]) for b in self._bodies
        ]
        transforms += [self._camera_transform(stamp, stream) for stream in moving]
        self._send("/tf", "tf2_msgs/msg/TFMessage", stamp, transforms=transforms)

    def _static_transforms(self, stamp: int) -> None:
        fixed = [stream for stream in self._streams if not self._is_moving(stream)]
        if fixed:
            transforms = [self._camera_transform(stamp, stream) for stream in fixed]
            self._send("/tf_static", "tf2_msgs/msg/TFMessage", stamp, latched=True, transforms=transforms)

    def _is_moving(self, stream: CameraStream) -> bool:
        model = self._world.model
        index = model.camera(stream.camera).id
        tracks = int(model.cam_mode[index]) != int(mujoco.mjtCamLight.mjCAMLIGHT_FIXED)
        return tracks or int(model.cam_bodyid[index]) > 0

    def _camera_transform(self, stamp: int, stream: CameraStream) -> Any:
        view = self._world.camera(stream.camera)
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, view.rotation.T.ravel())
        return self._transform(stamp, stream.frame, -view.rotation.T @ view.translation, quaternion)

    def _transform(self, stamp: int, child: str, position: np.ndarray, quaternion: np.ndarray) -> Any:
        """`child` in the world; the quaternion is (w, x, y, z)."""
        x, y, z = position.tolist()
        qw, qx, qy, qz = quaternion.tolist()
        transform = self._make(
            "geometry_msgs/msg/Transform",
            translation=self._make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
            rotation=self._make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        )
        return self._make(
            "geometry_msgs/msg/TransformStamped",
            header=self._header(stamp, WORLD_FRAME),
            child_frame_id=child,
            transform=transform,
        )

    # ----------------------------------------------------------------------------------------------------- messages

    def _header(self, stamp: int, frame: str) -> Any:
        time = self._make("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
        return self._make("std_msgs/msg/Header", stamp=time, frame_id=frame)

    def _make(self, kind: str, **fields: Any) -> Any:
        return self._store.types[kind](**fields)

    def _send(self, topic: str, kind: str, stamp: int, *, latched: bool = False, **fields: Any) -> None:
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=[_qos(latched)]
            )
        message = self._store.serialize_cdr(self._make(kind, **fields), kind)
        self._writer.write(self._connections[topic], stamp, message)


def _encode(suffix: str, picture: np.ndarray, options: list[int]) -> np.ndarray:
    done, data = cv2.imencode(suffix, np.ascontiguousarray(picture), options)
    assert done
    return data.reshape(-1)


def _own_types() -> dict[str, Any]:
    """The ground truth's message types, from the definitions that the package installs."""
    types: dict[str, Any] = {}
    for path in sorted(_OWN_MESSAGES.glob("*.msg")):
        types.update(get_types_from_msg(path.read_text(encoding="utf-8"), f"keypoint_perception_msgs/msg/{path.stem}"))
    return types


def _qos(latched: bool) -> Qos:
    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
