"""Error by number of labelled examples as an SVG picture, without a plotting library."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import NamedTuple

Curve = Mapping[str, float | None]
"""Number of labelled examples, or "all", to error."""
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
_LEVEL_COLOURS = ("#999999", "#222222")
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 150, 16, 44
"""Margins, pixels; the legend stands in the right one."""
_TICKS = 4
_ALL_AFTER = 0.6
""" "all" stands so many powers of ten after the last number."""


class _Line(NamedTuple):
    name: str
    colour: str
    points: list[tuple[float, float]]
    """Pixels."""
    is_level: bool


def label_curve(curves: Mapping[str, Curve], levels: Mapping[str, float | None]) -> str:
    """An SVG element with a line for each of `curves`, and `levels`, which need no labels, dashed across.

    Examples are spaced by their logarithm. Errors begin at 0.
    """
    places = _places(curves)
    known = [value for curve in (*curves.values(), levels) for value in curve.values() if value is not None]
    top = 1.05 * max(known, default=0.0) or 1.0
    lines = []
    for number, (name, curve) in enumerate(curves.items()):
        points = [(x, _y(error / top)) for count, x in places.items() if (error := curve.get(count)) is not None]
        lines.append(_Line(name, COLOURS[number % len(COLOURS)], points, False))
    for number, (name, level) in enumerate(levels.items()):
        if level is not None:
            lines.append(_Line(name, _LEVEL_COLOURS[number % len(_LEVEL_COLOURS)], _across(_y(level / top)), True))
    drawn = [_drawn(line) + _legend(line, row) for row, line in enumerate(lines)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
        f"{_axes(places, top)}{''.join(drawn)}</svg>\n"
    )


def _places(curves: Mapping[str, Curve]) -> dict[str, float]:
    """x of each number of examples, from left to right, pixels."""
    counts = sorted({int(count) for curve in curves.values() for count in curve if count != "all"})
    logarithms = {str(count): math.log10(count) for count in counts}
    logarithms["all"] = max(logarithms.values(), default=-_ALL_AFTER) + _ALL_AFTER
    span = (_WIDTH - _LEFT - _RIGHT) / (logarithms["all"] or 1.0)
    return {count: _LEFT + span * value for count, value in logarithms.items()}


def _y(share: float) -> float:
    """Pixels of a share of the largest error."""
    return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _across(y: float) -> list[tuple[float, float]]:
    return [(_LEFT, y), (_WIDTH - _RIGHT, y)]


def _axes(places: Mapping[str, float], top: float) -> str:
    parts = [_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, "labelled examples", "middle")]
    parts += [_text(x, _HEIGHT - _BOTTOM + 16, count, "middle") for count, x in places.items()]
    for tick in range(_TICKS + 1):
        y = _y(tick / _TICKS)
        parts += [_polyline(_across(y), "#ddd"), _text(_LEFT - 6, y + 4, f"{top * tick / _TICKS:.2f}", "end")]
    return "".join(parts)


def _drawn(line: _Line) -> str:
    if line.is_level:
        return _polyline(line.points, line.colour, 1.8, dashed=True)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{line.colour}"/>' for x, y in line.points]
    return _polyline(line.points, line.colour, 1.8) + "".join(dots)


def _legend(line: _Line, row: int) -> str:
    x, y = _WIDTH - _RIGHT + 12, _TOP + 8 + 16 * row
    sample = _polyline([(x, y), (x + 20, y)], line.colour, 1.8, line.is_level)
    return sample + _text(x + 26, y + 4, line.name, "start")


def _polyline(points: list[tuple[float, float]], colour: str, width: float = 1.0, dashed: bool = False) -> str:
    at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
