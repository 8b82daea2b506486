"""FROC, average precision and concordance against cases counted by hand."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from medgem_node.train.metrics.detection import (
    average_precision,
    average_precisions,
    concordance,
    iou,
    mean_average_precision,
)
from medgem_node.train.metrics.froc import (
    Marks,
    centre_in_box,
    centre_within,
    false_marks,
    froc,
    scored,
    sensitivity,
)

LESION, ELSEWHERE = (0.0, 0.0, 2.0, 2.0), (8.0, 8.0, 9.0, 9.0)
FILMS = [
    Marks("a", [LESION, ELSEWHERE], [0.9, 0.8], [LESION]),
    Marks("b", [ELSEWHERE, LESION], [0.7, 0.6], [LESION]),
    Marks("c", [ELSEWHERE], [0.5], [LESION]),
    Marks("d", [], [], []),
]


def test_the_curve_by_hand() -> None:
    films = [scored(film, centre_in_box) for film in FILMS]

    # false marks at 0.8, 0.7 and 0.5 on 4 films; lesions found at 0.9, at 0.6 and never
    assert sensitivity(films, [0.125, 0.25, 0.5, 1.0]) == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert false_marks(films, 0.7) == 0.5


def test_a_second_mark_on_a_lesion_is_not_a_false_one() -> None:
    film = scored(Marks("a", [LESION, LESION], [0.3, 0.9], [LESION]), centre_in_box)

    assert film.lesions.tolist() == [0.9]
    assert film.false.size == 0


def test_a_lesion_scored_as_a_false_mark_is_not_found_before_it() -> None:
    films = [scored(Marks("a", [LESION, ELSEWHERE], [0.5, 0.5], [LESION]), centre_in_box)]

    assert sensitivity(films, [0.5, 1.0]) == [0.0, 1.0]


def test_the_interval_draws_whole_patients_and_holds_the_value() -> None:
    found = froc([scored(film, centre_in_box) for film in FILMS], [1.0], seed=3)[0]

    assert found["low"] <= found["value"] <= found["high"]
    assert (found["lesions"], found["films"], found["patients"]) == (3, 4, 4)


def test_the_interval_of_a_detector_that_finds_all_has_no_width() -> None:
    films = [scored(Marks(str(n), [LESION], [0.9], [LESION]), centre_in_box) for n in range(5)]

    assert {(r["low"], r["value"], r["high"]) for r in froc(films, seed=1)} == {(1.0, 1.0, 1.0)}


def test_a_mark_near_a_centre_hits_it() -> None:
    hits = centre_within(1.0)

    assert hits((0.0, 0.0, 2.0, 2.0), (0.9, 0.0, 2.9, 2.0))
    assert not hits((0.0, 0.0, 2.0, 2.0), (1.1, 0.0, 3.1, 2.0))


def test_overlap_by_hand() -> None:
    assert iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0


def test_average_precision_by_hand() -> None:
    # right, wrong, wrong, right, wrong: precision 1 at recall 1/3, 2/4 at recall 2/3
    assert average_precision(FILMS, 0.5) == pytest.approx((1 + 0.5) / 3)
    assert mean_average_precision([FILMS], [0.3, 0.5]) == pytest.approx((1 + 0.5) / 3)


def test_average_precision_counts_a_second_mark_as_wrong() -> None:
    film = Marks("a", [LESION, LESION, ELSEWHERE], [0.9, 0.8, 0.7], [LESION, ELSEWHERE])

    assert average_precision([film], 0.5) == pytest.approx((1 + 2 / 3) / 2)


def test_the_interval_of_average_precision_holds_the_value_and_draws_patients() -> None:
    films = [*FILMS, *(Marks("e", f.marks, f.scores, f.lesions) for f in FILMS)]

    found = average_precisions(films, [0.3, 0.5], seed=4)

    assert found["iou 0.5"]["value"] == pytest.approx(average_precision(films, 0.5), abs=1e-4)
    assert found["mean"]["value"] == pytest.approx(mean_average_precision([films], [0.3, 0.5]), abs=1e-4)
    assert found["mean"]["low"] < found["mean"]["value"] < found["mean"]["high"]
    assert (found["mean"]["lesions"], found["mean"]["films"], found["mean"]["patients"]) == (6, 8, 5)


def random_films(n: int) -> list[Marks]:
    """Lesions on a coarse grid, marks on some of them and elsewhere, no two scores alike."""
    rng = np.random.default_rng(7)
    films = []
    for patient in range(n):
        lesions = [(x, 10.0, x + 4.0, 14.0) for x in range(0, 10 * int(rng.integers(0, 4)), 10)]
        marks = [lesion for lesion in lesions if rng.random() < 0.7]
        marks += [(x, 40.0, x + 4.0, 44.0) for x in range(0, 10 * int(rng.integers(0, 5)), 10)]
        films.append(Marks(str(patient), marks, rng.random(len(marks)).tolist(), lesions))
    return films


def test_average_precision_is_scikit_learns() -> None:
    metrics = import_module("sklearn.metrics")
    films = random_films(30)
    judged = [scored(film, centre_in_box) for film in films]
    found = np.concatenate([f.lesions for f in judged])
    scores = np.concatenate([found[np.isfinite(found)], *(f.false for f in judged)])
    right = np.arange(len(scores)) < np.isfinite(found).sum()

    # theirs knows no lesion without a mark, and takes precision as it is at each score, not the best beyond it
    precision, recall, _ = metrics.precision_recall_curve(right, scores)
    envelope = np.maximum.accumulate(precision)
    theirs = -np.diff(recall) @ envelope[:-1] * right.sum() / len(found)

    assert average_precision(films, 0.5) == pytest.approx(theirs)


def test_the_curve_is_monais() -> None:
    metrics = import_module("monai.metrics.froc")
    films = [scored(film, centre_in_box) for film in random_films(30)]
    found, false = np.concatenate([f.lesions for f in films]), np.concatenate([f.false for f in films])

    hits = found[np.isfinite(found)]
    rates, theirs = metrics.compute_froc_curve_data(false, hits, num_targets=len(found), num_images=len(films))

    best = [theirs[rates <= rate].max() for rate in rates]  # a curve never falls as more false marks are allowed
    assert sensitivity(films, rates.tolist())[1:] == pytest.approx(best[1:])


def test_average_precision_without_a_lesion_is_no_number() -> None:
    assert np.isnan(average_precision([Marks("a", [LESION], [0.9], [])], 0.5))


def test_concordance_counts_marks_that_a_reader_shares() -> None:
    assert concordance(FILMS) == (2, 5)
