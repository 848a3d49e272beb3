from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_run import SIZE, MemoryData, tiny_train

from keypoint_perception.detector import Detector
from keypoint_perception.errors import UserError
from keypoint_perception.model import read_model
from training import export
from training.checkpoint import read_checkpoint
from training.export import alike_points, export_run, read_figures, sample_frames, skeleton
from training.method import Detection, Method, OptimizerConfig
from training.onnx_graph import Parity, detect_frames, parity, to_onnx


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "run"
    tiny_train(folder, "--steps", "4", "--preview_steps", "4")
    return folder


def test_exported_model_finds_what_pytorch_finds_and_says_where_it_comes_from(run, tmp_path):
    said = export_run(run, tmp_path / "arm.onnx", data=MemoryData(), figures={"joint_error": 1.5})
    assert "fp32" in said
    assert "24 frames" in said
    model = read_model(tmp_path / "arm.onnx")
    info = model.info
    assert (info.name, info.method, info.input_size) == ("arm", "imm", SIZE)
    assert info.keypoint_names == ("k0", "k1", "k2", "k3")
    assert info.training["steps"] == 4
    assert info.training["data"] == "memory"
    assert info.training["graph"].startswith("estimated from trajectories over 24 frames")
    assert info.figures["parity_px"]["max"] <= 0.01
    assert info.figures["joint_error"] == 1.5
    frames = MemoryData().frames
    found = Detector(model).detect(list(frames[:3]))
    wanted = detect_frames(read_checkpoint(run).build(), frames[:3])
    for observation, keypoints in zip(found, wanted.keypoints.numpy(), strict=True):
        assert observation.keypoints == pytest.approx((keypoints + 1) / 2 * (np.array(SIZE) - 1), abs=0.01)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_precisions_stay_within_their_tolerance(run, tmp_path, precision):
    export_run(run, tmp_path / "m.onnx", precision, data=MemoryData())
    graph = onnx.load(tmp_path / "m.onnx").graph
    types = {tensor.data_type for tensor in graph.initializer}
    if precision == "fp16":
        assert onnx.TensorProto.FLOAT16 in types
    else:
        kinds = Counter(node.op_type for node in graph.node)
        assert onnx.TensorProto.INT8 in types
        assert kinds["QuantizeLinear"] >= kinds["Conv"] > 0
        zero_points = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith("zero_point")]
        assert not any(z.any() for z in zero_points if z.dtype == np.int8), "QDQ must be symmetric"
    assert read_model(tmp_path / "m.onnx").info.training["precision"] == precision


def test_a_model_that_differs_from_pytorch_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setitem(export.TOLERANCE_PX, "fp16", 0.0)
    with pytest.raises(UserError, match=r"m\.onnx is not written: fp16 keypoints differ .* allowed is 0\.0 px"):
        export_run(run, tmp_path / "m.onnx", "fp16", data=MemoryData())
    assert not list(tmp_path.iterdir())


def test_tolerance_counts_the_median_for_int8_and_the_maximum_otherwise():
    gap = Parity(median=0.3, mean=0.5, max=5.0)
    assert gap.accepted("int8")
    assert not gap.accepted("fp16")
    assert not Parity(0.001, 0.002, 0.02).accepted("fp32")


def test_a_model_does_not_tell_where_it_was_made(run):
    data = to_onnx(read_checkpoint(run).build(), MemoryData().frames)
    assert str(Path(export.__file__).parents[1]).encode() not in data
    assert b"stack_trace" not in data


def test_a_wrong_graph_is_noticed(run):
    method = read_checkpoint(run).build()
    data = to_onnx(method, MemoryData().frames)
    with torch.no_grad():
        method.detector[1].weight.mul_(3).add_(torch.randn(method.detector[1].weight.shape))
    assert parity(method, data, MemoryData().frames).max > 0.01


