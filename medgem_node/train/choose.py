"""What a manifest says of confidence: calibration, operating points, tiers, chosen on films not trained on.

A release chooses on the validation split of its recipe, a site on its own films without lesions (`calibrate.py`); the
test split has no say. What is fitted is judged on patients that the fit did not see, five folds of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medgem_node.card import ModelCard
from medgem_node.detector import runtime
from medgem_node.errors import ConfigError
from medgem_node.train import evaluate_lesions, evaluate_masks
from medgem_node.train.cases import Case, judge
from medgem_node.train.data import fold_of, read_films, read_recipe
from medgem_node.train.metrics import conformal
from medgem_node.train.metrics.calibration import (
    Isotonic,
    Platt,
    brier,
    error_by_chance,
    expected_error,
    fit_platt,
    fit_rising,
)
from medgem_node.train.metrics.froc import Scored
from medgem_node.train.metrics.interval import interval, proportion

LARGEST_ERROR = 0.05
"""Expected calibration error above which a finding carries no probability.

Of all its marks, which alone would say little: most are weak, and that hardly one in a hundred is a lesion is easily
told. So also of those that are reported, unless they are so few that true probabilities would err as much by chance.
"""
TIERS = {"high": 0.9, "medium": 0.7}
MISS = 0.1  # of each class, by a conformal set
RATES = (0.25, 0.5, 1.0, 2.0)
_FOLDS = 5
_CLEARLY_BETTER = 0.9  # a rising line of steps ties marks that the network tells apart: only where it pays
_DIGITS = 4

Calibrator = Platt | Isotonic
Fit = Callable[[Sequence[float], Sequence[bool]], Calibrator]
WAYS: Mapping[str, Fit] = {
    "platt": fit_platt,
    "temperature": lambda scores, hit: fit_platt(scores, hit, offset=False),
    "isotonic": fit_rising,
}


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """One film's marks against its lesions, and where it comes from."""

    source: str
    scored: Scored

    @property
    def scores(self) -> list[float]:
        """Of every mark; of several on one lesion the surest."""
        return [*self._hits, *self.scored.false.tolist()]

    @property
    def on_lesion(self) -> list[bool]:
        """For each of `scores`."""
        return [True] * len(self._hits) + [False] * self.scored.false.size

    @property
    def highest(self) -> float:
        """The film's surest mark; 0 without one."""
        return max(self.scores, default=0.0)

    @property
    def is_free(self) -> bool:
        """Whether it is known to have no lesion."""
        return not self.scored.lesions.size

    @property
    def _hits(self) -> list[float]:
        return [float(s) for s in self.scored.lesions if np.isfinite(s)]

    def calibrated(self, probability: Callable[[float], float]) -> Marked:
        """The same with each score made a probability."""
        lesions = [probability(s) if np.isfinite(s) else s for s in self.scored.lesions.tolist()]
        false = np.array([probability(s) for s in self.scored.false.tolist()], float)
        return replace(self, scored=Scored(self.scored.patient, np.array(lesions, float), false))


def operating_point(films: Sequence[Scored], false_marks: float) -> float:
    """The value from which on films without lesions bear no more than `false_marks` each, on average.

    That of the last mark which is allowed: any lower one, though it gives the same here, gives more on other films.
    Raises ConfigError if the films are too few to allow a mark.
    """
    allowed = math.floor(false_marks * len(films) + 1e-9)
    if allowed < 1:
        least = math.ceil(1 / false_marks) if false_marks > 0 else 0
        raise ConfigError(
            f"{false_marks} false marks a film cannot be told from none on {len(films)} films; {least} can"
        )
    marks = np.sort(np.concatenate([f.false for f in films]))[::-1]
    if allowed >= marks.size:
        return float(marks[-1]) if marks.size else 0.5
    beyond = float(marks[allowed])
    above = marks[marks > beyond]
    least_above = float(above[-1]) if above.size else 1.0
    rounded = math.floor(least_above * 10**_DIGITS) / 10**_DIGITS
    return rounded if rounded > beyond else least_above


def false_marks_at(films: Sequence[Scored], point: float, *, seed: int) -> dict[str, float | int]:
    """Marks at or above `point` a film, with the 95 % interval by patient."""
    counts = np.array([[float((f.false >= point).sum())] for f in films])
    return interval(counts, [f.patient for f in films], lambda rows: float(rows.mean()), seed=seed)


def crossfitted(films: Sequence[Marked], fit: Fit) -> list[Marked]:
    """The films with probabilities by fits that saw none of their own patients."""
    folds = [fold_of(film.scored.patient, _FOLDS) for film in films]
    made = {n: _fitted([f for f, own in zip(films, folds, strict=True) if own != n], fit) for n in set(folds)}
    return [film.calibrated(made[n]) for film, n in zip(films, folds, strict=True)]


