"""The parameter file that comes with the package."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import yaml

from keypoint_perception.ros.parameters import Settings

CONFIG = Path(__file__).resolve().parents[2] / "config"


def test_it_names_every_parameter_at_its_default() -> None:
    (given,) = yaml.safe_load((CONFIG / "detector.yaml").read_text()).values()
    defaults = {f.name: f.default for f in fields(Settings)}
    lists = {name: list(value) or [""] for name, value in defaults.items() if isinstance(value, tuple)}
    assert given["ros__parameters"] == defaults | lists
