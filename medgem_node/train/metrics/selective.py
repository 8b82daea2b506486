"""What is gained by leaving the least certain cases to a reader.

References: Geifman and El-Yaniv 2017, arXiv:1705.08500.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def risk_coverage(certainty: Sequence[float], wrong: Sequence[bool]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of cases kept, most certain first, and the share of errors among them, after each distinct certainty."""
    order = np.argsort(-np.asarray(certainty, float), kind="stable")
    sure, errors = np.asarray(certainty, float)[order], np.asarray(wrong, float)[order]
    last = np.append(sure[1:] != sure[:-1], True)  # cases of one certainty are kept together
    kept = np.arange(1, len(order) + 1)
    return (kept / len(order))[last], (errors.cumsum() / kept)[last]


def mean_risk(certainty: Sequence[float], wrong: Sequence[bool]) -> float:
    """Area under the curve of `risk_coverage`, as steps: the mean risk over all shares of cases kept."""
    coverage, risk = risk_coverage(certainty, wrong)
    return float((np.diff(coverage, prepend=0.0) * risk).sum())
