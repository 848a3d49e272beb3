"""Every engine at hand gives the same numbers for the same file."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from keypoint_perception import backends
from keypoint_perception.backends import BACKENDS, Backend, BackendUnavailable, open_backend
from keypoint_perception.errors import UserError
from keypoint_perception.model import ModelInfo, write_model

WIDTH, HEIGHT = 24, 16


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """scores: mean of each colour channel, 0 to 1. keypoints: twice that score."""
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "range"], ["scores"]),
        helper.make_node("Unsqueeze", ["scores", "last"], ["column"]),
        helper.make_node("Concat", ["column", "column"], ["keypoints"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])],
        [
            helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, ["batch", 3, 2]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("last", TensorProto.INT64, [1], [2]),
            helper.make_tensor("range", TensorProto.FLOAT, [], [255.0]),
        ],
    )
    info = ModelInfo("toy", "imm", (WIDTH, HEIGHT), ("r", "g", "b"), ((0.0,) * 3,) * 3, (-1,) * 3, (0,) * 3)
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    return write_model(tmp_path_factory.mktemp("model") / "toy.onnx", data, info)


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize("batch", [1, 3, 11])
def test_known_answer(model, name, batch):
    try:
        backend = open_backend(name, model)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    images = np.random.default_rng(0).integers(0, 256, (batch, HEIGHT, WIDTH, 3), dtype=np.uint8)
    outputs = backend.run(images)
    assert outputs["scores"] == pytest.approx(images.mean(axis=(1, 2)) / 255, abs=1e-5)
    assert outputs["keypoints"].shape == (batch, 3, 2)
    backend.run(255 - images)
    assert outputs["scores"] == pytest.approx(images.mean(axis=(1, 2)) / 255, abs=1e-5)  # results are the caller's


def test_unknown_backend_lists_the_known(model):
    with pytest.raises(UserError, match="allowed are auto, tensorrt, openvino, onnxruntime"):
        open_backend("tflite", model)


def test_auto_says_what_it_tried(model):
    lines = []
    chosen = open_backend("auto", model, log=lines.append)
    tried = [line for line in lines if line.startswith("backend auto: ")]
    assert len(tried) == len(BACKENDS) and any(chosen.describe() in line for line in tried)


def _name(backend: Backend) -> str:
    return type(backend).__module__.rpartition(".")[2]


def test_auto_closes_what_it_does_not_take(model, monkeypatch):
    closed = []
    monkeypatch.setattr(Backend, "close", lambda backend: closed.append(_name(backend)))
    lines = []
    chosen = open_backend("auto", model, log=lines.append)
    tried = [line for line in lines if line.startswith("backend auto: ")]
    ran = [name for name, line in zip(BACKENDS, tried, strict=True) if " takes " in line]
    assert sorted([*closed, _name(chosen)]) == sorted(ran)

    for kind in (UserError, RuntimeError):

        def fails(backend, model, kind=kind):
            raise kind("it does not run")

        closed.clear()
        monkeypatch.setattr(backends, "trial_ms", fails)
        with pytest.raises(BackendUnavailable, match="it does not run"):
            open_backend("auto", model)
        assert closed == ran
