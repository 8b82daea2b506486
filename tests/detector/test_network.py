"""The network: shapes, determinism, independence of neighbours, and that every weight learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medgem_node.detector import hiera
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.errors import ModelRejected

TINY: dict[str, Any] = {
    "size": 64,
    "stem": [8, 8],
    "widths": [16, 24, 32],
    "depths": [2, 1, 1],
    "heads": [2, 2, 4],
    "window": 4,
    "mlp_ratio": 2.0,
    "drop_path": 0.1,
    "decoder": [16, 8, 8, 8],
    "masks": ["right-lung", "left-lung", "heart"],
    "points": ["heart-right", "heart-left", "thorax-right", "thorax-left"],
    "classes": ["frontal", "rotated", "other"],
}


@pytest.fixture
def network() -> ChestNetwork:
    torch.manual_seed(0)
    return ChestNetwork(NetworkConfig.read(TINY)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def test_outputs_have_the_size_that_the_manifest_says(network: ChestNetwork, images: torch.Tensor) -> None:
    outputs = network(images)

    assert outputs.masks.shape == (2, 3, 64, 64)
    assert outputs.points.shape == (2, 4, 16, 16)
    assert outputs.gate.shape == (2, 3)


def test_the_trunk_halves_from_stride_2_to_32(network: ChestNetwork, images: torch.Tensor) -> None:
    sides = [f.shape[-1] for f in network.trunk(images)]

    assert sides == [32, 16, 8, 4, 2]


def test_the_same_image_gives_the_same_answer_in_any_company(network: ChestNetwork, images: torch.Tensor) -> None:
    together, alone = network(images), network(images[:1])

    for both, one in zip(together, alone, strict=True):
        assert (both is None) == (one is None)
        if both is None:
            continue
        torch.testing.assert_close(both[:1], one, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_weight(network: ChestNetwork, images: torch.Tensor) -> None:
    outputs = network(images)
    sum(o.square().mean() for o in outputs if o is not None).backward()

    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_only_what_has_a_truth_need_be_drawn(network: ChestNetwork, images: torch.Tensor) -> None:
    outputs = network(images, drawn=1)

    assert (len(outputs.masks), len(outputs.points), len(outputs.gate)) == (1, 1, 2)


def test_windows_there_and_back_are_the_image() -> None:
    x = torch.arange(2 * 8 * 8 * 3).reshape(2, 8, 8, 3)

    there = hiera.to_windows(x, 4)

    assert there.shape == (8, 16, 3)
    assert torch.equal(hiera.from_windows(there, 4, 8, 8), x)


def test_attention_in_windows_sees_its_window_only() -> None:
    torch.manual_seed(0)
    attention = hiera.Attention(8, 2, window=4)
    x = torch.randn(1, 8, 8, 8)
    changed = x.clone()
    changed[0, 6, 6] += 5

    apart = (attention(x) - attention(changed)).abs().sum(dim=-1)[0]

    assert apart[4:, 4:].all()
    assert not apart[:4].any()


def test_drop_path_is_silent_outside_training() -> None:
    x = torch.randn(4, 2, 2, 2)

    assert torch.equal(hiera.DropPath(0.9).eval()(x), x)


@pytest.mark.parametrize("change", [{"widht": 3}, {"size": 72}])
def test_a_manifest_with_an_odd_network_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelRejected, match="network"):
        NetworkConfig.read({**TINY, **change})


def test_a_manifest_that_misses_a_key_is_refused() -> None:
    with pytest.raises(ModelRejected, match="window"):
        NetworkConfig.read({k: v for k, v in TINY.items() if k != "window"})


def test_a_mirrored_film_has_the_mirrored_marks_where_both_are_looked_at(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    table = {**TINY, "boxes": ["nodule"], "mirrored_boxes": True}
    network = ChestNetwork(NetworkConfig.read(table)).eval()

    with torch.inference_mode():
        film, mirrored = network(images).boxes, network(images.flip(-1)).boxes

    assert film is not None
    assert mirrored is not None
    assert torch.allclose(film[:, :1], mirrored[:, :1].flip(-1), atol=1e-5)
    assert not torch.allclose(film[:, :1], film[:, :1].flip(-1), atol=1e-2)


def test_a_network_in_training_sees_a_film_once(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    network = ChestNetwork(NetworkConfig.read({**TINY, "drop_path": 0.0, "boxes": ["nodule"]})).train()
    torch.manual_seed(0)
    both = ChestNetwork(NetworkConfig.read({**TINY, "drop_path": 0.0, "boxes": ["nodule"], "mirrored_boxes": True}))

    once, twice = network(images).boxes, both.train()(images).boxes

    assert once is not None
    assert torch.equal(once, twice)


def test_mirrored_boxes_without_boxes_are_refused() -> None:
    with pytest.raises(ModelRejected, match="mirrored_boxes"):
        NetworkConfig.read({**TINY, "mirrored_boxes": True})
