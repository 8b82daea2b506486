"""MIMIC-CXR-JPG (Johnson et al. 2019): the lists of metadata, of CheXpert's labels and of the split, and `files`.

Each list is read packed (`.csv.gz`, as published) or not. Labels are of a study, and so of each of its films. Views
other than PA, AP and lateral (oblique ones, none at all) are left out.

References: Johnson et al. 2019, arXiv:1901.07042.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medgem_node.train.catalogues.catalogue import CHEXPERT_LABELS, Licence, Record, label, needed, rows

LICENCE = Licence(
    "PhysioNet Credentialed Health Data License 1.5.0",
    "https://physionet.org/content/mimic-cxr-jpg/view-license/2.1.0/",
)
LABELS = CHEXPERT_LABELS
_LIST = "mimic-cxr-2.0.0-{}.csv"
_VIEWS = {"PA": "PA", "AP": "AP", "LATERAL": "lateral", "LL": "lateral"}
_SPLITS = {"train": "train", "validate": "validation", "test": "test"}


def records(place: Path) -> Iterator[Record]:
    """Every film of the metadata whose file is there and whose study has labels."""
    path, chexpert, split = (place / _LIST.format(part) for part in ("metadata", "chexpert", "split"))
    labels = {
        (needed(row, "subject_id", chexpert), needed(row, "study_id", chexpert)): {
            name: label(row.get(name), chexpert) for name in LABELS
        }
        for row in rows(chexpert)
    }
    splits = {needed(row, "dicom_id", split): needed(row, "split", split) for row in rows(split)}
    for row in rows(path):
        name, subject, study = (needed(row, column, path) for column in ("dicom_id", "subject_id", "study_id"))
        view = _VIEWS.get((row.get("ViewPosition") or "").strip())
        image = place / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{name}.jpg"
        if view and (subject, study) in labels and image.is_file():
            part = _SPLITS.get(splits.get(name, ""), "")
            yield Record(image, f"p{subject}", view, labels[subject, study], split=part)