class Recordings(MemoryData):
    """Some of given lengths, their frames of a pixel numbered from 0."""

    def __init__(self, *lengths: int) -> None:
        super().__init__()
        self.lengths = lengths

    def sequences(self):
        """A recording of each length."""
        numbers = np.arange(sum(self.lengths), dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
        yield from enumerate(np.split(numbers, np.cumsum(self.lengths)[:-1]))


class Dots(Method):
    """Two points whose link depends on the brightness of the image."""

    static_fields = frozenset({"parent", "level"})

    def __init__(self, linked: float | None) -> None:
        super().__init__()
        self.keypoint_count, self.optimizer = 2, OptimizerConfig()
        self.linked = linked
        if linked is not None:
            self.static_fields = frozenset({"adjacency", "parent", "level"})  # type: ignore[misc]

    def detect(self, image: torch.Tensor) -> Detection:
        """The points stand still."""
        bright = image.mean(dim=(1, 2, 3))
        points = torch.stack((bright, -bright), dim=-1)[..., None].expand(-1, -1, 2)
        link = bright if self.linked is None else torch.full_like(bright, self.linked)
        adjacency = link[:, None, None] * (1 - torch.eye(2))
        zero = torch.zeros_like(points[..., 0], dtype=torch.long)
        parent = torch.stack((zero[:, 0] - 1, zero[:, 1]), dim=1)
        level = torch.stack((zero[:, 0], zero[:, 1] + 1), dim=1)
        return Detection(points, torch.ones_like(points[..., 0]), adjacency, parent, level)

    def loss(self, batch, phase):
        """Nothing to learn."""
        return {}


def test_a_graph_that_depends_on_the_image_stays_in_the_graph():
    frames = MemoryData().frames
    outputs = [output.name for output in onnx.load_from_string(to_onnx(Dots(None).eval(), frames)).graph.output]
    assert outputs == ["keypoints", "scores", "adjacency"]
    found = skeleton(Dots(None).eval(), MemoryData(), frames)
    assert found.adjacency is None
    assert (found.parent, found.level) == ((-1, 0), (0, 1))


def test_a_learned_graph_goes_into_the_description():
    frames = MemoryData().frames
    outputs = [output.name for output in onnx.load_from_string(to_onnx(Dots(0.7).eval(), frames)).graph.output]
    assert outputs == ["keypoints", "scores"]
    found = skeleton(Dots(0.7).eval(), MemoryData(), frames)
    assert found.adjacency == pytest.approx(np.array([[0, 0.7], [0.7, 0]]), abs=1e-6)
    assert found.origin == "learned by the method"
    assert [group.keypoints for group in found.groups] == [(0, 1)]


def test_keypoints_that_have_names_keep_them(run):
    method, data = Dots(0.7).eval(), MemoryData()
    method.keypoint_names = ("elbow", "wrist")
    info = export.describe(read_checkpoint(run), data, "arm", method, skeleton(method, data, data.frames))
    assert info.keypoint_names == ("elbow", "wrist")


def test_recordings_of_single_frames_give_no_graph():
    found = skeleton(Dots(0.0).eval(), Recordings(1, 1, 1), np.zeros((3, 8, 8, 3), np.uint8))
    assert not found.adjacency.any() and found.groups == ()
    assert found.origin.startswith("none: ")


def test_figures_must_be_a_json_object(tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("hello")
    for name, message in (("list", "hold a list"), ("text", "cannot be read"), ("none", "cannot be read")):
        with pytest.raises(UserError, match=message):
            read_figures(tmp_path / f"{name}.json")


def test_sampled_frames_are_spread_over_the_frames_of_all_recordings():
    assert sample_frames(Recordings(20, 0, 11), 4)[:, 0, 0, 0].tolist() == [0, 10, 20, 30]
    assert sample_frames(Recordings(*10 * [20]), 2)[:, 0, 0, 0].tolist() == [0, 199]
    assert sample_frames(Recordings(2, 1), 8)[:, 0, 0, 0].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="no frames"):
        sample_frames(Recordings(0), 8)


class Turning(Dots):
    """Both ends of a rod that turns as the image brightens, told apart or, `by_place`, numbered from the left."""

    def __init__(self, by_place: bool) -> None:
        super().__init__(None)
        self.by_place = by_place

    def detect(self, image: torch.Tensor) -> Detection:
        """Once around."""
        angle = 2 * torch.pi * image.mean(dim=(1, 2, 3))
        end = 0.5 * torch.stack((angle.cos(), angle.sin()), dim=-1)
        end = torch.where(end[:, :1] > 0, -end, end) if self.by_place else end
        return super().detect(image)._replace(keypoints=torch.stack((end, -end), dim=1))


@pytest.mark.parametrize("by_place", [False, True])
def test_points_that_are_numbered_by_their_place_are_alike(by_place):
    data = MemoryData()
    data.frames = np.linspace(0, 255, 24).astype(np.uint8)[:, None, None, None] + np.zeros((1, 24, 32, 3), np.uint8)
    assert alike_points(Turning(by_place), data) == ((((0,), (1,)),) if by_place else ())
    data.frames = data.frames[:1]
    assert alike_points(Turning(by_place), data) == ()  # one image cannot tell


@pytest.mark.parametrize("lengths", [[30] * 3000, [4000] * 3, [10], [2] * 400, [5, 20000, *[5] * 3000]])
def test_of_many_short_recordings_some_are_followed_and_of_each_enough(monkeypatch, lengths):
    class Clips:
        def sequences(self):
            yield from (("clip", np.arange(length)) for length in lengths)

    monkeypatch.setattr(export, "_trajectory", lambda method, frames: frames)
    found = export.trajectories(None, Clips())
    assert min(map(len, found)) >= min(*lengths, export.LEAST_FRAMES)
    assert min(sum(lengths), export.TRAJECTORY_FRAMES) <= sum(map(len, found)) * 1.5
    assert sum(map(len, found)) <= 2 * export.TRAJECTORY_FRAMES + max(map(len, found))
    share = max(lengths) / sum(lengths) * export.TRAJECTORY_FRAMES / 2
    assert max(map(len, found)) >= min(max(lengths), share)
    assert all(len(set(np.diff(frames))) == 1 for frames in found), "evenly"
