"""The ONNX graph of a method: made, quantised, and compared with PyTorch.

uint8 images in, everything after the resize inside; what does not depend on the image is not part of it.
"""

from __future__ import annotations

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime
import torch
from onnxruntime import quantization
from torch import Tensor, nn

from keypoint_perception.backends import TOLERANCE_PX
from keypoint_perception.geometry import normalised_to_pixels
from training.method import Detection, Method

Precision = Literal["fp32", "fp16", "int8"]
BATCH = 32
OPSET = 20


class InferenceGraph(nn.Module):
    """What the file computes: uint8 images (N, H, W, 3) to keypoints, scores and, where it varies, adjacency."""

    def __init__(self, method: Method, half: bool = False) -> None:
        super().__init__()
        self.method = method
        self.half_precision = half
        self.has_adjacency = "adjacency" not in method.static_fields

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The cast comes before the transpose, as TensorRT wants it."""
        scaled = (image.half() if self.half_precision else image.float()) / 255
        found = self.method.detect(scaled.permute(0, 3, 1, 2))
        fields = (found.keypoints, found.scores) + ((found.adjacency,) if self.has_adjacency else ())
        return tuple(field.float() for field in fields)


class Parity(NamedTuple):
    """Distance between PyTorch's and the file's keypoints over frames and keypoints, in input pixels."""

    median: float
    mean: float
    max: float

    def accepted(self, precision: Precision) -> bool:
        """Whether it is within `TOLERANCE_PX`."""
        return (self.median if precision == "int8" else self.max) <= TOLERANCE_PX[precision]

    def __str__(self) -> str:
        return f"median {self.median:.4f}, mean {self.mean:.4f}, max {self.max:.4f} px"


def to_onnx(method: Method, frames: np.ndarray, precision: Precision = "fp32") -> bytes:
    """The graph of a method in eval mode.

    frames: (N, H, W, 3) uint8 of the input size; the first two are traced, all of them calibrate int8. fp16 runs the
    network in half precision; `training.heatmaps` turns maps into coordinates in float32 in any case.
    """
    if precision == "fp16":
        method = copy.deepcopy(method).half()
    graph = InferenceGraph(method, half=precision == "fp16").eval()
    names = ["keypoints", "scores", "adjacency"][: 3 if graph.has_adjacency else 2]
    example = torch.from_numpy(np.resize(frames, (2, *frames.shape[1:])))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of a torchvision that nothing here needs
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=names,
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            external_data=False,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_origins(model)
    return _quantised(model, frames) if precision == "int8" else model.SerializeToString()


def _forget_origins(model: Any) -> None:
    """Drops the exporter's notes of source files and stack traces: a model is the same wherever it is made."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


class _Frames(quantization.CalibrationDataReader):
    def __init__(self, frames: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = iter(np.array_split(frames, max(len(frames) // BATCH, 1)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch for the calibrator, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def _quantised(model: Any, frames: np.ndarray) -> bytes:
    """Convolutions in int8 (symmetric, weights per channel), everything else as it was."""
    settings = {"ActivationSymmetric": True, "WeightSymmetric": True}
    logging.disable(logging.WARNING)  # it advises a pre-processing that the exporter has done: folded normalisations
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "int8.onnx"
            quantization.quantize_static(
                model,
                out,
                _Frames(frames),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options=settings,
            )
            return out.read_bytes()
    finally:
        logging.disable(logging.NOTSET)


def parity(method: Method, onnx: bytes, frames: np.ndarray) -> Parity:
    """Compares the keypoints of a method in eval mode and of its graph on frames (N, H, W, 3) uint8."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    size = frames.shape[2], frames.shape[1]
    gaps = []
    for batch in np.array_split(frames, -(-len(frames) // BATCH)):
        given = session.run(["keypoints"], {"image": batch})[0]
        wanted = detect_frames(method, batch).keypoints.numpy()
        gaps.append(np.linalg.norm(normalised_to_pixels(given, size) - normalised_to_pixels(wanted, size), axis=-1))
    gap = np.concatenate(gaps)
    return Parity(float(np.median(gap)), float(gap.mean()), float(gap.max()))


@torch.no_grad()
def detect_frames(method: Method, frames: np.ndarray) -> Detection:
    """A method in eval mode on frames (N, H, W, 3) uint8, batch by batch."""
    parts = []
    for start in range(0, len(frames), BATCH):
        batch = torch.from_numpy(np.array(frames[start : start + BATCH]))  # a copy, as stores are read-only
        parts.append(method.detect(batch.permute(0, 3, 1, 2).float() / 255))
    return Detection(*(torch.cat(field) for field in zip(*parts, strict=True)))
