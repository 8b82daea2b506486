"""Calibration, conformal sets and risk-coverage against cases computed by hand and, where it is there, scikit-learn."""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import pytest

from medgem_node.train.metrics import conformal
from medgem_node.train.metrics.calibration import (
    Platt,
    brier,
    expected_error,
    fit_isotonic,
    fit_platt,
    reliability,
)
from medgem_node.train.metrics.selective import mean_risk, risk_coverage


def drawn(n: int, seed: int = 0) -> tuple[list[float], list[bool]]:
    """Probabilities, and events that happen as often as they say."""
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    return p.tolist(), (rng.random(n) < p).tolist()


def test_the_expected_error_by_hand() -> None:
    p, happened = [0.05, 0.15, 0.15, 0.95], [False, True, False, True]

    # bins of 1, 2 and 1 cases: off by 0.05, 0.35 and 0.05
    assert expected_error(p, happened) == pytest.approx((0.05 + 2 * 0.35 + 0.05) / 4)
    assert [b.cases for b in reliability(p, happened)] == [1, 2, 1]
    assert brier(p, happened) == pytest.approx((0.05**2 + 0.85**2 + 0.15**2 + 0.05**2) / 4)


def test_bins_of_equal_count_hold_all_cases() -> None:
    p, happened = drawn(103)

    bins = reliability(p, happened, equal_counts=True)

    assert sum(b.cases for b in bins) == 103
    assert {b.cases for b in bins} == {10, 11}


def test_a_probability_of_one_is_in_the_last_bin() -> None:
    assert reliability([1.0], [True])[0].cases == 1


def test_what_is_calibrated_stays_so() -> None:
    p, happened = drawn(4000)

    isotonic = fit_isotonic(p, happened)

    assert fit_platt(p, happened).slope == pytest.approx(1, abs=0.06)
    assert expected_error([isotonic(q) for q in p], happened) < 0.02


def test_the_temperature_of_scores_that_are_too_sure_is_found() -> None:
    p, happened = drawn(4000)
    too_sure = [Platt(3.0)(q) for q in p]

    found = fit_platt(too_sure, happened, offset=False)

    assert 1 / found.slope == pytest.approx(3, rel=0.06)
    assert expected_error([found(q) for q in too_sure], happened) < 0.025 < expected_error(too_sure, happened)


def test_events_that_the_score_parts_wholly_give_no_infinite_slope() -> None:
    found = fit_platt([0.1, 0.2, 0.8, 0.9], [False, False, True, True])

    assert math.isfinite(found.slope)
    assert 0.5 < found(0.9) < 1


def test_isotonic_pools_neighbours_by_hand() -> None:
    found = fit_isotonic([0.1, 0.2, 0.3, 0.4], [False, True, False, True])

    assert [found(s) for s in (0.1, 0.2, 0.3, 0.4, 0.9)] == [0.0, 0.5, 0.5, 1.0, 1.0]


def test_isotonic_is_scikit_learns() -> None:
    isotonic = import_module("sklearn.isotonic")
    rng = np.random.default_rng(5)
    scores, happened = np.round(rng.random(300), 2), rng.random(300) < 0.4

    theirs = isotonic.IsotonicRegression(out_of_bounds="clip").fit(scores, happened).predict(scores)

    assert [fit_isotonic(scores.tolist(), happened.tolist())(s) for s in scores] == pytest.approx(theirs.tolist())


def test_reliability_is_scikit_learns() -> None:
    calibration = import_module("sklearn.calibration")
    p, happened = drawn(500)

    frequency, probability = calibration.calibration_curve(happened, p, n_bins=10)

    assert [b.frequency for b in reliability(p, happened)] == pytest.approx(frequency.tolist())
    assert [b.probability for b in reliability(p, happened)] == pytest.approx(probability.tolist())


def test_the_brier_score_is_scikit_learns() -> None:
    metrics = import_module("sklearn.metrics")
    p, happened = drawn(500)

    assert brier(p, happened) == pytest.approx(metrics.brier_score_loss(happened, p))


def test_conformal_limits_by_hand() -> None:
    # class 0: strangeness 0.1 ... 0.9 of 9 cases; (9 + 1) * 0.8 = the 8th smallest
    p = [[1 - n / 10, n / 10] for n in range(1, 10)]

    found = conformal.fit(p, [0] * 9, miss=0.2)

    assert found.limits[0] == pytest.approx(0.8)
    assert found.limits[1] == 1.0
    assert found.answers([0.15, 0.85]) == {1}
    assert found.answers([0.25, 0.75]) == {0, 1}


def test_each_class_is_covered_as_often_as_promised() -> None:
    rng = np.random.default_rng(2)

    def cases(n: int) -> tuple[list[list[float]], list[int]]:
        truth = (rng.random(n) < 0.1).astype(int)
        p = 1 / (1 + np.exp(-(2.0 * truth - 2 + rng.normal(0, 1, n))))
        return np.stack((1 - p, p), axis=1).tolist(), truth.tolist()

    found = conformal.fit(*cases(4000), miss=0.1)
    probabilities, truth = cases(8000)

    covered = conformal.coverage([found.answers(p) for p in probabilities], truth, 2)

    assert covered == pytest.approx([0.9, 0.9], abs=0.03)


def test_a_class_without_cases_has_no_coverage() -> None:
    assert math.isnan(conformal.coverage([frozenset({0})], [0], 2)[1])


def test_risk_and_coverage_by_hand() -> None:
    coverage, risk = risk_coverage([0.9, 0.8, 0.8, 0.1], [False, True, False, True])

    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk.tolist() == pytest.approx([0, 1 / 3, 0.5])
    assert mean_risk([0.9, 0.8, 0.8, 0.1], [False, True, False, True]) == pytest.approx(0.5 / 3 + 0.25 * 0.5)
