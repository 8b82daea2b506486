"""The trunk: a hierarchical vision transformer with a convolutional stem.

Two of them: `Hiera` learns all of itself, `LiteHiera` puts the same attention stages on a stem that has seen ImageNet.

Convolutions at strides 2 and 4 (attention over so many tokens buys nothing, and a hundred films do not teach it
what an edge is), attention in windows at stride 8, patch merging, attention over the whole image at strides 16 and
32. Where a token lies is told by a depthwise convolution before each attention (conditional position encoding).
No batch statistics anywhere: an image's answer does not depend on its neighbours.

References: Ryali et al. 2023 (Hiera), arXiv:2306.00989; Xiao et al. 2021 (convolutional stem), arXiv:2106.14881;
Chu et al. 2021 (conditional position encoding), arXiv:2102.10882.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medgem_node.detector.labels import check_labels
from medgem_node.detector.lite import CHANNELS, LiteStem
from medgem_node.detector.sizes import SIZES
from medgem_node.errors import ModelRejected

TRUNKS = ("hiera", "lite0", "vit")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The table `[network]` of a manifest, beside what its `named` size gives; an odd or a missing key is an error."""

    size: int  # pixels along each side of the square input
    stem: tuple[int, int]  # channels at strides 2 and 4
    widths: tuple[int, int, int]  # channels at strides 8, 16 and 32
    depths: tuple[int, int, int]  # attention blocks at strides 8, 16 and 32
    heads: tuple[int, int, int]
    window: int  # tokens along a window's side, at stride 8
    mlp_ratio: float
    drop_path: float  # of the last block; rises linearly from 0
    decoder: tuple[int, ...]  # channels at strides 16, 8, 4 and, if there is a fourth, 2
    masks: tuple[str, ...]
    points: tuple[str, ...]
    classes: tuple[str, ...]  # of the gate; the first is the one that is let through
    trunk: str = "hiera"  # or "lite0" (no windows; stem 16, 24; widths 40, ...; depths 0, ...), or "vit"
    boxes: tuple[str, ...] = ()  # kinds of lesion that are given a box
    mirrored_boxes: bool = False  # beside the film, its mirror image is looked at too: twice the time
    views: tuple[str, ...] = ()  # how the beam went; the first is the usual one
    queries: int = 0  # so many of the boxes' peaks are looked at again, see queries.py; 0: none
    embedding: int = 0  # numbers of the vector by which alike films are found; 0: there is none
    labels: tuple[str, ...] = ()  # findings of a whole film, for research only; see labels.py

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> NetworkConfig:
        """The table, checked. Raises ModelRejected, or ConfigError for a label that no network may have."""
        if (named := table.get("named")) is not None:
            if named not in SIZES:
                raise ModelRejected(f'model.toml: [network] named "{named}" is not one of {", ".join(SIZES)}')
            table = {**SIZES[named], **{key: value for key, value in table.items() if key != "named"}}
        known = {f.name for f in fields(cls)}
        needed = {f.name for f in fields(cls) if f.default is MISSING}
        if odd := sorted((table.keys() - known) | (needed - table.keys())):
            raise ModelRejected(f'model.toml: [network] has an unknown or misses the key "{odd[0]}"')
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
        config = cls(**values)
        check_labels(config.labels)
        if config.size % (8 * config.window) or config.size % 32:
            raise ModelRejected(f"model.toml: [network] size {config.size} is no multiple of 32 and of 8 windows")
        if config.trunk not in TRUNKS:
            raise ModelRejected(f'model.toml: [network] trunk is "{config.trunk}", not one of {", ".join(TRUNKS)}')
        if config.mirrored_boxes and not config.boxes:
            raise ModelRejected("model.toml: [network] mirrored_boxes needs boxes")
        if config.queries < 0 or (config.queries and not config.boxes):
            raise ModelRejected(f"model.toml: [network] {config.queries} queries need boxes to refine")
        if config.trunk == "lite0" and (*config.stem, config.widths[0]) != CHANNELS[:3]:
            raise ModelRejected(f"model.toml: [network] lite0 has {CHANNELS[:3]} channels at strides 2, 4, 8")
        return config


