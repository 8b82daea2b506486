"""What is told of a film in words: the view, weak labels, where a lesion lies, and a site's own report texts.

The public films come without reports, so their words are made from what stands in their tables: a view becomes
"PA view", a weak label "effusion", a box "nodule in the right upper zone". A source whose table in the recipe has
`reports` (a CSV with the columns image, text) is told by the sentences of its reports as well.

"No Finding" is told of no film: in one popular source such films were picked by the size of their files.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medgem_node.train.data import Film, Source

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as parts of the film's width and height."""
_HALF_SIDE = 0.0275  # of the film's width: a nodule of which only the centre is known, as lesions.py has it
_NOTHING = ("", "No Finding")
_ZONES = ("upper", "middle", "lower")
_SENTENCE_ENDS = re.compile(r"[.;\n]+")


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that are true of a film; `boxes`: where what they name lies, if that is known."""

    text: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Lungs:
    """The boxes around both lungs; the right one is the patient's right."""

    right: Box
    left: Box

    @classmethod
    def of(cls, right: NDArray[np.bool_], left: NDArray[np.bool_]) -> Lungs | None:
        """Around two masks of (rows, columns); None if one of them is empty."""
        boxes = [_around(mask) for mask in (right, left)]
        return cls(boxes[0], boxes[1]) if boxes[0] and boxes[1] else None

    def zone(self, box: Box) -> str:
        """As "right upper zone": the lung that the box's centre is nearer to, and the third of its height."""
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        side, lung = min((("right", self.right), ("left", self.left)), key=lambda s: abs(s[1][0] + s[1][2] - 2 * x))
        third = int(3 * (y - lung[1]) / (lung[3] - lung[1]))
        return f"{side} {_ZONES[min(max(third, 0), 2)]} zone"


Teller = Callable[[Film, Lungs | None], tuple[Phrase, ...]]
"""What is told of a film whose lungs lie there."""


def teller(source: Source, data: Path) -> Teller:
    """What knows the words of a source's films."""
    labels = {_stem(row): row.get("nih_labels", "").split("|") for row in _rows(data, source.labels)}
    reports = {_stem(row): row["text"] for row in _rows(data, source.reports)}
    places: dict[str, list[tuple[str, Box]]] = {}
    for image, label, box in _placed(source, data):
        places.setdefault(image, []).append((label, box))

    def told(film: Film, lungs: Lungs | None) -> tuple[Phrase, ...]:
        found: dict[str, list[Box]] = {f"{film.view} view": []} if film.view else {}
        for label in labels.get(film.name, []):
            if label not in _NOTHING:
                found[_worded(label)] = []
        for label, box in places.get(film.name, []):
            found.setdefault(_worded(label), []).append(box)
            if lungs is not None:
                found.setdefault(f"{_worded(label)} in the {lungs.zone(box)}", []).append(box)
        for sentence in _sentences(reports.get(film.name, "")):
            found.setdefault(sentence, [])
        return tuple(Phrase(text, tuple(boxes)) for text, boxes in found.items())

    return told


def _placed(source: Source, data: Path) -> Iterator[tuple[str, str, Box]]:
    """Film, label and box of every lesion of which a place is known."""
    if source.lesion_kind == "boxes":
        for row in _rows(data, source.lesions):
            yield _stem(row), row["label"], (float(row["x0"]), float(row["y0"]), float(row["x1"]), float(row["y1"]))
    if source.lesion_kind == "centres":
        for row in _rows(data, source.lesions):
            if row["nodule"] == "1":
                x, y = float(row["x"]), float(row["y"])
                yield _stem(row), "Nodule", (x - _HALF_SIDE, y - _HALF_SIDE, x + _HALF_SIDE, y + _HALF_SIDE)


def _worded(label: str) -> str:
    return label.replace("_", " ").lower()


def _sentences(text: str) -> Iterator[str]:
    yield from filter(None, (" ".join(part.split()).lower() for part in _SENTENCE_ENDS.split(text)))


def _around(mask: NDArray[np.bool_]) -> Box | None:
    y, x = np.nonzero(mask)
    if not len(y):
        return None
    rows, columns = mask.shape
    return (
        float(x.min()) / columns, float(y.min()) / rows, float(x.max() + 1) / columns, float(y.max() + 1) / rows,
    )  # fmt: skip


def _stem(row: dict[str, str]) -> str:
    return Path(row["image"]).stem


def _rows(data: Path, name: str) -> list[dict[str, str]]:
    if not name:
        return []
    with (data / name).open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
