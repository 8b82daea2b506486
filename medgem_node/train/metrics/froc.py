"""How many lesions are found for how many false marks (FROC), with intervals by patient.

A mark that lies on a lesion finds it; a second one on the same lesion is no false mark; a mark on no lesion is.

References: Bunch et al. 1978, doi:10.1117/12.955926; Bandos et al. 2009 (area), doi:10.1111/j.1541-0420.2008.01049.x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False marks a film at which the curve is read."""
_REPEATS = 2000


@dataclass(frozen=True, slots=True)
class Marks:
    """One film's marks and lesions; boxes in any one unit."""

    patient: str
    marks: Sequence[Box]
    scores: Sequence[float]
    lesions: Sequence[Box]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One film: the highest score on each lesion (-inf: not marked), and the scores of the false marks."""

    patient: str
    lesions: NDArray[np.float64]
    false: NDArray[np.float64]


def scored(film: Marks, hits: Callable[[Box, Box], bool]) -> Scored:
    """`hits(mark, lesion)` says whether a mark lies on a lesion."""
    lesions = np.full(len(film.lesions), -np.inf)
    false = []
    for mark, score in zip(film.marks, film.scores, strict=True):
        on = [n for n, lesion in enumerate(film.lesions) if hits(mark, lesion)]
        if not on:
            false.append(score)
        for n in on:
            lesions[n] = max(lesions[n], score)
    return Scored(film.patient, lesions, np.array(false, float))


def sensitivity(films: Sequence[Scored], rates: Sequence[float] = RATES) -> list[float]:
    """The largest share of lesions found at no more than each rate of false marks a film."""
    lesions = np.concatenate([f.lesions for f in films])
    false = np.sort(np.concatenate([f.false for f in films]))[::-1]
    found = []
    for rate in rates:
        allowed = int(np.floor(rate * len(films) + 1e-9))
        # the threshold lies just above the first false mark that would be one too many
        beyond = false[allowed] if allowed < false.size else -np.inf
        found.append(float((lesions > beyond).mean()) if lesions.size else float("nan"))
    return found


def false_marks(films: Sequence[Scored], threshold: float) -> float:
    """False marks a film at or above `threshold`."""
    return float(np.mean([(f.false >= threshold).sum() for f in films]))


def froc(films: Sequence[Scored], rates: Sequence[float] = RATES, *, seed: int) -> list[dict[str, float | int]]:
    """Sensitivity at each rate, with the 2.5 and 97.5 percentiles over patients drawn anew."""
    members: dict[str, list[Scored]] = {}
    for film in films:
        members.setdefault(film.patient, []).append(film)
    patients, rng = list(members.values()), np.random.default_rng(seed)
    drawn = []
    for _ in range(_REPEATS):
        chosen = [film for n in rng.integers(0, len(patients), len(patients)) for film in patients[n]]
        if any(film.lesions.size for film in chosen):
            drawn.append(sensitivity(chosen, rates))
    low, high = np.percentile(np.array(drawn), (2.5, 97.5), axis=0)
    return [
        {
            "false_marks_a_film": rate, "value": round(value, 4), "low": round(float(lo), 4),
            "high": round(float(hi), 4), "lesions": sum(f.lesions.size for f in films), "films": len(films),
            "patients": len(patients),
        }
        for rate, value, lo, hi in zip(rates, sensitivity(films, rates), low, high, strict=True)
    ]  # fmt: skip


def centre_in_box(mark: Box, lesion: Box) -> bool:
    """Whether the mark's centre lies in the lesion's box."""
    x, y = (mark[0] + mark[2]) / 2, (mark[1] + mark[3]) / 2
    return lesion[0] <= x <= lesion[2] and lesion[1] <= y <= lesion[3]


def centre_within(distance: float) -> Callable[[Box, Box], bool]:
    """Whether the centres are no more than `distance` apart: for lesions of which only the centre is known."""

    def hits(mark: Box, lesion: Box) -> bool:
        dx, dy = (mark[0] + mark[2] - lesion[0] - lesion[2]) / 2, (mark[1] + mark[3] - lesion[1] - lesion[3]) / 2
        return bool(np.hypot(dx, dy) <= distance)

    return hits
