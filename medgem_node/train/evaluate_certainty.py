"""Whether a probability is how often it comes true, and what is gained by leaving the least certain answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medgem_node.train.metrics.calibration import brier, expected_error, reliability
from medgem_node.train.metrics.selective import mean_risk, risk_coverage

_POINTS = 50  # of a curve that is written down


@dataclass(frozen=True, slots=True)
class Answer:
    """One yes-or-no answer: its probability, whether it was yes at the operating point, and the truth."""

    probability: float
    present: bool
    true: bool

    @property
    def sure(self) -> float:
        """The probability that the answer is right, as tiers are made of (`decode.tier`)."""
        return self.probability if self.present else 1 - self.probability

    @property
    def wrong(self) -> bool:
        """Whether it is not the truth."""
        return self.present != self.true


def certainty(answers: Sequence[Answer]) -> dict[str, Any]:
    """Calibration errors and the bins of the reliability diagram; risk by share of answers kept, surest first."""
    if not answers:
        return {"answers": 0}
    chances, true = [a.probability for a in answers], [a.true for a in answers]
    sure, wrong = [a.sure for a in answers], [a.wrong for a in answers]
    return {
        "answers": len(answers),
        "true": sum(true),
        "expected_error": round(expected_error(chances, true), 4),
        "expected_error_equal_counts": round(expected_error(chances, true, equal_counts=True), 4),
        "brier": round(brier(chances, true), 4),
        "reliability": [
            {"cases": b.cases, "probability": round(b.probability, 4), "frequency": round(b.frequency, 4)}
            for b in reliability(chances, true)
        ],
        "risk_coverage": _thinned(sure, wrong),
        "mean_risk": round(mean_risk(sure, wrong), 4),
    }


def _thinned(sure: Sequence[float], wrong: Sequence[bool]) -> list[dict[str, float]]:
    coverage, risk = risk_coverage(sure, wrong)
    step = max(1, len(coverage) // _POINTS)
    chosen = sorted({*range(0, len(coverage), step), len(coverage) - 1})
    return [{"coverage": round(float(coverage[n]), 4), "risk": round(float(risk[n]), 4)} for n in chosen]
