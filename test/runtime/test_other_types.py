"""Recordings with messages beside the images that nobody here can read: they are copied, or named and left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from spots_bag import write_spots_bag

from keypoint_perception.annotate import main
from keypoint_perception.bags import message_store, open_bag, reliable
from training.data.bags import Bag
from training.data.salvage import Damage

IMAGES, IMAGE_TYPE, FRAMES = "/table/image_raw/compressed", "sensor_msgs/msg/CompressedImage", 6
RULE = "=" * 80 + "\n"
SERVICE = (
    "service_msgs/ServiceEventInfo info\nstd_srvs/srv/SetBool_Request[<=1] request\n"
    f"{RULE}MSG: service_msgs/ServiceEventInfo\nuint8 event_type\nchar[16] client_gid\n"
    f"{RULE}MSG: std_srvs/srv/SetBool_Request\nbool data\n"
)
TYPES = {
    "/enable/_service_event": ("std_srvs/srv/SetBool_Event", SERVICE),
    "/undefined/_service_event": ("std_srvs/srv/Trigger_Event", ""),
    "/label": ("my_msgs/msg/Label", "wstring text\n"),
    "/shape": ("my_msgs/msg/Shape", f"{RULE}IDL: my_msgs/msg/Shape\nmodule my_msgs {{ struct Shape {{ map m; }}; }};"),
}
DATA = b"\0\1\0\0\1\0\0\0"
FOREIGN = "descriptor \x01"


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spots_bag(tmp_path_factory.mktemp("bags") / "spots", frames=FRAMES)


def _with_others(spots: Path, path: Path, plugin: StoragePlugin, digest: str, *, foreign: bool = False) -> Path:
    """The images, half of them on a second channel of their topic in an mcap file, and messages of TYPES.

    foreign: whether there is a channel of Protobuf, too.
    """
    with open_bag(spots) as reader, Writer(path, version=8, storage_plugin=plugin) as writer:
        images = [c for c in reader.connections if c.topic == IMAGES]
        one = two = writer.add_connection(IMAGES, IMAGE_TYPE, typestore=message_store())
        if plugin == StoragePlugin.MCAP:
            qos = [reliable()]
            two = writer.add_connection(IMAGES, IMAGE_TYPE, typestore=message_store(), offered_qos_profiles=qos)
        others = [writer.add_connection(t, kind, msgdef=text, rihs01=digest) for t, (kind, text) in TYPES.items()]
        if foreign:
            others.append(writer.add_connection("/log", "foxglove.Log", msgdef=FOREIGN, rihs01=digest))
            storage: Any = writer.storage
            storage.schemas[-1] = storage.schemas[-1]._replace(encoding="protobuf")
            storage.channels[-1] = storage.channels[-1]._replace(message_encoding="protobuf")
        for number, (_, at, data) in enumerate(reader.messages(images)):
            writer.write(one if number % 2 else two, at, data)
            for connection in others:
                writer.write(connection, at, DATA)
    if foreign:  # a Protobuf descriptor is bytes, not text
        (file,) = path.glob("*.mcap")
        file.write_bytes(file.read_bytes().replace(FOREIGN.encode(), FOREIGN.encode()[:-1] + b"\xff"))
        return file
    return path


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_messages_of_any_type_are_copied_with_the_definition_that_was_recorded(
    plugin: StoragePlugin, spots: Path, tmp_path: Path, colour_model_path: Path
) -> None:
    bag, out = _with_others(spots, tmp_path / "bag", plugin, "RIHS01_of_the_recorder"), tmp_path / "out"
    assert main([str(bag), "-o", str(out), "--model", str(colour_model_path), "--threads", "1"]) == 0
    with open_bag(bag) as before, open_bag(out) as after:
        copied = {c.topic: c for c in after.connections}
        for topic, (kind, text) in TYPES.items():
            assert (copied[topic].msgtype, copied[topic].msgdef.data) == (kind, text)
            assert copied[topic].digest == "RIHS01_of_the_recorder"
        recorded = [(c.topic, at, data) for c, at, data in before.messages()]
        kept = [(c.topic, at, data) for c, at, data in after.messages() if not c.topic.startswith("/detector/")]
    assert sorted(kept) == sorted(recorded)


@pytest.mark.parametrize("out", ["out", "out.mp4"])
def test_what_is_not_of_ros_2_is_left_out_by_name(
    out: str, spots: Path, tmp_path: Path, colour_model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = _with_others(spots, tmp_path / "bag", StoragePlugin.MCAP, "RIHS01_of_the_recorder", foreign=True)
    assert main([str(bag), "-o", str(tmp_path / out), "--model", str(colour_model_path), "--threads", "1"]) == 0
    told = "left out, as their messages are not ROS 2's (cdr): /log\n"
    assert capsys.readouterr().err == (told if out == "out" else "")
    if out == "out":
        with open_bag(tmp_path / out) as after:
            assert {c.topic for c in after.connections if not c.topic.startswith("/detector")} == {IMAGES, *TYPES}
            assert sum(c.topic == IMAGES for c, _, _ in after.messages()) == FRAMES


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_training_reads_the_images_beside_them_along_the_index(
    plugin: StoragePlugin, spots: Path, tmp_path: Path
) -> None:
    bag = _with_others(spots, tmp_path / "bag", plugin, "RIHS01_x", foreign=plugin == StoragePlugin.MCAP)
    items = list(Bag(bag).items(IMAGES))
    assert len(items) == FRAMES and not any(isinstance(item, Damage) for item in items)
