"""Parameters that load a model beside the running one: what is told, and what holds in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from colour_model import write_colour_model
from diagnostic_msgs.msg import DiagnosticArray
from harness import PATIENCE_S, Bench, NodeProcess, wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter, parameter_value_to_python

from keypoint_perception.ros.faults import Faults
from keypoint_perception.ros.parameters import declare
from keypoint_perception.ros.tuning import Tuning
from keypoint_perception_msgs.srv import LoadModel

REFUSED = "the model stays"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two that are whole and two that are not."""
    folder = tmp_path_factory.mktemp("models")
    paths = {name: write_colour_model(folder / f"{name}.onnx", name=name).path for name in ("first", "second")}
    for name in ("bad1", "bad2"):
        paths[name] = folder / f"{name}.onnx"
        paths[name].write_bytes(paths["first"].read_bytes()[:1000])
    return paths


@pytest.fixture
def node(bench: Bench, models: dict[str, Path]) -> Iterator[NodeProcess]:
    """A node that runs the first model."""
    node = NodeProcess({"model": models["first"], "diagnostics_period": 0.2})
    bench.listen("/diagnostics", DiagnosticArray)
    node.wait_for("active, waiting")
    yield node
    status, _ = node.stop()
    assert status == 0 and "Traceback" not in node.log


def test_every_swap_that_fails_is_told(bench: Bench, node: NodeProcess, models: dict[str, Path]) -> None:
    for count, name in enumerate(("bad1", "bad2", "bad1"), 1):
        _set(bench, {"model": models[name]})
        wait_until(lambda count=count: node.log.count(REFUSED) == count, lambda: node.log)
        assert f"{name}.onnx" in node.lines[-1]


def test_every_transition_that_fails_is_told(bench: Bench, models: dict[str, Path]) -> None:
    node = NodeProcess({"model": models["bad1"], "autostart": False})
    try:
        for count in (1, 2):
            assert not _change_state(bench, Transition.TRANSITION_CONFIGURE)
            bench.until(lambda count=count: node.log.count("bad1.onnx") == count, "the log does not tell of it")
    finally:
        node.stop()


@pytest.mark.parametrize(
    ("asked", "model", "threads", "loads"),
    [
        ([{"model": "second"}, {"model": "first"}], "first", 1, 2),
        ([{"model": "second"}, {"model": "first"}, {"model": "second"}], "second", 1, 1),
        ([{"model": "second", "threads": 2}], "second", 2, 2),
        ([{"model": "bad1"}, {"threads": 2}], "first", 2, 1),
        ([{"model": "bad1"}, {"model": "first"}], "first", 1, 0),
    ],
)
def test_what_was_asked_for_last_holds_though_a_model_is_being_loaded(
    bench: Bench, node: NodeProcess, models: dict[str, Path], asked: list, model: str, threads: int, loads: int
) -> None:
    """Each is accepted. loads: of models that serve, unless one was there before the next was asked for."""
    _set(bench, *({name: models.get(value, value) for name, value in changes.items()} for changes in asked))
    _until_loaded(bench)
    assert _get(bench, "model", "threads") == [str(models[model]), threads]
    values, message = _model_status(bench)
    assert values["model_id"].startswith(f"{model}@") and REFUSED not in message
    assert node.log.count("in onnxruntime") >= 1 + loads, node.log


def test_a_swap_that_failed_is_over_once_the_running_model_is_chosen_or_given_back(
    bench: Bench, node: NodeProcess, models: dict[str, Path]
) -> None:
    def fail() -> None:
        _set(bench, {"model": models["bad1"]})
        bench.until(lambda: REFUSED in _model_status(bench)[1], "no diagnostic tells of it")
        assert _get(bench, "model") == [str(models["first"])]

    fail()
    _set(bench, {"model": models["first"]})
    bench.until(lambda: REFUSED not in _model_status(bench)[1], "the diagnostic stays")
    fail()
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert _change_state(bench, transition)
    bench.until(lambda: REFUSED not in _model_status(bench)[1], "the diagnostic stays")


def test_a_model_that_was_not_there_yet_when_the_node_was_cleaned_up_is_its_next(
    bench: Bench, node: NodeProcess, models: dict[str, Path]
) -> None:
    _set(bench, {"model": models["second"]})
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
    ):
        assert _change_state(bench, transition)
    assert _model_status(bench)[0]["model_id"].startswith("second@") and REFUSED not in node.log


def test_a_threshold_that_is_set_while_a_model_with_another_is_loaded_stays(
    bench: Bench, models: dict[str, Path]
) -> None:
    node = rclpy.create_node("tuned")
    settings = declare(node)
    tuning = Tuning(node, settings, Faults(node.get_logger()), lambda: None)
    node.set_parameters([Parameter("model", value=str(models["first"]))])
    tuning.open()
    loaded = tuning.swap({"model": str(models["second"]), "threshold": 0.9})
    node.set_parameters([Parameter("threshold", value=0.4)])
    rclpy.spin_until_future_complete(node, loaded, timeout_sec=PATIENCE_S)
    assert loaded.result().startswith("model second@")
    assert tuning.settings.threshold == node.get_parameter("threshold").value == 0.4
    node.destroy_node()


def test_a_finalized_node_takes_no_model(bench: Bench, node: NodeProcess, models: dict[str, Path]) -> None:
    assert _change_state(bench, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    refused = bench.call(LoadModel, "/detector/load_model", LoadModel.Request(path=str(models["second"])))
    assert not refused.success and "finalized" in refused.message


def _set(bench: Bench, *requests: dict[str, Any]) -> None:
    """Sets parameters by one request right after the other, in each every one by itself; all are accepted."""
    client = bench.node.create_client(SetParameters, "/detector/set_parameters")
    bench.until(client.service_is_ready, "no service")
    bench.spin(0.5)  # the way back is found a little later
    futures = []
    for values in requests:
        parameters = [Parameter(name, value=_plain(value)).to_parameter_msg() for name, value in values.items()]
        futures.append(client.call_async(SetParameters.Request(parameters=parameters)))
    bench.until(lambda: all(future.done() for future in futures), "no answer")
    results = [result for future in futures for result in future.result().results]
    assert all(result.successful for result in results), results
    bench.node.destroy_client(client)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _get(bench: Bench, *names: str) -> list[Any]:
    response = bench.call(GetParameters, "/detector/get_parameters", GetParameters.Request(names=names))
    return [parameter_value_to_python(value) for value in response.values]


def _until_loaded(bench: Bench) -> None:
    bench.until(lambda: _model_status(bench)[0]["loading"] == "false", "the model does not come")


def _model_status(bench: Bench) -> tuple[dict[str, str], str]:
    """Values and message of the next diagnostics about the model."""
    heard = bench.heard["/diagnostics"]
    heard.clear()
    bench.until(lambda: bool(heard), "no diagnostics")
    status = heard[-1].status[0]
    return {pair.key: pair.value for pair in status.values}, status.message


def _change_state(bench: Bench, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bench.call(ChangeState, "/detector/change_state", request).success
