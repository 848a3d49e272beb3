"""The real node as a process, and a bench that talks to it over the real middleware."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from keypoint_perception.ros.domain import free_domain

PATIENCE_S = 30.0
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class LoggedProcess:
    """A command, and what it prints."""

    def __init__(self, command: list[str]) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def log(self) -> str:
        """Everything it has printed."""
        return "".join(self.lines)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, text: str) -> None:
        """Waits until it has printed `text`."""
        wait_until(lambda: text in self.log, lambda: f"{text!r} was not printed, but\n{self.log}")

    def send(self, number: int) -> None:
        """Sends it a signal."""
        self._process.send_signal(number)

    def stop(self, with_signal: int = signal.SIGINT, patience: float = 10.0) -> tuple[int, float]:
        """Ends it: the exit status and the seconds that took."""
        start = time.monotonic()
        if self.alive:
            self._process.send_signal(with_signal)
        try:
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the process did not end:\n{self.log}") from None
        return status, time.monotonic() - start

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)


class NodeProcess(LoggedProcess):
    """`python -m keypoint_perception.ros.node` with parameters and remappings."""

    def __init__(self, parameters: Mapping[str, Any], remap: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "keypoint_perception.ros.node", "--ros-args"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={_yaml(value)}"]
        for old, new in (remap or {}).items():
            command += ["-r", f"{old}:={new}"]
        super().__init__(command)


class Bench:
    """A node in the test process: publishes images, keeps what it hears."""

    def __init__(self, name: str = "bench") -> None:
        self.node = rclpy.create_node(name)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._publishers: dict[str, Any] = {}
        self._subscriptions: dict[str, Any] = {}
        self.heard: dict[str, list[Any]] = defaultdict(list)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()

    def listen(self, topic: str, message_type: Any, qos: QoSProfile | int = 50) -> None:
        """Keeps the messages of a topic in `heard[topic]`; those from before are forgotten."""
        self.stop_listening(topic)
        self._subscriptions[topic] = self.node.create_subscription(message_type, topic, self.heard[topic].append, qos)

    def stop_listening(self, topic: str) -> None:
        """Unsubscribes, and forgets."""
        if topic in self._subscriptions:
            self.node.destroy_subscription(self._subscriptions.pop(topic))
        self.heard[topic].clear()

    def publisher(self, topic: str, message_type: Any = Image, qos: QoSProfile | int = 5) -> Any:
        """The publisher of a topic, once somebody listens to it."""
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(message_type, topic, qos)
        publisher = self._publishers[topic]
        self.until(lambda: publisher.get_subscription_count() > 0, f"nobody subscribes to {topic}")
        return publisher

    def spin(self, seconds: float) -> None:
        """Lets messages come for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def until(
        self, condition: Callable[[], bool], failure: str | Callable[[], str], patience: float = PATIENCE_S
    ) -> None:
        """Lets messages come until the condition holds."""
        end = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < end, failure if isinstance(failure, str) else failure()
            self._executor.spin_once(timeout_sec=0.02)

    def ask(self, topic: str, message: Any, answer_topic: str) -> Any:
        """Publishes until a message with the same stamp comes on `answer_topic`, which is returned.

        Best-effort topics may lose what is sent while the two sides still find one another.
        """
        publisher = self.publisher(topic, type(message))
        found: list[Any] = []

        def answered() -> bool:
            found[:] = [m for m in self.heard[answer_topic] if m.header.stamp == message.header.stamp]
            return bool(found)

        end = time.monotonic() + PATIENCE_S
        while not answered():
            assert time.monotonic() < end, f"no answer on {answer_topic}"
            publisher.publish(message)
            self.spin(0.1)
        return found[0]

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        """A service's response. The way back is found a little later than the service, and an answer before is lost.

        What only reads is asked again. What changes something is asked once, after that node answered a client that it
        heard of later.
        """
        only_reads = service_type.__name__.startswith(("Get", "List", "Describe"))
        client = self.node.create_client(service_type, name)
        self.until(client.service_is_ready, f"no service {name}")
        if not only_reads:
            self.call(GetParameters, f"{name.rpartition('/')[0]}/get_parameters", GetParameters.Request())
        end = time.monotonic() + PATIENCE_S
        future = client.call_async(request)
        while not future.done():
            assert time.monotonic() < end, f"{name} did not answer"
            self.spin_until_done(future, 1.0 if only_reads else PATIENCE_S)
            if not future.done() and only_reads:
                future = client.call_async(request)
        self.node.destroy_client(client)
        return future.result()

    def spin_until_done(self, future: Any, seconds: float) -> None:
        """Lets messages come until a call has its answer, or for so long."""
        end = time.monotonic() + seconds
        while not future.done() and time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)


def image_message(picture: np.ndarray, stamp: float = 0.0, frame_id: str = "camera_optical") -> Image:
    """An rgb8 Image of a picture (H, W, 3); stamp in seconds, 0 for now."""
    message = Image(height=picture.shape[0], width=picture.shape[1], encoding="rgb8", step=picture.shape[1] * 3)
    message.data = picture.tobytes()
    set_header(message, stamp or time.time(), frame_id)
    return message


def set_header(message: Any, stamp: float, frame_id: str = "camera_optical") -> None:
    """Sets the stamp, in seconds, and the frame."""
    message.header.frame_id = frame_id
    message.header.stamp.sec, message.header.stamp.nanosec = int(stamp), int((stamp % 1) * 1e9)


def wait_until(condition: Callable[[], bool], failure: Callable[[], str], patience: float = PATIENCE_S) -> None:
    """Waits, without listening to anything."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, failure()
        time.sleep(0.02)


def environment(log_dir: Path) -> dict[str, str]:
    """What a test session sets, so that it disturbs no other and nothing disturbs it."""
    profile = str(Path(__file__).resolve().parents[2] / "config" / "fastdds.xml")
    return {
        "ROS_DOMAIN_ID": str(free_domain()),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOCALHOST_ONLY": "",
        "ROS_LOG_DIR": str(log_dir),
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",
    }


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return f'"{value}"' if value == "" else str(value)
