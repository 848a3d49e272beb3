"""Which topics of a recording are pictures, by what the first message of each says."""

from __future__ import annotations

import pytest

from keypoint_perception.errors import UserError
from keypoint_perception.picture_topics import only_picture_topic, picture_topics

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"


@pytest.mark.parametrize(
    ("encodings", "pictures"),
    [
        ({"/camera": ["rgb8"], "/camera/depth": ["16UC1"]}, ["/camera"]),
        ({"/camera": ["rgb8"], "/camera/depth": ["mono16"]}, ["/camera"]),
        ({"/depth_cam": ["rgb8"]}, ["/depth_cam"]),
        ({"/left": ["rgb8"], "/right": ["bgr8"]}, ["/left", "/right"]),
        ({"/camera": ["rgb8"], "/damaged": [None]}, ["/camera"]),
        ({"/damaged": [None], "/depth": ["16UC1"]}, ["/damaged"]),
        ({"/camera": ["rgb8"], "/silent": []}, ["/camera"]),
        ({"/camera": ["rgb8"], "/of_unknown_format": [""]}, ["/camera", "/of_unknown_format"]),
        ({"/camera": [None, "rgb8"], "/depth": [None, "16UC1"]}, ["/camera"]),
        ({"/detector/overlay": ["rgb8"], "/camera": ["rgb8"]}, ["/camera"]),
        ({"/depth": ["32FC1"]}, []),
    ],
)
def test_pictures_are_told_from_depth_overlays_and_what_cannot_be_read(
    encodings: dict[str, list[str | None]], pictures: list[str]
) -> None:
    topics = [(name, RAW) for name in encodings]
    topics += [("/detector/keypoints", "keypoint_perception_msgs/msg/KeypointArray"), ("/tf", "tf2_msgs/msg/TFMessage")]
    assert picture_topics(topics, encodings.__getitem__) == pictures


def test_one_topic_with_images_of_both_types_is_one() -> None:
    topics = [("/camera", RAW), ("/camera", COMPRESSED)]
    assert only_picture_topic("bag", topics, lambda topic: ["rgb8"]) == "/camera"


@pytest.mark.parametrize(
    ("encodings", "said"),
    [
        ({"/left": ["rgb8"], "/right": ["bgr8"]}, "bag has several image topics: /left, /right: choose with --topic"),
        ({"/depth": ["32FC1"]}, "bag has no image topic with pictures .*/depth: depth"),
        ({}, "bag has no image topic with pictures .it has none at all"),
    ],
)
def test_none_and_several_are_told(encodings: dict[str, list[str | None]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        only_picture_topic("bag", [(name, RAW) for name in encodings], encodings.__getitem__)
