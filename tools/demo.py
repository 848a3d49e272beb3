"""The whole path in one command: a recorded robot arm is played in real time, and the detector follows it live.

Three processes on the real middleware: a player, the detector node, and this one, which records what the node says.
Writes OUT/report.json, OUT/bag, OUT/overlay.mp4 and OUT/overlay.png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a checkout need not be installed

from keypoint_perception.bags import connections_of, open_bag  # noqa: E402
from keypoint_perception.command_line import Parser, run_command  # noqa: E402
from keypoint_perception.errors import UserError  # noqa: E402
from keypoint_perception.files import make_folder  # noqa: E402
from keypoint_perception.model import read_model  # noqa: E402
from tools.demo_report import OUTPUTS, PACKAGE, Heard, camera_of, write_results  # noqa: E402
from tools.isolation import own_middleware  # noqa: E402

IMAGES = "/table/image_raw/compressed"
BESIDE = {"camera_info": "camera_info", "depth": "depth/image_raw/compressed"}
"""What the detector takes beside the images, and its topic in the camera's namespace."""
START_PATIENCE_S = 60.0


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="demo", description=__doc__)
    parser.add_argument("--bag", type=Path, default=ROOT / "demo")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "tabletop_imm.onnx")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo")
    parser.add_argument("--topic", default=IMAGES, help="compressed images in the bag")

    def command() -> int:
        options = parser.parse_args(argv)
        own_middleware(os.environ.get("ROS_LOG_DIR", ROOT / "out" / "log"))
        run(options)
        return 0

    return run_command(command, "\nstopped")


def run(options: argparse.Namespace) -> None:
    """Plays, listens, and writes what came of it."""
    model = read_model(options.model)
    with open_bag(options.bag) as reader:
        total = sum(c.msgcount for c in connections_of(reader, options.topic, ["sensor_msgs/msg/CompressedImage"]))
        there = {c.topic for c in reader.connections}
        next(reader.messages(), None)  # a damaged bag is found before anything is started
    if not total:
        raise UserError(f"bag {options.bag} has no message on {options.topic}: give another bag, or --topic")
    print(f"model   {model.id}\nbag     {options.bag}: {total} images on {options.topic}", flush=True)
    make_folder(options.out)
    heard, played = _play_and_listen(options, total, there)
    write_results(options, model, heard, played)


def _play_and_listen(options: argparse.Namespace, total: int, there: set[str]) -> tuple[Heard, list[tuple[int, int]]]:
    """Runs the detector and the player until the last image has been served. there: the bag's topics."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from keypoint_perception.ros.process import spare_collections

    beside = {name: f"{camera_of(options.topic)}/{topic}" for name, topic in BESIDE.items()}
    topics = {"image": options.topic} | {name: topic for name, topic in beside.items() if topic in there}
    parameters = {"model": options.model, "backend": options.backend, "image_transport": "compressed"}
    if "depth" in topics:
        parameters["depth_transport"] = "compressed"
    # A robot wants the newest image; here every image is counted, on a machine that may be busy with other things.
    parameters[f"qos_overrides.{options.topic}.subscription.depth"] = 10
    detector = [sys.executable, "-m", "keypoint_perception.ros.node", "--ros-args"]
    detector += [word for name, topic in topics.items() for word in ("-r", f"{name}:={topic}")]
    detector += [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # its own would end it before the processes
    try:
        with _process(detector) as node, tempfile.TemporaryDirectory() as folder:
            stamps = Path(folder) / "stamps.json"
            listener, heard = _listen()
            _wait_for_detector(listener, node)
            spare_collections()
            player = [sys.executable, str(ROOT / "tools" / "play.py"), str(options.bag), "--topics", *topics.values()]
            with _process([*player, "--wait-for", options.topic, "--stamps", str(stamps)]) as playing:
                _follow(listener, heard, playing, node, total)
            listener.destroy_node()
            return heard, [tuple(pair) for pair in json.loads(stamps.read_text())]
    finally:
        rclpy.try_shutdown()


def _listen() -> tuple[Any, Heard]:
    """A node that keeps what the detector publishes."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import DurabilityPolicy, QoSProfile

    from keypoint_perception.ros.messages import message_class

    node, heard = rclpy.create_node("demo_recorder"), Heard()
    for name, kind in OUTPUTS.items():
        live = name == "keypoints"
        qos = QoSProfile(
            depth=100 if live else 10,
            durability=DurabilityPolicy.VOLATILE if live else DurabilityPolicy.TRANSIENT_LOCAL,
        )

        def keep(data: bytes, name: str = name) -> None:
            heard.messages[name].append((time.time_ns(), data))

        node.create_subscription(message_class(f"{PACKAGE}/{kind}"), f"/detector/{name}", keep, qos, raw=True)

    def note_backend(message: Any) -> None:
        for status in message.status:
            heard.backend = next((v.value for v in status.values if v.key == "backend"), heard.backend)

    node.create_subscription(DiagnosticArray, "/diagnostics", note_backend, 10)
    return node, heard


