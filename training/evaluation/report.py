"""The benchmark's results as a Markdown table and a page with pictures, our figures beside the paper's."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keypoint_perception.detector import Detector
from keypoint_perception.drawing import Style, contact_sheet, draw
from keypoint_perception.files import written_whole
from keypoint_perception.model import Model
from training.evaluation.videos import LabelledVideo

TABLE_NAME = "table.md"
PAGE_NAME = "report.html"
COLUMNS = (
    *((("structure", name), title) for name, title in (("acc", "Acc"), ("bcc", "Bcc"), ("f1", "S.F1"))),
    (("structure", "precision"), "S.Prec"),
    (("structure", "recall"), "S.Rec"),
    (("joints", "dist"), "Dist"),
    (("joints", "consistency"), "Constcy"),
    (("joints", "f1"), "J.F1"),
    (("joints", "precision"), "J.Prec"),
    (("joints", "recall"), "J.Rec"),
    (("joints", "diff"), "Diff"),
    (("regression", "error"), "Regression"),
    (("identity", "on_object"), "On object"),
)
PAPER_NPT = {
    "spiders": (0.67, 0.55, 0.22, 0.16, 0.38, 0.083, 0.91, 0.87, 0.89, 0.85, 4.3),
    "cartpoles": (0.95, 0.94, 0.93, 0.99, 0.87, 0.086, 0.92, 0.84, 0.86, 0.82, 1.2),
    "whcm": (0.72, 0.58, 0.35, 0.39, 0.32, 0.133, 1.0, 0.89, 0.98, 0.82, 1.5),
    "swimmers": (0.89, 0.89, 0.85, 0.89, 0.82, 0.066, 0.96, 0.90, 0.96, 0.85, 0.9),
    "spiders0shot": (0.77, 0.62, 0.37, 0.34, 0.40, 0.090, 0.98, 0.70, 0.91, 0.57, 5.4),
}
"""What the skeleton paper prints for its own method, Tables I and II, on its own renderings of these scenes."""
PICTURE_VIDEOS, PICTURE_FRAMES = 4, 6
PICTURE_WIDTH = 256
"""Small frames are enlarged to about this many pixels in width."""


def write_report(results: dict[str, Any], out: Path) -> None:
    """Writes the table and the page of `results["cells"]` into `out`."""
    table = markdown(results)
    with written_whole(out / TABLE_NAME) as file:
        file.write_text(table)
    with written_whole(out / PAGE_NAME) as file:
        file.write_text(page(results))


def markdown(results: dict[str, Any]) -> str:
    """A table a scene: a row a method, mean ± spread over seeds, then the references and the paper's row."""
    parts = []
    for scene, methods in _grouped(results).items():
        header = ["method", "seeds", *(title for _, title in COLUMNS)]
        rows = [[method, str(len(cells)), *_means(cells)] for method, cells in methods.items()]
        rows += _reference_rows(next(iter(methods.values())))
        if scene in PAPER_NPT:
            rows.append(["NPT, as printed in its paper", "", *(f"{v:g}" for v in PAPER_NPT[scene]), "", ""])
        lines = [header, ["---"] * len(header), *rows]
        parts.append(f"### {scene}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n")
    return "\n".join(parts)


def page(results: dict[str, Any]) -> str:
    """The tables and the pictures of predictions as one HTML page without outside references but its pictures."""
    parts = ["<!doctype html><meta charset=utf-8><title>Benchmark</title>"]
    parts.append("<style>body{font:14px sans-serif;margin:2em}td,th{padding:.2em .6em;text-align:right}</style>")
    for scene, methods in _grouped(results).items():
        parts.append(f"<h2>{html.escape(scene)}</h2><table><tr><th>method</th>")
        parts += [f"<th>{title}</th>" for _, title in COLUMNS]
        for method, cells in methods.items():
            values = "".join(f"<td>{value}</td>" for value in _means(cells))
            parts.append(f"</tr><tr><th>{html.escape(method)}</th>{values}")
        parts.append("</tr></table>")
        for method, cells in methods.items():
            pictures = [cell["picture"] for cell in cells if cell.get("picture")]
            parts += [f'<h3>{html.escape(method)}</h3><img src="{html.escape(p)}" width="960">' for p in pictures[:1]]
    return "\n".join(parts) + "\n"


def picture_of(model: Model, videos: Iterable[LabelledVideo], path: Path) -> Path:
    """Draws predictions over frames of the first few videos, a row a video. Returns `path`."""
    detector = Detector(model)
    style = Style.of(model.info)
    pictures = []
    for _, video in zip(range(PICTURE_VIDEOS), videos, strict=False):
        chosen = np.linspace(0, len(video.frames) - 1, PICTURE_FRAMES).astype(int)
        scale = max(1, round(PICTURE_WIDTH / video.frames.shape[2]))
        frames = [video.frames[i].repeat(scale, axis=0).repeat(scale, axis=1) for i in chosen]
        pictures += [draw(f, o, style) for f, o in zip(frames, detector.detect(frames), strict=True)]
    sheet = contact_sheet(pictures, columns=PICTURE_FRAMES)
    with written_whole(path) as file:
        cv2.imwrite(str(file), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    return path


def _grouped(results: dict[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    scenes: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for cell in results["cells"]:
        scenes[cell["scene"]][cell["method"]].append(cell)
    return scenes


def _means(cells: list[dict[str, Any]]) -> list[str]:
    texts = []
    for (family, name), _ in COLUMNS:
        values = [cell["measures"].get(family, {}).get(name) for cell in cells]
        known = [value for value in values if value is not None]
        spread = f" ± {np.std(known, ddof=1):.3f}" if len(known) > 1 else ""
        texts.append(f"{np.mean(known):.3f}{spread}" if known else "–")
    return texts


def _reference_rows(cells: list[dict[str, Any]]) -> list[list[str]]:
    measures = cells[0]["measures"]["regression"]
    rows = []
    for name, title in (
        ("baseline_mean_pose", "mean pose"),
        ("baseline_random_detector", "random detector"),
        ("supervised", "trained with labels"),
    ):
        value = measures.get(name)
        cells_before = ["–"] * (len(COLUMNS) - 2)
        rows.append([title, "", *cells_before, "–" if value is None else f"{value:.3f}", "–"])
    return rows
