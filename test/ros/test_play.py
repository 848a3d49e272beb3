"""The player's command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from spots_bag import write_spots_bag

from keypoint_perception.bags import open_bag, write_bag

EFFORT = "/effort"
PLAYER = Path(__file__).resolve().parents[2] / "tools" / "play.py"
IMAGES, CAMERA_INFO, SILENT = "/table/image_raw/compressed", "/table/camera_info", "/table/ground_truth/keypoints"


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with a topic that has no message."""
    folder = tmp_path_factory.mktemp("bags")
    whole = write_spots_bag(folder / "whole", frames=2)
    with open_bag(whole) as reader, write_bag(folder / "bag") as writer:
        connections = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore) for c in reader.connections
        }
        for connection, at, data in reader.messages():
            if connection.topic != SILENT:
                writer.write(connections[connection.id], at, data)
        store = get_typestore(Stores.ROS2_JAZZY)
        store.register(get_types_from_msg("float64 newtons", "my_robot_msgs/msg/Effort"))
        effort = store.types["my_robot_msgs/msg/Effort"](newtons=2.5)
        connection = writer.add_connection(EFFORT, effort.__msgtype__, typestore=store)
        writer.write(connection, at, bytes(store.serialize_cdr(effort, effort.__msgtype__)))
    return folder / "bag"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--topics", IMAGES, SILENT, "--wait-for", SILENT], f"--wait-for is {SILENT}: give one of --topics with"),
        (["--topics", CAMERA_INFO, "--wait-for", IMAGES], f"--wait-for is {IMAGES}: give one of --topics with"),
        (["--topics", "/sofa"], "has no /sofa: it has"),
        (["--topics", SILENT], "has no message on"),
        (["--topics", EFFORT], "my_robot_msgs/msg/Effort are not known here: install and source my_robot_msgs"),
        ([], "--topics"),
    ],
)
def test_what_cannot_be_played_is_one_line(bag: Path, options: list[str], words: str) -> None:
    ran = subprocess.run([sys.executable, str(PLAYER), str(bag), *options], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert words in ran.stderr and ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1


def test_a_place_that_does_not_take_the_stamps_is_one_line(bag: Path) -> None:
    command = [sys.executable, str(PLAYER), str(bag), "--topics", IMAGES, "--stamps", "/proc/stamps.json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2 and ran.stderr.startswith("error: cannot write /proc/stamps.json (")
