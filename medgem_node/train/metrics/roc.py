"""How well a score parts positives from negatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative; ties count half."""
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    high, low = values[truth], np.sort(values[~truth])
    if not high.size or not low.size:
        return float("nan")
    below, to = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + to).mean() / 2 / low.size)
