"""Whether a probability means what it says, and how a score is made into one.

References: Guo et al. 2017 (temperature, ECE), arXiv:1706.04599; Zadrozny and Elkan 2002 (isotonic),
doi:10.1145/775047.775151.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 10
_NEWTON_STEPS = 100
_LEAST, _MOST = 1e-6, 1 - 1e-6


@dataclass(frozen=True, slots=True)
class Bin:
    """Cases whose probability lies between two ends: how many, the mean of it, and how often it came true."""

    cases: int
    probability: float
    frequency: float


def reliability(
    probabilities: Sequence[float], happened: Sequence[bool], bins: int = _BINS, *, equal_counts: bool = False
) -> list[Bin]:
    """The bins of a reliability plot that hold a case: of equal width, or of equal count."""
    p, y = np.asarray(probabilities, float), np.asarray(happened, float)
    if equal_counts:
        parts = np.array_split(np.argsort(p, kind="stable"), bins)
    else:
        place = np.minimum((p * bins).astype(int), bins - 1)
        parts = [np.flatnonzero(place == n) for n in range(bins)]
    return [Bin(len(part), float(p[part].mean()), float(y[part].mean())) for part in parts if len(part)]


def expected_error(
    probabilities: Sequence[float], happened: Sequence[bool], bins: int = _BINS, *, equal_counts: bool = False
) -> float:
    """Expected calibration error: mean distance of probability and frequency over the bins, by cases."""
    found = reliability(probabilities, happened, bins, equal_counts=equal_counts)
    return sum(b.cases * abs(b.probability - b.frequency) for b in found) / max(sum(b.cases for b in found), 1)


def error_by_chance(probabilities: Sequence[float], *, seed: int, draws: int = 1000) -> float:
    """The expected error that these very probabilities stay below in 95 of 100 draws if each of them is true.

    A few cases miss their probability however true it is (consistency bars: Broecker and Smith 2007,
    doi:10.1175/WAF993.1).
    """
    p = np.asarray(probabilities, float)
    events = np.random.default_rng(seed).random((draws, p.size)) < p
    return float(np.percentile([expected_error(p.tolist(), drawn.tolist()) for drawn in events], 95))


def brier(probabilities: Sequence[float], happened: Sequence[bool]) -> float:
    """Mean squared distance of probability and event."""
    return float(np.mean((np.asarray(probabilities, float) - np.asarray(happened, float)) ** 2))


@dataclass(frozen=True, slots=True)
class Platt:
    """Probability = 1 / (1 + exp(-(slope * logit(score) + offset))); with offset 0, 1 / slope is the temperature."""

    slope: float
    offset: float = 0.0

    def __call__(self, score: float) -> float:
        """The probability of a score in 0..1."""
        return 1 / (1 + math.exp(-(self.slope * _logit(score) + self.offset)))


def fit_platt(scores: Sequence[float], happened: Sequence[bool], *, offset: bool = True) -> Platt:
    """The maximum of the likelihood, by Newton; the events are drawn in a little (Platt 1999), so that it is finite.

    `offset=False` fits the temperature alone.
    """
    x = np.array([_logit(s) for s in scores])
    design = np.stack((x, np.ones_like(x)), axis=1)[:, : 2 if offset else 1]
    y = np.asarray(happened, bool)
    ups, downs = int(y.sum()), int((~y).sum())
    target = np.where(y, (ups + 1) / (ups + 2), 1 / (downs + 2))
    weights = np.array([1.0, 0.0])[: design.shape[1]]
    for _ in range(_NEWTON_STEPS):
        p = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (target - p)
        curve = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(design.shape[1])
        step = np.linalg.solve(curve, slope)
        while _cost(design @ (weights + step), target) > _cost(design @ weights, target) and np.abs(step).max() > 1e-12:
            step = step / 2  # a full step can leap over the minimum
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            break
    return Platt(*map(float, weights))


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A rising line through `(scores, probabilities)`, level beyond its ends."""

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, score: float) -> float:
        """The probability of a score."""
        return float(np.interp(score, self.scores, self.probabilities))


def fit_isotonic(scores: Sequence[float], happened: Sequence[bool]) -> Isotonic:
    """Least squares under the condition that the probability never falls as the score rises."""
    x, inverse, counts = np.unique(np.asarray(scores, float), return_inverse=True, return_counts=True)
    means = np.bincount(inverse, np.asarray(happened, float)) / counts
    blocks: list[tuple[float, int, int]] = []  # mean, cases, distinct scores
    for mean, count in zip(means.tolist(), counts.tolist(), strict=True):
        block = (mean, count, 1)
        while blocks and blocks[-1][0] >= block[0]:
            m, c, d = blocks.pop()
            block = ((m * c + block[0] * block[1]) / (c + block[1]), c + block[1], d + block[2])
        blocks.append(block)
    fitted: NDArray[np.float64] = np.repeat([m for m, _, _ in blocks], [d for _, _, d in blocks])
    return Isotonic(tuple(x.tolist()), tuple(fitted.tolist()))


def fit_rising(scores: Sequence[float], happened: Sequence[bool]) -> Isotonic:
    """`fit_isotonic` with one knot in the middle of each of its steps: few numbers, and marks keep their order.

    Its upper end is drawn in as Platt's: that some marks were all right does not make the next one certain.
    """
    steps, ups = fit_isotonic(scores, happened), int(np.sum(happened))
    x, p = np.array(steps.scores), np.minimum(steps.probabilities, (ups + 1) / (ups + 2))
    parts = np.split(np.arange(p.size), np.flatnonzero(np.diff(p) > 0) + 1)
    knots = [(0.0, 0.0)] + [(round(float(x[n].mean()), 4), round(float(p[n[0]]), 4)) for n in parts]
    kept = {score: chance for score, chance in knots if score > 0} or {1.0: 0.0}
    return Isotonic((0.0, *kept), (0.0, *kept.values()))


def _cost(logits: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Cross-entropy."""
    return float((np.logaddexp(0, logits) - target * logits).sum())


def _logit(score: float) -> float:
    p = min(max(score, _LEAST), _MOST)
    return math.log(p / (1 - p))
