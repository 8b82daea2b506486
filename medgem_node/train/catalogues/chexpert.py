"""CheXpert (Irvin et al. 2019): `train.csv`, `valid.csv` and the folders `train`, `valid` as unpacked.

Its columns: Path, Sex, Age, Frontal/Lateral, AP/PA, then fourteen labels of 1.0, 0.0, -1.0 or blank. Paths begin with
the name of the archive (`CheXpert-v1.0/`, `CheXpert-v1.0-small/`), which need not be the folder's. `valid` was labelled
by three radiologists and is kept for testing.

References: Irvin et al. 2019, arXiv:1901.07031.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from medgem_node.errors import ConfigError
from medgem_node.train.catalogues.catalogue import CHEXPERT_LABELS, Licence, Record, label, needed, rows

LICENCE = Licence("Stanford University Dataset Research Use Agreement", "https://aimi.stanford.edu/datasets")
LABELS = CHEXPERT_LABELS
_SPLITS = {"train": "", "valid": "test"}


def records(place: Path) -> Iterator[Record]:
    """Every film of `train.csv` and `valid.csv` whose file is there."""
    for part, split in _SPLITS.items():
        path = place / f"{part}.csv"
        for row in rows(path):
            below = _below(needed(row, "Path", path), path)
            image = place / below
            if image.is_file():
                labels = {name: label(row.get(name), path) for name in LABELS}
                yield Record(image, below.parts[1], _view(row, path), labels, split=split)


def _below(written: str, path: Path) -> PurePosixPath:
    """From `train` or `valid` on: train/patient00001/study1/view1_frontal.jpg."""
    parts = PurePosixPath(written).parts
    start = next((n for n, part in enumerate(parts) if part in _SPLITS), None)
    if start is None or len(parts) < start + 3:
        raise ConfigError(f"{path}: a path is not .../train/patient.../study.../view...; is it the published list?")
    return PurePosixPath(*parts[start:])


def _view(row: dict[str, str], path: Path) -> str:
    if needed(row, "Frontal/Lateral", path) != "Frontal":
        return "lateral"
    view = (row.get("AP/PA") or "").strip()
    return view if view in ("AP", "PA") else ""
