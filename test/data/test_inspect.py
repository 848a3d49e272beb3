"""`python -m training inspect`."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from recording_files import PERIOD, START, TOPIC, Message, encode, messages, picture, write_images, write_rosbag2

from training.__main__ import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str | os.PathLike[str]) -> tuple[int, str, str]:
    status = main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def row(out: str, topic: str) -> str:
    return next(line for line in out.splitlines() if line.split()[:1] == [topic])


def test_topics_types_encodings_sizes_rates_and_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = [m for i, m in enumerate(messages(30)) if not 10 <= i < 15]
    depth = {**encode(picture(0), "mono16"), "encoding": "16UC1"}
    content += [Message(depth, START + i * PERIOD, "/camera/depth") for i in range(5)]
    bag = write_rosbag2(tmp_path / "bag", content)
    status, out, _ = run(capsys, bag, "-o", tmp_path / "sheet.png")
    assert status == 0
    assert " ".join(row(out, TOPIC).split()[1:]) == "Image rgb8 32x24 25 2.90 10.00 Hz 1 (0.60 s) yes"
    assert "no: depth" in row(out, "/camera/depth")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None and sheet.shape[1] > 1000 and sheet.std() > 10


def test_other_topics_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from recording_files import ROS2
    from rosbags.rosbag2 import Writer

    with Writer(tmp_path / "bag", version=9) as writer:
        connection = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=ROS2)
        message = ROS2.types["std_msgs/msg/String"](data="hello")
        writer.write(connection, START, ROS2.serialize_cdr(message, "std_msgs/msg/String"))
    status, out, err = run(capsys, tmp_path / "bag")
    assert "no: not images" in row(out, "/chatter") and "String" in row(out, "/chatter")
    assert status == 2 and "nothing in" in err and err.count("\n") == 1


def test_damage_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = messages(8, "jpeg")
    content[4] = Message({"format": "jpeg", "data": np.zeros(10, np.uint8)}, content[4].stamp)
    bag = write_rosbag2(tmp_path / "bag", content)
    status, out, _ = run(capsys, bag, "-o", tmp_path / "sheet.png")
    assert status == 0
    assert "yes, but 1 of 8 looked at cannot be read" in row(out, TOPIC)
    assert f"{TOPIC}: compressed image 'jpeg' of 10 bytes is damaged" in out and "(at message 4)" in out


def test_several_sources_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "stills", [picture(i) for i in range(3)])
    write_rosbag2(tmp_path / "bag", messages(3))
    status, out, _ = run(capsys, tmp_path, "-o", tmp_path / "out" / "sheet.png")
    assert status == 0 and "rosbag2" in out and "folder of images" in out
    assert (tmp_path / "out" / "sheet.png").exists()


def test_a_file_of_which_nothing_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "junk.mcap").write_text("text, not a bag")
    status, _, err = run(capsys, tmp_path / "junk.mcap")
    assert status == 2 and "junk.mcap can be read (junk.mcap, byte 0: is not an mcap file)" in err


def test_a_path_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "/no/such/bag")
    assert status == 2 and "is not there" in err and err.count("\n") == 1
