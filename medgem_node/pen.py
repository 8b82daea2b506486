"""Strokes and letters over a picture, of a size that suits it.

Positions are image coordinates of PS3.3 C.18.6, (0.0, 0.0) the corner of the image. Every stroke is an even number of
pixels wide, half of them on each side of where it is said to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medgem_node.finding import Box, Point

RGB = tuple[int, int, int]
PLAIN: RGB = (255, 255, 255)
HEAT_FROM = 0.2
_HEAT = np.array([(60, 0, 90), (190, 30, 90), (250, 110, 30), (255, 235, 90)], np.float32)  # dark, red, orange, yellow
_LENGTHS_MM = [m * 10.0**e for e in range(-3, 4) for m in (1, 2, 5)]
_MORE = "... and more, in the report"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing of the legend: a text in its colour, behind the heatmap's colours or a bar of a known length."""

    text: str
    colour: RGB = PLAIN
    is_heat: bool = False
    bar_mm_per_column: float = 0.0


def colour_of_heat(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 3) of the heatmap's values."""
    stops = np.linspace(HEAT_FROM, 1, len(_HEAT))
    return np.stack([np.interp(heat, stops, _HEAT[:, k]) for k in range(3)], axis=-1).astype(np.float32)


class Pen:
    """Draws over a picture that shows each pixel of its image `times` times as large."""

    def __init__(self, canvas: Image.Image, times: int = 1) -> None:
        self.canvas, self.times = canvas, times
        self.columns, self.rows = canvas.size
        self.draw = ImageDraw.Draw(canvas, "RGBA")
        self.half = max(1, round(min(canvas.size) / 900))
        side = math.sqrt(self.columns * self.rows)
        self._resize(round(min(max(12.0, side / 48), self.columns / 18, self.rows / 12)))

    def _resize(self, points: int) -> None:
        self.points, self.font = points, ImageFont.load_default(points)
        self.step = round(1.3 * self.font.getbbox("Ag")[3])

    def edge(self, pixels: NDArray[np.bool_], colour: RGB) -> None:
        """A stroke along the edges of a mask, holes too."""
        ys, xs = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        if not ys.size:
            return
        top, left, half = int(ys[0]), int(xs[0]), self.half
        part = pixels[top : ys[-1] + 1, left : xs[-1] + 1]
        if self.times > 1:
            part = part.repeat(self.times, 0).repeat(self.times, 1)
        band = Image.fromarray(_band(part, half))
        self.canvas.paste(colour, (left * self.times - half, top * self.times - half), band)

    def box(self, box: Box, colour: RGB, text: str) -> None:
        """Where a finding is, and its name; a region without a name stays without."""
        x0, y0, x1, y1 = (round(v * self.times) for v in box.xyxy)
        corners = (x0 - self.half, y0 - self.half, x1 + self.half - 1, y1 + self.half - 1)
        if corners[2] > corners[0] and corners[3] > corners[1]:
            self.draw.rectangle(corners, outline=(*colour, 255), width=2 * self.half)
        if text:
            self._label((x0, y0 - 2 * self.half), text, colour, "ls")

    def line(self, points: Sequence[Point], colour: RGB, text: str, *, is_above: bool) -> None:
        """A distance between two bars, with its value above or below."""
        width = 2 * self.half
        (x0, y0), (x1, y1) = ((p.x * self.times - 0.5, p.y * self.times - 0.5) for p in points)  # pixels' centres
        length = max(1e-6, math.hypot(x1 - x0, y1 - y0))
        dx, dy = 5 * width * (y1 - y0) / length, 5 * width * (x1 - x0) / length
        bars = (((x - dx, y + dy), (x + dx, y - dy)) for x, y in ((x0, y0), (x1, y1)))
        for ends in (((x0, y0), (x1, y1)), *bars):
            self.draw.line(ends, fill=(0, 0, 0, 160), width=width + 2)  # a dark rim keeps it visible on bone
            self.draw.line(ends, fill=(*colour, 255), width=width)
        y, anchor = (min(y0, y1) - 2 * width, "ls") if is_above else (max(y0, y1) + 2 * width, "la")
        self._label((min(x0, x1) + self.step / 2, y), text, colour, anchor)

    def _label(self, at: tuple[float, float], text: str, colour: RGB, anchor: str) -> None:
        rim = max(1, self.half)
        x = max(rim, min(at[0], self.columns - self._width(text) - rim))
        y = max(self.points + rim, at[1]) if anchor == "ls" else min(self.rows - self.step, at[1])
        self.draw.text((x, y), text, (*colour, 255), self.font, anchor, stroke_width=rim, stroke_fill=(0, 0, 0, 220))

    def write(self, title: Sequence[str], legend: Sequence[Entry]) -> None:
        """The title at the top, the legend along the bottom; what is too wide is broken, never cut off."""
        while self.points > 6 and self.step * (1 + sum(len(self._broken(text)) for text in title)) > self.rows / 2:
            self._resize(self.points - 1)
        heading = [[Entry(line)] for text in title for line in self._broken(text)]
        self._panel(0, heading)
        rows = self._flowed([part for entry in legend for part in self._parts(entry)])
        room = max(1, (int(self.rows / self.step) - len(heading) - 2) // 2)  # the picture keeps half of the rest
        if len(rows) > room:
            rows = [*rows[: room - 1], [Entry(_MORE)]]
        self._panel(self.rows - self.step * len(rows) - self.step // 2, rows)

    def _panel(self, y: int, rows: Sequence[Sequence[Entry]]) -> None:
        self.draw.rectangle((0, y, self.columns, y + self.step * len(rows) + self.step // 2), fill=(0, 0, 0, 175))
        for k, entries in enumerate(rows):
            x, top = self.step / 2, y + self.step / 4 + k * self.step
            for entry in entries:
                text, sample = self._sampled(entry)
                if entry.is_heat:
                    self._heat(x, top, sample)
                elif sample:
                    self._bar(round(x), round(top), round(sample))
                self.draw.text(
                    (x + sample + (self.step / 3 if sample else 0), top), text, (*entry.colour, 255), self.font
                )
                x += self._needed(entry)

    def _sampled(self, entry: Entry) -> tuple[str, float]:
        """What is written, and how wide the sample before it is."""
        if entry.is_heat:
            return entry.text, 4.0 * self.points
        if not entry.bar_mm_per_column:
            return entry.text, 0.0
        column_mm = entry.bar_mm_per_column / self.times
        fits = [mm for mm in _LENGTHS_MM if mm / column_mm <= self.columns / 4]
        length_mm = fits[-1] if fits else _LENGTHS_MM[0]
        return f"{length_mm:g} mm {entry.text}".strip(), length_mm / column_mm

    def _heat(self, x: float, y: float, width: float) -> None:
        """The heatmap's colours from less to more."""
        steps = np.linspace(HEAT_FROM, 1, 24, dtype=np.float32)
        for k, colour in enumerate(colour_of_heat(steps)):
            left, right = x + width * k / len(steps), x + width * (k + 1) / len(steps)
            red, green, blue = (int(part) for part in colour)
            self.draw.rectangle((left, y + self.step / 5, right, y + self.step * 0.75), fill=(red, green, blue, 255))

    def _bar(self, x: int, y: int, width: int) -> None:
        """`width` pixels from end to end, between two ticks."""
        middle, tall, thick = y + self.step // 2, self.step // 4, 2 * self.half
        self.draw.rectangle((x, middle - self.half, x + width - 1, middle + self.half - 1), fill=(*PLAIN, 255))
        for left in (x, x + width - thick):
            self.draw.rectangle((left, middle - tall, left + thick - 1, middle + tall), fill=(*PLAIN, 255))

    def _width(self, text: str) -> float:
        return self.font.getlength(text)

    def _needed(self, entry: Entry) -> float:
        text, sample = self._sampled(entry)
        return self._width(text) + sample + self.step + (self.step / 3 if sample else 0)

    def _parts(self, entry: Entry) -> list[Entry]:
        """The entry in as many lines as it needs; a sample stands before the first."""
        if entry.bar_mm_per_column:
            return [entry]
        before = self._sampled(entry)[1] + self.step / 3 if entry.is_heat else 0.0
        first, *rest = self._broken(entry.text, before)
        return [Entry(first, entry.colour, entry.is_heat), *(Entry(line, entry.colour) for line in rest)]

    def _broken(self, text: str, before: float = 0.0) -> list[str]:
        """The text in lines that fit, the first with `before` pixels less."""
        lines: list[str] = []
        for word in text.split() or [""]:
            free = self.columns - self.step - (before if len(lines) == 1 else 0)
            if lines and self._width(f"{lines[-1]} {word}") <= free:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        return lines

    def _flowed(self, entries: Sequence[Entry]) -> list[list[Entry]]:
        rows: list[list[Entry]] = []
        x = 0.0
        for entry in entries:
            needed = self._needed(entry)
            if not rows or x + needed > self.columns:
                rows.append([])
                x = 0.0
            rows[-1].append(entry)
            x += needed
        return rows


def _band(pixels: NDArray[np.bool_], half: int) -> NDArray[np.bool_]:
    """Of a mask, all pixels that touch or lie within `half` pixels of one of its edges; `half` wider on each side.

    An edge runs between pixels, so the band has as many pixels inside of it as outside.
    """
    wide = np.pad(pixels, half)
    across, down = wide[:, 1:] != wide[:, :-1], wide[1:, 1:] != wide[:-1, 1:]
    corners = across[1:] | across[:-1] | down  # of pixels, that an edge runs through
    ys, xs = np.divmod(np.flatnonzero(corners), corners.shape[1])
    band = np.zeros(wide.shape, bool)
    for dy in range(1 - half, half + 1):
        for dx in range(1 - half, half + 1):
            band[ys + dy, xs + dx] = True
    return band
