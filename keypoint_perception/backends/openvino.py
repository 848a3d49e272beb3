"""OpenVINO, on the CPU: faster than ONNX Runtime for some models, slower for most (docs/results/speed.md)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keypoint_perception.backends import Backend, BackendUnavailable
from keypoint_perception.errors import UserError, first_line
from keypoint_perception.model import Model


class OpenVinoBackend(Backend):
    """One compiled model and its inference request."""

    def __init__(self, model: Model, threads: int) -> None:
        try:
            import openvino
        except ImportError as error:
            raise BackendUnavailable(f"OpenVINO cannot be imported ({error}): pip install openvino") from None
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # Without the hint bfloat16 is chosen silently where the CPU has it, and keypoints move.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            core = openvino.Core()
            compiled = core.compile_model(core.read_model(model.data), "CPU", settings)
        except RuntimeError as error:
            raise UserError(
                f"OpenVINO cannot compile {model.path} ({first_line(error)}): use backend onnxruntime"
            ) from None
        self._request = compiled.create_infer_request()
        self._outputs = [port.get_any_name() for port in compiled.outputs]
        self._version = openvino.__version__.split("-")[0]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See Backend.run."""
        self._request.infer([images], share_inputs=True)
        return {name: self._request.get_output_tensor(i).data.copy() for i, name in enumerate(self._outputs)}

    def describe(self) -> str:
        """See Backend.describe."""
        return f"openvino {self._version} (CPU)"


def create(model: Model, threads: int, log: Callable[[str], None]) -> Backend:
    """Opens a model; there is nothing to log."""
    return OpenVinoBackend(model, threads)
