"""What the model is worth, measured through the very code that the node runs, with 95 % intervals by patient.

Nothing here is trained, tuned or chosen: `split="validation"` is where the manifest's numbers come from, `split="test"`
is run once for a release.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgem_node.card import ModelCard
from medgem_node.detector import decode, runtime
from medgem_node.detector.measure import chest_lines
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import Preprocessing, to_tensor
from medgem_node.errors import NotAnalysable
from medgem_node.finding import Analysis
from medgem_node.train import evaluate_lesions
from medgem_node.train.augment import augmented, prepared, turned
from medgem_node.train.data import Film, Recipe, Source, read_films, read_recipe
from medgem_node.train.metrics.interval import interval, proportion
from medgem_node.train.metrics.overlap import dice
from medgem_node.train.metrics.roc import auc

_TURNS = ("rotated", "upside-down", "mirrored", "inverted", "other")
_TURNED_AT_MOST = 60  # films of one source
_AGAIN = 3  # how often each film is shown as another hospital might have taken it


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A film with the node's answer: an analysis, or the reason why not; `apart`: mask and heatmap, see decode."""

    film: Film
    analysis: Analysis | None
    reason: str = ""
    apart: float = float("nan")

    @property
    def ratio(self) -> float:
        """The measured cardiothoracic ratio; NaN if none was reported."""
        measured = self.analysis.measurements if self.analysis else ()
        return next((m.value for m in measured if m.code.value == "CTR"), float("nan"))

    @property
    def true_ratio(self) -> float:
        """The ratio on the truth's masks."""
        assert self.film.truth is not None
        right, left, heart = self.film.truth > 0.5
        lines = chest_lines(right, left, heart)
        return lines.ratio if lines else float("nan")


def evaluate(card: ModelCard, data: Path, *, split: str = "test", report: Callable[[str], None]) -> dict[str, Any]:
    """Overlap, ratio, gate and external validity on one split of the recipe's films; JSON-able."""
    torch.set_num_threads(1)
    recipe, network = read_recipe(card.folder / "train.toml"), runtime.load(card)
    real = tuple(source for source in recipe.sources if source.kind != "synthetic")  # nothing is measured on others
    recipe = replace(recipe, sources=real)
    films = read_films(recipe, data, split)
    report(f"{len(films)} films of the {split} split")
    cases = [_case(network, film, card) for film in films]
    result: dict[str, Any] = {
        "model": card.name,
        "version": card.version,
        "weights_sha256": card.weights_sha256,
        "split": split,
        "seed": recipe.seed,
        "interval": "95 %: percentile bootstrap by patient, 2000 draws; shares: Wilson",
        "overlap_dice": _overlap(cases, recipe.seed),
        "cardiothoracic_ratio": _ratio(cases, recipe.seed),
        "frontal_films_refused": _refused([c for c in cases if c.film.is_frontal]),
        "other_pictures_refused": _refused([c for c in cases if not c.film.is_frontal]),
    }
    judged = [(case.film, case.analysis) for case in cases]
    for fields in (f for f in card.findings if "output" in f):
        label = fields["label"]
        result[f"boxes_{fields['output']}"] = evaluate_lesions.lesions(judged, label, seed=recipe.seed)
        result[f"certainty_{fields['output']}"] = evaluate_lesions.certainty(judged, label)
    report("films shown again: turned, then as another hospital might have taken them")
    result["turned_films_refused"] = _turned(network, films, recipe, card)
    again = list(_again(network, films, recipe, card))
    result["same_films_placed_and_exposed_otherwise"] = {
        "overlap_dice": _overlap(again, recipe.seed),
        "cardiothoracic_ratio": _ratio(again, recipe.seed),
        "frontal_films_refused": _refused(again),
    }
    for source in recipe.sources:
        if source.labels and split == "test":
            report(f"ratio against the weak labels of {source.name}")
            result[f"weak_labels_{source.name}"] = _weak(network, source, recipe, data, card)
    return result


def _case(network: ChestNetwork, film: Film, card: ModelCard) -> Case:
    rows, columns = film.pixels.shape
    try:
        tensor, box = to_tensor(film.pixels, network.config.size, None, Preprocessing.parse(card.preprocessing))
        outputs = runtime.run(network, tensor)
        analysis = decode.decode(outputs, box, film.name, rows, columns, None, card)
    except NotAnalysable as exc:
        return Case(film, None, exc.reason)
    reading = decode.read(outputs, card)
    lines = chest_lines(*(mask.pixels[0] for mask in analysis.masks))
    points = decode.points_in_image(reading.points, box)
    return Case(film, analysis, apart=decode.disagreement(lines, points) if lines else float("nan"))


def _overlap(cases: Sequence[Case], seed: int) -> dict[str, Any]:
    """Dice of each structure that has a truth, by source, on the films that were not refused."""
    found: dict[str, Any] = {}
    for source, own in _by_source(c for c in cases if any(c.film.known) and c.film.is_frontal and c.analysis):
        scores = np.array([_scores(case) for case in own])
        groups = [case.film.group for case in own]
        found[source] = {
            name: {
                **interval(column[:, None], groups, lambda rows: float(rows.mean()), seed=seed),
                "worst_twentieth": round(float(np.percentile(column, 5)), 4),
            }
            for name, column in zip(("right lung", "left lung", "lungs", "heart"), scores.T, strict=True)
            if not np.isnan(column).any()
        }
    return found


