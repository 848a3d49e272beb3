"""The `compressedDepth` format of image_transport: depth in a png or in RVL, behind a header of 12 bytes.

The header is an int32 that nobody reads and two float32, A and B, little endian. Depth of 16UC1 is stored as it is,
millimetres. Depth of 32FC1 is stored as inverse depth q in 16 bits: A / (q - B) metres, q = 0 unknown.

RVL is the run-length and variable-length coding of A. D. Wilson, "Fast lossless depth image compression", ISS 2017.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from keypoint_perception.decoding import decoded
from keypoint_perception.errors import UserError

HEADER_BYTES = 12
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def decode_compressed_depth(raw_encoding: str, encoding: str, data: Any) -> np.ndarray:
    """The data of a CompressedImage to depth (H, W): uint16 millimetres, or float32 metres with NaN for unknown.

    raw_encoding: 16UC1, mono16 or 32FC1, what stands before the semicolon of `encoding`, the message's format.
    Raises UserError where the data is not what its format says.
    """
    flat = np.frombuffer(data, np.uint8)
    if raw_encoding not in ("16UC1", "mono16", "32FC1") or len(flat) <= HEADER_BYTES:
        raise UserError(
            f"depth image {encoding!r} of {len(flat)} bytes cannot be read: allowed are 16UC1, mono16 and 32FC1 "
            f"behind a header of {HEADER_BYTES} bytes"
        )
    stored = _stored(encoding, flat[HEADER_BYTES:])
    if raw_encoding != "32FC1":
        return stored
    a, b = np.frombuffer(flat[4:HEADER_BYTES], "<f4")
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = a / (stored.astype(np.float32) - b)
    metres[stored == 0] = np.nan
    return metres


def _stored(encoding: str, payload: np.ndarray) -> np.ndarray:
    """(H, W) uint16 as it was stored."""
    if payload[: len(PNG_MAGIC)].tobytes() != PNG_MAGIC:
        return _decode_rvl(encoding, payload)
    stored = decoded(cv2.imdecode, payload, cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 2:
        raise UserError(f"depth image {encoding!r} is damaged: its png is not one channel of 16 bits")
    return stored


def _decode_rvl(encoding: str, payload: np.ndarray) -> np.ndarray:
    """(H, W) uint16 from uint32 width, uint32 height and RVL's 32-bit words.

    The words are a row of nibbles, highest first; a number is its nibbles' lower three bits, lowest first, up to the
    first nibble without the fourth bit. Numbers are: how many pixels are 0, how many are not, and for each of these
    its difference to the last that was not 0, zigzag coded; and so on to the last pixel.
    """
    damaged = UserError(f"depth image {encoding!r} is damaged, or neither png nor RVL")
    if len(payload) < 8:
        raise damaged
    width, height = (int(side) for side in np.frombuffer(payload[:8], "<u4"))
    words = payload[8 : 8 + (len(payload) - 8) // 4 * 4].view("<u4")
    if not (0 < width <= 1 << 15 and 0 < height <= 1 << 15):
        raise damaged
    numbers = _variable_length_numbers(words)
    depth = np.zeros(width * height, np.int64)
    filled, pixel, read = [], 0, 0
    while pixel < len(depth):
        if read + 2 > len(numbers):
            raise damaged
        zeros, others = int(numbers[read]), int(numbers[read + 1])
        read, pixel = read + 2, pixel + zeros
        if (zeros == 0 and others == 0) or read + others > len(numbers) or pixel + others > len(depth):
            raise damaged
        depth[pixel : pixel + others] = numbers[read : read + others]
        filled.append((pixel, pixel + others))
        read, pixel = read + others, pixel + others
    where = np.concatenate([np.arange(*span) for span in filled])
    coded = depth[where]
    depth[where] = np.cumsum((coded >> 1) ^ -(coded & 1))
    return depth.astype(np.uint16).reshape(height, width)


def _variable_length_numbers(words: np.ndarray) -> np.ndarray:
    """(N,) int64: all numbers in RVL's 32-bit words; what is left of the last word may add zeros."""
    nibbles: np.ndarray = ((words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32)) & 15).astype(np.int64).reshape(-1)
    last = np.flatnonzero(nibbles < 8)
    if not len(last):
        return np.zeros(0, np.int64)
    first = np.concatenate(([0], last[:-1] + 1))
    nibbles = nibbles[: last[-1] + 1]
    place = np.arange(len(nibbles)) - np.repeat(first, last - first + 1)
    return np.add.reduceat((nibbles & 7) << np.minimum(3 * place, 60), first)
