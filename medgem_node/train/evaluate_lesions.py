"""What the boxes are worth: lesions found for false marks, marks on films without lesions, and what a score means.

Films computed from CT are left out: every figure is of real films.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgem_node.finding import Analysis, Finding
from medgem_node.train.data import Film
from medgem_node.train.evaluate_certainty import Answer, certainty
from medgem_node.train.metrics.calibration import expected_error, fit_platt
from medgem_node.train.metrics.detection import average_precisions, concordance
from medgem_node.train.metrics.froc import Box, Marks, Scored, centre_in_box, centre_within, froc, scored, sensitivity
from medgem_node.train.metrics.interval import interval, proportion
from medgem_node.train.metrics.roc import auc_delong

NEAR = 0.05  # of the film's width: as far as a mark may lie from a centre of which no box is known
_OVERLAPS = (0.3, 0.5)
Judged = tuple[Film, Analysis | None]


def lesions(cases: Sequence[Judged], label: str, *, seed: int) -> dict[str, Any]:
    """Every figure of the boxes called `label`. A refused film has no mark: its lesions count as missed."""
    known = [(film, analysis) for film, analysis in cases if film.lesions is not None and film.is_frontal]
    found: dict[str, Any] = {}
    for source in sorted({film.source for film, _ in known}):
        own = [case for case in known if case[0].source == source]
        ill, free = [c for c in own if c[0].lesions], [c for c in own if not c[0].lesions]
        found[source] = {
            "films_with_lesions": len(ill),
            **(_found(ill, label, seed) if ill else {}),
            **(_free(free, label, seed) if free else {}),
            **(_parted(ill, free, label) if ill and free else {}),
            **({"operating_point": _at_operating_point(ill, free, label, seed)} if ill else {}),
        }
    return found


def calibration(cases: Sequence[Judged], label: str) -> dict[str, float]:
    """Slope and offset that make a mark's score the chance that it lies on a lesion, for the manifest.

    Of marks on all films with known lesions; fitted where choices are made, never on the test split.
    """
    scores, hit = _judged_marks(cases, label)
    platt = fit_platt(scores, hit)
    return {
        "slope": round(platt.slope, 4), "offset": round(platt.offset, 4), "marks": len(scores), "on_lesions": sum(hit),
        "expected_error_before": round(expected_error(scores, hit), 4),
        "expected_error_after": round(expected_error([platt(s) for s in scores], hit), 4),
    }  # fmt: skip


def marks_of(film: Film, analysis: Analysis | None, label: str) -> Marks:
    """A film's candidate marks and its lesions, as parts of the film's width."""
    own = _candidates(analysis, label)
    width, height = film.pixels.shape[1], film.pixels.shape[0]
    tall = height / width
    boxes = [_parts(finding, width) for finding in own]
    truth = [(x0, y0 * tall, x1, y1 * tall) for x0, y0, x1, y1 in (f.box for f in film.lesions or () if f.counts)]
    return Marks(film.group, boxes, [finding.probability for finding in own], truth)


def compared(film: Film, marks: Marks) -> Scored:
    """Marks against lesions: the centre in the box, or near a centre of which no box is known."""
    near = any(not lesion.sized for lesion in film.lesions or ())
    return scored(marks, centre_within(NEAR) if near else centre_in_box)


def _found(ill: Sequence[Judged], label: str, seed: int) -> dict[str, Any]:
    marks = [marks_of(*case, label) for case in ill]
    sized = all(lesion.sized for film, _ in ill for lesion in film.lesions or ())
    found: dict[str, Any] = {
        "hit": "centre in box" if sized else f"centre within {NEAR} of the film's width",
        "sensitivity": froc([compared(film, m) for (film, _), m in zip(ill, marks, strict=True)], seed=seed),
    }
    if sized:
        shown = [_reported(m, analysis, label) for m, (_, analysis) in zip(marks, ill, strict=True)]
        found["average_precision"] = average_precisions(marks, _OVERLAPS, seed=seed)
        found["reported_marks_with_iou_above_0.3"] = proportion(*concordance(shown))
    return found


def _free(free: Sequence[Judged], label: str, seed: int) -> dict[str, Any]:
    """False marks at the operating point, on films that are known to be free of lesions."""
    counts = [sum(f.present for f in _candidates(analysis, label)) for _, analysis in free]
    groups = [film.group for film, _ in free]
    rows = np.array(counts, float)[:, None]
    return {
        "false_marks_a_film_without_lesions": interval(rows, groups, lambda r: float(r.mean()), seed=seed),
        "films_without_lesions_marked": proportion(sum(n > 0 for n in counts), len(counts)),
    }


def _parted(ill: Sequence[Judged], free: Sequence[Judged], label: str) -> dict[str, Any]:
    """Films with from films without, by the highest mark."""
    highest = [max((f.probability for f in _candidates(a, label)), default=0.0) for _, a in (*ill, *free)]
    return {"auc_with_against_without": auc_delong(highest, [True] * len(ill) + [False] * len(free))}


def certainty_of_marks(cases: Sequence[Judged], label: str) -> dict[str, Any]:
    """Whether a mark's probability is how often it lies on a lesion; of marks on all films with known lesions."""
    answers = [
        Answer(chance, chance >= _operating_point(analysis, label), hit)
        for film, analysis in cases
        for chance, hit in zip(*_judged_marks([(film, analysis)], label), strict=True)
    ]
    return {"marks": len(answers), "on_lesions": sum(a.true for a in answers), **certainty(answers)}


