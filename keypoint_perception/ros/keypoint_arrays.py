"""KeypointArray messages, written straight into their serialised bytes: for the live node and for bags alike.

Between two images of one model only numbers change, and they stay where they are. So the message is laid out once, and
each image's numbers are put into it; making a message object and having the middleware read it costs ten times as much.
The format is the one that `serialised` reads: the Common Data Representation, version 1.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from keypoint_perception.lifting import Lifted
from keypoint_perception.model import Model
from keypoint_perception.observation import Observation
from keypoint_perception.stamps import STAMP

_ENCAPSULATION = b"\x00\x01\x00\x00"
"""Least significant byte first."""
_SIZE = struct.Struct("<II")
_MOST_LAYOUTS = 8


class KeypointArrays:
    """Serialised keypoint_perception_msgs/KeypointArray of one model with K keypoints."""

    def __init__(self, model: Model) -> None:
        self._model_id, self._names = model.id, model.info.keypoint_names
        self._layouts: dict[tuple[str, str], _Layout] = {}

    def serialise(self, header: Any, observation: Observation, states: np.ndarray, lifted: Lifted) -> bytes:
        """All K keypoints in id order, in pixels of the source image.

        header: the image's. states: (K,) values of smoothing.State. lifted: positions in the frame of `header`.
        """
        frames = header.frame_id, header.frame_id if lifted.is_known else ""
        layout = self._layouts.get(frames)
        if layout is None:
            if len(self._layouts) >= _MOST_LAYOUTS:  # a frame_id that is new with every image
                self._layouts.clear()
            layout = self._layouts[frames] = _Layout(*frames, self._model_id, self._names)
        return layout.filled(header.stamp, observation, states, lifted)


class _Layout:
    """A message whose texts are there, and where each of its numbers belongs."""

    def __init__(self, frame_id: str, position_frame_id: str, model_id: str, names: tuple[str, ...]) -> None:
        text = _Text()
        self._stamp = text.room(STAMP.size, align=4)
        text.string(frame_id)
        text.string(model_id)
        self._size = text.room(_SIZE.size, align=4)
        text.string(position_frame_id)
        text.number("<I", len(names))
        states, scores, pixels, positions, spreads = [], [], [], [], []
        for index, name in enumerate(names):
            text.number("<H", index)
            text.string(name)
            states.append(text.room(1, align=1))
            scores.append(text.room(4, align=4))
            pixels.append(text.room(8, align=4))
            positions.append(text.room(24, align=8))
            spreads.append(text.room(4, align=4))
        self._length = len(text.data)
        text.room(0, align=8)
        self._bytes = np.frombuffer(text.data, np.uint8).copy()
        self._floats, self._doubles = self._bytes.view("<f4"), self._bytes.view("<f8")
        self._states = np.array(states, int)
        self._scores, self._spreads = np.array(scores, int) // 4, np.array(spreads, int) // 4
        self._pixels = np.array(pixels, int)[:, None] // 4 + np.arange(2)
        self._positions = np.array(positions, int)[:, None] // 8 + np.arange(3)

    def filled(self, stamp: Any, observation: Observation, states: np.ndarray, lifted: Lifted) -> bytes:
        """The message with these numbers."""
        STAMP.pack_into(self._bytes.data, self._stamp, stamp.sec, stamp.nanosec)
        _SIZE.pack_into(self._bytes.data, self._size, *observation.image_size)
        self._bytes[self._states] = states
        self._floats[self._scores] = observation.scores
        self._floats[self._pixels] = observation.keypoints
        self._floats[self._spreads] = lifted.stddev
        self._doubles[self._positions] = lifted.positions
        return _ENCAPSULATION + self._bytes[: self._length].tobytes()


class _Text:
    """The bytes of a message behind its encapsulation, field after field."""

    def __init__(self) -> None:
        self.data = bytearray()

    def room(self, size: int, align: int) -> int:
        """Leaves room for a field; where it begins."""
        self.data.extend(bytes(-len(self.data) % align))
        start = len(self.data)
        self.data.extend(bytes(size))
        return start

    def number(self, kind: str, value: int) -> None:
        """A number of a struct format, at a multiple of its size."""
        size = struct.calcsize(kind)
        struct.pack_into(kind, self.data, self.room(size, size), value)

    def string(self, text: str) -> None:
        """A string: its length, its bytes and a closing zero."""
        encoded = text.encode() + b"\0"
        self.number("<I", len(encoded))
        self.data.extend(encoded)
