"""From the network's outputs to words: masks, measurements and the finding, or a reason why not.

Python numbers only leave this file. Every number that decides something comes from the manifest: `[gate]` says what a
chest must look like, `[[masks]]`, `[[measurements]]` and `[[findings]]` what the outputs are called.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgem_node.card import ModelCard, code
from medgem_node.detector import heatmap, marks, measure, sentence
from medgem_node.detector.confidence import is_calibrated, tier
from medgem_node.detector.labels import for_research
from medgem_node.detector.measure import ChestLines
from medgem_node.detector.network import Outputs
from medgem_node.detector.preprocess import Letterbox
from medgem_node.errors import NotApplicable
from medgem_node.finding import Analysis, Finding, Mask, Measurement, Point

Maps = NDArray[np.float32]
Pixels = NDArray[np.bool_]
Spacing = tuple[float, float]
_CANDIDATE = 0.001


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One image's outputs as probabilities, with the class that the gate chose."""

    masks: Maps  # (masks, H, W)
    points: Maps  # (points, H/4, W/4)
    classes: Mapping[str, float]


def decode(
    outputs: Outputs,
    letterbox: Letterbox,
    image_uid: str,
    rows: int,
    columns: int,
    spacing_mm: Spacing | None,
    card: ModelCard,
) -> Analysis:
    """All that the outputs of one image say, in the geometry of the image.

    Parameters
    ----------
    outputs
        Of a batch of one.
    spacing_mm
        (between rows, between columns); None or not above zero: widths and areas come in pixels.

    Raises
    ------
    NotApplicable
        `rotated`, `upside-down`, `mirrored`, `inverted-polarity`, `not-a-frontal-chest`, `implausible-anatomy`.
    """
    reading = read(outputs, card)
    admit(reading, card)
    network_masks = {name: _one_part(p) for name, p in zip(card.network["masks"], reading.masks, strict=True)}
    check_anatomy(reading, letterbox, card)
    pixels = {name: letterbox.mask(p) for name, p in network_masks.items()}
    masks = tuple(_mask(fields, pixels, image_uid) for fields in card.masks)
    lines = measure.chest_lines(pixels["right-lung"], pixels["left-lung"], pixels["heart"])
    doubt = doubt_of(lines, points_in_image(reading.points, letterbox), (rows, columns), card)
    sure = None if doubt else lines
    measurements = _measurements(sure, masks, image_uid, _calibrated(spacing_mm), card)
    boxes = marks.candidates(outputs, letterbox, pixels, image_uid, card)
    whole = _findings(sure, masks, measurements, image_uid, card)
    answers = (*whole, *marks.reported(boxes, image_uid, card))
    findings = tuple(sentence.explained(answer, pixels, _calibrated(spacing_mm)) for answer in answers)
    return Analysis(
        model=card.name,
        version=card.version,
        detail=doubt,
        images=(image_uid,),
        findings=findings,
        candidates=tuple(f for f in (*whole, *boxes) if f.probability >= _CANDIDATE),
        measurements=measurements,
        masks=masks,
        heatmaps=(heatmap.chosen(outputs, letterbox, image_uid, card),),
        parameters={
            "frontal probability": f"{reading.classes[card.network['classes'][0]]:.3f}",
            **for_research(outputs, card),
        },
    )


def read(outputs: Outputs, card: ModelCard) -> Reading:
    """The first image's outputs as probabilities."""
    chances = outputs.gate[0].float().softmax(dim=0).tolist()
    return Reading(
        masks=outputs.masks[0].float().sigmoid().cpu().numpy(),
        points=outputs.points[0].float().sigmoid().cpu().numpy(),
        classes=dict(zip(card.network["classes"], chances, strict=True)),
    )


def admit(reading: Reading, card: ModelCard) -> None:
    """Returns if the picture looks like an upright frontal chest. Raises NotApplicable."""
    frontal, *others = card.network["classes"]
    if reading.classes[frontal] >= card.gate["frontal_at_least"]:
        return
    seen = max(others, key=lambda name: reading.classes[name])
    reason = {"other": "not-a-frontal-chest", "inverted": "inverted-polarity"}.get(seen, seen)
    raise NotApplicable(reason, card.gate["refusals"][seen])


