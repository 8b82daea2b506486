"""What the model is worth, measured through the very code that the node runs, with 95 % intervals by patient.

Nothing here is trained, tuned or chosen: `split="validation"` is where the manifest's numbers come from, `split="test"`
is run once for a release. The same weights, films and code give the same figures, to the last digit.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medgem_node import __version__
from medgem_node.card import ModelCard
from medgem_node.detector import runtime
from medgem_node.detector.runtime import Network
from medgem_node.train import evaluate_gate, evaluate_lesions, evaluate_masks, provenance
from medgem_node.train.augment import augmented, prepared
from medgem_node.train.cases import Case, by_source, judge
from medgem_node.train.data import Film, Recipe, Source, read_films, read_recipe
from medgem_node.train.metrics.interval import interval, proportion
from medgem_node.train.metrics.roc import auc
from medgem_node.train.subgroups import read_people, subgroups

_AGAIN = 3  # how often each film is shown as another hospital might have taken it
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The figures, JSON-able, and the cases that they were counted from."""

    figures: dict[str, Any]
    cases: tuple[Case, ...]


def evaluate(
    card: ModelCard, data: Path, *, split: str = "test", backend: str = "torch", report: Report
) -> dict[str, Any]:
    """The figures alone, see `measure`."""
    return measure(card, data, split=split, backend=backend, report=report).figures


def measure(card: ModelCard, data: Path, *, split: str = "test", backend: str = "torch", report: Report) -> Measured:
    """Masks, ratio, boxes, gate, certainty and subgroups on one split of the recipe's films.

    `backend` as in `runtime.load`; torch unless asked otherwise, so that figures do not hang on what is installed.
    """
    torch.set_num_threads(1)
    recipe, network = read_recipe(card.folder / "train.toml"), runtime.load(card, backend)
    real = tuple(source for source in recipe.sources if source.kind != "synthetic")  # nothing is measured on others
    recipe = replace(recipe, sources=real)
    films = read_films(recipe, data, split)
    report(f"{len(films)} films of the {split} split")
    cases = tuple(judge(network, film, card) for film in films)
    figures = {
        **_origin(card, films, recipe, split),
        "runtime": runtime.described(network),
        **_masks(cases, recipe.seed),
        "frontal_films_refused": _refused([c for c in cases if c.film.is_frontal]),
        "other_pictures_refused": _refused([c for c in cases if not c.film.is_frontal]),
        **_findings(cases, card, recipe.seed),
        "subgroups": subgroups(cases, read_people(recipe.sources, data), card, seed=recipe.seed),
    }
    report("what the gate answers to films altered and to made pictures")
    figures["gate"] = evaluate_gate.gate(network, cases, recipe, card)
    report("films shown again, as another hospital might have taken them")
    again = list(_again(network, films, recipe, card))
    figures["same_films_placed_and_exposed_otherwise"] = {
        "overlap_dice": evaluate_masks.overlap(again, recipe.seed),
        "cardiothoracic_ratio": evaluate_masks.ratio(again, recipe.seed),
        "frontal_films_refused": _refused(again),
    }
    for source in recipe.sources:
        if source.labels and split == "test":
            report(f"ratio against the weak labels of {source.name}")
            figures[f"weak_labels_{source.name}"] = _weak(network, source, recipe, data, card)
    return Measured(_plain(figures), cases)


def _origin(card: ModelCard, films: Sequence[Film], recipe: Recipe, split: str) -> dict[str, Any]:
    """What the figures are of."""
    return {
        "model": card.name,
        "version": card.version,
        "weights_sha256": card.weights_sha256,
        "code": {"version": __version__, "commit": provenance.commit()},
        "split": split,
        "data": {
            "sha256": provenance.data_sha256(films),
            "films": len(films),
            "patients": len({(film.source, film.group) for film in films}),
            "by_source": dict(sorted(Counter(film.source for film in films).items())),
        },
        "seed": recipe.seed,
        "interval": "95 %: percentile bootstrap by patient, 2000 draws; shares: Wilson; areas under a ROC: DeLong",
    }


