"""Losses by hand, and against MONAI's."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from harness.toy_training import made_batch

from medgem_node.detector.network import Outputs
from medgem_node.train.distributed import Ranks
from medgem_node.train.loss import dice_loss, focal_loss, known, loss, mask_loss


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and truth of 3 images with 2 masks."""
    made = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 2, 8, 8, generator=made)
    return logits, (torch.rand(3, 2, 8, 8, generator=made) < 0.3).float()


def test_focal_loss_weighs_what_is_there_more_than_what_is_not() -> None:
    costs = focal_loss(torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]]))

    # at p = 1/2: alpha_t (1 - 1/2)^2 log 2, with alpha_t 0.75 and 0.25; one alpha for both would give 0.130 twice
    assert costs.flatten().tolist() == pytest.approx([0.130, 0.043], abs=5e-4)


def test_focal_loss_is_monais() -> None:
    losses = import_module("monai.losses")
    logits, truth = drawn()

    expected = losses.FocalLoss(alpha=0.75, gamma=2.0, reduction="none")(logits, truth)
    torch.testing.assert_close(focal_loss(logits, truth), expected)


def test_dice_is_monais() -> None:
    losses = import_module("monai.losses")
    logits, truth = drawn()

    expected = losses.DiceLoss(sigmoid=True, smooth_nr=0.0, smooth_dr=0.0, reduction="none")(logits, truth)
    torch.testing.assert_close(dice_loss(logits, truth), expected[:, :, 0, 0])


def test_the_masks_loss_can_be_focal() -> None:
    logits, truth = drawn()
    every = torch.ones(3, 2)

    expected = 2 * focal_loss(logits, truth).mean() + dice_loss(logits, truth).mean()
    assert mask_loss(logits, truth, every, focal=True) == pytest.approx(expected.item())


@pytest.mark.parametrize("world", [2, 3, 5])
def test_the_losses_of_a_batchs_parts_add_up_to_its_loss(world: int) -> None:
    outputs, target = made_batch()
    whole = loss(outputs, target)

    parts = []
    for rank in range(world):
        _, own = Ranks(rank, world, torch.device("cpu")).part(torch.zeros(5, 1, 16, 16), target)
        of_rank = [values[rank::world] for values in outputs if values is not None]
        if rank >= len(target.masks):  # no film with a truth is left for it: it draws one of which nothing is known
            of_rank = [v if len(v) else torch.zeros(1, *v.shape[1:]) for v in of_rank]
        parts.append(loss(Outputs(*of_rank), own, known(target)))

    for name, value in whole.items():
        assert sum(part[name].item() for part in parts) == pytest.approx(value.item(), rel=1e-5), name
