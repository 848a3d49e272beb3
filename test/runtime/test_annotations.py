"""Foxglove annotations, with its message definitions as they are published."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.typesys import get_types_from_msg

from keypoint_perception.bags import BagMessages, message_store
from keypoint_perception.drawing import Style, palette
from keypoint_perception.observation import Observation
from keypoint_perception.ros.annotations import LINE_LIST, TYPE, image_annotations

DEFINITIONS = {
    "Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a",
    "Point2": "float64 x\nfloat64 y",
    "CircleAnnotation": "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nfloat64 diameter\n"
    "float64 thickness\nfoxglove_msgs/Color fill_color\nfoxglove_msgs/Color outline_color",
    "PointsAnnotation": "uint8 LINE_LIST=4\nbuiltin_interfaces/Time timestamp\nuint8 type\n"
    "foxglove_msgs/Point2[] points\n"
    "foxglove_msgs/Color outline_color\nfoxglove_msgs/Color[] outline_colors\nfoxglove_msgs/Color fill_color\n"
    "float64 thickness",
    "TextAnnotation": "builtin_interfaces/Time timestamp\nfoxglove_msgs/Point2 position\nstring text\n"
    "float64 font_size\nfoxglove_msgs/Color text_color\nfoxglove_msgs/Color background_color",
    "ImageAnnotations": "foxglove_msgs/CircleAnnotation[] circles\nfoxglove_msgs/PointsAnnotation[] points\n"
    "foxglove_msgs/TextAnnotation[] texts",
}


@pytest.fixture(scope="module")
def messages() -> BagMessages:
    if TYPE not in message_store().fielddefs:
        for name, text in DEFINITIONS.items():
            message_store().register(get_types_from_msg(text, f"foxglove_msgs/msg/{name}"))
    return BagMessages()


def test_circles_lines_and_texts_in_foxgloves_pixels(messages: BagMessages) -> None:
    adjacency = np.zeros((3, 3), np.float32)
    adjacency[0, 1] = adjacency[1, 0] = 1
    points = np.array([(10, 20), (100.5, 50), (np.nan, np.nan)], np.float32)
    seen = Observation(points, np.array([1, 0.1, 0.5], np.float32), adjacency, (640, 480))
    header = messages.make("std_msgs/msg/Header")
    made = image_annotations(messages, header, seen, Style(palette(3)), ("a", "b", "c"))
    data = message_store().serialize_cdr(made, TYPE)
    read = message_store().deserialize_cdr(data, TYPE)
    assert [(c.position.x, c.position.y) for c in read.circles] == [(10.5, 20.5), (101.0, 50.5)]
    assert read.circles[0].fill_color.a == 1 and read.circles[1].fill_color.a == 0, "uncertain is open"
    (lines,) = read.points
    assert lines.type == LINE_LIST and len(lines.points) == 2 and len(lines.outline_colors) == 1
    assert [t.text for t in read.texts] == ["a", "b"]
