"""Words and the image: how well a phrase fits a film, and where in the film what it names lies.

The phrase asks, the trunk's tokens at strides 16 and 32 answer (cross-attention), and a gate that the phrase sets says
how much of the answer counts. Trained on a trunk that stays as it is (`train/text.py`); no finding depends on it.

References: Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2021 (contrast of pictures and words),
arXiv:2103.00020; Alayrac et al. 2022 (gated cross-attention), arXiv:2204.14198; Sennrich et al. 2016 (sub-words),
doi:10.18653/v1/P16-1162.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

PAD, UNKNOWN = 0, 1
CROSSINGS = ("gated", "open", "none")
_SPECIAL = ("[PAD]", "[UNK]")
_INSIDE = "##"  # before a piece that does not begin a word
_WORDS = re.compile(r"\w+")
_WAVES = 4  # of each axis, by which a token's place is told


@dataclass(frozen=True, slots=True)
class TextConfig:
    """Kept beside the weights."""

    channels: tuple[int, int]  # of the trunk's maps at strides 16 and 32
    pieces: int
    width: int = 128
    heads: int = 4
    layers: int = 2
    longest: int = 48  # pieces of a text; what follows is cut off
    crossing: str = "gated"  # "open": without the gate; "none": without cross-attention


@dataclass(frozen=True, slots=True)
class Tokeniser:
    """Words, and pieces of words that are rare; `pieces` are in the order of their numbers."""

    pieces: tuple[str, ...]

    @classmethod
    def build(cls, texts: Iterable[str], size: int = 2000) -> Tokeniser:
        """From the texts that are learnt from: pairs of pieces that often stand together become one."""
        counts = Counter(word for text in texts for word in _words(text))
        split = {word: [word[0], *(_INSIDE + letter for letter in word[1:])] for word in counts}
        pieces = sorted({piece for parts in split.values() for piece in parts})
        while len(pieces) + len(_SPECIAL) < size:
            pairs: Counter[tuple[str, str]] = Counter()
            for word, parts in split.items():
                for pair in itertools.pairwise(parts):
                    pairs[pair] += counts[word]
            if not pairs:
                break
            first, second = min(pairs, key=lambda pair: (-pairs[pair], pair))
            pieces.append(first + second.removeprefix(_INSIDE))
            split = {word: _merged(parts, first, second) for word, parts in split.items()}
        return cls((*_SPECIAL, *dict.fromkeys(pieces)))

    def encode(self, text: str, longest: int) -> list[int]:
        """The numbers of the pieces, the longest that fit first; at least one."""
        numbers = {piece: n for n, piece in enumerate(self.pieces)}
        found = [number for word in _words(text) for number in _pieces_of(word, numbers)]
        return found[:longest] or [UNKNOWN]

    def batch(self, texts: Sequence[str], longest: int) -> Tensor:
        """(texts, pieces of the longest of them), filled up with PAD."""
        rows = [self.encode(text, longest) for text in texts]
        width = max(map(len, rows))
        return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


class TextEncoder(nn.Module):
    """Numbers of pieces to vectors that know of each other."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.pieces = nn.Embedding(config.pieces, config.width, padding_idx=PAD)
        self.places = nn.Parameter(torch.randn(config.longest, config.width) * 0.02)
        self.layers = nn.ModuleList(TextBlock(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, numbers: Tensor) -> Tensor:
        """(P, T) -> (P, T, width); what PAD becomes means nothing."""
        known = numbers != PAD
        x = self.pieces(numbers) + self.places[: numbers.shape[1]]
        for layer in self.layers:
            x = layer(x, known)
        return self.norm(x)  # type: ignore[no-any-return]


class TextBlock(nn.Module):
    """Attention among the pieces, then a two-layer perceptron, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """(P, T, C) and (P, T) -> (P, T, C)."""
        p, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(p, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # each (P, heads, T, C/heads)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=known[:, None, None])
        x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(p, t, c)))
        return x + self.drop(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class GatedCrossAttention(nn.Module):
    """Every phrase asks every image: softmax(QK'/sqrt(d))V with Q of the phrase, K and V of the image's tokens."""

    def __init__(self, width: int, heads: int, *, gated: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.gate = nn.Linear(width, width) if gated else None

    def forward(self, phrases: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """(P, T, C) and (I, N, C) -> what is to be added to the phrases, (P, I, T, C); weights (P, I, heads, T, N)."""
        q = self._headed(self.query(phrases))  # (P, T, heads, C/heads)
        k, v = self._headed(self.key(images)), self._headed(self.value(images))  # (I, N, heads, C/heads)
        logits = torch.einsum("pthd,inhd->pihtn", q, k) / math.sqrt(q.shape[-1])
        weights = logits.softmax(dim=-1)  # (P, I, heads, T, N)
        answer = torch.einsum("pihtn,inhd->pithd", weights, v).flatten(3)  # (P, I, T, C)
        answer = self.out(answer)
        if self.gate is not None:
            answer = self.gate(phrases).sigmoid()[:, None] * answer
        return answer, weights

    def _headed(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.heads, -1)


class Fit(NamedTuple):
    """P phrases and I images. `maps` of one pair sum to 1; None without cross-attention."""

    scores: Tensor  # (P, I), logits: higher where the phrase fits the image
    maps: Tensor | None  # (P, I, H/16, W/16)


class Grounding(nn.Module):
    """Text encoder, the image's tokens, and the attention between them."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.encoder = TextEncoder(config)
        self.strides = nn.ModuleList(nn.Sequential(nn.LayerNorm(c), nn.Linear(c, width)) for c in config.channels)
        self.place = nn.Linear(4 * _WAVES, width)
        gated = config.crossing == "gated"
        self.cross = None if config.crossing == "none" else GatedCrossAttention(width, config.heads, gated=gated)
        self.of_text = nn.Linear(width, width)
        self.of_image = nn.Sequential(nn.LayerNorm(2 * config.channels[1]), nn.Linear(2 * config.channels[1], width))
        self.sharpness = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, numbers: Tensor, fine: Tensor, coarse: Tensor) -> Fit:
        """(P, T); the trunk's maps (I, C, H/16, W/16) and (I, C', H/32, W/32)."""
        known = (numbers != PAD).float() / (numbers != PAD).sum(dim=1, keepdim=True)  # (P, T), each row sums to 1
        phrases = self.encoder(numbers)
        text = self.of_text(torch.einsum("pt,ptc->pc", known, phrases))
        pooled = torch.cat((coarse.mean(dim=(2, 3)), coarse.amax(dim=(2, 3))), dim=1)  # (I, 2C')
        images, maps = self.of_image(pooled)[None], None  # (1, I, C)
        if self.cross is not None:
            added, weights = self.cross(phrases, self._tokens(fine, coarse))
            images = images + torch.einsum("pt,pitc->pic", known, added)  # (P, I, C)
            maps = _mapped(torch.einsum("pt,pihtn->pin", known, weights) / self.config.heads, fine, coarse)
        likeness = functional.normalize(text, dim=-1)[:, None] * functional.normalize(images, dim=-1)
        return Fit(likeness.sum(dim=-1) * self.sharpness.exp().clamp(max=100), maps)

    def _tokens(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(I, N, C): those at stride 16, then those at stride 32, each with its place."""
        tokens = []
        for embed, grid in zip(self.strides, (fine, coarse), strict=True):
            places = _places(*grid.shape[-2:]).to(grid)
            tokens.append(embed(grid.flatten(2).transpose(1, 2)) + self.place(places))
        return torch.cat(tokens, dim=1)


def read_numbers(table: Mapping[str, object]) -> TextConfig:
    """The configuration as JSON keeps it."""
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in table.items()}
    return TextConfig(**values)  # type: ignore[arg-type]


def _mapped(shares: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
    """(P, I, N) -> (P, I, H/16, W/16): what a token of stride 32 has is spread over the four cells that it covers."""
    rows, columns = fine.shape[-2:]
    near = shares[..., : rows * columns].reshape(*shares.shape[:-1], rows, columns)
    far = shares[..., rows * columns :].reshape(*shares.shape[:-1], *coarse.shape[-2:])
    return near + far.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1) / 4


def _places(rows: int, columns: int) -> Tensor:
    """(rows * columns, 4 * waves): sines and cosines of where each cell's centre lies, from 0 to 1."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    waves = math.pi * 2.0 ** torch.arange(_WAVES)
    angles = torch.cat([axis.reshape(-1, 1) * waves for axis in (x, y)], dim=1)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lower())


def _merged(parts: list[str], first: str, second: str) -> list[str]:
    made: list[str] = []
    for part in parts:
        if made and made[-1] == first and part == second:
            made[-1] = first + second.removeprefix(_INSIDE)
        else:
            made.append(part)
    return made


def _pieces_of(word: str, numbers: Mapping[str, int]) -> list[int]:
    found, start = [], 0
    while start < len(word):
        before = _INSIDE if start else ""
        fitting = (end for end in range(len(word), start, -1) if before + word[start:end] in numbers)
        end = next(fitting, 0)
        found.append(numbers[before + word[start:end]] if end else UNKNOWN)
        start = end or start + 1
    return found