def _scores(case: Case) -> list[float]:
    assert case.analysis is not None
    assert case.film.truth is not None
    right, left, heart = (mask.pixels[0] for mask in case.analysis.masks)
    true_right, true_left, true_heart = case.film.truth > 0.5
    return [
        dice(right, true_right),
        dice(left, true_left),
        dice(right | left, true_right | true_left),
        dice(heart, true_heart) if case.film.known[2] else float("nan"),
    ]


def _ratio(cases: Sequence[Case], seed: int) -> dict[str, Any]:
    """Measured against true ratio where the heart's contour is known."""
    found: dict[str, Any] = {}
    for source, own in _by_source(c for c in cases if c.film.kind == "contours" and c.film.truth is not None):
        rows = np.array([(case.ratio, case.true_ratio, case.apart) for case in own])
        reported = ~np.isnan(rows[:, 0])
        groups = [case.film.group for case, good in zip(own, reported, strict=True) if good]
        rows = rows[reported]

        def over(statistic: Callable[[NDArray[np.float64]], float], r: Any = rows, g: Any = groups) -> dict[str, Any]:
            return interval(r, g, statistic, seed=seed)

        errors = rows[:, 0] - rows[:, 1]
        found[source] = {
            "not_reported": proportion(int((~reported).sum()), len(own)),
            "mean_absolute_error": over(lambda r: float(np.abs(r[:, 0] - r[:, 1]).mean())),
            "bias": over(lambda r: float((r[:, 0] - r[:, 1]).mean())),
            "standard_deviation": over(lambda r: float((r[:, 0] - r[:, 1]).std(ddof=1))),
            "correlation": over(_correlation),
            "largest_error": round(float(np.abs(errors).max()), 4),
            "above_0.50": _agreement(rows[:, 0] > 0.5, rows[:, 1] > 0.5),
            "mask_and_heatmap_apart": {
                "median": round(float(np.median(rows[:, 2])), 4), "largest": round(float(rows[:, 2].max()), 4)
            },
        }  # fmt: skip
    return found


def _correlation(rows: NDArray[np.float64]) -> float:
    return float(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1])


def _agreement(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> dict[str, int]:
    return {
        "both": int((found & truth).sum()),
        "measured_only": int((found & ~truth).sum()),
        "true_only": int((~found & truth).sum()),
        "neither": int((~found & ~truth).sum()),
    }


def _refused(cases: Sequence[Case]) -> dict[str, Any]:
    return {
        source: {
            **_share_refused(own),
            "reasons": dict(Counter(case.reason for case in own if case.reason)),
            "ratio_not_reported": sum(case.analysis is not None and math.isnan(case.ratio) for case in own),
        }
        for source, own in _by_source(cases)
    }


def _share_refused(cases: Sequence[Case]) -> dict[str, float | int]:
    return proportion(sum(case.analysis is None for case in cases), len(cases))


def _turned(network: ChestNetwork, films: Sequence[Film], recipe: Recipe, card: ModelCard) -> dict[str, Any]:
    """Films of the sources that were trained on, turned into each class that must be refused."""
    trained = [source.name for source in recipe.sources if not source.evaluate_only]
    chosen = [f for name in trained for f in [f for f in films if f.is_frontal and f.source == name][:_TURNED_AT_MOST]]
    rng = np.random.default_rng(recipe.seed)
    found = {}
    for kind in _TURNS:
        cases = []
        for film in chosen:
            grey, _ = augmented(prepared(film, network.config.size), network.config.size, recipe.augment, rng)
            cases.append(_case(network, replace(film, pixels=turned(grey, kind, rng), truth=None), card))
        found[kind] = {**_share_refused(cases), "reasons": dict(Counter(c.reason for c in cases if c.reason))}
    return found


def _again(network: ChestNetwork, films: Sequence[Film], recipe: Recipe, card: ModelCard) -> Iterator[Case]:
    rng = np.random.default_rng(recipe.seed)
    for film in films:
        if film.kind not in ("contours", "lungs"):
            continue
        small = prepared(film, network.config.size)
        for _ in range(_AGAIN):
            grey, truth = augmented(small, network.config.size, recipe.augment, rng)
            yield _case(network, replace(film, pixels=grey, truth=None if film.truth is None else truth), card)


def _weak(network: ChestNetwork, source: Source, recipe: Recipe, data: Path, card: ModelCard) -> dict[str, Any]:
    """The ratio's area under the curve for a text-mined label, by view; of every film, as none lent its masks."""
    with (data / source.labels).open(newline="") as lines:
        labels = {row["image"]: row for row in csv.DictReader(lines)}
    films = [
        f
        for split in ("train", "validation", "test")
        for f in read_films(replace(recipe, sources=(source,)), data, split)
    ]
    cases = [_case(network, film, card) for film in films if f"{film.name}.jpg" in labels]
    found: dict[str, Any] = {}
    for view in ("PA", "AP"):
        own = [case for case in cases if labels[f"{case.film.name}.jpg"]["view"] == view]
        seen = [case for case in own if not np.isnan(case.ratio)]
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


def _by_source(cases: Sequence[Case] | Iterator[Case]) -> list[tuple[str, list[Case]]]:
    sources: dict[str, list[Case]] = {}
    for case in cases:
        sources.setdefault(case.film.source, []).append(case)
    return sorted(sources.items())
