"""NIH ChestX-ray14 (Wang et al. 2017): `Data_Entry_2017.csv` (or `_v2020`), `BBox_List_2017.csv`, lists of the parts.

Films lie in `images` or in `images_001/images` to `images_012/images`, 1024 x 1024, which is what the boxes are pixels
of. A film's labels are those that its report was mined for: what is not named was denied, or doubted, or not spoken of,
so it is not mentioned here; only "No Finding" denies all. To read all of it as denied, say `blank = "zeros"`.

References: Wang et al. 2017, arXiv:1705.02315.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from medgem_node.errors import ConfigError
from medgem_node.train.catalogues.catalogue import Licence, Marked, Record, needed, rows

LICENCE = Licence(
    "NIH Clinical Center: free use; name the NIH Clinical Center and cite Wang et al. 2017",
    "https://nihcc.app.box.com/v/ChestXray-NIHCC",
)
LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
_SIDE = 1024
_LISTS = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_OF_BOXES = {"Infiltrate": "Infiltration"}


def records(place: Path) -> Iterator[Record]:
    """Every film of the list whose file is there; those of `test_list.txt` for testing."""
    path = next((place / name for name in _LISTS if (place / name).is_file()), place / _LISTS[-1])
    images = {p.name: p for p in sorted([*place.glob("images/*.png"), *place.glob("images_*/images/*.png")])}
    marked, splits = _marked(place / "BBox_List_2017.csv"), _splits(place)
    for row in rows(path):
        name = needed(row, "Image Index", path)
        if name in images:
            yield Record(
                images[name],
                needed(row, "Patient ID", path).zfill(8),
                _view(row),
                _labels(needed(row, "Finding Labels", path)),
                tuple(marked.get(name, ())),
                splits.get(name, ""),
            )


def _view(row: Mapping[str, str]) -> str:
    view = (row.get("View Position") or "").strip()
    return view if view in ("PA", "AP") else ""


def _labels(text: str) -> dict[str, int | None]:
    named = set(text.split("|"))
    return {name: 1 if name in named else (0 if named == {"No Finding"} else None) for name in LABELS}


def _marked(path: Path) -> Mapping[str, list[Marked]]:
    """By position: the header `Bbox [x,y,w,h]` falls into four columns, and three empty ones follow."""
    found: dict[str, list[Marked]] = {}
    if not path.is_file():
        return found
    with path.open(newline="", encoding="utf-8-sig") as lines:
        for row in list(csv.reader(lines))[1:]:
            if row:
                name, kind, *numbers = row[:6]
                found.setdefault(name, []).append(Marked(_OF_BOXES.get(kind, kind), _box(numbers, path)))
    return found


def _box(numbers: list[str], path: Path) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(number) / _SIDE for number in numbers)
    except ValueError as exc:
        raise ConfigError(f"{path}: a box is not four numbers; is it the published list?") from exc
    return x, y, x + width, y + height


def _splits(place: Path) -> dict[str, str]:
    """What is for training and validation is parted as the recipe says."""
    path = place / "test_list.txt"
    return dict.fromkeys(path.read_text("utf-8").split(), "test") if path.is_file() else {}
