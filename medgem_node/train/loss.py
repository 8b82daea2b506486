"""What the network is taught by: masks, points, lesions, gate and view, each only where a truth is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from medgem_node.detector.network import Outputs
from medgem_node.train.label_loss import label_loss

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
    labels: Tensor = torch.zeros(0, 0)  # (B, labels), 0..1
    labels_known: Tensor = torch.zeros(0, 0)  # (B, labels), 0 or 1


class Known(NamedTuple):
    """How much is known of a batch: what each part's mean is taken over."""

    masks: Tensor
    drawn: Tensor  # masks of structures that are in the picture
    points: Tensor
    gate: Tensor
    views: Tensor
    lesions: Tensor
    geometry: Tensor
    labels: Tensor


def known(target: Target) -> Known:
    """Of this batch."""
    return Known(
        target.masks_known.sum(),
        _in_picture(target.masks, target.masks_known).sum(),
        target.points_known.sum(),
        (target.gate != UNKNOWN).sum(),
        (target.views != UNKNOWN).sum(),
        _lesions(target.heat, target.heat_weight),
        2 * target.geometry_known.sum(),
        target.labels_known.sum(),
    )


def loss(outputs: Outputs, target: Target, whole: Known | None = None, *, focal: bool = False) -> dict[str, Tensor]:
    """The parts, each a mean over what is known.

    Parameters
    ----------
    whole
        If this is part of a larger batch, what is known of that: the losses of its parts then add up to its loss.
    focal
        The masks' cross-entropy minds less what is easy.
    """
    of = whole or known(target)
    drawn = (of.masks, of.drawn)
    parts = {
        "masks": mask_loss(outputs.masks, target.masks, target.masks_known, drawn, focal=focal),
        "points": point_loss(outputs.points, target.points, target.points_known, of.points),
        "gate": class_loss(outputs.gate, target.gate, of.gate),
    }
    if outputs.boxes is not None:
        kinds = target.heat.shape[1]
        parts["lesions"] = lesion_loss(outputs.boxes[:, :kinds], target.heat, target.heat_weight, of.lesions)
        parts["geometry"] = geometry_loss(outputs.boxes[:, kinds:], target.geometry, target.geometry_known, of.geometry)
    if outputs.views is not None:
        parts["views"] = class_loss(outputs.views, target.views, of.views)
    if outputs.labels is not None:
        parts["labels"] = label_loss(outputs.labels, target.labels, target.labels_known, of.labels)
    return parts


def class_loss(logits: Tensor, truth: Tensor, among: Tensor | None = None) -> Tensor:
    """Cross-entropy where the class is known; 0 where none is."""
    there = truth != UNKNOWN
    if not there.any():
        return logits.sum() * 0
    mean = functional.cross_entropy(logits[there], truth[there], label_smoothing=0.02)
    return mean if among is None else mean * (there.sum() / among)


def lesion_loss(logits: Tensor, truth: Tensor, weight: Tensor, among: Tensor | None = None) -> Tensor:
    """Penalty-reduced focal loss (Law and Deng 2018) of all cells, for each lesion of the batch."""
    lesions = _lesions(truth, weight) if among is None else among
    return (_peaked(logits, truth) * weight).sum() / lesions.clamp(min=1)


def geometry_loss(maps: Tensor, truth: Tensor, known: Tensor, among: Tensor | None = None) -> Tensor:
    """Mean absolute error of centre and logarithmic size, at the lesions' centres."""
    wanted = known.repeat_interleave(2, dim=1)  # (D, 4, h, w): offsets, then sizes
    return _mean((maps - truth).abs(), wanted, among)


def mask_loss(
    logits: Tensor,
    truth: Tensor,
    known: Tensor,
    among: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
    *,
    focal: bool = False,
) -> Tensor:
    """Twice the cross-entropy, or its focal form, plus 1 - Dice; Dice only where the structure is in the picture."""
    entropy = focal_loss(logits, truth) if focal else _entropy(logits, truth)
    each = entropy.mean(dim=(2, 3))  # (B, masks)
    there = _in_picture(truth, known)
    return _mean(2 * each, known, among[0]) + _mean(dice_loss(logits, truth), there, among[1])


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of each mask (Milletari et al. 2016): (B, masks) of (B, masks, H, W)."""
    p = logits.sigmoid()
    overlap, size = (p * truth).sum(dim=(2, 3)), p.sum(dim=(2, 3)) + truth.sum(dim=(2, 3))
    return 1 - 2 * overlap / size.clamp(min=1)


def focal_loss(logits: Tensor, truth: Tensor, alpha: float = 0.75, gamma: float = 2.0) -> Tensor:
    """Of each pixel, (B, masks, H, W): alpha weighs what is there, 1 - alpha what is not.

    References
    ----------
    Lin et al. 2017, arXiv:1708.02002.
    """
    p = logits.sigmoid()
    right = p * truth + (1 - p) * (1 - truth)
    weight = alpha * truth + (1 - alpha) * (1 - truth)
    return weight * (1 - right) ** gamma * _entropy(logits, truth)


def point_loss(logits: Tensor, truth: Tensor, known: Tensor, among: Tensor | None = None) -> Tensor:
    """Penalty-reduced focal loss on Gaussian peaks (Law and Deng 2018; Zhou et al. 2019), for each point."""
    return _mean(_peaked(logits, truth).sum(dim=(2, 3)), known, among)


def _entropy(logits: Tensor, truth: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")


def _in_picture(truth: Tensor, known: Tensor) -> Tensor:
    return known * (truth.amax(dim=(2, 3)) > 0.5)  # (D, masks)


def _lesions(truth: Tensor, weight: Tensor) -> Tensor:
    return ((truth > _AT_PEAK) * weight).sum()


def _peaked(logits: Tensor, truth: Tensor) -> Tensor:
    """Of each cell: at a peak as of a positive, elsewhere as of a negative, less so the nearer a peak is."""
    p, p_log, q_log = logits.sigmoid(), functional.logsigmoid(logits), functional.logsigmoid(-logits)
    at_peak = truth > _AT_PEAK
    hit = torch.where(at_peak, (1 - p) ** 2 * p_log, 0.0)
    miss = torch.where(at_peak, 0.0, (1 - truth) ** 4 * p**2 * q_log)
    return -(hit + miss)


def _mean(values: Tensor, weight: Tensor, among: Tensor | None = None) -> Tensor:
    """Over what is known; or this part of the mean over what is known `among` more."""
    return (values * weight).sum() / (weight.sum() if among is None else among).clamp(min=1)
