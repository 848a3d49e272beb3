"""Stamps in the bytes of messages, against rosbags' own serialisation."""

from types import SimpleNamespace

import numpy as np
import pytest

from keypoint_perception.bags import BagMessages, message_store
from keypoint_perception.stamps import after_stamp, serialised_stamp_ns, stamp_ns, with_stamp

TYPE = "sensor_msgs/msg/CompressedImage"


def _serialised(sec: int, nanosec: int) -> bytes:
    messages = BagMessages()
    stamp = messages.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    header = messages.make("std_msgs/msg/Header", stamp=stamp, frame_id="camera")
    message = messages.make(TYPE, header=header, format="png", data=np.arange(9, dtype=np.uint8))
    return bytes(message_store().serialize_cdr(message, TYPE))


@pytest.mark.parametrize(
    ("sec", "nanosec", "ns"),
    [(0, 0, 0), (1_700_000_000, 7, 1_700_000_000_000_000_007), (-2, 999_999_999, -1_000_000_001)],
)
def test_a_stamp_is_read_and_replaced_and_nothing_else(sec: int, nanosec: int, ns: int) -> None:
    data, other = _serialised(sec, nanosec), _serialised(5, 6)
    assert stamp_ns(SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec))) == ns
    assert serialised_stamp_ns(data) == ns
    assert with_stamp(other, ns) == data
    assert after_stamp(other) == after_stamp(data) == data[12:]
