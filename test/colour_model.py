"""A small ONNX model with a known exact answer: keypoint k is the centroid of what is purely red, green or blue.

The weight of a pixel for a colour is by how much it exceeds the other two, less what jpeg does to grey; the score is
the largest weight over the largest possible. So a red square on grey has keypoint 0 at its exact centre with score 1,
and without red it has score 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keypoint_perception.model import Group, Model, ModelInfo, write_model

INPUT_SIZE = (96, 64)
COLOURS = ("red", "green", "blue")
JPEG_NOISE = 24
CHAIN = ((0.0, 1.0, 0.0), (1.0, 0.0, 0.75), (0.0, 0.75, 0.0))


def write_colour_model(
    path: Path, *, name: str = "colours", input_size: tuple[int, int] = INPUT_SIZE, dynamic_adjacency: bool = False
) -> Model:
    """Writes the model. With `dynamic_adjacency` an edge is the product of its two scores."""
    width, height = input_size
    nodes, constants = _centroid_nodes(width, height)
    outputs = [("keypoints", ["N", 3, 2]), ("scores", ["N", 3])]
    if dynamic_adjacency:
        constants["off_diagonal"] = (1 - np.eye(3, dtype=np.float32))[None]
        constants["to_column"], constants["to_row"] = np.array([2]), np.array([1])
        nodes += [
            helper.make_node("Unsqueeze", ["scores", "to_column"], ["column"]),
            helper.make_node("Unsqueeze", ["scores", "to_row"], ["row"]),
            helper.make_node("Mul", ["column", "row"], ["product"]),
            helper.make_node("Mul", ["product", "off_diagonal"], ["adjacency"]),
        ]
        outputs.append(("adjacency", ["N", 3, 3]))
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", height, width, 3])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape) for output, shape in outputs],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    info = ModelInfo(
        name=name,
        method="colours",
        input_size=input_size,
        keypoint_names=COLOURS,
        adjacency=None if dynamic_adjacency else CHAIN,
        parent=(-1, 0, 1),
        level=(0, 1, 2),
        groups=(Group("spots", (0, 1, 2)),),
    )
    return write_model(path, model.SerializeToString(), info)


def spots_image(
    size: tuple[int, int], centres: dict[str, tuple[float, float]], half: int = 4, grey: int = 90
) -> np.ndarray:
    """An RGB image of `size` (width, height) with squares of side 2 * half + 1 at the pixels `centres[colour]`."""
    image = np.full((size[1], size[0], 3), grey, np.uint8)
    for colour, (u, v) in centres.items():
        value = [0, 0, 0]
        value[COLOURS.index(colour)] = 255
        image[round(v) - half : round(v) + half + 1, round(u) - half : round(u) + half + 1] = value
    return image


def _centroid_nodes(width: int, height: int) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """image (N, H, W, 3) to keypoints (N, 3, 2) and scores (N, 3)."""
    x, y = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32))
    constants = {
        "x": x[None, :, :, None],
        "y": y[None, :, :, None],
        "next": np.array([1, 2, 0]),
        "after_next": np.array([2, 0, 1]),
        "rows_and_columns": np.array([1, 2]),
        "noise": np.array(JPEG_NOISE, np.float32),
        "full": np.array(255 - JPEG_NOISE, np.float32),
        "tiny": np.array(1e-9, np.float32),
        "last": np.array([2]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["colour"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["colour", "next"], ["second"], axis=3),
        helper.make_node("Gather", ["colour", "after_next"], ["third"], axis=3),
        helper.make_node("Max", ["second", "third"], ["others"]),
        helper.make_node("Sub", ["colour", "others"], ["excess"]),
        helper.make_node("Sub", ["excess", "noise"], ["clear_excess"]),
        helper.make_node("Relu", ["clear_excess"], ["weight"]),
        helper.make_node("ReduceSum", ["weight", "rows_and_columns"], ["mass"], keepdims=0),
        helper.make_node("Add", ["mass", "tiny"], ["some_mass"]),
    ]
    for axis in ("x", "y"):
        nodes += [
            helper.make_node("Mul", ["weight", axis], [f"weighted_{axis}"]),
            helper.make_node("ReduceSum", [f"weighted_{axis}", "rows_and_columns"], [f"sum_{axis}"], keepdims=0),
            helper.make_node("Div", [f"sum_{axis}", "some_mass"], [f"mean_{axis}"]),
            helper.make_node("Unsqueeze", [f"mean_{axis}", "last"], [f"column_{axis}"]),
        ]
    nodes += [
        helper.make_node("Concat", ["column_x", "column_y"], ["keypoints"], axis=2),
        helper.make_node("ReduceMax", ["weight", "rows_and_columns"], ["peak"], keepdims=0),
        helper.make_node("Div", ["peak", "full"], ["scores"]),
    ]
    return nodes, constants
