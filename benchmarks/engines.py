"""`python benchmarks/engines.py [MODEL …] [--json]`: every shipped model in every engine, beside PyTorch, in one run.

A figure is the time from a numpy batch to numpy results. Engines take turns, run after run, so that a noisy machine
disturbs all alike. `torch_eager_ratio` is PyTorch's median over the engine's. PyTorch runs the same network, built from
the options in the model file, with fresh weights: the time does not depend on them. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from gpu import smooth_images  # noqa: E402
from networks import network_of  # noqa: E402

from keypoint_perception.backends import BACKENDS, open_backend  # noqa: E402
from keypoint_perception.command_line import run_command  # noqa: E402
from keypoint_perception.errors import UserError  # noqa: E402
from keypoint_perception.geometry import Viewport, normalised_to_pixels  # noqa: E402
from keypoint_perception.model import Model, read_model  # noqa: E402
from training.onnx_graph import InferenceGraph  # noqa: E402

Run = Callable[[np.ndarray], Any]
CAMERA_SIZE = (640, 480)
WARM_UP = 10


def torch_eager(model: Model) -> Run:
    """The model's network in PyTorch, uint8 images in, numpy arrays out."""
    graph = InferenceGraph(network_of(model.info)).eval()

    @torch.inference_mode()
    def run(images: np.ndarray) -> list[np.ndarray]:
        return [output.numpy() for output in graph(torch.from_numpy(images))]

    return run


def engines(model: Model, threads: int) -> tuple[dict[str, Run], dict[str, str]]:
    """What runs here, and why the rest does not."""
    torch.set_num_threads(threads)
    runs, missing = {"torch": torch_eager(model)}, {}
    for name in BACKENDS:
        try:
            runs[name] = open_backend(name, model, threads=threads).run
        except UserError as error:
            missing[name] = str(error)
    return runs, missing


def time_side_by_side(runs: dict[str, Run], images: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """Median, 99th percentile and CPU time of each engine in milliseconds a batch."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu = dict.fromkeys(runs, 0.0)
    for turn in range(WARM_UP + rounds):
        for name, run in runs.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            run(images)
            if turn >= WARM_UP:
                wall[name].append(time.perf_counter() - start)
                cpu[name] += time.process_time() - start_cpu
    return {
        name: {
            "median_ms": round(float(np.median(times)) * 1e3, 3),
            "p99_ms": round(float(np.percentile(times, 99)) * 1e3, 3),
            "cpu_ms": round(cpu[name] / rounds * 1e3, 3),
        }
        for name, times in wall.items()
    }


def parity_px(runs: dict[str, Run], model: Model) -> dict[str, float]:
    """Largest keypoint distance of each engine to ONNX Runtime over 64 images, in input pixels."""
    size = model.info.input_size
    images = smooth_images(64, size)
    found = {name: normalised_to_pixels(run(images)["keypoints"], size) for name, run in runs.items()}
    gaps = {name: np.linalg.norm(pixels - found["onnxruntime"], axis=-1) for name, pixels in found.items()}
    return {name: round(float(gap.max()), 5) for name, gap in gaps.items()}


def preprocessing_ms(model: Model, rounds: int) -> float:
    """Median milliseconds from a 640x480 camera image to the network's input."""
    image = smooth_images(1, CAMERA_SIZE)[0]
    viewport = Viewport.of(CAMERA_SIZE, model.info.input_size, model.info.roi)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        viewport.view(image)
        seconds.append(time.perf_counter() - start)
    return round(float(np.median(seconds)) * 1e3, 3)


def measure(path: Path, batches: list[int], threads: list[int], rounds: int) -> dict[str, Any]:
    """All figures of one model; the headline is a batch of one on one thread."""
    model = read_model(path)
    result: dict[str, Any] = {"model": model.id, "method": model.info.method, "table": []}
    result["preprocessing_ms"] = preprocessing_ms(model, rounds)  # before engines have threads that spin
    for thread_count in threads:
        runs, missing = engines(model, thread_count)
        for batch in batches:
            times = time_side_by_side(runs, smooth_images(batch, model.info.input_size), rounds)
            result["table"].append({"threads": thread_count, "batch": batch, **times})
    gaps = parity_px({name: run for name, run in runs.items() if name != "torch"}, model)
    headline = result["table"][0]
    result["backends"] = {
        name: {
            "median_ms": headline[name]["median_ms"],
            "p99_ms": headline[name]["p99_ms"],
            "parity_px": gaps[name],
            "torch_eager_ratio": round(headline["torch"]["median_ms"] / headline[name]["median_ms"], 2),
        }
        for name in gaps
    }
    return result | {"missing": missing}


def print_tables(result: dict[str, Any]) -> None:
    """For people."""
    print(f"\n{result['model']}  (preprocessing {result['preprocessing_ms']} ms from 640x480)")
    for row in result["table"]:
        print(f"  {row['threads']} thread(s), batch {row['batch']}:")
        for name, times in row.items():
            if isinstance(times, dict):
                cells = (
                    f"median {times['median_ms']:8.3f} ms  p99 {times['p99_ms']:8.3f} ms  CPU {times['cpu_ms']:8.3f} ms"
                )
                print(f"    {name:<12} {cells}")
    for name, values in result["backends"].items():
        print(f"  {name:<14} parity {values['parity_px']} px, {values['torch_eager_ratio']} times as fast as PyTorch")
    for name, reason in result["missing"].items():
        print(f"  {name:<14} not measured: {reason}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="default: every model in models/")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, os.cpu_count() or 1)}))
    parser.add_argument("--json", action="store_true", help="no tables, only the JSON line")
    arguments = parser.parse_args()

    def command() -> int:
        results = []
        for path in arguments.models or sorted((ROOT / "models").glob("*.onnx")):
            results.append(measure(path, arguments.batches, arguments.threads, arguments.rounds))
            if not arguments.json:
                print_tables(results[-1])
        print(json.dumps({"models": results}))
        return 0

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
