"""Models that are missing, broken, repaired and swapped under a node process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from colour_model import spots_image, write_colour_model
from harness import LATCHED, Bench, NodeProcess, image_message

from keypoint_perception.detector import Detector
from keypoint_perception.errors import UserError
from keypoint_perception.ros.loading import ModelHost, Request
from keypoint_perception_msgs.msg import Keypoint, KeypointArray, KeypointHierarchy
from keypoint_perception_msgs.srv import LoadModel

PICTURE = spots_image((96, 64), {"red": (20, 20), "green": (60, 40)})


def test_from_no_model_to_one_swapped_and_none_lost(bench: Bench, tmp_path: Path) -> None:
    """A node that starts without a model waits for it, survives garbage, and swaps on request."""
    path, other = tmp_path / "late.onnx", tmp_path / "other.onnx"
    write_colour_model(other, name="other", dynamic_adjacency=True)
    node = NodeProcess({"model": path})
    try:
        node.wait_for("late.onnx is not there")
        path.write_text("this is no model")
        node.wait_for("not a whole ONNX file")
        assert node.alive
        write_colour_model(path, name="late")
        node.wait_for("active")
        assert node.log.count("is not there") == 1, "said once"

        keypoints = "/detector/keypoints"
        bench.listen(keypoints, KeypointArray)
        assert bench.ask("/image", image_message(PICTURE), keypoints).model_id.startswith("late@")
        path.unlink()
        assert bench.ask("/image", image_message(PICTURE), keypoints).model_id.startswith("late@")

        assert "is not there" in _refused_by_late(bench, path)
        assert "is a folder" in _refused_by_late(bench, tmp_path)
        path.write_bytes(other.read_bytes()[:1000])
        assert "refused" in _refused_by_late(bench, path)
        assert "give 0 to 1, or a negative one" in _refused_by_late(bench, other, threshold=3.0)
        assert bench.ask("/image", image_message(PICTURE), keypoints).model_id.startswith("late@")

        bench.listen("/detector/hierarchy", KeypointHierarchy, LATCHED)
        accepted = _load(bench, str(other), threshold=0.9)
        assert accepted.success and accepted.model_id.startswith("other@")
        assert bench.ask("/image", image_message(PICTURE), keypoints).model_id == accepted.model_id
        bench.until(
            lambda: (
                bench.heard["/detector/hierarchy"][-1:] != []
                and bench.heard["/detector/hierarchy"][-1].model_id == accepted.model_id
            ),
            "the hierarchy of the new model is not latched",
        )
    finally:
        status, _ = node.stop()
    assert status == 0


@pytest.mark.parametrize("more", [{}, {"threshold": np.nan}, {"threshold": -3.0}])
def test_a_request_without_a_threshold_keeps_the_present_one(
    bench: Bench, tmp_path: Path, more: dict[str, float]
) -> None:
    models = [write_colour_model(tmp_path / f"{name}.onnx", name=name).path for name in ("first", "second")]
    node = NodeProcess({"model": models[0], "threshold": 0.4})
    try:
        bench.listen("/detector/keypoints", KeypointArray)
        states = []
        for wanted in models:
            accepted = _load(bench, str(wanted), **more)
            assert accepted.success, accepted.message
            found = bench.ask("/image", image_message(PICTURE), "/detector/keypoints")
            states.append([keypoint.state == Keypoint.OBSERVED for keypoint in found.keypoints])
        assert states == [[True, True, False]] * 2, "there is no blue"
    finally:
        node.stop()


def test_before_it_is_configured_a_node_notes_a_model_that_is_there_and_no_other(bench: Bench, tmp_path: Path) -> None:
    model = write_colour_model(tmp_path / "there.onnx").path
    node = NodeProcess({"model": tmp_path / "none.onnx", "autostart": False})
    try:
        refused = _load(bench, str(tmp_path / "nowhere.onnx"))
        assert not refused.success and "nowhere.onnx is not there" in refused.message
        noted = _load(bench, str(model))
        assert noted.success and "configure the node" in noted.message
    finally:
        node.stop()


def test_no_image_is_lost_while_models_are_swapped(bench: Bench, tmp_path: Path) -> None:
    models = [write_colour_model(tmp_path / f"{name}.onnx", name=name).path for name in ("first", "second")]
    node = NodeProcess({"model": models[0], "qos_overrides./image.subscription.depth": 10})
    try:
        keypoints = "/detector/keypoints"
        bench.listen(keypoints, KeypointArray)
        bench.ask("/image", image_message(PICTURE), keypoints)

        def served() -> list[KeypointArray]:
            return [message for message in bench.heard[keypoints] if message.header.stamp.sec < 200]

        client = bench.node.create_client(LoadModel, "/detector/load_model")
        bench.until(client.service_is_ready, "no service")
        publisher = bench.publisher("/image")
        futures = []
        for index in range(60):
            publisher.publish(image_message(PICTURE, stamp=100 + index / 30))
            if index % 20 == 5:
                futures.append(client.call_async(LoadModel.Request(path=str(models[(index // 20 + 1) % 2]))))
            bench.spin(1 / 30)
        bench.until(lambda: len(served()) == 60 and all(f.done() for f in futures), lambda: f"{len(served())} of 60")
        assert all(future.result().success for future in futures)
        assert {message.model_id.split("@")[0] for message in served()} == {"first", "second"}
        stamps = [message.header.stamp.sec + message.header.stamp.nanosec / 1e9 for message in served()]
        assert stamps == sorted(stamps)
    finally:
        node.stop()


def test_models_that_serve_no_more_are_closed(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is replaced, one that is given back, one that was loaded for nothing, and one that does not run."""
    requests = [
        Request(str(write_colour_model(tmp_path / f"{name}.onnx", name=name).path), "onnxruntime", 1, 1)
        for name in ("first", "second", "third")
    ]
    closed: list[str] = []
    monkeypatch.setattr(Detector, "close", lambda detector: closed.append(detector.model.info.name))
    host = ModelHost(bench.node, lambda changes, error: None)
    host.open(requests[0])
    bench.until(host.begin(requests[1], {}).done, "the second does not come")
    assert closed == ["first"]
    third = host.begin(requests[2], {})
    host.close()
    assert closed == ["first", "second"]
    bench.until(third.done, "the third does not come")
    assert closed == ["first", "second", "third"] and host.detector is None

    def fails(detector: Detector, batch_size: int) -> None:
        raise UserError("it does not run")

    monkeypatch.setattr(Detector, "warm_up", fails)
    with pytest.raises(UserError, match="does not run"):
        host.open(requests[0])
    assert closed[3:] == ["first"] and host.detector is None


def test_a_second_node_of_one_name_is_told(bench: Bench, colour_model_path: Path) -> None:
    nodes = [NodeProcess({"model": colour_model_path}, {"image": f"image{i}", "__node": "twin"}) for i in range(2)]
    try:
        nodes[0].wait_for("another node is called /twin")
    finally:
        for node in nodes:
            node.stop()


def _refused_by_late(bench: Bench, path: Path, **more: float) -> str:
    """What a node says that does not load a model but goes on with the one called late."""
    refused = _load(bench, str(path), **more)
    assert not refused.success and refused.model_id.startswith("late@")
    return refused.message


def _load(bench: Bench, path: str, **more: float) -> LoadModel.Response:
    return bench.call(LoadModel, "/detector/load_model", LoadModel.Request(path=os.fspath(path), **more))
