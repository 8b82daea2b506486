"""What a recipe's films are, and whether any of them is learnt from and measured on as well.

Three kinds of leak: a `patient` whose films lie in two splits; a `picture` that lies in two under two patients'
numbers; two such pictures that are `alike`: one film saved twice, in another size, quality or processing. Alike are
those whose coarse structure (32 x 32, without what is coarser still) correlates by 0.94 or more. Among 1.9 million
pairs of films of different patients (NIH, JSRT, OpenIST, others) three did, which are the same film twice; the next
pair reached 0.931. Of 60 films saved again as JPEG, at half the size, cut by 1 %, or with other gamma, window or local
contrast all were found; cut by 2 % fewer than half were, cut by 4 % none.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from medgem_node.errors import ConfigError, Unreadable
from medgem_node.train.data import SPLITS, Entry, Recipe, entries
from medgem_node.train.film import Film
from medgem_node.train.pictures import shrunk

ALIKE = 0.94
_SIDE, _EDGE, _BLUR = 32, 2, 3.0
_BLOCK = 2048  # films are compared so many with so many, which takes 16 MB


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One film in its split; `look`: its coarse structure, of length 1 (or 0 of a picture that has none)."""

    source: str
    patient: tuple[str, str]
    split: str
    name: str
    digest: str
    look: NDArray[np.float32]

    def __str__(self) -> str:
        return f"{self.source} {self.name} ({self.split})"


@dataclass(frozen=True, slots=True)
class Leak:
    """Two films that lie in different splits and should not. `kind`: patient, picture or alike."""

    kind: str
    one: Seen
    other: Seen
    likeness: float = 1.0

    @property
    def into_test(self) -> bool:
        """Whether figures of the test split are spoilt, not only choices."""
        return "test" in (self.one.split, self.other.split)

    def __str__(self) -> str:
        how = f" {self.likeness:.3f}" if self.kind == "alike" else ""
        return f"{self.kind}{how}: {self.one}, {self.other}"


@dataclass(slots=True)
class Survey:
    """What was read: counts by (source, split), of labels by (source, split, label, value), and the leaks."""

    films: Counter[tuple[str, str]] = field(default_factory=Counter)
    patients: Counter[tuple[str, str]] = field(default_factory=Counter)
    labels: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    absent: list[str] = field(default_factory=list)  # sources for evaluation only that are not there
    leaks: tuple[Leak, ...] = ()

    def lines(self) -> Iterator[str]:
        """In plain words."""
        for source, split in sorted(self.films, key=lambda key: (key[0], SPLITS.index(key[1]))):
            key = source, split
            yield f"{source} {split}: {self.films[key]} films of {self.patients[key]} patients"
            for name in sorted({label for *place, label, _ in self.labels if tuple(place) == key}):
                told = [(value, n) for (*where, value), n in sorted(self.labels.items()) if where == [*key, name]]
                yield f"    {name}: {', '.join(f'{value} {n}' for value, n in told)}"
        yield from (f"{source}: {n} files hold no readable picture" for source, n in sorted(self.unreadable.items()))
        yield from (f"{source}: not there; it is for evaluation only" for source in self.absent)


def survey(recipe: Recipe, data: Path, *, fold: int | None = None) -> Survey:
    """Reads every film of every source once. Raises ConfigError."""
    made = Survey()
    seen: list[Seen] = []
    for entry in _all(recipe, data, fold, made):
        film = _readable(entry)
        if film is None:
            made.unreadable[entry.source.name] += 1
            continue
        made.films[film.source, entry.split] += 1
        made.labels.update((film.source, entry.split, *told) for told in _told(film))
        digest = hashlib.sha256(repr(film.pixels.shape).encode() + np.ascontiguousarray(film.pixels).tobytes())
        seen.append(Seen(film.source, entry.patient, entry.split, film.name, digest.hexdigest(), look(film.pixels)))
    made.patients.update((source, split) for source, split, _ in {(s.source, s.split, s.patient) for s in seen})
    made.leaks = (*_patients(seen), *_pictures(seen))
    return made