def calibration(films: Sequence[Marked]) -> tuple[str, Calibrator, dict[str, Any]]:
    """The way that suits the marks, fitted on all of them, and what each way was worth on patients held back."""
    held_back = {way: _errors(crossfitted(films, fit)) for way, fit in WAYS.items()}
    best = min(held_back, key=lambda way: held_back[way]["brier"])
    if held_back[best]["brier"] > _CLEARLY_BETTER * held_back["platt"]["brier"]:
        best = "platt"
    return best, _fitted(films, WAYS[best]), {"as they are": _errors(films), **held_back}


def is_calibrated(every: Mapping[str, float], reported: Mapping[str, float]) -> bool:
    """Whether the errors of all marks and of those reported, on patients held back, are small enough."""
    allowed = max(LARGEST_ERROR, reported["by_chance"])
    return every["expected_error"] <= LARGEST_ERROR and reported["expected_error"] <= allowed


def sets(films: Sequence[Marked]) -> dict[str, Any]:
    """Whether class-conditional conformal sets of a film's surest mark tell films with from films without lesions."""
    folds = [fold_of(film.scored.patient, _FOLDS) for film in films]
    chances, true = [[1 - f.highest, f.highest] for f in films], [int(not f.is_free) for f in films]
    fitted = {}
    for fold in set(folds):
        others = [k for k, own in enumerate(folds) if own != fold]
        fitted[fold] = conformal.fit([chances[k] for k in others], [true[k] for k in others], miss=MISS)
    found = [fitted[fold].answers(pair) for fold, pair in zip(folds, chances, strict=True)]
    names = {frozenset({0}): "without alone", frozenset({1}): "with alone", frozenset({0, 1}): "either"}
    return {
        "asked": 1 - MISS,
        "coverage": dict(
            zip(("without", "with"), (round(c, 4) for c in conformal.coverage(found, true, 2)), strict=True)
        ),
        "films": dict(Counter(true)),
        "sets": dict(Counter(names.get(s, "neither") for s in found)),
    }


def choose(films: Sequence[Marked], false_marks: float, *, seed: int) -> dict[str, Any]:
    """Everything that the manifest says of one kind of mark, with what it was worth. Scores are the network's own."""
    if not any(any(f.on_lesion) for f in films) or not any(f.is_free for f in films):
        raise ConfigError("there must be films with marks on lesions, and films without lesions")
    way, line, errors = calibration(films)
    chances = [film.calibrated(line) for film in films]
    free = [f.scored for f in chances if f.is_free]
    point = operating_point(free, false_marks)
    held_back = crossfitted(films, WAYS[way])
    shown = errors["reported marks"] = _errors(held_back, at_least=point)
    shown["by_chance"] = round(error_by_chance(_chances(held_back, point), seed=seed), 4)
    return {
        "how": way,
        "line": _keys(line),
        "held_back": errors,
        "calibrated": is_calibrated(errors[way], shown),
        "operating_point": point,
        "false_marks_wished": false_marks,
        "films": len(films), "films_without_lesions": len(free), "patients": len({f.scored.patient for f in films}),
        "marks": sum(len(f.scores) for f in films), "on_lesions": sum(sum(f.on_lesion) for f in films),
        "at_rates": {f"{rate:g}": _worth(chances, operating_point(free, rate), seed) for rate in RATES},
        "at_operating_point": _worth(chances, point, seed),
        "tiers_of_reported_marks": _tiers(held_back, point),
        "conformal_sets": sets(chances),
    }  # fmt: skip


