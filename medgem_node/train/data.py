"""Films for training and evaluation, read from a folder as a recipe (`train.toml`) lays it out.

A site's own films join by another `[[sources]]` table. Its `kind` says what is known of a film:

`contours`  right lung, left lung and heart: `truth` is a JSON file `{film: {RL | LL | H: [[x, y], ...]}}`, x and y as
            parts of the film's width and height.
`lungs`     both lungs as one mask without the heart, in `<film><truth>` beside the film (`truth = "_lungs.png"`).
`sides`     right and left lung, as the bits 1 and 2 of a mask in `<film><truth>` beside the film.
`frontal`   only that it is an upright frontal chest radiograph.
`synthetic` computed from a CT, frontal: teaches lesions, and never what a real film looks like.
`other`     only that it is none (DICOM or image files).

What is known of a film's lesions is told in `lesions.py`.

A source with a `catalogue` is a data set as it is published, or a site's own table (`catalogue = "csv"`): `images` is
its folder, or that table. Its films are listed by its own lists (see catalogues/) and read when they are shown, so that
they need not fit into memory; its licence must be accepted (`accept_licence = true`). What it calls test stays so.

Films of one patient share a `group`, the first `group_length` characters of the file's name (0: the whole stem). The
group's SHA-256 decides the split, so that a film never moves from one split to another and no patient lies in two.
For choices, `fold` parts the patients of `train` and `validation` anew; those of `test` stay out of every fold.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
from numpy.typing import NDArray

from medgem_node.errors import ConfigError
from medgem_node.train import listed
from medgem_node.train.film import Film as Film
from medgem_node.train.lesions import Known, reader
from medgem_node.train.pictures import PICTURES, drawn, lung_masks, read_pixels
from medgem_node.train.pictures import shrunk as shrunk
from medgem_node.train.shelf import Shelf

T = TypeVar("T")
SPLITS = ("train", "validation", "test")
KINDS = ("contours", "lungs", "sides", "frontal", "synthetic", "other")
RANGES = ("rotation_degrees", "scale", "shift", "aspect", "gamma", "window", "noise", "blur")
"""Of `[augment]`, all needed."""
OPTIONS = {"elastic": 0.04, "density": 0.5, "masked": 0.5}
"""Of `[augment]`, 0 where they are not named (see augment.py), and the most that they may be."""
_CONTOURS = ("RL", "LL", "H")
_CODE_STRING = re.compile(r"[A-Z][A-Z0-9_ ]{0,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One `[[sources]]` table; `images` is a glob below the data folder, or where a catalogue's data set lies."""

    name: str
    kind: str = ""  # needed unless there is a catalogue, which tells it of each film
    images: str
    share: int  # films of each batch
    truth: str = ""
    group_length: int = 0
    test: tuple[str, ...] = ()  # beginnings of names kept for testing whatever the hash says
    skip: tuple[str, ...] = ()  # beginnings of names never read
    evaluate_only: bool = False
    labels: str = ""  # CSV with the columns image, patient, view, nih_labels: weak labels, for evaluation only
    reports: str = ""  # CSV with the columns image, text: what radiologists wrote, for the text encoder
    shows: Mapping[str, str] = field(default_factory=dict)  # beginnings of names, and what such pictures are of
    view: str = ""  # of every film, if no CSV tells it
    lesion_kind: str = ""  # see lesions.py; "": nothing is known
    lesions: str = ""
    lesion_labels: tuple[str, ...] = ()
    lesion_share: int = 0  # of `share`, how many are drawn from the films with a lesion
    paste: float = 0.0  # how often a film known to be free of lesions is given simulated ones
    catalogue: str = ""  # chexpert, nih-chestxray14, mimic-cxr-jpg, vindr-cxr, jsrt or csv
    accept_licence: bool = False  # of a catalogue: that its terms were read and allow this use
    licence: str = ""  # of a site's own table: under which terms its films are used
    policy: Mapping[str, Any] = field(default_factory=dict)  # of uncertain and blank labels, see policies.py
    laterals: bool = False  # whether a catalogue's lateral films teach the gate what it is to refuse
    patients: str = ""  # sources with the same word here number the same patients alike; default: each its own


@dataclass(frozen=True, slots=True)
class Pretrain:
    """The table `[pretrain]`, a first stage on pictures alone; see pretrain.py."""

    steps: int = 0
    masked: float = 0.6  # part of the blocks that are hidden
    block: int = 32  # pixels along a block's side


