"""A damaged picture that OpenCV does not return None for, but raises."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np


def huge_png() -> bytes:
    """A 16-bit png of a few bytes whose header promises 10 billion pixels."""
    data = bytearray(cv2.imencode(".png", np.zeros((8, 8), np.uint16))[1].tobytes())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)
