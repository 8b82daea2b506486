"""A site's own films: a CSV with the columns image, patient, view, and one for each label (`catalogue = "csv"`).

`image` is a DICOM, PNG or JPEG file, named from the CSV's folder on; `patient` a pseudonym by which films of one person
are kept together; `view` PA, AP, lateral or blank (frontal). `split`, if there is such a column, is train, validation,
test or blank. Labels are 1, 0, -1 (uncertain) or blank (not mentioned). Boxes stand in `<name>_boxes.csv` beside it:
image, label, x0, y0, x1, y1 as parts of the film's width and height.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from medgem_node.errors import ConfigError
from medgem_node.train.catalogues.catalogue import Licence, Marked, Record, label, needed, rows

LICENCE = Licence("as the recipe's `licence` says", "")
LABELS: tuple[str, ...] = ()
_COLUMNS = ("image", "patient", "view", "split")
_VIEWS = {"PA": "PA", "AP": "AP", "": "", "LATERAL": "lateral"}


def records(place: Path) -> Iterator[Record]:
    """Every row whose file is there."""
    marked = _marked(place.with_name(f"{place.stem}_boxes.csv"))
    for row in rows(place):
        name = needed(row, "image", place)
        image = place.parent / name
        if not image.is_file():
            continue
        labels = {column: label(text, place) for column, text in row.items() if column and column not in _COLUMNS}
        view, split = needed(row, "view", place).upper(), (row.get("split") or "").strip()
        if view not in _VIEWS or split not in ("", "train", "validation", "test"):
            raise ConfigError(f"{place}: a view is PA, AP, lateral or blank, a split train, validation, test or blank")
        patient = needed(row, "patient", place)
        if not patient:
            raise ConfigError(f"{place}: a film has no patient; give each patient a pseudonym of its own")
        yield Record(image, patient, _VIEWS[view], labels, tuple(marked.get(name, ())), split)


def _marked(path: Path) -> Mapping[str, list[Marked]]:
    found: dict[str, list[Marked]] = {}
    for row in rows(path) if path.is_file() else ():
        try:
            x0, y0, x1, y1 = (float(needed(row, column, path)) for column in ("x0", "y0", "x1", "y1"))
        except ValueError as exc:
            raise ConfigError(f"{path}: a box is not four numbers") from exc
        if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ConfigError(f"{path}: a box is x0 < x1 and y0 < y1, as parts (0..1) of the film's width and height")
        found.setdefault(needed(row, "image", path), []).append(Marked(needed(row, "label", path), (x0, y0, x1, y1)))
    return found
