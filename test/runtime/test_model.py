"""The model file: written, read back, and refused where it is damaged or hostile."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from keypoint_perception.describe import main
from keypoint_perception.errors import UserError
from keypoint_perception.model import METADATA_KEY, Group, ModelInfo, read_model, write_model
from keypoint_perception.onnx_file import append_metadata

INFO = ModelInfo(
    name="toy",
    method="imm",
    input_size=(64, 48),
    keypoint_names=("a", "b", "c"),
    adjacency=((0, 1, 0), (1, 0, 0), (0, 0, 0)),
    parent=(-1, 0, -1),
    level=(0, 1, 0),
)


def toy_onnx(keypoints=3, size=(64, 48), outputs=("keypoints", "scores"), external=None, dtype=TensorProto.UINT8):
    """A graph with the contract's interface that answers constants."""
    shapes = {"keypoints": [keypoints, 2], "scores": [keypoints], "adjacency": [keypoints, keypoints]}
    nodes, tensors = [], []
    for name in outputs:
        constant = numpy_helper.from_array(np.zeros([1, *shapes[name]], np.float32), f"{name}_value")
        if external:
            constant.ClearField("raw_data")
            constant.data_location = TensorProto.EXTERNAL
            constant.external_data.add(key="location", value=external)
        tensors.append(constant)
        nodes.append(helper.make_node("Identity", [f"{name}_value"], [name]))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", dtype, ["batch", size[1], size[0], 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *shapes[n]]) for n in outputs],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def refuse(path, data):
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_model(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def with_description(**changes):
    return append_metadata(toy_onnx(), METADATA_KEY, json.dumps(json.loads(INFO.to_json()) | changes))


def test_round_trip(tmp_path):
    groups, alike = (Group("arm", (0, 1)),), (((0,), (2,)),)
    info = replace(INFO, groups=groups, alike=alike, roi=(0.0, 0.0, 0.5, 1.0), training={"seed": 3})
    written = write_model(tmp_path / "m.onnx", toy_onnx(), info)
    read = read_model(tmp_path / "m.onnx")
    assert read.info == written.info == info
    assert read.id == written.id and read.id.startswith("toy@")
    onnx.checker.check_model(onnx.load(tmp_path / "m.onnx"))


def test_hierarchy_puts_parents_before_children():
    info = replace(INFO, parent=(2, -1, -1), level=(1, 0, 0), groups=(Group("pair", (1, 2)),))
    hierarchy = info.hierarchy()
    assert hierarchy.name == ("pair", "b", "c", "a")
    assert hierarchy.parent == (-1, 0, 0, 2)
    assert hierarchy.keypoint_id == (-1, 1, 2, 0)
    assert hierarchy.level == (0, 1, 1, 2)
    assert hierarchy.groups(3).tolist() == [0, 0, 0]


def test_every_truncation_is_refused(tmp_path):
    data = append_metadata(toy_onnx(), METADATA_KEY, INFO.to_json())
    for length in range(0, len(data), 7):
        refuse(tmp_path / "m.onnx", data[:length])


def test_every_flipped_byte_is_read_or_refused_but_never_a_crash(tmp_path):
    data = append_metadata(toy_onnx(), METADATA_KEY, INFO.to_json())
    rng = np.random.default_rng(0)
    for position in rng.choice(len(data), 200, replace=False):
        broken = bytearray(data)
        broken[position] ^= 1 << rng.integers(8)
        (tmp_path / "m.onnx").write_bytes(broken)
        try:
            read_model(tmp_path / "m.onnx")
        except UserError:
            continue


def test_files_that_are_not_ours(tmp_path):
    assert "not a whole ONNX file" in refuse(tmp_path / "m.onnx", b"hello, I am a text file\n")
    assert "not one of ours" in refuse(tmp_path / "m.onnx", toy_onnx())
    with pytest.raises(UserError, match="is not there"):
        read_model(tmp_path / "missing.onnx")
    with pytest.raises(UserError, match="is a folder"):
        read_model(tmp_path)


def test_a_number_where_a_text_should_be_takes_no_memory(tmp_path):
    """The key of a metadata entry as the number 2**60: no zeros are made of it, so many or any."""
    entry = b"\x08" + b"\x80" * 8 + b"\x10"
    hostile = toy_onnx() + b"\x72" + bytes([len(entry)]) + entry
    assert "a number where a text should be" in refuse(tmp_path / "m.onnx", hostile)


@pytest.mark.parametrize("location", ["../../etc/passwd", "weights.bin"])
def test_references_to_other_files_are_never_followed(tmp_path, location):
    data = append_metadata(toy_onnx(external=location), METADATA_KEY, INFO.to_json())
    assert "other files" in refuse(tmp_path / "m.onnx", data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 99}, "update keypoint_perception"),
        ({"format_version": "1"}, "format_version"),
        ({"input_size": [64, 10**9]}, "8 to 4096"),
        ({"input_size": "big"}, "inconsistent"),
        ({"keypoint_names": []}, "keypoint_names"),
        ({"keypoint_names": ["a", "b"]}, "3 x 3|2 x 2"),
        ({"adjacency": [[0, 1, 0], [0, 0, 0], [0, 0, 0]]}, "symmetric"),
        ({"adjacency": [[0, 2, 0], [2, 0, 0], [0, 0, 0]]}, r"\[0, 1\]"),
        ({"adjacency": None}, "adjacency"),
        ({"parent": [1, 0, -1]}, "smaller level"),
        ({"parent": [7, -1, -1]}, "parent"),
        ({"level": [0]}, "entries"),
        ({"groups": [{"name": "g", "keypoints": [0, 0]}]}, "disjoint"),
        ({"groups": 5}, "inconsistent"),
        ({"alike": [[[0], [0]]]}, "disjoint"),
        ({"alike": [[[0], [3]]]}, "disjoint"),
        ({"alike": [[[0]]]}, "at least two"),
        ({"alike": [[[0, 1], [2]]]}, "one shape"),
        ({"alike": [[[0], [1]]]}, "at one keypoint"),
        ({"alike": 5}, "inconsistent"),
        ({"roi": [0.5, 0, 0.2, 1]}, "roi"),
        ({"training": []}, "objects"),
    ],
)
def test_inconsistent_descriptions_are_refused(tmp_path, changes, message):
    path = tmp_path / "m.onnx"
    path.write_bytes(with_description(**changes))
    with pytest.raises(UserError, match=message):
        read_model(path)


