"""Broken recordings: what is broken is reported with its place, skipped and counted; the rest is used."""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import lz4.frame
import numpy as np
import pytest
from full_disk import full_disk
from huge_png import huge_png
from recording_files import (
    PERIOD,
    START,
    TOPIC,
    Message,
    compressed,
    encode,
    messages,
    picture,
    write_images,
    write_rosbag1,
    write_rosbag2,
    write_video,
)
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionMode, StoragePlugin
from test_sources import BAGS

from keypoint_perception.bags import open_bag
from keypoint_perception.errors import UserError
from training.data import DataConfig, load_data
from training.data.build import build_store, report
from training.data.opening import open_source
from training.data.salvage import Damage
from training.data.sources import Item
from training.data.store import FrameStore, View

SIZE = (32, 24)
"""The store's, so that frames are compared as they were recorded."""


def built(path: Path, topic: str = TOPIC) -> tuple[FrameStore, list[str]]:
    (source,) = open_source(path)
    found = build_store(source, View(topic, SIZE, None), progress=False)
    return found, report(source, found)


def used(found: FrameStore) -> list[np.ndarray]:
    return [found.frames[i] for s in found.sequences for i in range(s.start, s.stop)]


def cut(path: Path, share: float) -> Path:
    """Cuts a bag's file off, as when the power fails."""
    file = next(f for f in path.iterdir() if f.suffix in (".mcap", ".db3")) if path.is_dir() else path
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    return path


