"""The model cards say what was measured, of the weights that are shipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medgem_node.card import ModelCard, find_cards, read_card
from medgem_node.errors import ModelRejected
from medgem_node.train.report import card as figures

MODELS = Path(__file__).parents[2] / "models"
CARDS = find_cards(MODELS)
NEWEST = tuple({card.name: card for card in CARDS}.values())


def _named(card: ModelCard) -> str:
    return f"{card.name} {card.version}"


SHIPPED = pytest.mark.parametrize("card", CARDS, ids=_named)
FILLED = pytest.mark.parametrize("card", NEWEST, ids=_named)  # older ones were written by hand


def read(card: ModelCard, name: str) -> Any:
    return json.loads((card.folder / name).read_text("utf-8"))


@SHIPPED
def test_the_evaluation_is_of_the_shipped_weights(card: ModelCard) -> None:
    assert read(card, "evaluation/test.json")["weights_sha256"] == card.weights_sha256


@FILLED
def test_the_cards_figures_are_those_of_the_evaluation(card: ModelCard) -> None:
    assert list(figures.differences(card)) == []


@SHIPPED
def test_the_ratios_probability_rests_on_the_validation_films(card: ModelCard) -> None:
    measured = read(card, "evaluation/validation.json")["cardiothoracic_ratio"]["jsrt"]
    (finding,) = (fields for fields in card.findings if "ratio_above" in fields)

    assert finding["bias"] == measured["bias"]["value"]
    assert finding["sigma"] >= measured["standard_deviation"]["value"]


@SHIPPED
def test_the_readme_names_the_weights_and_their_status(card: ModelCard) -> None:
    text = (card.folder / "README.md").read_text("utf-8")

    assert card.weights_sha256 in text
    assert "Research use only" in text


@pytest.fixture
def copied(tmp_path: Path) -> ModelCard:
    """A copy of a shipped model, to spoil."""
    newest = NEWEST[0]
    folder = tmp_path / newest.name / newest.version
    shutil.copytree(newest.folder, folder)
    return read_card(folder)


def test_a_figure_that_was_typed_into_the_card_is_found(copied: ModelCard) -> None:
    readme = copied.folder / "README.md"
    text = readme.read_text("utf-8")
    begin = text.index(figures.BEGIN)
    value = next(c for c in text[begin:].split() if c.startswith("0.9"))

    readme.write_text(text[:begin] + text[begin:].replace(value, "0.999", 1), "utf-8")

    assert list(figures.differences(copied)) == ["README.md"]


def test_an_evaluation_of_other_weights_makes_no_card(copied: ModelCard) -> None:
    path = copied.folder / "evaluation/test.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "weights_sha256": "0" * 64}), "utf-8")

    with pytest.raises(ModelRejected, match="other weights"):
        figures.fill(copied)
