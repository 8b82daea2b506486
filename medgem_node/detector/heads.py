"""What is read off the trunk: masks, the measurement's points, boxes, and what kind of picture this is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgem_node.detector.hiera import NetworkConfig, Residual

GEOMETRY = 4
"""Maps of a box head beside those of the kinds: offset x and y in the cell, log width and log height in cells."""
_USUAL_LOG_CELLS = 1.8  # a nodule of 6 cells across


class Decoder(nn.Module):
    """From the coarsest map back to stride 2, taking in the trunk's map of each stride on the way."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        skips = (config.widths[1], config.widths[0], config.stem[1], config.stem[0])
        came = (config.widths[2], *config.decoder[:-1])
        steps = [Up(c, s, out) for c, s, out in zip(came, skips, config.decoder, strict=False)]
        self.steps = nn.ModuleList(steps)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Maps at strides 16, 8, 4 and, if the manifest asks for it, 2."""
        x, maps = features[-1], []
        for step, skip in zip(self.steps, reversed(features[:-1]), strict=False):
            x = step(x, skip)
            maps.append(x)
        return maps


class Up(nn.Module):
    """Twice the rows and columns, plus the trunk's map of that stride."""

    def __init__(self, width: int, skip: int, out: int) -> None:
        super().__init__()
        self.came = nn.Conv2d(width, out, 1)
        self.skip = nn.Conv2d(skip, out, 1, bias=False)
        self.mix = Residual(out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, C, H, W) and (B, S, 2H, 2W) -> (B, C', 2H, 2W)."""
        x = functional.interpolate(
            self.came(x), scale_factor=2.0, mode="bilinear", align_corners=False
        )  # (B, C', 2H, 2W)
        return self.mix(x + self.skip(skip))  # type: ignore[no-any-return]


class MaskHead(nn.Module):
    """Logits of each structure, at the input's own size."""

    def __init__(self, width: int, masks: int, stride: int = 2) -> None:
        super().__init__()
        self.out = nn.Conv2d(width, masks, 3, padding=1)
        self.stride = float(stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H/stride, W/stride) -> (B, masks, H, W)."""
        return functional.interpolate(self.out(x), scale_factor=self.stride, mode="bilinear", align_corners=False)


class HeatmapHead(nn.Module):
    """Logits of where each point of the measurement lies, at stride 4.

    References: Zhou et al. 2019 (objects as points), arXiv:1904.07850.
    """

    def __init__(self, width: int, points: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, points, 1)
        nn.init.constant_(self.out.bias, -4.0)  # type: ignore[arg-type]  # nearly every cell holds no point

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H/4, W/4) -> (B, points, H/4, W/4)."""
        return self.out(functional.relu(self.mix(x)))  # type: ignore[no-any-return]


class BoxHead(nn.Module):
    """Where lesions of each kind lie and how large they are, at stride 4; `boxes.py` tells what the maps mean.

    References: Zhou et al. 2019 (objects as points), arXiv:1904.07850.
    """

    def __init__(self, width: int, kinds: int) -> None:
        super().__init__()
        self.mix = Residual(width)
        self.out = nn.Conv2d(width, kinds + GEOMETRY, 1)
        with torch.no_grad():
            assert self.out.bias is not None
            self.out.bias[:kinds] = -4.6  # nearly every cell holds no lesion: probability 0.01
            self.out.bias[kinds:] = torch.tensor([0.5, 0.5, *(_USUAL_LOG_CELLS,) * 2])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H/4, W/4) -> (B, kinds + 4, H/4, W/4)."""
        return self.out(self.mix(x))  # type: ignore[no-any-return]


class GateHead(nn.Module):
    """Logits of what kind of picture this is."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * width, width)
        self.drop = nn.Dropout(0.2)
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H/32, W/32) -> (B, classes)."""
        pooled = torch.cat((x.mean(dim=(2, 3)), x.amax(dim=(2, 3))), dim=1)  # (B, 2C)
        return self.out(self.drop(functional.relu(self.mix(pooled))))  # type: ignore[no-any-return]
