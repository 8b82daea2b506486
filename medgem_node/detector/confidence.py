"""What a score is worth: a probability where it was calibrated, and then how sure the answer is.

A `[[findings]]` table of the manifest says how: `slope` and `offset` (Platt), or `isotonic`, a rising line through
pairs of score and probability. `calibrated = false` says that on images held back the probability missed what happened
by more than 0.05 on average: such a finding carries a score, and neither a probability nor a tier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

_LEAST, _MOST = 1e-6, 1 - 1e-6


def probability(score: float, fields: Mapping[str, Any]) -> float:
    """What a score in 0..1 means by the manifest's calibration; without one, the score."""
    if "isotonic" in fields:
        return _on_line(score, fields["isotonic"])
    if "slope" not in fields:
        return score
    p = min(max(score, _LEAST), _MOST)
    return 1 / (1 + math.exp(-(fields["slope"] * math.log(p / (1 - p)) + fields["offset"])))


def is_calibrated(fields: Mapping[str, Any]) -> bool:
    """Whether what comes out may be called a probability: something made it one, and nothing says that it failed."""
    made = any(key in fields for key in ("slope", "isotonic", "sigma"))
    return made and bool(fields.get("calibrated", True))


def tier(probability: float, present: bool, limits: Mapping[str, float] | None) -> str:
    """How sure the answer is: the probability that it is true, by the card's limits. Empty where the card has none."""
    if limits is None:
        return ""
    sure = probability if present else 1 - probability
    return "high" if sure >= limits["high"] else "medium" if sure >= limits["medium"] else "review"


def _on_line(score: float, knots: list[list[float]]) -> float:
    """Level beyond the ends."""
    if score <= knots[0][0]:
        return float(knots[0][1])
    for (x0, p0), (x1, p1) in pairwise(knots):
        if score <= x1:
            return float(p0 + (p1 - p0) * (score - x0) / (x1 - x0))
    return float(knots[-1][1])
