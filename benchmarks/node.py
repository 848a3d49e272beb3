"""What the detector node costs on top of its engine, side by side with a bare relay and with a plain node.

python benchmarks/node.py --json        a few minutes; the last line is one JSON object
python benchmarks/node.py --soak 100000 memory over that many images
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from middleware import (
    LAST_CORE,
    ROOT,
    Bench,
    Run,
    on_cores,
    picture,
    process,
)  # finds the checkout, too

from keypoint_perception.detector import Detector, shipped_model
from tools.isolation import own_middleware

RATE_HZ = 30.0
CAMERAS = ("a", "b", "c", "d")
ENGINE_IMAGES = 300
"""That the engine alone is timed with."""
OURS, BASELINES = ["-m", "keypoint_perception.ros.node"], [str(ROOT / "benchmarks" / "baseline_nodes.py")]
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=shipped_model())
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--soak", type=int, metavar="N", help="only send N images and watch the memory")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs:
        own_middleware(logs)
        import rclpy

        say: Callable[[str], None] = (lambda text: None) if options.json else (lambda text: print(text, flush=True))
        rclpy.init()
        bench = Bench()
        try:
            result = (soak if options.soak else compare)(bench, options, say)
        finally:
            bench.close()
            rclpy.try_shutdown()
    print(json.dumps(result))
    return 0


def compare(bench: Bench, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """All measurements, one after the other on the same machine."""
    node = [*OURS, "--ros-args", "-p", f"model:={options.model}", "-p", f"backend:={options.backend}"]
    engine_ms = engine_time(options)
    say(f"engine      {engine_ms:.2f} ms an image")
    with process([*BASELINES, "relay"]):
        relay = bench.run(options.seconds, RATE_HZ)
    say(f"relay       {relay}")
    with process(node):
        ours = bench.run(options.seconds, RATE_HZ)
    say(f"node        {ours}")
    full, node_cpu_ms = saturated(bench, node, options.seconds)
    empty, _ = saturated(bench, [*BASELINES, "relay"], options.seconds)
    _, least_cpu_ms = saturated(bench, [*BASELINES, "least"], options.seconds)
    say(f"saturated   {full.rate:.0f} images/s on one core, relay {empty.rate:.0f}, bare engine {1e3 / engine_ms:.0f}")
    say(f"CPU         {node_cpu_ms:.2f} ms an image, of which the middleware alone takes {least_cpu_ms:.2f} ms")
    with process([*BASELINES, "naive", str(options.model)]):
        naive = bench.run(options.seconds, RATE_HZ)
    say(f"plain node  {naive}")
    together, apart = four_cameras(bench, node, options.seconds, min(RATE_HZ / 2, 100 / engine_ms))
    say(f"4 cameras   {together:.2f} s of CPU in one process, {apart:.2f} s in four")
    return {
        "engine_ms": round(engine_ms, 3),
        "relay_ms": round(relay.percentile(50), 3),
        "lost": ours.sent - len(ours.latencies),
        "latency_ms": {"p50": round(ours.percentile(50), 3), "p99": round(ours.percentile(99), 3)},
        "throughput_ratio": round(full.rate * engine_ms / 1e3, 3),
        "throughput_bound": round(engine_ms / (engine_ms + least_cpu_ms), 3),
        "node_cpu_ms": round(node_cpu_ms, 3),
        "least_cpu_ms": round(least_cpu_ms, 3),
        "relay_images_per_s": round(empty.rate, 1),
        "node_images_per_s": round(full.rate, 1),
        "four_cameras_cpu_ratio": round(together / apart, 3),
        "naive_latency_ratio": round(naive.percentile(50) / ours.percentile(50), 3),
    }


def engine_time(options: argparse.Namespace) -> float:
    """Median milliseconds of the engine on one image, resizing included, on one core."""
    with on_cores({LAST_CORE}):
        detector, image = Detector(options.model, options.backend), picture()
        seconds = []
        for _ in range(ENGINE_IMAGES):
            start = time.perf_counter()
            detector.detect([image])
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[ENGINE_IMAGES // 10 :])) * 1e3


def saturated(bench: Bench, command: list[str], seconds: float) -> tuple[Run, float]:
    """A node on one core that always has the next image, and the milliseconds of CPU that an image takes it."""
    with process(command, core=LAST_CORE) as node:
        bench.wait(["/image"], ["/detector/keypoints"])
        start = cpu_seconds(node)
        run = bench.saturate(seconds)
        return run, (cpu_seconds(node) - start) * 1e3 / len(run.latencies)


def four_cameras(bench: Bench, node: list[str], seconds: float, rate: float) -> tuple[float, float]:
    """Seconds of CPU that one process takes for four cameras, and four processes for one each, for the same images."""
    topics = [f"/{camera}/image" for camera in CAMERAS]
    answers = [f"/detector/{camera}/keypoints" for camera in CAMERAS]
    with process([*node, "-p", f"cameras:=[{', '.join(CAMERAS)}]"]) as one:
        bench.wait(topics, answers)
        start = cpu_seconds(one)
        bench.run(seconds, rate, topics, answers)
        together = cpu_seconds(one) - start
    with ExitStack() as stack:
        four = [
            stack.enter_context(
                process([*node, "-r", f"image:={topic}", "-r", f"~/keypoints:={answer}", "-r", f"__node:={name}"])
            )
            for topic, answer, name in zip(topics, answers, CAMERAS, strict=True)
        ]
        bench.wait(topics, answers)
        start = sum(map(cpu_seconds, four))
        bench.run(seconds, rate, topics, answers)
        apart = sum(map(cpu_seconds, four)) - start
    return together, apart


def soak(bench: Bench, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Memory of the node before and after N images, as fast as they are served."""
    node = [*OURS, "--ros-args", "-p", f"model:={options.model}", "-p", f"backend:={options.backend}"]
    rate = 0.8e3 / (engine_time(options) + 2)
    resident = []
    with process(node) as running:
        served = 0
        while served < options.soak:
            served += len(bench.run(30.0, rate).latencies)
            resident.append(_resident_mib(running))
            say(f"{served} images, {resident[-1]:.1f} MiB")
    third = max(len(resident) // 3, 1)
    growth = float(np.mean(resident[-third:]) - np.mean(resident[:third]))
    return {"images": served, "resident_mib": [round(r, 1) for r in resident], "growth_mib": round(growth, 2)}


def cpu_seconds(of: subprocess.Popen) -> float:
    """Time on a CPU so far."""
    fields = Path(f"/proc/{of.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident_mib(of: subprocess.Popen) -> float:
    lines = Path(f"/proc/{of.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    raise SystemExit(main())
