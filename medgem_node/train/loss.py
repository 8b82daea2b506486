"""What the network is taught by: masks, points and the gate, each only where a truth is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from medgem_node.detector.network import Outputs


class Target(NamedTuple):
    """The truth for B images of H x W pixels, of which the first D have a truth of masks or points."""

    masks: Tensor  # (D, masks, H, W), 0..1
    masks_known: Tensor  # (D, masks), 0 or 1
    points: Tensor  # (D, points, H/4, W/4), 0..1, 1 at the point's cell
    points_known: Tensor  # (D, points), 0 or 1
    gate: Tensor  # (B,), the class


def loss(outputs: Outputs, target: Target) -> dict[str, Tensor]:
    """The three parts, each a mean over what is known."""
    return {
        "masks": mask_loss(outputs.masks, target.masks, target.masks_known),
        "points": point_loss(outputs.points, target.points, target.points_known),
        "gate": functional.cross_entropy(outputs.gate, target.gate, label_smoothing=0.02),
    }


def mask_loss(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy plus 1 - Dice (Milletari et al. 2016); Dice only where the structure is in the picture."""
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(
        dim=(2, 3)
    )  # (B, masks)
    p = logits.sigmoid()
    overlap, size = (p * truth).sum(dim=(2, 3)), p.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
    dice = 1 - 2 * overlap / size.clamp(min=1)
    there = known * (truth.amax(dim=(2, 3)) > 0.5)
    return _mean(2 * entropy, known) + _mean(dice, there)


def point_loss(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Penalty-reduced focal loss on Gaussian peaks (Law and Deng 2018; Zhou et al. 2019), for each point."""
    p, p_log, q_log = logits.sigmoid(), functional.logsigmoid(logits), functional.logsigmoid(-logits)
    at_peak = truth > 0.99
    hit = torch.where(at_peak, (1 - p) ** 2 * p_log, 0.0)
    miss = torch.where(at_peak, 0.0, (1 - truth) ** 4 * p**2 * q_log)
    return _mean(-(hit + miss).sum(dim=(2, 3)), known)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)