def check_anatomy(reading: Reading, letterbox: Letterbox, card: ModelCard) -> None:
    """Returns if the masks can be those of a frontal chest. Raises NotApplicable."""
    gate = card.gate
    right, left, heart = (measure.largest_part(p > 0.5) for p in reading.masks)
    image = letterbox.rows * letterbox.columns * letterbox.scale**2
    right_area, left_area, heart_area = (measure.area(m) for m in (right, left, heart))
    low, high = gate["lung_area"]
    if not all(low <= lung / image <= high for lung in (right_area, left_area)):
        raise NotApplicable("implausible-anatomy", "a lung was not found, or has no plausible size")
    if max(right_area, left_area) > gate["lungs_ratio_at_most"] * min(right_area, left_area):
        raise NotApplicable("implausible-anatomy", "the lungs differ too much in size")
    low, high = gate["heart_area"]
    if not low <= heart_area / (right_area + left_area) <= high:
        raise NotApplicable("implausible-anatomy", "the heart was not found, or has no plausible size")
    if not _centre(right) < _centre(heart) < _centre(left):
        raise NotApplicable("implausible-anatomy", "heart and lungs do not lie in the order of a frontal view")
    if (right_area + left_area + heart_area) / (reading.masks > 0.5).sum() < gate["largest_part_at_least"]:
        raise NotApplicable("implausible-anatomy", "lungs and heart fall into many parts")
    if certainty(reading.masks) < gate["certain_at_least"]:
        raise NotApplicable("implausible-anatomy", "lungs and heart cannot be told from their surroundings")
    if max(cut_off(right | left, letterbox)) > gate.get("cut_at_most", 1.0):
        raise NotApplicable("implausible-anatomy", "the lungs are cut off by the image's upper or lower edge")


def certainty(masks: Maps) -> float:
    """The mean probability of what is marked, in the least certain mask."""
    return min(float(p[p > 0.5].mean()) if (p > 0.5).any() else 0.0 for p in masks)


