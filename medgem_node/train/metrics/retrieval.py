"""How well what is asked for is found among many, beside what drawing at random would find."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Flags = NDArray[np.bool_]


def precision_at(scores: Scores, relevant: Flags, asked: Flags, k: int) -> NDArray[np.float64]:
    """For each query with anything relevant: the share of relevant ones among the first k, and that of all asked.

    Parameters
    ----------
    scores, relevant, asked
        (queries, candidates); only candidates that are `asked` take part.

    Returns
    -------
    (queries, 2), NaN for a query with nothing relevant or fewer than k candidates.
    """
    rows = np.full((len(scores), 2), np.nan)
    for n, (row, wanted, among) in enumerate(zip(scores, relevant & asked, asked, strict=True)):
        if wanted.any() and among.sum() >= k:
            best = np.argsort(-np.where(among, row, -np.inf), kind="stable")[:k]
            rows[n] = wanted[best].mean(), wanted.sum() / among.sum()
    return rows


def recall_at(scores: Scores, relevant: Flags, k: int) -> NDArray[np.float64]:
    """For each query: whether any relevant one is among the first k, and the chance of it when drawn at random.

    (queries, 2); NaN for a query with nothing relevant. Equal scores count as drawn in any order.
    """
    rows = np.full((len(scores), 2), np.nan)
    for n, (row, wanted) in enumerate(zip(scores, relevant, strict=True)):
        if wanted.any():
            rows[n] = _hit(row, wanted, k), missed_not(len(row), int(wanted.sum()), k)
    return rows


def missed_not(candidates: int, relevant: int, k: int) -> float:
    """The chance that k drawn candidates hold a relevant one (hypergeometric)."""
    k = min(k, candidates)
    return 1 - math.comb(candidates - relevant, k) / math.comb(candidates, k)


def _hit(row: NDArray[Any], wanted: NDArray[np.bool_], k: int) -> float:
    best = row[wanted].max()
    above = int((row > best).sum())
    equal = row == best
    if above >= k:
        return 0.0
    return missed_not(int(equal.sum()), int((equal & wanted).sum()), k - above)
