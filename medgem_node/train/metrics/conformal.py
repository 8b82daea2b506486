"""Sets of answers that hold the true one as often as asked for, each class by itself.

References: Vovk 2012 (class-conditional), arXiv:1209.2673; Angelopoulos and Bates 2023, arXiv:2107.07511.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Conformal:
    """An answer is in the set if its probability is at least 1 - `limits[answer]`."""

    limits: tuple[float, ...]

    def answers(self, probabilities: Sequence[float]) -> frozenset[int]:
        """The set for one case; empty if the case is like none that was seen, several if it could be any of them."""
        return frozenset(n for n, p in enumerate(probabilities) if 1 - p <= self.limits[n])


def fit(probabilities: Sequence[Sequence[float]], truth: Sequence[int], *, miss: float) -> Conformal:
    """Limits by which at most `miss` of each class's future cases lack their answer, if they are like these.

    A class of fewer than about 1 / `miss` cases gets the limit 1: it is in every set, as nothing less can be promised.
    """
    p, y = np.asarray(probabilities, float), np.asarray(truth)
    return Conformal(tuple(_limit(np.sort(1 - p[y == n, n]), miss) for n in range(p.shape[1])))


def coverage(sets: Sequence[frozenset[int]], truth: Sequence[int], classes: int) -> list[float]:
    """Of each class's cases, the share whose set holds it; NaN for a class without cases."""
    return [
        float(np.mean([n in own for own, true in zip(sets, truth, strict=True) if true == n]))
        if n in truth
        else math.nan
        for n in range(classes)
    ]


def _limit(strangeness: np.ndarray[tuple[int, ...], np.dtype[np.float64]], miss: float) -> float:
    rank = math.ceil((len(strangeness) + 1) * (1 - miss) - 1e-9)
    return float(strangeness[rank - 1]) if rank <= len(strangeness) else 1.0
