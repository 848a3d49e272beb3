"""A recording in; the same recording with our topics, or a video, out."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from spots_bag import DEPTH_M, FRAME_ID, spot_centres, write_spots_bag

from keypoint_perception.annotate import main
from keypoint_perception.bags import IMAGE_TYPES, connections_of, header_stamp_ns, open_bag, with_stamp, write_bag
from keypoint_perception.errors import UserError
from keypoint_perception.images import image_to_rgb

SIZE, FRAMES = (192, 128), 20
IMAGES = "/table/image_raw/compressed"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spots_bag(tmp_path_factory.mktemp("bags") / "spots", frames=FRAMES, size=SIZE, depth=True)


def _run(bag: Path, out: Path, model: Path, *more: str) -> int:
    return main([str(bag), "-o", str(out), "--model", str(model), "--threads", "1", *more])


def _messages(bag: Path, topic: str) -> list:
    with open_bag(bag) as reader:
        wanted = [c for c in reader.connections if c.topic == topic]
        return [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages(wanted)]


def _copy(bag: Path, out: Path, topic: str, change: Callable[[AnyReader, int, bytes], bytes]) -> None:
    """A bag with the messages of one topic changed: by their number, from 1, and their bytes."""
    with open_bag(bag) as reader, write_bag(out) as writer:
        connections = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore) for c in reader.connections
        }
        number = 0
        for connection, at, data in reader.messages():
            if connection.topic == topic:
                number += 1
                data = change(reader, number, data)
            writer.write(connections[connection.id], at, data)


def test_a_bag_has_its_own_topics_and_ours_in_order(bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    out = tmp_path / "annotated"
    calibrated = ("--depth", "/table/depth/image_raw", "--camera-info", "/table/camera_info")
    assert _run(bag, out, colour_model_path, "--topic", IMAGES, *calibrated) == 0
    with open_bag(bag) as before, open_bag(out) as after:
        counts = {c.topic: c.msgcount for c in after.connections}
        assert {c.topic: c.msgcount for c in before.connections}.items() <= counts.items()
        times = [at for _, at, _ in after.messages()]
        assert times == sorted(times)
        original = [data for _, _, data in before.messages(connections_of(before, IMAGES))]
        assert [data for _, _, data in after.messages(connections_of(after, IMAGES))] == original
    ours = {topic: count for topic, count in counts.items() if topic.startswith("/detector/")}
    each = ("keypoints", "skeleton", "markers", "overlay/compressed")
    assert ours == {"/detector/hierarchy": 1, **{f"/detector/{name}": FRAMES for name in each}}


def _of_raw_images(reader: AnyReader, number: int, data: bytes) -> bytes:
    """A camera_info whose P is that of the rectified images, K and D that of the raw ones."""
    info: Any = reader.deserialize(data, CAMERA_INFO)
    info.k, info.d, info.distortion_model = info.k / 2, np.ones(8), "thin_prism"
    return bytes(reader.typestore.serialize_cdr(info, CAMERA_INFO))


@pytest.mark.parametrize("rectified", [False, True])
def test_the_keypoints_are_where_the_spots_are_in_pixels_and_metres(
    bag: Path, tmp_path: Path, colour_model_path: Path, rectified: bool
) -> None:
    out, given = tmp_path / "annotated", bag
    calibrated = ["--depth", "/table/depth/image_raw", "--camera-info", "/table/camera_info"]
    if rectified:
        given, calibrated = tmp_path / "rectified", [*calibrated, "--rectified"]
        _copy(bag, given, "/table/camera_info", _of_raw_images)
    assert _run(given, out, colour_model_path, "--topic", IMAGES, "--prefix", "/ours", *calibrated) == 0
    found = _messages(out, "/ours/keypoints")
    focal, centre = SIZE[0], (np.array(SIZE) - 1) / 2
    for index, message in enumerate(found):
        truth = np.array(list(spot_centres(index, SIZE).values()))
        np.testing.assert_allclose([(k.u, k.v) for k in message.keypoints], truth, atol=1.5)
        assert message.position_frame_id == FRAME_ID == message.header.frame_id
        metres = [(k.position.x, k.position.y, k.position.z) for k in message.keypoints]
        flat = (truth - centre) / focal * DEPTH_M
        np.testing.assert_allclose(metres, np.column_stack([flat, np.full(3, DEPTH_M)]), atol=0.01)
    graph = _messages(out, "/ours/skeleton")[-1]
    assert list(graph.edge_source) == [0, 1] and np.isfinite(graph.edge_length).all()


def test_depth_of_nearly_the_same_instant_lifts_and_what_cannot_be_read_costs_one_image(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out, topic = tmp_path / "late", tmp_path / "annotated", "/table/depth/image_raw"

    def late(reader: AnyReader, number: int, data: bytes) -> bytes:
        data = with_stamp(data, header_stamp_ns(data) + 8_000_000)
        return data.replace(b"16UC1", b"16XX1") if number == 5 else data

    _copy(bag, given, topic, late)
    calibrated = ("--depth", topic, "--camera-info", "/table/camera_info")
    assert _run(given, out, colour_model_path, "--topic", IMAGES, *calibrated) == 0
    assert "1 without 3-D (depth encoding '16XX1' is not known" in capsys.readouterr().out
    lifted = [message.position_frame_id == FRAME_ID for message in _messages(out, "/detector/keypoints")]
    assert lifted.count(False) == 1 and lifted.index(False) == 4
    strict = (*calibrated, "--max-depth-delay", "0.001")
    assert _run(given, tmp_path / "strict", colour_model_path, "--topic", IMAGES, *strict) == 0
    assert f"{FRAMES} without 3-D (the nearest depth is 0.008 s from the image" in capsys.readouterr().out


def test_images_before_a_usable_calibration_are_served_without_3d(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out, topic = tmp_path / "early", tmp_path / "annotated", "/table/camera_info"

    def uncalibrated(reader: AnyReader, number: int, data: bytes) -> bytes:
        info = replace(reader.deserialize(data, CAMERA_INFO), k=np.zeros(9))
        return data if number > 15 else bytes(reader.typestore.serialize_cdr(info, CAMERA_INFO))

    _copy(bag, given, topic, uncalibrated)
    calibrated = ("--depth", "/table/depth/image_raw", "--camera-info", topic)
    assert _run(given, out, colour_model_path, "--topic", IMAGES, *calibrated) == 0
    assert "without 3-D (camera_info is uncalibrated" in capsys.readouterr().out
    lifted = [message.position_frame_id == FRAME_ID for message in _messages(out, "/detector/keypoints")]
    assert len(lifted) == FRAMES and not lifted[0] and lifted[-1]


def test_a_calibration_of_other_images_is_told_with_what_to_do(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_half_the_size(reader: AnyReader, number: int, data: bytes) -> bytes:
        info = replace(reader.deserialize(data, CAMERA_INFO), width=SIZE[0] // 2, height=SIZE[1] // 2)
        return bytes(reader.typestore.serialize_cdr(info, CAMERA_INFO))

    given, topic = tmp_path / "half", "/table/camera_info"
    _copy(bag, given, topic, of_half_the_size)
    calibrated = ("--depth", "/table/depth/image_raw", "--camera-info", topic)
    assert _run(given, tmp_path / "annotated", colour_model_path, "--topic", IMAGES, *calibrated) == 0
    said = "camera_info is for 96x64 pixels, the image has 192x128: give the calibration of these images"
    assert f"{FRAMES} without 3-D ({said})" in capsys.readouterr().out


def test_images_whose_depth_knows_nothing_are_counted(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, topic, pixels = tmp_path / "blind", "/table/depth/image_raw", SIZE[0] * SIZE[1]
    _copy(bag, given, topic, lambda reader, number, data: data[: -2 * pixels] + bytes(2 * pixels))
    calibrated = ("--depth", topic, "--camera-info", "/table/camera_info")
    assert _run(given, tmp_path / "annotated", colour_model_path, "--topic", IMAGES, *calibrated) == 0
    told = f"{FRAMES} without 3-D (depth and camera_info fit the image, and no keypoint has a position"
    assert told in capsys.readouterr().out


def test_a_calibration_that_changes_with_the_images_is_followed(
    tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out = tmp_path / "changing", tmp_path / "annotated"
    sizes = SIZE, (SIZE[0] // 2, SIZE[1] // 2)
    with write_bag(given) as writer:
        connections: dict[str, Any] = {}
        for number, size in enumerate(sizes):
            part = write_spots_bag(tmp_path / f"part{number}", frames=FRAMES, size=size, depth=True)
            with open_bag(part) as reader:
                for c, at, data in reader.messages():
                    if c.topic not in connections:
                        connections[c.topic] = writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore)
                    later = number * 10**10
                    writer.write(connections[c.topic], at + later, with_stamp(data, header_stamp_ns(data) + later))
    calibrated = ("--depth", "/table/depth/image_raw", "--camera-info", "/table/camera_info")
    assert _run(given, out, colour_model_path, "--topic", IMAGES, *calibrated) == 0
    assert "without 3-D" not in capsys.readouterr().out
    found = _messages(out, "/detector/keypoints")
    for index, message in enumerate(found):
        size = sizes[index // FRAMES]
        truth = np.array(list(spot_centres(index % FRAMES, size).values()))
        flat = (truth - (np.array(size) - 1) / 2) / size[0] * DEPTH_M
        np.testing.assert_allclose([(k.position.x, k.position.y) for k in message.keypoints], flat, atol=0.02)
    assert len(found) == 2 * FRAMES


def test_the_pictures_in_a_bag_are_drawn_on(bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    out = tmp_path / "annotated"
    assert _run(bag, out, colour_model_path, "--topic", IMAGES, "--labels", "--smoothing") == 0
    plain, drawn = (image_to_rgb(_messages(out, topic)[0]) for topic in (IMAGES, "/detector/overlay/compressed"))
    assert plain.shape == drawn.shape
    assert (np.abs(plain.astype(int) - drawn).max(axis=2) > 60).sum() > 100
    assert any(m.text == "green" for m in _messages(out, "/detector/markers")[0].markers)


def test_a_video_shows_every_image_at_the_recordings_pace(bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    out = tmp_path / "overlay.MP4"
    assert _run(bag, out, colour_model_path, "--topic", IMAGES) == 0
    video = cv2.VideoCapture(str(out))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == FRAMES
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(30, abs=0.5)
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == SIZE


def test_messages_that_are_no_messages_are_counted_and_the_rest_is_annotated(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    with open_bag(bag) as reader, write_bag(damaged) as writer:
        (wanted,) = connections_of(reader, IMAGES)
        connection = writer.add_connection(IMAGES, wanted.msgtype, typestore=reader.typestore)
        for number, (_, at, data) in enumerate(reader.messages([wanted])):
            writer.write(connection, at, data[:30] if number == 3 else data)
    assert _run(damaged, tmp_path / "overlay.mp4", colour_model_path, "--topic", IMAGES) == 0
    assert "1 unreadable (a message cannot be deserialised" in capsys.readouterr().out
    video = cv2.VideoCapture(str(tmp_path / "overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == FRAMES - 1


def test_messages_of_types_that_a_bag_does_not_define_are_copied(
    bag: Path, tmp_path: Path, colour_model_path: Path
) -> None:
    """What Humble records by default: sqlite3 without a table of definitions."""
    custom, kind = tmp_path / "humble", "my_robot_msgs/msg/Effort"
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg("float64 effort", kind))
    effort = bytes(store.serialize_cdr(store.types[kind](effort=2.5), kind))
    with open_bag(bag) as reader, Writer(custom, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        (wanted,) = connections_of(reader, IMAGES)
        images = writer.add_connection(IMAGES, wanted.msgtype, typestore=reader.typestore)
        efforts = writer.add_connection("/effort", kind, typestore=store)
        for _, at, data in reader.messages([wanted]):
            writer.write(images, at, data)
            writer.write(efforts, at, effort)
    with closing(sqlite3.connect(custom / "humble.db3")) as database:
        database.execute("DELETE FROM message_definitions")
        database.commit()
    assert _run(custom, tmp_path / "annotated", colour_model_path, "--topic", IMAGES) == 0
    with open_bag(tmp_path / "annotated") as reader:
        copied = reader.messages([c for c in reader.connections if c.topic == "/effort"])
        assert [data for _, _, data in copied] == [effort] * FRAMES


def test_a_bag_is_annotated_again_under_another_prefix(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert _run(bag, first, colour_model_path, "--topic", IMAGES) == 0
    for again in ((), ("--prefix", "detector")):
        assert _run(first, second, colour_model_path, "--topic", IMAGES, *again) == 2
        error = capsys.readouterr().err
        assert "has /detector/hierarchy, /detector/keypoints" in error and "choose another --prefix" in error
        assert not second.exists()
    assert _run(first, second, colour_model_path, "--prefix", "other") == 0, "our overlay is no second camera"
    assert len(_messages(second, "/detector/keypoints")) == len(_messages(second, "/other/keypoints")) == FRAMES


def test_a_bag_that_cannot_be_written_is_not_blamed_on_the_one_that_is_read(bag: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"cannot write .*copy: Connection can only be added once"),
        open_bag(bag) as reader,
        write_bag(tmp_path / "copy") as new,
    ):
        for _ in range(2):
            new.add_connection(IMAGES, IMAGE_TYPES[1], typestore=reader.typestore)


@pytest.mark.parametrize("out", ["copy", "copy.mp4"])
def test_a_bag_that_its_disk_does_not_give_is_not_blamed_on_the_one_that_is_written(
    out: str,
    bag: Path,
    tmp_path: Path,
    colour_model_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = AnyReader.messages

    def cut_short(reader: AnyReader, *args: Any, **kwargs: Any) -> Iterator[tuple]:
        yield from itertools.islice(whole(reader, *args, **kwargs), 15)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(AnyReader, "messages", cut_short)
    assert _run(bag, tmp_path / out, colour_model_path, "--topic", IMAGES) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: bag {bag} cannot be read ([Errno 5] Input/output error)")
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_the_one_topic_of_pictures_is_found_by_what_it_carries_whatever_it_is_called(
    tmp_path: Path, colour_model_path: Path
) -> None:
    given = write_spots_bag(tmp_path / "d435", frames=3, size=SIZE, topic="/depth_cam", depth=True)
    assert _run(given, tmp_path / "annotated", colour_model_path) == 0
    assert len(_messages(tmp_path / "annotated", "/detector/keypoints")) == 3


@pytest.mark.parametrize("out", ["copy", "copy.mp4"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_behind(
    out: str, number: int, bag: Path, tmp_path: Path, colour_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = AnyReader.messages

    def interrupted(reader: AnyReader, *args: Any, **kwargs: Any) -> Iterator[tuple]:
        for index, message in enumerate(whole(reader, *args, **kwargs)):
            if index == 15:
                assert any(tmp_path.iterdir())
                os.kill(os.getpid(), number)
            yield message

    monkeypatch.setattr(AnyReader, "messages", interrupted)
    monkeypatch.setattr("keypoint_perception.annotate._fps", lambda reader, topic: 30.0)
    before = signal.getsignal(signal.SIGTERM)
    assert _run(bag, tmp_path / out, colour_model_path, "--topic", IMAGES) == 128 + number
    assert not any(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("out", ["copy", "copy.mp4"])
def test_who_closes_the_pipe_hears_no_more(out: str, bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    command = [sys.executable, "-m", "keypoint_perception.annotate", str(bag), "-o", str(tmp_path / out)]
    options = ["--model", str(colour_model_path), "--threads", "1", "--topic", IMAGES]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run([*command, *options], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")
    assert not any(tmp_path.iterdir())


def test_stamps_stay_those_of_the_images(bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    out = tmp_path / "annotated"
    assert _run(bag, out, colour_model_path, "--topic", IMAGES) == 0
    with open_bag(out) as reader:
        stamps = {
            topic: [
                header_stamp_ns(d) for _, _, d in reader.messages([c for c in reader.connections if c.topic == topic])
            ]
            for topic in (IMAGES, "/detector/keypoints")
        }
    assert stamps[IMAGES] == stamps["/detector/keypoints"]


@pytest.mark.parametrize(
    "case",
    [
        "missing",
        "empty",
        "truncated",
        "text",
        "topic",
        "exists",
        "depth",
        "model",
        "pictures",
        "place",
        "video",
        "file",
        "prefix",
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing_behind(
    case: str, bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, given, model, more = tmp_path / "out", bag, colour_model_path, ["--topic", IMAGES]
    if case == "missing":
        given, words = tmp_path / "nowhere", "is not there"
    elif case == "empty":
        given, words = tmp_path / "empty", "has no metadata.yaml"
        given.mkdir()
    elif case == "truncated":
        given, words = tmp_path / "short.mcap", "cannot be read"
        given.write_bytes((bag / "spots.mcap").read_bytes()[:20_000])
    elif case == "text":
        given, words = tmp_path / "bag.txt", "cannot be read"
        given.write_text("no bag")
    elif case == "topic":
        more, words = ["--topic", "/sofa"], IMAGES
    elif case == "exists":
        out, words = tmp_path, "exists"
    elif case == "depth":
        more, words = [*more, "--depth", "/table/depth/image_raw"], "--camera-info"
    elif case == "pictures":
        given, words = tmp_path / "unreadable", f"no image on {IMAGES} could be read: a message cannot be"
        with open_bag(bag) as reader, write_bag(given) as writer:
            connection = writer.add_connection(IMAGES, IMAGE_TYPES[1], typestore=reader.typestore)
            writer.write(connection, 1, b"no message")
    elif case == "place":
        out, words = Path("/proc/overlay.mp4"), "cannot write /proc/overlay.mp4 ("
    elif case == "video":
        out, words = tmp_path / "overlay.avi", "videos are written as .mp4"
    elif case == "file":
        out, words = tmp_path / "out.mcap", f"a bag is written as a folder; give its name, as {tmp_path / 'out'}"
    elif case == "prefix":
        more, words = [*more, "--prefix", "my detector"], "--prefix is 'my detector': give a namespace"
    else:
        model, words = tmp_path / "none.onnx", "none.onnx is not there"
    before = set(tmp_path.rglob("*"))
    assert _run(given, out, model, *more) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--threshold", "7"),
        ("--threshold", "nan"),
        ("--threads", "0"),
        ("--threads", "65"),
        ("--max-depth-delay", "nan"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    option: str, value: str, bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(bag, tmp_path / "out", colour_model_path, "--topic", IMAGES, option, value) == 2
    assert f"error: {option} is {value}" in capsys.readouterr().err


def test_a_video_s_pace_is_that_of_its_images_whatever_else_was_recorded(
    bag: Path, tmp_path: Path, colour_model_path: Path
) -> None:
    longer = tmp_path / "longer"
    with open_bag(bag) as reader, write_bag(longer) as writer:
        connections = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore) for c in reader.connections
        }
        written = [(connections[c.id], at, data) for c, at, data in reader.messages()]
        other, _, data = next(message for message in written if message[0].topic != IMAGES)
        for connection, at, message in [(other, written[0][1] - 60 * 10**9, data), *written]:
            burst = 20 * 10**6 if connection.topic == IMAGES and at % 3 else 0  # some images come late
            writer.write(connection, at + burst, message)
    assert _run(longer, tmp_path / "overlay.mp4", colour_model_path, "--topic", IMAGES) == 0
    assert cv2.VideoCapture(str(tmp_path / "overlay.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(30, abs=1.5)


def test_images_without_a_stamp_are_followed_by_the_time_of_recording(
    bag: Path, tmp_path: Path, colour_model_path: Path
) -> None:
    _copy(bag, tmp_path / "unstamped", IMAGES, lambda reader, number, data: with_stamp(data, 0))
    found = []
    for source, out in ((bag, tmp_path / "a"), (tmp_path / "unstamped", tmp_path / "b")):
        assert _run(source, out, colour_model_path, "--topic", IMAGES, "--smoothing") == 0
        messages = _messages(out, "/detector/keypoints")
        found.append([(k.u, k.v) for message in messages for k in message.keypoints])
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    assert _messages(tmp_path / "b", "/detector/keypoints")[0].header.stamp.sec == 0
