"""`python -m keypoint_perception.describe MODEL`: what a model file is, for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keypoint_perception.command_line import Parser, run_command
from keypoint_perception.model import Model, ModelInfo, read_model
from keypoint_perception.observation import EDGE_THRESHOLD


def describe(model: Model) -> str:
    """A line a fact."""
    info = model.info
    width, height = info.input_size
    lines = [
        ("model", f"{model.id}, {len(model.data) / 1e6:.2f} MB, sha256 {model.sha256}"),
        ("method", info.method),
        ("input", f"image uint8 (N, {height}, {width}, 3) RGB" + (f", of roi {info.roi}" if info.roi else "")),
        ("keypoints", f"{info.keypoint_count}: {', '.join(info.keypoint_names)}"),
        ("skeleton", _skeleton_text(info)),
        ("groups", "; ".join(f"{g.name}: {_names(info, g.keypoints)}" for g in info.groups) or "none"),
        *(("alike", " · ".join(_names(info, limb) for limb in limbs)) for limbs in info.alike),
        *([("alike", "both ends of the chain")] if info.either_end else []),
        *(("parent", f"{info.keypoint_names[p]} of {_names(info, children)}") for p, children in _families(info)),
        *((f"training {key}", _short(value)) for key, value in info.training.items()),
        *((f"figure {key}", _short(value)) for key, value in info.figures.items()),
    ]
    return "\n".join(f"{name:<22} {text}" for name, text in lines)


def main(argv: list[str] | None = None) -> int:
    """The command: prints what a model file is, or why it is refused."""
    parser = Parser(prog="python -m keypoint_perception.describe", description=__doc__)
    parser.add_argument("model", type=Path, help="model file (.onnx)")

    def show() -> int:
        print(describe(read_model(parser.parse_args(argv).model)))
        return 0

    return run_command(show)


def _skeleton_text(info: ModelInfo) -> str:
    if info.adjacency is None:
        return "predicted for each image"
    weight = np.triu(np.asarray(info.adjacency), 1)
    edges = [
        f"{info.keypoint_names[i]}-{info.keypoint_names[j]} {weight[i, j]:.2f}"
        for i, j in np.argwhere(weight >= EDGE_THRESHOLD)
    ]
    return f"{len(edges)} edges: {', '.join(edges)}" if edges else "no edges"


def _families(info: ModelInfo) -> list[tuple[int, list[int]]]:
    return [
        (p, [k for k in range(info.keypoint_count) if info.parent[k] == p]) for p in sorted(set(info.parent) - {-1})
    ]


def _names(info: ModelInfo, keypoints: Iterable[int]) -> str:
    return ", ".join(info.keypoint_names[k] for k in keypoints)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 400 else f"{text[:400]}…"


if __name__ == "__main__":
    sys.exit(main())
