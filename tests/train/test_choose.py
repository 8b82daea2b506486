"""Operating points and calibration chosen on marks whose truth is known."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest

from medgem_node.card import _check_confidence
from medgem_node.errors import ConfigError
from medgem_node.train.choose import (
    Marked,
    calibration,
    choose,
    crossfitted,
    false_marks_at,
    is_calibrated,
    manifest_lines,
    operating_point,
    sets,
)
from medgem_node.train.metrics.calibration import Isotonic, Platt, error_by_chance, expected_error, fit_rising
from medgem_node.train.metrics.froc import Scored


def free(*scores: float, patient: str = "p") -> Scored:
    return Scored(patient, np.empty(0), np.array(scores, float))


def film(rng: np.random.Generator, n: int, *, ill: bool) -> Marked:
    """Marks whose score s is right with probability s squared; a lesion is marked so, or not at all."""
    scores = rng.random(6) ** 2
    hits = rng.random(6) < scores**2
    lesions = np.array([*scores[hits], -np.inf]) if ill else np.empty(0)
    return Marked("a" if n % 2 else "b", Scored(f"patient-{n}", lesions, scores[~hits]))


def films(n: int) -> list[Marked]:
    rng = np.random.default_rng(1)
    return [film(rng, k, ill=k % 3 == 0) for k in range(n)]


@pytest.fixture(scope="module")
def chosen() -> dict[str, Any]:
    return choose(films(120), 0.5, seed=1)


def test_the_operating_point_allows_the_wished_false_marks_and_no_more() -> None:
    normal = [free(0.9, 0.2), free(0.6), free(), free(0.4, 0.3)]

    point = operating_point(normal, 0.5)

    assert point == pytest.approx(0.6)  # the second mark, which is allowed; the third is not
    assert false_marks_at(normal, point, seed=1)["value"] == 0.5
    assert operating_point(normal, 0.75) == pytest.approx(0.4)


def test_marks_of_one_score_are_allowed_together_or_not_at_all() -> None:
    normal = [free(0.9), free(0.4, 0.4), free(0.4), free(0.1)]

    point = operating_point(normal, 0.5)

    assert point == pytest.approx(0.9)
    assert false_marks_at(normal, point, seed=1)["value"] == 0.25


def test_marks_that_hardly_differ_are_still_told_apart() -> None:
    normal = [free(0.010001), free(0.010002), free(0.010003)]

    assert 0.010001 < operating_point(normal, 2 / 3) <= 0.010002


def test_where_every_mark_is_allowed_the_weakest_is_the_point() -> None:
    assert operating_point([free(0.3), free(0.2)], 4.0) == 0.2


def test_a_rate_that_so_few_films_cannot_show_is_refused() -> None:
    with pytest.raises(ConfigError, match="50 can"):
        operating_point([free(0.3)] * 20, 0.02)


def test_the_rates_interval_counts_patients_and_not_films() -> None:
    one = false_marks_at([free(0.9, patient="a")] * 10 + [free(patient="b")] * 10, 0.5, seed=1)
    many = false_marks_at(
        [free(0.9, patient=f"a{n}") for n in range(10)] + [free(patient=f"b{n}") for n in range(10)], 0.5, seed=1
    )

    assert (one["low"], one["high"], one["patients"]) == (0.0, 1.0, 2)
    assert many["low"] > 0.2


def test_no_patient_is_judged_by_a_fit_that_saw_him() -> None:
    seen: list[int] = []

    def fit(scores: object, happened: object) -> Platt:
        seen.append(len(list(scores)))  # type: ignore[call-overload]
        return Platt(1.0)

    every = films(40)
    held_back = crossfitted(every, fit)

    assert len(seen) == 5
    assert sum(seen) == 4 * sum(len(f.scores) for f in every)
    assert [f.scored.patient for f in held_back] == [f.scored.patient for f in every]


def test_the_way_that_suits_is_found_and_held_back_patients_agree() -> None:
    way, line, errors = calibration(films(600))

    assert way in ("platt", "isotonic")
    assert errors[way]["expected_error"] < errors["as they are"]["expected_error"]
    assert line(0.9) > line(0.5) > line(0.1)


def test_what_is_chosen_reads_as_a_manifest(chosen: dict[str, Any]) -> None:
    fields = tomllib.loads("\n".join(manifest_lines("Nodule", chosen)))

    _check_confidence(fields, __file__)  # type: ignore[arg-type]
    assert chosen["calibrated"] == ("tiers" in fields)
    free_films = chosen["at_operating_point"]["false_marks_a_film_without_lesions"]
    assert free_films["all"]["value"] <= 0.5 < free_films["all"]["value"] + 0.1
    assert free_films["all"]["films"] == free_films["a"]["films"] + free_films["b"]["films"] == 80


@pytest.mark.parametrize(
    ("every", "reported", "by_chance", "calibrated"),
    [(0.05, 0.05, 0.0, True), (0.06, 0.0, 0.0, False), (0.0, 0.08, 0.07, False), (0.0, 0.08, 0.09, True)],
)
def test_what_is_reported_must_be_calibrated_too_but_for_chance(
    every: float, reported: float, by_chance: float, calibrated: bool
) -> None:
    shown = {"expected_error": reported, "by_chance": by_chance}

    assert is_calibrated({"expected_error": every}, shown) is calibrated


def test_a_finding_that_failed_is_given_no_tiers(chosen: dict[str, Any]) -> None:
    fields = tomllib.loads("\n".join(manifest_lines("Nodule", {**chosen, "calibrated": False})))

    assert fields["calibrated"] is False
    assert "tiers" not in fields


def test_without_lesions_or_without_normal_films_nothing_is_chosen() -> None:
    for half in ([f for f in films(30) if f.is_free], [f for f in films(30) if not f.is_free]):
        with pytest.raises(ConfigError, match="there must be"):
            choose(half, 0.5, seed=1)


def test_conformal_sets_cover_as_asked_on_patients_held_back() -> None:
    rng = np.random.default_rng(3)
    told = [
        Marked("a", Scored(f"{n}", np.array([s]) if n % 2 else np.empty(0), np.empty(0) if n % 2 else np.array([s])))
        for n, s in enumerate(np.clip(rng.normal(0.5, 0.1, 600) + np.arange(600) % 2 * 0.3, 0, 1))
    ]

    found = sets(told)

    assert all(coverage > 0.86 for coverage in found["coverage"].values())
    assert found["sets"]["with alone"] + found["sets"]["without alone"] > 300


def test_a_rising_line_keeps_the_order_of_marks() -> None:
    line = fit_rising([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [False, True, False, False, True, True])

    assert line == Isotonic((0.0, 0.1, 0.3, 0.55), (0.0, 0.0, 0.3333, 0.8))
    assert line(0.2) < line(0.25) < line(0.4)


def test_few_true_probabilities_err_more_by_chance_than_many() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.random(30).tolist(), rng.random(1000).tolist()
    happened = (rng.random(1000) < many).tolist()

    assert error_by_chance(few, seed=1) > 2 * error_by_chance(many, seed=1)
    assert expected_error([p**2 for p in many], happened) > error_by_chance(many, seed=1)


def test_true_probabilities_err_more_than_by_chance_in_one_of_twenty_draws() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(100).tolist()
    limit = error_by_chance(p, seed=1)

    beyond = np.mean([expected_error(p, (rng.random(100) < p).tolist()) > limit for _ in range(400)])

    assert 0.02 < beyond < 0.09
