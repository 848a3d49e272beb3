"""Camera messages read from their serialised bytes, where the pixels stay.

rclpy would unpack an image into a message of the C library and copy that into one of Python's. The middlewares of ROS 2
send the OMG's Common Data Representation, version 1: four bytes of encapsulation, of which the second says whether the
least significant byte comes first; numbers at multiples of their size; a string or a sequence behind its length, 32
bits, that of a string with its closing zero.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from keypoint_perception.errors import UserError
from keypoint_perception.stamps import ENCAPSULATION_BYTES

_ORDERS = {b"\x00\x00": ">", b"\x00\x01": "<"}


@dataclass(frozen=True, slots=True)
class SerialisedImage:
    """The fields of a sensor_msgs/Image; `data` lies in the serialised message."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class SerialisedCompressedImage:
    """The fields of a sensor_msgs/CompressedImage; `data` lies in the serialised message."""

    header: Header
    format: str
    data: memoryview


def read_image(serialised: bytes) -> SerialisedImage:
    """The fields of a serialised sensor_msgs/Image. Raises UserError where the bytes are damaged."""
    reader = _Reader(serialised)
    header = reader.header()
    height, width = reader.number(), reader.number()
    return SerialisedImage(header, height, width, reader.text(), reader.byte(), reader.number(), reader.sequence())


def read_compressed_image(serialised: bytes) -> SerialisedCompressedImage:
    """The fields of a serialised sensor_msgs/CompressedImage. Raises UserError where the bytes are damaged."""
    reader = _Reader(serialised)
    return SerialisedCompressedImage(reader.header(), reader.text(), reader.sequence())


class _Reader:
    """Reads one field after the other. Every method raises UserError where the message ends before its field does."""

    def __init__(self, serialised: bytes) -> None:
        order = _ORDERS.get(serialised[:2])
        if order is None:
            raise UserError(f"message begins with {serialised[:4].hex(' ')!r}: only plain CDR, version 1, is read")
        self._data, self._at = serialised, ENCAPSULATION_BYTES
        self._number, self._signed = struct.Struct(f"{order}I"), struct.Struct(f"{order}i")

    def header(self) -> Header:
        """A std_msgs/Header."""
        stamp = Time(sec=self.number(self._signed), nanosec=self.number())
        return Header(stamp=stamp, frame_id=self.text())

    def number(self, kind: struct.Struct | None = None) -> int:
        """32 bits, not signed unless `kind` says so."""
        self._at += -self._at % 4  # the encapsulation is as long as the alignment, and does not shift it
        at = self._skip(4)
        return (kind or self._number).unpack_from(self._data, at)[0]

    def byte(self) -> int:
        """8 bits, not signed."""
        return self._data[self._skip(1)]

    def text(self) -> str:
        """A string."""
        try:
            return str(self.sequence(), "utf-8").removesuffix("\0")
        except UnicodeDecodeError:
            raise UserError(f"message of {len(self._data)} bytes is damaged: a string in it is not UTF-8") from None

    def sequence(self) -> memoryview:
        """A sequence of bytes."""
        length = self.number()
        at = self._skip(length)
        return memoryview(self._data)[at : at + length]

    def _skip(self, length: int) -> int:
        """Where the next `length` bytes begin."""
        at, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise UserError(f"message of {len(self._data)} bytes is damaged: a field in it ends at byte {self._at}")
        return at
