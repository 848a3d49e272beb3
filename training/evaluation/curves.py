"""A curve as an SVG picture, without a plotting library."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

Curve = Mapping[str, float | None]
"""Number of labelled examples, or "all", to error."""
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 150, 16, 44
_TICKS = 4


def label_curve(curves: Mapping[str, Curve], levels: Mapping[str, float | None]) -> str:
    """Error by number of labelled examples as an SVG element: a line a method, and dashed levels that need no labels.

    Examples are spaced by their logarithm, "all" stands one step further. Errors begin at 0.
    """
    counts = sorted({int(count) for curve in curves.values() for count in curve if count != "all"})
    places = {str(count): math.log10(count) for count in counts}
    places["all"] = (max(places.values()) + 0.6) if places else 0.0
    known = [value for curve in (*curves.values(), levels) for value in curve.values() if value is not None]
    top = 1.05 * max(known, default=1.0) or 1.0

    def x(count: str) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * places[count] / (max(places.values()) or 1.0)

    def y(error: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * error / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif"'
        ' font-size="11">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for tick in range(_TICKS + 1):
        error = top * tick / _TICKS
        parts.append(_line([(_LEFT, y(error)), (_WIDTH - _RIGHT, y(error))], "#ddd"))
        parts.append(_text(_LEFT - 6, y(error) + 4, f"{error:.2f}", "end"))
    parts += [_text(x(count), _HEIGHT - _BOTTOM + 16, count, "middle") for count in places]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, "labelled examples", "middle"))
    lines = [
        (name, colour, [(x(count), y(error)) for count, error in _sorted(curve, places) if error is not None], False)
        for (name, curve), colour in zip(curves.items(), _endless(len(curves)), strict=True)
    ]
    lines += [
        (name, "#777", [(_LEFT, y(level)), (_WIDTH - _RIGHT, y(level))], True)
        for name, level in levels.items()
        if level is not None
    ]
    for row, (name, colour, points, dashed) in enumerate(lines):
        parts.append(_line(points, colour, 1.8, dashed))
        if not dashed:
            parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.6" fill="{colour}"/>' for px, py in points]
        at = _TOP + 8 + 16 * row
        parts.append(_line([(_WIDTH - _RIGHT + 12, at), (_WIDTH - _RIGHT + 32, at)], colour, 1.8, dashed))
        parts.append(_text(_WIDTH - _RIGHT + 38, at + 4, name, "start"))
    return "".join(parts) + "</svg>\n"


def _sorted(curve: Curve, places: Mapping[str, float]) -> list[tuple[str, float | None]]:
    return sorted(curve.items(), key=lambda point: places[point[0]])


def _endless(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _line(points: list[tuple[float, float]], colour: str, width: float = 1.0, dashed: bool = False) -> str:
    at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