def _wait_for_detector(listener: Any, node: subprocess.Popen) -> None:
    import rclpy

    end = time.monotonic() + START_PATIENCE_S
    while listener.count_publishers("/detector/keypoints") == 0:
        if node.poll() is not None or time.monotonic() > end:
            raise UserError("the detector did not start: its log is above")
        rclpy.spin_once(listener, timeout_sec=0.05)


def _follow(listener: Any, heard: Heard, playing: subprocess.Popen, node: subprocess.Popen, total: int) -> None:
    """Listens until the player has ended and the detector has nothing more to say."""
    import rclpy

    shown, quiet_since, count = 0.0, None, 0
    while quiet_since is None or time.monotonic() - quiet_since < 0.5:
        rclpy.spin_once(listener, timeout_sec=0.05)
        now = time.monotonic()
        if len(heard.messages["keypoints"]) != count:
            count, quiet_since = len(heard.messages["keypoints"]), None
        elif playing.poll() is not None and quiet_since is None:
            quiet_since = now
        if now - shown > (0.2 if sys.stdout.isatty() else 2.0):
            shown = now
            _show(f"playing {count}/{total} observations")
        if node.poll() is not None:
            raise UserError("the detector ended before the bag did: its log is above")
    if playing.returncode:
        raise UserError("the bag could not be played: the reason is above")
    _show(f"played  {count}/{total} observations", last=True)


def _show(text: str, last: bool = False) -> None:
    """Progress: one line that is written over on a terminal."""
    print(
        f"\r{text:<60}" if sys.stdout.isatty() else text,
        end="\n" if last or not sys.stdout.isatty() else "",
        flush=True,
    )


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen]:
    """A process that does not outlive the block, nor the shared memory it leaves when it is killed."""
    # A session of its own: Ctrl-C reaches us alone, and we end it in order, as on SIGTERM.
    process = subprocess.Popen(command, start_new_session=True, cwd=ROOT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            segments = _shared_memory(process.pid)
            process.kill()
            process.wait()
            for segment in segments:
                segment.unlink(missing_ok=True)


def _shared_memory(pid: int) -> list[Path]:
    """The middleware's segments that only this process has open."""

    def segments(of: Path) -> set[str]:
        try:
            return {line.split()[-1] for line in (of / "maps").read_text().splitlines() if "/dev/shm/fastrtps" in line}
        except OSError:  # ended, or not ours to look at
            return set()

    others = [p for p in Path("/proc").iterdir() if p.name.isdigit() and int(p.name) != pid]
    shared = set().union(*map(segments, others))
    return [Path(segment) for segment in segments(Path(f"/proc/{pid}")) - shared]


if __name__ == "__main__":
    raise SystemExit(main())
