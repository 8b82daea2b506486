"""Charts as inline SVG. Colours are the page's variables, so a chart follows it into the dark and onto paper.

A series is told apart by its dashes too: a page may be printed grey.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 440, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 44
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, its ends, where it is ticked, and whether equal factors are equal distances."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one; a value beyond an end lies on it."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


SHARE = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Ticks of a share."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points joined by a line; `bars` are the ends of each point's interval, `weights` make its dot larger."""

    name: str
    points: Sequence[Point]
    bars: Sequence[Point] = ()
    weights: Sequence[float] = ()
    dots: bool = True


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series], *, diagonal: bool = False) -> str:
    """The chart, with a legend where there is more than one series. `diagonal`: what chance, or a true word, gives."""
    parts = [*_grid(x, y)]
    if diagonal:
        parts.append(_line([(x.low, y.low), (x.high, y.high)], x, y, "guide", "3 3"))
    for n, own in enumerate(series):
        parts.append(_drawn(own, n, x, y))
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>{_legend(series)}</figure>'
    )


def _drawn(own: Series, n: int, x: Axis, y: Axis) -> str:
    kind, largest = f"s{n % len(_DASHES)}", max(own.weights, default=1.0)
    parts = [_line(own.points, x, y, kind, _DASHES[n % len(_DASHES)])]
    for (at, _), (low, high) in zip(own.points, own.bars, strict=False):
        beside = _across(at, x) + 3 * n  # bars of several series at one place would hide each other
        parts.append(
            f'<line class="bar {kind}" x1="{beside:.1f}" y1="{_down(low, y):.1f}" x2="{beside:.1f}" '
            f'y2="{_down(high, y):.1f}"/>'
        )
    for k, (at, value) in enumerate(own.points if own.dots else ()):
        radius = 3 + 5 * math.sqrt(own.weights[k] / largest) if own.weights else 3
        told = escape(f"{own.name}: {at:g}, {value:g}" + (f"; n = {own.weights[k]:g}" if own.weights else ""))
        parts.append(
            f'<circle class="{kind}" cx="{_across(at, x):.1f}" cy="{_down(value, y):.1f}" r="{radius:.1f}">'
            f"<title>{told}</title></circle>"
        )
    return "".join(parts)


def _grid(x: Axis, y: Axis) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in x.ticks:
        at = _across(tick, x)
        parts.append(f'<line class="grid" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{_short(tick)}</text>')
    for tick in y.ticks:
        at = _down(tick, y)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_short(tick)}</text>')
    middle, centre = (_LEFT + right) / 2, (_TOP + bottom) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text x="14" y="{centre}" text-anchor="middle" transform="rotate(-90 14 {centre})">{escape(y.label)}</text>'
    )
    return parts


def _line(points: Sequence[Point], x: Axis, y: Axis, kind: str, dashes: str) -> str:
    if len(points) < 2:
        return ""
    places = " ".join(f"{_across(at, x):.1f},{_down(value, y):.1f}" for at, value in points)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline class="{kind}" points="{places}"{dashed}/>'


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    entries = []
    for n, own in enumerate(series):
        dashes = f' stroke-dasharray="{_DASHES[n % len(_DASHES)]}"' if n % len(_DASHES) else ""
        mark = f'<polyline class="s{n % len(_DASHES)}" points="0,5 26,5"{dashes}/>'
        entries.append(
            f'<li><svg viewBox="0 0 26 10" class="key" aria-hidden="true">{mark}</svg>{escape(own.name)}</li>'
        )
    return f'<ul class="legend">{"".join(entries)}</ul>'


def _across(value: float, axis: Axis) -> float:
    return _LEFT + axis.place(value) * (_WIDTH - _LEFT - _RIGHT)


def _down(value: float, axis: Axis) -> float:
    return _HEIGHT - _BOTTOM - axis.place(value) * (_HEIGHT - _TOP - _BOTTOM)


def _short(value: float) -> str:
    return {0.125: "1/8", 0.25: "1/4", 0.5: "1/2"}.get(value, f"{value:g}") if value < 1 else f"{value:g}"
