"""Labelled videos, from wherever they come: what every measure is taken on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from keypoint_perception.bags import IMAGE_TYPES, open_bag
from keypoint_perception.errors import UserError
from keypoint_perception.geometry import rescale_pixels, resize
from keypoint_perception.images import image_to_rgb
from training.simulation.episode import read_episode

TRUTH, SKELETON = "/ground_truth/keypoints", "/ground_truth/skeleton"
OBSERVED = 1
"""keypoint_perception_msgs/msg/Keypoint.OBSERVED"""


class LabelledVideo(NamedTuple):
    """T frames of one object with its N true joints."""

    name: str
    variant: str
    """Videos of one variant have the same joints in the same order."""
    frames: np.ndarray
    """(T, H, W, 3) uint8 RGB."""
    joints: np.ndarray
    """(T, N, 2) pixels; NaN where a joint is not annotated."""
    visible: np.ndarray
    """(T, N) bool."""
    adjacency: np.ndarray
    """(N, N) bool."""
    mask: np.ndarray | None
    """(T, H, W) bool, where the object is; None where nobody knows."""
    ordered: bool = True
    """Whether the frames follow one another in time."""


def read_labelled(path: Path, topic: str = "") -> Iterator[LabelledVideo]:
    """The labelled videos of a path: simulated episodes, one or several simulated bags, a COCO keypoints file (.json).

    topic: the image topic of bags; may be left out where only one camera has ground truth. A folder of bags is one
    video a bag.
    Raises UserError that says what the path is and what is allowed.
    """
    if path.is_file() and path.suffix == ".json":
        yield _read_coco(path)
        return
    if (path / "metadata.yaml").is_file():
        yield _read_bag(path, topic)
        return
    bags = sorted(file.parent for file in path.glob("*/metadata.yaml")) if path.is_dir() else []
    if bags:
        yield from (_read_bag(bag, topic) for bag in bags if not bag.name.startswith("."))
        return
    episodes = sorted(path.glob("episode_*.npz")) if path.is_dir() else []
    if not episodes:
        raise UserError(
            f"{path} has no labels that can be measured against: give what `python -m training simulate SCENE -o DIR` "
            "wrote, or a COCO keypoints .json beside its images"
        )
    for file in episodes:
        episode = read_episode(file)
        yield LabelledVideo(
            name=file.stem,
            variant=episode.variant,
            frames=episode.frames,
            joints=episode.keypoints,
            visible=episode.visible,
            adjacency=episode.adjacency,
            mask=episode.mask,
        )


def resized(video: LabelledVideo, size: tuple[int, int]) -> LabelledVideo:
    """The same video with frames of `size` (width, height)."""
    height, width = video.frames.shape[1:3]
    if (width, height) == size:
        return video
    frames = np.stack([resize(frame, size) for frame in video.frames])
    mask = video.mask
    if mask is not None:
        mask = np.stack([resize(m.astype(np.uint8) * 255, size) > 127 for m in mask])
    return video._replace(frames=frames, joints=rescale_pixels(video.joints, (width, height), size), mask=mask)


def _read_bag(path: Path, topic: str) -> LabelledVideo:
    """The frames of one camera for which the bag has the true keypoints, `<camera>/ground_truth/keypoints`."""
    with open_bag(path) as reader:
        cameras = {c.topic.removesuffix(TRUTH): c.topic for c in reader.connections if c.topic.endswith(TRUTH)}
        images = sorted({c.topic for c in reader.connections if c.msgtype in IMAGE_TYPES and "depth" not in c.topic})
        labelled = {image: truth for image in images for camera, truth in cameras.items() if image.startswith(camera)}
        if topic not in labelled and (topic or len(labelled) != 1):
            raise UserError(
                f"{path} has true keypoints for {', '.join(labelled) or 'no image topic'}: choose with --topic"
            )
        topic = topic or next(iter(labelled))
        frames, truths, edges = {}, {}, np.empty((0, 2), int)
        wanted = {topic, labelled[topic], labelled[topic].replace(TRUTH, SKELETON)}
        for connection, _, raw in reader.messages([c for c in reader.connections if c.topic in wanted]):
            message = reader.deserialize(raw, connection.msgtype)
            stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
            if connection.topic == topic:
                frames[stamp] = image_to_rgb(message)
            elif connection.topic == labelled[topic]:
                truths[stamp] = message.keypoints
            else:
                edges = np.column_stack((message.edge_source, message.edge_target)).astype(int)
    stamps = sorted(set(frames) & set(truths))
    if not stamps:
        raise UserError(f"{path} has no image on {topic} with the stamp of a true pose: record it again")
    joints = np.array([[(k.u, k.v) for k in truths[stamp]] for stamp in stamps])
    visible = np.array([[k.state == OBSERVED for k in truths[stamp]] for stamp in stamps])
    pictures = np.stack([frames[stamp] for stamp in stamps])
    return LabelledVideo(path.name, topic, pictures, joints, visible, _adjacency(edges, joints.shape[1]), None)


def _adjacency(edges: np.ndarray, count: int) -> np.ndarray:
    adjacency = np.zeros((count, count), bool)
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = True
    return adjacency


def _read_coco(path: Path) -> LabelledVideo:
    """All annotations of one COCO keypoints file, cropped to nothing: whole images, one object each."""
    try:
        content = json.loads(path.read_text())
        category = content["categories"][0]
        files = {image["id"]: image["file_name"] for image in content["images"]}
        annotations = sorted(content["annotations"], key=lambda a: files[a["image_id"]])
        count = len(category["keypoints"])
        values = np.array([a["keypoints"] for a in annotations], dtype=np.float64).reshape(-1, count, 3)
        edges = np.array(category.get("skeleton", []), dtype=int).reshape(-1, 2) - 1
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"{path} is not a COCO keypoints file ({type(error).__name__}: {error}): it needs images, annotations with "
            "3 N numbers in `keypoints`, and one category with names in `keypoints`"
        ) from None
    frames = [_read_image(path.parent / files[a["image_id"]]) for a in annotations]
    if len({frame.shape for frame in frames}) > 1:
        raise UserError(f"the images of {path} have different sizes: resize them and their keypoints to one size")
    labelled = values[..., 2] > 0
    joints = np.where(labelled[..., None], values[..., :2], np.nan)
    return LabelledVideo(
        path.stem, category["name"], np.stack(frames), joints, labelled, _adjacency(edges, count), None, ordered=False
    )


def _read_image(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path} cannot be read as an image: it must stand beside the .json that names it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
