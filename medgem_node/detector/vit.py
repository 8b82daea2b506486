"""The plain vision transformer, for sites with very many films: patches of 16 pixels, every block over all of them.

With 24 blocks of width 768 it is the network that the literature calls large: 171 million weights, far too many for
the films that the shipped model learnt from. Its one map is widened to the strides that the decoder takes (Li et al.
2022), as convolution stages would have given.

References: Dosovitskiy et al. 2020, arXiv:2010.11929; Li et al. 2022 (plain backbones for detection),
arXiv:2203.16527.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from medgem_node.detector.hiera import Block, NetworkConfig, rising

_PATCH = 16


class PlainVit(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32 of a (B, 1, H, W) image."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width, depth = config.widths[1], config.depths[1]
        rates = rising(config.drop_path, depth)
        self.embed = nn.Conv2d(1, width, _PATCH, stride=_PATCH)
        self.blocks = nn.Sequential(*(Block(width, config.heads[1], 0, config.mlp_ratio, rate) for rate in rates))
        self.norm = nn.LayerNorm(width)
        self.coarse = nn.Conv2d(width, config.widths[2], 1)
        self.fine = nn.ModuleList(nn.Conv2d(width, out, 1) for out in (*config.stem, config.widths[0]))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Five maps (B, C, H, W), finest first."""
        tokens = self.blocks(self.embed(image).permute(0, 2, 3, 1))  # (B, H/16, W/16, C), tokens last
        x = self.norm(tokens).permute(0, 3, 1, 2)  # (B, C, H/16, W/16)
        wider = [
            functional.interpolate(narrow(x), scale_factor=scale, mode="bilinear", align_corners=False)
            for narrow, scale in zip(self.fine, (8.0, 4.0, 2.0), strict=True)
        ]  # (B, C', H/2, W/2), (B, C', H/4, W/4), (B, C', H/8, W/8)
        return [*wider, x, self.coarse(functional.max_pool2d(x, 2))]  # ..., (B, C', H/32, W/32)
