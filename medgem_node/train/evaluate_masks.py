"""What the masks are worth: overlap, distance of borders, and the cardiothoracic ratio that is measured on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgem_node.finding import Finding
from medgem_node.train.cases import Case, by_source
from medgem_node.train.evaluate_certainty import Answer, certainty
from medgem_node.train.metrics.interval import interval, proportion
from medgem_node.train.metrics.overlap import dice, hd95

STRUCTURES = ("right lung", "left lung", "lungs", "heart")
Score = Callable[[NDArray[np.bool_], NDArray[np.bool_]], float]


def overlap(cases: Sequence[Case], seed: int) -> dict[str, Any]:
    """Dice of each structure that has a truth, by source, on the films that were not refused."""
    return _of_structures(cases, dice, "worst_twentieth", 5, seed)


def border_distance(cases: Sequence[Case], seed: int) -> dict[str, Any]:
    """HD95 likewise, in per cent of the film's width; films on which a structure is missing are counted apart."""
    return _of_structures(cases, _part_of_width, "worst_twentieth", 95, seed)


def ratio(cases: Sequence[Case], seed: int) -> dict[str, Any]:
    """Measured against true cardiothoracic ratio where the heart's contour is known."""
    found: dict[str, Any] = {}
    for source, own in by_source(with_ratio(cases)):
        rows = np.array([(case.ratio, case.true_ratio, case.apart) for case in own])
        reported = ~np.isnan(rows[:, 0])
        groups = [case.film.group for case, good in zip(own, reported, strict=True) if good]
        rows = rows[reported]
        found[source] = {"not_reported": proportion(int((~reported).sum()), len(own))}
        if len(rows):
            found[source] |= _errors(rows, groups, seed)
    return found


def with_ratio(cases: Sequence[Case]) -> list[Case]:
    """Films whose true ratio is known."""
    return [c for c in cases if c.film.kind == "contours" and c.film.truth is not None]


def ratio_finding(cases: Sequence[Case], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A finding that rests on the ratio (`ratio_above` in the manifest): operating point, and what its chance means."""
    found: list[Answer] = []
    for case in with_ratio(cases):
        finding = _own(case, fields["label"])
        if finding:
            found.append(Answer(finding.probability, finding.present, case.true_ratio > fields["ratio_above"]))
    ill, free = [a for a in found if a.true], [a for a in found if not a.true]
    return {
        "truth": f"ratio above {fields['ratio_above']:g} on the readers' contours",
        "operating_point": float(fields["operating_point"]),
        "sensitivity": proportion(sum(a.present for a in ill), len(ill)),
        "specificity": proportion(sum(not a.present for a in free), len(free)),
        **certainty(found),
    }


def _of_structures(cases: Sequence[Case], score: Score, tail: str, percentile: float, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for source, own in by_source(c for c in cases if any(c.film.known) and c.film.is_frontal and c.analysis):
        table = np.array([_scores(case, score) for case in own])
        found[source] = {}
        for name, column in zip(STRUCTURES, table.T, strict=True):
            if np.isnan(column).any():
                continue  # no truth
            there = np.isfinite(column)
            groups = [case.film.group for case, kept in zip(own, there, strict=True) if kept]
            missing = {} if there.all() else {"missing": int((~there).sum())}
            if there.any():
                found[source][name] = {
                    **interval(column[there][:, None], groups, lambda rows: float(rows.mean()), seed=seed),
                    tail: round(float(np.percentile(column[there], percentile)), 4),
                    **missing,
                }
    return found


def _scores(case: Case, score: Score) -> list[float]:
    assert case.analysis is not None
    assert case.film.truth is not None
    right, left, heart = (mask.pixels[0] for mask in case.analysis.masks)
    true_right, true_left, true_heart = case.film.truth > 0.5
    return [
        score(right, true_right),
        score(left, true_left),
        score(right | left, true_right | true_left),
        score(heart, true_heart) if case.film.known[2] else float("nan"),
    ]


def _part_of_width(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return hd95(found, truth, (100 / truth.shape[1], 100 / truth.shape[1]))


def _errors(rows: NDArray[np.float64], groups: Sequence[str], seed: int) -> dict[str, Any]:
    """Rows of measured ratio, true ratio, mask and heatmap apart."""

    def over(statistic: Callable[[NDArray[np.float64]], float]) -> dict[str, Any]:
        return interval(rows, groups, statistic, seed=seed)

    return {
        "mean_absolute_error": over(lambda r: float(np.abs(r[:, 0] - r[:, 1]).mean())),
        "bias": over(lambda r: float((r[:, 0] - r[:, 1]).mean())),
        **_spread(rows, over),
        "largest_error": round(float(np.abs(rows[:, 0] - rows[:, 1]).max()), 4),
        "above_0.50": _agreement(rows[:, 0] > 0.5, rows[:, 1] > 0.5),
        "mask_and_heatmap_apart": {
            "median": round(float(np.median(rows[:, 2])), 4), "largest": round(float(rows[:, 2].max()), 4)
        },
    }  # fmt: skip


def _spread(rows: NDArray[np.float64], over: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """What takes more than a handful of films: a draw of one film only has no spread."""
    if len(rows) < 5:
        return {}
    return {
        "standard_deviation": over(lambda r: float((r[:, 0] - r[:, 1]).std(ddof=1))),
        "correlation": over(_correlation),
    }


def _correlation(rows: NDArray[np.float64]) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw of one film over and over has none: NaN
        return float(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1])


def _agreement(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, int]:
    return {
        "both": int((found & truth).sum()),
        "measured_only": int((found & ~truth).sum()),
        "true_only": int((~found & truth).sum()),
        "neither": int((~found & ~truth).sum()),
    }


def _own(case: Case, label: str) -> Finding | None:
    return next((f for f in case.analysis.findings if f.label == label), None) if case.analysis else None
