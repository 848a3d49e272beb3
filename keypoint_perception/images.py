"""Any image message to an array, for training and for the node alike.

Messages are sensor_msgs Image or CompressedImage of rclpy or of rosbags: only their fields are looked at. Colour of
16 bits becomes 8 bits by dropping the low byte (value >> 8). 8UC3 and 8UC4 do not name their channels and are taken to
be in OpenCV's order: blue, green, red.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from keypoint_perception.compressed_depth import decode_compressed_depth
from keypoint_perception.decoding import decoded
from keypoint_perception.errors import UserError


class _Packed(NamedTuple):
    """An encoding whose pixels follow one another in a row."""

    dtype: str
    channels: int
    to_rgb: int | None
    """OpenCV's conversion code, None where it is RGB already."""
    even_width: bool = False
    """Whether two pixels share their colour."""


def _packed_encodings() -> dict[str, _Packed]:
    table = {}
    for bits, dtype in ((8, "u1"), (16, "u2")):
        table[f"mono{bits}"] = _Packed(dtype, 1, cv2.COLOR_GRAY2RGB)
        table[f"rgb{bits}"] = _Packed(dtype, 3, None)
        table[f"bgr{bits}"] = _Packed(dtype, 3, cv2.COLOR_BGR2RGB)
        table[f"rgba{bits}"] = _Packed(dtype, 4, cv2.COLOR_RGBA2RGB)
        table[f"bgra{bits}"] = _Packed(dtype, 4, cv2.COLOR_BGRA2RGB)
        # OpenCV names a pattern after its second row, from the second column on.
        table[f"bayer_rggb{bits}"] = _Packed(dtype, 1, cv2.COLOR_BayerBG2RGB)
        table[f"bayer_bggr{bits}"] = _Packed(dtype, 1, cv2.COLOR_BayerRG2RGB)
        table[f"bayer_gbrg{bits}"] = _Packed(dtype, 1, cv2.COLOR_BayerGR2RGB)
        table[f"bayer_grbg{bits}"] = _Packed(dtype, 1, cv2.COLOR_BayerGB2RGB)
    for name, alias in (("8UC1", "mono8"), ("8UC3", "bgr8"), ("8UC4", "bgra8")):
        table[name] = table[alias]
    for names, code in (
        (("yuv422", "uyvy"), cv2.COLOR_YUV2RGB_UYVY),
        (("yuv422_yuy2", "yuyv"), cv2.COLOR_YUV2RGB_YUY2),
    ):
        table.update(dict.fromkeys(names, _Packed("u1", 2, code, even_width=True)))
    return table


PACKED = _packed_encodings()
SEMI_PLANAR = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21, "nv24": cv2.COLOR_YUV2RGB_NV12}
"""Brightness for all rows first, then colour: at half the resolution, or (nv24) at all of it."""
DEPTH = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
"""Encodings that are read as depth: 16 bits are millimetres, floats are metres."""
COLOUR_ENCODINGS = (*PACKED, *SEMI_PLANAR)
DEPTH_ENCODINGS = tuple(DEPTH)


def is_depth(encoding: str) -> bool:
    """Whether an Image's encoding, or a CompressedImage's format, says that it is depth and not a picture."""
    return encoding.split(";")[0].strip() in ("16UC1", "32FC1") or "compressedDepth" in encoding


def encoding_of(message: Any) -> str:
    """What a message says of its pixels: an Image's encoding or a CompressedImage's format."""
    return message.format if hasattr(message, "format") else message.encoding


def image_to_rgb(message: Any) -> np.ndarray:
    """A colour or grey image message to (H, W, 3) uint8 RGB, which may share the message's memory and be read-only.

    Raises UserError where it is empty, shorter than it says, depth, or of an encoding that is not known.
    """
    encoding = encoding_of(message)
    if is_depth(encoding):
        raise UserError(f"{encoding!r} is depth, not a picture: give a colour or grey topic")
    if hasattr(message, "format"):
        return _compressed_to_rgb(encoding, message.data)
    if encoding in PACKED:
        return _packed_to_rgb(message)
    if encoding in SEMI_PLANAR:
        return _semi_planar_to_rgb(message)
    raise UserError(f"image encoding {encoding!r} is not known: allowed are {', '.join(COLOUR_ENCODINGS)}")


