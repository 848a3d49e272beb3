"""One node process: what it publishes, and how it takes parameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from colour_model import CHAIN, COLOURS, spots_image
from diagnostic_msgs.msg import DiagnosticArray
from harness import LATCHED, Bench, NodeProcess, image_message
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, ListParameters, SetParameters
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import Marker, MarkerArray

from keypoint_perception.images import image_to_rgb
from keypoint_perception_msgs.msg import Keypoint, KeypointArray, KeypointHierarchy, SkeletonGraph

CENTRES = {"red": (40, 50), "green": (150, 90), "blue": (100, 20)}
PICTURE = spots_image((192, 128), CENTRES)


@pytest.fixture(scope="module")
def node(bench: Bench, colour_model_path: Path) -> Iterator[NodeProcess]:
    node = NodeProcess({"model": colour_model_path, "diagnostics_period": 0.2})
    bench.listen("/detector/keypoints", KeypointArray)
    bench.listen("/diagnostics", DiagnosticArray)
    yield node
    node.stop()


def test_keypoints_carry_the_images_header_and_its_pixels(bench: Bench, node: NodeProcess) -> None:
    message = image_message(PICTURE, stamp=12.5, frame_id="wrist_optical")
    found = bench.ask("/image", message, "/detector/keypoints")
    assert found.header == message.header
    assert (found.image_width, found.image_height) == (192, 128)
    assert [k.id for k in found.keypoints] == [0, 1, 2]
    assert [k.name for k in found.keypoints] == list(COLOURS)
    np.testing.assert_allclose([(k.u, k.v) for k in found.keypoints], list(CENTRES.values()), atol=0.6)
    np.testing.assert_allclose([k.score for k in found.keypoints], 1, atol=0.01)
    assert {k.state for k in found.keypoints} == {Keypoint.OBSERVED}
    assert found.model_id.startswith("colours@")
    assert all(np.isnan([k.position.x, k.position.z, k.position_stddev]).all() for k in found.keypoints)
    assert found.position_frame_id == "", "nothing is lifted"


def test_a_keypoint_that_is_not_seen_is_published_with_its_score(bench: Bench, node: NodeProcess) -> None:
    without_green = spots_image((192, 128), {"red": (40, 50), "blue": (100, 20)})
    found = bench.ask("/image", image_message(without_green), "/detector/keypoints")
    assert len(found.keypoints) == 3
    assert found.keypoints[1].score == 0 and found.keypoints[1].state == Keypoint.OCCLUDED


def test_the_size_may_change_from_image_to_image(bench: Bench, node: NodeProcess) -> None:
    for size in ((96, 64), (384, 256), (100, 75)):
        picture = spots_image(size, {"red": (40, 30)})
        found = bench.ask("/image", image_message(picture), "/detector/keypoints")
        assert (found.image_width, found.image_height) == size
        np.testing.assert_allclose((found.keypoints[0].u, found.keypoints[0].v), (40, 30), atol=0.8)


def test_structure_is_latched_for_who_comes_late(bench: Bench, node: NodeProcess) -> None:
    bench.ask("/image", image_message(PICTURE), "/detector/keypoints")
    bench.listen("/detector/skeleton", SkeletonGraph, LATCHED)
    bench.listen("/detector/hierarchy", KeypointHierarchy, LATCHED)
    bench.until(
        lambda: bool(bench.heard["/detector/skeleton"] and bench.heard["/detector/hierarchy"]), "nothing is latched"
    )
    (graph,) = bench.heard["/detector/skeleton"]
    assert list(zip(graph.edge_source, graph.edge_target, strict=True)) == [(0, 1), (1, 2)]
    np.testing.assert_allclose(graph.edge_weight, [CHAIN[0][1], CHAIN[1][2]])
    assert np.isnan(graph.edge_length).all()
    (forest,) = bench.heard["/detector/hierarchy"]
    assert list(forest.name) == ["spots", *COLOURS]
    assert list(forest.parent) == [-1, 0, 1, 2] and list(forest.keypoint_id) == [-1, 0, 1, 2]
    assert list(forest.level) == [0, 1, 2, 3]


def test_markers_show_points_and_links_in_the_cameras_frame(bench: Bench, node: NodeProcess) -> None:
    bench.listen("/detector/markers", MarkerArray)
    found: list[MarkerArray] = bench.heard["/detector/markers"]
    message = image_message(PICTURE, frame_id="table_optical")
    publisher = bench.publisher("/image")

    def shown() -> bool:
        publisher.publish(message)
        bench.spin(0.05)
        return bool(found)

    bench.until(shown, "no markers")
    first, *rest = found[0].markers
    assert first.action == Marker.DELETEALL, "what was shown before goes away"
    kinds = {marker.type: marker for marker in rest}
    assert len(kinds[Marker.SPHERE_LIST].points) == 3 == len(kinds[Marker.SPHERE_LIST].colors)
    assert len(kinds[Marker.LINE_LIST].points) == 4, "two edges"
    assert {marker.header.frame_id for marker in rest} == {"table_optical"}
    red, green, _ = kinds[Marker.SPHERE_LIST].points
    assert red.z == pytest.approx(1.0), "no depth: on the plane marker_depth"
    assert red.x < green.x and red.y < green.y


def test_an_overlay_is_drawn_only_for_who_looks(bench: Bench, node: NodeProcess) -> None:
    bench.listen("/detector/overlay", Image)
    bench.listen("/detector/overlay/compressed", CompressedImage)
    message = image_message(PICTURE)
    picture = image_to_rgb(bench.ask("/image", message, "/detector/overlay"))
    assert picture.shape == PICTURE.shape
    assert (picture != PICTURE).any()
    compressed = image_to_rgb(bench.ask("/image", image_message(PICTURE), "/detector/overlay/compressed"))
    assert np.abs(compressed.astype(int) - picture).mean() < 8
    for topic in ("/detector/overlay", "/detector/overlay/compressed"):
        bench.stop_listening(topic)
    bench.ask("/image", image_message(PICTURE), "/detector/keypoints")


def test_diagnostics_tell_rates_latency_drops_scores_backend_and_model(bench: Bench, node: NodeProcess) -> None:
    answer = bench.ask("/image", image_message(PICTURE), "/detector/keypoints")
    bench.heard["/diagnostics"].clear()
    bench.until(lambda: len(bench.heard["/diagnostics"]) > 1, "no diagnostics")
    model, camera = bench.heard["/diagnostics"][-1].status
    values = {pair.key: pair.value for pair in (*model.values, *camera.values)}
    assert model.name == "detector: model" and camera.name == "detector: camera"
    assert values["state"] == "active"
    assert values["model_id"] == answer.model_id
    assert values["backend"].startswith("onnxruntime")
    assert int(values["images_published"]) > 0
    assert float(values["latency_p50_ms"]) > 0
    assert {"rate_hz", "latency_p99_ms", "mean_score", "dropped_old", "dropped_superseded", "dropped_lost"} <= set(
        values
    )


def test_every_parameter_is_described(bench: Bench, node: NodeProcess) -> None:
    names = bench.call(ListParameters, "/detector/list_parameters", ListParameters.Request()).result.names
    ours = [name for name in names if name not in ("use_sim_time", "start_type_description_service")]
    described = bench.call(
        DescribeParameters, "/detector/describe_parameters", DescribeParameters.Request(names=ours)
    ).descriptors
    without = [d.name for d in described if not d.description and not d.name.startswith("qos_overrides")]
    assert not without
    ranges = {d.name: d.floating_point_range for d in described}
    assert ranges["threshold"][0].to_value == 1.0


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("threshold", 1.5, "range"),
        ("backend", "abacus", "allowed are"),
        ("model", "/nowhere.onnx", "is not there"),
        ("cameras", ["left", "right"], "cleanup"),
        ("image_transport", "compressed", "cleanup"),
    ],
)
def test_what_is_not_allowed_is_refused_with_a_reason(
    bench: Bench, node: NodeProcess, name: str, value: object, reason: str
) -> None:
    (result,) = _set(bench, name, value)
    assert not result.successful
    assert reason in result.reason


def test_the_threshold_applies_at_once(bench: Bench, node: NodeProcess) -> None:
    faint = spots_image((192, 128), {}, grey=90)
    faint[40:60, 40:60] = (180, 90, 90)  # exceeds the others by 90: score 0.29
    states = []
    for threshold in (0.2, 0.5):
        (result,) = _set(bench, "threshold", threshold)
        assert result.successful
        found = bench.ask("/image", image_message(faint), "/detector/keypoints")
        states.append(found.keypoints[0].state)
    assert states == [Keypoint.OBSERVED, Keypoint.OCCLUDED]
    _set(bench, "threshold", 0.3)


def _set(bench: Bench, name: str, value: object) -> list:
    kinds = {float: "double", str: "string", list: "string_array", bool: "bool", int: "integer"}
    kind = kinds[type(value)]
    field = ParameterValue(type=getattr(ParameterType, f"PARAMETER_{kind.upper()}"), **{f"{kind}_value": value})
    request = SetParameters.Request(parameters=[Parameter(name=name, value=field)])
    return bench.call(SetParameters, "/detector/set_parameters", request).results
