"""The chest radiograph network: one trunk, and a head for each thing that is read off it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from medgem_node.detector.embedding import EmbeddingHead
from medgem_node.detector.heads import BoxHead, Decoder, GateHead, HeatmapHead, MaskHead
from medgem_node.detector.hiera import Hiera, LiteHiera, NetworkConfig
from medgem_node.detector.queries import QueryDecoder
from medgem_node.detector.vit import PlainVit

_TRUNKS: dict[str, type[Hiera | LiteHiera | PlainVit]] = {"hiera": Hiera, "lite0": LiteHiera, "vit": PlainVit}


_LEAST = 1e-6  # a probability of 0 has no logit


class Outputs(NamedTuple):
    """Logits, for B images of H x W pixels; None where the manifest has no such head."""

    masks: Tensor  # (B, masks, H, W)
    points: Tensor  # (B, points, H/4, W/4)
    gate: Tensor  # (B, classes)
    boxes: Tensor | None = None  # (B, kinds + 4, H/4, W/4), see boxes.py
    views: Tensor | None = None  # (B, views)
    embedding: Tensor | None = None  # (B, dimensions), of length 1: no logits
    queries: Tensor | None = None  # (B, K, 8): the boxes' best peaks, refined; see queries.py
    labels: Tensor | None = None  # (B, labels), for research only; see labels.py


class ChestNetwork(nn.Module):
    """What the weights of `models/chest-xray` are weights of."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = _TRUNKS[config.trunk](config)
        self.decoder = Decoder(config)
        self.masks = MaskHead(config.decoder[-1], len(config.masks), stride=32 >> len(config.decoder))
        self.points = HeatmapHead(config.decoder[2], len(config.points))
        self.gate = GateHead(config.widths[2], len(config.classes))
        self.boxes = BoxHead(config.decoder[2], len(config.boxes)) if config.boxes else None
        self.views = GateHead(config.widths[2], len(config.views)) if config.views else None
        self.queries = QueryDecoder(config) if config.queries else None
        self.embedding = EmbeddingHead(config.widths[2], config.embedding) if config.embedding else None
        self.labels = GateHead(config.widths[2], len(config.labels)) if config.labels else None

    def forward(self, image: Tensor, drawn: int | None = None) -> Outputs:
        """`image`: (B, 1, H, W), as `preprocess.to_tensor` makes it; maps of the first `drawn` only."""
        features = self.trunk(image)  # strides 2, 4, 8, 16, 32
        maps = self.decoder([f[:drawn] for f in features])  # strides 16, 8, 4, and 2 where there is a fourth
        boxes = self.boxes(maps[2]) if self.boxes else None
        if boxes is not None and self.config.mirrored_boxes and not self.training:
            boxes = self.with_mirrored(boxes, image[:drawn])
        return Outputs(
            self.masks(maps[-1]),
            self.points(maps[2]),
            self.gate(features[-1]),
            boxes,
            self.views(features[-1]) if self.views else None,
            self.embedding(features[-1]) if self.embedding else None,
            self.refine(boxes, features, maps) if boxes is not None else None,
            self.labels(features[-1]) if self.labels else None,
        )

    def with_mirrored(self, boxes: Tensor, image: Tensor) -> Tensor:
        """The boxes at the mean of their probability in the image and in its mirror image; sizes are the image's."""
        assert self.boxes is not None
        mirrored = self.boxes(self.decoder(self.trunk(image.flip(-1)))[2]).flip(-1)  # (B, kinds + 4, H/4, W/4)
        kinds = len(self.config.boxes)
        mean = (boxes[:, :kinds].sigmoid() + mirrored[:, :kinds].sigmoid()) / 2
        return torch.cat((mean.clamp(_LEAST, 1 - _LEAST).logit(), boxes[:, kinds:]), dim=1)

    def refine(self, boxes: Tensor, features: list[Tensor], maps: list[Tensor]) -> Tensor | None:
        """The box head's best peaks looked at again: (B, K, 8), B as many as `boxes` has; None without queries."""
        if self.queries is None:
            return None
        return self.queries(boxes, maps[2], *(f[: boxes.shape[0]] for f in features[-2:]))  # type: ignore[no-any-return]
