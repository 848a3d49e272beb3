"""TensorRT on an NVIDIA GPU: pinned buffers, one stream, an execution context and a CUDA graph for each batch size.

Written to the documentation of TensorRT 10 and 11 and cuda-bindings 13. `benchmarks/gpu.py` proves or disproves it on
a machine with a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from keypoint_perception.backends import Backend, BackendUnavailable
from keypoint_perception.engine import MAX_BATCH, cached_engine, engine_key, import_flavour
from keypoint_perception.errors import UserError
from keypoint_perception.model import Model


class Cuda:
    """The CUDA runtime, with errors as exceptions."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise BackendUnavailable(f"CUDA cannot be called ({error}): pip install cuda-bindings") from None
        self.runtime = runtime
        status, count = runtime.cudaGetDeviceCount()
        if status != runtime.cudaError_t.cudaSuccess or count == 0:
            raise BackendUnavailable(
                f"no NVIDIA GPU can be used ({status.name}): install a GPU driver or use another backend"
            )

    def __call__(self, function: str, *arguments: Any) -> Any:
        """Calls a runtime function. Returns its value or tuple of values; raises RuntimeError where it fails."""
        error, *values = getattr(self.runtime, function)(*arguments)
        if error != self.runtime.cudaError_t.cudaSuccess:
            raise RuntimeError(f"{function} failed: {error.name}")
        return values[0] if len(values) == 1 else tuple(values)

    def gpu_name(self) -> str:
        """Name and compute capability of the first GPU, as "NVIDIA H200 (sm_90)"."""
        properties = self("cudaGetDeviceProperties", 0)
        name = properties.name
        text = name.decode() if isinstance(name, bytes) else name
        return f"{text} (sm_{properties.major}{properties.minor})"


class Buffer:
    """A tensor of the largest batch, once in pinned host memory and once on the GPU."""

    def __init__(self, cuda: Cuda, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._cuda = cuda
        self.image_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        size = self.image_bytes * shape[0]
        self._host_pointer = int(cuda("cudaHostAlloc", size, 0))
        self.device = int(cuda("cudaMalloc", size))
        raw = (ctypes.c_uint8 * size).from_address(self._host_pointer)
        self.host = np.frombuffer(memoryview(raw), dtype).reshape(shape)

    def upload(self, count: int, stream: Any) -> None:
        """Copies the first `count` images to the GPU, in the stream's order."""
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._cuda("cudaMemcpyAsync", self.device, self._host_pointer, count * self.image_bytes, kind, stream)

    def download(self, count: int, stream: Any) -> None:
        """Copies the first `count` images' results back, in the stream's order."""
        kind = self._cuda.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._cuda("cudaMemcpyAsync", self._host_pointer, self.device, count * self.image_bytes, kind, stream)

    def free(self) -> None:
        """Gives both memories back; the arrays must not be touched any more."""
        self._cuda("cudaFree", self.device)
        self._cuda("cudaFreeHost", self._host_pointer)


class TensorRtBackend(Backend):
    """A deserialised engine with its buffers."""

    def __init__(self, model: Model, log: Callable[[str], None]) -> None:
        self._cuda = Cuda()
        flavour, trt = import_flavour()
        gpu = self._cuda.gpu_name()
        plan, path = cached_engine(model, engine_key(model, flavour, trt, gpu), trt, log=log)
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendUnavailable(f"{flavour} {trt.__version__} cannot run {path} on {gpu}: use another backend")
        self._description = f"{flavour} {trt.__version__} ({gpu})"
        self._stream = self._cuda("cudaStreamCreate")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self._buffers = {name: self._buffer(trt, name) for name in names}
        self._outputs = [name for name in names if name != "image"]
        self._contexts: dict[int, Any] = {}
        """By batch size: what a graph was captured from must keep its shapes for as long as the graph is launched."""
        self._graphs: dict[int, Any] = {}
        """By batch size; None where the engine cannot be captured."""

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See Backend.run."""
        parts = [self._run_batch(images[i : i + MAX_BATCH]) for i in range(0, len(images), MAX_BATCH)]
        return parts[0] if len(parts) == 1 else {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

    def describe(self) -> str:
        """See Backend.describe."""
        return self._description

    def close(self) -> None:
        """Frees GPU memory. The backend cannot run afterwards."""
        for graph in self._graphs.values():
            if graph is not None:
                self._cuda("cudaGraphExecDestroy", graph)
        self._graphs.clear()
        self._contexts.clear()  # before the engine, which they belong to
        del self._engine, self._runtime
        for buffer in self._buffers.values():
            buffer.free()
        self._cuda("cudaStreamDestroy", self._stream)

    def _buffer(self, trt: Any, name: str) -> Buffer:
        shape = tuple(self._engine.get_tensor_shape(name))
        dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
        return Buffer(self._cuda, (MAX_BATCH, *shape[1:]), dtype)

    def _run_batch(self, images: np.ndarray) -> dict[str, np.ndarray]:
        count = len(images)
        np.copyto(self._buffers["image"].host[:count], images)
        graph = self._graphs.get(count)
        if graph is not None:
            self._cuda("cudaGraphLaunch", graph, self._stream)
        else:
            if count not in self._contexts:
                self._contexts[count] = self._context(images.shape)
            self._enqueue(count)
        self._cuda("cudaStreamSynchronize", self._stream)
        if count not in self._graphs:  # captured after a plain run, which has done all lazy initialisation
            self._graphs[count] = self._capture(count)
        return {name: self._buffers[name].host[:count].copy() for name in self._outputs}

    def _context(self, shape: tuple[int, ...]) -> Any:
        """An execution context for images of one shape (N, H, W, 3), on the buffers that all batch sizes share."""
        context = self._engine.create_execution_context()
        if context is None:
            raise BackendUnavailable(f"no room for a batch of {shape[0]} in {self._description}: free GPU memory")
        context.set_input_shape("image", tuple(shape))
        for name, buffer in self._buffers.items():
            context.set_tensor_address(name, buffer.device)
        return context

    def _enqueue(self, count: int) -> None:
        self._buffers["image"].upload(count, self._stream)
        if not self._contexts[count].execute_async_v3(int(self._stream)):
            raise UserError("TensorRT failed to run the model: see its log above, or use backend onnxruntime")
        for name in self._outputs:
            self._buffers[name].download(count, self._stream)

    def _capture(self, count: int) -> Any:
        """The run of a batch as one CUDA graph, None where the engine cannot be captured."""
        runtime = self._cuda.runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda("cudaStreamBeginCapture", self._stream, mode)
        try:
            self._enqueue(count)
            captured = True
        except (UserError, RuntimeError):
            captured = False
        error, graph = runtime.cudaStreamEndCapture(self._stream)
        if error != runtime.cudaError_t.cudaSuccess:
            return None
        executable = self._cuda("cudaGraphInstantiate", graph, 0) if captured else None
        self._cuda("cudaGraphDestroy", graph)
        return executable


def create(model: Model, threads: int, log: Callable[[str], None]) -> Backend:
    """Opens a model; `threads` does not matter on a GPU. log: see `cached_engine`."""
    return TensorRtBackend(model, log)
