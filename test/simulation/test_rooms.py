import cv2
import pytest
from rosbags.rosbag2 import Reader

from training.__main__ import main


def topics(bag):
    with Reader(bag) as reader:
        return set(reader.topics)


def test_a_recording_and_its_contact_sheet(tmp_path, capsys):
    bag = tmp_path / "bag"
    options = ["--seconds", "0.2", "--size", "64x48", "--seed", "3"]
    assert main(["simulate", "kitchen", "-o", str(bag), *options]) == 0
    assert {"/front/image_raw/compressed", "/front/depth/image_raw/compressed", "/side/camera_info"} <= topics(bag)
    assert cv2.imread(str(tmp_path / "bag.png")).shape[1] > 1000
    assert "look at" in capsys.readouterr().out
    assert main(["simulate", "kitchen", "-o", str(bag), *options]) == 2
    assert "exists already" in capsys.readouterr().err


def test_several_recordings_of_one_camera(tmp_path):
    options = ["--seconds", "0.1", "--size", "64x48", "--objects", "1", "--recordings", "2"]
    streams = ["--cameras", "table", "--colour", "bgr8", "--depth", "32FC1"]
    assert main(["simulate", "tabletop", "-o", str(tmp_path), *options, *streams]) == 0
    assert sorted(path.name for path in tmp_path.glob("recording_*")) == [
        "recording_00",
        "recording_00.png",
        "recording_01",
        "recording_01.png",
    ]
    found = topics(tmp_path / "recording_01")
    assert {"/table/image_raw", "/table/depth/image_raw"} <= found
    assert not any(topic.startswith("/wrist") for topic in found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cameras", "roof"], "'roof'"),
        (["--colour", "webp"], "'webp'"),
        (["--depth", "8UC1"], "'8UC1'"),
        (["--objects", "99"], "0 to 8"),
        (["--seconds", "0"], "at least one"),
        (["--seconds", "inf"], "at least one"),
        (["--seconds", "-1", "--rate", "-1"], "at least one"),
        (["--seed", "-1"], "from 0"),
        (["--size", "9999"], "16 to 4096"),
        (["--recordings", "0"], "recordings 0"),
        (["--jpeg-quality", "0"], "1 to 100"),
    ],
)
def test_bad_options_get_one_line(tmp_path, capsys, options, said):
    assert main(["simulate", "tabletop", "-o", str(tmp_path / "bag"), "--size", "32", *options]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_gets_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["simulate", "kitchen", "-o", str(tmp_path / "file" / "bag"), "--size", "32"]) == 2
    assert "cannot write" in capsys.readouterr().err
