"""`ros2 run keypoint_perception compile MODEL`: builds a model's TensorRT engine ahead of time."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from keypoint_perception.backends.tensorrt import Cuda
from keypoint_perception.command_line import Parser, run_command
from keypoint_perception.engine import ANY_GPU, FLAVOURS, cached_engine, engine_key, import_flavour
from keypoint_perception.model import read_model


def compile_model(path: Path, flavour: str | None = None) -> Path:
    """Builds and caches the engine of a model file where it is not there yet. Returns the engine's path.

    Raises UserError: no model, no TensorRT, or, except with TensorRT-RTX, no GPU.
    """
    model = read_model(path)
    name, trt = import_flavour(flavour)
    gpu = ANY_GPU if name == "tensorrt_rtx" else Cuda().gpu_name()
    start = time.monotonic()
    shown = False

    def show(phase: str, share: float) -> None:
        nonlocal shown
        shown = True
        print(
            f"\r{time.monotonic() - start:5.1f} s  {phase[:60]:<60} {share:4.0%}", end="", flush=True, file=sys.stderr
        )

    _, engine = cached_engine(model, engine_key(model, name, trt, gpu), trt, progress=show, log=print)
    if shown:
        print(file=sys.stderr)
    print(f"{model.id}: {name} {trt.__version__} engine for {gpu} GPU in {engine}")
    return engine


def main(argv: list[str] | None = None) -> int:
    """The command. Returns 2 with one clear line where the engine cannot be built."""
    parser = Parser(prog="compile", description=__doc__)
    parser.add_argument("model", type=Path, help="model file (.onnx)")
    parser.add_argument("--flavour", choices=list(FLAVOURS), help="default: TensorRT, else TensorRT-RTX")

    def build() -> int:
        arguments = parser.parse_args(argv)
        compile_model(arguments.model, arguments.flavour)
        return 0

    return run_command(build)


if __name__ == "__main__":
    sys.exit(main())
