"""ONNX Runtime: the embedded default, on the CPU or, where its GPU build is installed, through CUDA."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keypoint_perception.backends import Backend, BackendUnavailable
from keypoint_perception.errors import UserError, first_line
from keypoint_perception.model import Model


class OnnxRuntimeBackend(Backend):
    """One inference session."""

    def __init__(self, model: Model, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailable(f"ONNX Runtime cannot be imported ({error}): pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # failures arrive as exceptions
        # Idle threads leave the robot its cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [p for p in wanted if p in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(model.data, options, providers=providers)
        except Exception as error:  # its exceptions share no public base class
            raise UserError(
                f"ONNX Runtime cannot load {model.path} ({first_line(error)}): export the model again"
            ) from None
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._version = onnxruntime.__version__

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See Backend.run."""
        return dict(zip(self._outputs, self._session.run(None, {"image": images}), strict=True))

    def describe(self) -> str:
        """See Backend.describe."""
        device = self._session.get_providers()[0].removesuffix("ExecutionProvider")
        return f"onnxruntime {self._version} ({device})"


def create(model: Model, threads: int, log: Callable[[str], None]) -> Backend:
    """Opens a model; there is nothing to log."""
    return OnnxRuntimeBackend(model, threads)
