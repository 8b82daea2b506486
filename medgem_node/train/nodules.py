"""Simulated nodules and masses, put into the lungs of real films that have none.

A nodule adds the thickness of a lumpy ball to what the ray has passed already. These teach only; nothing is ever
measured on them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from medgem_node.train.data import Film, shrunk
from medgem_node.train.lesions import Lesion

_GRID = 64  # where lungs usually lie is known this finely, as parts of a film's width and height
_USUAL = 0.85  # of the films, at least this part has lung there
_SIDES = (0.022, 0.13)  # of the film's width: 8 to 45 mm
_CONTRASTS = (0.05, 0.32)  # of the film's grey range
_ANGLES = 6  # harmonics of the outline


def usual_lungs(films: Sequence[Film]) -> NDArray[np.float32]:
    """Where the lungs lie in the films that have their masks, as a mean: (64, 64)."""
    masks = [mask for film in films if (mask := _own_lungs(film)) is not None]
    lungs = [shrunk(mask.astype(np.float32), (_GRID, _GRID)) for mask in masks]
    mean: NDArray[np.float32] = np.mean(lungs, axis=0) if lungs else np.zeros((_GRID, _GRID), np.float32)
    return mean


def with_nodules(film: Film, usual: NDArray[np.float32], rng: Generator) -> Film:
    """A prepared film with one to four nodules in its own lungs, or where lungs usually lie."""
    rows, columns = film.pixels.shape
    own = _own_lungs(film)
    lungs = usual > _USUAL if own is None else own
    places = np.argwhere(lungs)
    if not len(places):
        return film
    grey: NDArray[np.float32] = (film.pixels / 255).astype(np.float32)
    lesions = []
    for _ in range(min(int(rng.geometric(0.6)), 4)):
        row, column = (places[rng.integers(len(places))] + rng.random(2)) / lungs.shape * (rows, columns)
        side = _between(_SIDES, rng) * columns
        lesions.append(_add(grey, float(row), float(column), side, rng))
    pixels = np.asarray(np.clip(grey, 0, 1) * 255 + 0.5, np.uint8)
    return replace(film, pixels=pixels, lesions=tuple(lesions))


def _own_lungs(film: Film) -> NDArray[np.bool_] | None:
    if film.truth is None or not film.is_frontal or not film.truth[:2].any():
        return None
    return np.asarray(film.truth[:2].max(axis=0) > 127)


def _add(grey: NDArray[np.float32], row: float, column: float, side: float, rng: Generator) -> Lesion:
    """Adds one to `grey`, in place."""
    rows, columns = grey.shape
    reach = int(side) + 3
    y = np.arange(max(int(row) - reach, 0), min(int(row) + reach + 1, rows))
    x = np.arange(max(int(column) - reach, 0), min(int(column) + reach + 1, columns))
    dy, dx = (y + 0.5 - row)[:, None], (x + 0.5 - column)[None]
    stretch, turn = math.exp(rng.normal(0, 0.15)), rng.uniform(0, math.pi)
    u = (dx * math.cos(turn) + dy * math.sin(turn)) * stretch
    v = (-dx * math.sin(turn) + dy * math.cos(turn)) / stretch
    outline = 1 + _lumps(np.arctan2(v, u), rng)
    away = np.hypot(u, v) / (side / 2 * outline)
    thick = np.clip(1 - away**2, 0, None) ** rng.uniform(0.4, 1.1)
    texture = 1 + rng.uniform(0, 0.35) * _texture(thick.shape, rng)
    contrast = _between(_CONTRASTS, rng) * (0.6 + 0.4 * min(1.0, side / columns / 0.06))
    part = grey[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
    room = 1 - 0.6 * part  # dense tissue before and behind leaves less to see
    added = contrast * thick * texture * room
    part += _softened(added, rng.uniform(0.3, 1.0))
    seen_y, seen_x = np.nonzero(thick > 0.15)
    if not len(seen_y):
        seen_y, seen_x = np.array([len(y) // 2]), np.array([len(x) // 2])
    return Lesion((
        float(x[seen_x.min()]) / columns, float(y[seen_y.min()]) / rows,
        float(x[seen_x.max()] + 1) / columns, float(y[seen_y.max()] + 1) / rows,
    ))  # fmt: skip


def _between(ends: tuple[float, float], rng: Generator) -> float:
    """A number between the two, its logarithm evenly spread."""
    return ends[0] * float((ends[1] / ends[0]) ** rng.random())


def _lumps(angle: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    size = rng.uniform(0, 0.16)
    waves = [np.sin(n * angle + rng.uniform(0, 2 * math.pi)) / n for n in range(2, _ANGLES)]
    return np.asarray(size * np.sum([rng.normal() * wave for wave in waves], axis=0)).clip(-0.4, 0.4)


def _texture(shape: tuple[int, ...], rng: Generator) -> NDArray[np.float32]:
    coarse = rng.normal(0, 1, (5, 5)).astype(np.float32)
    return shrunk(coarse, (shape[0], shape[1]))


def _softened(values: NDArray[np.float64], pixels: float) -> NDArray[np.float32]:
    """As unsharp as a film is: a small box, twice."""
    soft = values.astype(np.float32)
    for axis in (0, 1):
        soft = (1 - pixels / 2) * soft + pixels / 4 * (np.roll(soft, 1, axis) + np.roll(soft, -1, axis))
    return soft
