"""A simulated world as a rosbag2 that looks like a robot's own, with the ground truth in topics of its own.

For a camera stream with the topic `/table` the bag holds `/table/image_raw` (or `…/compressed`), `/table/camera_info`,
`/table/depth/image_raw` (or `…/compressed`), `/table/ground_truth/keypoints` and `/table/ground_truth/skeleton`; beside
them `/joint_states`, `/tf` and `/tf_static`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from keypoint_perception.bags import KEYPOINT_ARRAY
from keypoint_perception.errors import UserError
from keypoint_perception.smoothing import State
from training.simulation.bag import TRUE_KEYPOINTS, TRUE_SKELETON, Bag, new_bag
from training.simulation.scene import World, mujoco

COLOUR_ENCODINGS = ("jpeg", "png", "rgb8", "bgr8")
"""The first two are written as CompressedImage."""
DEPTH_ENCODINGS = ("png", "16UC1", "32FC1")
"""`png` and 16UC1 are millimetres, 0 for unknown, the former as CompressedImage; 32FC1 is metres, NaN for unknown."""
START = 1_767_225_600
"""Stamp of the first picture, seconds since 1970. Constant, so that the same seed gives the same bag."""
WORLD_FRAME = "world"


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
    """1 to 100."""

    def __post_init__(self) -> None:
        if self.colour not in COLOUR_ENCODINGS:
            raise UserError(f"colour encoding {self.colour!r}: allowed are {', '.join(COLOUR_ENCODINGS)}")
        if self.depth is not None and self.depth not in DEPTH_ENCODINGS:
            raise UserError(f"depth encoding {self.depth!r}: allowed are {', '.join(DEPTH_ENCODINGS)}")
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(f"jpeg quality {self.jpeg_quality}: allowed are 1 to 100")

    @property
    def frame(self) -> str:
        """The optical frame that stamps its messages."""
        return f"{self.topic.strip('/').replace('/', '_')}_optical_frame"


def choose_streams(
    streams: Sequence[CameraStream],
    *,
    cameras: Sequence[str] = (),
    colour: str | None = None,
    depth: str | None = None,
    jpeg_quality: int | None = None,
) -> tuple[CameraStream, ...]:
    """`streams` of the named cameras (none named: all), changed as far as values are given; `depth` may be "none".

    Raises UserError for a camera or an encoding that is not there.
    """
    known = [stream.camera for stream in streams]
    for camera in cameras:
        if camera not in known:
            raise UserError(f"no camera {camera!r}: allowed are {', '.join(known)}")
    changes: dict[str, Any] = {"colour": colour, "jpeg_quality": jpeg_quality, "depth": depth}
    changes = {field: value for field, value in changes.items() if value is not None}
    if depth == "none":
        changes["depth"] = None
    return tuple(replace(stream, **changes) for stream in streams if not cameras or stream.camera in cameras)


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
    """Writes a bag folder of `world` while `act(dt)` moves it; returns the number of ticks.

    `rate` is in ticks per second. `progress(done, total)` is called after each. Raises UserError where `path` exists;
    an interrupted recording leaves nothing behind.
    """
    ticks = round(seconds * rate) if 0 < seconds < math.inf and 0 < rate < math.inf else 0
    if ticks < 1:
        raise UserError(f"a recording of {seconds} s at {rate} Hz has no frame: allowed is at least one")
    with new_bag(path) as bag:
        recorder = _Recorder(bag, world, streams)
        for tick in range(ticks):
            if tick:
                act(1 / rate)
            recorder.write(tick, START * 10**9 + round(tick / rate * 1e9))
            progress(tick + 1, ticks)
    return ticks


class _Recorder:
    """Turns the world's present state into messages."""

    def __init__(self, bag: Bag, world: World, streams: Sequence[CameraStream]) -> None:
        self._bag, self._world, self._streams = bag, world, streams
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
        picture, header = self._world.render(stream.camera), self._bag.header(stamp, stream.frame)
        if stream.colour in ("jpeg", "png"):
            options = [cv2.IMWRITE_JPEG_QUALITY, stream.jpeg_quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
            data = _encode(f".{stream.colour}", picture[..., ::-1], options if stream.colour == "jpeg" else [])
            text = f"rgb8; {stream.colour} compressed bgr8"
            self._bag.send_compressed(f"{stream.topic}/image_raw/compressed", header, text, data, stamp)
        else:
            picture = picture if stream.colour == "rgb8" else picture[..., ::-1]
            self._bag.send_image(f"{stream.topic}/image_raw", header, stream.colour, picture, stamp)
        self._camera_info(stream, header, stamp)

    def _depth(self, stream: CameraStream, depth: np.ndarray, stamp: int) -> None:
        header, topic = self._bag.header(stamp, stream.frame), f"{stream.topic}/depth/image_raw"
        millimetres = np.rint(np.nan_to_num(depth * 1000, nan=0)).clip(0, 65535).astype(np.uint16)
        if stream.depth == "png":
            data = _encode(".png", millimetres, [cv2.IMWRITE_PNG_COMPRESSION, 9])
            self._bag.send_compressed(f"{topic}/compressed", header, "16UC1; png compressed ", data, stamp)
        elif stream.depth == "16UC1":
            self._bag.send_image(topic, header, "16UC1", millimetres, stamp)
        else:
            self._bag.send_image(topic, header, "32FC1", depth, stamp)

    def _camera_info(self, stream: CameraStream, header: Any, stamp: int) -> None:
        view = self._world.camera(stream.camera).intrinsics
        projection = np.hstack([view.matrix, np.zeros((3, 1))])
        self._bag.send(
            f"{stream.topic}/camera_info", "sensor_msgs/msg/CameraInfo", stamp,
            header=header, height=view.size[1], width=view.size[0], distortion_model="plumb_bob", d=np.zeros(5),
            k=view.matrix.ravel(), r=np.eye(3).ravel(), p=projection.ravel(),
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------------- truth

    def _truth(self, stream: CameraStream, depth: np.ndarray | None, stamp: int) -> None:
        header = self._bag.header(stamp, stream.frame)
        pixels, points = self._world.project(stream.camera)
        visible = self._world.visible(stream.camera, depth, (pixels, points))
        (width, height), keypoints = self._world.size, []
        for index, name in enumerate(self._world.names):
            (u, v), (x, y, z) = pixels[index].tolist(), points[index].astype(float).tolist()
            inside = -0.5 <= u <= width - 0.5 and -0.5 <= v <= height - 0.5  # not so for NaN, behind the camera
            keypoints.append(
                self._bag.make(
                    "keypoint_perception_msgs/msg/Keypoint",
                    id=index, name=name, score=1.0, u=u, v=v, position_stddev=0.0,
                    state=State.OBSERVED if visible[index] else State.OCCLUDED if inside else State.OUT_OF_IMAGE,
                    position=self._bag.make("geometry_msgs/msg/Point", x=x, y=y, z=z),
                )
            )  # fmt: skip
        self._bag.send(
            stream.topic + TRUE_KEYPOINTS, KEYPOINT_ARRAY, stamp,
            header=header, model_id="ground_truth", image_width=width, image_height=height,
            position_frame_id=stream.frame, keypoints=keypoints,
        )  # fmt: skip
        source, target = self._edges.T
        lengths = np.linalg.norm(points[source] - points[target], axis=1).astype(np.float32)
        self._bag.send(
            stream.topic + TRUE_SKELETON, "keypoint_perception_msgs/msg/SkeletonGraph", stamp,
            header=header, model_id="ground_truth", edge_source=source, edge_target=target,
            edge_weight=np.ones(len(lengths), np.float32), edge_length=lengths,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------------- robot

    def _joint_states(self, stamp: int) -> None:
        model, data = self._world.model, self._world.data
        at, speed = model.jnt_qposadr[self._joints], model.jnt_dofadr[self._joints]
        self._bag.send(
            "/joint_states", "sensor_msgs/msg/JointState", stamp,
            header=self._bag.header(stamp, ""), name=[model.joint(j).name for j in self._joints],
            position=data.qpos[at], velocity=data.qvel[speed], effort=data.qfrc_actuator[speed],
        )  # fmt: skip

    def _transforms(self, stamp: int) -> None:
        data = self._world.data
        moving = [stream for stream in self._streams if self._world.is_moving(stream.camera)]
        transforms = [
            self._transform(stamp, self._world.model.body(b).name, data.xpos[b], data.xquat[b]) for b in self._bodies
        ]
        transforms += [self._camera_transform(stamp, stream) for stream in moving]
        self._bag.send("/tf", "tf2_msgs/msg/TFMessage", stamp, transforms=transforms)

    def _static_transforms(self, stamp: int) -> None:
        fixed = [stream for stream in self._streams if not self._world.is_moving(stream.camera)]
        if fixed:
            transforms = [self._camera_transform(stamp, stream) for stream in fixed]
            self._bag.send("/tf_static", "tf2_msgs/msg/TFMessage", stamp, latched=True, transforms=transforms)

    def _camera_transform(self, stamp: int, stream: CameraStream) -> Any:
        view = self._world.camera(stream.camera)
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, view.rotation.T.ravel())
        return self._transform(stamp, stream.frame, -view.rotation.T @ view.translation, quaternion)

    def _transform(self, stamp: int, child: str, position: np.ndarray, quaternion: np.ndarray) -> Any:
        """`child` in the world; the quaternion is (w, x, y, z)."""
        x, y, z = position.tolist()
        qw, qx, qy, qz = quaternion.tolist()
        transform = self._bag.make(
            "geometry_msgs/msg/Transform",
            translation=self._bag.make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
            rotation=self._bag.make("geometry_msgs/msg/Quaternion", x=qx, y=qy, z=qz, w=qw),
        )
        return self._bag.make(
            "geometry_msgs/msg/TransformStamped",
            header=self._bag.header(stamp, WORLD_FRAME),
            child_frame_id=child,
            transform=transform,
        )


def _encode(suffix: str, picture: np.ndarray, options: list[int]) -> np.ndarray:
    """The encoded file, (N,) uint8."""
    done, data = cv2.imencode(suffix, np.ascontiguousarray(picture), options)
    assert done
    return data.reshape(-1)