@dataclass(frozen=True, slots=True)
class Recipe:
    """`train.toml`: what weights come from. The same recipe, data and seed give the same weights up to rounding."""

    seed: int
    cycle_ends: tuple[
        int, ...
    ]  # steps at which the learning rate has fallen to its end; each but the first starts at half
    validation_joins: int  # from this step on, validation films are trained on too: choices are made before
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    ema_decay: float
    turned_share: int  # films of each batch that are shown rotated, upside down, mirrored, inverted or cropped
    loss: Mapping[str, float]
    split: Mapping[str, int]  # per cent of the patients
    augment: Mapping[str, float]
    sources: tuple[Source, ...]
    stem_rate: float = 1.0  # learning rate of the ImageNet stem, as a part of the others'
    mirror_lesions: float = 0.0  # how often a film with known lesions is shown mirrored; the gate is told so
    folds: int = 3  # for choices by cross-validation
    small_size: int = 0  # films are shown this small at first, which costs less
    small_steps: int = 0  # until this step
    restart_rate: float = 0.5  # where each cycle but the first starts, as a part of `learning_rate`
    stop_by: str = ""  # a figure of the validation, as `jsrt@1`; the weights that did best by it are kept
    patience: int = 0  # steps without a better figure after which training ends; 0: it never ends early
    precision: str = "float32"  # of what the network computes: or "bfloat16", or "float16"; its weights are float32
    checkpointing: bool = False  # attention is computed twice instead of kept for the gradient: slower, less memory
    mask_loss: str = "entropy"  # beside Dice: cross-entropy, or "focal", which minds what is easy less
    pretrain: Pretrain = field(default_factory=Pretrain)
    memory_mb: int = 1024  # for prepared films of catalogues; those shown longest ago are read again
    twins: tuple[str, ...] = ()  # films known to lie in training and in validation, left there; see leaks.py
    cache: str = ""  # folder in which prepared films of catalogues are kept; "": none

    def size_at(self, step: int, size: int) -> int:
        """Pixels along each side of the square that the network learns on at a step."""
        return self.small_size if step < self.small_steps else size

    @property
    def steps(self) -> int:
        """All of them."""
        return self.cycle_ends[-1]


def read_recipe(path: Path) -> Recipe:
    """The recipe at `path`. Raises ConfigError."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        sources = tuple(_table(Source, source, path) for source in table.pop("sources"))
        first = _table(Pretrain, table.pop("pretrain", {}), path)
    except (OSError, tomllib.TOMLDecodeError, KeyError) as exc:
        raise ConfigError(f"{path}: no recipe: {exc}") from exc
    recipe = _table(Recipe, {**table, "sources": sources, "pretrain": first}, path)
    _check(recipe, path)
    return recipe


def _check(recipe: Recipe, path: Path) -> None:
    if odd := sorted(recipe.augment.keys() - {*RANGES, *OPTIONS}):
        raise ConfigError(f'{path}: unknown key "{odd[0]}" in [augment]; known are {", ".join((*RANGES, *OPTIONS))}')
    if far := [name for name, most in OPTIONS.items() if not 0 <= recipe.augment.get(name, 0) <= most]:
        raise ConfigError(f"{path}: {far[0]} in [augment] lies between 0 and {OPTIONS[far[0]]}")
    for source in recipe.sources:
        if not source.catalogue and (source.kind not in KINDS or source.policy):
            raise ConfigError(f"{path}: source {source.name} needs a kind ({', '.join(KINDS)}), or a catalogue")


def _table(kind: type[T], table: Mapping[str, Any], path: Path) -> T:
    if odd := sorted(table.keys() - {f.name for f in fields(kind)}):  # type: ignore[arg-type]
        raise ConfigError(f'{path}: unknown key "{odd[0]}"')
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
    except TypeError as exc:
        raise ConfigError(f"{path}: {exc}") from exc


def split_of(group: str, split: Mapping[str, int]) -> str:
    """`train`, `validation` or `test`, by the group's SHA-256."""
    place = int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") % 100
    if place < split["test"]:
        return "test"
    return "validation" if place < split["test"] + split["validation"] else "train"


