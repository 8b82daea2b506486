"""How well boxes lie on boxes: average precision, and how often one agrees with a reader's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medgem_node.train.metrics.froc import Box, Marks


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
    lesions = sum(len(film.lesions) for film in films)
    right = _judged(films, at_least)
    if not lesions or not right:
        return 0.0 if lesions else float("nan")
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_beyond[np.array(right)].sum() / lesions)


def mean_average_precision(kinds: Sequence[Sequence[Marks]], at_least: Sequence[float]) -> float:
    """The mean of `average_precision` over kinds of lesion that occur, and over the overlaps asked for."""
    areas = [average_precision(films, overlap) for films in kinds for overlap in at_least]
    return float(np.nanmean(areas))


def concordance(films: Sequence[Marks], at_least: float = 0.3) -> tuple[int, int]:
    """How many marks overlap a reader's box by more than `at_least` (IoU), and how many marks there are."""
    best = [max((iou(mark, box) for box in film.lesions), default=0.0) for film in films for mark in film.marks]
    return sum(value > at_least for value in best), len(best)


def _judged(films: Sequence[Marks], at_least: float) -> list[bool]:
    """Whether each mark is right, highest score first."""
    order = sorted(
        ((score, n, m) for n, film in enumerate(films) for m, score in enumerate(film.scores)), key=lambda t: -t[0]
    )
    taken: set[tuple[int, int]] = set()
    right = []
    for _, n, m in order:
        overlaps = [(iou(films[n].marks[m], box), k) for k, box in enumerate(films[n].lesions)]
        best, lesion = max(overlaps, default=(0.0, -1))
        right.append(best >= at_least and (n, lesion) not in taken)
        taken |= {(n, lesion)} if right[-1] else set()
    return right
