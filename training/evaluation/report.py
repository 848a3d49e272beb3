"""The benchmark's results as Markdown tables and a page with pictures and curves, our figures beside the paper's."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keypoint_perception.detector import Detector
from keypoint_perception.drawing import Style, contact_sheet, draw, write_png
from keypoint_perception.files import written_whole
from keypoint_perception.model import Model
from training.evaluation.curves import label_curve
from training.evaluation.videos import LabelledVideo

TABLE_NAME = "table.md"
PAGE_NAME = "report.html"
UNKNOWN = "–"

Cell = dict[str, Any]
"""One entry of results["cells"]. It may lack a family of measures, or have none in it."""


class Column(NamedTuple):
    """One measure in a table."""

    family: str
    name: str
    title: str


PAPER_COLUMNS = (
    Column("structure", "acc", "Acc"),
    Column("structure", "bcc", "Bcc"),
    Column("structure", "f1", "S.F1"),
    Column("structure", "precision", "S.Prec"),
    Column("structure", "recall", "S.Rec"),
    Column("joints", "dist", "Dist"),
    Column("joints", "consistency", "Constcy"),
    Column("joints", "f1", "J.F1"),
    Column("joints", "precision", "J.Prec"),
    Column("joints", "recall", "J.Rec"),
    Column("joints", "diff", "Diff"),
)
"""Tables I and II of the skeleton paper."""
MORE_COLUMNS = (
    Column("regression", "error", "Regression"),
    Column("regression", "error_with_bias", "with bias"),
    Column("regression", "pck", "PCK"),
    Column("regression", "rmse", "RMSE"),
    Column("label_efficiency", "10", "10 labels"),
    Column("identity", "on_object", "On object"),
    Column("identity", "same_part", "Same part"),
    Column("identity", "jitter", "Jitter"),
    Column("direct", "error", "Direct"),
    Column("direct", "error_with_flips", "with flips"),
    Column("motion", "accuracy", "Motion"),
    Column("lifting", "error_m", "3-D, m"),
    Column("grasp", "error_m_10", "Grasp 10, m"),
    Column("grasp", "error_m", "Grasp, m"),
)
"""Everything else."""
REFERENCES = {
    "mean pose": {
        "Regression": ("regression", "baseline_mean_pose"),
        "3-D, m": ("lifting", "baseline_mean_pose_m"),
        "Grasp, m": ("grasp", "baseline_mean_pose_m"),
    },
    "random detector": {"Regression": ("regression", "baseline_random_detector")},
    "trained with labels": {
        "Regression": ("regression", "supervised"),
        "Direct": ("direct", "supervised"),
        "with flips": ("direct", "supervised_with_flips"),
    },
    "most frequent class": {"Motion": ("motion", "chance")},
    "true joints": {
        "Motion": ("motion", "true_joints"),
        "3-D, m": ("lifting", "true_pixels_m"),
        "Grasp, m": ("grasp", "true_pixels_m"),
    },
}
"""Rows that are no method: title of a column to where the figure is."""
PAPER_NPT = {
    "spiders": (0.67, 0.55, 0.22, 0.16, 0.38, 0.083, 0.91, 0.87, 0.89, 0.85, 4.3),
    "cartpoles": (0.95, 0.94, 0.93, 0.99, 0.87, 0.086, 0.92, 0.84, 0.86, 0.82, 1.2),
    "whcm": (0.72, 0.58, 0.35, 0.39, 0.32, 0.133, 1.0, 0.89, 0.98, 0.82, 1.5),
    "swimmers": (0.89, 0.89, 0.85, 0.89, 0.82, 0.066, 0.96, 0.90, 0.96, 0.85, 0.9),
    "spiders0shot": (0.77, 0.62, 0.37, 0.34, 0.40, 0.090, 0.98, 0.70, 0.91, 0.57, 5.4),
}
"""What the skeleton paper prints for its own method, Tables I and II, on its own renderings of these scenes,"""
PAPER_TRANSPORTER = {
    "spiders": (0.270, 0.71, 0.33, 0.32, 0.33, 4.4),
    "cartpoles": (0.126, 0.70, 0.72, 0.63, 0.85, 1.9),
    "whcm": (0.143, 0.71, 0.91, 0.84, 0.99, 1.5),
    "swimmers": (0.083, 0.72, 0.87, 0.77, 0.98, 1.4),
    "spiders0shot": (0.240, 0.52, 0.47, 0.44, 0.51, 2.5),
}
"""and in Table II for the Transporter, with as many points as a scene has joints at most."""
PICTURE_VIDEOS, PICTURE_FRAMES = 4, 6
PICTURE_WIDTH = 256
"""Small frames are enlarged to about this many pixels in width."""

_STYLE = """body{font:14px sans-serif;margin:2em}table{border-collapse:collapse;margin:0 0 1em}
td,th{padding:.2em .6em;text-align:right;border-bottom:1px solid #ddd}tr.reference{color:#666}img{max-width:100%}"""


def write_report(results: dict[str, Any], out: Path) -> None:
    """Writes the table and the page of `results["cells"]` into `out`."""
    with written_whole(out / TABLE_NAME) as file:
        file.write_text(markdown(results))
    with written_whole(out / PAGE_NAME) as file:
        file.write_text(page(results))


def markdown(results: dict[str, Any]) -> str:
    """Two tables a scene: a row or two a method, mean ± spread over seeds, then the references and the paper's row."""
    parts = []
    for scene, methods in _grouped(results).items():
        parts.append(f"### {scene}\n\n{_trained(methods)}\n")
        for rows in _tables(scene, methods):
            lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
            parts.append("\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n")
    return "\n".join(parts)


def page(results: dict[str, Any]) -> str:
    """The tables, learned graphs over frames and curves as one HTML page; the pictures are files beside it."""
    parts = [f"<!doctype html><meta charset=utf-8><title>Benchmark</title><style>{_STYLE}</style>"]
    for scene, methods in _grouped(results).items():
        parts.append(f"<h2>{html.escape(scene)}</h2><p>{html.escape(_trained(methods))}</p>")
        for header, *rows in _tables(scene, methods):
            parts.append("<table><tr>" + "".join(f"<th>{html.escape(title)}</th>" for title in header) + "</tr>")
            for name, *values in rows:
                kind = "" if name in methods else ' class="reference"'
                figures = "".join(f"<td>{html.escape(value)}</td>" for value in values)
                parts.append(f"<tr{kind}><th>{html.escape(name)}</th>{figures}</tr>")
            parts.append("</table>")
        parts.append(_curve(methods))
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
    write_png(path, contact_sheet(pictures, columns=PICTURE_FRAMES))
    return path


def _grouped(results: dict[str, Any]) -> dict[str, dict[str, list[Cell]]]:
    scenes: dict[str, dict[str, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in results["cells"]:
        scenes[cell["scene"]][cell["method"]].append(cell)
    return scenes


def _trained(methods: dict[str, list[Cell]]) -> str:
    """On what and how long."""
    cells = [cell for group in methods.values() for cell in group]
    machines = " and ".join(sorted({cell["machine"] for cell in cells if cell.get("machine")})) or "an unknown machine"
    minutes = [cell["minutes"] for cell in cells if cell.get("minutes") is not None]
    span = dict.fromkeys(f"{value:.3g}" for value in (min(minutes), max(minutes))) if minutes else ()
    times = f", {' to '.join(span)} minutes each" if span else ""
    return f"Trained on {machines}{times}."


def _tables(scene: str, methods: dict[str, list[Cell]]) -> Iterator[list[list[str]]]:
    """The rows of both tables, the header first."""
    yield _rows(methods, PAPER_COLUMNS) + _paper_rows(scene)
    yield _rows(methods, MORE_COLUMNS) + _reference_rows([cell for group in methods.values() for cell in group])


def _rows(methods: dict[str, list[Cell]], columns: Sequence[Column]) -> list[list[str]]:
    """A row a method, and one more for what it says of single images where its body is followed over a video."""
    rows = [["method", "seeds", *(column.title for column in columns)]]
    for method, cells in methods.items():
        rows.append([method, str(len(cells)), *(_mean(_known(cells, c.family, c.name)) for c in columns)])
        single = [_mean(_known(cells, f"{c.family}_single", c.name)) for c in columns]
        if set(single) != {UNKNOWN}:
            rows.append([f"{method}, single images", str(len(cells)), *single])
    return rows


def _paper_rows(scene: str) -> list[list[str]]:
    if scene not in PAPER_NPT:
        return []
    npt, transporter = ([f"{figure:g}" for figure in printed[scene]] for printed in (PAPER_NPT, PAPER_TRANSPORTER))
    return [
        ["NPT, as printed in its paper", "", *npt],
        ["Transporter, as printed there", "", *[UNKNOWN] * (len(npt) - len(transporter)), *transporter],
    ]


def _reference_rows(cells: list[Cell]) -> list[list[str]]:
    """The references that some cell has; where methods or seeds give several, their mean without a spread."""
    rows = []
    for title, places in REFERENCES.items():
        known = {column: _known(cells, *place) for column, place in places.items()}
        if any(known.values()):
            texts = [f"{np.mean(found):.3f}" if (found := known.get(c.title)) else UNKNOWN for c in MORE_COLUMNS]
            rows.append([title, "", *texts])
    return rows


def _curve(methods: dict[str, list[Cell]]) -> str:
    """Error by number of labels, as SVG; nothing where no cell has it."""
    curves = {}
    for method, cells in methods.items():
        counts = [name for cell in cells for name in cell["measures"].get("label_efficiency", {})]
        curve = {name: _known(cells, "label_efficiency", name) for name in dict.fromkeys(counts)}
        if any(curve.values()):
            curves[method] = {name: float(np.mean(values)) for name, values in curve.items() if values}
    if not curves:
        return ""
    cells = [cell for group in methods.values() for cell in group]
    names = {"mean pose": "baseline_mean_pose", "trained with labels": "supervised"}
    levels = {title: _known(cells, "regression", name) for title, name in names.items()}
    means = {title: float(np.mean(values)) for title, values in levels.items() if values}
    return f"<h3>Regression error by number of labelled examples</h3>{label_curve(curves, means)}"


def _known(cells: Sequence[Cell], family: str, name: str) -> list[float]:
    values = [(cell["measures"].get(family) or {}).get(name) for cell in cells]
    return [value for value in values if value is not None]


def _mean(values: list[float]) -> str:
    """Mean and, over several seeds, spread."""
    if not values:
        return UNKNOWN
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")