def release(
    card: ModelCard, data: Path, false_marks: float, *, report: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """`choose` for each kind of mark of a model, by label, on the validation films of its recipe.

    A finding that rests on the measured ratio is judged as the manifest has it.
    """
    torch.set_num_threads(1)
    recipe, network = read_recipe(card.folder / "train.toml"), runtime.load(card)
    real = tuple(s for s in recipe.sources if s.kind not in ("synthetic", "other") and not s.evaluate_only)
    films = read_films(replace(recipe, sources=real), data, "validation")
    report(f"{len(films)} films of the validation split")
    bare = uncalibrated(card)
    cases = [judge(network, film, bare) for film in films]
    report(f"{sum(case.analysis is None for case in cases)} of them refused, which count for nothing here")
    chosen: dict[str, dict[str, Any]] = {}
    for fields in card.findings:
        if "output" in fields:
            chosen[fields["label"]] = choose(marked(cases, fields["label"]), false_marks, seed=recipe.seed)
        elif "ratio_above" in fields:
            chosen[fields["label"]] = {"ratio": evaluate_masks.ratio_finding(cases, fields)}
    return chosen


def marked(cases: Sequence[Case], label: str) -> list[Marked]:
    """The analysed films of which it is known whether they have lesions."""
    known = [c for c in cases if c.analysis is not None and c.film.lesions is not None and c.film.is_frontal]
    return [
        Marked(c.film.source, evaluate_lesions.compared(c.film, evaluate_lesions.marks_of(c.film, c.analysis, label)))
        for c in known
    ]


def uncalibrated(card: ModelCard) -> ModelCard:
    """The card with every mark at the network's own score."""
    ways = ("slope", "offset", "isotonic", "calibrated")
    bare = tuple({k: v for k, v in f.items() if "output" not in f or k not in ways} for f in card.findings)
    return replace(card, findings=bare)


def manifest_lines(label: str, chosen: Mapping[str, Any]) -> list[str]:
    """What stands in the `[[findings]]` table of `label`, with where it comes from."""
    if "ratio" in chosen:
        told = chosen["ratio"]
        return [f"# {label}: expected error {told.get('expected_error')} on {told['answers']} films of known ratio"]
    error, at = chosen["held_back"], chosen["at_operating_point"]
    rate = at["false_marks_a_film_without_lesions"]["all"]
    return [
        f"# {label}: {chosen['how']}, fitted on {chosen['marks']} marks of {chosen['films']} validation films",
        f"# ({chosen['on_lesions']} on lesions); expected error on patients held back:",
        f"# {error[chosen['how']]['expected_error']} of all; of the {error['reported marks']['marks']} reported"
        f" {error['reported marks']['expected_error']}, by chance up to {error['reported marks']['by_chance']}",
        *(f"{key} = {value}" for key, value in chosen["line"].items()),
        *([] if chosen["calibrated"] else [f"calibrated = false  # above {LARGEST_ERROR}: no probability, no tier"]),
        f"operating_point = {chosen['operating_point']}  # {rate['value']} ({rate['low']} to {rate['high']}) false",
        f"# marks a film on {rate['films']} validation films without lesions; wished {chosen['false_marks_wished']}",
        *([f"tiers = {{ high = {TIERS['high']}, medium = {TIERS['medium']} }}"] if chosen["calibrated"] else []),
    ]


def _fitted(films: Sequence[Marked], fit: Fit) -> Calibrator:
    line = fit([s for f in films for s in f.scores], [h for f in films for h in f.on_lesion])
    if isinstance(line, Platt):
        return Platt(round(line.slope, _DIGITS), round(line.offset, _DIGITS))
    return line


def _errors(films: Sequence[Marked], at_least: float = 0.0) -> dict[str, float]:
    """Of the marks from a probability on."""
    chances = _chances(films, at_least)
    hit = [h for f in films for s, h in zip(f.scores, f.on_lesion, strict=True) if s >= at_least]
    return {
        "marks": len(hit),
        "mean_probability": round(float(np.mean(chances)), 4) if chances else 0.0,
        "on_lesions": round(float(np.mean(hit)), 4) if hit else 0.0,
        "expected_error": round(expected_error(chances, hit), 4),
        "expected_error_equal_counts": round(expected_error(chances, hit, equal_counts=True), 4),
        "brier": round(brier(chances, hit), 5),
    }


def _chances(films: Sequence[Marked], at_least: float) -> list[float]:
    return [s for f in films for s in f.scores if s >= at_least]


def _keys(line: Calibrator) -> dict[str, Any]:
    if isinstance(line, Platt):
        return {"slope": line.slope, "offset": line.offset}
    return {"isotonic": [list(knot) for knot in zip(line.scores, line.probabilities, strict=True)]}


def _worth(films: Sequence[Marked], point: float, seed: int) -> dict[str, Any]:
    """What is reported from a point on: false marks and lesions found, by source and of all."""
    found: dict[str, Any] = {"operating_point": point, "false_marks_a_film_without_lesions": {}, "lesions_found": {}}
    for source in ("all", *sorted({f.source for f in films})):
        own = [f for f in films if source in ("all", f.source)]
        free, ill = [f.scored for f in own if f.is_free], [f.scored for f in own if not f.is_free]
        if free:
            found["false_marks_a_film_without_lesions"][source] = false_marks_at(free, point, seed=seed)
        if ill:
            lesions = np.concatenate([f.lesions for f in ill])
            found["lesions_found"][source] = proportion(int((lesions >= point).sum()), lesions.size)
    return found


def _tiers(films: Sequence[Marked], point: float) -> dict[str, dict[str, float | int]]:
    """How often a reported mark of each tier lies on a lesion, by fits that did not see its patient."""
    pairs = [(s, hit) for f in films for s, hit in zip(f.scores, f.on_lesion, strict=True) if s >= point]
    ends = {"high": (TIERS["high"], 2.0), "medium": (TIERS["medium"], TIERS["high"]), "review": (0.0, TIERS["medium"])}
    within = {tier: [hit for s, hit in pairs if low <= s < high] for tier, (low, high) in ends.items()}
    return {tier: proportion(sum(hits), len(hits)) if hits else {"films": 0} for tier, hits in within.items()}
