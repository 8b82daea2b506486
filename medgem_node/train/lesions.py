"""What is known of the lesions of a film, as a source's `lesion_kind` says where it is written.

`centres`  CSV with the columns image, nodule (0 or 1), x, y: centres as parts of the film's width and height.
`boxes`    CSV with the columns image, label, x0, y0, x1, y1, as parts likewise; of `lesion_labels` only. A film without
           a row is free of them unless its weak labels (the source's `labels`) name one: then nothing is known.
`masks`    `<film><lesions>` beside the film; each connected part is a lesion.
`none`     every film is known to be free of lesions.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from medgem_node.detector.measure import connected_parts

_USUAL_SIDE = 0.055  # of the film's width: 19 mm, for a nodule of which only the centre is known
_SMALLEST_SIDE = 10  # pixels of a mask: a smaller part cannot be seen, and is neither lesion nor background


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion; the box as parts of the film's width and height."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1
    sized: bool = True  # False: only the centre is known
    counts: bool = True  # False: not to be learnt from, neither as lesion nor as background


Known = Callable[[Path], tuple[Lesion, ...] | None]
"""The lesions of the film at a path; None: nothing is known."""


def reader(kind: str, truth: str, labels: Sequence[str], weak: str, data: Path) -> Known:
    """What knows the lesions of a source's films."""
    if kind == "centres":
        return _centres(data / truth)
    if kind == "boxes":
        return _boxes(data / truth, labels, data / weak)
    if kind == "masks":
        return lambda path: _parts(path.with_name(path.stem + truth))
    return (lambda path: ()) if kind == "none" else (lambda path: None)


def _centres(path: Path) -> Known:
    found: dict[str, tuple[Lesion, ...]] = {}
    for row in _rows(path):
        x, y = (float(row[k] or 0) for k in "xy")
        half = _USUAL_SIDE / 2
        box = (x - half, y - half, x + half, y + half)
        found[row["image"]] = (Lesion(box, sized=False),) if row["nodule"] == "1" else ()
    return lambda film: found.get(film.name)


def _boxes(path: Path, labels: Sequence[str], weak: Path) -> Known:
    found: dict[str, list[Lesion]] = {}
    for row in _rows(path):
        if row["label"] in labels:
            box = (float(row["x0"]), float(row["y0"]), float(row["x1"]), float(row["y1"]))
            found.setdefault(row["image"], []).append(Lesion(box))
    free = {row["image"] for row in _rows(weak) if not set(labels) & set(row["nih_labels"].split("|"))}

    def known(film: Path) -> tuple[Lesion, ...] | None:
        if film.name in found:
            return tuple(found[film.name])
        return () if film.name in free else None

    return known


def _parts(path: Path) -> tuple[Lesion, ...]:
    mask = np.asarray(Image.open(path).convert("L")) > 127
    rows, columns = mask.shape
    lesions = []
    for part in connected_parts(mask):
        y, x = np.nonzero(part)
        x0, x1, y0, y1 = int(x.min()), int(x.max()) + 1, int(y.min()), int(y.max()) + 1
        counts = max(x1 - x0, y1 - y0) >= _SMALLEST_SIDE
        lesions.append(Lesion((x0 / columns, y0 / rows, x1 / columns, y1 / rows), counts=counts))
    return tuple(lesions)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
