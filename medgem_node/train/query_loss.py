"""What queries are taught: which peaks lie on lesions, and where those lesions' boxes are.

The truth is read back from the maps that the box head is taught by (`boxes.encode`), so both see the same lesions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medgem_node.detector.queries import COLUMN, KIND, LOGIT, ROW
from medgem_node.train.loss import Target, focal_loss

BACKGROUND, NEITHER = -1, -2
"""What a peak is matched with that is given no lesion: taught as background, or not taught at all."""
_AT_CENTRE = 0.99
_REACH_OF_CENTRES = 1.8  # of the usual half side: as far as a mark may lie from a centre of which no box is known
_LEAST_LOGIT = -100.0  # below it, no peak: see queries.peaks
_ALPHA = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Lesions:
    """The n lesions of one image, in cells of the box head's maps."""

    kind: Tensor  # (n,)
    centre: Tensor  # (n, 2), x and y
    log_size: Tensor  # (n, 2), of width and height
    sized: Tensor  # (n,), False: the size is a usual one


def query_loss(queries: Tensor, target: Target) -> dict[str, Tensor]:
    """`queries` (D, K, 8) of the drawn images: focal loss of the scores; L1 and GIoU of the boxes that have a size.

    Each for one lesion that has a peak; L1 of centres is by the lesion's own size.
    """
    scores, boxes, given = queries.sum() * 0, queries.sum() * 0, 0
    for n, own in enumerate(queries):
        lesions = lesions_of(target, n)
        match = matched(own.detach(), lesions, target.heat_weight[n, 0])
        taught = match != NEITHER
        truth = (match[taught] >= 0).to(own.dtype)
        scores = scores + focal_loss(own[taught, LOGIT], truth, alpha=_ALPHA).sum()
        given += int(truth.sum())
        if truth.any():
            boxes = boxes + box_loss(own[match >= 0], lesions, match[match >= 0])
    return {"queries": scores / max(given, 1), "query boxes": boxes / max(given, 1)}


def lesions_of(target: Target, n: int) -> Lesions:
    """Those of the drawn image n, from its maps."""
    row, column = target.geometry_known[n, 0].nonzero().unbind(1)  # (n,) each
    geometry = target.geometry[n, :, row, column].T  # (n, 4)
    kind = target.heat[n, :, row, column].argmax(dim=0)
    centre = torch.stack((column, row), dim=1) + geometry[:, :2]
    return Lesions(kind, centre, geometry[:, 2:], target.geometry_known[n, 1, row, column] > 0)


def matched(queries: Tensor, lesions: Lesions, weight: Tensor) -> Tensor:
    """For each of (K, 8) queries, strongest first, its lesion's number, BACKGROUND or NEITHER.

    A lesion goes to the strongest peak of its kind that lies on it, a peak to the nearest lesion that is still free. A
    second peak on a lesion is no false mark (metrics/froc.py), so it is not taught to be one. By the peak's own cell,
    which refining does not move.

    Parameters
    ----------
    weight
        (h, w), 0 where nothing is taught.
    """
    match = torch.full((len(queries),), BACKGROUND)
    cells = queries[:, ROW].long(), queries[:, COLUMN].long()
    match[(weight[cells] == 0) | (queries[:, LOGIT] < _LEAST_LOGIT)] = NEITHER
    place = torch.stack((cells[1], cells[0]), dim=1) + 0.5  # (K, 2), x and y
    reach = lesions.log_size.exp() / 2 * torch.where(lesions.sized, 1.0, _REACH_OF_CENTRES)[:, None]  # (n, 2)
    apart = ((place[:, None] - lesions.centre[None]).abs() / reach.clamp(min=0.5)).amax(dim=2)  # (K, n), 1 at the edge
    apart[queries[:, KIND].long()[:, None] != lesions.kind[None]] = float("inf")
    free = torch.ones(len(lesions.kind), dtype=torch.bool)
    for n in ((apart <= 1).any(dim=1) & (queries[:, LOGIT] >= _LEAST_LOGIT)).nonzero().flatten().tolist():
        near = torch.where(free & (apart[n] <= 1), apart[n], float("inf"))
        match[n] = int(near.argmin()) if near.isfinite().any() else NEITHER
        free[match[n].clamp(min=0)] &= match[n] < 0
    return match


def box_loss(queries: Tensor, lesions: Lesions, match: Tensor) -> Tensor:
    """The sum over (P, 8) queries, each with the number of its lesion."""
    truth, log_size, sized = lesions.centre[match], lesions.log_size[match], lesions.sized[match]
    centre = torch.stack((queries[:, COLUMN], queries[:, ROW]), dim=1) + queries[:, LOGIT + 1 : LOGIT + 3]  # (P, 2)
    found = queries[:, LOGIT + 3 :].clamp(max=6)  # (P, 2)
    off = ((centre - truth).abs() / log_size.exp()).sum(dim=1)
    size = (found - log_size).abs().sum(dim=1)
    overlap = 1 - giou(_corners(centre, found), _corners(truth, log_size))
    return (off + (size + overlap) * sized).sum()


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Of (P, 4) boxes x0, y0, x1, y1, pair by pair: intersection over union, less the empty part of their hull.

    References
    ----------
    Rezatofighi et al. 2019, arXiv:1902.09630.
    """
    common = _area(torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:]))
    hull = _area(torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:]))
    union = _area(a[:, :2], a[:, 2:]) + _area(b[:, :2], b[:, 2:]) - common
    return common / union - (hull - union) / hull


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(dim=1)


def _corners(centre: Tensor, log_size: Tensor) -> Tensor:
    half = log_size.exp() / 2
    return torch.cat((centre - half, centre + half), dim=1)
