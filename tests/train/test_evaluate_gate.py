"""The gate's confusion table on answers made by hand, and on pictures through a real (untrained) network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgem_node.card import ModelCard, read_card
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.train.cases import Case, judge
from medgem_node.train.data import Film, read_recipe
from medgem_node.train.evaluate_gate import (
    ALTERED,
    FRONTAL,
    MADE,
    OTHER,
    TURNED,
    Shown,
    confusion,
    gate,
    made_pictures,
)
from medgem_node.train.metrics.roc import auc_delong

MODEL = Path(__file__).parents[2] / "models/chest-xray/1.0.0"
SHOWN = [
    Shown(FRONTAL, "jsrt", "analysed", 0.9),
    Shown(FRONTAL, "jsrt", "analysed", 0.8),
    Shown(FRONTAL, "jsrt", "mirrored", 0.3),
    Shown(OTHER, "forearm", "not-a-frontal-chest", 0.1),
    Shown(OTHER, "forearm", "analysed", 0.7),
    Shown(TURNED, "mirrored", "mirrored", 0.2),
    Shown(MADE, "black", "constant-image", 0.0),
]


def test_what_was_shown_is_counted_against_what_was_answered() -> None:
    chest, forearm, mirrored = confusion(SHOWN)["real"]

    assert (chest["shown"], chest["n"], chest["answers"]) == ("jsrt", 3, {"analysed": 2, "mirrored": 1})
    assert forearm["answers"] == {"analysed": 1, "not-a-frontal-chest": 1}
    assert [row["right"]["hits"] for row in (chest, forearm, mirrored)] == [2, 1, 1]


def test_made_pictures_stand_in_a_table_of_their_own_and_have_no_say_in_the_roc() -> None:
    found, without = confusion(SHOWN), confusion(SHOWN[:-1])

    assert [row["shown"] for row in found["made"]] == ["black"]
    assert not any(row["group"] == MADE for row in found["real"])
    assert found["roc"] == without["roc"]


def test_the_roc_is_of_frontal_films_against_each_group() -> None:
    roc = confusion(SHOWN)["roc"]

    expected = auc_delong([0.9, 0.8, 0.3, 0.1, 0.7], [True, True, True, False, False])
    assert {key: roc["other pictures"][key] for key in expected} == expected
    assert roc["other pictures"]["curve"][-1] == [1.0, 1.0]
    assert roc["films altered"]["value"] == 1.0


def test_a_group_that_was_not_shown_has_no_area() -> None:
    assert confusion(SHOWN[:3])["roc"]["other pictures"] == {"positive": 3, "negative": 0}


def test_every_alteration_changes_the_picture_and_none_needs_a_square() -> None:
    grey = np.arange(48, dtype=np.float32).reshape(6, 8)

    altered = [alter(grey) for alter in ALTERED.values()]

    assert not any(a.shape == grey.shape and (a == grey).all() for a in altered)
    assert ALTERED["mirrored"](grey)[0, 0] == grey[0, -1]
    assert ALTERED["inverted"](grey)[0, 0] == grey.max()


def test_made_pictures_are_the_same_for_one_seed() -> None:
    first, second = list(made_pictures(3)), list(made_pictures(3))

    assert all((a == b).all() for (_, a), (_, b) in zip(first, second, strict=True))
    assert {name: len([1 for other, _ in first if other == name]) for name, _ in first}["text"] == 10


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return read_card(MODEL)


@pytest.fixture(scope="module")
def network(card: ModelCard) -> ChestNetwork:
    torch.manual_seed(0)
    small = {"size": 64, "stem": [8, 8], "widths": [16, 16, 16], "depths": [1, 1, 1], "heads": [2, 2, 2]}
    small |= {"window": 4, "mlp_ratio": 2.0, "decoder": [8, 8, 8, 8]}
    return ChestNetwork(NetworkConfig.read({**card.network, **small})).eval().requires_grad_(False)


def test_a_picture_of_one_grey_is_refused_before_the_network(card: ModelCard, network: ChestNetwork) -> None:
    case = judge(network, Film("f", "f", "s", "other", np.zeros((80, 80), np.float32)), card)

    assert (case.answer, case.frontal) == ("constant-image", 0.0)


def test_films_go_through_the_gate_as_they_are_and_altered(card: ModelCard, network: ChestNetwork) -> None:
    recipe = read_recipe(MODEL / "train.toml")
    noise = np.random.default_rng(0).uniform(0, 255, (80, 100)).astype(np.float32)
    films = [Film(f"f{n}", f"f{n}", "jsrt", "frontal", noise + n) for n in range(2)]
    other = Film("o", "o", "other", "other", noise, shows="forearm")
    encoded_otherwise = replace(other, name="o2", group="o2")
    bars = Film("p", "p", "other", "other", noise.T.copy(), shows="computed test pattern")
    cases = [judge(network, film, card) for film in (*films, other, encoded_otherwise, bars)]

    found = gate(network, cases, replace(recipe, seed=1), card)

    altered = [row for row in found["real"] if row["group"] == TURNED]
    assert [(row["shown"], row["n"]) for row in found["real"] if row["group"] == OTHER] == [("forearm", 1)]
    assert "computed test pattern" in {row["shown"] for row in found["made"]}
    assert {row["shown"]: row["n"] for row in altered} == dict.fromkeys(ALTERED, 2)
    assert all(isinstance(case, Case) and 0 <= case.frontal <= 1 for case in cases)
    assert {row["answers"].get("constant-image") for row in found["made"] if row["shown"] in ("black", "white")} == {1}