def test_description_that_is_not_json(tmp_path):
    assert "not JSON" in refuse(tmp_path / "m.onnx", append_metadata(toy_onnx(), METADATA_KEY, "{"))
    assert "not an object" in refuse(tmp_path / "m.onnx", append_metadata(toy_onnx(), METADATA_KEY, "[]"))


def test_graph_and_description_must_agree(tmp_path):
    def described(graph):
        return append_metadata(graph, METADATA_KEY, INFO.to_json())

    assert "`keypoints`" in refuse(tmp_path / "m.onnx", described(toy_onnx(keypoints=4)))
    assert "`image`" in refuse(tmp_path / "m.onnx", described(toy_onnx(size=(48, 64))))
    assert "uint8" in refuse(tmp_path / "m.onnx", described(toy_onnx(dtype=TensorProto.FLOAT)))
    assert "scores" in refuse(tmp_path / "m.onnx", described(toy_onnx(outputs=("keypoints",))))


def test_a_file_that_cannot_be_read_is_one_clear_line():
    with pytest.raises(UserError, match=r"cannot read /proc/self/mem \("):
        read_model("/proc/self/mem")


def test_a_refused_model_is_not_written(tmp_path):
    with pytest.raises(UserError):
        write_model(tmp_path / "m.onnx", toy_onnx(keypoints=4), INFO)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_a_model_is(tmp_path, capsys):
    info = replace(INFO, groups=(Group("arm", (0, 1)),), training={"seed": 3}, figures={"error": 0.1})
    write_model(tmp_path / "m.onnx", toy_onnx(), info)
    assert main([str(tmp_path / "m.onnx")]) == 0
    text = capsys.readouterr().out
    for part in ("toy@", "imm", "(N, 48, 64, 3)", "a, b, c", "a-b 1.00", "arm: a, b", "a of b", "seed", "0.1"):
        assert part in text


def test_the_command_refuses_with_a_reason(tmp_path, capsys):
    (tmp_path / "m.onnx").write_text("text")
    assert main([str(tmp_path / "m.onnx")]) == 2
    assert capsys.readouterr().err.startswith("error: model ")


@pytest.mark.parametrize("place", ["sparse", "function"])
def test_a_tensor_elsewhere_is_found_wherever_it_is_named(tmp_path, place):
    model = ModelProto.FromString(toy_onnx())
    outside = TensorProto(data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL, dims=[1])
    outside.external_data.add(key="location", value="elsewhere")
    if place == "sparse":
        attribute = model.graph.node.add(op_type="Constant", output=["unused"]).attribute.add(name="sparse_value")
        attribute.type = AttributeProto.SPARSE_TENSOR
        attribute.sparse_tensor.values.CopyFrom(outside)
    else:
        attribute = model.functions.add(name="f", domain="d").attribute_proto.add(name="value")
        attribute.type = AttributeProto.TENSOR
        attribute.t.CopyFrom(outside)
    data = append_metadata(model.SerializeToString(), METADATA_KEY, INFO.to_json())
    assert "other files" in refuse(tmp_path / "m.onnx", data)
