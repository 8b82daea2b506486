"""Pointing, priors and sanity checks on films and maps made by hand, and on a network of a few weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medgem_node.card import ModelCard, read_card
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import letterbox
from medgem_node.detector.sizes import SIZES
from medgem_node.errors import MedgemError
from medgem_node.train.evaluate_explanations import PRIORS, Shown, against_boxes, explanations, shuffled
from medgem_node.train.film import Film
from medgem_node.train.lesions import Lesion
from medgem_node.train.metrics import explanation as metric
from medgem_node.train.metrics.explanation import best_lung_point, centre_prior, rank_correlation, usual_places
from medgem_node.train.metrics.interval import interval, means

FOLDER = Path(__file__).parents[2] / "models/chest-xray/1.0.0"
HEADS = {
    "masks": ["right-lung", "left-lung", "heart"],
    "points": ["p"],
    "classes": ["frontal", "other"],
    "boxes": ["nodule-or-mass"],
}


@pytest.fixture(scope="module")
def network() -> ChestNetwork:
    torch.manual_seed(0)
    table = {**SIZES["lite-s"], "size": 64, "widths": (40, 24, 32), "heads": (1, 2, 2), "window": 4, **HEADS}
    return ChestNetwork(NetworkConfig.read(table)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return replace(read_card(FOLDER), network=HEADS)


def film(name: str, x: float, y: float, *, sized: bool = True, source: str = "nih") -> Film:
    """A lesion of a tenth of each side around x, y."""
    grey = np.random.default_rng(len(name)).random((80, 100), np.float32)
    lesion = Lesion((x - 0.05, y - 0.05, x + 0.05, y + 0.05), sized=sized)
    return Film(name, name, source, "frontal", grey, lesions=(lesion,))


def shown(one: Film, **peaks: tuple[float, float]) -> Shown:
    """Lungs are the left half of the film; each map has one cell, at x and y."""
    lungs = np.zeros((40, 50), bool)
    lungs[:, :25] = True
    maps = {name: np.zeros((40, 50), np.float32) for name in peaks}
    for name, (x, y) in peaks.items():
        maps[name][int(y * 40), int(x * 50)] = 1
    return Shown(one, torch.zeros(1, 1, 50, 50), letterbox(80, 100, 50), 0.5, lungs, maps, maps)


def right_and_wrong(n: int) -> list[Shown]:
    """Lesions of `n` patients, all in the left half; one map is always right, one never."""
    places = [(0.1 + 0.03 * k, 0.15 + 0.06 * k) for k in range(n)]
    return [shown(film(f"p{k}", x, y), right=(x, y), wrong=(0.9, 0.9)) for k, (x, y) in enumerate(places)]


def test_a_map_that_always_points_right_is_an_explanation_and_one_that_never_does_is_none() -> None:
    found = against_boxes(right_and_wrong(10), seed=1)

    assert found["pointing_game"]["right"]["value"] == 1
    assert found["pointing_game"]["wrong"]["value"] == 0
    assert found["energy_in_box"]["right"]["value"] == 1
    assert found["is_explanation"] == {"right": True, "wrong": False}
    assert found["beats"] == {"right": list(PRIORS), "wrong": []}
    assert found["pointing_game_lead"]["wrong"]["lungs"]["high"] < 0


def test_the_lungs_expected_rate_is_the_share_of_them_that_lies_in_the_box() -> None:
    found = against_boxes(right_and_wrong(10), seed=1)

    assert found["pointing_game"]["lungs"]["value"] == pytest.approx(0.1 * 0.1 / 0.5, abs=0.004)


def test_a_map_that_points_where_all_boxes_lie_explains_nothing() -> None:
    same = [shown(film(f"p{k}", 0.3, 0.3), always=(0.3, 0.3)) for k in range(10)]

    found = against_boxes(same, seed=1)

    assert found["pointing_game"]["always"]["value"] == 1
    assert found["pointing_game"]["usual place"]["value"] == 1
    assert found["pointing_game"]["lung point"]["value"] == 1
    assert found["is_explanation"] == {"always": False}


def test_of_one_patient_nothing_usual_is_known() -> None:
    boxes = [[(0.0, 0.0, 0.1, 0.1)], [(0.0, 0.0, 0.1, 0.1)], [(0.8, 0.8, 0.9, 0.9)]]

    first, second, third = usual_places(boxes, ["a", "a", "b"], (10, 10))

    assert first[8, 8] == second[8, 8] == 1
    assert first[0, 0] == 0
    assert third[0, 0] == 2
    assert np.array_equal(usual_places(boxes[:1], ["a"], (10, 10))[0], centre_prior((10, 10)))


def test_the_best_lung_point_moves_with_the_lungs() -> None:
    left, right = np.zeros((100, 100), bool), np.zeros((100, 100), bool)
    left[:, :50], right[:, 50:] = True, True
    corner = [[(0.0, 0.0, 0.1, 0.1)], [(0.5, 0.0, 0.6, 0.1)]]  # the same part of two lungs

    assert best_lung_point([left, right], corner) == [True, True]
    assert sum(best_lung_point([left, left], corner)) == 1


def test_a_lesion_of_which_only_the_centre_is_known_is_hit_from_near_by_and_has_no_energy() -> None:
    near, far = film("a", 0.3, 0.5, sized=False), film("b", 0.3, 0.5, sized=False)

    found = against_boxes([shown(near, map=(0.34, 0.5)), shown(far, map=(0.37, 0.5))], seed=1)

    assert found["pointing_game"]["map"]["value"] == 0.5
    assert "energy_in_box" not in found
    assert shown(near).boxes[0] == pytest.approx((0.25, 0.5 - 0.05 * 100 / 80, 0.35, 0.5 + 0.05 * 100 / 80))


def test_means_of_columns_have_the_interval_of_each() -> None:
    rows = np.random.default_rng(0).random((30, 2))
    groups = [f"p{k // 2}" for k in range(30)]

    for n, found in enumerate(means(rows, groups, seed=1)):
        alone = interval(rows[:, n : n + 1], groups, lambda r: float(r.mean()), seed=1)
        assert (found["value"], found["films"], found["patients"]) == (alone["value"], 30, 15)
        assert (found["low"], found["high"]) == pytest.approx((alone["low"], alone["high"]), abs=0.015)


def test_ranks_correlate_by_hand() -> None:
    a = np.array([[1, 2], [3, 4]], np.float32)

    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.array([[1, 1], [2, 2]], np.float32)) == pytest.approx(2 / 5**0.5)
    assert rank_correlation(a, np.ones_like(a)) == 0


def test_every_figure_is_made_for_every_method_and_goes_into_json(
    network: ChestNetwork, card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metric, "_STEPS", 4)  # twenty take a while
    films = [film("a", 0.2, 0.3), film("b", 0.7, 0.6)]

    found = explanations(network, films, card, seed=1, curves_at_most=1, shuffled_at_most=1)

    assert found["methods"] == ["lesions", "grad-cam", "grad-cam++", "rollout"]
    assert json.loads(json.dumps(found)).keys() == {"methods", "priors", "nih", "all", "weights_shuffled"}
    for name in (*found["methods"], *found["priors"]):
        assert 0 <= found["all"]["pointing_game"][name]["value"] <= 1
    assert found["all"]["films_with_lesions"] == 2
    assert found["nih"]["deletion"].keys() == {*found["methods"], "lungs, in random order"}
    assert 0 <= found["nih"]["insertion"]["lesions"]["value"] <= 1


def test_shuffling_weights_leaves_the_network_as_it_was(network: ChestNetwork, card: ModelCard) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    values = network(image).boxes[0, 0].sigmoid().numpy()
    one = Shown(film("a", 0.2, 0.3), image, letterbox(64, 64, 64), 0.5, values > 0, {}, dict.fromkeys(
        ("lesions", "grad-cam", "grad-cam++", "rollout"), values
    ))  # fmt: skip
    one.squares["rollout"] = np.zeros((4, 4), np.float32)

    found = shuffled(network, [one], seed=1)

    assert list(found) == ["films", "boxes", "decoder", "stage32", "merge", "stage16", "embed", "stem"]
    assert found["stem"]["lesions"] < 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_without_boxes_or_lesions_there_is_nothing_to_measure(network: ChestNetwork, card: ModelCard) -> None:
    free = replace(film("a", 0.2, 0.3), lesions=())

    with pytest.raises(MedgemError, match="no film with a lesion"):
        explanations(network, [free], card, seed=1)
