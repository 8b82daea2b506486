"""A source image as a radiologist sees it, and what an analysis says of it, drawn over it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_rescale
from pydicom.pixels.utils import pixel_array

from medgem_node.errors import Unreadable
from medgem_node.finding import Analysis, Box, Finding, Mask, Measurement
from medgem_node.outline import outlines

RGB = tuple[int, int, int]
_FINDING, _ABSENT, _LINE = (255, 214, 10), (150, 205, 150), (255, 255, 255)
_LINES: tuple[RGB, ...] = ((255, 120, 220), (120, 230, 255), (190, 255, 120), (255, 190, 110))
_HEAT = np.array([(60, 0, 90), (190, 30, 90), (250, 110, 30), (255, 235, 90)], np.float32)  # dark, red, orange, yellow
_HEAT_FROM, _HEAT_OPACITY = 0.2, 0.55


def grey(original: Dataset) -> NDArray[np.uint8]:
    """The first frame as (rows, columns), 0 black to 255 white, by its own window or its 1st to 99th percentile.

    Raises Unreadable.
    """
    try:
        stored = pixel_array(original, index=0)
    except Exception as exc:  # decoders raise whatever they like
        raise Unreadable("pixels", f"the pixels cannot be decoded: {type(exc).__name__}") from exc
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
    rows, columns = image.shape
    rgb = image[..., None].repeat(3, axis=-1).astype(np.float32)
    for heatmap in analysis.heatmaps:
        if uid in heatmap.images:
            rgb = _heated(rgb, heatmap.values[heatmap.images.index(uid)])
    canvas = Image.fromarray(np.asarray(rgb.clip(0, 255), np.uint8))
    draw = ImageDraw.Draw(canvas, "RGBA")
    width = max(1, round(min(rows, columns) / 450))
    for mask in analysis.masks:
        if uid in mask.images:
            _draw_mask(draw, mask, uid, width)
    for finding in analysis.findings:
        if finding.image == uid and finding.box is not None:
            _draw_box(draw, finding.box, _FINDING if finding.present else _ABSENT, width)
    lines = [m for m in measurements(analysis, uid) if len(m.points) == 2]
    for colour, line in zip(_colours(), lines, strict=False):
        _draw_line(draw, line, colour, width)
    _write(draw, canvas.size, title, _legend(analysis, uid, lines))
    return np.asarray(canvas)


def measurements(analysis: Analysis, uid: str) -> tuple[Measurement, ...]:
    """Every measurement on one image, each once, those of findings first."""
    of_findings = (m for f in analysis.findings for m in f.measurements)
    return tuple(dict.fromkeys(m for m in (*of_findings, *analysis.measurements) if m.image == uid))


def spoken(measurement: Measurement) -> str:
    """A measurement as a short text: `Cardiac width 142 mm`."""
    value, unit = measurement.value, measurement.unit.value
    if unit in ("1", "{ratio}"):
        return f"{measurement.label} {value:.2f}"
    shown = f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}"
    return f"{measurement.label} {shown} {unit.strip('{}')}" if unit != "%" else f"{measurement.label} {shown}%"


def said(finding: Finding) -> str:
    """A finding as a short text that cannot be read as its opposite."""
    percent = f"{100 * finding.probability:.0f}%"
    if finding.present:
        return f"{finding.label} {percent}"
    return f"No {_lower(finding.label)} by AI (probability of {_lower(finding.label)} {percent})"


def _lower(label: str) -> str:
    return label if label[:2].isupper() else label[:1].lower() + label[1:]


def _heated(rgb: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    rows, columns = rgb.shape[:2]
    plain = Image.fromarray(np.nan_to_num(np.asarray(values, np.float32)), mode="F")
    heat = np.clip(np.asarray(plain.resize((columns, rows), Image.Resampling.BICUBIC)), 0, 1)
    opacity = _HEAT_OPACITY * np.clip((heat - _HEAT_FROM) / (0.6 - _HEAT_FROM), 0, 1)[..., None]
    return np.asarray(rgb * (1 - opacity) + _colour_of_heat(heat) * opacity, np.float32)


def _colour_of_heat(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    stops = np.linspace(_HEAT_FROM, 1, len(_HEAT))
    return np.stack([np.interp(heat, stops, _HEAT[:, k]) for k in range(3)], axis=-1).astype(np.float32)


def _colours() -> Iterable[RGB]:
    return (*_LINES, *[_LINE] * 64)


def _draw_mask(draw: ImageDraw.ImageDraw, mask: Mask, uid: str, width: int) -> None:
    for polygon in outlines(mask.pixels[mask.images.index(uid)]):
        draw.line([(float(x), float(y)) for x, y in polygon], fill=(*mask.colour_rgb, 230), width=width, joint="curve")


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, colour: RGB, width: int) -> None:
    draw.rectangle(box.xyxy, outline=(*colour, 255), width=width)


def _draw_line(draw: ImageDraw.ImageDraw, line: Measurement, colour: RGB, width: int) -> None:
    (x0, y0), (x1, y1) = ((p.x, p.y) for p in line.points)
    length = max(1e-6, float(np.hypot(x1 - x0, y1 - y0)))
    across, along = 5 * width * (y1 - y0) / length, 5 * width * (x1 - x0) / length
    for ends in (
        ((x0, y0), (x1, y1)),
        *(((x - across, y + along), (x + across, y - along)) for x, y in ((x0, y0), (x1, y1))),
    ):
        draw.line(ends, fill=(0, 0, 0, 200), width=width + 2)  # a dark rim keeps it visible on bone
        draw.line(ends, fill=(*colour, 255), width=width)


def _legend(analysis: Analysis, uid: str, lines: Sequence[Measurement]) -> list[tuple[str, RGB]]:
    found = [(said(f), _FINDING if f.present else _ABSENT) for f in analysis.findings if f.image == uid]
    colour_of = dict(zip(lines, _colours(), strict=False))
    measured = [(spoken(m), colour_of.get(m, _LINE)) for m in measurements(analysis, uid)]
    masks = [(f"{m.label} (outline)", m.colour_rgb) for m in analysis.masks if uid in m.images]
    heat = [
        (f"Colour: {h.meaning or h.label}, dark = less, yellow = more", (250, 150, 60))
        for h in analysis.heatmaps
        if uid in h.images
    ]
    return [*found, *measured, *masks, *heat]


def _write(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], title: Sequence[str], legend: Sequence[tuple[str, RGB]]
) -> None:
    """The title at the top, the legend at the bottom left; a text that is too wide is broken, never cut off."""
    columns, rows = size
    font = ImageFont.load_default(max(9, round(min(columns, rows * 1.2) / 46)))
    step = _height(font)
    room = columns - step
    heading = [line for text in title for line in _broken(text, font, room)]
    _panel(draw, (0, 0), [(line, (255, 255, 255)) for line in heading], font, columns)
    space = max(0, int((rows - step * len(heading)) / step) - 2)  # small images keep the title, then what fits
    lines = [(line, colour) for text, colour in legend for line in _broken(text, font, room)][: max(0, space // 2)]
    if lines:
        _panel(draw, (0, rows - step * len(lines) - step // 2), lines, font, None)


def _panel(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    lines: Sequence[tuple[str, RGB]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int | None,
) -> None:
    step = _height(font)
    needed = max(round(draw.textlength(text, font=font)) for text, _ in lines) + step
    x, y = at
    draw.rectangle((x, y, x + (width or needed), y + step * len(lines) + step // 2), fill=(0, 0, 0, 170))
    for k, (text, colour) in enumerate(lines):
        draw.text((x + step // 2, y + step // 4 + k * step), text, font=font, fill=(*colour, 255))


def _height(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return round(1.25 * (font.getbbox("Ag")[3]))


def _broken(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
