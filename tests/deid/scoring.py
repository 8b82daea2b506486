"""What a tool made of the planted corpus: what it let through, what it lost, and which references it broke."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from planted import Corpus, Planted
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian


@dataclass(frozen=True, slots=True)
class Score:
    """What a tool made of the corpus. `broken` references lead nowhere, `dropped` ones are gone."""

    written: int
    leaks: tuple[Planted, ...]
    lost: tuple[str, ...]
    broken: tuple[str, ...]
    dropped: tuple[str, ...]
    references: int


def score(corpus: Corpus, copies: Path) -> Score:
    """Search the copies, which have the names of their originals, for what had to go, to stay and to lead on."""
    leaks: list[Planted] = []
    lost: list[str] = []
    by_file: dict[str, list[Planted]] = {}
    for planted in corpus.planted:
        by_file.setdefault(planted.file, []).append(planted)
    made = {file: copies / file for file in corpus.core if (copies / file).is_file()}
    read = {file: dcmread(path, force=True) for file, path in made.items()}
    for file, path in made.items():
        data = searchable(path.read_bytes())
        leaks += [planted for planted in by_file[file] if _stands(planted.token, data)]
        lost += [f"{file} {k}" for k, v in corpus.core[file].items() if str(read[file].get(k, "")) != v]
    broken, dropped, count = [], [], 0
    for file, references in corpus.references.items():
        for path, to in references if file in read else ():
            count += 1
            uid = _at(read[file], path)
            if uid is None:
                dropped.append(f"{file} {path}")
            elif to not in read or uid != read[to].get("SOPInstanceUID"):
                broken.append(f"{file} {path}")
    return Score(len(made), tuple(leaks), tuple(lost), tuple(broken), tuple(dropped), count)


def searchable(data: bytes) -> bytes:
    """A file's bytes, inflated."""
    if data[128:132] == b"DICM" and DeflatedExplicitVRLittleEndian.encode() in data[:600]:
        begin = 144 + int.from_bytes(data[140:144], "little")
        return data[:begin] + zlib.decompress(data[begin:], -zlib.MAX_WBITS)
    return data


def _stands(token: bytes, data: bytes) -> bool:
    """Whether a token is there; digits only where a number begins, for UIDs hold every digit."""
    if token not in data:
        return False
    return not token.isdigit() or re.search(rb"(?<!\d)" + token, data) is not None


def _at(ds: Dataset, path: str) -> str | None:
    """The instance that the item at `path` refers to; None if it is no longer there."""
    here: object = ds
    for step in path.split("."):
        try:
            here = here[int(step)] if step.isdigit() else here[step].value  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return str(here.get("ReferencedSOPInstanceUID")) if isinstance(here, Dataset) else None
