"""Subgroups of cases made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medgem_node.card import ModelCard, read_card
from medgem_node.finding import Analysis
from medgem_node.train.cases import Case
from medgem_node.train.data import Film, Source
from medgem_node.train.evaluate_certainty import Answer, certainty
from medgem_node.train.subgroups import FEWEST, UNKNOWN, Person, age_band, read_people, subgroups

ANALYSIS = Analysis("chest-xray", "1.0.0")


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return read_card(Path(__file__).parents[2] / "models/chest-xray/1.0.0")


def case(name: str, *, view: str = "PA", refused: bool = False) -> Case:
    film = Film(name, name, "nih", "frontal", np.zeros((4, 4), np.float32), view=view)
    return Case(film, None, "mirrored") if refused else Case(film, ANALYSIS)


CASES = [case(f"a{n}", refused=n < 3) for n in range(12)] + [case(f"b{n}", view="AP") for n in range(FEWEST - 1)]


def test_a_figure_is_of_its_group_alone(card: ModelCard) -> None:
    rows = {(r["factor"], r["group"]): r for r in subgroups(CASES, {}, card, seed=1)}

    assert rows["view", "PA"]["figures"]["refused"]["hits"] == 3
    assert rows["source", "nih"]["films"] == 12 + FEWEST - 1


def test_a_group_of_fewer_than_ten_films_shows_no_figure(card: ModelCard) -> None:
    rows = {(r["factor"], r["group"]): r for r in subgroups(CASES, {}, card, seed=1)}

    assert rows["view", "AP"] == {"factor": "view", "group": "AP", "films": "fewer than 10"}


def test_a_figure_that_rests_on_few_films_of_a_large_group_is_not_shown(card: ModelCard) -> None:
    truth = np.zeros((3, 4, 4), np.float32)
    film = Film("c", "c", "nih", "contours", np.zeros((4, 4), np.float32), truth=truth, view="PA")

    rows = {(r["factor"], r["group"]): r for r in subgroups([*CASES, Case(film, None, "x")], {}, card, seed=1)}

    assert "Dice of the lungs" not in rows["view", "PA"]["figures"]  # refused: no mask
    assert rows["view", "PA"]["figures"]["refused"]["films"] == 13


def test_who_a_patient_is_comes_from_the_sources_labels_alone(tmp_path: Path, card: ModelCard) -> None:
    rows = "".join(f"a{n}.jpg,{30 + n},{'MF'[n % 2]},PA,talo\n" for n in range(12))
    (tmp_path / "labels.csv").write_text("image,age,sex,view,source\n" + rows)
    told = Source(name="nih", kind="frontal", images="*.jpg", share=1, labels="labels.csv")
    untold = Source(name="jsrt", kind="contours", images="*.jpg", share=1, lesion_kind="centres", lesions="labels.csv")

    people = read_people([told, untold], tmp_path)

    assert people["nih", "a0"] == Person("men", "18-39", "talo")
    assert not any(source == "jsrt" for source, _ in people)
    ages = [r for r in subgroups(CASES, people, card, seed=1) if r["factor"] == "age"]
    assert {r["group"]: r["films"] for r in ages} == {"18-39": 10, "40-59": "fewer than 10", UNKNOWN: "fewer than 10"}


@pytest.mark.parametrize(
    ("age", "band"),
    [("0", "0-17"), ("17", "0-17"), ("18", "18-39"), ("79", "60-79"), ("80", "80 and over"), ("412", UNKNOWN)],
)
def test_age_bands(age: str, band: str) -> None:
    assert age_band(age) == band


def test_an_answer_is_sure_as_its_tier_is_and_wrong_against_the_truth() -> None:
    # yes at 0.9, right; no at 0.2, right; yes at 0.3 (a low operating point), wrong
    found = certainty([Answer(0.9, True, True), Answer(0.2, False, False), Answer(0.3, True, False)])

    assert [point["risk"] for point in found["risk_coverage"]] == [0.0, 0.0, pytest.approx(1 / 3, abs=1e-4)]
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.09) / 3, abs=1e-4)
    assert found["expected_error"] == pytest.approx((0.1 + 0.2 + 0.3) / 3, abs=1e-4)


def test_no_answer_has_no_error() -> None:
    assert certainty([]) == {"answers": 0}