class Hiera(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32 of a (B, 1, H, W) image."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        half, quarter = config.stem
        self.stem2 = nn.Sequential(_down(1, half), Residual(half))
        self.stem4 = nn.Sequential(_down(half, quarter), Residual(quarter))
        self.embed = _down(quarter, config.widths[0])
        rates = rising(config.drop_path, sum(config.depths))
        windows = (config.window, 0, 0)  # 0: the whole image
        stages, merges, done = [], [], 0
        for n, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            if n:
                merges.append(PatchMerging(config.widths[n - 1], width))
            stages.append(
                nn.Sequential(
                    *(
                        Block(width, config.heads[n], windows[n], config.mlp_ratio, rate)
                        for rate in rates[done : done + depth]
                    )
                )
            )
            done += depth
        self.stages, self.merges = nn.ModuleList(stages), nn.ModuleList(merges)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in config.widths)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Five maps (B, C, H, W), finest first."""
        half = self.stem2(image)  # (B, 24, H/2, W/2)
        quarter = self.stem4(half)  # (B, 48, H/4, W/4)
        x = self.embed(quarter).permute(0, 2, 3, 1)  # (B, H/8, W/8, 96): tokens last from here on
        features = [half, quarter]
        for n, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            if n:
                x = self.merges[n - 1](x)  # (B, H/16, W/16, 192), then (B, H/32, W/32, 256)
            x = stage(x)
            features.append(norm(x).permute(0, 3, 1, 2))  # (B, C, H/8.., W/8..)
        return features


class LiteHiera(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32 of a (B, 1, H, W) image: ImageNet's stem, then attention.

    Attention sees the whole image at both strides: at 384 pixels that is 576 tokens, then 144.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.stem = LiteStem()
        (_, fine, coarse), (_, many, more) = config.widths, config.depths
        rates = rising(config.drop_path, many + more)
        self.embed = nn.Conv2d(CHANNELS[3], fine, 1)
        self.norm_in = nn.LayerNorm(fine)
        self.stage16 = nn.Sequential(*(Block(fine, config.heads[1], 0, config.mlp_ratio, r) for r in rates[:many]))
        self.merge = PatchMerging(fine, coarse)
        self.stage32 = nn.Sequential(*(Block(coarse, config.heads[2], 0, config.mlp_ratio, r) for r in rates[many:]))
        self.norm16, self.norm32 = nn.LayerNorm(fine), nn.LayerNorm(coarse)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Five maps (B, C, H, W), finest first."""
        half, quarter, eighth, x = self.stem(image)
        x = self.norm_in(self.embed(x).permute(0, 2, 3, 1))  # (B, H/16, W/16, 192): tokens last from here on
        x = self.stage16(x)
        sixteenth = self.norm16(x).permute(0, 3, 1, 2)  # (B, 192, H/16, W/16)
        x = self.stage32(self.merge(x))  # (B, H/32, W/32, 256)
        return [half, quarter, eighth, sixteenth, self.norm32(x).permute(0, 3, 1, 2)]


class Block(nn.Module):
    """Position, attention, then a two-layer perceptron, each added to what came in."""

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop_path = DropPath(drop_path)
        self.checkpointing = False  # in training: computed again for the gradient instead of kept

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        if self.checkpointing and self.training:
            return checkpoint(self._computed, x, use_reentrant=False)  # type: ignore[no-any-return]
        return self._computed(x)

    def _computed(self, x: Tensor) -> Tensor:
        x = x + self.position(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention inside windows of `window` x `window` tokens, or over the whole image (0)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        rows, columns = x.shape[1:3]
        tokens = to_windows(x, self.window) if self.window else x.flatten(1, 2)  # (B*windows, N, C) or (B, H*W, C)
        b, n, c = tokens.shape
        qkv = self.qkv(tokens).reshape(b, n, 3, self.heads, c // self.heads)  # (B', N, 3, heads, C/heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B', heads, N, C/heads)
        tokens = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)  # (B', N, C)
        mixed: Tensor = self.out(tokens)
        if self.window:
            return from_windows(mixed, self.window, rows, columns)  # (B, H, W, C)
        return mixed.reshape(b, rows, columns, c)  # (B, H, W, C)


class PatchMerging(nn.Module):
    """Four neighbouring tokens become one."""

    def __init__(self, width: int, merged: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduce = nn.Linear(4 * width, merged)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H/2, W/2, C')."""
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)  # (B, H/2, W/2, 2, 2, C)
        return self.reduce(self.norm(x.flatten(3)))  # type: ignore[no-any-return]  # (B, H/2, W/2, C')


class DropPath(nn.Module):
    """In training, leaves out a branch for whole images at random (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The branch, or zeros, scaled so that the mean stays."""
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate  # (B, 1, 1, 1)
        return torch.where(keep, x, torch.zeros_like(x)) / (1 - self.rate)


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is carried."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.GroupNorm(8, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        return functional.relu(x + self.body(x))


def rising(last: float, blocks: int) -> list[float]:
    """From 0 to `last` in even steps."""
    return [last * n / max(blocks - 1, 1) for n in range(blocks)]


def to_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B * windows, window * window, C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // window, window, w // window, window, c).transpose(2, 3)  # (B, H/w, W/w, w, w, C)
    return x.reshape(-1, window * window, c)


def from_windows(tokens: Tensor, window: int, rows: int, columns: int) -> Tensor:
    """The reverse of `to_windows`."""
    c = tokens.shape[-1]
    x = tokens.reshape(-1, rows // window, columns // window, window, window, c).transpose(2, 3)
    return x.reshape(-1, rows, columns, c)  # (B, H, W, C)


def _down(width: int, out: int) -> nn.Sequential:
    """Half the rows and columns."""
    return nn.Sequential(
        nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(8, out),
        nn.ReLU(inplace=True),
    )
