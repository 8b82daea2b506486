"""What is learnt of uncertain and blank labels."""

from __future__ import annotations

from typing import Any

import pytest

from medgem_node.errors import ConfigError
from medgem_node.train.policies import Policies

LABELS = ("Edema", "Atelectasis")


def learnt(policy: dict[str, Any], label: int | None, name: str = "Edema", film: str = "a") -> float | None:
    return Policies.parse(policy, LABELS, "source x").targets({name: label}, film).get(name)


@pytest.mark.parametrize(
    ("policy", "uncertain", "blank"),
    [
        ({}, None, None),
        ({"Edema": "ignore"}, None, None),
        ({"Edema": "ones"}, 1.0, None),
        ({"Edema": "zeros"}, 0.0, None),
        ({"default": "ones"}, 1.0, None),
        ({"default": "ones", "Edema": "zeros"}, 0.0, None),
        ({"Edema": [0.7, 0.7]}, 0.7, None),
        ({"Edema": {"uncertain": "ones", "blank": "zeros"}}, 1.0, 0.0),
        ({"Edema": {"blank": "zeros"}}, None, 0.0),
        ({"default": {"uncertain": "zeros", "blank": "ignore"}}, 0.0, None),
        ({"Atelectasis": {"uncertain": "ones", "blank": "zeros"}}, None, None),  # another label's
    ],
)
def test_what_is_learnt_of_each_label(policy: dict[str, Any], uncertain: float | None, blank: float | None) -> None:
    assert learnt(policy, 1) == 1.0
    assert learnt(policy, 0) == 0.0
    assert learnt(policy, -1) == uncertain
    assert learnt(policy, None) == blank


def test_a_blank_label_is_no_denial_unless_the_recipe_says_so() -> None:
    targets = Policies.parse({"Edema": {"blank": "zeros"}}, LABELS, "x").targets(dict.fromkeys(LABELS), "a")

    assert targets == {"Edema": 0.0}


def test_a_soft_label_is_drawn_once_for_each_film_and_label() -> None:
    policy = {"default": [0.55, 0.85]}
    drawn = [learnt(policy, -1, film=f"film{n}") for n in range(400)]

    assert all(0.55 <= value <= 0.85 for value in drawn)
    assert drawn == [learnt(policy, -1, film=f"film{n}") for n in range(400)]
    assert sum(drawn) / 400 == pytest.approx(0.70, abs=0.015)  # three standard errors: 0.3 / sqrt(12 * 400) * 3
    assert learnt(policy, -1, "Atelectasis", "film0") != drawn[0]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ({"Edema": "maybe"}, "uncertain is"),
        ({"Edema": [0.8, 0.2]}, "uncertain is"),
        ({"Edema": [0.5, 1.5]}, "uncertain is"),
        ({"Edema": [0.5]}, "uncertain is"),
        ({"Edema": [True, True]}, "uncertain is"),
        ({"Edema": {"blank": "ones"}}, "blank is"),
        ({"Edema": {"blnk": "zeros"}}, '"blnk"'),
        ({"Oedema": "ones"}, '"Oedema"'),
    ],
)
def test_a_policy_that_cannot_be_followed_is_an_error(policy: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Policies.parse(policy, LABELS, "source x")


def test_a_sites_own_labels_need_no_list() -> None:
    policies = Policies.parse({"Silicosis": "ones"}, (), "source x")

    assert policies.targets({"Silicosis": -1, "Other": -1}, "a") == {"Silicosis": 1.0}
