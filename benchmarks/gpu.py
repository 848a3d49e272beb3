"""`python benchmarks/gpu.py [MODEL …] [-o REPORT.json]`: proves or disproves the TensorRT path on this machine's GPU.

For every model: builds the engine in an empty cache, opens it again from the cache, compares keypoints with ONNX
Runtime on the CPU in input pixels, and times batches of 1, 2, 4 and 8. Ends with one JSON object. Exit status 1 where
parity fails, 2 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from keypoint_perception.backends import TOLERANCE_PX, Backend, open_backend  # noqa: E402
from keypoint_perception.command_line import run_command  # noqa: E402
from keypoint_perception.geometry import normalised_to_pixels  # noqa: E402
from keypoint_perception.model import Model, read_model  # noqa: E402

BATCHES = (1, 2, 4, 8)
RUNS = 200


def smooth_images(count: int, size: tuple[int, int]) -> np.ndarray:
    """(count, H, W, 3) uint8 images of soft colour patches: like frames, there are structures to find in them."""
    coarse = np.random.default_rng(0).uniform(0, 255, (count, 8, 8, 3))
    width, height = size
    rows, columns = np.linspace(0, 7, height), np.linspace(0, 7, width)
    r, c = rows.astype(int).clip(0, 6), columns.astype(int).clip(0, 6)
    fr, fc = (rows - r)[None, :, None, None], (columns - c)[None, None, :, None]
    top = coarse[:, r][:, :, c] * (1 - fc) + coarse[:, r][:, :, c + 1] * fc
    bottom = coarse[:, r + 1][:, :, c] * (1 - fc) + coarse[:, r + 1][:, :, c + 1] * fc
    return np.ascontiguousarray((top * (1 - fr) + bottom * fr).astype(np.uint8))


def time_batches(backend: Backend, model: Model) -> dict[str, dict[str, float]]:
    """Median and 99th percentile of milliseconds from a numpy batch to numpy results, by batch size."""
    result = {}
    for batch in BATCHES:
        images = smooth_images(batch, model.info.input_size)
        for _ in range(10):
            backend.run(images)
        seconds = []
        for _ in range(RUNS):
            start = time.perf_counter()
            backend.run(images)
            seconds.append(time.perf_counter() - start)
        median, p99 = np.percentile(np.array(seconds) * 1e3, (50, 99)).round(3).tolist()
        result[str(batch)] = {"median_ms": median, "p99_ms": p99}
    return result


def prove(path: Path, folder: Path) -> dict:
    """Builds, checks and times one model with its engine cache in `folder`."""
    model = read_model(shutil.copy(path, folder))
    start = time.perf_counter()
    first = open_backend("tensorrt", model)
    build = time.perf_counter() - start
    first.close()
    start = time.perf_counter()
    backend = open_backend("tensorrt", model)
    reopen = time.perf_counter() - start
    reference = open_backend("onnxruntime", model)
    size = model.info.input_size
    images = smooth_images(64, size)
    expected, got = (normalised_to_pixels(engine.run(images)["keypoints"], size) for engine in (reference, backend))
    shift = np.linalg.norm(got - expected, axis=-1)
    precision = str(model.info.training.get("precision", "fp32"))
    measured = float(np.median(shift) if precision == "int8" else shift.max())
    return {
        "model": model.id,
        "backend": backend.describe(),
        "precision": precision,
        "build_s": round(build, 2),
        "reopen_s": round(reopen, 2),
        "parity_px": round(measured, 4),
        "parity_ok": measured <= TOLERANCE_PX[precision],
        "tensorrt": time_batches(backend, model),
        "onnxruntime": time_batches(reference, model),
    }


def report(paths: list[Path], out: Path | None) -> int:
    """Proves all models, prints the figures, and writes them where `out` says. Returns the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        results = [prove(path, Path(folder)) for path in paths]
    for result in results:
        print(f"{result['model']} ({result['precision']}) in {result['backend']}: built in {result['build_s']} s")
        which = "median" if result["precision"] == "int8" else "largest"
        print(
            f"  reopened in {result['reopen_s']} s, {which} shift {result['parity_px']} px, ok: {result['parity_ok']}"
        )
        for batch, times in result["tensorrt"].items():
            print(f"  batch {batch}: median {times['median_ms']} ms, p99 {times['p99_ms']} ms")
    figures = json.dumps({"results": results})
    if out:
        out.write_text(figures + "\n")
    print(figures)
    return 0 if all(result["parity_ok"] for result in results) else 1


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="default: every model in models/")
    parser.add_argument("-o", "--out", type=Path, help="also write the JSON object to this file")
    arguments = parser.parse_args()
    return run_command(lambda: report(arguments.models or sorted((ROOT / "models").glob("*.onnx")), arguments.out))


if __name__ == "__main__":
    sys.exit(main())
