"""Every figure for parts of the patients, with how many films it rests on.

What is known of a film beside its view comes from its source's `labels` CSV: the columns `sex` (M, F), `age` (years)
and `source` (where a collection has its films from). A figure of fewer than ten films is not shown: it would say little
of the model, and more than it should of a patient.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medgem_node.card import ModelCard
from medgem_node.train.cases import Case
from medgem_node.train.data import Source
from medgem_node.train.evaluate_lesions import found_and_missed
from medgem_node.train.metrics.interval import interval, proportion
from medgem_node.train.metrics.overlap import dice

FEWEST = 10
"""Films that a figure must rest on."""
UNKNOWN = "not known"
_BANDS = (18, 40, 60, 80)  # years at which an age band begins
_OLDEST = 120

Figure = Callable[[Sequence[Case]], "dict[str, Any] | None"]


@dataclass(frozen=True, slots=True)
class Person:
    """What is told of a film's patient; `origin`: where the collection has the film from."""

    sex: str = UNKNOWN
    age: str = UNKNOWN
    origin: str = UNKNOWN


def read_people(sources: Sequence[Source], data: Path) -> dict[tuple[str, str], Person]:
    """By source and name of the film."""
    people: dict[tuple[str, str], Person] = {}
    for source in sources:
        if source.labels:
            with (data / source.labels).open(newline="", encoding="utf-8") as lines:
                people |= {(source.name, Path(row["image"]).stem): _person(row) for row in csv.DictReader(lines)}
    return people


def age_band(age: str) -> str:
    """`0-17`, `18-39`, `40-59`, `60-79`, `80 and over`, or `not known`."""
    years = int(age) if age.strip().isdigit() else _OLDEST + 1
    if years > _OLDEST:
        return UNKNOWN
    starts = [0, *_BANDS]
    at = max(n for n, start in enumerate(starts) if years >= start)
    return f"{starts[at]}-{starts[at + 1] - 1}" if at + 1 < len(starts) else f"{starts[at]} and over"


def subgroups(
    cases: Sequence[Case], people: Mapping[tuple[str, str], Person], card: ModelCard, *, seed: int
) -> list[dict[str, Any]]:
    """One row for each group of each factor: films, patients, and the figures that rest on ten films or more."""
    frontal = [case for case in cases if case.film.is_frontal]
    figures = _figures(card, seed)
    rows = []
    for factor, group_of in _factors(people).items():
        groups = sorted({group_of(case) for case in frontal})
        for group in groups:
            own = [case for case in frontal if group_of(case) == group]
            rows.append({"factor": factor, "group": group, **_row(own, figures)})
    return rows


def _person(row: Mapping[str, str]) -> Person:
    sex = {"M": "men", "F": "women"}.get(row.get("sex", "").strip().upper(), UNKNOWN)
    return Person(sex, age_band(row.get("age", "")), row.get("source", "").strip() or UNKNOWN)


def _factors(people: Mapping[tuple[str, str], Person]) -> dict[str, Callable[[Case], str]]:
    def person(case: Case) -> Person:
        return people.get((case.film.source, case.film.name), Person())

    return {
        "source": lambda case: case.film.source,
        "view": lambda case: case.film.view or UNKNOWN,
        "sex": lambda case: person(case).sex,
        "age": lambda case: person(case).age,
        "collection": lambda case: person(case).origin,
    }


def _row(own: Sequence[Case], figures: Mapping[str, Figure]) -> dict[str, Any]:
    if len(own) < FEWEST:
        return {"films": f"fewer than {FEWEST}"}
    found = {name: figure(own) for name, figure in figures.items()}
    return {
        "films": len(own),
        "patients": len({case.film.group for case in own}),
        "figures": {name: _shown(figure) for name, figure in found.items() if figure},
    }


def _shown(figure: Mapping[str, Any]) -> Mapping[str, Any]:
    return figure if figure["films"] >= FEWEST else {"films": f"fewer than {FEWEST}"}


def _figures(card: ModelCard, seed: int) -> dict[str, Figure]:
    found: dict[str, Figure] = {
        "refused": lambda own: proportion(sum(case.analysis is None for case in own), len(own)),
        "Dice of the lungs": partial(_mean, value_of=_lungs, seed=seed),
        "error of the ratio": partial(_mean, value_of=_ratio_error, seed=seed),
    }
    for fields in card.findings:
        if "output" in fields:
            label = fields["label"]
            found[f"{label}: lesions found"] = partial(_lesions_found, label=label, seed=seed)
            found[f"{label}: false marks a film without"] = partial(
                _mean, value_of=partial(_false_marks, label=label), seed=seed
            )
    return found


def _mean(own: Sequence[Case], value_of: Callable[[Case], float], seed: int) -> dict[str, Any] | None:
    """Over the films that have the value."""
    pairs = [(value, case.film.group) for case in own if not np.isnan(value := value_of(case))]
    if not pairs:
        return None
    return interval(np.array([[v] for v, _ in pairs]), [g for _, g in pairs], lambda r: float(r.mean()), seed=seed)


def _lungs(case: Case) -> float:
    if case.film.truth is None or not any(case.film.known) or case.analysis is None:
        return float("nan")
    right, left, _ = (mask.pixels[0] for mask in case.analysis.masks)
    return dice(right | left, case.film.truth[:2].max(axis=0) > 0.5)


def _ratio_error(case: Case) -> float:
    return abs(case.ratio - case.true_ratio) if case.film.kind == "contours" else float("nan")


def _lesions_found(own: Sequence[Case], label: str, seed: int) -> dict[str, Any] | None:
    ill = [case for case in own if case.film.lesions]
    if not ill:
        return None
    counts = np.array([found_and_missed(case.film, case.analysis, label)[:2] for case in ill], float)
    groups = [case.film.group for case in ill]
    return interval(counts, groups, lambda r: float(r[:, 0].sum() / max(r.sum(), 1)), seed=seed)


def _false_marks(case: Case, label: str) -> float:
    if case.film.lesions is None or case.film.lesions:
        return float("nan")
    return float(found_and_missed(case.film, case.analysis, label)[2])
