"""Whether a map shows where a finding comes from, against boxes that readers drew.

A map is only worth the name if it beats what knows no image: the centre of all boxes, or the lungs.

References: Zhang et al. 2018 (pointing game), doi:10.1007/s11263-017-1059-x; Petsiuk et al. 2018 (deletion, insertion),
arXiv:1806.07421; Adebayo et al. 2018 (sanity checks), arXiv:1810.03292.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medgem_node.train.metrics.froc import Box

Map = NDArray[np.float32]
_STEPS = 20


def points_at(values: Map, boxes: Sequence[Box], tolerance: float = 0.0) -> bool:
    """Whether the map's highest point lies in a box, or `tolerance` beside one; boxes as parts of the map's sides."""
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    x, y = (column + 0.5) / values.shape[1], (row + 0.5) / values.shape[0]
    return any(
        x0 - tolerance <= x <= x1 + tolerance and y0 - tolerance <= y <= y1 + tolerance for x0, y0, x1, y1 in boxes
    )


def energy_in(values: Map, boxes: Sequence[Box]) -> float:
    """The share of the map's sum that lies in the boxes, cells counted by their centres; NaN of an empty map."""
    rows, columns = values.shape
    y, x = (np.arange(rows)[:, None] + 0.5) / rows, (np.arange(columns)[None] + 0.5) / columns
    inside = np.zeros(values.shape, bool)
    for x0, y0, x1, y1 in boxes:
        inside |= (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
    total = float(values.sum())
    return float(values[inside].sum()) / total if total else float("nan")


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
