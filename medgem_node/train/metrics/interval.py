"""How sure a figure is: 95 % intervals, by patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Z = 1.959964
"""Of a 95 % interval of a normal distribution."""
_REPEATS = 2000


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


def means(rows: NDArray[np.float64], groups: Sequence[str], *, seed: int) -> list[dict[str, float | int]]:
    """The mean of each column, as `interval` gives it; all columns over the same draws, which takes no time."""
    names = {group: n for n, group in enumerate(dict.fromkeys(groups))}
    patient = np.array([names[group] for group in groups])
    sums = np.zeros((len(names), rows.shape[1]))
    np.add.at(sums, patient, rows)
    drawn = np.random.default_rng(seed).integers(0, len(names), (_REPEATS, len(names)))
    times = np.stack([np.bincount(draw, minlength=len(names)) for draw in drawn])  # each patient in each draw
    values = times @ sums / (times @ np.bincount(patient))[:, None]
    ends = np.percentile(values, (2.5, 97.5), axis=0).T.tolist()
    return [
        {
            "value": round(float(mean), 4), "low": round(low, 4), "high": round(high, 4),
            "films": len(rows), "patients": len(names),
        }
        for mean, (low, high) in zip(rows.mean(axis=0), ends, strict=True)
    ]  # fmt: skip


def proportion(hits: int, n: int) -> dict[str, float | int]:
    """A share with Wilson's 95 % interval."""
    if not n:
        return {"value": float("nan"), "low": 0.0, "high": 1.0, "hits": 0, "films": 0}
    z, p = Z, hits / n
    middle, half = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    low, high = (max(0.0, (middle + sign * half) / (1 + z * z / n)) for sign in (-1, 1))
    return {"value": round(p, 4), "low": round(low, 4), "high": round(high, 4), "hits": hits, "films": n}
