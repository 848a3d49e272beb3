"""TensorRT engines: built from a model file, kept beside it, and never trusted when stale or damaged.

An engine fits one model, one TensorRT version and (but for TensorRT-RTX) one GPU. Its file starts with a header that
names all of them and a digest of what follows; anything that differs means building again. Nothing here needs a GPU,
except that TensorRT itself builds only on the one it builds for. Networks are strongly typed: the precision is the
model file's own.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from keypoint_perception.backends import BackendUnavailable
from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.model import Model

MAX_BATCH = 8
"""Images an engine takes at once; a camera each. More are run in turns."""
WORKSPACE_BYTES = 1 << 30
FLAVOURS = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""Flavour to the Python modules that may provide it."""
ANY_GPU = "any"
_MAGIC = b"keypoint_perception engine 1\n"
Progress = Callable[[str, float], None]
"""Called with the name of the build's phase and the finished share of it in [0, 1]."""


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built for. Any difference makes it stale."""

    model_sha256: str
    precision: str
    flavour: str
    version: str
    gpu: str
    max_batch: int = MAX_BATCH

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for the whole key in file names."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def import_flavour(flavour: str | None = None) -> tuple[str, ModuleType]:
    """Imports TensorRT, or TensorRT-RTX where only that is there; or exactly `flavour`.

    Raises BackendUnavailable that says how to install it.
    """
    if flavour is not None and flavour not in FLAVOURS:
        raise UserError(f"TensorRT flavour is {flavour!r}: allowed are {', '.join(FLAVOURS)}")
    for name in [flavour] if flavour else FLAVOURS:
        for module in FLAVOURS[name]:
            try:
                return name, importlib.import_module(module)
            except (ImportError, OSError):
                continue
    raise BackendUnavailable("TensorRT cannot be imported: pip install tensorrt (or tensorrt-rtx for GeForce RTX)")


def engine_key(model: Model, flavour: str, trt: ModuleType, gpu: str) -> EngineKey:
    """The key of a model's engine here. TensorRT-RTX finishes its engines on the GPU that runs them: any will do."""
    precision = str(model.info.training.get("precision", "fp32"))
    return EngineKey(model.sha256, precision, flavour, trt.__version__, ANY_GPU if flavour == "tensorrt_rtx" else gpu)


def cached_engine(
    model: Model,
    key: EngineKey,
    trt: ModuleType,
    *,
    progress: Progress = lambda phase, share: None,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[bytes, Path]:
    """The engine of `key`, from its cache file where that is whole and fits, else built and stored there.

    log receives that an engine is built, and why a file was not trusted.
    Raises UserError where the model cannot be built.
    """
    path = cache_path(model, key)
    plan, reason = read_engine(path, key)
    if plan is not None:
        return plan, path
    if reason:
        log(f"engine {path} is not used: {reason}")
    log(f"building engine {path}: this can take minutes")
    plan = _build_with_timings(model, key, trt, path.parent, progress)
    with written_whole(path) as temporary:
        temporary.write_bytes(_MAGIC + _header(key, plan) + plan)
    return plan, path


def cache_path(model: Model, key: EngineKey) -> Path:
    """Beside the model; in the user's cache folder where the model's own cannot be written (an installed package)."""
    folder = model.path.resolve().parent
    if not os.access(folder, os.W_OK):
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keypoint_perception"
    return folder / f"{model.path.stem}.{key.digest}.engine"


def read_engine(path: Path, key: EngineKey) -> tuple[bytes | None, str]:
    """The engine in a cache file, or None and the reason why it is not used ("" where there is no file)."""
    if not path.is_file():
        return None, ""
    data = path.read_bytes()
    end = data.find(b"\n", len(_MAGIC))
    if not data.startswith(_MAGIC) or end < 0:
        return None, "it is damaged or not ours"
    plan = data[end + 1 :]
    if data[len(_MAGIC) : end + 1] != _header(key, plan):
        return None, "it is damaged or was built for another model, GPU, TensorRT or precision"
    return plan, ""


def _build_with_timings(model: Model, key: EngineKey, trt: ModuleType, folder: Path, progress: Progress) -> bytes:
    """Builds with the timings that earlier builds on this GPU left; TensorRT-RTX times nothing when it builds."""
    if key.flavour == "tensorrt_rtx":
        return build_engine(model, trt, progress)[0]
    path = folder / f"timing-{key.flavour}-{key.version}-{_file_name(key.gpu)}.cache"
    plan, timing = build_engine(model, trt, progress, path.read_bytes() if path.is_file() else b"")
    with written_whole(path) as temporary:
        temporary.write_bytes(timing)
    return plan


def build_engine(model: Model, trt: ModuleType, progress: Progress, timing: bytes | None = None) -> tuple[bytes, bytes]:
    """Parses and compiles a model for batches of 1 to MAX_BATCH, tuned for 1.

    timing: the timing cache of earlier builds (b"" for a first one), None to do without. Returns the engine and the
    grown timing cache. Raises UserError with TensorRT's own words where it refuses.
    """
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)  # the parser's errors arrive in the exception below
    builder = trt.Builder(logger)
    flags = trt.NetworkDefinitionCreationFlag
    typed = 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.data):
        reasons = "; ".join(" ".join(parser.get_error(i).desc().split()) for i in range(parser.num_errors))
        raise UserError(f"TensorRT {trt.__version__} cannot read {model.path} ({reasons}): use backend onnxruntime")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.progress_monitor = _monitor(trt, progress)
    width, height = model.info.input_size
    profile = builder.create_optimization_profile()
    profile.set_shape("image", (1, height, width, 3), (1, height, width, 3), (MAX_BATCH, height, width, 3))
    config.add_optimization_profile(profile)
    if timing is not None:
        config.set_timing_cache(config.create_timing_cache(timing) or config.create_timing_cache(b""), False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError(f"TensorRT {trt.__version__} cannot build {model.path}: use backend onnxruntime")
    return bytes(plan), b"" if timing is None else bytes(config.get_timing_cache().serialize())


def _monitor(trt: ModuleType, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined, misc]
        """Forwards TensorRT's phases, which nest, as shares of each."""

        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            progress(phase_name, 0.0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, (step + 1) / max(self._steps.get(phase_name, 1), 1))
            return True

        def phase_finish(self, phase_name: str) -> None:
            progress(phase_name, 1.0)

    return Monitor()


def _header(key: EngineKey, plan: bytes) -> bytes:
    content = asdict(key) | {"sha256": hashlib.sha256(plan).hexdigest()}
    return json.dumps(content, sort_keys=True).encode() + b"\n"


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)
