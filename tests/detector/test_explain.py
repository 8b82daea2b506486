"""Maps of where a mark comes from: on a small network, and measured on maps drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from medgem_node.detector import explain
from medgem_node.detector.hiera import Attention, NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.sizes import SIZES
from medgem_node.train.metrics.explanation import deletion, energy_in, points_at


@pytest.fixture(scope="module")
def network() -> ChestNetwork:
    torch.manual_seed(0)
    heads = {"masks": ["a", "b", "c"], "points": ["p"], "classes": ["frontal", "other"], "boxes": ["nodule-or-mass"]}
    table = {**SIZES["lite-s"], "size": 64, "widths": (40, 24, 32), "heads": (1, 2, 2), "window": 4, **heads}
    return ChestNetwork(NetworkConfig.read(table)).eval().requires_grad_(False)


@pytest.mark.parametrize("method", explain.METHODS)
def test_a_map_covers_the_image_evenly_and_lies_between_0_and_1(method: str, network: ChestNetwork) -> None:
    image = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(2))

    values = explain.METHODS[method](network, image)

    assert values.shape == ((4, 6) if method == "rollout" else (16, 24))
    assert np.isfinite(values).all()
    assert 0 <= values.min() <= values.max() <= 1


def test_the_box_heads_own_map_is_what_marks_are_read_from(network: ChestNetwork) -> None:
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))

    boxes = network(image).boxes

    assert boxes is not None
    assert explain.lesions(network, image) == pytest.approx(boxes[0, 0].sigmoid().numpy())


def test_grad_cam_weighs_channels_by_the_gradient_of_the_highest_logit(network: ChestNetwork) -> None:
    image = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(3))
    kept: list[torch.Tensor] = []
    hook = network.boxes.register_forward_pre_hook(lambda own, inputs: kept.append(inputs[0]))

    with torch.enable_grad():
        output = network(image.requires_grad_()).boxes[0, 0].amax()
        (gradient,) = torch.autograd.grad(output, kept[0])
    hook.remove()

    values = (kept[0] * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1)[0].relu().detach().numpy()
    expected = (values - values.min()) / max(values.max() - values.min(), 1e-12)
    assert explain.grad_cam(network, image.detach()) == pytest.approx(expected, abs=1e-4)


def test_attention_is_what_the_block_computes() -> None:
    torch.manual_seed(0)
    module, x = Attention(8, 2, window=0).eval(), torch.randn(1, 3, 4, 8)

    weights = explain.attention(module, x)

    q, k, _ = module.qkv(x.flatten(1, 2)).reshape(12, 3, 2, 4).permute(1, 2, 0, 3)
    mixed = functional.scaled_dot_product_attention(q, k, torch.eye(12).expand(2, 12, 12))
    torch.testing.assert_close(weights, mixed.mean(dim=0))


def test_the_pointing_game_by_hand() -> None:
    values = np.zeros((4, 8), np.float32)
    values[1, 6] = 1  # its centre: x 0.8125, y 0.375

    assert points_at(values, [(0.0, 0.0, 0.1, 0.1), (0.8, 0.3, 0.9, 0.4)])
    assert not points_at(values, [(0.85, 0.3, 0.9, 0.4)])
    assert points_at(values, [(0.85, 0.3, 0.9, 0.4)], tolerance=0.05)


def test_energy_in_a_box_by_hand() -> None:
    values = np.ones((4, 4), np.float32)

    assert energy_in(values, [(0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.25, 1.0)]) == pytest.approx(6 / 16)
    assert np.isnan(energy_in(values * 0, [(0, 0, 1, 1)]))


def test_deleting_what_matters_first_costs_the_score() -> None:
    image = np.zeros((8, 8), np.float32)
    image[2:4, 2:4] = 1
    blank = np.zeros_like(image)

    def score(shown: np.ndarray) -> float:
        return float(shown[2:4, 2:4].mean())

    assert deletion(score, image, image, blank) < 0.1 < 0.9 < deletion(score, image, 1 - image, blank)
    assert deletion(score, image, image, blank, insert=True) > 0.9
