"""Batch number n: films by the recipe's shares, each as another hospital might have taken it, with all that is known.

A batch depends on the seed and its number only, so an interrupted training goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from medgem_node.detector.boxes import Truth, encode
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.measure import chest_lines
from medgem_node.detector.preprocess import to_tensor
from medgem_node.errors import ConfigError, Unreadable
from medgem_node.finding import Point
from medgem_node.train.augment import turned, with_lesions
from medgem_node.train.data import Recipe, Source
from medgem_node.train.film import Film
from medgem_node.train.loss import UNKNOWN, Target
from medgem_node.train.nodules import with_nodules

_STRIDE = 4  # of the heatmaps
_SIGMA_CELLS = (1.25, 2.0)  # across and along: the border's side is what counts, its level is less certain
_MIRRORED = "mirrored"
_TRIES = 64  # films of a source in a row that cannot be read, before training gives up


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """The batches of one training. `usual_lungs`: see nodules.py."""

    recipe: Recipe
    config: NetworkConfig
    films: Sequence[Film]
    held_back: Sequence[Film] = ()
    usual_lungs: NDArray[np.float32] | None = None
    _pools: dict[bool, _Pools] = field(default_factory=dict, init=False, repr=False)

    def batch(self, step: int) -> tuple[Tensor, Target]:
        """(B, 1, H, W) and its truth; the same for the same step."""
        rng = np.random.default_rng((self.recipe.seed, step))
        size = self.recipe.size_at(step, self.config.size)
        samples = [self._sample(film, kind, size, rng) for film, kind in self._chosen(step, rng)]
        samples.sort(key=lambda sample: not _is_drawn(sample))  # those with a truth to draw come first
        drawn = sum(map(_is_drawn, samples))
        arrays = [torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True)]
        images, whole, maps, labels = arrays[0], arrays[1:3], arrays[3:-2], arrays[-2:]
        target = Target(*whole, *(m[:drawn] for m in maps), *labels)
        return images.contiguous(memory_format=torch.channels_last), target

    def ahead(self, first: int, end: int) -> Iterator[tuple[Tensor, Target]]:
        """The batches `first` to `end`, each made while the one before is learnt from."""
        with ThreadPoolExecutor(1) as maker:
            coming = maker.submit(self.batch, first)
            for step in range(first + 1, end + 1):
                now, coming = coming.result(), maker.submit(self.batch, step)
                yield now

    def _chosen(self, step: int, rng: Generator) -> list[tuple[Film, str]]:
        """Films with the gate's class that each is to show."""
        pools = self._pooled(step >= self.recipe.validation_joins)
        chosen = []
        for source in self.recipe.sources:
            for film in self._of(source, pools, rng):
                chosen.append((film, self._shown(film, rng)))
        for n in rng.integers(0, len(pools.frontal), self.recipe.turned_share):
            chosen.append((_readable(pools.frontal, int(n)), str(rng.choice(self.config.classes[1:]))))
        return chosen

    def _pooled(self, joined: bool) -> _Pools:
        """Sorted once: a site may have 100 000 films."""
        if joined not in self._pools:
            self._pools[joined] = _Pools.of([*self.films, *(self.held_back if joined else ())])
        return self._pools[joined]

    def _of(self, source: Source, pools: _Pools, rng: Generator) -> Iterator[Film]:
        own, ill = pools.own.get(source.name, ()), pools.ill.get(source.name, ())
        for n in rng.integers(0, len(own), source.share - source.lesion_share) if own else ():
            yield self._pasted(_readable(own, int(n)), source, rng)
        for n in rng.integers(0, len(ill), source.lesion_share) if ill else ():
            yield _readable(ill, int(n))

    def _pasted(self, film: Film, source: Source, rng: Generator) -> Film:
        if film.lesions != () or self.usual_lungs is None or rng.random() >= source.paste:
            return film
        return with_nodules(film, self.usual_lungs, rng)

    def _shown(self, film: Film, rng: Generator) -> str:
        if film.kind == "other":
            return "other"
        if film.lesions and rng.random() < self.recipe.mirror_lesions:
            return _MIRRORED
        return self.config.classes[0]

    def _sample(self, film: Film, kind: str, size: int, rng: Generator) -> tuple[NDArray[np.generic], ...]:
        grey, truth, lesions = with_lesions(film, size, self.recipe.augment, rng)
        known, taught = film.known, film.lesions is not None
        if film.kind == "other":
            grey = np.rot90(grey[:, :: int(rng.choice((1, -1)))], int(rng.integers(4)))
        elif kind != self.config.classes[0]:
            grey, known, taught = turned(grey, kind, rng), (False,) * 3, taught and kind == _MIRRORED
            lesions = tuple(_mirrored(lesion, size) for lesion in lesions)
        points, points_known = point_maps(truth, known)
        gate = self.config.classes.index(kind) if film.kind != "synthetic" else UNKNOWN
        views = self.config.views
        view = views.index(film.view) if film.view in views and kind == self.config.classes[0] else UNKNOWN
        labels, labels_known = self._labels(film, kind)
        boxes = encode(lesions if taught else (), len(self.config.boxes), size // _STRIDE, size // _STRIDE)
        return (
            _input(np.ascontiguousarray(grey), size), np.array(gate), np.array(view),
            truth, np.array(known, np.float32), points, points_known,
            boxes.heat, boxes.weight * np.float32(taught), boxes.geometry, boxes.known,
            labels, labels_known,
        )  # fmt: skip

    def _labels(self, film: Film, kind: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What is to be said of each of the network's labels, and where that is known; only of a film as it was."""
        names, upright = self.config.labels, kind == self.config.classes[0]
        known = [upright and name in film.labels for name in names]
        return np.array([film.labels.get(name, 0) for name in names], np.float32), np.array(known, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Pools:
    """Which films can be drawn from, in the order in which they were read."""

    frontal: Sequence[Film]
    own: Mapping[str, Sequence[Film]]  # by source
    ill: Mapping[str, Sequence[Film]]  # likewise, those with a lesion

    @classmethod
    def of(cls, films: Sequence[Film]) -> _Pools:
        own: dict[str, list[Film]] = {}
        for film in films:
            own.setdefault(film.source, []).append(film)
        ill = {name: [film for film in some if film.lesions] for name, some in own.items()}
        return cls([film for film in films if film.is_frontal], own, ill)


def _readable(films: Sequence[Film], n: int) -> Film:
    """Film `n`, loaded, or the next that can be. Raises ConfigError."""
    for at in range(n, n + _TRIES):
        try:
            return films[at % len(films)].loaded()
        except Unreadable:
            continue
    source = films[n].source
    raise ConfigError(f"source {source}: {_TRIES} films in a row cannot be read; `medgem-node data` counts such")


def _is_drawn(sample: tuple[NDArray[np.generic], ...]) -> bool:
    """Whether a truth of masks or of lesions is known of it."""
    return bool(sample[4].any()) or bool(sample[8].any() and sample[7].shape[0])


def _mirrored(lesion: Truth, size: int) -> Truth:
    x0, y0, x1, y1 = lesion.box_xyxy
    return replace(lesion, box_xyxy=(size - x1, y0, size - x0, y1))


def point_maps(truth: NDArray[np.float32], known: Sequence[bool]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A peak at each point of the measurement, on masks of (3, H, W): (4, H/4, W/4); and which of them are known."""
    rows, columns = (n // _STRIDE for n in truth.shape[1:])
    maps = np.zeros((4, rows, columns), np.float32)
    lines = chest_lines(truth[0] > 0.5, truth[1] > 0.5, truth[2] > 0.5 if known[2] else np.ones(truth.shape[1:], bool))
    if lines is None:
        return maps, np.zeros(4, np.float32)
    for peak, point in zip(maps, lines.points, strict=True):
        peak[:] = _peak(point, rows, columns)
    return maps, np.array([known[2], known[2], known[0] and known[1], known[0] and known[1]], np.float32)


def _peak(point: Point, rows: int, columns: int) -> NDArray[np.float32]:
    column = min(max(int(point.x / _STRIDE), 0), columns - 1)
    row = min(max(int(point.y / _STRIDE), 0), rows - 1)
    x = (np.arange(columns, dtype=np.float32) - column) / _SIGMA_CELLS[0]
    y = (np.arange(rows, dtype=np.float32) - row) / _SIGMA_CELLS[1]
    return np.exp(-0.5 * (x**2 + y[:, None] ** 2))


def _input(grey: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    if np.ptp(grey) < 1e-3:  # nothing to scale by; the detector refuses such an image before the network
        return np.full((1, size, size), -2.0, np.float32)
    return to_tensor(grey * 255, size)[0]
