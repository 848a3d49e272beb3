"""Image messages to arrays: one table of cases for every encoding, padded rows and both byte orders.

Each case is written byte by byte from the encoding's definition and read back; nothing of the converter is used to
make it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from huge_png import huge_png

from keypoint_perception.errors import UserError
from keypoint_perception.images import COLOUR_ENCODINGS, image_file_to_rgb, image_to_depth, image_to_rgb, is_depth

WIDTH, HEIGHT = 8, 6


def picture() -> np.ndarray:
    """(H, W, 3) RGB: smooth, so that demosaicing is nearly exact, and different in R, G and B."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack((40 + 12 * x, 200 - 10 * y, 90 + 5 * x + 6 * y), axis=-1).astype(np.uint8)


def image_message(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> SimpleNamespace:
    """An Image as rosbags gives it: rows of `pixels` (rows, …) with `padding` bytes after each."""
    if big_endian:
        pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
    rows = np.hstack((rows, np.full((len(rows), padding), 0xAB, np.uint8)))
    return SimpleNamespace(
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=rows.shape[1],
        data=rows.ravel(),
    )


def compressed_message(data: bytes, encoding: str) -> SimpleNamespace:
    return SimpleNamespace(format=encoding, data=np.frombuffer(data, np.uint8))


def bayer(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """(H, W) mosaic whose top-left 2 x 2 cell reads `pattern`, row by row."""
    mosaic = np.empty(rgb.shape[:2], rgb.dtype)
    for index, channel in enumerate(pattern):
        row, column = divmod(index, 2)
        mosaic[row::2, column::2] = rgb[row::2, column::2, "rgb".index(channel)]
    return mosaic


def yuv(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y, U, V of BT.601 in video range, (H, W) each, at full resolution."""
    r, g, b = rgb.astype(float).transpose(2, 0, 1)
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    return tuple(plane.round().astype(np.uint8) for plane in (y, u, v))


def yuv422(rgb: np.ndarray, order: str) -> np.ndarray:
    """(H, 2 W) bytes; order names the four bytes of two pixels, as in "uyvy"."""
    y, u, v = yuv(rgb)
    planes = {"y": iter((y[:, 0::2], y[:, 1::2])), "u": iter((u[:, ::2],)), "v": iter((v[:, ::2],))}
    return np.stack([next(planes[name]) for name in order], axis=-1).reshape(HEIGHT, -1)


def semi_planar(rgb: np.ndarray, order: str, every: int) -> np.ndarray:
    """(rows, W) bytes: Y, then colour of each `every`-th pixel, interleaved in `order`."""
    y, u, v = yuv(rgb)
    planes = {"u": u[::every, ::every], "v": v[::every, ::every]}
    colour = np.stack([planes[name] for name in order], axis=-1)
    return np.vstack((y, colour.reshape(-1, WIDTH)))


def wide(rgb: np.ndarray) -> np.ndarray:
    """16 bits whose high byte is `rgb`, and whose low byte matters to nobody."""
    return rgb.astype(np.uint16) << 8 | 0x5A


def colour_cases() -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """encoding: (rows of the message, expected RGB, largest allowed difference)."""
    rgb = picture()
    alpha = np.full((HEIGHT, WIDTH, 1), 77, np.uint8)
    grey = rgb[..., 0]
    greys = np.repeat(grey[..., None], 3, axis=-1)
    cases = {}
    for bits, widen in ((8, lambda a: a), (16, wide)):
        cases[f"mono{bits}"] = widen(grey), greys, 0
        cases[f"rgb{bits}"] = widen(rgb), rgb, 0
        cases[f"bgr{bits}"] = widen(rgb[..., ::-1]), rgb, 0
        cases[f"rgba{bits}"] = widen(np.dstack((rgb, alpha))), rgb, 0
        cases[f"bgra{bits}"] = widen(np.dstack((rgb[..., ::-1], alpha))), rgb, 0
        for pattern in ("rggb", "bggr", "gbrg", "grbg"):
            cases[f"bayer_{pattern}{bits}"] = widen(bayer(rgb, pattern)), rgb, 13  # at the border a neighbour's colour
    cases["8UC1"] = grey, greys, 0
    cases["8UC3"] = rgb[..., ::-1], rgb, 0
    cases["8UC4"] = np.dstack((rgb[..., ::-1], alpha)), rgb, 0
    for name, order in (("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")):
        cases[name] = yuv422(rgb, order), rgb, 20  # colour of the left neighbour
    cases["nv12"] = semi_planar(rgb, "uv", 2), rgb, 26
    cases["nv21"] = semi_planar(rgb, "vu", 2), rgb, 26
    cases["nv24"] = semi_planar(rgb, "uv", 1).reshape(-1, WIDTH), rgb, 3
    return cases


CASES = colour_cases()


def test_every_encoding_has_a_case() -> None:
    assert set(CASES) == set(COLOUR_ENCODINGS)


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", CASES)
def test_colour(encoding: str, padding: int) -> None:
    rows, expected, tolerance = CASES[encoding]
    if encoding == "nv24" and padding:  # two bytes of padding after a row of colour for one after a row of brightness
        colour = rows[HEIGHT:].reshape(HEIGHT, 2 * WIDTH)
        bright = np.hstack((rows[:HEIGHT], np.zeros((HEIGHT, padding), np.uint8)))
        colour = np.hstack((colour, np.zeros((HEIGHT, 2 * padding), np.uint8)))
        message = image_message(np.vstack((bright, colour.reshape(-1, WIDTH + padding))), encoding)
    else:
        message = image_message(rows, encoding, padding)
    found = image_to_rgb(message)
    assert found.shape == (HEIGHT, WIDTH, 3) and found.dtype == np.uint8
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= tolerance
    if tolerance:  # and inside, where every neighbour is there, it is close
        assert difference[1:-1, 1:-1].mean() <= 6


@pytest.mark.parametrize("encoding", [name for name in CASES if name.endswith("16")])
def test_big_endian_colour(encoding: str) -> None:
    rows, _, _ = CASES[encoding]
    little = image_to_rgb(image_message(rows, encoding))
    big = image_to_rgb(image_message(rows, encoding, padding=3, big_endian=True))
    assert np.array_equal(big, little)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.array, "array"])
def test_data_of_every_type_that_messages_hold(kind: Any) -> None:
    import array

    message = image_message(picture(), "rgb8")
    raw = message.data.tobytes()
    message.data = array.array("B", raw) if kind == "array" else kind(message.data if kind is np.array else raw)
    assert np.array_equal(image_to_rgb(message), picture())


def test_rgb_is_not_copied() -> None:
    message = image_message(picture(), "rgb8", padding=7)
    assert np.shares_memory(image_to_rgb(message), message.data)


METRES = np.array([[0.0, 0.5, 1.25], [2.0, 65.535, 0.001]])
KNOWN = np.where(METRES == 0, np.nan, METRES).astype(np.float32)


def depth_message(pixels: np.ndarray, encoding: str, padding: int, big_endian: bool) -> SimpleNamespace:
    message = image_message(pixels, encoding, padding, big_endian)
    message.height, message.width = pixels.shape
    return message


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "32FC1"])
def test_depth(encoding: str, padding: int, big_endian: bool) -> None:
    pixels = METRES.astype(np.float32) if encoding == "32FC1" else (METRES * 1000).round().astype(np.uint16)
    found = image_to_depth(depth_message(pixels, encoding, padding, big_endian))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, KNOWN, rtol=1e-6)


def test_no_depth_is_nan() -> None:
    pixels = np.array([[0.0, -1.0, np.inf], [-np.inf, np.nan, 1.0]], np.float32)
    found = image_to_depth(depth_message(pixels, "32FC1", 0, False))
    assert np.isnan(found.ravel()[:5]).all() and found[1, 2] == 1


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.mark.parametrize("encoding", ["png", "rgb8; png compressed bgr8", "bgr8; png compressed bgr8"])
def test_png(encoding: str) -> None:
    assert np.array_equal(image_to_rgb(compressed_message(png(picture()[..., ::-1]), encoding)), picture())


def test_png_of_channels_that_were_not_converted() -> None:
    # An rgb8 image that went into the file as if it were bgr8, which the format says by leaving `bgr8` out.
    assert np.array_equal(image_to_rgb(compressed_message(png(picture()), "rgb8; png compressed ")), picture())


@pytest.mark.parametrize("pixels", [wide(picture()[..., ::-1]), np.dstack((picture()[..., ::-1], picture()[..., :1]))])
def test_png_of_16_bits_and_with_alpha(pixels: np.ndarray) -> None:
    assert np.array_equal(image_to_rgb(compressed_message(png(pixels), "png")), picture())


def test_grey_png() -> None:
    grey = picture()[..., 1]
    found = image_to_rgb(compressed_message(png(grey), "mono8; png compressed "))
    assert np.array_equal(found, np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.parametrize("encoding", ["jpeg", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8"])
def test_jpeg(encoding: str) -> None:
    large = cv2.resize(picture(), (160, 120))
    data = cv2.imencode(".jpg", large[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    found = image_to_rgb(compressed_message(data, encoding))
    assert np.abs(found.astype(int) - large).max() <= 6


def depth_png() -> np.ndarray:
    return (METRES * 1000).round().astype(np.uint16)


def test_png_depth_without_header() -> None:
    found = image_to_depth(compressed_message(png(depth_png()), "16UC1; png compressed"))
    np.testing.assert_allclose(found, KNOWN, rtol=1e-6)


def encode_rvl(depth: np.ndarray) -> bytes:
    """RVL as its paper describes it, number by number."""
    nibbles: list[int] = []

    def put(number: int) -> None:
        while True:
            number, low = number >> 3, number & 7
            nibbles.append(low | (8 if number else 0))
            if not number:
                return

    flat, i, previous = depth.ravel().tolist(), 0, 0
    while i < len(flat):
        zeros = next((n for n, d in enumerate(flat[i:]) if d), len(flat) - i)
        i += zeros
        others = next((n for n, d in enumerate(flat[i:]) if not d), len(flat) - i)
        put(zeros)
        put(others)
        for value in flat[i : i + others]:
            delta, previous = value - previous, value
            put(2 * delta if delta >= 0 else -2 * delta - 1)
        i += others
    nibbles += [0] * (-len(nibbles) % 8)
    words = [sum(n << (28 - 4 * k) for k, n in enumerate(nibbles[w : w + 8])) for w in range(0, len(nibbles), 8)]
    return struct.pack(f"<II{len(words)}I", depth.shape[1], depth.shape[0], *words)


HEADER = struct.pack("<iff", 0, 0.0, 0.0)


@pytest.mark.parametrize("coding", ["png", "rvl"])
def test_compressed_depth_of_millimetres(coding: str) -> None:
    stored = png(depth_png()) if coding == "png" else encode_rvl(depth_png())
    found = image_to_depth(compressed_message(HEADER + stored, f"16UC1; compressedDepth {coding}"))
    np.testing.assert_allclose(found, KNOWN, rtol=1e-6)


@pytest.mark.parametrize("coding", ["png", "rvl"])
def test_compressed_depth_of_floats_is_inverse_depth(coding: str) -> None:
    a, b = 100.0 * 101.0, 1 - 101.0  # quantised so that nearer is finer, as the transport does
    metres = np.array([[0.5, 1.0, 2.0], [4.0, 8.0, 0.0]])
    stored = np.where(metres > 0, a / np.where(metres > 0, metres, 1) + b, 0).round().astype(np.uint16)
    body = png(stored) if coding == "png" else encode_rvl(stored)
    message = compressed_message(struct.pack("<iff", 0, a, b) + body, f"32FC1; compressedDepth {coding}")
    np.testing.assert_allclose(image_to_depth(message), np.where(metres > 0, metres, np.nan), rtol=5e-3)


def test_rvl_of_a_large_random_image() -> None:
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 65536, (40, 50)).astype(np.uint16) * (rng.random((40, 50)) > 0.3)
    found = image_to_depth(compressed_message(HEADER + encode_rvl(depth), "16UC1; compressedDepth rvl"))
    assert np.array_equal(np.nan_to_num(found * 1000).round().astype(np.uint16), depth)


def changed(message: SimpleNamespace, **fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(message), **fields})


RGB = image_message(picture(), "rgb8")
JPEG = cv2.imencode(".jpg", cv2.resize(picture(), (160, 120)))[1].tobytes()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (changed(RGB, width=0), "0 x 6 pixels"),
        (changed(RGB, height=0), "8 x 0 pixels"),
        (changed(RGB, step=23), "step 23"),
        (changed(RGB, data=RGB.data[:-1]), "143 bytes of data"),
        (changed(RGB, data=b""), "0 bytes of data"),
        (changed(RGB, encoding="rgb9"), "allowed are mono8, rgb8"),
        (changed(RGB, encoding="32FC1"), "is depth"),
        (changed(RGB, encoding="yuyv", width=7), "even number"),
        (changed(RGB, encoding="nv12", height=5), "even numbers"),
        (compressed_message(b"", "jpeg"), "empty"),
        (compressed_message(b"no image at all", "jpeg"), "not an image file"),
        (compressed_message(JPEG[: len(JPEG) // 2], "jpeg"), "cut short"),
        (compressed_message(png(picture())[:60], "png"), "damaged"),
        (compressed_message(huge_png(), "png"), "damaged"),
        (compressed_message(HEADER + png(depth_png()), "16UC1; compressedDepth"), "is depth"),
    ],
)
def test_bad_colour_is_one_clear_line(message: SimpleNamespace, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        image_to_rgb(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (RGB, "allowed are 16UC1, mono16, 32FC1"),
        (compressed_message(JPEG, "jpeg"), "one channel of 16 bits"),
        (compressed_message(HEADER, "16UC1; compressedDepth"), "cannot be read"),
        (compressed_message(HEADER + png(picture()), "16UC1; compressedDepth png"), "damaged"),
        (compressed_message(HEADER + encode_rvl(depth_png())[:-4], "16UC1; compressedDepth rvl"), "damaged"),
        (compressed_message(HEADER + b"\xff" * 30, "16UC1; compressedDepth rvl"), "damaged"),
        (compressed_message(HEADER + huge_png(), "16UC1; compressedDepth png"), "damaged"),
        (compressed_message(HEADER + png(depth_png()), "8UC1; compressedDepth png"), "allowed are 16UC1, mono16"),
    ],
)
def test_bad_depth_is_one_clear_line(message: SimpleNamespace, words: str) -> None:
    with pytest.raises(UserError, match=words):
        image_to_depth(message)


def test_a_jpeg_whose_preview_is_whole_is_cut_short_all_the_same() -> None:
    """A camera's jpeg has a small one, with an end of its own, in its headers."""
    preview = b"\xff\xe1" + (2 + len(JPEG)).to_bytes(2, "big") + JPEG
    whole, plain = (compressed_message(jpeg, "jpeg") for jpeg in (JPEG[:2] + preview + JPEG[2:], JPEG))
    assert np.array_equal(image_to_rgb(whole), image_to_rgb(plain))
    for odd in (b"\xff\xff\xff\xe0", b"\xff\x01\xff\xe0", b"\xff\xd0\xff\xe0"):  # fill, and markers without a length
        assert np.array_equal(image_to_rgb(compressed_message(JPEG[:2] + odd + JPEG[4:], "jpeg")), image_to_rgb(plain))
    for end in (len(whole.data) - 2, len(preview) + len(JPEG) // 2, 100, 5):
        with pytest.raises(UserError, match="cut short"):
            image_to_rgb(compressed_message(whole.data[:end], "jpeg"))


def test_a_picture_s_file_is_read_as_a_message_with_it_is(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", np.zeros((40, 80, 3), np.uint8))[1].tobytes()
    turn = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"  # orientation 6: on its side
    file = tmp_path / "turned.jpg"
    file.write_bytes(jpeg[:2] + b"\xff\xe1" + (2 + len(turn)).to_bytes(2, "big") + turn + jpeg[2:])
    assert cv2.imread(str(file)).shape == (80, 40, 3)
    assert (
        image_file_to_rgb(file).shape
        == image_to_rgb(compressed_message(file.read_bytes(), "jpeg")).shape
        == (40, 80, 3)
    )
    with pytest.raises(UserError, match="cannot be read"):
        image_file_to_rgb(tmp_path / "missing.jpg")


def test_depth_of_mono16_is_millimetres() -> None:
    found = [
        image_to_depth(compressed_message(HEADER + png(depth_png()), f"{encoding}; compressedDepth png"))
        for encoding in ("mono16", "16UC1")
    ]
    np.testing.assert_array_equal(*found)


def test_is_depth() -> None:
    assert is_depth("16UC1") and is_depth("32FC1") and is_depth("16UC1; compressedDepth png")
    assert is_depth("16UC1; png compressed")
    assert not is_depth("mono16") and not is_depth("rgb8; jpeg compressed bgr8")


@pytest.mark.parametrize("encoding", [name for name in CASES if not name.startswith(("8UC", "nv"))])
def test_agrees_with_cv_bridge(encoding: str) -> None:
    cv_bridge = pytest.importorskip("cv_bridge")
    messages = pytest.importorskip("sensor_msgs.msg")
    ours = image_message(CASES[encoding][0], encoding, padding=4)
    message = messages.Image(
        height=HEIGHT, width=WIDTH, encoding=encoding, is_bigendian=0, step=ours.step, data=ours.data.tobytes()
    )
    theirs = cv_bridge.CvBridge().imgmsg_to_cv2(message, "rgb8")
    # It rounds 16 bits to 8 by 255 / 65535; we drop the low byte.
    assert np.abs(theirs.astype(int) - image_to_rgb(message)).max() <= (1 if encoding.endswith("16") else 0)