def cut_off(lungs: Pixels, letterbox: Letterbox) -> tuple[float, float]:
    """How wide the lungs are in the image's first and in its last hundredth of rows, by their greatest width."""
    widths = (heatmap.over_image(lungs.astype(np.float32), letterbox) > 0.5).sum(axis=1)
    edge = max(1, len(widths) // 100)
    widest = max(int(widths.max()), 1)
    return float(widths[:edge].max()) / widest, float(widths[-edge:].max()) / widest


def points_in_image(points: Maps, letterbox: Letterbox) -> tuple[Point, ...]:
    """Where each heatmap peaks: the centre of gravity of the cells around its highest, in image coordinates."""
    return tuple(Point(*letterbox.to_image(*_peak(p, letterbox))) for p in points)


def doubt_of(lines: ChestLines | None, points: tuple[Point, ...], shape: tuple[int, int], card: ModelCard) -> str:
    """Why the cardiothoracic ratio is not reported; empty if it is."""
    if lines is None:
        return "the cardiothoracic ratio is not reported: heart or thorax cannot be measured"
    if lines.points[2].x <= 0 or lines.points[3].x >= shape[1]:
        return "the cardiothoracic ratio is not reported: a lung reaches the edge of the image"
    low, high = card.gate["ratio_between"]
    if not low <= lines.ratio <= high:
        return "the cardiothoracic ratio is not reported: its value is not plausible"
    if disagreement(lines, points) > card.gate["points_apart_at_most"]:
        return "the cardiothoracic ratio is not reported: two independent measurements of it disagree"
    return ""


def disagreement(lines: ChestLines, points: tuple[Point, ...]) -> float:
    """The greatest horizontal distance between a border on the masks and its peak, by the thorax's width."""
    apart = (abs(a.x - b.x) for a, b in zip(lines.points, points, strict=True))
    return max(apart) / measure.width(lines.thoracic)


def probability_above(ratio: float, fields: Mapping[str, Any]) -> float:
    """That the true ratio lies above `ratio_above`, given the measured one and the error on the validation films."""
    z = (ratio - fields["bias"] - fields["ratio_above"]) / fields["sigma"]
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def _one_part(p: Maps) -> Maps:
    """Probabilities with all that is marked beside the largest part unmarked, and the holes of that part marked.

    A lung has no holes: what the network leaves out in its middle is an opacity.
    """
    marked = p > 0.5
    part = measure.largest_part(marked)
    whole = np.where(marked & ~part, np.float32(0), p)
    return np.where(measure.filled(part) & ~part, np.float32(1), whole)


def _peak(p: Maps, letterbox: Letterbox) -> tuple[float, float]:
    row, column = (int(n) for n in np.unravel_index(int(p.argmax()), p.shape))
    top, left = max(0, row - 2), max(0, column - 2)
    near = p[top : row + 3, left : column + 3].astype(np.float64)
    y, x = np.mgrid[top : top + near.shape[0], left : left + near.shape[1]] + 0.5
    cell = max(letterbox.rows, letterbox.columns) * letterbox.scale / p.shape[0]  # network pixels
    return float((near * x).sum() / near.sum()) * cell, float((near * y).sum() / near.sum()) * cell


def _centre(mask: Pixels) -> float:
    return float(np.average(np.arange(mask.shape[1]), weights=mask.sum(axis=0)))


def _calibrated(spacing_mm: Spacing | None) -> Spacing | None:
    if spacing_mm is None or not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        return None
    return float(spacing_mm[0]), float(spacing_mm[1])


def _mask(fields: Mapping[str, Any], pixels: Mapping[str, Pixels], image_uid: str) -> Mask:
    return Mask(
        label=fields["label"],
        category=code(fields["category"]),
        code=code(fields["code"]),
        images=(image_uid,),
        pixels=pixels[fields["output"]][None],
        laterality=code(fields["laterality"]) if "laterality" in fields else None,
        colour_rgb=tuple(fields["colour_rgb"]),
    )


def _measurements(
    lines: ChestLines | None, masks: tuple[Mask, ...], image_uid: str, spacing_mm: Spacing | None, card: ModelCard
) -> tuple[Measurement, ...]:
    made = []
    for fields in card.measurements:
        value, points = _value(fields, lines, masks, spacing_mm or (1.0, 1.0))
        if value is None:
            continue
        unit = fields["unit"] if spacing_mm else fields.get("uncalibrated_unit", fields["unit"])
        made.append(
            Measurement(
                code=code(fields["code"]),
                value=value,
                unit=code(unit),
                label=fields["label"],
                image=image_uid,
                points=points,
                mask=fields.get("mask", ""),
                method=fields["method"],
            )
        )
    return tuple(made)


def _value(
    fields: Mapping[str, Any], lines: ChestLines | None, masks: tuple[Mask, ...], spacing_mm: Spacing
) -> tuple[float | None, tuple[Point, ...]]:
    if fields["name"] == "area":
        mask = next(m for m in masks if m.label == fields["mask"])
        return measure.area(mask.pixels[0], spacing_mm), ()
    if lines is None:
        return None, ()
    if fields["name"] == "ratio":
        return lines.ratio, lines.points
    line = lines.cardiac if fields["name"] == "cardiac-width" else lines.thoracic
    return measure.width(line, spacing_mm[1]), line


def _findings(
    lines: ChestLines | None,
    masks: tuple[Mask, ...],
    measurements: tuple[Measurement, ...],
    image_uid: str,
    card: ModelCard,
) -> tuple[Finding, ...]:
    if lines is None:
        return ()
    names = {fields["label"]: fields["name"] for fields in card.measurements}
    ratios = tuple(m for m in measurements if names[m.label] == "ratio")
    return tuple(
        _finding(fields, lines.ratio, masks, ratios, image_uid) for fields in card.findings if "mask" in fields
    )


def _finding(
    fields: Mapping[str, Any],
    ratio: float,
    masks: tuple[Mask, ...],
    measurements: tuple[Measurement, ...],
    image_uid: str,
) -> Finding:
    probability = probability_above(ratio, fields)
    present = probability >= fields["operating_point"]
    calibrated = is_calibrated(fields)
    mask = next(m for m in masks if m.label == fields["mask"])
    return Finding(
        code=code(fields["code"]),
        label=fields["label"],
        probability=probability,
        present=present,
        operating_point=float(fields["operating_point"]),
        image=image_uid,
        box=measure.bounding_box(mask.pixels[0]),
        site=code(fields["site"]),
        mask=fields["mask"],
        measurements=measurements,
        tier=tier(probability, present, fields.get("tiers")) if calibrated else "",
        calibrated=calibrated,
    )
