"""What words are worth: retrieval both ways, and whether a phrase's attention lies on what it names.

Chance is computed, not drawn. The attention of a phrase is held against what knows no phrase (the box head's best mark,
the middle of all boxes that were learnt from) and against what knows the phrase but no learnt text (the middle of the
zone that it names, and the box head's best mark in that zone).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medgem_node.detector.text import Grounding, Tokeniser
from medgem_node.train.frozen import Seen
from medgem_node.train.metrics.interval import interval
from medgem_node.train.metrics.retrieval import recall_at
from medgem_node.train.phrases import Box, Phrase
from medgem_node.train.text import stacked

_FIRST = (1, 5, 10)
_AT_ONCE = 16  # films
_NEAR = 0.03  # of the film's sides: half a cell of the attention's map, for every method alike
_FINER = 4  # cells of the map, before its highest point is taken
Spot = tuple[float, float]


def evaluated(
    grounding: Grounding, tokeniser: Tokeniser, films: Sequence[Seen], taught: Sequence[Seen], *, seed: int
) -> dict[str, Any]:
    """Retrieval with and without the view among the words, and pointing; intervals by patient."""
    described = {
        "all that is told": [(film, _told(film)) for film in films],
        "findings only": [(film, words) for film in films if (words := _told(film, view=False))],
    }
    return {
        **{name: _retrieval(grounding, tokeniser, pairs, seed) for name, pairs in described.items()},
        "pointing": _pointing(grounding, tokeniser, films, middle_of_all(taught), seed),
    }


def _told(film: Seen, *, view: bool = True) -> str:
    """All that is told of a film, the same words for the same things."""
    return ". ".join(sorted(p.text for p in film.phrases if view or not p.text.endswith(" view")))


def _retrieval(
    grounding: Grounding, tokeniser: Tokeniser, pairs: Sequence[tuple[Seen, str]], seed: int
) -> dict[str, Any]:
    """Candidates of a film are the distinct descriptions; those of a description all films, right if told the same."""
    if not pairs:
        return {"films": 0}
    films, told = [film for film, _ in pairs], [words for _, words in pairs]
    texts = sorted(set(told))
    scores = scored(grounding, tokeniser, films, texts)
    true = np.array([[words == text for words in told] for text in texts])
    groups = [film.group for film in films]
    found: dict[str, Any] = {"films": len(films), "descriptions": len(texts)}
    for k in _FIRST:
        to_text = recall_at(scores.T, true.T, k)
        to_image = recall_at(scores, true, k)
        found[f"image_to_text@{k}"] = _figure(to_text, groups, seed)
        found[f"text_to_image@{k}"] = _figure(to_image, texts, seed)
    return found


def _figure(rows: NDArray[np.float64], groups: Sequence[str], seed: int) -> dict[str, float | int]:
    chance = round(float(rows[:, 1].mean()), 4)
    return {**interval(rows, groups, lambda r: float(r[:, 0].mean()), seed=seed), "chance": chance}


@torch.inference_mode()
def scored(
    grounding: Grounding, tokeniser: Tokeniser, films: Sequence[Seen], texts: Sequence[str]
) -> NDArray[np.float32]:
    """(texts, films)."""
    numbers = tokeniser.batch(texts, grounding.config.longest)
    parts = [films[n : n + _AT_ONCE] for n in range(0, len(films), _AT_ONCE)]
    return torch.cat([grounding(numbers, *stacked(part)).scores for part in parts], dim=1).numpy()


@dataclass(frozen=True, slots=True)
class Asked:
    """A phrase that names a place in a film."""

    film: Seen
    phrase: Phrase

    @property
    def zone(self) -> str:
        """As "right upper zone"."""
        return self.phrase.text.partition(" in the ")[2]


def middle_of_all(films: Sequence[Seen]) -> Spot:
    """The mean centre of the boxes that were learnt from."""
    boxes = [box for asked in _asked(films) for box in asked.phrase.boxes]
    centres = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in boxes] or [(0.5, 0.5)]
    x, y = np.mean(centres, axis=0).tolist()
    return x, y


def _pointing(
    grounding: Grounding, tokeniser: Tokeniser, films: Sequence[Seen], middle: Spot, seed: int
) -> dict[str, Any]:
    """The share of placed phrases for which each method's point lies in a box of the phrase."""
    asked = list(_asked(films))
    ways: dict[str, Callable[[Asked], Spot | None]] = {
        "box head": lambda a: next(iter(a.film.marks), None),
        "box head in the zone": _mark_in_zone,
        "middle of the zone": _middle_of_zone,
        "middle of all boxes": lambda a: middle,
    }
    if grounding.cross is not None:
        ways["attention"] = lambda a: attended(grounding, tokeniser, a.film, a.phrase.text)
    if not asked:
        return {"phrases": 0}
    groups, found = [a.film.group for a in asked], {}
    for name, point in ways.items():
        rows = np.array([[_hits(point(a), a.phrase.boxes)] for a in asked], float)
        found[name] = interval(rows, groups, lambda r: float(r.mean()), seed=seed)
    return {"phrases": len(asked), **found}


def _asked(films: Sequence[Seen]) -> Iterator[Asked]:
    for film in films:
        yield from (Asked(film, p) for p in film.phrases if p.boxes and " in the " in p.text)


def _hits(spot: Spot | None, boxes: Sequence[Box]) -> bool:
    if spot is None:
        return False
    x, y = spot
    return any(x0 - _NEAR <= x <= x1 + _NEAR and y0 - _NEAR <= y <= y1 + _NEAR for x0, y0, x1, y1 in boxes)


def _mark_in_zone(asked: Asked) -> Spot | None:
    lungs = asked.film.lungs
    if lungs is None:
        return None
    return next(((x, y) for x, y in asked.film.marks if lungs.zone((x, y, x, y)) == asked.zone), None)


def _middle_of_zone(asked: Asked) -> Spot | None:
    if asked.film.lungs is None:
        return None
    side, height, _ = asked.zone.split()
    x0, y0, x1, y1 = asked.film.lungs.right if side == "right" else asked.film.lungs.left
    third = ("upper", "middle", "lower").index(height)
    return (x0 + x1) / 2, y0 + (y1 - y0) * (2 * third + 1) / 6


@torch.inference_mode()
def attended(grounding: Grounding, tokeniser: Tokeniser, film: Seen, text: str) -> Spot:
    """Where in the film, as parts of its sides, the phrase's attention is highest."""
    maps = grounding(tokeniser.batch([text], grounding.config.longest), *stacked([film])).maps
    assert maps is not None
    fine: Tensor = functional.interpolate(maps, scale_factor=_FINER, mode="bilinear", align_corners=False)[0, 0]
    cells = fine.shape[-1]
    row, column = divmod(int(fine.argmax()), cells)
    box = film.letterbox
    pixel = max(box.rows, box.columns) * box.scale / cells
    x, y = box.to_image((column + 0.5) * pixel, (row + 0.5) * pixel)
    return x / box.columns, y / box.rows
