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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medgem_node.detector.measure import connected_parts
from medgem_node.errors import ConfigError
from medgem_node.train.lesions import Known, Lesion, reader

T = TypeVar("T")
SPLITS = ("train", "validation", "test")
_CONTOURS = ("RL", "LL", "H")
_PICTURES = (".png", ".jpg", ".jpeg")
_CODE_STRING = re.compile(r"[A-Z][A-Z0-9_ ]{0,15}")
_FINE = 1024  # contours are drawn this large, then averaged down: a soft edge, and no half pixel too wide


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """One film and what is known of it. `truth`: (3, rows, columns): right lung, left lung, heart.

    Grey and truth are float; of a film that `augment.prepared` made, they are 0..255 in eight bits.
    """

    name: str
    group: str
    source: str
    kind: str
    pixels: NDArray[Any]
    truth: NDArray[Any] | None = None
    lesions: tuple[Lesion, ...] | None = None  # None: nothing is known; empty: it is known that there is none
    view: str = ""  # "PA", "AP", or "" if not known
    shows: str = ""  # of kind `other`: what the picture is of

    @property
    def known(self) -> tuple[bool, bool, bool]:
        """Of which of the three masks there is a truth."""
        if self.truth is None:
            return False, False, False
        return True, True, self.kind in ("contours", "other")

    @property
    def is_frontal(self) -> bool:
        """Whether the gate should let it through."""
        return self.kind not in ("other", "synthetic")


@dataclass(frozen=True, slots=True)
class Source:
    """One `[[sources]]` table; `images` is a glob below the data folder."""

    name: str
    kind: str
    images: str
    share: int  # films of each batch
    truth: str = ""
    group_length: int = 0
    test: tuple[str, ...] = ()  # beginnings of names kept for testing whatever the hash says
    skip: tuple[str, ...] = ()  # beginnings of names never read
    evaluate_only: bool = False
    labels: str = ""  # CSV with the columns image, patient, view, nih_labels: weak labels, for evaluation only
    shows: Mapping[str, str] = field(default_factory=dict)  # beginnings of names, and what such pictures are of
    view: str = ""  # of every film, if no CSV tells it
    lesion_kind: str = ""  # see lesions.py; "": nothing is known
    lesions: str = ""
    lesion_labels: tuple[str, ...] = ()
    lesion_share: int = 0  # of `share`, how many are drawn from the films with a lesion
    paste: float = 0.0  # how often a film known to be free of lesions is given simulated ones


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
    return _table(Recipe, {**table, "sources": sources, "pretrain": first}, path)


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


def read_films(
    recipe: Recipe, data: Path, split: str, *, training: bool = False, fold: int | None = None
) -> list[Film]:
    """The films of one split; those for evaluation only are in `test`. Raises ConfigError if a source has none.

    With a `fold`, `validation` is that fold and `train` all others.
    """
    films: list[Film] = []
    for source in recipe.sources:
        if training and source.evaluate_only:
            continue
        paths = _paths(source, data)
        if not paths:
            raise ConfigError(f"{data}: no film matches {source.images} of source {source.name}")
        contours, views = _contours(source, data), _views(source, data)
        known = reader(source.lesion_kind, source.lesions, source.lesion_labels, source.labels, data)
        for path in paths:
            own = _split(source, _group(source, path), path.name, recipe.split)
            if fold is not None and own != "test":
                own = "validation" if fold_of(_group(source, path), recipe.folds) == fold else "train"
            if own == split and (film := _film(source, path, contours, views, known)):
                films.append(film)
    return films


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
        truth = _drawn([contours[path.stem][key] for key in _CONTOURS], pixels.shape)
    elif source.kind in ("lungs", "sides"):
        truth = _lungs(path.with_name(path.stem + source.truth), source.kind)
    elif source.kind == "other":
        truth = np.zeros((3, *pixels.shape), np.float32)
    view = views.get(path.name, source.view)
    shows = _shown(source, path) if source.kind == "other" else ""
    return Film(path.stem, _group(source, path), source.name, source.kind, pixels, truth, known(path), view, shows)


def _shown(source: Source, path: Path) -> str:
    """What a picture is of: as the recipe says, else the modality and the part of the body that its header names."""
    if told := next((text for start, text in source.shows.items() if path.name.startswith(start)), ""):
        return told
    if path.suffix.lower() in _PICTURES:
        return "image file"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    words = (str(header.get(keyword, "")) for keyword in ("Modality", "BodyPartExamined"))
    return " ".join(w for w in words if _CODE_STRING.fullmatch(w)) or "unknown"


def read_pixels(path: Path) -> NDArray[np.float32] | None:
    """(rows, columns), bright = dense; None if the file holds no readable picture of 64 pixels or more a side."""
    if path.suffix.lower() in _PICTURES:
        return np.asarray(Image.open(path).convert("L"), np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd headers are no news here
            dataset = pydicom.dcmread(path, force=True)
            pixels = np.asarray(dataset.pixel_array, np.float32)
    except Exception:  # a folder of odd files: whatever a decoder raises means that it is no picture
        return None
    if dataset.get("SamplesPerPixel", 1) == 3:
        pixels = pixels.mean(axis=-1)
    while pixels.ndim > 2:
        pixels = pixels[len(pixels) // 2]
    if min(pixels.shape) < 64 or max(pixels.shape) > 6000 or np.ptp(pixels) == 0:
        return None
    return -pixels if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else pixels


def _drawn(contours: Sequence[Sequence[Sequence[float]]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.stack([shrunk(_polygon(contour), (shape[0], shape[1])) for contour in contours])


def _polygon(contour: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    image = Image.new("L", (_FINE, _FINE))
    ImageDraw.Draw(image).polygon([(x * _FINE - 0.5, y * _FINE - 0.5) for x, y in contour], fill=1)
    return np.asarray(image, np.float32)


def shrunk(values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """(rows, columns), averaged (or interpolated) to `shape`."""
    image = Image.fromarray(values).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)


def _lungs(path: Path, kind: str) -> NDArray[np.float32]:
    labels: NDArray[Any] = np.asarray(Image.open(path))
    if kind == "sides":
        lungs = np.stack((labels & 1 > 0, labels & 2 > 0))
    else:
        first, second = sorted(connected_parts(np.asarray(labels > 0)), key=np.count_nonzero)[-2:]
        in_order = _middle_column(first) < _middle_column(second)
        lungs = np.stack((first, second) if in_order else (second, first))
    return np.concatenate((lungs, np.zeros_like(lungs[:1]))).astype(np.float32)


def _middle_column(mask: NDArray[np.bool_]) -> float:
    return float(np.flatnonzero(mask.any(axis=0)).mean())
