"""Metrics and losses against cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medgem_node.train.batches import point_maps
from medgem_node.train.loss import mask_loss, point_loss
from medgem_node.train.metrics.interval import interval, proportion
from medgem_node.train.metrics.overlap import dice
from medgem_node.train.metrics.roc import auc


def test_dice_by_hand() -> None:
    a, b = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)

    assert dice(a, b) == pytest.approx(4 / 6)
    assert dice(a & ~a, b & ~b) == 1.0


def test_auc_by_hand_with_a_tie() -> None:
    assert auc([0.1, 0.4, 0.4, 0.8], [False, False, True, True]) == pytest.approx(3.5 / 4)


def test_an_interval_holds_its_value_and_draws_whole_patients() -> None:
    rows = np.array([[0.0], [0.0], [1.0], [1.0]])

    found = interval(rows, ["a", "a", "b", "b"], lambda r: float(r.mean()), seed=1)

    assert found == {"value": 0.5, "low": 0.0, "high": 1.0, "films": 4, "patients": 2}


def test_wilsons_interval_by_hand() -> None:
    found = proportion(0, 100)

    assert (found["low"], found["high"]) == (0.0, pytest.approx(0.037, abs=0.0005))


def test_a_mask_of_unknown_truth_teaches_nothing() -> None:
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    truth = torch.ones(1, 3, 8, 8)

    mask_loss(logits, truth, torch.tensor([[1.0, 1.0, 0.0]])).backward()

    assert logits.grad is not None
    assert logits.grad[0, :2].abs().sum() > 0
    assert logits.grad[0, 2].abs().sum() == 0


def test_a_perfect_mask_costs_next_to_nothing() -> None:
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., :4] = 1

    assert mask_loss((truth - 0.5) * 40, truth, torch.ones(1, 1)) < 1e-4


def test_the_focal_loss_of_one_cell_by_hand() -> None:
    logits, truth = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.5]]]])

    expected = -(0.25 * math.log(0.5) + 0.5**4 * 0.25 * math.log(0.5))
    assert point_loss(logits, truth, torch.ones(1, 1)) == pytest.approx(expected)


def test_peaks_lie_at_the_borders_of_the_masks() -> None:
    truth = np.zeros((3, 64, 64), np.float32)
    truth[0, 10:50, 8:24] = truth[1, 10:50, 40:58] = truth[2, 30:50, 20:44] = 1

    maps, known = point_maps(truth, (True, True, False))

    assert [np.unravel_index(m.argmax(), m.shape)[1] for m in maps[2:]] == [2, 14]
    assert known.tolist() == [0, 0, 1, 1]