def refuse_leaks(recipe: Recipe, data: Path, report: Callable[[str], None], *, fold: int | None = None) -> None:
    """Returns if no film leaks, but for twins of training and validation that the recipe names. Raises ConfigError."""
    report("looking for films that lie in two splits")
    leaks = survey(recipe, data, fold=fold).leaks
    if new := [leak for leak in leaks if not is_known(leak, recipe)]:
        kinds = ", ".join(f"{n} by {kind}" for kind, n in sorted(Counter(leak.kind for leak in new).items()))
        raise ConfigError(
            f"{len(new)} pairs of films lie in two splits ({kinds}), {sum(leak.into_test for leak in new)} of them in "
            "test; `medgem-node data` names them: give them one group, or leave one out by `skip`"
        )
    if leaks:
        report(f"{len(leaks)} pictures lie in training and in validation, as the recipe's `twins` says")


def is_known(leak: Leak, recipe: Recipe) -> bool:
    """Whether the recipe says of it that it is there; of the test split none may be."""
    named = leak.one.name in recipe.twins or leak.other.name in recipe.twins
    return named and leak.kind != "patient" and not leak.into_test


def look(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture's coarse structure, of length 1; whatever its size, exposure and processing."""
    small = shrunk(np.asarray(pixels, np.float32), (_SIDE, _SIDE))
    low, high = np.percentile(small, (1, 99)).tolist()
    grey = np.clip((small - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    eight = Image.fromarray((grey * 255 + 0.5).astype(np.uint8)).filter(ImageFilter.GaussianBlur(_BLUR))
    fine = (grey - np.asarray(eight, np.float32) / 255)[_EDGE:-_EDGE, _EDGE:-_EDGE].ravel()
    fine -= fine.mean()
    length = float(np.linalg.norm(fine))
    return np.asarray(fine / length if length > 1e-3 else fine * 0, np.float32)


def _all(recipe: Recipe, data: Path, fold: int | None, made: Survey) -> Iterator[Entry]:
    for source in recipe.sources:
        try:
            yield from entries(replace(recipe, sources=(source,)), data, fold=fold)
        except ConfigError:
            if not source.evaluate_only:
                raise
            made.absent.append(source.name)


def _readable(entry: Entry) -> Film | None:
    film = entry.film()
    try:
        return film and film.loaded()
    except Unreadable:
        return None


def _told(film: Film) -> Iterator[tuple[str, str]]:
    """What the film teaches, as (label, value)."""
    if film.lesions is not None:
        yield "lesions", "marked" if film.lesions else "none"
    for name, target in film.labels.items():
        yield name, {0.0: "absent", 1.0: "present"}.get(target, "soft")


def _patients(seen: Sequence[Seen]) -> Iterator[Leak]:
    first: dict[tuple[str, str], Seen] = {}
    told = set()
    for film in seen:
        other = first.setdefault(film.patient, film)
        if other.split != film.split and film.patient not in told:
            told.add(film.patient)
            yield Leak("patient", other, film)


def _pictures(seen: Sequence[Seen]) -> Iterator[Leak]:
    """Each film with each of another split, as far as they are of different patients."""
    for n, one in enumerate(SPLITS):
        for two in SPLITS[n + 1 :]:
            yield from _between([s for s in seen if s.split == one], [s for s in seen if s.split == two])


def _between(ones: Sequence[Seen], others: Sequence[Seen]) -> Iterator[Leak]:
    for start in range(0, len(ones), _BLOCK):
        rows = ones[start : start + _BLOCK]
        for begin in range(0, len(others), _BLOCK):
            columns = others[begin : begin + _BLOCK]
            likeness = np.stack([s.look for s in rows]) @ np.stack([s.look for s in columns]).T
            for row, column in np.argwhere(likeness >= ALIKE).tolist():
                one, other = rows[row], columns[column]
                if one.patient != other.patient:
                    same = one.digest == other.digest
                    yield Leak("picture" if same else "alike", one, other, float(likeness[row, column]))