def curve(cases: Sequence[Judged], label: str, rates: Sequence[float]) -> list[float]:
    """Sensitivity at each rate of false marks, without an interval."""
    return sensitivity([compared(film, marks_of(film, a, label)) for film, a in cases if film.lesions], rates)


def found_and_missed(film: Film, analysis: Analysis | None, label: str) -> tuple[int, int, int]:
    """At the operating point: lesions found, lesions missed, and false marks."""
    shown = compared(film, _reported(marks_of(film, analysis, label), analysis, label))
    found = int(np.isfinite(shown.lesions).sum())
    return found, len(shown.lesions) - found, len(shown.false)


def _at_operating_point(ill: Sequence[Judged], free: Sequence[Judged], label: str, seed: int) -> dict[str, Any]:
    """What is reported, lesion by lesion and film by film; the share of films with lesions is this source's own."""
    counts = np.array([found_and_missed(*case, label) for case in ill], float)
    groups = [film.group for film, _ in ill]
    marked = [any(f.present for f in _candidates(analysis, label)) for _, analysis in (*ill, *free)]
    hits, unmarked = sum(marked[: len(ill)]), marked[len(ill) :].count(False)
    points = [_operating_point(analysis, label) for _, analysis in (*ill, *free)]
    return {
        "value": next((p for p in points if not np.isnan(p)), float("nan")),
        "lesions": int(counts[:, :2].sum()),
        "lesions_found": interval(counts, groups, _share_found, seed=seed),
        "false_marks_a_film_with_lesions": interval(counts, groups, lambda r: float(r[:, 2].mean()), seed=seed),
        "sensitivity_by_film": proportion(hits, len(ill)),
        "specificity_by_film": proportion(unmarked, len(free)),
        "films_with_lesions": f"{len(ill)} of {len(ill) + len(free)}",
    }


def _share_found(counts: NDArray[np.float64]) -> float:
    """Of rows of lesions found, lesions missed and false marks."""
    lesions = counts[:, :2].sum()
    return float(counts[:, 0].sum() / lesions) if lesions else float("nan")


def _operating_point(analysis: Analysis | None, label: str) -> float:
    """NaN of a film that was refused."""
    said = (*analysis.findings, *analysis.candidates) if analysis else ()
    return next((f.operating_point for f in said if f.label == label), float("nan"))


def _judged_marks(cases: Sequence[Judged], label: str) -> tuple[list[float], list[bool]]:
    """Each candidate's probability, and whether it lies on a lesion; of one lesion's marks the first counts."""
    scores: list[float] = []
    hit: list[bool] = []
    for film, analysis in cases:
        if film.lesions is None or not film.is_frontal:
            continue
        judged = compared(film, marks_of(film, analysis, label))
        on = judged.lesions[np.isfinite(judged.lesions)]
        scores += [*on.tolist(), *judged.false.tolist()]
        hit += [True] * len(on) + [False] * len(judged.false)
    return scores, hit


def _reported(marks: Marks, analysis: Analysis | None, label: str) -> Marks:
    """Only the marks at or above the operating point."""
    present = [f.present for f in _candidates(analysis, label)]
    kept = [n for n, shown in enumerate(present) if shown]
    return Marks(marks.patient, [marks.marks[n] for n in kept], [marks.scores[n] for n in kept], marks.lesions)


def _candidates(analysis: Analysis | None, label: str) -> list[Finding]:
    return [f for f in analysis.candidates if f.label == label and f.box] if analysis else []


def _parts(finding: Finding, width: int) -> Box:
    assert finding.box is not None
    x0, y0, x1, y1 = finding.box.xyxy
    return x0 / width, y0 / width, x1 / width, y1 / width
