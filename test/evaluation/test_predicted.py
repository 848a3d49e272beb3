"""A body that is followed over a labelled video, as the node follows it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from keypoint_perception.geometry import normalised_to_pixels, pixels_to_normalised
from keypoint_perception.model import ModelInfo
from keypoint_perception.observation import Observation
from keypoint_perception.steady_skeleton import SteadySkeleton
from training.evaluation.predicted import predict
from training.evaluation.videos import LabelledVideo

SIZE = (128, 48)
COUNT = 6
INFO = ModelInfo("m", "npt", SIZE, tuple(f"k{k}" for k in range(COUNT)), None, (-1,) * COUNT, (0,) * COUNT)


def turning_arm(frames=12):
    """(T, 6, 2) pixels of two links, three points on each, which turn half around and hardly bend.

    Lengths along x and y that are in different units would tell of a hinge, see below.
    """
    turn = np.linspace(0, np.pi, frames)
    upper, lower = (np.stack((np.cos(a), np.sin(a)), axis=-1)[:, None] for a in (turn, turn * (1 + 0.3 / np.pi)))
    along, hinge = np.array([0, 7, 14])[None, :, None], np.array([64, 24])
    return np.concatenate((hinge + (along - 14) * upper, hinge + (along + 3.5) * lower), axis=1)


def linked(pixels):
    """(T, K, K) in which each point is linked to the next."""
    chain = np.eye(COUNT, k=1) + np.eye(COUNT, k=-1)
    return np.broadcast_to(chain.astype(np.float32), (len(pixels), COUNT, COUNT))


def predicted(pixels, info=INFO):
    """A video whose points are in `pixels` as a model says it that links each to the next, and its outputs."""
    outputs = {
        "keypoints": pixels_to_normalised(pixels, SIZE).astype(np.float32),
        "scores": np.ones(pixels.shape[:2], np.float32),
        "adjacency": linked(pixels),
    }
    frames = np.zeros((len(pixels), SIZE[1], SIZE[0], 3), np.uint8)
    joints, visible = pixels[:, ::3], np.ones((len(pixels), 2), bool)
    video = LabelledVideo("arm", "arm", frames, joints, visible, np.zeros((2, 2), bool), None)
    backend = SimpleNamespace(run=lambda inputs: outputs.copy())
    last_frame = SimpleNamespace(integers=lambda count: count - 1)
    return predict(backend, SimpleNamespace(info=info), video, last_frame), outputs


def test_a_model_with_one_graph_is_not_followed_and_its_number_of_joints_is_fixed():
    unlinked = replace(INFO, method="imm", adjacency=((0.0,) * COUNT,) * COUNT)
    found, _ = predicted(turning_arm(), unlinked)
    assert found.one_graph and found.single is None and not found.adjacency.any()


def test_the_skeleton_is_the_node_s_also_where_images_are_no_squares():
    pixels = turning_arm()
    found, outputs = predicted(pixels)
    assert not found.one_graph
    node = SteadySkeleton([], max_gap=1)
    for time, points in enumerate(pixels.astype(np.float32)):
        seen = node(Observation(points, outputs["scores"][time], outputs["adjacency"][time], image_size=SIZE), time)
    np.testing.assert_array_equal(found.adjacency, seen.adjacency)
    np.testing.assert_allclose(normalised_to_pixels(found.points, SIZE), pixels, atol=1e-3)
    np.testing.assert_array_equal(found.single.adjacency, outputs["adjacency"][-1])
