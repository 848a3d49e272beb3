"""The parameter file that comes with the package, and parameters of one camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import rclpy
import yaml
from harness import Bench, NodeProcess, wait_until
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from keypoint_perception.ros.parameters import Settings, declare, transports_of

CONFIG = Path(__file__).resolve().parents[2] / "config"


def test_it_names_every_parameter_at_its_default() -> None:
    (given,) = yaml.safe_load((CONFIG / "detector.yaml").read_text()).values()
    defaults = {f.name: f.default for f in fields(Settings)}
    lists = {name: list(value) or [""] for name, value in defaults.items() if isinstance(value, tuple)}
    assert given["ros__parameters"] == defaults | lists


def test_a_parameter_that_there_is_none_of_is_said() -> None:
    given = {"treshold": 0.9, "threshold": 0.8, "camera.image_transport": "compressed", "qos_overrides./a.b": 1}
    node = NodeProcess(given | {"autostart": False})
    node.wait_for("no parameters of this node: treshold; allowed are autostart, model")
    node.stop()


def test_a_camera_has_the_transport_of_all_as_it_is_now_or_its_own() -> None:
    own = Parameter("wrist.image_transport", value="raw")
    node = rclpy.create_node("settings", parameter_overrides=[own])
    try:
        for transport in ("raw", "compressed"):  # which may change between two configurations
            settings = Settings(image_transport=transport, depth_transport=transport)
            assert transports_of(node, "camera", settings) == (transport, transport)
            assert transports_of(node, "wrist", settings) == ("raw", transport)
    finally:
        node.destroy_node()


def test_what_overrides_the_qos_of_one_topic_changes_no_other(bench: Bench, colour_model_path: Path) -> None:
    durability, reliability = "subscription.durability", "publisher.reliability"
    parameters = {
        "model": colour_model_path,
        f"qos_overrides./camera_info.{durability}": "transient_local",
        f"qos_overrides./detector/keypoints.{reliability}": "best_effort",
    }
    node = NodeProcess(parameters)
    try:
        node.wait_for("active")
        (info,), (image,) = (_of(bench.node.get_subscriptions_info_by_topic, t) for t in ("/camera_info", "/image"))
        assert info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert image.qos_profile.durability == DurabilityPolicy.VOLATILE
        topics = ("/detector/keypoints", "/detector/markers")
        (keypoints,), (markers,) = (_of(bench.node.get_publishers_info_by_topic, t) for t in topics)
        assert keypoints.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert markers.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    finally:
        node.stop()


def _of(infos: Callable[[str], list], topic: str) -> list:
    """What the graph knows of a topic, as soon as it does."""
    wait_until(lambda: bool(infos(topic)), lambda: f"nobody is on {topic}")
    return infos(topic)


def test_what_is_set_at_the_start_alone_says_so() -> None:
    node = rclpy.create_node("settings")
    try:
        declare(node)
        for parameter in (Parameter("autostart", value=False), Parameter("diagnostics_period", value=2.0)):
            (result,) = node.set_parameters([parameter])
            assert not result.successful and "read-only" in result.reason
    finally:
        node.destroy_node()


def test_a_whole_number_for_a_fraction_is_told_with_what_to_write() -> None:
    for given, hint in (({"threshold": 1}, True), ({"threads": 2.0}, False)):
        node = NodeProcess(given)
        wait_until(lambda node=node: not node.alive, lambda node=node: node.log)
        assert node.stop()[0] == 2
        assert ("write 1.0 for 1" in node.log) == hint
