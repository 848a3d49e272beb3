"""Cells on disk to results, tables and pages."""

import json

from training.evaluation.results import collect


def test_cells_are_gathered_with_their_references_and_without_gaps(tmp_path):
    for scene, method in (("cartpoles", "npt"), ("cartpoles", "imm"), ("whcm", "imm")):
        folder = tmp_path / "runs" / scene / method / "seed0"
        folder.mkdir(parents=True)
        measures = {"regression": {"error": 0.1}, "joints": {}}
        (folder / "cell.json").write_text(json.dumps({"method": method, "scene": scene, "measures": measures}))
    (tmp_path / "data" / "cartpoles").mkdir(parents=True)
    (tmp_path / "data" / "cartpoles" / "references.json").write_text('{"supervised": 0.05}')
    cells = collect(tmp_path)["cells"]
    assert [(cell["scene"], cell["method"]) for cell in cells] == [
        ("cartpoles", "imm"), ("cartpoles", "npt"), ("whcm", "imm"),
    ]  # fmt: skip
    assert cells[0]["measures"]["regression"]["supervised"] == 0.05
    assert cells[2]["measures"]["regression"] == {
        "error": 0.1, "baseline_mean_pose": None, "baseline_random_detector": None, "supervised": None,
    }  # fmt: skip
    assert cells[0]["measures"]["structure"]["bcc"] is None and cells[0]["measures"]["joints"]["diff"] is None


def test_a_folder_without_cells_gives_none(tmp_path):
    assert collect(tmp_path) == {"cells": []}
