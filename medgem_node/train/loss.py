"""What the network is taught by: masks, points, lesions, gate and view, each only where a truth is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from medgem_node.detector.network import Outputs

_AT_PEAK = 0.99
UNKNOWN = -100  # a class that is not known, for the cross-entropy


class Target(NamedTuple):
    """The truth for B images of H x W pixels, of which the first D have a truth of masks or lesions."""

    gate: Tensor  # (B,), the class, or UNKNOWN
    views: Tensor  # (B,), likewise
    masks: Tensor  # (D, masks, H, W), 0..1
    masks_known: Tensor  # (D, masks), 0 or 1
    points: Tensor  # (D, points, H/4, W/4), 0..1, 1 at the point's cell
    points_known: Tensor  # (D, points), 0 or 1
    heat: Tensor  # (D, kinds, H/4, W/4), this and the next three as boxes.encode makes them
    heat_weight: Tensor  # (D, 1, H/4, W/4)
    geometry: Tensor  # (D, 4, H/4, W/4)
    geometry_known: Tensor  # (D, 2, H/4, W/4)


def loss(outputs: Outputs, target: Target) -> dict[str, Tensor]:
    """The parts, each a mean over what is known."""
    parts = {
        "masks": mask_loss(outputs.masks, target.masks, target.masks_known),
        "points": point_loss(outputs.points, target.points, target.points_known),
        "gate": class_loss(outputs.gate, target.gate),
    }
    if outputs.boxes is not None:
        kinds = target.heat.shape[1]
        parts["lesions"] = lesion_loss(outputs.boxes[:, :kinds], target.heat, target.heat_weight)
        parts["geometry"] = geometry_loss(outputs.boxes[:, kinds:], target.geometry, target.geometry_known)
    if outputs.views is not None:
        parts["views"] = class_loss(outputs.views, target.views)
    return parts


def class_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy where the class is known; 0 where none is."""
    known = truth != UNKNOWN
    if not known.any():
        return logits.sum() * 0
    return functional.cross_entropy(logits[known], truth[known], label_smoothing=0.02)


def lesion_loss(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Penalty-reduced focal loss (Law and Deng 2018) of all cells, for each lesion of the batch."""
    lesions = ((truth > _AT_PEAK) * weight).sum()
    return (_focal(logits, truth) * weight).sum() / lesions.clamp(min=1)


def geometry_loss(maps: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Mean absolute error of centre and logarithmic size, at the lesions' centres."""
    wanted = known.repeat_interleave(2, dim=1)  # (D, 4, h, w): offsets, then sizes
    return ((maps - truth).abs() * wanted).sum() / wanted.sum().clamp(min=1)


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
    return _mean(_focal(logits, truth).sum(dim=(2, 3)), known)


def _focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Of each cell: at a peak as of a positive, elsewhere as of a negative, less so the nearer a peak is."""
    p, p_log, q_log = logits.sigmoid(), functional.logsigmoid(logits), functional.logsigmoid(-logits)
    at_peak = truth > _AT_PEAK
    hit = torch.where(at_peak, (1 - p) ** 2 * p_log, 0.0)
    miss = torch.where(at_peak, 0.0, (1 - truth) ** 4 * p**2 * q_log)
    return -(hit + miss)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)
