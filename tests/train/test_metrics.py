"""Metrics and losses against cases computed by hand."""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import pytest
import torch

from medgem_node.train.batches import point_maps
from medgem_node.train.loss import mask_loss, point_loss
from medgem_node.train.metrics.interval import interval, proportion
from medgem_node.train.metrics.overlap import dice, hd95
from medgem_node.train.metrics.roc import auc, auc_delong, curve


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


def test_delongs_interval_by_hand() -> None:
    # placements of the positives: 1/2, 1, 1; of the negatives, from above: 1, 2/3
    found = auc_delong([0.1, 0.5, 0.3, 0.6, 0.7], [False, False, True, True, True])

    half = 1.959964 * math.sqrt((1 / 12) / 3 + (1 / 18) / 2)
    assert found["value"] == pytest.approx(5 / 6, abs=1e-4)
    assert (found["low"], found["high"]) == (pytest.approx(5 / 6 - half, abs=1e-4), 1.0)


def test_delongs_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(80) < 30
    true_area = 0.5 * (1 + math.erf(1 / 2))  # of two normal distributions one deviation apart

    found = [auc_delong((rng.normal(0, 1, 80) + truth).tolist(), truth.tolist()) for _ in range(400)]

    assert np.mean([f["low"] <= true_area <= f["high"] for f in found]) == pytest.approx(0.95, abs=0.03)


def test_the_area_is_scikit_learns() -> None:
    metrics = import_module("sklearn.metrics")
    rng = np.random.default_rng(1)
    scores, truth = np.round(rng.random(200), 2), rng.random(200) < 0.3

    assert auc(scores.tolist(), truth.tolist()) == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-12)


def test_the_95th_percentile_of_distances_by_hand() -> None:
    truth = np.zeros((20, 20), bool)
    truth[5:15, 5:15] = True
    wider = truth.copy()
    wider[5:15, 15:18] = True

    # 42 border pixels of the wider mask: 10 lie 3 away, 2 each 2 and 1 away, the others on the truth's border
    assert hd95(wider, truth) == 3.0
    assert hd95(wider, truth, (1.0, 0.5)) == 1.5
    assert hd95(truth, truth) == 0.0


def test_a_mask_that_is_not_there_is_infinitely_far() -> None:
    mask = np.ones((4, 4), bool)

    assert hd95(mask, ~mask) == math.inf
    assert hd95(~mask, ~mask) == 0.0


def blobs(seed: int, shape: tuple[int, int] = (40, 48)) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Some discs, one of which may touch the border."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    centres = rng.uniform(4, (shape[0], shape[1]), (3, 2))
    return np.any([(y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(9, 60) for cy, cx in centres], axis=0)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI warns of its own call
@pytest.mark.parametrize("seed", range(6))
def test_hd95_is_monais(seed: int) -> None:
    metrics = import_module("monai.metrics")
    found, truth = blobs(seed), blobs(seed + 100)

    pair = [torch.from_numpy(m)[None, None].float() for m in (found, truth)]
    for spacing in ((1.0, 1.0), (0.7, 1.3)):
        theirs = metrics.compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing)
        assert hd95(found, truth, spacing) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_dice_is_monais(seed: int) -> None:
    metrics = import_module("monai.metrics")
    found, truth = blobs(seed), blobs(seed + 100)

    theirs = metrics.compute_dice(*(torch.from_numpy(m)[None, None].float() for m in (found, truth)))

    assert dice(found, truth) == pytest.approx(float(theirs), rel=1e-6)


def test_the_roc_is_scikit_learns() -> None:
    metrics = import_module("sklearn.metrics")
    rng = np.random.default_rng(2)
    scores, truth = np.round(rng.random(120), 2), rng.random(120) < 0.4

    false_rate, true_rate = curve(scores.tolist(), truth.tolist())

    theirs = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert false_rate == pytest.approx(theirs[0])
    assert true_rate == pytest.approx(theirs[1])
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(auc(scores.tolist(), truth.tolist()))
