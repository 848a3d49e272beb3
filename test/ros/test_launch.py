"""The launch file, where launch and the built package are installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from harness import LoggedProcess

launch = pytest.importorskip("launch", reason="launch is not on PyPI: sourced ROS 2 only")
pytest.importorskip("launch_ros", reason="launch_ros is not on PyPI: sourced ROS 2 only")

FILE = Path(__file__).resolve().parents[2] / "launch" / "detector.launch.py"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("detector_launch", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_argument_is_explained(module: ModuleType) -> None:
    arguments = module.generate_launch_description().get_launch_arguments()
    assert {"model", "cameras", "image", "depth", "backend", "rviz", "bag", "namespace"} <= {a.name for a in arguments}
    assert all(len(argument.description) > 10 for argument in arguments)


def test_topics_of_one_camera_and_of_several(module: ModuleType) -> None:
    given = {"image": "/cam/color/image_raw/compressed", "camera_info": "", "depth": "/cam/depth"}
    assert dict(module.remappings(given, [])) == {
        "image": "/cam/color/image_raw/compressed",
        "camera_info": "/cam/color/camera_info",
        "depth": "/cam/depth",
    }
    several = {"image": "/{camera}/image_raw", "camera_info": "", "depth": ""}
    assert dict(module.remappings(several, ["left", "right"])) == {
        "left/image": "/left/image_raw",
        "left/camera_info": "/left/camera_info",
        "right/image": "/right/image_raw",
        "right/camera_info": "/right/camera_info",
    }
    assert module.remappings({"image": "image", "camera_info": "", "depth": ""}, ["left", "right"]) == []


def test_only_what_is_given_overrules_the_parameter_file(module: ModuleType) -> None:
    nothing = {argument.name: "" for argument in module.ARGUMENTS}
    assert module.parameters(nothing, []) == {}
    given = nothing | {
        "use_sim_time": "true",
        "compressed": "true",
        "depth": "/d",
        "threads": "2",
        "autostart": "false",
        "rectified": "true",
    }
    assert module.parameters(given, ["a", "b"]) == {
        "use_sim_time": True,
        "image_transport": "compressed",
        "depth_transport": "raw",
        "threads": 2,
        "autostart": False,
        "rectified": True,
        "cameras": ["a", "b"],
    }


@pytest.mark.skipif(shutil.which("ros2") is None, reason="no ros2 command here")
def test_ros2_launch_starts_the_node_and_ends_it(colour_model_path: Path) -> None:
    command = ["ros2", "launch", "keypoint_perception", "detector.launch.py", f"model:={colour_model_path}"]
    found = subprocess.run([*command[:4], "--show-args"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("the package is not built and sourced")
    process = LoggedProcess([*command, "namespace:=robot"])
    try:
        process.wait_for("[robot.detector]: active, waiting for images on /robot/image")
    finally:
        process.stop()
    assert "process has finished cleanly" in process.log


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("threads:=two", "threads is 'two': give a whole number"),
        ("params_file:=/nowhere.yaml", "params_file /nowhere.yaml is not there"),
        ("bag:=/nowhere", "bag /nowhere is not there"),
        ("image:=/{camera}/image_raw", "say which cameras there are"),
    ],
)
def test_what_cannot_start_is_refused_before_anything_runs(module: ModuleType, argument: str, words: str) -> None:
    name, given = argument.split(":=")
    values = {a.name: "" for a in module.ARGUMENTS} | {"params_file": str(FILE)} | {name: given}
    with pytest.raises(RuntimeError, match=words):
        module.check(values, [])


@pytest.mark.parametrize(("argument", "given", "package"), [("rviz", "true", "rviz2"), ("bag", "/", "ros2bag")])
def test_a_missing_tool_is_named(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, argument: str, given: str, package: str
) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/usr")  # a prefix without packages
    values = {a.name: "" for a in module.ARGUMENTS} | {"params_file": str(FILE)} | {argument: given}
    with pytest.raises(RuntimeError, match=f"needs the package {package}"):
        module.check(values, [])


def test_arguments_reach_the_command_of_the_node(module: ModuleType, tmp_path: Path) -> None:
    context = launch.LaunchContext()
    given = {"namespace": "robot", "name": "eyes", "image": "/cam/image_raw", "log_level": "debug", "threads": "2"}
    values = {a.name: "" for a in module.ARGUMENTS} | {"params_file": str(FILE), "rviz": "false"} | given
    context.launch_configurations.update(values)
    (node,) = module.start(context)
    assert node.node_package == "keypoint_perception"
    assert module.logger(values) == "robot.eyes" and module.logger(values | {"namespace": ""}) == "eyes"
    assert node.node_executable == "detector"
    node._perform_substitutions(context)
    assert node.node_name == "/robot/eyes"
    assert ("image", "/cam/image_raw") in node.expanded_remapping_rules
    assert ("camera_info", "/cam/camera_info") in node.expanded_remapping_rules


@pytest.mark.parametrize(("cameras", "topic"), [("", "markers"), ("left,right", "left/markers")])
def test_rviz_shows_what_the_node_publishes_in_the_frame_that_is_given(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cameras: str, topic: str
) -> None:
    (tmp_path / "share/ament_index/resource_index/packages").mkdir(parents=True)
    (tmp_path / "share/ament_index/resource_index/packages/rviz2").touch()
    (tmp_path / "lib/rviz2").mkdir(parents=True)
    (tmp_path / "lib/rviz2/rviz2").touch(mode=0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path), prepend=os.pathsep)
    context = launch.LaunchContext()
    given = {"rviz": "true", "frame": "eye_optical", "namespace": "robot", "name": "eyes", "use_sim_time": "true"}
    values = {a.name: "" for a in module.ARGUMENTS} | {"params_file": str(FILE), "cameras": cameras} | given
    context.launch_configurations.update(values)
    _, rviz = module.start(context)
    rviz._perform_substitutions(context)
    command = [launch.utilities.perform_substitutions(context, argument) for argument in rviz.cmd]
    assert command[command.index("-f") + 1] == "eye_optical"
    assert ("/detector/markers", f"/robot/eyes/{topic}") in rviz.expanded_remapping_rules
