"""The model card says what was measured, of the weights that are shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medgem_node.card import read_card

FOLDER = Path(__file__).parents[2] / "models/chest-xray/1.0.0"


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text("utf-8"))


def test_the_evaluation_is_of_the_shipped_weights() -> None:
    assert read("evaluation/test.json")["weights_sha256"] == read_card(FOLDER).weights_sha256


def test_the_cards_figures_are_those_of_the_evaluation() -> None:
    card, test = read("card.json")["Model performance"], read("evaluation/test.json")

    for name, figure in card["Dice, JSRT"].items():
        assert figure == test["overlap_dice"]["jsrt"][name]
    for name, figure in card["Cardiothoracic ratio, JSRT"].items():
        assert figure == test["cardiothoracic_ratio"]["jsrt"][name]


def test_the_probability_rests_on_the_validation_films() -> None:
    measured = read("evaluation/validation.json")["cardiothoracic_ratio"]["jsrt"]
    finding = read_card(FOLDER).findings[0]

    assert finding["bias"] == measured["bias"]["value"]
    assert finding["sigma"] >= measured["standard_deviation"]["value"]


def test_the_readme_names_the_weights_and_their_status() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")

    assert read_card(FOLDER).weights_sha256 in text
    assert "Research use only" in text
