"""The messages, as they are after crossing from one process to another over the real middleware."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here")
messages = pytest.importorskip("keypoint_perception_msgs.msg", reason="build keypoint_perception_msgs first")
services = pytest.importorskip("keypoint_perception_msgs.srv", reason="build keypoint_perception_msgs first")

DOMAIN = 101 + os.getpid() % 100
PATIENCE_S = 60.0

PUBLISHER = """
import math, rclpy
from geometry_msgs.msg import Point
from keypoint_perception_msgs.msg import Keypoint, KeypointArray, KeypointHierarchy, SkeletonGraph
from keypoint_perception_msgs.srv import LoadModel

unlifted = Point(x=math.nan, y=math.nan, z=math.nan)
array = KeypointArray(model_id="arm@1234", image_width=640, image_height=480, position_frame_id="camera")
array.header.frame_id = "camera"
array.header.stamp.nanosec = 7
array.keypoints = [
    Keypoint(id=0, name="elbow", state=Keypoint.OBSERVED, score=0.75, u=1.5, v=-0.5, position=Point(x=1.0)),
    Keypoint(id=65535, state=Keypoint.OUT_OF_IMAGE, position=unlifted, position_stddev=math.nan),
]
graph = SkeletonGraph(edge_source=[0], edge_target=[65535], edge_weight=[0.5], edge_length=[math.nan])
tree = KeypointHierarchy(parent=[-1, 0], keypoint_id=[-1, 3], level=bytes([0, 1]), name=["arm", "elbow"])

rclpy.init()
node = rclpy.create_node("publisher")
publishers = {name: node.create_publisher(type(m), name, 10)
              for name, m in (("array", array), ("graph", graph), ("tree", tree))}

def answer(request, response):
    response.success = request.threshold < 0
    response.message, response.model_id = request.path, "arm@1234"
    return response

node.create_service(LoadModel, "load", answer)
def publish():
    for name, message in (("array", array), ("graph", graph), ("tree", tree)):
        publishers[name].publish(message)
node.create_timer(0.05, publish)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
    pass
"""


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One message of each topic and the service's response, by name."""
    settings = {"ROS_LOG_DIR": str(tmp_path_factory.mktemp("log")), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        publisher = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER], env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)}
        )
        context = rclpy.Context()
        rclpy.init(context=context, domain_id=DOMAIN)
        try:
            yield receive(context)
        finally:
            rclpy.shutdown(context=context)
            publisher.terminate()
            publisher.wait(10)


def receive(context: Any) -> dict[str, Any]:
    """Waits for one message of each kind."""
    node = rclpy.create_node("subscriber", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    found: dict[str, Any] = {}
    types = {"array": messages.KeypointArray, "graph": messages.SkeletonGraph, "tree": messages.KeypointHierarchy}
    for name, kind in types.items():
        node.create_subscription(kind, name, lambda message, name=name: found.setdefault(name, message), 10)
    client = node.create_client(services.LoadModel, "load")
    assert client.wait_for_service(PATIENCE_S), "the other process does not answer"
    future = client.call_async(services.LoadModel.Request(path="/models/arm.onnx"))
    end = time.monotonic() + PATIENCE_S
    while not (future.done() and len(found) == len(types)) and time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    node.destroy_node()
    return {**found, "response": future.result()}


def test_keypoints_cross(received: dict[str, Any]) -> None:
    array = received["array"]
    assert (array.model_id, array.image_width, array.image_height) == ("arm@1234", 640, 480)
    assert (array.header.frame_id, array.header.stamp.nanosec, array.position_frame_id) == ("camera", 7, "camera")
    elbow, unlifted = array.keypoints
    assert (elbow.id, elbow.name, elbow.score, elbow.u, elbow.v) == (0, "elbow", 0.75, 1.5, -0.5)
    assert (elbow.state, elbow.position.x) == (messages.Keypoint.OBSERVED, 1.0)
    assert (unlifted.id, unlifted.state) == (65535, messages.Keypoint.OUT_OF_IMAGE)
    assert math.isnan(unlifted.position.z)
    assert math.isnan(unlifted.position_stddev)


def test_skeleton_crosses(received: dict[str, Any]) -> None:
    graph = received["graph"]
    assert (list(graph.edge_source), list(graph.edge_target), list(graph.edge_weight)) == ([0], [65535], [0.5])
    assert math.isnan(graph.edge_length[0])


def test_hierarchy_crosses(received: dict[str, Any]) -> None:
    tree = received["tree"]
    assert (list(tree.parent), list(tree.keypoint_id)) == ([-1, 0], [-1, 3])
    assert (list(tree.level), list(tree.name)) == ([0, 1], ["arm", "elbow"])


def test_service_answers_a_request_that_leaves_its_threshold_out(received: dict[str, Any]) -> None:
    response = received["response"]
    assert (response.success, response.message, response.model_id) == (True, "/models/arm.onnx", "arm@1234")


def test_states_are_distinct() -> None:
    kind = messages.Keypoint
    assert [kind.UNKNOWN, kind.OBSERVED, kind.OCCLUDED, kind.OUT_OF_IMAGE] == [0, 1, 2, 3]
