"""Images sent to a node over the middleware, and how long its answers take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a checkout need not be installed

import numpy as np  # noqa: E402

from keypoint_perception.stamps import serialised_stamp_ns, with_stamp  # noqa: E402

SIZE = (640, 480)
LAST_CORE = (os.cpu_count() or 1) - 1
PATIENCE_S = 60.0
IN_FLIGHT = 2
LOST_AFTER_S = 0.2


@dataclass
class Run:
    """Images sent, and the answers to them."""

    sent: int = 0
    latencies: list[float] = field(default_factory=list)
    """Milliseconds from stamp to receipt."""
    seconds: float = 0.0
    waiting: deque[int] = field(default_factory=deque)
    """Stamps, in nanoseconds, of images that may still be answered, when saturated."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, q: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.latencies, q))

    def __str__(self) -> str:
        lost = self.sent - len(self.latencies)
        return f"p50 {self.percentile(50):.2f} ms, p99 {self.percentile(99):.2f} ms, {lost} of {self.sent} lost"


class Bench:
    """Sends stamped images, and notes when the keypoints of each come back."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from keypoint_perception.ros.process import spare_collections

        self._node, self._executor = rclpy.create_node("bench"), SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._publishers: dict[str, Any] = {}
        self._subscriptions: dict[str, Any] = {}
        self._run = Run()
        self._image = _serialised_picture()
        spare_collections()

    def close(self) -> None:
        """Ends the node."""
        self._executor.shutdown()
        self._node.destroy_node()

    def run(
        self,
        seconds: float,
        rate: float,
        topics: list[str] | None = None,
        answers: list[str] | None = None,
    ) -> Run:
        """Sends to all topics at once, as synchronised cameras do, `rate` times a second for a while."""
        topics, answers = topics or ["/image"], answers or ["/detector/keypoints"]
        self.wait(topics, answers)
        self._run = run = Run()
        start = time.monotonic()
        ticks = 0
        while (elapsed := time.monotonic() - start) < seconds:
            if elapsed * rate >= ticks:
                for topic in topics:
                    self._send(topic)
                ticks += 1
                run.sent += len(topics)
            due = start + ticks / rate
            self._executor.spin_once(timeout_sec=max(due - time.monotonic(), 0))
        run.seconds = time.monotonic() - start
        self._spin(0.3)
        return run

    def saturate(self, seconds: float) -> Run:
        """Sends the next image as soon as one is answered, so that one always waits while another is served.

        The node has a core of its own: this process keeps off it.
        """
        self.wait(["/image"], ["/detector/keypoints"])
        self._run = run = Run()
        start = last = time.monotonic()
        with on_cores(set(range(LAST_CORE)) or {0}):
            while (now := time.monotonic()) - start < seconds:
                if now - last > LOST_AFTER_S:
                    run.waiting.clear()
                if len(run.waiting) < IN_FLIGHT:
                    run.waiting.append(self._send("/image"))
                    run.sent, last = run.sent + 1, now
                self._executor.spin_once(timeout_sec=0.001)
        run.seconds = time.monotonic() - start
        return run

    def wait(self, topics: list[str], answers: list[str]) -> None:
        """Until somebody listens to the topics and answers the images."""
        for topic in answers:
            self._listen(topic)
        end = time.monotonic() + PATIENCE_S
        for topic in topics:
            while self._publisher(topic).get_subscription_count() == 0:
                if time.monotonic() > end:
                    raise SystemExit(f"nobody subscribed to {topic}")
                self._spin(0.05)
        self._run = Run()
        while len(self._run.latencies) < 5 * len(topics):
            if time.monotonic() > end:
                raise SystemExit(f"nobody answers on {', '.join(answers)}")
            for topic in topics:
                self._send(topic)
            self._spin(0.1)
        self._spin(0.3)

    def _listen(self, topic: str) -> None:
        from keypoint_perception_msgs.msg import KeypointArray

        def note(serialised: bytes) -> None:
            stamp = serialised_stamp_ns(serialised)
            self._run.latencies.append((time.time_ns() - stamp) / 1e6)
            while self._run.waiting and self._run.waiting[0] <= stamp:  # those from before were passed over
                self._run.waiting.popleft()

        if topic not in self._subscriptions:
            self._subscriptions[topic] = self._node.create_subscription(KeypointArray, topic, note, 50, raw=True)

    def _publisher(self, topic: str) -> Any:
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image

        if topic not in self._publishers:
            self._publishers[topic] = self._node.create_publisher(Image, topic, qos_profile_sensor_data)
        return self._publishers[topic]

    def _send(self, topic: str) -> int:
        """Publishes an image that is taken now; its stamp in nanoseconds."""
        stamp = time.time_ns()
        self._publisher(topic).publish(with_stamp(self._image, stamp))
        return stamp

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)


def picture() -> np.ndarray:
    """(480, 640, 3) uint8: something to look at."""
    x, y = np.meshgrid(np.linspace(0, 255, SIZE[0]), np.linspace(0, 255, SIZE[1]))
    return np.stack([x, y, 255 - x], axis=2).astype(np.uint8)


def _serialised_picture() -> bytes:
    """As a sensor_msgs/Image. What a camera's driver spends on making its message is not measured."""
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import Image

    message = Image(height=SIZE[1], width=SIZE[0], encoding="rgb8", step=SIZE[0] * 3)
    message.data = picture().tobytes()
    return serialize_message(message)


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Confines the threads of this process, the middleware's too, until the block ends."""
    before = os.sched_getaffinity(0)
    _confine(cores)
    try:
        yield
    finally:
        _confine(before)


def _confine(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # ended meanwhile
            os.sched_setaffinity(int(thread.name), cores)


@contextmanager
def process(arguments: list[str], core: int | None = None) -> Iterator[subprocess.Popen]:
    """A node, on one core if asked for, until the block ends."""
    pin = (lambda: os.sched_setaffinity(0, {core})) if core is not None else None
    command = [sys.executable, *arguments]
    node = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=pin)
    try:
        yield node
    except SystemExit as error:
        node.send_signal(signal.SIGINT)
        raise SystemExit(f"{error}; the node said: {node.communicate()[1].decode()[-2000:]}") from None
    finally:
        if node.poll() is None:
            node.send_signal(signal.SIGINT)
        node.communicate(timeout=10)
