"""Queries: they start as the box head's peaks, see each other and the image, and can be read as boxes."""

from __future__ import annotations

import tomllib
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from harness.toy_training import LITE

from medgem_node.detector.boxes import Truth, decode, encode
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork, Outputs
from medgem_node.detector.queries import peaks, waves
from medgem_node.errors import ModelRejected

TINY: dict[str, Any] = {
    **{key: value for key, value in tomllib.loads(LITE)["network"].items() if key != "views"},
    "drop_path": 0.0,
    "boxes": ["nodule-or-mass", "other-lesion"],
    "queries": 6,
}


@pytest.fixture
def network() -> ChestNetwork:
    torch.manual_seed(0)
    return ChestNetwork(NetworkConfig.read(TINY)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))


def head_output(lesions: list[Truth], kinds: int = 1) -> torch.Tensor:
    """The output of a box head that has learnt these lesions by heart."""
    made = encode(lesions, kinds, 16, 16)
    heat = np.clip(made.heat, 1e-4, 1 - 1e-4)
    return torch.from_numpy(np.concatenate((np.log(heat / (1 - heat)), made.geometry)))[None]


def refined(outputs: Outputs) -> torch.Tensor:
    assert outputs.queries is not None
    return outputs.queries


def stirred(network: ChestNetwork) -> ChestNetwork:
    """With a last layer that no longer answers zero."""
    assert network.queries is not None
    torch.nn.init.normal_(network.queries.change.weight, std=0.5)
    return network


def test_untrained_queries_say_what_the_box_head_says(network: ChestNetwork, images: torch.Tensor) -> None:
    with torch.inference_mode():
        outputs = network(images)

    assert outputs.boxes is not None
    assert outputs.boxes[:, 2:4].max() > 1  # a centre beyond its cell, which is read as the cell's edge
    dense = decode(outputs.boxes, 2, at_least=0.0, at_most=3)
    again = decode(outputs.boxes, 2, queries=outputs.queries, at_least=0.0, at_most=3)
    for a, b in zip(chain(*dense), chain(*again), strict=True):
        assert (a.kind, a.score) == (b.kind, pytest.approx(b.score, rel=1e-5))
        assert a.box_xyxy == pytest.approx(b.box_xyxy, abs=1e-3)


def test_a_network_without_queries_gives_none_and_has_no_weight_for_them(images: torch.Tensor) -> None:
    network = ChestNetwork(NetworkConfig.read({**TINY, "queries": 0})).eval()

    assert network(images).queries is None
    assert not [name for name in network.state_dict() if name.startswith("queries")]


def test_peaks_are_the_highest_cells_of_their_neighbourhood_in_order() -> None:
    maps = head_output([Truth((8, 8, 16, 16)), Truth((40, 20, 52, 32), kind=1)], kinds=2)
    maps[0, 0] -= 2

    first, second, third = peaks(maps, 2, 3)[0].tolist()

    assert first[:3] == [1, 6, 11]  # kind, row, column
    assert second[:3] == [0, 3, 3]
    assert first[3] > second[3] > third[3]
    assert second[4:] == maps[0, 2:, 3, 3].tolist()


def test_places_that_no_peak_takes_score_nothing() -> None:
    found = peaks(head_output([Truth((24, 24, 36, 36))]), 1, 200)

    scores = [f.score for f in decode(torch.empty(0), 1, queries=found, at_least=1e-3)[0]]
    assert len(scores) == 1
    assert (found[0, :, 3].sigmoid() > 1e-3).sum() == 1


def test_the_same_image_gives_the_same_queries_in_any_company(network: ChestNetwork, images: torch.Tensor) -> None:
    with torch.inference_mode():
        together, alone = refined(stirred(network)(images)), refined(network(images[:1]))

    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-4)


def test_a_query_sees_the_others_and_the_image(network: ChestNetwork) -> None:
    decoder = stirred(network).queries
    assert decoder is not None
    generator = torch.Generator().manual_seed(2)
    boxes, fine, middle, coarse = (
        torch.randn(1, c, n, n, generator=generator) for c, n in ((6, 16), (8, 16), (16, 4), (16, 2))
    )
    base = decoder(boxes, fine, middle, coarse)[0]

    weaker = boxes.clone()
    row, column = base[1, 1:3].long().tolist()
    weaker[0, 2:, row, column] += 1.0  # the second query's box, nothing else
    other_image = decoder(boxes, fine, middle, coarse + torch.randn(coarse.shape, generator=generator))[0]

    assert not torch.allclose(decoder(weaker, fine, middle, coarse)[0, 0], base[0], atol=1e-5)
    assert not torch.allclose(other_image[0], base[0], atol=1e-5)


class Refined(torch.nn.Module):
    """What a network makes of its maps: exporting the rest as well takes long, and is tested elsewhere."""

    def __init__(self, network: ChestNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, boxes: torch.Tensor, fine: torch.Tensor, middle: torch.Tensor, coarse: torch.Tensor) -> Any:
        return self.network.refine(boxes, [middle, coarse], [middle, middle, fine])


def test_queries_can_be_exported_for_any_number_of_images(network: ChestNetwork) -> None:
    module = Refined(stirred(network).requires_grad_(False))
    generator = torch.Generator().manual_seed(3)
    shapes = ((6, 16), (8, 16), (16, 4), (16, 2))
    two, three = (tuple(torch.randn(b, c, n, n, generator=generator) for c, n in shapes) for b in (2, 3))

    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    exported = torch.export.export(module, two, dynamic_shapes=(batch,) * 4)

    torch.testing.assert_close(exported.module()(*three), module(*three), rtol=1e-4, atol=1e-4)


def test_gradient_reaches_every_weight_of_the_queries(network: ChestNetwork, images: torch.Tensor) -> None:
    decoder = stirred(network).queries
    assert decoder is not None

    refined(network(images))[..., 3:].square().mean().backward()

    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_refined_centre_may_leave_its_cell() -> None:
    query = torch.tensor([[[0.0, 5.0, 5.0, 2.0, 3.5, -1.5, 1.0, 1.0]]])

    (found,) = decode(torch.empty(0), 1, queries=query)[0]

    x0, y0, x1, y1 = found.box_xyxy
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((34.0, 14.0))


def test_two_queries_of_one_lesion_are_one_box_of_the_higher_score() -> None:
    weak = [0.0, 5.0, 5.0, 1.0, 0.5, 0.5, 1.5, 1.5]
    strong = [0.0, 5.0, 6.0, 2.0, -0.5, 0.5, 1.5, 1.5]

    (found,) = decode(torch.empty(0), 1, queries=torch.tensor([[weak, strong]]))[0]

    assert found.score == pytest.approx(float(torch.tensor(2.0).sigmoid()))


def test_no_two_places_have_the_same_waves() -> None:
    y, x = (v.flatten() for v in torch.meshgrid(*(torch.arange(24) / 24,) * 2, indexing="ij"))

    made = waves(y, x, 64)

    assert made.shape == (576, 64)
    assert torch.cdist(made, made).add(torch.eye(576) * 9).min() > 0.1


@pytest.mark.parametrize("change", [{"queries": -1}, {"boxes": []}])
def test_queries_without_boxes_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelRejected, match="queries"):
        NetworkConfig.read({**TINY, **change})