def image_to_depth(message: Any) -> np.ndarray:
    """A depth image message to (H, W) float32 metres, NaN where unknown. Raises UserError, see `depth_pixels`."""
    return to_metres(depth_pixels(message))


def depth_pixels(message: Any) -> np.ndarray:
    """The pixels of a depth image message as it has them, for `to_metres`: (H, W), perhaps in the message's memory.

    Raises UserError where it is empty, shorter than it says, or of an encoding that is not depth.
    """
    encoding = encoding_of(message)
    if hasattr(message, "format"):
        raw = encoding.split(";")[0].strip()
        if "compressedDepth" in encoding:
            return decode_compressed_depth(raw, encoding, message.data)
        pixels = _decode(encoding, message.data)
        if pixels.ndim != 2 or pixels.dtype not in (np.uint16, np.float32):
            raise UserError(f"{encoding!r} holds {_describe(pixels)}: depth is one channel of 16 bits or floats")
        return pixels
    if encoding not in DEPTH:
        raise UserError(f"depth encoding {encoding!r} is not known: allowed are {', '.join(DEPTH_ENCODINGS)}")
    return _pixels(message, DEPTH[encoding], 1)[..., 0]


def to_metres(depth: np.ndarray) -> np.ndarray:
    """Depth, integers in millimetres or floats in metres, to float32 metres.

    NaN where it is unknown: 0, negative, infinite or NaN.
    """
    metres = depth.astype(np.float32)
    if depth.dtype.kind == "u":
        metres *= np.float32(0.001)
    with np.errstate(invalid="ignore"):
        metres[~((metres > 0) & (metres < np.inf))] = np.nan
    return metres


def _packed_to_rgb(message: Any) -> np.ndarray:
    dtype, channels, code, even_width = PACKED[message.encoding]
    if even_width and message.width % 2:
        raise UserError(f"{message.encoding} image is {message.width} pixels wide: it must be an even number")
    pixels = _pixels(message, dtype, channels)
    if code is not None:
        pixels = cv2.cvtColor(_native(pixels[..., 0] if channels == 1 else pixels), code)
    return _to_8_bits(pixels)


def _semi_planar_to_rgb(message: Any) -> np.ndarray:
    encoding, width, height = message.encoding, message.width, message.height
    full = encoding == "nv24"
    if not full and (width % 2 or height % 2):
        raise UserError(f"{encoding} image has {width} x {height} pixels: both must be even numbers")
    _check_size(message, width)
    if full:
        flat = _buffer(message, 3 * message.step * height)
        brightness = _rows(flat, 0, height, message.step, width)
        colour = _rows(flat, message.step * height, height, 2 * message.step, 2 * width)
        # As an nv12 image of twice the size, of which every second pixel is the answer.
        doubled = np.vstack((brightness.repeat(2, axis=0).repeat(2, axis=1), colour))
        return np.ascontiguousarray(cv2.cvtColor(doubled, SEMI_PLANAR[encoding])[::2, ::2])
    rows = height * 3 // 2
    return cv2.cvtColor(
        _rows(_buffer(message, rows * message.step), 0, rows, message.step, width), SEMI_PLANAR[encoding]
    )


def _rows(flat: np.ndarray, start: int, rows: int, step: int, width: int) -> np.ndarray:
    return flat[start : start + rows * step].reshape(rows, step)[:, :width]


def _pixels(message: Any, dtype: str, channels: int) -> np.ndarray:
    """(H, W, channels) view of an Image's data in its own byte order."""
    item = np.dtype(dtype).itemsize
    _check_size(message, message.width * channels * item)
    flat = _buffer(message, message.step * message.height)
    return np.ndarray(
        (message.height, message.width, channels),
        np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<"),
        buffer=flat.data,
        strides=(message.step, channels * item, item),
    )


