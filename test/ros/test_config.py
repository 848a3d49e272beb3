"""The parameter file that comes with the package, and parameters of one camera."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import rclpy
import yaml
from harness import NodeProcess
from rclpy.parameter import Parameter

from keypoint_perception.ros.parameters import Settings, transports_of

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
