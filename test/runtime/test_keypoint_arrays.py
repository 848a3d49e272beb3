"""KeypointArrays written as bytes, against the messages that rosbags reads and writes."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from keypoint_perception.bags import BagMessages, message_store
from keypoint_perception.lifting import Lifted
from keypoint_perception.observation import Observation
from keypoint_perception.ros.keypoint_arrays import KeypointArrays

TYPE = "keypoint_perception_msgs/msg/KeypointArray"
NAMES = ("", "a", "ab", "abc", "abcd", "ellbow_links_ä", "gripper")
COUNT = len(NAMES)
MODEL: Any = SimpleNamespace(id="arms@0123", info=SimpleNamespace(keypoint_names=NAMES))


def _header(frame_id: str, sec: int = -3, nanosec: int = 999_999_999) -> Any:
    messages = BagMessages()
    stamp = messages.make("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return messages.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame_id)


def _seen(seed: int = 0, size: tuple[int, int] = (640, 480)) -> tuple[Observation, np.ndarray]:
    random = np.random.default_rng(seed)
    points, scores = random.normal(200, 50, (COUNT, 2)), random.random(COUNT)
    adjacency = np.zeros((COUNT, COUNT), np.float32)
    seen = Observation(points.astype(np.float32), scores.astype(np.float32), adjacency, size)
    return seen, random.integers(0, 4, COUNT).astype(np.uint8)


def _lifted(first: int = 0) -> Lifted:
    """All positions but those before `first`, which are unknown."""
    positions, stddev = np.arange(3.0 * COUNT).reshape(COUNT, 3), np.linspace(0, 1, COUNT)
    positions[:first], stddev[:first] = np.nan, np.nan
    return Lifted(positions, stddev)


@pytest.mark.parametrize("lifted", [Lifted.unknown(COUNT), _lifted(), _lifted(first=2)])
@pytest.mark.parametrize("frame_id", ["", "a", "ab", "abc", "abcd", "küche/wrist_optical"])
def test_every_byte_is_what_a_serialiser_writes(frame_id: str, lifted: Lifted) -> None:
    header, (seen, states) = _header(frame_id), _seen()
    written = KeypointArrays(MODEL).serialise(header, seen, states, lifted)
    read = message_store().deserialize_cdr(written, TYPE)
    assert written == bytes(message_store().serialize_cdr(read, TYPE)), "alignment, lengths and order"
    assert read.header == header and read.model_id == "arms@0123"
    assert (read.image_width, read.image_height) == (640, 480)
    assert read.position_frame_id == (frame_id if np.isfinite(lifted.stddev).any() else "")
    assert [(k.id, k.name) for k in read.keypoints] == list(enumerate(NAMES))
    assert [k.state for k in read.keypoints] == states.tolist()
    np.testing.assert_array_equal([k.score for k in read.keypoints], seen.scores)
    np.testing.assert_array_equal([(k.u, k.v) for k in read.keypoints], seen.keypoints)
    positions = [(k.position.x, k.position.y, k.position.z) for k in read.keypoints]
    np.testing.assert_array_equal(positions, lifted.positions)
    np.testing.assert_array_equal([k.position_stddev for k in read.keypoints], lifted.stddev.astype(np.float32))


def test_nothing_of_an_image_stays_for_the_next() -> None:
    arrays, first, second = KeypointArrays(MODEL), _seen(1), _seen(2, (320, 200))
    before = arrays.serialise(_header("arm"), *first, _lifted())
    arrays.serialise(_header("other", 7, 8), *second, Lifted.unknown(COUNT))
    fresh = KeypointArrays(MODEL).serialise(_header("arm", 7, 8), *second, _lifted(1))
    assert arrays.serialise(_header("arm", 7, 8), *second, _lifted(1)) == fresh
    assert arrays.serialise(_header("arm"), *first, _lifted()) == before


def test_a_frame_that_changes_with_every_image_costs_no_memory() -> None:
    arrays, seen = KeypointArrays(MODEL), _seen()

    def grown(images: range) -> int:
        before, _ = tracemalloc.get_traced_memory()
        for index in images:
            arrays.serialise(_header(f"frame{index:05}"), *seen, Lifted.unknown(COUNT))
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        first, later = grown(range(8)), grown(range(8, 208))
    finally:
        tracemalloc.stop()
    assert later < 2 * first
