"""Whether a map shows where a finding comes from, against boxes that readers drew.

A map is only worth the name if it beats what knows nothing of the finding: the middle of the film, the place where
boxes usually lie, the lungs.

References: Zhang et al. 2018 (pointing game), doi:10.1007/s11263-017-1059-x; Petsiuk et al. 2018 (deletion, insertion),
arXiv:1806.07421; Adebayo et al. 2018 (sanity checks), arXiv:1810.03292.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medgem_node.train.metrics.froc import Box

Map = NDArray[np.float32]
Cells = NDArray[np.bool_]
_STEPS = 20
_CENTRE_SIGMA = 0.25  # of each side
_PLACES = 32  # along each side of the lungs, for their best point


def points_at(values: Map, boxes: Sequence[Box], tolerance: float = 0.0) -> bool:
    """Whether the map's highest point lies in a box, or `tolerance` beside one; boxes as parts of the map's sides."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    x, y = (column + 0.5) / values.shape[1], (row + 0.5) / values.shape[0]
    return any(
        x0 - tolerance <= x <= x1 + tolerance and y0 - tolerance <= y <= y1 + tolerance for x0, y0, x1, y1 in boxes
    )


def energy_in(values: Map, boxes: Sequence[Box]) -> float:
    """The share of the map's sum that lies in the boxes, cells counted by their centres; NaN of an empty map."""
    total = float(values.sum())
    return float(values[cells_in(values.shape, boxes)].sum()) / total if total else float("nan")


def cells_in(shape: tuple[int, ...], boxes: Sequence[Box]) -> Cells:
    """The cells of a (rows, columns) map whose centres lie in a box."""
    rows, columns = shape
    y, x = (np.arange(rows)[:, None] + 0.5) / rows, (np.arange(columns)[None] + 0.5) / columns
    inside = np.zeros((rows, columns), bool)
    for x0, y0, x1, y1 in boxes:
        inside |= (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
    return inside


def centre_prior(shape: tuple[int, ...]) -> Map:
    """A normal distribution around the middle of the film, (rows, columns)."""
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in shape)
    return np.exp(-(x**2 + y[:, None] ** 2) / (2 * _CENTRE_SIGMA**2)).astype(np.float32)


def usual_places(boxes: Sequence[Sequence[Box]], groups: Sequence[str], shape: tuple[int, int]) -> list[Map]:
    """For each film, how many films of other patients have a box at each cell; of nobody else: the middle."""
    covered = [cells_in(shape, own).astype(np.float32) for own in boxes]
    made = []
    for group in groups:
        others = [c for c, other in zip(covered, groups, strict=True) if other != group]
        made.append(np.asarray(np.sum(others, axis=0), np.float32) if others else centre_prior(shape))
    return made


def best_lung_point(lungs: Sequence[Cells], boxes: Sequence[Sequence[Box]]) -> list[bool]:
    """Whether the one point that hits most films, told as a part of the lungs' width and height, hits each.

    Chosen with all boxes known, so no rule that knows the lungs alone can point better; `lungs`: both as one mask.
    """
    hits = np.stack([_at_places(*pair).ravel() for pair in zip(lungs, boxes, strict=True)])  # (films, places)
    chosen: list[bool] = hits[:, int(hits.mean(axis=0).argmax())].tolist()
    return chosen


def deletion(score: Callable[[Map], float], image: Map, values: Map, blank: Map, *, insert: bool = False) -> float:
    """Mean score while pixels, those of the highest map first, turn into `blank`; low is good.

    `insert`: while they turn from blank into the image; high is good. `values` has the image's rows and columns.
    """
    order = np.argsort(-values, axis=None, kind="stable")
    shown, scores = (blank.copy(), []) if insert else (image.copy(), [])
    other = image if insert else blank
    for part in np.array_split(order, _STEPS):
        scores.append(score(shown))
        shown.flat[part] = other.flat[part]
    scores.append(score(shown))
    return float((np.sum(scores) - (scores[0] + scores[-1]) / 2) / _STEPS)


def rank_correlation(a: Map, b: Map) -> float:
    """Spearman's, of two maps' cells; 0 if one of them is the same everywhere."""
    first, second = _ranks(a), _ranks(b)
    spread = float(first.std() * second.std())
    return float(((first - first.mean()) * (second - second.mean())).mean()) / spread if spread else 0.0


def _ranks(values: Map) -> NDArray[np.float64]:
    """From 0; equal values share the mean of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse.ravel()]
    return ranks


def _at_places(lungs: Cells, boxes: Sequence[Box]) -> Cells:
    """(places, places): which points of an even grid over the lungs' bounding box lie in a box."""
    rows, columns = (np.flatnonzero(lungs.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        rows, columns = (np.arange(n) for n in lungs.shape)
    part = (np.arange(_PLACES) + 0.5) / _PLACES
    y = ((rows[0] + part * (rows[-1] + 1 - rows[0])) / lungs.shape[0])[:, None]
    x = ((columns[0] + part * (columns[-1] + 1 - columns[0])) / lungs.shape[1])[None]
    inside = np.zeros((_PLACES, _PLACES), bool)
    for x0, y0, x1, y1 in boxes:
        inside |= (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
    return inside
