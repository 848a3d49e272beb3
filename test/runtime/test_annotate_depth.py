"""What annotate says in metres, and what it says where depth or calibration do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import CALIBRATED, CAMERA_INFO, DEPTH, FRAMES, IMAGES, SIZE, annotate, copied, messages
from rosbags.highlevel import AnyReader
from spots_bag import DEPTH_M, FRAME_ID, spot_centres, write_spots_bag

from keypoint_perception.bags import open_bag, write_bag
from keypoint_perception.stamps import serialised_stamp_ns, with_stamp

INFO_TYPE = "sensor_msgs/msg/CameraInfo"


def _of_raw_images(reader: AnyReader, number: int, data: bytes) -> bytes:
    """A camera_info whose P is that of the rectified images, K and D that of the raw ones."""
    info: Any = reader.deserialize(data, INFO_TYPE)
    info.k, info.d, info.distortion_model = info.k / 2, np.ones(8), "thin_prism"
    return bytes(reader.typestore.serialize_cdr(info, INFO_TYPE))


@pytest.mark.parametrize("rectified", [False, True])
def test_the_keypoints_are_where_the_spots_are_in_pixels_and_metres(
    bag: Path, tmp_path: Path, colour_model_path: Path, rectified: bool
) -> None:
    out, given = tmp_path / "annotated", bag
    calibrated = list(CALIBRATED)
    if rectified:
        given, calibrated = tmp_path / "rectified", [*calibrated, "--rectified"]
        copied(bag, given, CAMERA_INFO, _of_raw_images)
    assert annotate(given, out, colour_model_path, "--topic", IMAGES, "--prefix", "/ours", *calibrated) == 0
    found = messages(out, "/ours/keypoints")
    focal, centre = SIZE[0], (np.array(SIZE) - 1) / 2
    for index, message in enumerate(found):
        truth = np.array(list(spot_centres(index, SIZE).values()))
        np.testing.assert_allclose([(k.u, k.v) for k in message.keypoints], truth, atol=1.5)
        assert message.position_frame_id == FRAME_ID == message.header.frame_id
        metres = [(k.position.x, k.position.y, k.position.z) for k in message.keypoints]
        flat = (truth - centre) / focal * DEPTH_M
        np.testing.assert_allclose(metres, np.column_stack([flat, np.full(3, DEPTH_M)]), atol=0.01)
    graph = messages(out, "/ours/skeleton")[-1]
    assert list(graph.edge_source) == [0, 1] and np.isfinite(graph.edge_length).all()


def test_depth_of_nearly_the_same_instant_lifts_and_what_cannot_be_read_costs_one_image(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out, topic = tmp_path / "late", tmp_path / "annotated", DEPTH

    def late(reader: AnyReader, number: int, data: bytes) -> bytes:
        data = with_stamp(data, serialised_stamp_ns(data) + 8_000_000)
        return data.replace(b"16UC1", b"16XX1") if number == 5 else data

    copied(bag, given, topic, late)
    calibrated = ("--depth", topic, "--camera-info", CAMERA_INFO)
    assert annotate(given, out, colour_model_path, "--topic", IMAGES, *calibrated) == 0
    assert "1 without 3-D (depth encoding '16XX1' is not known" in capsys.readouterr().out
    lifted = [message.position_frame_id == FRAME_ID for message in messages(out, "/detector/keypoints")]
    assert lifted.count(False) == 1 and lifted.index(False) == 4
    strict = (*calibrated, "--max-depth-delay", "0.001")
    assert annotate(given, tmp_path / "strict", colour_model_path, "--topic", IMAGES, *strict) == 0
    assert f"{FRAMES} without 3-D (the nearest depth is 0.008 s from the image" in capsys.readouterr().out


def test_images_before_a_usable_calibration_are_served_without_3d(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, out, topic = tmp_path / "early", tmp_path / "annotated", CAMERA_INFO

    def uncalibrated(reader: AnyReader, number: int, data: bytes) -> bytes:
        info = replace(reader.deserialize(data, INFO_TYPE), k=np.zeros(9))
        return data if number > 15 else bytes(reader.typestore.serialize_cdr(info, INFO_TYPE))

    copied(bag, given, topic, uncalibrated)
    calibrated = ("--depth", DEPTH, "--camera-info", topic)
    assert annotate(given, out, colour_model_path, "--topic", IMAGES, *calibrated) == 0
    assert "without 3-D (camera_info is uncalibrated" in capsys.readouterr().out
    lifted = [message.position_frame_id == FRAME_ID for message in messages(out, "/detector/keypoints")]
    assert len(lifted) == FRAMES and not lifted[0] and lifted[-1]


def test_a_calibration_of_other_images_is_told_with_what_to_do(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def of_half_the_size(reader: AnyReader, number: int, data: bytes) -> bytes:
        info = replace(reader.deserialize(data, INFO_TYPE), width=SIZE[0] // 2, height=SIZE[1] // 2)
        return bytes(reader.typestore.serialize_cdr(info, INFO_TYPE))

    given, topic = tmp_path / "half", CAMERA_INFO
    copied(bag, given, topic, of_half_the_size)
    calibrated = ("--depth", DEPTH, "--camera-info", topic)
    assert annotate(given, tmp_path / "annotated", colour_model_path, "--topic", IMAGES, *calibrated) == 0
    said = "camera_info is for 96x64 pixels, the image has 192x128: give the calibration of these images"
    assert f"{FRAMES} without 3-D ({said})" in capsys.readouterr().out


def test_images_whose_depth_knows_nothing_are_counted(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, topic, pixels = tmp_path / "blind", DEPTH, SIZE[0] * SIZE[1]
    copied(bag, given, topic, lambda reader, number, data: data[: -2 * pixels] + bytes(2 * pixels))
    calibrated = ("--depth", topic, "--camera-info", CAMERA_INFO)
    assert annotate(given, tmp_path / "annotated", colour_model_path, "--topic", IMAGES, *calibrated) == 0
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
                    writer.write(connections[c.topic], at + later, with_stamp(data, serialised_stamp_ns(data) + later))
    calibrated = CALIBRATED
    assert annotate(given, out, colour_model_path, "--topic", IMAGES, *calibrated) == 0
    assert "without 3-D" not in capsys.readouterr().out
    found = messages(out, "/detector/keypoints")
    for index, message in enumerate(found):
        size = sizes[index // FRAMES]
        truth = np.array(list(spot_centres(index % FRAMES, size).values()))
        flat = (truth - (np.array(size) - 1) / 2) / size[0] * DEPTH_M
        np.testing.assert_allclose([(k.position.x, k.position.y) for k in message.keypoints], flat, atol=0.02)
    assert len(found) == 2 * FRAMES
