"""A source image in grey and what an analysis says of it, drawn over it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from medgem_node.errors import MedgemError
from medgem_node.finding import Analysis, Finding, Mask, Measurement
from medgem_node.geometry import is_projection, spacing_mm
from medgem_node.header import text_of
from medgem_node.pen import HEAT_FROM, PLAIN, RGB, Entry, Pen, colour_of_heat

NO_SCALE = "no scale: pixel spacing unknown"
_FINDING: RGB = (255, 214, 10)
_ABSENT: RGB = (150, 205, 150)
_LINES: tuple[RGB, ...] = ((255, 120, 220), (120, 230, 255), (190, 255, 120), (255, 190, 110))
_HEAT_OPACITY = 0.55
_SMALLEST, _LARGEST = 400, 2048  # pixels of a side: text needs some, and no picture is magnified beyond


@dataclass(frozen=True, slots=True)
class Scale:
    """How far apart the columns of an image are, and where that is true."""

    columns_mm: float
    is_at_detector: bool = False


def scale(original: Dataset, frame: int = 1) -> Scale | None:
    """The scale along a row; None if the spacing is unknown.

    In a radiograph that was not calibrated, distances are those at the detector (PS3.3 10.7.1.3).
    """
    spacing = spacing_mm(original, frame)
    if spacing is None:
        return None
    calibrated = text_of(original, "PixelSpacingCalibrationType") != "" and spacing_mm(_calibrated(original)) == spacing
    return Scale(spacing[1], is_projection(original) and "ImagerPixelSpacing" in original and not calibrated)


def _calibrated(original: Dataset) -> Dataset:
    only = Dataset()
    if "PixelSpacing" in original:
        only.PixelSpacing = original.PixelSpacing
    return only


def magnification(rows: int, columns: int) -> int:
    """How many times larger a picture of a small image is, so that words fit on it."""
    return max(1, min(math.ceil(_SMALLEST / min(rows, columns)), _LARGEST // max(rows, columns)))


def is_spoken_of(analysis: Analysis, uid: str, frame: int = 1) -> bool:
    """Whether the analysis says something of a frame that can be drawn or written on it."""
    if measurements(analysis, uid, frame) or any((f.image, f.frame) == (uid, frame) for f in analysis.findings):
        return True
    heats = (h.plane(uid, frame) for h in analysis.heatmaps)
    if any(h is not None and float(np.nan_to_num(h).max()) > HEAT_FROM for h in heats):
        return True
    planes = (m.plane(uid, frame) for m in analysis.masks)  # last: to unpack one takes longest
    return any(p is not None and p.any() for p in planes)


def overlay(
    image: NDArray[np.uint8],
    analysis: Analysis,
    uid: str,
    title: Sequence[str],
    frame: int = 1,
    scale: Scale | None = None,
) -> NDArray[np.uint8]:
    """The image with heatmap, outlines, boxes, lines, a scale, a legend, and the title burned in.

    (rows, columns, 3), or `magnification` times as many rows and columns.
    """
    times = magnification(*image.shape)
    canvas = Image.fromarray(image).convert("RGB")
    if times > 1:
        canvas = canvas.resize((canvas.width * times, canvas.height * times), Image.Resampling.NEAREST)
    for heatmap in analysis.heatmaps:
        if (values := heatmap.plane(uid, frame)) is not None:
            _heat(canvas, values)
    pen = Pen(canvas, times)
    of_mask: dict[str, RGB] = {}
    for mask in analysis.masks:
        if (pixels := _plane(mask, uid, frame, image.shape)) is not None and pixels.any():
            pen.edge(pixels, mask.colour_rgb)
            of_mask[mask.label] = mask.colour_rgb
    for finding in analysis.findings:
        if (finding.image, finding.frame) == (uid, frame) and finding.box is not None:
            pen.box(finding.box, _colour(finding), said(finding) if finding.present else "")
    colour_of = _coloured(m for m in measurements(analysis, uid, frame) if len(m.points) == 2)
    for line, colour in colour_of.items():
        above = line is min(colour_of, key=lambda m: m.points[0].y)
        pen.line(line.points, colour, _amount(line.value, line.unit.value), is_above=above)
    pen.write(title, [_bar(scale), *_legend(analysis, uid, frame, of_mask, colour_of)])
    return np.asarray(canvas)


def _plane(mask: Mask, uid: str, frame: int, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Raises MedgemError if it is not of its image's size: it would be drawn where it does not belong."""
    pixels = mask.plane(uid, frame)
    if pixels is not None and pixels.shape != shape:
        raise MedgemError(f"mask {mask.label} is {pixels.shape}, its image {shape} pixels")
    return pixels


def _bar(scale: Scale | None) -> Entry:
    if scale is None:
        return Entry(NO_SCALE)
    return Entry("at the detector" if scale.is_at_detector else "", bar_mm_per_column=scale.columns_mm)


