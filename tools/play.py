"""Plays a recorded bag into the ROS graph in real time, each message stamped anew when it goes out.

For machines without `ros2 bag play`. Messages of one instant keep a common stamp, so that depth still fits its image.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout need not be installed

from keypoint_perception.bags import open_bag
from keypoint_perception.command_line import Parser, run_command
from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.ros.messages import message_class
from keypoint_perception.ros.process import spare_collections
from keypoint_perception.stamps import serialised_stamp_ns, with_stamp

_QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_PATIENCE_S = 30.0


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = Parser(prog="play", description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--topics", nargs="+", required=True, help="what to play")
    parser.add_argument("--wait-for", help="a topic of these that must have a subscriber before the start")
    parser.add_argument("--stamps", type=Path, help="a file for the [recorded, played] stamps of the --wait-for topic")

    def command() -> int:
        options = parser.parse_args(argv)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            stamps = play(options.bag, options.topics, options.wait_for)
        finally:
            rclpy.try_shutdown()
        if options.stamps:
            with written_whole(options.stamps) as file:
                file.write_text(json.dumps(stamps))
        return 0

    return run_command(command, "the player was stopped")


def play(bag: Path, topics: list[str], wait_for: str | None) -> list[tuple[int, int]]:
    """Plays topics of a bag; the (recorded, played) stamps of the topic `wait_for`, in nanoseconds.

    Raises UserError where there is nothing to play, or nobody to listen.
    """
    messages = list(_messages(bag, topics))
    classes = {topic: message_class(message_type) for topic, message_type, _, _ in messages}
    if wait_for is not None and wait_for not in classes:
        raise UserError(f"--wait-for is {wait_for}: give one of --topics with messages, {', '.join(sorted(classes))}")
    node = rclpy.create_node("bag_player")
    stamped = {topic for topic, cls in classes.items() if _has_header(cls)}
    publishers = {topic: node.create_publisher(cls, topic, _QOS) for topic, cls in classes.items()}
    if wait_for is not None:
        _wait_for_subscriber(node, publishers[wait_for])
    spare_collections()
    first, start = messages[0][2], time.monotonic()
    stamp_of: dict[int, int] = {}
    played = []
    for topic, _, at, data in messages:
        time.sleep(max(0.0, start + (at - first) / 1e9 - time.monotonic()))
        if topic not in stamped:
            publishers[topic].publish(data)
            continue
        recorded = serialised_stamp_ns(data)
        stamp = stamp_of.setdefault(recorded, time.time_ns())
        publishers[topic].publish(with_stamp(data, stamp))
        if topic == wait_for:
            played.append((recorded, stamp))
    for publisher in publishers.values():
        publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=1))
    node.destroy_node()
    return played


def _messages(bag: Path, topics: list[str]) -> Iterator[tuple[str, str, int, bytes]]:
    """(topic, type, time of recording, serialised message) in time order."""
    with open_bag(bag) as reader:
        missing = set(topics) - {c.topic for c in reader.connections}
        if missing:
            there = ", ".join(sorted({c.topic for c in reader.connections}))
            raise UserError(f"bag {bag} has no {', '.join(sorted(missing))}: it has {there or 'no topics'}")
        wanted = [c for c in reader.connections if c.topic in topics]
        count = 0
        for connection, at, data in reader.messages(wanted):
            count += 1
            yield connection.topic, connection.msgtype, at, data
    if not count:
        raise UserError(f"bag {bag} has no message on {', '.join(topics)}: record it again")


def _has_header(message_type: Any) -> bool:
    """Whether a message begins with a header."""
    return next(iter(message_type.get_fields_and_field_types().values()), "") == "std_msgs/Header"


def _wait_for_subscriber(node: Node, publisher: Any) -> None:
    end = time.monotonic() + _PATIENCE_S
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > end:
            raise UserError(
                f"nobody subscribed to {publisher.topic_name} within {_PATIENCE_S:.0f} s: start the detector"
            )
        rclpy.spin_once(node, timeout_sec=0.05)


if __name__ == "__main__":
    raise SystemExit(main())
