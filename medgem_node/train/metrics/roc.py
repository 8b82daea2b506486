"""How well a score parts positives from negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medgem_node.train.metrics.interval import Z


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative; ties count half."""
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    high, low = values[truth], np.sort(values[~truth])
    if not high.size or not low.size:
        return float("nan")
    return float(_placements(high, low).mean())


def auc_delong(scores: Sequence[float], positive: Sequence[bool]) -> dict[str, float | int]:
    """The area with DeLong's 95 % interval, one score a patient; no width where the two are parted wholly.

    References: DeLong et al. 1988, doi:10.2307/2531595.
    """
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    high, low = values[truth], values[~truth]
    area = auc(scores, positive)
    half = float("nan")
    if high.size > 1 and low.size > 1:
        above, below = _placements(high, np.sort(low)), 1 - _placements(low, np.sort(high))
        half = Z * math.sqrt(above.var(ddof=1) / high.size + below.var(ddof=1) / low.size)
    return {
        "value": round(area, 4), "low": round(max(0.0, area - half), 4), "high": round(min(1.0, area + half), 4),
        "positive": int(high.size), "negative": int(low.size),
    }  # fmt: skip


def curve(scores: Sequence[float], positive: Sequence[bool]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of negatives and share of positives at or above each score, highest first, from (0, 0) to (1, 1)."""
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)  # equal scores are taken together
    above = np.cumsum(np.stack((~truth[order], truth[order])), axis=1)[:, last]
    shares = np.concatenate((np.zeros((2, 1)), above / np.maximum(above[:, -1:], 1)), axis=1)
    return shares[0], shares[1]


def _placements(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each value, the share of the sorted `others` that lie below it; ties count half."""
    below, to = np.searchsorted(others, values, "left"), np.searchsorted(others, values, "right")
    return np.asarray((below + to) / 2 / others.size)
