"""VinDr-CXR (Nguyen et al. 2022): DICOM images with boxes by three readers each (test: a consensus of five).

Two layouts: PhysioNet's (`annotations/annotations_train.csv`, `annotations_test.csv`, `train`, `test`) and that of the
VinBigData challenge (`train.csv` beside `train`). Each row is a box by one reader: image_id, rad_id, class_name, x_min,
y_min, x_max, y_max in the image's own pixels; "No finding" has no box. The test list names no reader, as it is agreed.

A finding is present if two readers marked it, uncertain if one did, absent if none. Boxes of one finding that overlap
by a third are one; one reader's alone is neither lesion nor background. No patient's number is published: each image is
taken to be a patient's only one.

References: Nguyen et al. 2022, doi:10.1038/s41597-022-01498-w.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from medgem_node.errors import ConfigError
from medgem_node.train.catalogues.catalogue import UNCERTAIN, Licence, Marked, Record, needed, rows

LICENCE = Licence(
    "PhysioNet Credentialed Health Data License 1.5.0", "https://physionet.org/content/vindr-cxr/view-license/1.0.0/"
)
LABELS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
    "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis",
)  # fmt: skip
_AGREE = 2
_SAME = 1 / 3  # intersection over union of two readers' boxes of one lesion
_ENDS = (".dicom", ".dcm")
Pixels = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Box:
    reader: str
    label: str
    pixels: Pixels


def records(place: Path) -> Iterator[Record]:
    """Every image of the lists whose file is there."""
    lists = [(place / "annotations" / f"annotations_{part}.csv", part) for part in ("train", "test")]
    if not lists[0][0].is_file():
        lists = [(place / "train.csv", "train")]
    for path, part in lists[:1] + [(path, part) for path, part in lists[1:] if path.is_file()]:
        found: dict[str, list[_Box]] = {}
        for row in rows(path):
            boxes = found.setdefault(needed(row, "image_id", path), [])
            boxes += _box(row, path)
        for name, boxes in found.items():
            image = next((p for end in _ENDS if (p := place / part / f"{name}{end}").is_file()), None)
            if image is not None:
                agree = _AGREE if part == "train" else 1
                marked = _marked(image, boxes, agree)
                yield Record(image, name, "", _labels(boxes, agree), marked, "test" if part == "test" else "")


def _box(row: dict[str, str], path: Path) -> list[_Box]:
    name = needed(row, "class_name", path)
    if name not in LABELS or not (row.get("x_min") or "").strip():  # "No finding", or one that is rarer than these
        return []
    try:
        x0, y0, x1, y1 = (float(needed(row, column, path)) for column in ("x_min", "y_min", "x_max", "y_max"))
    except ValueError as exc:
        raise ConfigError(f"{path}: a box is not four numbers; is it the published list?") from exc
    return [_Box((row.get("rad_id") or "agreed").strip(), name, (x0, y0, x1, y1))]


def _labels(boxes: Sequence[_Box], agree: int) -> dict[str, int | None]:
    readers = {name: len({box.reader for box in boxes if box.label == name}) for name in LABELS}
    return {name: 1 if n >= agree else (UNCERTAIN if n else 0) for name, n in readers.items()}


def _marked(image: Path, boxes: Sequence[_Box], agree: int) -> tuple[Marked, ...]:
    if not boxes:
        return ()
    columns, rows_ = _size(image)
    made = []
    for name in dict.fromkeys(box.label for box in boxes):
        for part in _same([box for box in boxes if box.label == name]):
            x0, y0, x1, y1 = np.mean([box.pixels for box in part], axis=0).tolist()
            sure = len({box.reader for box in part}) >= agree
            made.append(Marked(name, (x0 / columns, y0 / rows_, x1 / columns, y1 / rows_), sure))
    return tuple(made)


def _same(boxes: Sequence[_Box]) -> list[list[_Box]]:
    """Boxes of one lesion together: each joins the first heap that has none of its reader and overlaps it enough."""
    heaps: list[list[_Box]] = []
    for box in boxes:
        for heap in heaps:
            if box.reader not in {b.reader for b in heap} and max(_overlap(box.pixels, b.pixels) for b in heap) > _SAME:
                heap.append(box)
                break
        else:
            heaps.append([box])
    return heaps


def _overlap(a: Pixels, b: Pixels) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height)


def _size(image: Path) -> tuple[int, int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(image, force=True, specific_tags=["Rows", "Columns"], stop_before_pixels=True)
    if not header.get("Rows") or not header.get("Columns"):
        raise ConfigError(f"{image.parent}: an image with boxes has no size; is the download complete?")
    return int(header.Columns), int(header.Rows)
