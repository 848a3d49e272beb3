"""How the node process starts and ends, whatever it is doing."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from colour_model import spots_image
from diagnostic_msgs.msg import DiagnosticArray
from harness import Bench, LoggedProcess, NodeProcess, image_message, wait_until
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

from keypoint_perception_msgs.msg import KeypointArray
from keypoint_perception_msgs.srv import LoadModel

START = """
import builtins, sys
from keypoint_perception.ros.node import main

def say_and_import(*args, imports=builtins.__import__):
    builtins.__import__ = imports
    print("imports", flush=True)
    return imports(*args)

builtins.__import__ = say_and_import
sys.exit(main(["--ros-args", "-p", "model:=MODEL", "-p", "backend:=auto"]))
"""
PICTURE = spots_image((192, 128), {"red": (40, 50)})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_within_a_second_under_load(bench: Bench, colour_model_path: Path, number: int) -> None:
    node = NodeProcess({"model": colour_model_path})
    bench.listen("/detector/keypoints", KeypointArray)
    bench.ask("/image", image_message(PICTURE), "/detector/keypoints")
    publisher = bench.publisher("/image")
    for _ in range(20):
        publisher.publish(image_message(PICTURE))
        bench.spin(0.005)
    status, _ = node.stop(number)
    assert status == 0
    assert "Traceback" not in node.log


def test_it_ends_while_a_model_is_loaded(bench: Bench, colour_model_path: Path) -> None:
    node = NodeProcess({"model": colour_model_path})
    try:
        node.wait_for("active")
        client = bench.node.create_client(LoadModel, "/detector/load_model")
        bench.until(client.service_is_ready, "no service")
        client.call_async(LoadModel.Request(path=str(colour_model_path)))
        bench.spin(0.01)
    finally:
        status, _ = node.stop(signal.SIGTERM)
    assert status == 0 and "Traceback" not in node.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_while_it_starts(colour_model_path: Path, number: int) -> None:
    """The earliest is while Python imports us."""
    script = START.replace("MODEL", str(colour_model_path))
    for delay in (0.0, 0.2, 0.5, 1.3):
        node = LoggedProcess([sys.executable, "-c", script])
        node.wait_for("imports")
        time.sleep(delay)
        status, _ = node.stop(number)
        assert status == 0 and "Traceback" not in node.log, node.log


def test_the_life_cycle_can_be_driven_from_outside(bench: Bench, colour_model_path: Path) -> None:
    node = NodeProcess({"model": colour_model_path, "autostart": False})
    try:
        assert _state(bench) == State.PRIMARY_STATE_UNCONFIGURED
        for transition, expected in (
            (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
            (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
            (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
            (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
            (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
            (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
        ):
            request = ChangeState.Request(transition=Transition(id=transition))
            assert bench.call(ChangeState, "/detector/change_state", request).success
            assert _state(bench) == expected
        bench.listen("/detector/keypoints", KeypointArray)
        bench.ask("/image", image_message(PICTURE), "/detector/keypoints")
    finally:
        node.stop()


def test_a_transition_that_is_not_possible_is_refused_and_told(bench: Bench, colour_model_path: Path) -> None:
    """Given by its number alone, as nav2's manager does, or by its label."""
    node = NodeProcess({"model": colour_model_path})
    try:
        node.wait_for("active, waiting")
        wrong = [Transition(id=number) for number in (3, 1, 99, 0, 5)] + [Transition(label="activate")]
        for number, transition in enumerate(wrong, 1):
            assert not bench.call(
                ChangeState, "/detector/change_state", ChangeState.Request(transition=transition)
            ).success
            assert _state(bench) == State.PRIMARY_STATE_ACTIVE
            told = (
                f"{transition.label or transition.id} refused: the node is active, allowed are deactivate (4), shutdown"
            )
            node.wait_for(told)
            assert node.log.count("refused") == number, node.log
        bench.listen("/detector/keypoints", KeypointArray)
        bench.ask("/image", image_message(PICTURE), "/detector/keypoints")
        for transition, possible in ((Transition(label="shutdown"), True), (Transition(id=1), False)):
            request = ChangeState.Request(transition=transition)
            assert bench.call(ChangeState, "/detector/change_state", request).success == possible
        node.wait_for("the node is finalized, allowed are none")
    finally:
        status, _ = node.stop()
    assert status == 0 and "Traceback" not in node.log


BROKEN_NODE = """
from keypoint_perception.ros.lifecycle import DetectorNode
from keypoint_perception.ros.process import run_node

class Broken(DetectorNode):
    def __init__(self):
        super().__init__()
        self.create_timer(0.1, self.fail)

    def fail(self):
        raise ERROR

raise SystemExit(run_node(Broken))
"""


def test_a_callback_that_fails_is_told_once_and_the_others_go_on(bench: Bench, colour_model_path: Path) -> None:
    node = _broken_node('ValueError("some bug\\nand more of it")', colour_model_path)
    try:
        bench.listen("/diagnostics", DiagnosticArray)
        bench.listen("/detector/keypoints", KeypointArray)
        for _ in range(3):
            bench.ask("/image", image_message(PICTURE), "/detector/keypoints")
        told = "a callback failed, --log-level debug says where: ValueError: some bug"
        heard = bench.heard["/diagnostics"]
        bench.until(lambda: any(told in s.message for m in heard for s in m.status), "no diagnostic tells of it")
        assert node.log.count(told) == 1 and "and more" not in node.log, node.log
    finally:
        status, _ = node.stop()
    assert status == 0