def fold_of(group: str, folds: int) -> int:
    """In which of the folds a patient of `train` or `validation` lies."""
    return int.from_bytes(hashlib.sha256(b"fold:" + group.encode()).digest()[:4], "big") % folds


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source: whose it is, in which split it lies, and the film, if it holds one."""

    source: Source
    path: Path
    group: str
    split: str
    film: Callable[[], Film | None]

    @property
    def patient(self) -> tuple[str, str]:
        """Who it is of: whose numbers they are, and the number."""
        return self.source.patients or self.source.catalogue.replace("csv", "") or self.source.name, self.group


def entries(recipe: Recipe, data: Path, *, training: bool = False, fold: int | None = None) -> Iterator[Entry]:
    """Every file of every source (`training`: but for those that are for evaluation only). Raises ConfigError."""
    shelf = Shelf(recipe.memory_mb << 20, data / recipe.cache if recipe.cache else None)
    for source in recipe.sources:
        if training and source.evaluate_only:
            continue
        own = _of_catalogue(source, recipe, data, shelf) if source.catalogue else _of_folder(source, recipe, data)
        some = False
        for entry in own:
            some = True
            if fold is None or entry.split == "test":
                yield entry
            else:
                yield replace(entry, split="validation" if fold_of(entry.group, recipe.folds) == fold else "train")
        if not some:
            raise ConfigError(f"{data}: no film matches {source.images} of source {source.name}")


def read_films(
    recipe: Recipe, data: Path, split: str, *, training: bool = False, fold: int | None = None
) -> list[Film]:
    """The films of one split; those for evaluation only are in `test`. Raises ConfigError if a source has none.

    With a `fold`, `validation` is that fold and `train` all others. Films of a catalogue are not `loaded`.
    """
    found = list(entries(recipe, data, training=training, fold=fold))
    if training:
        refuse_torn_patients(found)
    return [film for entry in found if entry.split == split and (film := entry.film())]


def refuse_torn_patients(found: Sequence[Entry]) -> None:
    """Returns if each patient lies in one split. Raises ConfigError."""
    split_of_patient: dict[tuple[str, str], str] = {}
    if torn := {e.patient for e in found if split_of_patient.setdefault(e.patient, e.split) != e.split}:
        raise ConfigError(
            f"{len(torn)} patients have films in two splits; `medgem-node data` names them: a data set's own splits "
            "and those of another source disagree, so leave one of the two out"
        )


def licences(recipe: Recipe) -> tuple[str, ...]:
    """A line for each source with a catalogue: under which terms its films are used. Raises ConfigError."""
    told = [(source, listed.licence(source)) for source in recipe.sources if source.catalogue]
    return tuple(f"{source.name}: {terms.name} {terms.url}".rstrip() for source, terms in told)


def _of_folder(source: Source, recipe: Recipe, data: Path) -> Iterator[Entry]:
    paths = _paths(source, data)
    if not paths:
        return
    contours, views = _contours(source, data), _views(source, data)
    known = reader(source.lesion_kind, source.lesions, source.lesion_labels, source.labels, data)
    for path in paths:
        group = _group(source, path)
        split = _split(source, group, path.name, recipe.split)
        yield Entry(source, path, group, split, partial(_film, source, path, contours, views, known))


def _of_catalogue(source: Source, recipe: Recipe, data: Path, shelf: Shelf) -> Iterator[Entry]:
    for record, film in listed.films(source, data, shelf):
        split = record.split or _split(source, record.patient, record.image.name, recipe.split)
        split = "test" if source.evaluate_only else split
        yield Entry(source, record.image, record.patient, split, partial(_same, film))


def _same(film: Film) -> Film:
    return film


def _paths(source: Source, data: Path) -> list[Path]:
    ends: tuple[str, ...] = (source.truth if source.kind in ("lungs", "sides") else "\0",)
    ends += (source.lesions,) if source.lesion_kind == "masks" else ()
    return sorted(
        p
        for p in data.glob(source.images)
        if p.is_file() and not p.name.endswith(ends) and not p.name.startswith(source.skip)
    )


def _group(source: Source, path: Path) -> str:
    return path.stem[: source.group_length] if source.group_length else path.stem


def _split(source: Source, group: str, name: str, split: Mapping[str, int]) -> str:
    if source.evaluate_only or (source.test and name.startswith(source.test)):
        return "test"
    return "train" if source.test else split_of(group, split)  # named test films: all others are for training


def _contours(source: Source, data: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((data / source.truth).read_text("utf-8")) if source.kind == "contours" else {}
    return found


def _views(source: Source, data: Path) -> Mapping[str, str]:
    if not source.labels:
        return {}
    with (data / source.labels).open(newline="", encoding="utf-8") as lines:
        return {row["image"]: row["view"] for row in csv.DictReader(lines)}


def _film(
    source: Source, path: Path, contours: Mapping[str, Any], views: Mapping[str, str], known: Known
) -> Film | None:
    pixels = read_pixels(path)
    if pixels is None:
        return None
    truth: NDArray[np.float32] | None = None
    if source.kind == "contours" and set(_CONTOURS) <= contours.get(path.stem, {}).keys():
        truth = drawn([contours[path.stem][key] for key in _CONTOURS], pixels.shape)
    elif source.kind in ("lungs", "sides"):
        truth = lung_masks(path.with_name(path.stem + source.truth), source.kind)
    elif source.kind == "other":
        truth = np.zeros((3, *pixels.shape), np.float32)
    view = views.get(path.name, source.view)
    shows = _shown(source, path) if source.kind == "other" else ""
    return Film(path.stem, _group(source, path), source.name, source.kind, pixels, truth, known(path), view, shows)


def _shown(source: Source, path: Path) -> str:
    """What a picture is of: as the recipe says, else the modality and the part of the body that its header names."""
    if told := next((text for start, text in source.shows.items() if path.name.startswith(start)), ""):
        return told
    if path.suffix.lower() in PICTURES:
        return "image file"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    words = (str(header.get(keyword, "")) for keyword in ("Modality", "BodyPartExamined"))
    return " ".join(w for w in words if _CODE_STRING.fullmatch(w)) or "unknown"
