"""What a catalogue tells of each film, and how its lists are read."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medgem_node.errors import ConfigError

UNCERTAIN = -1
CHEXPERT_LABELS = (
    "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia",
    "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
"""Without "No Finding", which is no finding (see detector/labels.py)."""


@dataclass(frozen=True, slots=True)
class Licence:
    """Under which terms a data set is had, and where they can be read."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Marked:
    """A lesion that somebody marked, as parts of the film's width and height: x0, y0, x1, y1."""

    label: str
    box: tuple[float, float, float, float]
    sure: bool = True  # False: readers did not agree, so that it is neither lesion nor background


@dataclass(frozen=True, slots=True)
class Record:
    """A film of a data set, as its own lists tell of it."""

    image: Path
    patient: str  # films of one patient share it, in this data set
    view: str  # "PA", "AP", "lateral", or "" for a frontal view of which no more is known
    labels: Mapping[str, int | None]  # 1, 0, -1 (uncertain), None (not mentioned)
    marked: tuple[Marked, ...] = ()
    split: str = ""  # train, validation, test, as published; "" where the data set leaves it to the reader


class Catalogue(Protocol):
    """A data set. Each file of this folder, but for this one, is one."""

    LICENCE: Licence
    LABELS: tuple[str, ...]  # those that the data set has; empty: whatever its columns are

    def records(self, place: Path) -> Iterator[Record]:
        """Every film whose file is there, in the lists' order. Raises ConfigError."""


def rows(path: Path) -> Iterator[dict[str, str]]:
    """Of a CSV, or of the same packed (`.csv.gz`), as which some sets are published. Raises ConfigError."""
    packed = path.with_name(path.name + ".gz")
    try:
        if path.is_file() or not packed.is_file():
            text = path.read_text("utf-8-sig")
        else:
            text = gzip.decompress(packed.read_bytes()).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, EOFError) as exc:
        raise ConfigError(f"{path}: no list of films can be read there ({type(exc).__name__})") from exc
    yield from csv.DictReader(io.StringIO(text, newline=""))


def needed(row: Mapping[str, str], column: str, path: Path) -> str:
    """The row's value. Raises ConfigError if the list has no such column."""
    value = row.get(column)
    if value is None:
        raise ConfigError(f'{path}: there is no column "{column}", or a row is short of it; is it the published list?')
    return value.strip()


def label(text: str | None, path: Path) -> int | None:
    """1, 0, -1 (uncertain) or None (blank: not mentioned). Raises ConfigError for anything else."""
    if text is None or not text.strip():
        return None
    known = {"1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": UNCERTAIN, "-1.0": UNCERTAIN}
    if (value := known.get(text.strip())) is None:
        raise ConfigError(f"{path}: a label is 1, 0, -1 (uncertain) or blank, not {text.strip()[:16]!r}")
    return value
