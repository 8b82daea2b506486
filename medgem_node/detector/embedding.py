"""A film as one point on a sphere: films that look alike for a reason lie near each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class EmbeddingHead(nn.Module):
    """A unit vector for each image, read off the trunk's coarsest map; cosine is the measure of likeness.

    Trained on a trunk that is no longer trained (`train/embedding.py`), so finished weights can be given one.
    """

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.mix = nn.Linear(2 * width, 2 * width)
        self.out = nn.Linear(2 * width, dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H/32, W/32) -> (B, dimensions), each of length 1."""
        return self.project(pooled(x))

    def project(self, x: Tensor) -> Tensor:
        """What `pooled` gives, (B, 2C) -> (B, dimensions), each of length 1."""
        return functional.normalize(self.out(functional.relu(self.mix(self.norm(x)))), dim=1)


def pooled(x: Tensor) -> Tensor:
    """Mean and maximum of each channel: (B, C, H, W) -> (B, 2C)."""
    return torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)