def _masks(cases: Sequence[Case], seed: int) -> dict[str, Any]:
    return {
        "overlap_dice": evaluate_masks.overlap(cases, seed),
        "border_distance_hd95": evaluate_masks.border_distance(cases, seed),
        "cardiothoracic_ratio": evaluate_masks.ratio(cases, seed),
    }


def _findings(cases: Sequence[Case], card: ModelCard, seed: int) -> dict[str, Any]:
    """Boxes and their certainty; findings that rest on the ratio."""
    judged = [(case.film, case.analysis) for case in cases]
    found: dict[str, Any] = {}
    for fields in card.findings:
        label = fields["label"]
        if "output" in fields:
            found[f"boxes_{fields['output']}"] = evaluate_lesions.lesions(judged, label, seed=seed)
            found[f"certainty_{fields['output']}"] = evaluate_lesions.certainty_of_marks(judged, label)
        elif "ratio_above" in fields:
            found[f"finding_{label.lower().replace(' ', '-')}"] = evaluate_masks.ratio_finding(cases, fields)
    return found


def _refused(cases: Sequence[Case]) -> dict[str, Any]:
    return {
        source: {
            **_share_refused(own),
            "reasons": dict(sorted(Counter(case.reason for case in own if case.reason).items())),
            "ratio_not_reported": sum(case.analysis is not None and math.isnan(case.ratio) for case in own),
        }
        for source, own in by_source(cases)
    }


def _share_refused(cases: Sequence[Case]) -> dict[str, float | int]:
    return proportion(sum(case.analysis is None for case in cases), len(cases))


def _again(network: Network, films: Sequence[Film], recipe: Recipe, card: ModelCard) -> Iterator[Case]:
    rng = np.random.default_rng(recipe.seed)
    for film in films:
        if film.kind not in ("contours", "lungs"):
            continue
        small = prepared(film, network.config.size)
        for _ in range(_AGAIN):
            grey, truth = augmented(small, network.config.size, recipe.augment, rng)
            yield judge(network, replace(film, pixels=grey, truth=None if film.truth is None else truth), card)


def _weak(network: Network, source: Source, recipe: Recipe, data: Path, card: ModelCard) -> dict[str, Any]:
    """The ratio's area under the curve for a text-mined label, by view; of every film, as none lent its masks."""
    with (data / source.labels).open(newline="") as lines:
        labels = {row["image"]: row for row in csv.DictReader(lines)}
    films = [
        f
        for split in ("train", "validation", "test")
        for f in read_films(replace(recipe, sources=(source,)), data, split)
    ]
    cases = [judge(network, film, card) for film in films if f"{film.name}.jpg" in labels]
    found: dict[str, Any] = {}
    for view in ("PA", "AP"):
        own = [case for case in cases if labels[f"{case.film.name}.jpg"]["view"] == view]
        seen = [case for case in own if not np.isnan(case.ratio)]
        if not seen:
            continue
        truth = ["Cardiomegaly" in labels[f"{case.film.name}.jpg"]["nih_labels"] for case in seen]
        rows = np.array([(case.ratio, positive) for case, positive in zip(seen, truth, strict=True)])
        found[view] = {
            "auc_cardiomegaly": interval(
                rows,
                [c.film.group for c in seen],
                lambda r: auc(r[:, 0].tolist(), (r[:, 1] > 0).tolist()),
                seed=recipe.seed,
            ),
            "positive": int(sum(truth)),
            "median_ratio": {
                name: round(float(np.median(rows[rows[:, 1] == value, 0])), 3)
                for name, value in (("labelled", 1), ("others", 0))
                if (rows[:, 1] == value).any()
            },
            "refused": _share_refused(own),
            "refused_no_finding": _share_refused(
                [case for case in own if labels[f"{case.film.name}.jpg"]["nih_labels"] == "No Finding"]
            ),
            "ratio_not_reported": proportion(
                sum(case.analysis is not None and math.isnan(case.ratio) for case in own), len(own)
            ),
        }
    return found


def _plain(value: Any) -> Any:
    """As JSON can say it: a figure that is no number, or is infinite, is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(own) for key, own in value.items()}
    return [_plain(own) for own in value] if isinstance(value, list | tuple) else value
