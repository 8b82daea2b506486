"""The vector by which alike films are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from medgem_node.detector import runtime
from medgem_node.detector.embedding import EmbeddingHead, pooled
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork

TINY: dict[str, Any] = {
    "size": 64, "stem": [8, 8], "widths": [16, 16, 16], "depths": [1, 1, 1], "heads": [2, 2, 2], "window": 4,
    "mlp_ratio": 2.0, "drop_path": 0.0, "decoder": [8, 8, 8, 8], "masks": ["right-lung", "left-lung", "heart"],
    "points": ["heart-right"], "classes": ["frontal", "other"],
}  # fmt: skip


def network(**keys: Any) -> ChestNetwork:
    torch.manual_seed(0)
    return ChestNetwork(NetworkConfig.read({**TINY, **keys})).eval()


def test_a_network_without_the_key_has_no_embedding() -> None:
    assert network()(torch.zeros(1, 1, 64, 64)).embedding is None


def test_an_embedding_has_the_dimensions_asked_for_and_length_one() -> None:
    images = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(1))

    embedding = network(embedding=24)(images).embedding

    assert embedding is not None
    assert embedding.shape == (3, 24)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(3))


def test_an_embedding_is_of_every_image_even_where_no_maps_are_drawn() -> None:
    outputs = network(embedding=8)(torch.randn(3, 1, 64, 64), drawn=1)

    assert outputs.embedding is not None
    assert len(outputs.embedding) == 3


def test_pooling_keeps_mean_and_maximum_of_each_channel() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, -4.0]]]])

    assert pooled(x).tolist() == [[3.0, -1.0, 6.0, 0.0]]


def test_gradient_reaches_every_weight_of_the_head() -> None:
    torch.manual_seed(0)
    head = EmbeddingHead(8, 4)

    head(torch.randn(5, 8, 2, 2))[:, 0].sum().backward()

    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_golden_case_tells_another_embedding_head() -> None:
    first, other = network(embedding=8), network(embedding=8)
    with torch.no_grad():
        assert other.embedding is not None
        other.embedding.out.weight.neg_()

    a, b = (np.array(runtime.golden_case(n)["embedding"]) for n in (first, other))

    assert np.abs(a - b).max() > 0.01
    assert runtime.golden_case(first)["gate"] == pytest.approx(runtime.golden_case(other)["gate"])
