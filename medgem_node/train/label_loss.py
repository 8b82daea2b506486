"""What the network is taught by the labels of a whole film: each only where it is known."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def label_loss(
    logits: Tensor,
    truth: Tensor,
    known: Tensor,
    among: Tensor | None = None,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Binary focal loss, a mean over the labels that are known; 0 where none is.

    Parameters
    ----------
    logits, truth, known
        (B, labels); truth 0..1, where what lies between is a soft label; known 0 or 1.
    among
        How many are known in the whole batch, if this is a part of it.
    alpha
        Weighs what is present, 1 - alpha what is absent (alpha_t).

    References
    ----------
    Lin et al. 2017, arXiv:1708.02002.
    """
    p = logits.sigmoid()
    present = alpha * (1 - p) ** gamma * functional.logsigmoid(logits)
    absent = (1 - alpha) * p**gamma * functional.logsigmoid(-logits)
    each = -(truth * present + (1 - truth) * absent) * known  # (B, labels)
    return each.sum() / (known.sum() if among is None else among).clamp(min=1)
