"""Classes of motion, and whether a small network can tell them."""

import numpy as np
import pytest
from predictions import video

from training.evaluation.motion import CLASSES, CLIP_FRAMES, motion_class, motion_recognition


@pytest.mark.parametrize(
    ("step", "name"),
    [((0.3, 0.1), "right"), ((-0.3, 0.1), "left"), ((0.1, 0.3), "down"), ((0.1, -0.3), "up"), ((0.03, 0.0), "rest")],
)
def test_the_joint_that_goes_farthest_names_the_class(step, name):
    clip = np.zeros((CLIP_FRAMES, 2, 2))
    clip[:, 1] = np.linspace((0, 0), step, CLIP_FRAMES)
    clip[:, 0] = np.linspace((0, 0), (0.0, 0.02), CLIP_FRAMES)
    assert CLASSES[motion_class(clip)] == name


def wandering(seed, sees=True):
    """A joint that takes a new straight way every ten frames, and a keypoint on it or somewhere."""
    rng = np.random.default_rng(seed)
    steps = np.repeat(rng.uniform(-0.06, 0.06, (12, 1, 2)), CLIP_FRAMES, axis=0)
    joint = 0.2 * rng.normal(size=(1, 2)) + np.cumsum(steps, axis=0)
    return video(joint if sees else rng.uniform(-1, 1, joint.shape), joint, name=f"video{seed}")


def test_keypoints_on_the_object_tell_its_motion_and_others_do_not():
    figures = motion_recognition([wandering(seed) for seed in range(6)])
    assert figures["accuracy"] == figures["true_joints"] > 0.75 > figures["chance"]
    assert motion_recognition([wandering(seed, sees=False) for seed in range(6)])["accuracy"] < 0.6


def test_single_pictures_have_no_motion():
    pictures = wandering(0)
    stills = video(pictures.points, pictures.joints, ordered=False)
    assert motion_recognition([stills]) == {"accuracy": None, "chance": None, "true_joints": None}


def test_bodies_of_different_joints_are_told_apart_by_padding():
    more = [wandering(seed) for seed in range(4)]
    other = [video(v.points, np.repeat(v.joints, 3, axis=1), variant="other", name=v.video.name) for v in more]
    assert motion_recognition([*more, *other])["true_joints"] > 0.6
