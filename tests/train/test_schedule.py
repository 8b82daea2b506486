"""The learning rate against torch's own schedule, and when training has gone on long enough."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from medgem_node.errors import ConfigError
from medgem_node.train.data import Recipe
from medgem_node.train.schedule import Best, check_stopping, rate

PLAN = Recipe(
    seed=1, cycle_ends=(12, 22), validation_joins=22, learning_rate=1e-3, warmup_steps=2, weight_decay=0.0,
    ema_decay=0.9, turned_share=0, loss={}, split={}, augment={}, sources=(),
)  # fmt: skip


def test_the_learning_rate_is_cosines_with_warm_restarts() -> None:
    rates = [rate(PLAN, step) for step in range(22)]

    # two steps of warm-up, a cosine of ten steps to one per cent, then another from half
    first = [0.01 + 0.99 * (1 + math.cos(math.pi * n / 10)) / 2 for n in range(10)]
    assert rates == pytest.approx([1e-3 * r for r in (0.5, 1.0, *first, *(r / 2 for r in first))])


@pytest.mark.parametrize(("first", "times"), [(10, 1), (10, 2), (4, 3)])
def test_cycles_that_grow_are_torchs_warm_restarts(first: int, times: int) -> None:
    ends = [first * sum(times**n for n in range(cycles)) for cycles in (1, 2, 3)]
    plan = replace(PLAN, cycle_ends=tuple(ends), warmup_steps=0, restart_rate=1.0)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    oracle = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimiser, first, times, eta_min=1e-5)

    expected = []
    for _ in range(ends[-1]):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        oracle.step()

    assert [rate(plan, step) for step in range(ends[-1])] == pytest.approx(expected, rel=1e-12)


def test_training_is_over_when_patience_has_brought_nothing_better() -> None:
    best = Best().after(0.5, 10).after(0.6, 20).after(0.6, 30).after(math.nan, 40)

    assert (best.value, best.step) == (0.6, 20)
    assert best.is_over(20)
    assert not best.is_over(21)
    assert not best.is_over(0)


def test_a_figure_of_films_that_are_trained_on_stops_nothing() -> None:
    with pytest.raises(ConfigError, match="validation_joins"):
        check_stopping(replace(PLAN, stop_by="jsrt@1", validation_joins=12))


def test_patience_without_a_figure_is_an_error() -> None:
    with pytest.raises(ConfigError, match="stop_by"):
        check_stopping(replace(PLAN, patience=5))


def test_patience_shorter_than_a_cycle_is_warned_of() -> None:
    assert "12" in check_stopping(replace(PLAN, stop_by="jsrt@1", patience=11))
    assert check_stopping(replace(PLAN, stop_by="jsrt@1", patience=12)) == ""
