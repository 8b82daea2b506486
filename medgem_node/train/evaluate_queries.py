"""Whether refining the box head's peaks by queries finds more: same films, same rates of false marks, paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medgem_node.detector import boxes
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import to_tensor
from medgem_node.detector.runtime import run
from medgem_node.train.data import Film
from medgem_node.train.evaluate_lesions import compared
from medgem_node.train.metrics.detection import average_precision
from medgem_node.train.metrics.froc import Marks, Scored, sensitivity
from medgem_node.train.validation import marks_in_film

RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
_OVERLAP = 0.3
_REPEATS = 2000
_EVERY_FILM = "all, with films free of lesions"


@torch.inference_mode()
def compare(network: ChestNetwork, films: Sequence[Film], *, seed: int) -> dict[str, dict[str, Any]]:
    """Sensitivity of the box head alone and of its refined peaks, by source and over all real frontal films.

    As everywhere, a source's false marks are counted on its films with lesions; those of the last row on all films,
    also on those that are known to have none. `difference`: refined less dense, with its 95 % interval by patient.
    """
    known = [film for film in films if film.lesions is not None and film.is_frontal]
    pairs = [_marks_of(network.eval(), film) for film in known]
    ill = [n for n, film in enumerate(known) if film.lesions]
    rows = {s: [n for n in ill if known[n].source == s] for s in sorted({known[n].source for n in ill})}
    if len(rows) > 1 or len(ill) < len(known):
        rows[_EVERY_FILM] = list(range(len(known)))
    return {name: _compared([known[n] for n in own], [pairs[n] for n in own], seed) for name, own in rows.items()}


def table(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The lines to print of what `compare` gives."""
    lines = []
    for name, own in found.items():
        lines.append(f"{name}: {own['films']} films, {own['lesions']} lesions")
        for row in own["sensitivity"]:
            lines.append(
                f"  found at {row['false_marks_a_film']:g} false marks a film: dense {row['dense']:.3f}, refined "
                f"{row['refined']:.3f}, difference {row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
            )
        if precision := own.get("average_precision"):
            lines.append(
                f"  average precision at IoU {precision['iou']}: dense {precision['dense']:.3f}, "
                f"refined {precision['refined']:.3f}"
            )
    return lines


def _marks_of(network: ChestNetwork, film: Film) -> tuple[Marks, Marks]:
    """Of the box head alone, and refined."""
    film = film.loaded()
    tensor, letterbox = to_tensor(film.pixels, network.config.size)
    outputs = run(network, tensor)
    assert outputs.boxes is not None
    assert outputs.queries is not None
    kinds = len(network.config.boxes)
    dense, refined = (boxes.decode(outputs.boxes, kinds, queries=q)[0] for q in (None, outputs.queries))
    return marks_in_film(film, dense, letterbox), marks_in_film(film, refined, letterbox)


def _compared(films: Sequence[Film], pairs: Sequence[tuple[Marks, Marks]], seed: int) -> dict[str, Any]:
    groups = [film.group for film in films]
    dense, refined = ([compared(f, pair[n]) for f, pair in zip(films, pairs, strict=True)] for n in (0, 1))
    found: dict[str, Any] = {
        "films": len(films), "patients": len(set(groups)), "lesions": sum(len(d.lesions) for d in dense),
        "sensitivity": _sensitivities(dense, refined, groups, seed),
    }  # fmt: skip
    if all(lesion.sized for film in films for lesion in film.lesions or ()):
        dense_value, value = (average_precision([pair[n] for pair in pairs], _OVERLAP) for n in (0, 1))
        found["average_precision"] = {"iou": _OVERLAP, "dense": round(dense_value, 4), "refined": round(value, 4)}
    return found


def _sensitivities(
    dense: Sequence[Scored], refined: Sequence[Scored], groups: Sequence[str], seed: int
) -> list[dict[str, float]]:
    """At each rate; patients are drawn anew for both at once, so what films have in common is not counted as doubt."""
    members: dict[str, list[int]] = {}
    for n, group in enumerate(groups):
        members.setdefault(group, []).append(n)
    patients, rng = list(members.values()), np.random.default_rng(seed)
    drawn = []
    for _ in range(_REPEATS):
        own = [n for p in rng.integers(0, len(patients), len(patients)) for n in patients[p]]
        drawn.append(_change([dense[n] for n in own], [refined[n] for n in own]))
    low, high = np.nanpercentile(np.array(drawn), (2.5, 97.5), axis=0)
    before, after = sensitivity(dense, RATES), sensitivity(refined, RATES)
    return [
        {
            "false_marks_a_film": rate, "dense": round(a, 4), "refined": round(b, 4), "difference": round(b - a, 4),
            "low": round(float(lo), 4), "high": round(float(hi), 4),
        }
        for rate, a, b, lo, hi in zip(RATES, before, after, low, high, strict=True)
    ]  # fmt: skip


def _change(dense: Sequence[Scored], refined: Sequence[Scored]) -> NDArray[np.float64]:
    """NaN where no film with a lesion was drawn."""
    change: NDArray[np.float64] = np.subtract(sensitivity(refined, RATES), sensitivity(dense, RATES))
    return change
