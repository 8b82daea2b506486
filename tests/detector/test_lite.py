"""The stem that has seen ImageNet: shapes, padding, and the folding of its normalisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from medgem_node.detector.hiera import LiteHiera, NetworkConfig
from medgem_node.detector.lite import CHANNELS, LiteStem, SameConv
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.sizes import SIZES
from medgem_node.errors import ModelRejected

LITE: dict[str, Any] = {
    "size": 64,
    "stem": [16, 24],
    "widths": [40, 32, 48],
    "depths": [0, 1, 1],
    "heads": [1, 2, 4],
    "window": 4,
    "mlp_ratio": 2.0,
    "drop_path": 0.1,
    "decoder": [24, 16, 16],
    "masks": ["right-lung", "left-lung", "heart"],
    "points": ["heart-right", "heart-left", "thorax-right", "thorax-left"],
    "classes": ["frontal", "rotated", "other"],
    "trunk": "lite0",
    "boxes": ["nodule-or-mass"],
    "views": ["PA", "AP"],
}


@pytest.fixture
def network() -> ChestNetwork:
    torch.manual_seed(0)
    return ChestNetwork(NetworkConfig.read(LITE)).eval()


def test_every_head_has_the_size_that_the_manifest_says(network: ChestNetwork) -> None:
    outputs = network(torch.randn(2, 1, 64, 64))

    assert outputs.masks.shape == (2, 3, 64, 64)
    assert outputs.points.shape == (2, 4, 16, 16)
    assert outputs.gate.shape == (2, 3)
    assert outputs.boxes is not None
    assert outputs.boxes.shape == (2, 5, 16, 16)
    assert outputs.views is not None
    assert outputs.views.shape == (2, 2)


def test_the_stem_gives_a_map_for_each_stride() -> None:
    maps = LiteStem()(torch.randn(1, 1, 64, 96))

    assert [(m.shape[1], m.shape[2], m.shape[3]) for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip(CHANNELS, (2, 4, 8, 16), strict=True)
    ]


def test_the_network_reads_other_sizes_than_its_own(network: ChestNetwork) -> None:
    assert network(torch.randn(1, 1, 96, 96)).masks.shape == (1, 3, 96, 96)


def test_an_untaught_box_head_marks_next_to_nothing(network: ChestNetwork) -> None:
    outputs = network(torch.randn(1, 1, 64, 64))

    assert outputs.boxes is not None
    assert outputs.boxes[:, :1].sigmoid().mean() < 0.05


def test_gradient_reaches_every_weight_but_those_of_dead_channels(network: ChestNetwork) -> None:
    outputs = network(torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1)))
    sum(o.square().mean() for o in outputs if o is not None).backward()

    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize(("kernel", "first"), [(3, 0), (5, 1)])
def test_at_stride_two_the_padding_is_tensorflows(kernel: int, first: int) -> None:
    conv = SameConv(1, 1, kernel, stride=2)
    nn.init.ones_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    image = torch.zeros(1, 1, 8, 8)
    image[..., 0, 0] = 1

    # a window that begins `first` pixels before the image sees its first pixel; the next begins two further on
    assert conv(image).nonzero()[:, 2:].tolist() == [[0, 0]]
    image = torch.zeros(1, 1, 8, 8)
    image[..., 2 - first, 2 - first] = 1
    assert conv(image)[0, 0, 1, 1] == 1


def test_folding_leaves_what_is_computed_as_it_was() -> None:
    from medgem_node.train.imagenet import _folded

    conv, norm = nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, eps=1e-3).eval()
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert values is not None
            values.uniform_(0.5, 1.5)
    tensors = {"c.weight": conv.weight, **{f"n.{k}": v for k, v in norm.state_dict().items()}}
    image = torch.randn(1, 4, 8, 8)

    weight, bias = _folded(tensors, "c", "n")

    torch.testing.assert_close(nn.functional.conv2d(image, weight, bias), norm(conv(image)))


@pytest.mark.parametrize("change", [{"trunk": "resnet"}, {"stem": [16, 32]}])
def test_a_manifest_with_an_odd_trunk_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelRejected, match="network"):
        NetworkConfig.read({**LITE, **change})


def test_a_manifest_without_a_trunk_has_the_first_one() -> None:
    config = NetworkConfig.read({k: v for k, v in LITE.items() if k not in ("trunk", "boxes", "views")})

    assert (config.trunk, config.boxes, config.views) == ("hiera", (), ())


@pytest.mark.parametrize("name", SIZES)
def test_a_named_size_is_a_network(name: str) -> None:
    table = {k: LITE[k] for k in ("masks", "points", "classes", "boxes")}

    with torch.device("meta"):
        network = ChestNetwork(NetworkConfig.read({"named": name, "size": 512, **table}))
        outputs = network(torch.empty(1, 1, 512, 512))

    assert outputs.masks.shape == (1, 3, 512, 512)
    assert outputs.boxes is not None
    assert outputs.boxes.shape == (1, 5, 128, 128)


def test_the_plain_transformer_is_as_large_as_the_literatures() -> None:
    table = {k: LITE[k] for k in ("masks", "points", "classes")}

    with torch.device("meta"):
        network = ChestNetwork(NetworkConfig.read({"named": "vit-l24", "size": 512, **table}))

    assert sum(p.numel() for p in network.trunk.parameters()) / 1e6 == pytest.approx(171, abs=2)


def test_a_name_that_no_network_has_is_refused() -> None:
    with pytest.raises(ModelRejected, match="hiera-s"):
        NetworkConfig.read({**LITE, "named": "hiera-x"})


def test_a_lite_trunk_is_what_the_manifest_asked_for(network: ChestNetwork) -> None:
    assert isinstance(network.trunk, LiteHiera)
