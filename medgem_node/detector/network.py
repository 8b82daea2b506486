"""The chest radiograph network: one trunk, three heads."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from medgem_node.detector.heads import Decoder, GateHead, HeatmapHead, MaskHead
from medgem_node.detector.hiera import Hiera, NetworkConfig


class Outputs(NamedTuple):
    """Logits, for B images of H x W pixels."""

    masks: Tensor  # (B, masks, H, W)
    points: Tensor  # (B, points, H/4, W/4)
    gate: Tensor  # (B, classes)


class ChestNetwork(nn.Module):
    """What the weights of `models/chest-xray` are weights of."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Hiera(config)
        self.decoder = Decoder(config)
        self.masks = MaskHead(config.decoder[3], len(config.masks))
        self.points = HeatmapHead(config.decoder[2], len(config.points))
        self.gate = GateHead(config.widths[2], len(config.classes))

    def forward(self, image: Tensor, drawn: int | None = None) -> Outputs:
        """`image`: (B, 1, H, W), as `preprocess.to_tensor` makes it; masks and points of the first `drawn` only."""
        features = self.trunk(image)  # strides 2, 4, 8, 16, 32
        maps = self.decoder([f[:drawn] for f in features])  # strides 16, 8, 4, 2
        return Outputs(self.masks(maps[3]), self.points(maps[2]), self.gate(features[-1]))
