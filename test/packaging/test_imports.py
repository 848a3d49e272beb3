"""The two halves keep apart: each is imported in a process of its own, and what came with it is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORTER = """
import importlib, json, sys
modules, forbidden, absent = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(absent))  # None: importing it fails as if it were not installed
found = {}
for module in modules:
    importlib.import_module(module)
    for name in forbidden:
        if sys.modules.get(name) is not None:
            found.setdefault(name, module)
print(json.dumps(found))
"""
OFFLINE = ["torch", "training", "lightning_fabric", "onnx", "onnxscript", "scipy", "mujoco", "jsonargparse", "tqdm"]
ENGINES = ["openvino", "cuda", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "cv_bridge"]


def modules_of(package: str) -> list[str]:
    """Dotted names of all modules below a folder of the checkout."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def imported_with(modules: list[str], forbidden: list[str], absent: list[str] | None = None) -> dict[str, str]:
    """The forbidden modules that importing brings in, each with the module that first did. All must be importable."""
    process = subprocess.run(
        [sys.executable, "-c", IMPORTER, json.dumps([modules, forbidden, absent or []])],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


RUNTIME = modules_of("keypoint_perception")
ROS = [name for name in RUNTIME if name.startswith("keypoint_perception.ros")]
PURE = [name for name in RUNTIME if name not in ROS]
TRAINING = modules_of("training")


def test_every_room_is_looked_at() -> None:
    assert "keypoint_perception.ros.node" in ROS
    assert "keypoint_perception.detector" in PURE
    assert "training.methods.imm" in TRAINING


def test_runtime_needs_neither_training_nor_ros_nor_a_second_engine() -> None:
    assert imported_with(PURE, [*OFFLINE, "rclpy"], absent=ENGINES) == {}


def test_ros_rooms_need_no_training() -> None:
    pytest.importorskip("rclpy", reason="no ROS 2 here")
    assert imported_with(ROS, OFFLINE, absent=ENGINES) == {}


def test_training_needs_no_ros() -> None:
    """Simulation may want rendering libraries that this machine lacks; its absence is tested where it is made."""
    modules = [name for name in TRAINING if not name.startswith("training.simulation.")]
    assert imported_with(modules, ["rclpy", "keypoint_perception.ros"]) == {}


def test_simulation_needs_no_ros() -> None:
    pytest.importorskip("mujoco.egl", reason="no headless rendering here", exc_type=Exception)
    modules = [name for name in TRAINING if name.startswith("training.simulation")]
    assert imported_with(modules, ["rclpy", "torch", "keypoint_perception.ros"]) == {}