def large(count: int) -> list[Message]:
    """Images too large for a chunk or page to hold many, at 10 Hz."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (120, 160, 3), np.uint8)
    return [Message(encode(np.roll(noise, i, axis=1), "rgb8"), START + i * PERIOD) for i in range(count)]


CUT_BAGS: dict[str, Callable[[Path], Path]] = {
    "mcap": lambda path: write_rosbag2(path / "bag", large(60)),
    "mcap, chunks zstd": lambda path: write_rosbag2(
        path / "bag", large(60), StoragePlugin.MCAP, CompressionMode.STORAGE
    ),
    "sqlite3": lambda path: write_rosbag2(path / "bag", large(60), StoragePlugin.SQLITE3),
    "ROS 1": lambda path: write_rosbag1(path / "run.bag", large(60)),
    "ROS 1, bz2": lambda path: write_rosbag1(path / "run.bag", large(60), Writer1.CompressionFormat.BZ2),
}


@pytest.mark.parametrize("kind", CUT_BAGS)
def test_a_truncated_bag_gives_what_it_has(kind: str, tmp_path: Path) -> None:
    whole = CUT_BAGS[kind](tmp_path)
    found, lines = built(cut(whole, 0.75))
    assert 15 <= len(used(found)) < 60
    assert np.array_equal(np.diff(found.stamps), np.full(len(found.stamps) - 1, PERIOD))
    assert any("ends inside a record" in line or "cannot be read on" in line for line in lines)
    assert all(line.startswith(str(whole)) for line in lines)


def test_a_truncated_compressed_file_gives_what_it_has(tmp_path: Path) -> None:
    from test_sources import compressed_file_bag

    bag = compressed_file_bag(tmp_path / "bag", large(60), StoragePlugin.MCAP)
    (file,) = bag.glob("*.zstd")
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 4])
    found, lines = built(bag)
    assert 15 <= len(used(found)) < 60 and lines


def test_an_unfinished_mcap_of_lz4_chunks(tmp_path: Path) -> None:
    (plain,) = write_rosbag2(tmp_path / "plain", large(40)).glob("*.mcap")
    data, at, out = plain.read_bytes(), 8, bytearray(plain.read_bytes()[:8])
    while data[at] in (0x01, 0x06, 0x07):  # header, chunks and their indices; what follows is written at the end
        (length,) = struct.unpack_from("<Q", data, at + 1)
        record = data[at + 9 : at + 9 + length]
        if data[at] == 0x06:  # times, size and checksum; then "" and the content
            packed = lz4.frame.compress(record[40:])
            record = record[:28] + struct.pack("<I3sQ", 3, b"lz4", len(packed)) + packed
        out += struct.pack("<BQ", data[at], len(record)) + record
        at += 9 + length
    (tmp_path / "run.mcap").write_bytes(out)
    found, _ = built(tmp_path / "run.mcap")
    assert len(used(found)) == 40


def test_a_bag_that_was_never_closed(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", large(30))
    (bag / "metadata.yaml").unlink()
    found, _ = built(cut(bag, 0.8))
    assert len(used(found)) >= 10


def test_a_damaged_chunk_costs_only_itself(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", large(60), StoragePlugin.MCAP, CompressionMode.STORAGE)
    (file,) = bag.glob("*.mcap")
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(8)
    file.write_bytes(data)
    found, lines = built(bag)
    assert 30 <= len(used(found)) < 60
    assert found.stamps[0] == START and found.stamps[-1] == START + 59 * PERIOD  # before it and after it
    assert any("damaged record" in line and "byte" in line for line in lines)


@pytest.mark.parametrize("kind", ["mcap, chunks zstd", "ROS 1, bz2"])
def test_a_damaged_chunk_without_the_topic_costs_nothing(kind: str, tmp_path: Path) -> None:
    other = [message._replace(topic="/other") for message in large(40)]
    path = BAGS[kind](tmp_path, other + [m._replace(stamp=m.stamp + 40 * PERIOD) for m in large(4)])
    file = next(path.glob("*.mcap")) if path.is_dir() else path
    data = bytearray(file.read_bytes())
    data[len(data) // 4 : len(data) // 4 + 8] = bytes(8)
    file.write_bytes(data)
    found, lines = built(path)
    assert len(used(found)) == 4 and not lines


@pytest.mark.parametrize("kind", ["mcap", "mcap, chunks zstd", "sqlite3", "ROS 1"])
def test_a_bag_that_is_cut_while_it_is_read(kind: str, tmp_path: Path) -> None:
    (source,) = open_source(BAGS[kind](tmp_path, large(60)))
    items = source.items(TOPIC)
    assert isinstance(next(items), Item)
    (file,) = source.files()
    os.truncate(file, file.stat().st_size * 3 // 4)
    rest = list(items)
    assert any(isinstance(found, Damage) for found in rest)
    assert 20 < sum(isinstance(found, Item) for found in rest) < 59


def test_a_missing_part_of_a_split_recording(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", messages(4))
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- bag.mcap", "- bag.mcap\n  - bag_1.mcap"))
    found, lines = built(bag)
    assert len(used(found)) == 4
    assert "bag_1.mcap" in "".join(lines) and "is not there" in "".join(lines)


def test_bad_jpegs_are_skipped_and_counted(tmp_path: Path) -> None:
    content = messages(10, "jpeg")
    content[3] = Message({"format": "jpeg", "data": np.frombuffer(b"no jpeg", np.uint8)}, content[3].stamp)
    for index in (5, 7):
        data = content[index].fields["data"]
        content[index] = Message({"format": "jpeg", "data": data[: 200 + index]}, content[index].stamp)
    found, lines = built(write_rosbag2(tmp_path / "bag", content))
    assert [int(stamp - START) // PERIOD for stamp in found.stamps] == [0, 1, 2, 4, 6, 8, 9]
    assert any("skipped 2 of 10" in line and "cut short" in line and "message 5, message 7" in line for line in lines)
    assert any("skipped 1 of 10" in line and "not an image file" in line and "message 3" in line for line in lines)


def test_reasons_that_differ_in_numbers_are_one_line(tmp_path: Path) -> None:
    content = messages(12, "jpeg")
    content[2:] = [
        m._replace(fields={**m.fields, "data": m.fields["data"][: 150 + i]}) for i, m in enumerate(content[2:])
    ]
    _, lines = built(write_rosbag2(tmp_path / "bag", content))
    assert len(lines) == 1 and "skipped 10 of 12" in lines[0] and lines[0].endswith("…)")


def test_stamps_that_go_back_a_little_are_skipped(tmp_path: Path) -> None:
    content = messages(8)
    swapped = [*content[:3], content[4], content[3], *content[5:]]
    swapped = [m._replace(recorded=START + i * PERIOD) for i, m in enumerate(swapped)]
    found, lines = built(write_rosbag2(tmp_path / "bag", swapped))
    assert len(used(found)) == 7 and len(found.sequences) == 1
    assert np.all(np.diff(found.stamps) > 0)
    assert len(lines) == 1 and "stamp does not come after" in lines[0] and "message 4" in lines[0]


def test_a_clock_that_was_set_back_begins_a_new_sequence(tmp_path: Path) -> None:
    first, second = messages(5), messages(5, start=START - 3600 * 10**9)
    content = [m._replace(recorded=START + i * PERIOD) for i, m in enumerate(first + second)]
    bag = write_rosbag2(tmp_path / "bag", content)
    found, lines = built(bag)
    assert [(s.start, s.stop) for s in found.sequences] == [(0, 5), (5, 10)] and not lines
    data = load_data(
        DataConfig(sources=[str(bag)], input_size=SIZE, validation=0.0, max_seconds=7200.0), progress=False
    )
    assert [name for name, _ in data.sequences()] == ["bag", "bag#2"]


def test_a_topic_that_changes_size(tmp_path: Path) -> None:
    other = [Message(encode(picture(i, (20, 10)), "rgb8"), START + i * PERIOD) for i in range(2)]
    content = other + [m._replace(stamp=m.stamp + 2 * PERIOD) for m in messages(6)]
    found, lines = built(write_rosbag2(tmp_path / "bag", content))
    assert len(used(found)) == 6 and found.sequences[0].size == SIZE
    assert np.array_equal(used(found)[0], picture(0))
    assert len(lines) == 1 and "skipped 2 of 8" in lines[0] and "20 x 10 pixels, most have 32 x 24" in lines[0]


def test_a_time_that_no_clock_tells(tmp_path: Path) -> None:
    content = messages(4)
    content[2] = content[2]._replace(stamp=0, recorded=2**63)
    found, lines = built(write_rosbag2(tmp_path / "bag", content))
    assert len(used(found)) == 3
    assert any("its time is 9223372036854775808 ns, later than any clock (at message 3)" in line for line in lines)


def test_a_damaged_list_of_files(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", messages(4))
    (bag / "metadata.yaml").write_text("[" * 5000)
    assert len(used(built(bag)[0])) == 4


def test_a_message_that_cannot_be_deserialised(tmp_path: Path) -> None:
    from rosbags.rosbag2 import Writer

    good = messages(2)
    bag = write_rosbag2(tmp_path / "good", good)
    found, _ = built(bag)
    from recording_files import ROS2

    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(TOPIC, "sensor_msgs/msg/Image", typestore=ROS2)
        writer.write(connection, START, b"\x00\x01\x00\x00short")
        (source,) = open_source(bag)
        for raw in source.raw_messages(TOPIC):  # type: ignore[attr-defined]
            writer.write(connection, raw.log_time + PERIOD, raw.data)
    found, lines = built(tmp_path / "bag")
    assert len(used(found)) == 2
    assert len(lines) == 1 and "message 0" in lines[0] and "deserialised" in lines[0]


def test_a_truncated_video(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(40)]
    path = write_video(tmp_path / "film.avi", noise, "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found, lines = built(path, "")
    assert 5 <= len(used(found)) < 40
    assert any("frame" in line for line in lines) or not lines  # some containers count again when they have no index


def test_a_bad_file_among_images(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", [picture(i) for i in range(4)])
    (folder / "img1.png").write_bytes(b"no png")
    (folder / "img2.png").write_bytes(huge_png())
    found, lines = built(folder, "")
    assert len(used(found)) == 2
    assert len(lines) == 1 and "img1.png, img2.png" in lines[0] and "skipped 2 of 4" in lines[0]


def test_a_bad_episode(tmp_path: Path) -> None:
    from test_sources import episode

    from training.simulation.episode import write_episode

    write_episode(tmp_path / "episode_00000.npz", episode(0))
    (tmp_path / "episode_00001.npz").write_bytes(b"no zip")
    np.savez(tmp_path / "episode_00002.npz", frame_differences=np.zeros((6, 8), np.uint8), fps=0.0)
    write_episode(tmp_path / "episode_00003.npz", episode(3))
    found, lines = built(tmp_path, "")
    assert len(used(found)) == 12
    assert "episode_00001.npz" in lines[0] and "(6, 8) uint8, 0.0 a second" in lines[1]


def test_nothing_usable_says_what_there_is(tmp_path: Path) -> None:
    bad = Message({"format": "jpeg", "data": np.frombuffer(b"no jpeg", np.uint8)}, START)
    bag = write_rosbag2(tmp_path / "bag", [bad, bad._replace(stamp=START + 1)])
    with pytest.raises(UserError, match=r"nothing in topic /camera.* can be used: 2 x .*not an image file.*message 0"):
        built(bag)
    assert not list((tmp_path / "bag.frames").glob("*.partial"))


@pytest.mark.parametrize("name", ["x.mcap", "x.db3", "x.bag"])
def test_a_file_that_only_looks_like_a_bag(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("text, not a bag")
    with pytest.raises(UserError, match=rf"nothing in .*{name} can be read \({name}, .*\): record or copy it again"):
        load_data(DataConfig(sources=[str(tmp_path / name)]), progress=False)


def test_a_bag_cut_off_in_its_only_chunk(tmp_path: Path) -> None:
    bag = cut(write_rosbag2(tmp_path / "bag", messages(2)), 0.5)
    with pytest.raises(UserError, match=r"nothing in .*bag can be read \(bag\.mcap, .*the file ends inside a record"):
        load_data(DataConfig(sources=[str(bag)]), progress=False)


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_of_no_bytes(storage: StoragePlugin, tmp_path: Path) -> None:
    cut(write_rosbag2(tmp_path / "bag", messages(2), storage), 0.0)
    for opened in (lambda: open_source(tmp_path / "bag"), lambda: open_bag(tmp_path / "bag").__enter__()):
        with pytest.raises(UserError, match=r"bag is empty \(0 bytes\): record or copy it again"):
            opened()


def test_an_empty_bag(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", [])
    with pytest.raises(UserError, match=r"has no image topic with pictures \(it has none at all\)"):
        load_data(DataConfig(sources=[str(bag)]), progress=False)


def test_what_is_skipped_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = messages(6, "jpeg")
    content[3] = content[3]._replace(fields={**compressed(picture(0), "jpeg"), "data": np.zeros(9, np.uint8)})
    bag = write_rosbag2(tmp_path / "bag", content)
    load_data(DataConfig(sources=[str(bag)], input_size=SIZE))
    assert "skipped 1 of 6" in capsys.readouterr().err


def test_a_disk_without_room_to_unpack_a_file(tmp_path: Path) -> None:
    bag = BAGS["mcap, file zstd"](tmp_path, messages(2))
    with full_disk(100), pytest.raises(UserError, match=r"mcap.zstd cannot be unpacked into .*too large.*TMPDIR"):
        built(bag)


@pytest.mark.parametrize("kind", ["mcap", "mcap, file zstd"])
def test_a_disk_that_does_not_give_a_recording_is_not_taken_for_the_stores(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> Iterator[Any]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
        yield

    bag = BAGS[kind](tmp_path, messages(2))
    if kind == "mcap":
        (source,) = open_source(bag)
        source.topics()
        for name in ("indexed_messages", "salvage"):
            monkeypatch.setattr(f"training.data.bags.{name}", failing)
    else:
        monkeypatch.setattr("training.data.bags.zstd.ZstdFile.read", lambda *_: next(failing()))
        (source,) = open_source(bag)
    with pytest.raises(UserError, match=r"cannot read .*mcap.*Input/output error.*: look at its disk"):
        build_store(source, View(TOPIC, SIZE, None), progress=False)


@pytest.mark.parametrize("column", ["name", "type"])
@pytest.mark.parametrize("value", ["x'a2'", "CAST(x'a2' AS TEXT)", "7"])
def test_a_database_with_damaged_names(column: str, value: str, tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", messages(4) + messages(2, topic="/other"), StoragePlugin.SQLITE3)
    with closing(sqlite3.connect(bag / "bag.db3")) as database:
        database.execute(f"UPDATE topics SET {column} = {value} WHERE name = '/other'")
        database.commit()
    (source,) = open_source(bag)
    assert (TOPIC, 4) in {(topic.name, topic.messages) for topic in source.topics()}
    assert len(used(built(bag)[0])) == 4


def test_a_database_with_damaged_rows(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", messages(6), StoragePlugin.SQLITE3)
    with closing(sqlite3.connect(bag / "bag.db3")) as database:
        database.execute("UPDATE messages SET data = CAST(x'a2' AS TEXT) WHERE id = 2")
        database.execute("UPDATE messages SET topic_id = 99 WHERE id = 4")
        database.commit()
    found, lines = built(bag)
    assert len(used(found)) == 4
    assert any("row 4 " in line or "row 4)" in line for line in lines), lines


def test_a_cut_picture_in_a_folder_is_skipped(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), picture(number))
    whole = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (source,) = open_source(tmp_path)
    store = build_store(source, View("", SIZE, None), tmp_path / "stores", progress=False)
    assert len(store.frames) == 2
    assert ["cut short" in reason for reason in store.skips.by_reason] == [True]
