"""How well boxes lie on boxes: average precision, and how often one agrees with a reader's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgem_node.train.metrics.froc import Box, Marks

_REPEATS = 2000


def iou(a: Box, b: Box) -> float:
    """Intersection over union; 0 of boxes that do not touch."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def average_precision(films: Sequence[Marks], at_least: float) -> float:
    """Area under precision over recall, every point of it, of marks taken by falling score.

    A mark is right if its best free lesion overlaps by `at_least` (IoU); a second mark on a lesion is wrong, as in
    PASCAL VOC. NaN without a lesion.

    References: Everingham et al. 2010, doi:10.1007/s11263-009-0275-4.
    """
    return _area([_Ranked.of(film, at_least) for film in films])


def mean_average_precision(kinds: Sequence[Sequence[Marks]], at_least: Sequence[float]) -> float:
    """The mean of `average_precision` over kinds of lesion that occur, and over the overlaps asked for."""
    areas = [average_precision(films, overlap) for films in kinds for overlap in at_least]
    return float(np.nanmean(areas))


def average_precisions(films: Sequence[Marks], at_least: Sequence[float], *, seed: int) -> dict[str, Any]:
    """`average_precision` at each overlap, and the mean of these, with intervals over patients drawn anew."""
    members: dict[str, list[int]] = {}
    for n, film in enumerate(films):
        members.setdefault(film.patient, []).append(n)
    patients, rng = [np.array(m) for m in members.values()], np.random.default_rng(seed)
    ranked = [[_Ranked.of(film, overlap) for film in films] for overlap in at_least]
    drawn = []
    for _ in range(_REPEATS):
        chosen = np.concatenate([patients[n] for n in rng.integers(0, len(patients), len(patients))])
        drawn.append([_area([own[n] for n in chosen]) for own in ranked])
    values = [_area(own) for own in ranked]
    values.append(float(np.mean(values)))
    table = np.column_stack((np.array(drawn), np.mean(drawn, axis=1)))
    low, high = np.nanpercentile(table, (2.5, 97.5), axis=0)
    names = [*(f"iou {overlap}" for overlap in at_least), "mean"]
    return {
        name: {
            "value": round(value, 4), "low": round(float(lo), 4), "high": round(float(hi), 4),
            "lesions": sum(len(f.lesions) for f in films), "films": len(films), "patients": len(patients),
        }
        for name, value, lo, hi in zip(names, values, low, high, strict=True)
    }  # fmt: skip


def concordance(films: Sequence[Marks], at_least: float = 0.3) -> tuple[int, int]:
    """How many marks overlap a reader's box by more than `at_least` (IoU), and how many marks there are."""
    best = [max((iou(mark, box) for box in film.lesions), default=0.0) for film in films for mark in film.marks]
    return sum(value > at_least for value in best), len(best)


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """One film's marks, highest score first: which are right depends on no other film."""

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    lesions: int

    @classmethod
    def of(cls, film: Marks, at_least: float) -> _Ranked:
        return cls(-np.sort(-np.array(film.scores, float)), np.array(_judged(film, at_least), bool), len(film.lesions))


def _area(films: Sequence[_Ranked]) -> float:
    lesions = sum(film.lesions for film in films)
    if not lesions:
        return float("nan")
    order = np.argsort(-np.concatenate([f.scores for f in films]), kind="stable")
    right = np.concatenate([f.right for f in films])[order]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_beyond[right].sum() / lesions)


def _judged(film: Marks, at_least: float) -> list[bool]:
    """Whether each mark is right, highest score first; a second one on a lesion is not."""
    order = sorted(range(len(film.scores)), key=lambda m: -film.scores[m])
    taken: set[int] = set()
    right = []
    for m in order:
        overlaps = [(iou(film.marks[m], box), k) for k, box in enumerate(film.lesions)]
        best, lesion = max(overlaps, default=(0.0, -1))
        right.append(best >= at_least and lesion not in taken)
        taken |= {lesion} if right[-1] else set()
    return right
