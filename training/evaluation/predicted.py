"""What a model says about labelled videos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from keypoint_perception.backends import Backend
from keypoint_perception.geometry import Viewport, normalised_to_pixels, pixels_to_normalised
from keypoint_perception.link_colours import LinkColours
from keypoint_perception.model import Alike, Model
from keypoint_perception.observation import EDGE_THRESHOLD, Observation
from keypoint_perception.tracking import body_tracker
from training.evaluation.videos import LabelledVideo

BATCH = 64


class SingleImages(NamedTuple):
    """What a model says of each image of a video alone, before the body is followed over them."""

    points: np.ndarray
    """(T, K, 2)."""
    adjacency: np.ndarray
    """(K, K) of the frame that stands for the video."""


@dataclass(frozen=True)
class PredictedVideo:
    """A labelled video, and a model's answer. Coordinates are normalised, in [-1, 1], unless something else is said."""

    video: LabelledVideo
    """Without its frames."""
    points: np.ndarray
    """(T, K, 2)."""
    linked: np.ndarray
    """(T, K) bool, which keypoints have an edge in a frame."""
    adjacency: np.ndarray
    """(K, K) of one frame, which stands for the whole video."""
    joints: np.ndarray
    """(T, N, 2) true joints."""
    size: tuple[int, int]
    """(width, height) of the video's frames, pixels."""
    viewport: Viewport
    """The part of the frames in which coordinates are normalised."""
    alike: Alike = ()
    """Limbs whose numbers the model may change between images; here they keep them over the video."""
    parent: tuple[int, ...] = ()
    """(K,) of the model, where it has such limbs."""
    either_end: bool = False
    """Whether the keypoints are one chain that may begin at either end in a video."""
    one_graph: bool = False
    """Whether the model has one graph for all images, and so a number of joints that is fixed."""
    single: SingleImages | None = None
    """None where the body is not followed, and the rest says the same."""

    @classmethod
    def of(
        cls, video: LabelledVideo, points: np.ndarray, linked: np.ndarray, adjacency: np.ndarray, viewport: Viewport
    ) -> PredictedVideo:
        """From keypoints that are normalised in `viewport`. The frames are let go: they may be gigabytes."""
        height, width = video.frames.shape[1:3]
        joints = viewport.to_normalised(video.joints)
        video = video._replace(frames=video.frames[:0].copy())
        return cls(video, points, linked, adjacency, joints, (width, height), viewport)

    def only(self, keypoints: np.ndarray) -> PredictedVideo:
        """With those of the keypoints alone, by their numbers; of a model with one graph for all images."""
        points, linked = self.points[:, keypoints], self.linked[:, keypoints]
        return replace(
            self, points=points, linked=linked, adjacency=self.adjacency[np.ix_(keypoints, keypoints)], parent=()
        )


def run_batches(backend: Backend, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """A model's outputs for any number of images (T, H, W, 3)."""
    outputs = [backend.run(inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)]
    return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}


def predict(backend: Backend, model: Model, video: LabelledVideo, rng: np.random.Generator) -> PredictedVideo:
    """Runs a model over a video; `rng` draws the frame whose skeleton counts.

    A body whose joints the model says for each image is followed from frame to frame, as in the node.
    """
    info, (height, width) = model.info, video.frames.shape[1:3]
    viewport = Viewport.of((width, height), info.input_size, info.roi)
    views = np.stack([viewport.view(frame) for frame in video.frames])
    outputs = run_batches(backend, views)
    frame = int(rng.integers(len(video.frames)))
    if info.adjacency is not None:
        outputs["adjacency"] = np.broadcast_to(info.adjacency, outputs["scores"].shape + outputs["scores"].shape[1:])
    single, one_graph = None, info.adjacency is not None
    if video.ordered and not one_graph:
        single = SingleImages(outputs["keypoints"], outputs["adjacency"][frame])
        outputs = _followed(outputs, views, model)
    adjacency = outputs["adjacency"]
    linked = adjacency.max(axis=-1) >= EDGE_THRESHOLD
    found = PredictedVideo.of(video, outputs["keypoints"], linked, adjacency[frame], viewport)
    return replace(
        found, alike=info.alike, parent=info.parent, either_end=info.either_end, one_graph=one_graph, single=single
    )


def _followed(outputs: dict[str, np.ndarray], views: np.ndarray, model: Model) -> dict[str, np.ndarray]:
    """A model's outputs for the frames of a video, seen as `views`, as of one body; keypoints are normalised.

    It is followed in pixels, as in the node: a rigid body that turns keeps its lengths in them.
    """
    tracker, colours = body_tracker(model.info, max_gap=np.inf), LinkColours(model.info)
    size = (views.shape[2], views.shape[1])
    pixels = normalised_to_pixels(outputs["keypoints"], size).astype(np.float32)
    followed = []
    for time, view in enumerate(views):
        keypoints, scores, adjacency = (outputs[name][time] for name in ("keypoints", "scores", "adjacency"))
        colour = colours(view, keypoints)
        seen = Observation(pixels[time], scores, adjacency, image_size=size, colours=colour)
        followed.append(tracker(seen, time))
    found = {name: np.stack([getattr(seen, name) for seen in followed]) for name in outputs}
    return found | {"keypoints": pixels_to_normalised(found["keypoints"], size)}


def predict_whole(backend: Backend, video: LabelledVideo) -> PredictedVideo:
    """Runs a network that takes the video's frames as they are, and has no skeleton."""
    outputs = run_batches(backend, video.frames)
    height, width = video.frames.shape[1:3]
    viewport = Viewport.of((width, height), (width, height))
    points = outputs["keypoints"]
    frames, count = points.shape[:2]
    return PredictedVideo.of(video, points, np.zeros((frames, count), bool), np.zeros((count, count)), viewport)
