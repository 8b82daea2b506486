"""Figures of boxes on a few analyses made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medgem_node.finding import Analysis, Box, Code, Finding
from medgem_node.train.data import Film
from medgem_node.train.evaluate_lesions import (
    calibration,
    certainty_of_marks,
    curve,
    found_and_missed,
    lesions,
    marks_of,
)
from medgem_node.train.lesions import Lesion

LABEL = "Nodule or mass"
NODULE = Lesion((0.2, 0.2, 0.3, 0.3))


def film(name: str, *known: Lesion, source: str = "nih") -> Film:
    return Film(name, name, source, "frontal", np.zeros((100, 200), np.float32), lesions=known)


def analysis(*marks: tuple[tuple[float, float, float, float], float]) -> Analysis:
    nodule = Code("27925004", "SCT", "Nodule")
    found = tuple(Finding(nodule, LABEL, p, p >= 0.5, 0.5, "1.2.3", Box(*box)) for box, p in marks)
    return Analysis("chest-xray", "2.0.0", candidates=found)


ON, OFF = (40.0, 20.0, 60.0, 30.0), (150.0, 60.0, 170.0, 80.0)
CASES = [
    (film("a", NODULE), analysis((ON, 0.9), (OFF, 0.6))),
    (film("b", NODULE), analysis((OFF, 0.7))),
    (film("c", NODULE), None),
    (film("d"), analysis((OFF, 0.8), (ON, 0.3))),
    (film("e"), analysis()),
]


@pytest.fixture(scope="module")
def figures() -> Any:
    return lesions(CASES, LABEL, seed=1)["nih"]


def test_marks_and_lesions_are_parts_of_the_width() -> None:
    marks = marks_of(*CASES[0], LABEL)

    assert marks.marks[0] == pytest.approx((0.2, 0.1, 0.3, 0.15))
    assert marks.lesions[0] == pytest.approx((0.2, 0.1, 0.3, 0.15))


def test_a_refused_film_with_a_lesion_is_a_miss() -> None:
    assert curve(CASES, LABEL, [8.0]) == [pytest.approx(1 / 3)]


def test_films_without_lesions_are_counted_apart(figures: Any) -> None:
    assert figures["films_with_lesions"] == 3
    assert figures["false_marks_a_film_without_lesions"]["value"] == 0.5
    assert figures["films_without_lesions_marked"]["hits"] == 1
    assert figures["auc_with_against_without"]["positive"] == 3
    assert figures["average_precision"]["iou 0.5"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert figures["reported_marks_with_iou_above_0.3"]["hits"] == 1


def test_what_is_reported_is_counted_lesion_by_lesion_and_film_by_film(figures: Any) -> None:
    found = figures["operating_point"]

    # of three lesions one is found; two of three films with one are marked, one of two films without
    assert (found["value"], found["lesions"]) == (0.5, 3)
    assert found["lesions_found"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["false_marks_a_film_with_lesions"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert (found["sensitivity_by_film"]["hits"], found["specificity_by_film"]["hits"]) == (2, 1)
    assert found_and_missed(*CASES[0], LABEL) == (1, 0, 1)


def test_a_film_of_which_nothing_is_known_and_one_computed_from_ct_measure_nothing() -> None:
    unknown = Film("u", "u", "nih", "frontal", np.zeros((9, 9), np.float32))
    computed = Film("s", "s", "drr", "synthetic", np.zeros((9, 9), np.float32), lesions=(NODULE,))

    assert lesions([(unknown, analysis((ON, 0.9))), (computed, analysis((ON, 0.9)))], LABEL, seed=1) == {}


def test_a_centre_without_a_size_is_hit_from_near_by() -> None:
    nodule = Lesion((0.2, 0.2, 0.3, 0.3), sized=False)
    near = film("a", nodule, source="jsrt")

    assert curve([(near, analysis(((49.0, 28.0, 55.0, 34.0), 0.9)))], LABEL, [1.0]) == [1.0]
    assert curve([(near, analysis(((59.0, 28.0, 65.0, 34.0), 0.9)))], LABEL, [1.0]) == [0.0]


def test_a_probability_is_judged_by_how_often_it_lies_on_a_lesion() -> None:
    found = certainty_of_marks(CASES, LABEL)

    assert (found["marks"], found["on_lesions"]) == (5, 1)
    # surest first: 0.9 right; 0.8, 0.7 (the mark at 0.3, not reported, is 0.7 sure too and right), 0.6 wrong
    assert [point["risk"] for point in found["risk_coverage"]] == [0.0, 0.5, 0.5, 0.6]
    assert calibration(CASES, LABEL)["slope"] > 0
