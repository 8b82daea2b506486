"""A source image as a radiologist sees it, and what an analysis says of it, drawn over it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_rescale

from medgem_node import frame
from medgem_node.finding import Analysis, Finding, Mask, Measurement
from medgem_node.outline import outlines

RGB = tuple[int, int, int]
_FINDING: RGB = (255, 214, 10)
_ABSENT: RGB = (150, 205, 150)
_PLAIN: RGB = (255, 255, 255)
_SCALE = " " * 16
_LINES: tuple[RGB, ...] = ((255, 120, 220), (120, 230, 255), (190, 255, 120), (255, 190, 110))
_HEAT = np.array([(60, 0, 90), (190, 30, 90), (250, 110, 30), (255, 235, 90)], np.float32)  # dark, red, orange, yellow
_HEAT_FROM, _HEAT_OPACITY = 0.2, 0.55


def grey(original: Dataset) -> NDArray[np.uint8]:
    """The frame as (rows, columns), 0 black to 255 white, by its own window or its 1st to 99th percentile.

    Raises Unreadable, NotApplicable.
    """
    with frame.coded("pixel-data", "the pixels cannot be decoded"):
        stored = frame.decoded(original)
    if stored.ndim == 3:
        stored = stored.mean(axis=-1)
    padding = _padding(original, stored)
    values = np.asarray(apply_rescale(stored, original), np.float32)
    low, high = _window(original, values[~padding] if not padding.all() else values)
    level = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    if original.get("PhotometricInterpretation") == "MONOCHROME1":
        level = 1 - level
    level[padding] = 0
    return np.asarray(np.rint(level * 255), np.uint8)


def _padding(original: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    first = original.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(stored.shape, bool)
    last = original.get("PixelPaddingRangeLimit")
    ends = sorted((first, last if isinstance(last, int) else first))
    return np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _window(original: Dataset, values: NDArray[np.float32]) -> tuple[float, float]:
    """The window's ends in the linear function of PS3.3 C.11.2.1.2; one that shows next to nothing is not believed."""
    low, high = (float(v) for v in np.percentile(values[:: max(1, values.size // 500_000)], (1, 99)))
    try:
        centre, width = _first(original.get("WindowCenter")), _first(original.get("WindowWidth"))
    except (TypeError, ValueError):
        return low, high
    start, end = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    shown = min(end, high) - max(start, low)
    return (start, end) if width > 1 and shown > 0.25 * (high - low) and shown > 0.1 * (end - start) else (low, high)


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, MultiValue) else value)  # type: ignore[arg-type]


def overlay(image: NDArray[np.uint8], analysis: Analysis, uid: str, title: Sequence[str]) -> NDArray[np.uint8]:
    """The image as (rows, columns, 3) with heatmap, outlines, boxes, lines, a legend, and the title burned in."""
    canvas = Image.fromarray(image).convert("RGB")
    for heatmap in analysis.heatmaps:
        if (values := heatmap.plane(uid)) is not None:
            _heat(canvas, values)
    pen = _Pen(canvas)
    for mask in analysis.masks:
        if uid in mask.images:
            pen.mask(mask, uid)
    for finding in analysis.findings:
        if finding.image == uid and finding.box is not None:
            pen.box(finding)
    colour_of = _coloured(m for m in measurements(analysis, uid) if len(m.points) == 2)
    for line, colour in colour_of.items():
        pen.line(line, colour, is_highest=line is min(colour_of, key=lambda m: m.points[0].y))
    pen.write(title, _legend(analysis, uid, colour_of))
    return np.asarray(canvas)


def measurements(analysis: Analysis, uid: str) -> tuple[Measurement, ...]:
    """Every measurement on one image, each once, those of findings first."""
    of_findings = (m for f in analysis.findings for m in f.measurements)
    return tuple(dict.fromkeys(m for m in (*of_findings, *analysis.measurements) if m.image == uid))


def spoken(measurement: Measurement) -> str:
    """A measurement as a short text: `Cardiac width 142 mm`."""
    return f"{measurement.label} {_amount(measurement.value, measurement.unit.value)}"


def _amount(value: float, unit: str) -> str:
    if unit in ("1", "{ratio}"):
        return f"{value:.2f}"
    if unit == "mm2" and abs(value) >= 100:
        value, unit = value / 100, "cm2"
    shown = f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}"
    return f"{shown}%" if unit == "%" else f"{shown} {unit.replace('{', '').replace('}', '')}"


def said(finding: Finding, *more: str) -> str:
    """A finding as a text that cannot be read as its opposite, also where a viewer cuts off its end."""
    percent = f"{100 * finding.probability:.0f}%"
    if finding.present:
        return ", ".join((f"{finding.label} {percent}", *more))
    label = finding.label if finding.label[:2].isupper() else finding.label[:1].lower() + finding.label[1:]
    return ", ".join((f"No {label} by AI", *more, f"probability of {label} {percent}"))


def doubt(analysis: Analysis) -> str:
    """What an analysis holds back, as a short text; empty if nothing."""
    return f"AI note: {analysis.detail}" if analysis.detail else ""


def _heat(canvas: Image.Image, values: NDArray[np.float32]) -> None:
    """Lays the colours over the picture, more opaque where there is more; below `_HEAT_FROM` nothing."""
    small = np.clip(np.nan_to_num(np.asarray(values, np.float32)), 0, 1) * 255
    heat = Image.fromarray(np.asarray(small, np.uint8)).resize(canvas.size, Image.Resampling.BICUBIC)
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    opacity = _HEAT_OPACITY * np.clip((levels - _HEAT_FROM) / (0.6 - _HEAT_FROM), 0, 1)
    colours = heat.copy()
    colours.putpalette(_colour_of_heat(levels).astype(np.uint8).tobytes())
    canvas.paste(colours.convert("RGB"), mask=heat.point([round(255 * float(o)) for o in opacity]))


def _colour_of_heat(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    stops = np.linspace(_HEAT_FROM, 1, len(_HEAT))
    return np.stack([np.interp(heat, stops, _HEAT[:, k]) for k in range(3)], axis=-1).astype(np.float32)


def _coloured(lines: Iterable[Measurement]) -> dict[Measurement, RGB]:
    return {line: _LINES[k % len(_LINES)] for k, line in enumerate(lines)}


def _legend(analysis: Analysis, uid: str, colour_of: Mapping[Measurement, RGB]) -> list[tuple[str, RGB]]:
    """What is said of the image, each in the colour it is drawn in; a measured segment is named once."""
    of_mask = {m.label: m.colour_rgb for m in analysis.masks if uid in m.images}
    held_back = [(doubt(analysis), _FINDING)] if analysis.detail else []
    found = [(said(f), _FINDING if f.present else _ABSENT) for f in analysis.findings if f.image == uid]
    measured = measurements(analysis, uid)
    numbers = [(spoken(m), colour_of.get(m) or of_mask.get(m.mask, _PLAIN)) for m in measured]
    named = {m.mask for m in measured}
    return [
        *held_back,
        *found,
        *numbers,
        *((label, colour) for label, colour in of_mask.items() if label not in named),
    ] + [(f"{_SCALE}less to more: {h.meaning or h.label}", _PLAIN) for h in analysis.heatmaps if uid in h.images]


class _Pen:
    """Draws over a picture, in strokes and letters of a size that suits it."""

    def __init__(self, canvas: Image.Image) -> None:
        self.columns, self.rows = canvas.size
        self.draw = ImageDraw.Draw(canvas, "RGBA")
        self.width = max(1, round(min(canvas.size) / 450))
        self._resize(max(9, round(min(self.columns, self.rows * 1.2) / 48)))

    def _resize(self, points: int) -> None:
        self.points, self.font = points, ImageFont.load_default(points)
        self.step = round(1.3 * self.font.getbbox("Ag")[3])

    def mask(self, mask: Mask, uid: str) -> None:
        """Its outline."""
        pixels = mask.plane(uid)
        for polygon in outlines(pixels) if pixels is not None else ():
            points = [(float(x), float(y)) for x, y in polygon]
            self.draw.line(points, fill=(*mask.colour_rgb, 230), width=self.width, joint="curve")

    def box(self, finding: Finding) -> None:
        """Where a finding is, and its name if it is there; a region where it is absent stays without a name."""
        assert finding.box is not None
        x0, y0, _, _ = finding.box.xyxy
        colour = _FINDING if finding.present else _ABSENT
        self.draw.rectangle(finding.box.xyxy, outline=(*colour, 255), width=self.width)
        if finding.present:
            self._label((x0, y0 - self.width), said(finding), colour, "ls")

    def line(self, line: Measurement, colour: RGB, *, is_highest: bool) -> None:
        """A distance between two bars, with its value above or below."""
        (x0, y0), (x1, y1) = ((p.x, p.y) for p in line.points)
        length = max(1e-6, float(np.hypot(x1 - x0, y1 - y0)))
        dx, dy = 5 * self.width * (y1 - y0) / length, 5 * self.width * (x1 - x0) / length
        bars = (((x - dx, y + dy), (x + dx, y - dy)) for x, y in ((x0, y0), (x1, y1)))
        for ends in (((x0, y0), (x1, y1)), *bars):
            self.draw.line(ends, fill=(0, 0, 0, 160), width=self.width + 2)  # a dark rim keeps it visible on bone
            self.draw.line(ends, fill=(*colour, 255), width=self.width)
        y, anchor = (min(y0, y1) - 2 * self.width, "ls") if is_highest else (max(y0, y1) + 2 * self.width, "la")
        self._label((min(x0, x1) + self.step / 2, y), _amount(line.value, line.unit.value), colour, anchor)

    def _label(self, at: tuple[float, float], text: str, colour: RGB, anchor: str) -> None:
        rim = max(1, self.width)
        self.draw.text(at, text, (*colour, 255), self.font, anchor, stroke_width=rim, stroke_fill=(0, 0, 0, 220))

    def write(self, title: Sequence[str], legend: Sequence[tuple[str, RGB]]) -> None:
        """The title at the top, the legend along the bottom; what is too wide is broken, never cut off."""
        while self.points > 6 and self.step * (1 + sum(len(self._broken(text)) for text in title)) > self.rows:
            self._resize(self.points - 1)
        heading = [[(line, _PLAIN)] for text in title for line in self._broken(text)]
        self._panel(0, heading)
        rows = self._flowed([(line, colour) for text, colour in legend for line in self._broken(text)])
        free = int(self.rows / self.step) - len(heading) - 2  # a small image keeps its title, then what fits
        if rows := rows[: max(0, free // 2)]:
            self._panel(self.rows - self.step * len(rows) - self.step // 2, rows)

    def _panel(self, y: int, rows: Sequence[Sequence[tuple[str, RGB]]]) -> None:
        self.draw.rectangle((0, y, self.columns, y + self.step * len(rows) + self.step // 2), fill=(0, 0, 0, 175))
        for k, items in enumerate(rows):
            x, top = self.step / 2, y + self.step / 4 + k * self.step
            for text, colour in items:
                if text.startswith(_SCALE):
                    self._scale(x, top)
                self.draw.text((x, top), text, (*colour, 255), self.font)
                x += self._width(text) + self.step

    def _scale(self, x: float, y: float) -> None:
        """The heatmap's colours from less to more, behind the blanks that the text begins with."""
        width = self._width(_SCALE) - self.step / 3
        steps = np.linspace(_HEAT_FROM, 1, 24, dtype=np.float32)
        for k, colour in enumerate(_colour_of_heat(steps)):
            left, right = x + width * k / len(steps), x + width * (k + 1) / len(steps)
            red, green, blue = (int(part) for part in colour)
            self.draw.rectangle((left, y + self.step / 5, right, y + self.step * 0.75), fill=(red, green, blue, 255))

    def _width(self, text: str) -> float:
        return self.font.getlength(text)

    def _broken(self, text: str) -> list[str]:
        """The text in lines that fit; the blanks of the scale stay with the word that follows."""
        lines: list[str] = []
        for word in re.findall(r"\s*\S+", text):
            if lines and self._width(lines[-1] + word) <= self.columns - self.step:
                lines[-1] += word
            else:
                lines.append(word if not lines else word.strip())
        return lines

    def _flowed(self, items: Sequence[tuple[str, RGB]]) -> list[list[tuple[str, RGB]]]:
        rows: list[list[tuple[str, RGB]]] = []
        x = 0.0
        for text, colour in items:
            needed = self._width(text) + self.step
            if not rows or x + needed > self.columns:
                rows.append([])
                x = 0.0
            rows[-1].append((text, colour))
            x += needed
        return rows
