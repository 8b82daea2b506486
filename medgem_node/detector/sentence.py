"""A finding in one sentence, made of nothing but what was measured: what, where, how large, how sure.

Parts that were not measured are left out, and nothing is concluded from them. Sizes are those of the box that the
network drew, at the detector: a film enlarges what lies far from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from medgem_node.finding import Box, Code, Finding, Measurement

THIRDS = ("upper", "middle", "lower")
_MM, _PIXELS = Code("mm", "UCUM", "mm"), Code("{pixels}", "UCUM", "pixels")
_RATIO = "{ratio}"
Lungs = Mapping[str, NDArray[np.bool_]]
Spacing = tuple[float, float]


def explained(finding: Finding, lungs: Lungs, spacing_mm: Spacing | None) -> Finding:
    """The finding with its sentence and, of a box that is no mask's, its width and height as measurements.

    Parameters
    ----------
    lungs
        The masks `right-lung` and `left-lung`, in the image's own rows and columns.
    spacing_mm
        (between rows, between columns); None: sizes are in pixels.
    """
    third = _third(finding, lungs)
    sized = (*finding.measurements, *_sizes(finding, spacing_mm)) if finding.present else finding.measurements
    return replace(finding, measurements=sized, explanation=sentence(finding, spacing_mm, third))


def sentence(finding: Finding, spacing_mm: Spacing | None, third: str = "") -> str:
    """`Nodule or mass, middle third of the right lung, about 14 x 12 mm (not corrected for magnification), ...`.

    Empty for what was looked for and not found: there is nothing to explain. `third`: one of THIRDS, or "".
    """
    if not finding.present:
        return ""
    parts = [
        finding.label,
        _place(finding, third),
        _size(finding, spacing_mm),
        *(_amount(m) for m in finding.measurements if m.unit.value == _RATIO),
        f"{'probability' if finding.calibrated else 'score'} {_chance(finding.probability)}",
        f"tier {finding.tier}" if finding.tier else "",
    ]
    return ", ".join(filter(None, parts))


def _chance(probability: float) -> str:
    return f"{probability:.2f}" if probability >= 0.1 else f"{probability:.3f}"


def third_of(box: Box, lung: NDArray[np.bool_]) -> str:
    """In which third of a lung's height the box's centre lies; "" where it lies above or below what is seen of it."""
    rows = np.flatnonzero(lung.any(axis=1))
    if not rows.size:
        return ""
    top, bottom = float(rows[0]), float(rows[-1] + 1)
    part = ((box.y0 + box.y1) / 2 - top) / (bottom - top)
    return THIRDS[min(int(part * 3), 2)] if 0 <= part <= 1 else ""


def _third(finding: Finding, lungs: Lungs) -> str:
    side = finding.laterality.meaning.lower() if finding.laterality else ""
    lung = lungs.get(f"{side}-lung")
    return "" if finding.box is None or finding.mask or lung is None else third_of(finding.box, lung)


def _place(finding: Finding, third: str) -> str:
    """`right lung`, `upper third of the right lung`."""
    if finding.site is None:
        return ""
    words = [w.meaning.lower() for w in (finding.laterality, finding.site) if w is not None]
    return " ".join([f"{third} third of the", *words] if third else words)


def _size(finding: Finding, spacing_mm: Spacing | None) -> str:
    if not (sizes := _sizes(finding, spacing_mm)):
        return ""
    long, short = sorted((max(1, round(m.value)) for m in sizes), reverse=True)
    unit = "mm (not corrected for magnification)" if spacing_mm else "pixels"
    return f"about {long} x {short} {unit}"


def _sizes(finding: Finding, spacing_mm: Spacing | None) -> tuple[Measurement, ...]:
    """Width and height of a mark; a mask has measurements of its own."""
    if finding.box is None or finding.mask:
        return ()
    down, across = spacing_mm or (1.0, 1.0)
    box, unit = finding.box, _MM if spacing_mm else _PIXELS
    sides = ((codes.SCT.Width, (box.x1 - box.x0) * across), (codes.DCM.Height, (box.y1 - box.y0) * down))
    return tuple(
        Measurement(
            code=Code(name.value, name.scheme_designator, name.meaning),
            value=float(value),
            unit=unit,
            label=f"{finding.label} {name.meaning.lower()}",
            image=finding.image,
            method="side of the box around it, not corrected for magnification",
            frame=finding.frame,
        )
        for name, value in sides
    )


def _amount(measurement: Measurement) -> str:
    return f"{measurement.label[:1].lower()}{measurement.label[1:]} {measurement.value:.2f}"
