"""Parameters that load a model beside the running one: what is told, and what holds in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from colour_model import write_colour_model
from harness import Bench, NodeProcess, wait_until
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter

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
    node.wait_for("active, waiting")
    yield node
    status, _ = node.stop()
    assert status == 0 and "Traceback" not in node.log


def test_every_swap_that_fails_is_told(bench: Bench, node: NodeProcess, models: dict[str, Path]) -> None:
    for count, name in enumerate(("bad1", "bad2", "bad1"), 1):
        _set(bench, model=models[name])
        wait_until(lambda count=count: node.log.count(REFUSED) == count, lambda: node.log)
        assert f"{name}.onnx" in node.lines[-1]


def test_every_transition_that_fails_is_told(bench: Bench, models: dict[str, Path]) -> None:
    node = NodeProcess({"model": models["bad1"], "autostart": False})
    try:
        for count in (1, 2):
            assert not _change_state(bench, Transition.TRANSITION_CONFIGURE)
            assert node.log.count("bad1.onnx") == count
    finally:
        node.stop()


def _set(bench: Bench, **values: Any) -> None:
    """Sets parameters, in one request but each by itself; all are accepted."""
    parameters = [Parameter(name, value=_plain(value)).to_parameter_msg() for name, value in values.items()]
    results = bench.call(
        SetParameters, "/detector/set_parameters", SetParameters.Request(parameters=parameters)
    ).results
    assert all(result.successful for result in results), results


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _change_state(bench: Bench, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bench.call(ChangeState, "/detector/change_state", request).success