def measurements(analysis: Analysis, uid: str, frame: int = 1) -> tuple[Measurement, ...]:
    """Every measurement on one frame, each once, those of findings first."""
    of_findings = (m for f in analysis.findings for m in f.measurements)
    every = (*of_findings, *analysis.measurements)
    return tuple(dict.fromkeys(m for m in every if (m.image, m.frame) == (uid, frame)))


def spoken(measurement: Measurement) -> str:
    """A measurement as a short text: `Cardiac width 142 mm`."""
    return f"{measurement.label} {_amount(measurement.value, measurement.unit.value)}"


def _amount(value: float, unit: str) -> str:
    if unit in ("1", "{ratio}"):  # a ratio, or a score such as Agatston's
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
    if unit == "mm2" and abs(value) >= 100:
        value, unit = value / 100, "cm2"
    if unit == "mm3" and abs(value) >= 1000:
        value, unit = value / 1000, "cm3"
    shown = f"{value:.0f}" if abs(value) >= 10 else f"{value:.1f}"
    return f"{shown}%" if unit == "%" else f"{shown} {unit.replace('{', '').replace('}', '')}"


def said(finding: Finding, *more: str) -> str:
    """A finding as a text that cannot be read as its opposite, also where a viewer cuts off its end."""
    percent = _percent(finding.probability) if finding.calibrated else ""
    if finding.present:
        return ", ".join((f"{finding.label} {percent}".strip(), *more))
    label = finding.label if finding.label[:2].isupper() else finding.label[:1].lower() + finding.label[1:]
    chance = [f"probability of {label} {percent}"] if percent else []
    return ", ".join((f"No {label} by AI", *more, *chance))


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f}%" if probability >= 0.005 or probability == 0 else "below 1%"


def doubt(analysis: Analysis) -> str:
    """What an analysis holds back, as a short text; empty if nothing."""
    return f"AI note: {analysis.detail}" if analysis.detail else ""


def _colour(finding: Finding) -> RGB:
    return _FINDING if finding.present else _ABSENT


def _heat(canvas: Image.Image, values: NDArray[np.float32]) -> None:
    """Lays the colours over the picture, more opaque where there is more; below `HEAT_FROM` nothing."""
    small = np.clip(np.nan_to_num(np.asarray(values, np.float32)), 0, 1)
    part = _glowing(small, canvas.size)
    if part is None:
        return
    left, top, right, bottom = part
    across, down = small.shape[1] / canvas.width, small.shape[0] / canvas.height
    heat = Image.fromarray(np.asarray(small * 255, np.uint8)).resize(
        (right - left, bottom - top),
        Image.Resampling.BICUBIC,
        (left * across, top * down, right * across, bottom * down),
    )
    levels = np.linspace(0, 1, 256, dtype=np.float32)
    opacity = _HEAT_OPACITY * np.clip((levels - HEAT_FROM) / (0.6 - HEAT_FROM), 0, 1)
    colours = heat.copy()
    colours.putpalette(colour_of_heat(levels).astype(np.uint8).tobytes())
    canvas.paste(colours.convert("RGB"), part, heat.point([round(255 * float(o)) for o in opacity]))


def _glowing(values: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of all that is drawn, on a canvas of `size`: most of a picture is not."""
    ys, xs = np.nonzero(values > HEAT_FROM)
    if not ys.size:
        return None
    around = 3  # cells that the bicubic kernel may spread a value to, and one more

    def span(of: NDArray[np.intp], cells: int, pixels: int) -> tuple[int, int]:
        first, last = max(0, int(of.min()) - around), min(cells, int(of.max()) + 1 + around)
        return math.floor(first * pixels / cells), math.ceil(last * pixels / cells)

    (left, right), (top, bottom) = span(xs, values.shape[1], size[0]), span(ys, values.shape[0], size[1])
    return left, top, right, bottom


def _coloured(lines: Iterable[Measurement]) -> dict[Measurement, RGB]:
    return {line: _LINES[k % len(_LINES)] for k, line in enumerate(lines)}


def _legend(
    analysis: Analysis, uid: str, frame: int, of_mask: Mapping[str, RGB], of_line: Mapping[Measurement, RGB]
) -> list[Entry]:
    """What is said of the frame, each in the colour it is drawn in; a measured segment is named once."""
    held_back = [Entry(doubt(analysis), _FINDING)] if analysis.detail else []
    found = [Entry(said(f), _colour(f)) for f in analysis.findings if (f.image, f.frame) == (uid, frame)]
    measured = measurements(analysis, uid, frame)
    sides = {m for f in analysis.findings if f.box for m in f.measurements if not (m.points or m.mask)}  # of its box
    numbers = [Entry(spoken(m), of_line.get(m) or of_mask.get(m.mask, PLAIN)) for m in measured if m not in sides]
    named = {m.mask for m in measured}
    unnamed = [Entry(label, colour) for label, colour in of_mask.items() if label not in named]
    heats = [h for h in analysis.heatmaps if h.plane(uid, frame) is not None]
    looked = [Entry(f"less to more: {h.meaning or h.label}", is_heat=True) for h in heats]
    return [*held_back, *found, *numbers, *unnamed, *looked]
