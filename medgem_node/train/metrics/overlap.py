"""How well a mask lies on its truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 512  # border pixels whose distances are in memory together


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|); 1 where both are empty."""
    size = np.count_nonzero(found) + np.count_nonzero(truth)
    return 2 * float(np.count_nonzero(found & truth)) / size if size else 1.0


def hd95(found: NDArray[np.bool_], truth: NDArray[np.bool_], spacing_mm: tuple[float, float] = (1.0, 1.0)) -> float:
    """The larger of the two 95th percentiles of the distances from one border to the other, in mm.

    0 where both masks are empty, infinite where one is. `spacing_mm`: between rows, between columns.

    References: Maier-Hein et al. 2024 (metrics reloaded), doi:10.1038/s41592-023-02151-z.
    """
    if not found.any() or not truth.any():
        return 0.0 if not found.any() and not truth.any() else float("inf")
    a, b = (border(mask) * np.array(spacing_mm) for mask in (found, truth))
    return max(float(np.percentile(_nearest(a, b), 95)), float(np.percentile(_nearest(b, a), 95)))


def border(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows and columns, (n, 2), of the pixels of a mask with a side on its outside, or on the image's border."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inside)


def _nearest(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    parts = [points[n : n + _AT_ONCE, None] - others[None] for n in range(0, len(points), _AT_ONCE)]
    return np.concatenate([np.sqrt((part**2).sum(axis=2).min(axis=1)) for part in parts])
