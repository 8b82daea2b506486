"""A second look at the strongest peaks of the box head, each beside the others and before the whole image.

The box head judges every cell by itself. Here its best peaks become queries, as the objects of DETR do, but with a
place, a score and a box to start from: there are far too few boxed films to learn where to look. Each query attends to
the other queries, then to the trunk's tokens at strides 16 and 32, and answers with a change of its score and of its
box. The last layer starts at zero: untrained, it says what the box head says.

References: Carion et al. 2020 (DETR), arXiv:2005.12872; Zhu et al. 2021 (queries from a first stage),
arXiv:2010.04159.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgem_node.detector.heads import GEOMETRY
from medgem_node.detector.hiera import NetworkConfig

KIND, ROW, COLUMN, LOGIT = range(4)
"""Of a query's eight numbers; the other four are the geometry, counted from the cell as in `boxes.py`."""
_WIDTH = 64
_HEADS = 4
_LAYERS = 2
_DROPOUT = 0.1
_NO_PEAK = 1000.0  # off the logit of a cell that is no peak: it fills a place that no peak takes, and scores nothing
_FINEST = 32.0  # periods of the position's quickest wave over the image


class QueryDecoder(nn.Module):
    """The `queries` strongest peaks of the box head's output, with their scores and boxes refined."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.decoder[2], config.widths[1], config.widths[2]
        self.kinds, self.most = len(config.boxes), config.queries
        self.embed = nn.Linear(fine + middle + _WIDTH + 1 + GEOMETRY + self.kinds, _WIDTH)
        self.norm_fine, self.norm_middle = nn.LayerNorm(fine), nn.LayerNorm(middle)
        self.of_middle, self.of_coarse = nn.Linear(middle, _WIDTH), nn.Linear(coarse, _WIDTH)
        self.layers = nn.ModuleList(QueryLayer(_WIDTH, _HEADS) for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(_WIDTH)
        self.change = nn.Linear(_WIDTH, 1 + GEOMETRY)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, boxes: Tensor, fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """K refined peaks, strongest first by the box head's own score.

        Parameters
        ----------
        boxes
            (B, kinds + 4, H/4, W/4), the box head's output.
        fine, middle, coarse
            (B, C, ...) at strides 4 (of the decoder), 16 and 32 (of the trunk).

        Returns
        -------
        (B, K, 8): kind, row and column of the cell, logit, geometry (4).
        """
        found = peaks(boxes, self.kinds, self.most)  # (B, K, 8)
        queries = self.embed(self._seen(found, fine, middle))  # (B, K, 64)
        tokens = torch.cat(
            (self.of_middle(_tokens(middle)) + _places(middle), self.of_coarse(_tokens(coarse)) + _places(coarse)),
            dim=1,
        )  # (B, H/16 * W/16 + H/32 * W/32, 64)
        for layer in self.layers:
            queries = layer(queries, tokens)  # (B, K, 64)
        change = self.change(self.norm(queries))  # (B, K, 5)
        return torch.cat((found[..., :LOGIT], found[..., LOGIT:] + change), dim=2)  # (B, K, 8)

    def _seen(self, found: Tensor, fine: Tensor, middle: Tensor) -> Tensor:
        """What is known of each peak before it is asked: (B, K, C4 + C16 + 64 + 5 + kinds)."""
        row, column = found[..., ROW], found[..., COLUMN]
        height, width = fine.shape[2:]
        down, across = height // middle.shape[2], width // middle.shape[3]  # 4 and 4
        kind = functional.one_hot(found[..., KIND].long(), self.kinds).to(found.dtype)  # (B, K, kinds)
        return torch.cat(
            (
                self.norm_fine(_at(fine, row.long(), column.long())),  # (B, K, C4)
                self.norm_middle(_at(middle, row.long() // down, column.long() // across)),  # (B, K, C16)
                waves((row + 0.5) / height, (column + 0.5) / width, _WIDTH),  # (B, K, 64)
                found[..., LOGIT : LOGIT + 1].clamp(min=-10, max=10) / 4,  # (B, K, 1)
                found[..., LOGIT + 1 :],  # (B, K, 4)
                kind,
            ),
            dim=2,
        )


class QueryLayer(nn.Module):
    """Queries look at one another, then at the image; then a two-layer perceptron. Each is added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.among, self.image = Attending(width, heads), Attending(width, heads)
        self.norm_tokens = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.drop = nn.Dropout(_DROPOUT)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B, K, C) and (B, N, C) -> (B, K, C)."""
        own = self.norm1(queries)
        queries = queries + self.drop(self.among(own, own))
        queries = queries + self.drop(self.image(self.norm2(queries), self.norm_tokens(tokens)))
        return queries + self.drop(self.mlp(self.norm3(queries)))  # type: ignore[no-any-return]


class Attending(nn.Module):
    """Multi-head attention of one set to another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B, K, C) and (B, N, C) -> (B, K, C)."""
        b, k, c = queries.shape
        each = c // self.heads
        q = self.query(queries).reshape(b, k, self.heads, each).transpose(1, 2)  # (B, heads, K, C/heads)
        key_value = self.key_value(tokens).reshape(b, tokens.shape[1], 2, self.heads, each)  # (B, N, 2, heads, C/heads)
        key, value = key_value.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, C/heads)
        mixed = functional.scaled_dot_product_attention(q, key, value)  # (B, heads, K, C/heads)
        return self.out(mixed.transpose(1, 2).reshape(b, k, c))  # type: ignore[no-any-return]


def peaks(boxes: Tensor, kinds: int, most: int) -> Tensor:
    """The `most` strongest peaks of a (B, kinds + 4, h, w) output, strongest first: (B, most, 8) as a query's.

    Where there are fewer, other cells fill the places, with a logit no detector would report.
    """
    heat = boxes[:, :kinds]  # (B, kinds, h, w)
    h, w = heat.shape[2:]
    highest = functional.max_pool2d(heat, 3, stride=1, padding=1)
    logit, place = torch.where(highest == heat, heat, heat - _NO_PEAK).flatten(1).topk(most, dim=1)  # (B, K) each
    kind, cell = place // (h * w), place % (h * w)
    row, column = cell // w, cell % w
    whole = torch.stack((kind, row, column), dim=2).to(heat.dtype)  # (B, K, 3)
    geometry = _at(boxes[:, kinds:], row, column)  # (B, K, 4)
    centre = geometry[..., :2].clamp(min=0, max=1)  # in its cell, as `boxes.decode` reads it
    return torch.cat((whole, logit[..., None], centre, geometry[..., 2:]), dim=2)  # (B, K, 8)


def waves(y: Tensor, x: Tensor, width: int) -> Tensor:
    """Sines and cosines of a place, 0..1 down and across: (...,) each -> (..., width)."""
    powers = torch.arange(width // 4, device=y.device, dtype=y.dtype) / (width // 4 - 1)
    angles = torch.stack((y, x), dim=-1)[..., None] * (2 * math.pi * _FINEST**powers)  # (..., 2, width/4)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def _at(maps: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(B, C, h, w) at cells (B, K) -> (B, K, C)."""
    cell = (row * maps.shape[3] + column)[:, None].expand(-1, maps.shape[1], -1)  # (B, C, K)
    return maps.flatten(2).gather(2, cell).transpose(1, 2)


def _tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return maps.flatten(2).transpose(1, 2)


def _places(maps: Tensor) -> Tensor:
    """Where each token of `maps` lies: (1, h * w, 64)."""
    h, w = maps.shape[2:]
    y = (torch.arange(h, device=maps.device, dtype=maps.dtype) + 0.5) / h
    x = (torch.arange(w, device=maps.device, dtype=maps.dtype) + 0.5) / w
    return waves(y[:, None].expand(h, w), x.expand(h, w), _WIDTH).flatten(0, 1)[None]
