"""The compile path for real, in TensorRT-RTX, which builds without a GPU."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import onnx
import pytest
from onnx import TensorProto, helper

from keypoint_perception.backends import BackendUnavailable, open_backend, tensorrt
from keypoint_perception.compile import compile_model
from keypoint_perception.detector import Detector
from keypoint_perception.engine import cache_path, cached_engine, engine_key, import_flavour, read_engine
from keypoint_perception.errors import UserError
from keypoint_perception.model import ModelInfo, write_model

try:
    FLAVOUR, TRT = import_flavour("tensorrt_rtx")
except BackendUnavailable:
    pytest.skip("TensorRT-RTX is not installed (requirements/tensorrt.txt)", allow_module_level=True)


def toy_graph(cast_first=True):
    """Channel means as keypoints: uint8 in, through a Cast, a Transpose and a ReduceMean."""
    order = [("Cast", "image", "real", {"to": TensorProto.FLOAT}), ("Transpose", "real", "chw", {"perm": [0, 3, 1, 2]})]
    if not cast_first:
        order = [
            ("Transpose", "image", "real", {"perm": [0, 3, 1, 2]}),
            ("Cast", "real", "chw", {"to": TensorProto.FLOAT}),
        ]
    nodes = [helper.make_node(kind, [a], [b], **attributes) for kind, a, b, attributes in order]
    nodes += [
        helper.make_node("ReduceMean", ["chw", "axes"], ["scores"], keepdims=0),
        helper.make_node("Unsqueeze", ["scores", "last"], ["scores3"]),
        helper.make_node("Concat", ["scores3", "scores3"], ["keypoints"], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 16, 24, 3])],
        [
            helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, ["batch", 3, 2]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
            helper.make_tensor("last", TensorProto.INT64, [1], [2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(model)
    return model.SerializeToString()


INFO = ModelInfo("toy", "imm", (24, 16), ("r", "g", "b"), ((0.0,) * 3,) * 3, (-1,) * 3, (0,) * 3)


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "toy.onnx", toy_graph(), INFO)


def test_an_engine_is_built_once_and_then_reused(model):
    engine = compile_model(model.path, FLAVOUR)
    first = engine.stat().st_mtime_ns
    assert engine.parent == model.path.parent
    assert compile_model(model.path, FLAVOUR) == engine and engine.stat().st_mtime_ns == first
    assert not list(engine.parent.glob("*.tmp*"))


def test_progress_reaches_the_end(model):
    shares = []
    cached_engine(
        model, engine_key(model, FLAVOUR, TRT, "gpu"), TRT, progress=lambda phase, share: shares.append(share)
    )
    assert shares[-1] == 1.0 and min(shares) == 0.0


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-5], lambda d: d[:-1] + bytes([d[-1] ^ 1]), lambda d: b"", lambda d: b"x" + d]
)
def test_a_damaged_engine_is_named_and_built_again(model, damage):
    key, log = engine_key(model, FLAVOUR, TRT, "gpu"), []
    _, path = cached_engine(model, key, TRT, log=log.append)
    assert [line.partition(":")[0] for line in log] == [f"building engine {path}"]
    log.clear()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    again, _ = cached_engine(model, key, TRT, log=log.append)
    assert len(again) > 1000
    assert log[0].startswith(f"engine {path} is not used: ") and log[1].startswith(f"building engine {path}: ")
    assert read_engine(path, key)[0] == again


@pytest.mark.parametrize(
    "change", [{"version": "0"}, {"gpu": "another"}, {"model_sha256": "0" * 64}, {"precision": "int8"}]
)
def test_a_stale_engine_is_never_used(model, change):
    key = engine_key(model, FLAVOUR, TRT, "gpu")
    _, path = cached_engine(model, key, TRT)
    stale = replace(key, **change)
    assert stale.digest != key.digest  # it has another file name …
    plan, reason = read_engine(path, stale)  # … and the header tells even where the name was changed by hand
    assert plan is None and "another model" in reason


def test_a_model_that_tensorrt_cannot_read_is_one_clear_line(tmp_path):
    model = write_model(tmp_path / "toy.onnx", toy_graph(cast_first=False), INFO)
    with pytest.raises(UserError, match="cannot read") as caught:
        compile_model(model.path, FLAVOUR)
    assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["toy.onnx"]


def test_the_command_refuses_a_text_file(tmp_path):
    text = tmp_path / "model.onnx"
    text.write_text("not a model")
    done = subprocess.run(
        [sys.executable, "-m", "keypoint_perception.compile", str(text)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["tensorrt", "auto"])
def test_a_detector_tells_why_it_builds_an_engine(model, monkeypatch, name):
    class Gpu:
        def gpu_name(self):
            return "gpu"

    def refuse(logger):
        raise BackendUnavailable("no GPU")

    monkeypatch.setattr(tensorrt, "Cuda", Gpu)
    monkeypatch.setattr(tensorrt, "import_flavour", lambda: (FLAVOUR, TRT))
    monkeypatch.setattr(TRT, "Runtime", refuse)  # which is needed when the engine is there
    path = cache_path(model, engine_key(model, FLAVOUR, TRT, "gpu"))
    path.write_bytes(b"damaged")
    lines = []
    with suppress(BackendUnavailable):
        Detector(model, name, log=lines.append)
    assert lines[0].startswith(f"engine {path} is not used: ") and lines[1].startswith(f"building engine {path}: ")


def test_without_a_gpu_the_backend_says_so_and_auto_goes_on(model):
    lines = []
    backend = open_backend("auto", model, log=lines.append)
    if not backend.describe().startswith("tensorrt"):
        assert any(line.startswith("backend auto: not tensorrt: ") for line in lines)
