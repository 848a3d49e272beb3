"""A recording in; the same recording with our topics, or a video, out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from annotated import CALIBRATED, FRAMES, IMAGES, SIZE, annotate, copied, messages
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from spots_bag import write_spots_bag

from keypoint_perception.bags import connections_of, open_bag, write_bag
from keypoint_perception.images import image_to_rgb
from keypoint_perception.stamps import serialised_stamp_ns, with_stamp


def test_a_bag_has_its_own_topics_and_ours_in_order(bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    out = tmp_path / "annotated"
    calibrated = CALIBRATED
    assert annotate(bag, out, colour_model_path, "--topic", IMAGES, *calibrated) == 0
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


def test_the_pictures_in_a_bag_are_drawn_on(bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    out = tmp_path / "annotated"
    assert annotate(bag, out, colour_model_path, "--topic", IMAGES, "--labels", "--smoothing") == 0
    plain, drawn = (image_to_rgb(messages(out, topic)[0]) for topic in (IMAGES, "/detector/overlay/compressed"))
    assert plain.shape == drawn.shape
    assert (np.abs(plain.astype(int) - drawn).max(axis=2) > 60).sum() > 100
    assert any(m.text == "green" for m in messages(out, "/detector/markers")[0].markers)


def test_a_video_shows_every_image_at_the_recordings_pace(bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    out = tmp_path / "overlay.MP4"
    assert annotate(bag, out, colour_model_path, "--topic", IMAGES) == 0
    video = cv2.VideoCapture(str(out))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == FRAMES
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(30, abs=0.5)
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == SIZE


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
    assert annotate(custom, tmp_path / "annotated", colour_model_path, "--topic", IMAGES) == 0
    with open_bag(tmp_path / "annotated") as reader:
        copied = reader.messages([c for c in reader.connections if c.topic == "/effort"])
        assert [data for _, _, data in copied] == [effort] * FRAMES


def test_a_bag_is_annotated_again_under_another_prefix(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert annotate(bag, first, colour_model_path, "--topic", IMAGES) == 0
    for again in ((), ("--prefix", "detector")):
        assert annotate(first, second, colour_model_path, "--topic", IMAGES, *again) == 2
        error = capsys.readouterr().err
        assert "has /detector/hierarchy, /detector/keypoints" in error and "choose another --prefix" in error
        assert not second.exists()
    assert annotate(first, second, colour_model_path, "--prefix", "other") == 0, "our overlay is no second camera"
    assert len(messages(second, "/detector/keypoints")) == len(messages(second, "/other/keypoints")) == FRAMES


def test_the_one_topic_of_pictures_is_found_by_what_it_carries_whatever_it_is_called(
    tmp_path: Path, colour_model_path: Path
) -> None:
    given = write_spots_bag(tmp_path / "d435", frames=3, size=SIZE, topic="/depth_cam", depth=True)
    assert annotate(given, tmp_path / "annotated", colour_model_path) == 0
    assert len(messages(tmp_path / "annotated", "/detector/keypoints")) == 3


def test_stamps_stay_those_of_the_images(bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    out = tmp_path / "annotated"
    assert annotate(bag, out, colour_model_path, "--topic", IMAGES) == 0
    with open_bag(out) as reader:
        stamps = {
            topic: [
                serialised_stamp_ns(data)
                for _, _, data in reader.messages([c for c in reader.connections if c.topic == topic])
            ]
            for topic in (IMAGES, "/detector/keypoints")
        }
    assert stamps[IMAGES] == stamps["/detector/keypoints"]


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
    assert annotate(longer, tmp_path / "overlay.mp4", colour_model_path, "--topic", IMAGES) == 0
    assert cv2.VideoCapture(str(tmp_path / "overlay.mp4")).get(cv2.CAP_PROP_FPS) == pytest.approx(30, abs=1.5)


def test_images_without_a_stamp_are_followed_by_the_time_of_recording(
    bag: Path, tmp_path: Path, colour_model_path: Path
) -> None:
    copied(bag, tmp_path / "unstamped", IMAGES, lambda reader, number, data: with_stamp(data, 0))
    found = []
    for source, out in ((bag, tmp_path / "a"), (tmp_path / "unstamped", tmp_path / "b")):
        assert annotate(source, out, colour_model_path, "--topic", IMAGES, "--smoothing") == 0
        served = messages(out, "/detector/keypoints")
        found.append([(k.u, k.v) for message in served for k in message.keypoints])
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    assert messages(tmp_path / "b", "/detector/keypoints")[0].header.stamp.sec == 0
