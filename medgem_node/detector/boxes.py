"""Boxes and the maps that stand for them: `encode` is what the box head is taught, `decode` what it is read by.

A lesion is a peak of its kind's map in the cell that holds the box's centre; there, four more maps hold where in the
cell the centre lies (0..1, right and down) and the logarithm of width and height in cells. Coordinates of boxes are
corner-based pixels of the network's input, as in `preprocess.py`.

References: Zhou et al. 2019 (objects as points), arXiv:1904.07850.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

STRIDE = 4
_LARGEST_LOG_CELLS = 6.0
_SUREST = 700.0  # a logit beyond which exp() leaves what a float holds
_QUERY_REACH = 8.0  # cells that a refined centre may lie beyond its peak's: half a large mass
_SMALLEST_SIGMA = 1.2  # cells: a mark is not surer than that of a nodule's centre

Maps = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Truth:
    """One lesion that is known of, for `encode`."""

    box_xyxy: tuple[float, float, float, float]
    kind: int = 0
    sized: bool = True  # False: only the centre is known, the box is a usual one around it
    counts: bool = True  # False: neither lesion nor background is taught there


@dataclass(frozen=True, slots=True)
class Encoded:
    """What `encode` makes: the peaks, what is taught where, and the geometry at the centres."""

    heat: Maps  # (kinds, h, w), 0..1, 1 at a centre
    weight: Maps  # (1, h, w), 0 where nothing is taught
    geometry: Maps  # (4, h, w)
    known: Maps  # (2, h, w): 1 where offset and where size are taught


def encode(lesions: Sequence[Truth], kinds: int, rows: int, columns: int) -> Encoded:
    """The maps of `rows` x `columns` cells for these lesions; a centre outside the image is left out."""
    made = Encoded(
        np.zeros((kinds, rows, columns), np.float32), np.ones((1, rows, columns), np.float32),
        np.zeros((4, rows, columns), np.float32), np.zeros((2, rows, columns), np.float32),
    )  # fmt: skip
    for lesion in lesions:
        x0, y0, x1, y1 = (v / STRIDE for v in lesion.box_xyxy)
        x, y, width, height = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0
        column, row = math.floor(x), math.floor(y)
        if not (0 <= column < columns and 0 <= row < rows and width > 0 and height > 0):
            continue
        if not lesion.counts:
            made.weight[0, max(math.floor(y0), 0) : math.ceil(y1), max(math.floor(x0), 0) : math.ceil(x1)] = 0
            continue
        peak = _peak(row, column, height, width, rows, columns)
        np.maximum(made.heat[lesion.kind], peak, out=made.heat[lesion.kind])
        made.geometry[:, row, column] = x - column, y - row, math.log(width), math.log(height)
        made.known[:, row, column] = 1, lesion.sized
    made.weight[0][(made.heat > 0.99).any(axis=0)] = 1  # a centre counts, whatever it lies in
    return made


def _peak(row: int, column: int, height: float, width: float, rows: int, columns: int) -> Maps:
    x = (np.arange(columns, dtype=np.float32) - column) / max(width / 6, _SMALLEST_SIGMA)
    y = (np.arange(rows, dtype=np.float32) - row) / max(height / 6, _SMALLEST_SIGMA)
    return np.exp(-0.5 * (x**2 + y[:, None] ** 2))


@dataclass(frozen=True, slots=True)
class Found:
    """One box, as the head gives it; `score` is not yet a probability of anything."""

    box_xyxy: tuple[float, float, float, float]
    score: float
    kind: int = 0


def decode(
    maps: Tensor, kinds: int, *, queries: Tensor | None = None, at_least: float = 0.02, at_most: int = 50
) -> list[list[Found]]:
    """The boxes of each image of a (B, kinds + 4, h, w) output, highest score first.

    A peak within another's inner half and weaker than it is the same lesion and is left out.

    Parameters
    ----------
    queries
        (B, K, 8), the refined peaks of the same output (queries.py): they alone count then.
    """
    if queries is not None:
        return [_of_queries(own, at_least, at_most) for own in queries.detach().cpu().numpy()]
    heat = maps[:, :kinds].sigmoid()
    peaks = heat * (functional.max_pool2d(heat, 3, stride=1, padding=1) == heat)
    return [
        _of_image(p, g, at_least, at_most)
        for p, g in zip(peaks.detach().cpu().numpy(), maps[:, kinds:].detach().cpu().numpy(), strict=True)
    ]


def _of_image(peaks: NDArray[Any], geometry: NDArray[Any], at_least: float, at_most: int) -> list[Found]:
    kept: list[Found] = []
    order = np.argsort(peaks, axis=None, kind="stable")[::-1]
    for kind, row, column in zip(*np.unravel_index(order, peaks.shape), strict=True):
        score = float(peaks[kind, row, column])
        if score < at_least or len(kept) == at_most:
            break
        found = Found(_box(geometry[:, row, column], int(row), int(column)), score, int(kind))
        if not any(_same(found, other) for other in kept):
            kept.append(found)
    return kept


def _of_queries(queries: NDArray[Any], at_least: float, at_most: int) -> list[Found]:
    kept: list[Found] = []
    for kind, row, column, logit, *geometry in queries[np.argsort(-queries[:, 3], kind="stable")].tolist():
        score = 1 / (1 + math.exp(-max(logit, -_SUREST)))
        if score < at_least or len(kept) == at_most:
            break
        found = Found(_box(geometry, int(row), int(column), _QUERY_REACH), score, int(kind))
        if not any(_same(found, other) for other in kept):
            kept.append(found)
    return kept


def _box(
    geometry: Sequence[float] | NDArray[Any], row: int, column: int, reach: float = 0.0
) -> tuple[float, float, float, float]:
    """`reach`: so many cells beyond its own may the centre lie."""
    x, y = (cell + min(max(float(g), -reach), 1 + reach) for cell, g in zip((column, row), geometry[:2], strict=True))
    half_width, half_height = (math.exp(min(float(g), _LARGEST_LOG_CELLS)) / 2 for g in geometry[2:])
    return (
        (x - half_width) * STRIDE, (y - half_height) * STRIDE,
        (x + half_width) * STRIDE, (y + half_height) * STRIDE,
    )  # fmt: skip


def _same(weaker: Found, stronger: Found) -> bool:
    """Whether the centre of one lies in the inner half of the other, of the same kind."""
    x, y = ((weaker.box_xyxy[n] + weaker.box_xyxy[n + 2]) / 2 for n in (0, 1))
    x0, y0, x1, y1 = stronger.box_xyxy
    inner_x, inner_y = (x1 - x0) / 4, (y1 - y0) / 4
    inside = x0 + inner_x < x < x1 - inner_x and y0 + inner_y < y < y1 - inner_y
    return inside and weaker.kind == stronger.kind
