"""The cells that a benchmark has measured so far, gathered from their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.evaluation.structure import JointScores, StructureScores

ALWAYS = {
    "structure": StructureScores._fields,
    "joints": JointScores._fields,
    "regression": ("error", "baseline_mean_pose", "baseline_random_detector", "supervised"),
}
"""Measures that every cell names, None where they do not apply or were not taken."""


def collect(out: Path) -> dict[str, Any]:
    """`{"cells": […]}` of a benchmark's folder, by scene, method and seed, each with its scene's reference rows."""
    cells = []
    for file in sorted(out.glob("runs/*/*/seed*/cell.json")):
        cell = json.loads(file.read_text())
        references = out / "data" / cell["scene"] / "references.json"
        rows = json.loads(references.read_text()) if references.is_file() else {}
        measures = cell["measures"]
        for family, names in ALWAYS.items():
            measures[family] = dict.fromkeys(names) | measures.get(family, {})
        measures["regression"] |= rows
        cells.append(cell)
    return {"cells": cells}
