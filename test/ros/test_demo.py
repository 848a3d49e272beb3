"""The demo as a user runs it, on a recording whose keypoints are known."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import pytest
from spots_bag import write_spots_bag

from keypoint_perception.bags import open_bag, write_bag

ROOT = Path(__file__).resolve().parents[2]
FRAMES = 90


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_spots_bag(tmp_path_factory.mktemp("bags") / "spots", frames=FRAMES)


def _command(bag: Path, model: Path, out: Path) -> list[str]:
    demo = [sys.executable, str(ROOT / "tools" / "demo.py")]
    return [*demo, "--bag", str(bag), "--model", str(model), "--out", str(out)]


def _demo(bag: Path, model: Path, out: Path, *more: str) -> subprocess.CompletedProcess:
    return subprocess.run([*_command(bag, model, out), *more], capture_output=True, text=True, timeout=120)


def _children(pid: int) -> list[str]:
    """The ids of the processes that a process started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[path.parent.name] = int(path.read_text().rpartition(")")[2].split()[1])
    return [child for child, parent in parents.items() if parent == pid]


def test_a_recording_becomes_a_report_a_bag_and_pictures(bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    out = tmp_path / "out"
    ran = _demo(bag, colour_model_path, out)
    assert ran.returncode == 0, ran.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["frames_in"] == FRAMES
    assert 0 < report["observations"] <= FRAMES
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"]
    assert report["backend"].startswith("onnxruntime")
    assert report["model_id"].startswith("colours@")
    assert report["mean_score"] > 0.9
    assert report["joint_error_percent_of_width"] < 1
    assert "latency p50" in ran.stdout and "observations" in ran.stdout
    with open_bag(out / "bag") as recorded:
        counts = {c.topic: c.msgcount for c in recorded.connections}
    assert counts["/detector/keypoints"] == report["observations"]
    assert counts["/detector/skeleton"] >= 1 and counts["/detector/hierarchy"] == 1
    video = cv2.VideoCapture(str(out / "overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == report["observations"]
    assert cv2.imread(str(out / "overlay.png")).shape[1] > 1000


@pytest.mark.parametrize("has_truth", [True, False])
def test_a_camera_is_measured_by_its_own_truth_or_not_at_all(
    tmp_path: Path, colour_model_path: Path, has_truth: bool
) -> None:
    """Beside the demo's usual camera, whose truth is of other pictures."""
    images, bag, out = "/wrist/image_raw/compressed", tmp_path / "both", tmp_path / "out"
    table = write_spots_bag(tmp_path / "table", frames=FRAMES, size=(96, 64))
    wrist = write_spots_bag(tmp_path / "wrist", frames=FRAMES, topic="/wrist")
    with write_bag(bag) as writer:
        for part in (table, wrist):
            with open_bag(part) as reader:
                wanted = [c for c in reader.connections if part == table or has_truth or c.topic == images]
                new = {c.id: writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore) for c in wanted}
                for connection, at, data in reader.messages(wanted):
                    writer.write(new[connection.id], at, data)
    ran = _demo(bag, colour_model_path, out, "--topic", images)
    assert ran.returncode == 0, ran.stderr
    report = json.loads((out / "report.json").read_text())
    assert ("joint_error_percent_of_width" in report) == ("joint error" in ran.stdout) == has_truth
    assert report.get("joint_error_percent_of_width", 0) < 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_it_is_ended_so_are_its_processes(
    bag: Path, tmp_path: Path, colour_model_path: Path, number: signal.Signals
) -> None:
    command = _command(bag, colour_model_path, tmp_path / "out")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        assert any(line.startswith("playing") for line in demo.stdout)
        children = _children(demo.pid)
        demo.send_signal(number)
        said = demo.stdout.read()
    assert demo.returncode == 128 + number
    assert len(children) == 2 and not any(Path("/proc", child).exists() for child in children)
    assert said.endswith("\nstopped\n") and "Traceback" not in said


@pytest.mark.parametrize(
    "case", ["option", "no model", "text model", "no topic", "empty folder", "truncated bag", "no image"]
)
def test_bad_input_is_one_line(case: str, bag: Path, tmp_path: Path, colour_model_path: Path) -> None:
    model, more, words = colour_model_path, (), ""
    if case == "option":
        more, words = ("--sofa",), "unrecognized arguments: --sofa; see demo --help"
    elif case == "no model":
        model, words = tmp_path / "none.onnx", "is not there"
    elif case == "text model":
        model, words = tmp_path / "text.onnx", "not a whole ONNX file"
        model.write_text("hello")
    elif case == "no topic":
        more, words = ("--topic", "/sofa"), "/table/image_raw/compressed"
    elif case == "empty folder":
        bag, words = tmp_path / "empty", "has no metadata.yaml"
        bag.mkdir()
    elif case == "no image":
        empty, words = tmp_path / "none", "has no message on /table/image_raw/compressed"
        with open_bag(bag) as reader, write_bag(empty) as writer:
            topic = next(c for c in reader.connections if c.topic == "/table/image_raw/compressed")
            writer.add_connection(topic.topic, topic.msgtype, typestore=reader.typestore)
        bag = empty
    else:
        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "metadata.yaml").write_bytes((bag / "metadata.yaml").read_bytes())
        (broken / "spots.mcap").write_bytes((bag / "spots.mcap").read_bytes()[:10_000])
        bag, words = broken, "cannot be read"
    ran = _demo(bag, model, tmp_path / "out", *more)
    assert ran.returncode == 2
    assert words in ran.stderr and ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
