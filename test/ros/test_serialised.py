"""Images read from serialised messages, against rclpy's own reading of them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from keypoint_perception.errors import UserError
from keypoint_perception.images import image_to_rgb
from keypoint_perception.ros.serialised import read_compressed_image, read_image

FIELDS = ("header", "height", "width", "encoding", "is_bigendian", "step")


def _image(frame_id: str = "camera", encoding: str = "rgb8", size: tuple[int, int] = (5, 3)) -> Image:
    width, height = size
    message = Image(height=height, width=width, encoding=encoding, step=3 * width, is_bigendian=1)
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = -2, 999_999_999
    message.data = np.arange(3 * width * height, dtype=np.uint8).tobytes()
    return message


@pytest.mark.parametrize("encoding", ["", "rgb8", "mono8", "bayer_rggb16", "16UC1"])
@pytest.mark.parametrize("frame_id", ["", "a", "ab", "abc", "abcd", "küche/wrist_optical"])
def test_every_field_is_read_at_every_alignment(frame_id: str, encoding: str) -> None:
    message = _image(frame_id, encoding)
    read = read_image(serialize_message(message))
    assert [getattr(read, name) for name in FIELDS] == [getattr(message, name) for name in FIELDS]
    assert bytes(read.data) == bytes(message.data)


@pytest.mark.parametrize("format_", ["", "jpeg", "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth png"])
def test_compressed_images_are_read(format_: str) -> None:
    message = CompressedImage(format=format_, data=b"\xff\xd8 data")
    message.header.frame_id = "wrist"
    read = read_compressed_image(serialize_message(message))
    assert (read.header, read.format, bytes(read.data)) == (message.header, format_, b"\xff\xd8 data")


def test_big_endian_messages_are_read() -> None:
    text = struct.pack(">I4s", 4, b"cam\0")
    encoding = struct.pack(">I5s", 5, b"rgb8\0")
    data = b"\0\0\0\0" + struct.pack(">iI", 7, 8) + text + struct.pack(">II", 1, 2) + encoding
    data += b"\0" + b"\0\0" + struct.pack(">II", 6, 6) + bytes(range(6))  # is_bigendian, two bytes to align the step
    read = read_image(data)
    assert (read.header.stamp.sec, read.header.stamp.nanosec, read.header.frame_id) == (7, 8, "cam")
    assert (read.height, read.width, read.encoding, read.step, bytes(read.data)) == (1, 2, "rgb8", 6, bytes(range(6)))


def test_the_pixels_are_not_copied() -> None:
    serialised = serialize_message(_image())
    pixels = image_to_rgb(read_image(serialised))
    assert pixels.shape == (3, 5, 3)
    assert np.shares_memory(pixels, np.frombuffer(serialised, np.uint8))


@pytest.mark.parametrize("message", [_image(), CompressedImage(format="jpeg", data=b"\xff\xd8 data")])
def test_a_message_that_ends_anywhere_before_its_end_is_refused(message: Image | CompressedImage) -> None:
    read = read_image if isinstance(message, Image) else read_compressed_image
    whole = serialize_message(message)
    end = whole.index(bytes(message.data)) + len(message.data)  # some middlewares pad what follows
    for length in range(end):
        with pytest.raises(UserError, match=r"damaged|plain CDR"):
            read(whole[:length])


def test_lengths_that_lie_are_refused() -> None:
    whole = serialize_message(_image())
    for at in range(4, len(whole) - 4):
        lying = bytearray(whole)
        lying[at : at + 4] = b"\xff\xff\xff\xff"
        try:
            read = read_image(bytes(lying))
        except UserError:
            continue
        assert len(read.data) <= len(whole)


@pytest.mark.parametrize("start", [b"", b"\0", b"\0\1\0", b"\0\7\0\0", b"<?xml"])
def test_what_is_no_plain_cdr_is_refused(start: bytes) -> None:
    with pytest.raises(UserError, match=r"plain CDR|damaged"):
        read_image(start + b"\0" * (100 if len(start) >= 4 else 0))
