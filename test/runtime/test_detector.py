"""The detector against images whose keypoints are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from colour_model import CHAIN, spots_image, write_colour_model

from keypoint_perception.detector import Detector
from keypoint_perception.errors import UserError


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return Detector(write_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx"))


def test_keypoints_are_in_pixels_of_the_camera_image(detector: Detector) -> None:
    centres = {"red": (40, 50), "green": (150, 90), "blue": (100, 20)}
    (found,) = detector.detect([spots_image((192, 128), centres)])
    np.testing.assert_allclose(found.keypoints, list(centres.values()), atol=0.51)
    np.testing.assert_allclose(found.scores, 1, atol=0.01)
    np.testing.assert_allclose(found.adjacency, CHAIN)
    assert found.image_size == (192, 128)
    assert found.edges().tolist() == [[0, 1], [1, 2]]


def test_at_the_input_size_the_centre_is_exact(detector: Detector) -> None:
    (found,) = detector.detect([spots_image((96, 64), {"red": (30, 20), "blue": (70, 50)})])
    np.testing.assert_allclose(found.keypoints[[0, 2]], [(30, 20), (70, 50)], atol=1e-3)
    assert found.scores[1] == 0
    assert len(found.keypoints) == 3  # what is not seen is kept, with its score


def test_a_batch_of_sizes_gives_what_each_image_gives_alone(detector: Detector) -> None:
    images = [
        spots_image((96, 64), {"red": (10, 10), "green": (60, 40)}),
        spots_image((320, 240), {"red": (200, 100), "green": (60, 40)}),
        spots_image((50, 40), {"blue": (20, 10)}),
    ]
    for together, image in zip(detector.detect(images), images, strict=True):
        (alone,) = detector.detect([image])
        np.testing.assert_allclose(together.keypoints, alone.keypoints, atol=1e-3)
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-6)


def test_a_predicted_skeleton_is_that_of_the_image(tmp_path) -> None:
    detector = Detector(write_colour_model(tmp_path / "dynamic.onnx", dynamic_adjacency=True))
    with_two, with_three = detector.detect(
        [
            spots_image((96, 64), {"red": (10, 10), "green": (60, 40)}),
            spots_image((96, 64), {"red": (10, 10), "green": (60, 40), "blue": (80, 10)}),
        ]
    )
    assert with_two.edges().tolist() == [[0, 1]]
    assert with_three.edges().tolist() == [[0, 1], [0, 2], [1, 2]]


@pytest.mark.parametrize("shape", [(0, 0, 3), (10, 0, 3), (10, 10), (10, 10, 4)])
def test_an_image_that_is_none_is_refused(detector: Detector, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="shape"):
        detector.detect([np.zeros(shape, np.uint8)])


def test_no_images_no_observations(detector: Detector) -> None:
    assert detector.detect([]) == []


def test_a_missing_model_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.onnx is not there"):
        Detector("nowhere.onnx")
