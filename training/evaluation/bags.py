"""Simulated bags as labelled videos: pictures, true keypoints and, where there is some, depth."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_perception.bags import open_bag
from keypoint_perception.errors import UserError
from keypoint_perception.images import image_to_depth, image_to_rgb
from keypoint_perception.lifting import Intrinsics
from keypoint_perception.observation import adjacency_of
from keypoint_perception.picture_topics import encodings_in, picture_topics, topics_of
from keypoint_perception.smoothing import State
from training.evaluation.videos import Depth, LabelledVideo
from training.simulation.bag import TRUE_KEYPOINTS, TRUE_SKELETON

Stamp = tuple[int, int]


class _Camera:
    """What a bag holds of one camera, by stamp."""

    def __init__(self, image_topic: str, truth_topic: str) -> None:
        namespace = truth_topic.removesuffix(TRUE_KEYPOINTS)
        self.topics = {image_topic: self._image, truth_topic: self._truth, namespace + TRUE_SKELETON: self._skeleton}
        self.topics |= {f"{namespace}/depth/image_raw{form}": self._depth for form in ("", "/compressed")}
        self.topics[f"{namespace}/camera_info"] = self._info
        self.frames: dict[Stamp, np.ndarray] = {}
        self.truths: dict[Stamp, Any] = {}
        self.depths: dict[Stamp, np.ndarray] = {}
        self.edges: np.ndarray = np.empty((0, 2), int)
        self.intrinsics: Intrinsics | None = None

    def take(self, topic: str, message: Any) -> None:
        """A message of one of `topics`."""
        self.topics[topic]((message.header.stamp.sec, message.header.stamp.nanosec), message)

    def _image(self, stamp: Stamp, message: Any) -> None:
        self.frames[stamp] = image_to_rgb(message)

    def _truth(self, stamp: Stamp, message: Any) -> None:
        self.truths[stamp] = message.keypoints

    def _skeleton(self, stamp: Stamp, message: Any) -> None:
        self.edges = np.column_stack((message.edge_source, message.edge_target)).astype(int)

    def _depth(self, stamp: Stamp, message: Any) -> None:
        self.depths[stamp] = image_to_depth(message)

    def _info(self, stamp: Stamp, message: Any) -> None:
        self.intrinsics = self.intrinsics or Intrinsics.from_camera_info(message)


def read_bag(path: Path, topic: str = "") -> LabelledVideo:
    """The frames of one camera for which the bag has the true keypoints, `<camera>/ground_truth/keypoints`.

    topic: of the images; may be left out where only one camera has true keypoints. Raises UserError where nothing fits.
    """
    with open_bag(path) as reader:
        cameras = {
            c.topic.removesuffix(TRUE_KEYPOINTS): c.topic
            for c in reader.connections
            if c.topic.endswith(TRUE_KEYPOINTS)
        }
        pictures = picture_topics(topics_of(reader), partial(encodings_in, reader))
        labelled = {i: truth for i in pictures for camera, truth in cameras.items() if i.startswith(f"{camera}/")}
        if not cameras:
            raise UserError(f"{path} has no true keypoints: give a bag of `python -m training simulate`")
        if not labelled:
            raise UserError(f"{path} has true keypoints of {', '.join(cameras)} and no pictures of it: record both")
        if topic not in labelled and (topic or len(labelled) != 1):
            raise UserError(f"{path} has true keypoints for {', '.join(labelled)}: choose with --topic")
        topic = topic or next(iter(labelled))
        camera = _Camera(topic, labelled[topic])
        for connection, _, raw in reader.messages([c for c in reader.connections if c.topic in camera.topics]):
            camera.take(connection.topic, reader.deserialize(raw, connection.msgtype))
    stamps = sorted(set(camera.frames) & set(camera.truths))
    if not stamps:
        raise UserError(f"{path} has no image on {topic} with the stamp of a true pose: record it again")
    return _video(path.name, topic, stamps, camera)


def _video(name: str, topic: str, stamps: list[Stamp], camera: _Camera) -> LabelledVideo:
    truths = [camera.truths[stamp] for stamp in stamps]
    depth = None
    if camera.intrinsics is not None and camera.depths:
        images = {frame: camera.depths[stamp] for frame, stamp in enumerate(stamps) if stamp in camera.depths}
        positions = np.array([[(k.position.x, k.position.y, k.position.z) for k in truth] for truth in truths])
        depth = Depth(images, camera.intrinsics, positions)
    return LabelledVideo(
        name=name,
        variant=topic,
        frames=np.stack([camera.frames[stamp] for stamp in stamps]),
        joints=np.array([[(k.u, k.v) for k in truth] for truth in truths]),
        visible=np.array([[k.state == State.OBSERVED for k in truth] for truth in truths]),
        adjacency=adjacency_of(camera.edges, len(truths[0])),
        mask=None,
        names=tuple(k.name for k in truths[0]),
        depth=depth,
    )