def _check_size(message: Any, row_bytes: int) -> None:
    if message.width < 1 or message.height < 1:
        raise UserError(f"image has {message.width} x {message.height} pixels: both must be at least 1")
    if message.step < row_bytes:
        raise UserError(
            f"image has step {message.step}: a row of {message.width} pixels {message.encoding} needs {row_bytes} bytes"
        )


def _buffer(message: Any, size: int) -> np.ndarray:
    flat = np.frombuffer(message.data, np.uint8)
    if len(flat) < size:
        raise UserError(
            f"image has {len(flat)} bytes of data: {message.height} rows {message.encoding} of step {message.step} "
            f"need {size}"
        )
    return flat


def _native(pixels: np.ndarray) -> np.ndarray:
    """In this machine's byte order, and with rows that begin at a whole pixel, as OpenCV needs them."""
    if pixels.dtype.isnative and pixels.strides[0] % pixels.itemsize == 0:
        return pixels
    return pixels.astype(pixels.dtype.newbyteorder("="))


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def image_file_to_rgb(path: Path) -> np.ndarray:
    """A picture's file to (H, W, 3) uint8 RGB, not turned by EXIF, as a message with that file in it is.

    Raises UserError where it cannot be read, is damaged or cut short.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"the file cannot be read ({error.strerror})") from None
    return _compressed_to_rgb(path.suffix[1:].lower(), data)


def _compressed_to_rgb(encoding: str, data: Any) -> np.ndarray:
    pixels = _decode(encoding, data)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{encoding!r} holds {_describe(pixels)}: a picture has 8 or 16 bits")
    if pixels.ndim == 2:
        return _to_8_bits(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))
    if _is_swapped(encoding):
        return _to_8_bits(np.ascontiguousarray(pixels[..., :3]))
    return _to_8_bits(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB))


def _is_swapped(encoding: str) -> bool:
    """Whether red and blue are exchanged inside the file.

    compressed_image_transport writes `rgb8; jpeg compressed bgr8` for a usual file; where a colour encoding stands
    before the semicolon but no `compressed bgr` after it, the camera's channels went into the file unconverted, so that
    for an rgb encoding they are exchanged.
    """
    raw, _, rest = encoding.partition(";")
    return raw.strip() in ("rgb8", "rgba8", "rgb16", "rgba16") and "compressed" in rest and "compressed bgr" not in rest


def _decode(encoding: str, data: Any) -> np.ndarray:
    """A file in memory to (H, W) or (H, W, 3 or 4) pixels as OpenCV orders them, of any depth, not turned by EXIF."""
    flat = np.frombuffer(data, np.uint8)
    if not len(flat):
        raise UserError(f"compressed image {encoding!r} is empty")
    cut = flat[:2].tobytes() == b"\xff\xd8" and _is_cut(flat.tobytes())
    pixels = None if cut else decoded(cv2.imdecode, flat, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        what = "cut short" if cut else "damaged, or not an image file"
        raise UserError(f"compressed image {encoding!r} of {len(flat)} bytes is {what}: record or copy it again")
    return pixels


def _is_cut(jpeg: bytes) -> bool:
    """Whether a jpeg has no end: OpenCV fills what is missing with grey and says nothing.

    The end is looked for after the headers, as a small preview in them has an end of its own.
    """
    at = 2
    while jpeg[at : at + 1] == b"\xff" and (kind := jpeg[at + 1 : at + 2]) not in (b"\xda", b"\xd9"):  # scan, end
        if kind == b"\xff":  # a fill byte
            at += 1
        elif kind == b"\x01" or b"\xd0" <= kind <= b"\xd7":  # markers without a length
            at += 2
        else:
            at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg.rfind(b"\xff\xd9", at) < 0


def _describe(pixels: np.ndarray) -> str:
    return f"{pixels.shape[2] if pixels.ndim == 3 else 1} channel(s) of {pixels.dtype}"
