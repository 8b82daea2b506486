"""How well it does: overlap, errors, areas under curves, each with a bootstrap interval by patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_REPEATS = 2000


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|); 1 where both are empty."""
    size = np.count_nonzero(found) + np.count_nonzero(truth)
    return 2 * float(np.count_nonzero(found & truth)) / size if size else 1.0


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative; ties count half."""
    values, truth = np.asarray(scores, float), np.asarray(positive, bool)
    high, low = values[truth], np.sort(values[~truth])
    if not high.size or not low.size:
        return float("nan")
    below, to = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + to).mean() / 2 / low.size)


def interval(
    rows: NDArray[np.float64],
    groups: Sequence[str],
    statistic: Callable[[NDArray[np.float64]], float],
    *,
    seed: int,
) -> dict[str, float | int]:
    """`statistic` of the rows, with the 2.5 and 97.5 percentiles over patients drawn anew (percentile bootstrap)."""
    rng = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for n, group in enumerate(groups):
        members.setdefault(group, []).append(n)
    patients = [np.array(m) for m in members.values()]
    drawn = [
        statistic(rows[np.concatenate([patients[n] for n in rng.integers(0, len(patients), len(patients))])])
        for _ in range(_REPEATS)
    ]
    low, high = np.nanpercentile(drawn, (2.5, 97.5)).tolist()
    return {
        "value": round(statistic(rows), 4), "low": round(low, 4), "high": round(high, 4),
        "films": len(rows), "patients": len(patients),
    }  # fmt: skip


def proportion(hits: int, n: int) -> dict[str, float | int]:
    """A share with Wilson's 95 % interval."""
    if not n:
        return {"value": float("nan"), "low": 0.0, "high": 1.0, "hits": 0, "films": 0}
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    low, high = (max(0.0, (middle + sign * half) / (1 + z * z / n)) for sign in (-1, 1))
    return {"value": round(p, 4), "low": round(low, 4), "high": round(high, 4), "hits": hits, "films": n}
