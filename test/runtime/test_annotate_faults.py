"""Recordings that are damaged, disks that fail, signals and wrong options: annotate says so in a line."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest
from annotated import DEPTH, FRAMES, IMAGES, annotate
from rosbags.highlevel import AnyReader

from keypoint_perception.bags import IMAGE_TYPES, connections_of, open_bag, write_bag
from keypoint_perception.errors import UserError


def test_messages_that_are_no_messages_are_counted_and_the_rest_is_annotated(
    bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged"
    with open_bag(bag) as reader, write_bag(damaged) as writer:
        (wanted,) = connections_of(reader, IMAGES)
        connection = writer.add_connection(IMAGES, wanted.msgtype, typestore=reader.typestore)
        for number, (_, at, data) in enumerate(reader.messages([wanted])):
            writer.write(connection, at, data[:30] if number == 3 else data)
    assert annotate(damaged, tmp_path / "overlay.mp4", colour_model_path, "--topic", IMAGES) == 0
    assert "1 unreadable (a message cannot be deserialised" in capsys.readouterr().out
    video = cv2.VideoCapture(str(tmp_path / "overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == FRAMES - 1


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
    assert annotate(bag, tmp_path / out, colour_model_path, "--topic", IMAGES) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: bag {bag} cannot be read ([Errno 5] Input/output error)")
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


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
    assert annotate(bag, tmp_path / out, colour_model_path, "--topic", IMAGES) == 128 + number
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


class _Given(NamedTuple):
    """What is asked for, "{}" being a folder of the test's, and what the error says."""

    says: str
    bag: str = ""
    out: str = "{}/out"
    model: str = ""
    options: tuple[str, ...] = ("--topic", IMAGES)


@pytest.mark.parametrize(
    "given",
    [
        _Given("is not there", bag="{}/nowhere"),
        _Given("has no metadata.yaml", bag="{}/empty"),
        _Given("cannot be read", bag="{}/truncated.mcap"),
        _Given("cannot be read", bag="{}/bag.txt"),
        _Given(f"no image on {IMAGES} could be read: a message cannot be", bag="{}/no_images"),
        _Given(IMAGES, options=("--topic", "/sofa")),
        _Given(f"has no image topic with pictures ({DEPTH}: depth,", bag="{}/flat", options=()),
        _Given("/a, /b: choose with --topic", bag="{}/two", options=()),
        _Given("--camera-info", options=("--topic", IMAGES, "--depth", DEPTH)),
        _Given("--prefix is 'my detector': give a namespace", options=("--topic", IMAGES, "--prefix", "my detector")),
        _Given("exists", out="{}"),
        _Given("cannot write /proc/overlay.mp4 (", out="/proc/overlay.mp4"),
        _Given("videos are written as .mp4", out="{}/overlay.avi"),
        _Given("a bag is written as a folder; give its name, as {}/out", out="{}/out.mcap"),
        _Given("none.onnx is not there", model="{}/none.onnx"),
    ],
    ids=lambda given: given.says,
)
def test_bad_input_is_one_clear_line_and_leaves_nothing_behind(
    given: _Given, bag: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_bad_bags(bag, tmp_path)
    before = set(tmp_path.rglob("*"))
    source, out, model = (Path(name.format(tmp_path)) for name in (given.bag, given.out, given.model))
    source, model = source if given.bag else bag, model if given.model else colour_model_path
    assert annotate(source, out, model, *given.options) == 2
    error = capsys.readouterr().err
    assert given.says.format(tmp_path) in error and error.startswith("error: ") and error.count("\n") == 1
    assert set(tmp_path.rglob("*")) == before


def _write_bad_bags(bag: Path, folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "truncated.mcap").write_bytes((bag / "spots.mcap").read_bytes()[:20_000])
    (folder / "bag.txt").write_text("no bag")
    with open_bag(bag) as reader, write_bag(folder / "no_images") as writer:
        connection = writer.add_connection(IMAGES, IMAGE_TYPES[1], typestore=reader.typestore)
        writer.write(connection, 1, b"no message")
    with open_bag(bag) as reader, write_bag(folder / "flat") as flat, write_bag(folder / "two") as two:
        connections = [two.add_connection(name, IMAGE_TYPES[1], typestore=reader.typestore) for name in ("/a", "/b")]
        depth = flat.add_connection(DEPTH, IMAGE_TYPES[0], typestore=reader.typestore)
        for connection, at, data in reader.messages():
            if connection.topic == DEPTH:
                flat.write(depth, at, data)
            elif connection.topic == IMAGES:
                for copy in connections:
                    two.write(copy, at, data)


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
    assert annotate(bag, tmp_path / "out", colour_model_path, "--topic", IMAGES, option, value) == 2
    assert f"error: {option} is {value}" in capsys.readouterr().err