def test_a_callback_may_end_the_process(colour_model_path: Path) -> None:
    node = _broken_node("SystemExit(3)", colour_model_path)
    wait_until(lambda: not node.alive, lambda: "it runs")
    assert node.stop()[0] == 3


def test_a_configuration_that_fails_leaves_nothing_open(bench: Bench, colour_model_path: Path) -> None:
    """Neither the first camera's topics nor the model: what was wrong can be set right, and then it is configured."""
    node = NodeProcess({"model": colour_model_path, "autostart": False, "cameras": ["a"], "b.image_transport": "rwa"})
    configure = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    try:
        assert _state(bench) == State.PRIMARY_STATE_UNCONFIGURED
        _set_cameras(bench, "a", "b")
        assert not bench.call(ChangeState, "/detector/change_state", configure).success
        node.wait_for("b.image_transport is 'rwa': allowed are raw, compressed")
        bench.spin(0.5)
        assert bench.node.get_publishers_info_by_topic("/detector/a/keypoints") == []
        _set_cameras(bench, "a")
        assert bench.call(ChangeState, "/detector/change_state", configure).success
    finally:
        node.stop()


@pytest.mark.parametrize(("end", "transition"), [("publisher", "configure"), ("subscription", "activate")])
def test_where_one_of_several_topics_cannot_be_opened_none_stays_open(
    bench: Bench, colour_model_path: Path, end: str, transition: str
) -> None:
    topic = {"publisher": "/detector/b/skeleton", "subscription": "/b/image"}[end]
    wrong = {"cameras": ["a", "b"], f"qos_overrides.{topic}.{end}.reliability": "sometimes"}
    node = NodeProcess({"model": colour_model_path} | wrong)
    try:
        node.wait_for(f" {transition} failed: ")
        bench.spin(2.5)  # it has tried once more
        before = bench.node.get_publishers_info_by_topic("/detector/a/keypoints")
        assert len(before) == (1 if end == "subscription" else 0)
        assert bench.node.get_subscriptions_info_by_topic("/a/image") == []
    finally:
        node.stop()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"threshold": "high"}, "threshold"),
        ({"max_age": -1.0}, "max_age"),
        ({"depth_window": 6}, "depth_window"),
        ({"backend": "abacus"}, "backend is 'abacus': allowed are"),
        ({"cameras": ["a", "a"]}, "different names"),
        ({"stereo": ["left", "right"]}, "two of the cameras"),
        ({"stereo_pose": "1 2 3"}, "x y z qx qy qz qw"),
        ({"cameras": []}, "at least one"),
        ({"stereo": [], "stereo_pose": "1 2 3"}, "x y z qx qy qz qw"),
        ({"camera.image_transport": "jpeg"}, "camera.image_transport is 'jpeg': allowed are raw, compressed"),
    ],
)
def test_a_parameter_that_is_not_allowed_is_one_clear_line(parameters: dict, words: str) -> None:
    node = NodeProcess(parameters)
    wait_until(lambda: not node.alive, lambda: "it runs")
    time.sleep(0.1)
    assert words in node.log and "Traceback" not in node.log, node.log
    assert node.stop()[0] == 2


def test_arguments_that_are_not_for_ros_are_refused(colour_model_path: Path) -> None:
    for arguments in (["--model", "/x.onnx"], ["picture", "--ros-args", "-p", f"model:={colour_model_path}"]):
        node = LoggedProcess([sys.executable, "-m", "keypoint_perception.ros.node", *arguments])
        wait_until(lambda node=node: not node.alive, lambda: "it runs")
        assert node.stop()[0] == 2
        assert f"no arguments of the detector: {' '.join(arguments).partition(' --ros')[0]}; give" in node.log
        assert "--ros-args -p model:=FILE" in node.log and "Traceback" not in node.log


def test_help_is_short_and_starts_nothing() -> None:
    node = LoggedProcess([sys.executable, "-m", "keypoint_perception.ros.node", "--help"])
    wait_until(lambda: not node.alive, lambda: "it runs")
    assert node.stop()[0] == 0
    assert "--ros-args -p model:=" in node.log and "threshold" in node.log and len(node.lines) < 20


def test_in_a_namespace_with_topics_remapped(bench: Bench, colour_model_path: Path) -> None:
    remap = {"__ns": "/robot", "__node": "eyes", "image": "/cam/color", "~/keypoints": "/found"}
    node = NodeProcess({"model": colour_model_path}, remap)
    try:
        bench.listen("/found", KeypointArray)
        bench.ask("/cam/color", image_message(PICTURE), "/found")
        assert "/robot/eyes/skeleton" in dict(bench.node.get_topic_names_and_types())
    finally:
        node.stop()


def _broken_node(error: str, model: Path) -> LoggedProcess:
    """A node of which a timer raises an error, given as Python."""
    script = BROKEN_NODE.replace("ERROR", error)
    return LoggedProcess([sys.executable, "-c", script, "--ros-args", "-p", f"model:={model}"])


def _set_cameras(bench: Bench, *names: str) -> None:
    cameras = SetParameters.Request(parameters=[Parameter("cameras", value=names).to_parameter_msg()])
    (result,) = bench.call(SetParameters, "/detector/set_parameters", cameras).results
    assert result.successful, result.reason


def _state(bench: Bench) -> int:
    return bench.call(GetState, "/detector/get_state", GetState.Request()).current_state.id
