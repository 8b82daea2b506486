"""What queries are taught: matched by hand, overlaps computed by hand, and a task that peaks alone cannot solve."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from medgem_node.detector.boxes import Truth, encode
from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.queries import QueryDecoder
from medgem_node.train.loss import Target
from medgem_node.train.query_loss import BACKGROUND, NEITHER, giou, lesions_of, matched, query_loss

CELLS = 16
NONE = torch.zeros(0)


def target(*images: Sequence[Truth], kinds: int = 1) -> Target:
    """What is known of images of 64 x 64 pixels with these lesions."""
    made = [encode(lesions, kinds, CELLS, CELLS) for lesions in images]
    maps = [torch.stack([torch.from_numpy(getattr(m, name)) for m in made]) for name in made[0].__slots__]
    return Target(NONE, NONE, NONE, NONE, NONE, NONE, *maps)


def queries(*cells: tuple[int, int], kind: int = 0) -> Tensor:
    """(K, 8): peaks of falling strength at these rows and columns, 4 x 4 cells large."""
    rows = [[kind, row, column, 1.0 - n, 0.5, 0.5, 1.386, 1.386] for n, (row, column) in enumerate(cells)]
    return torch.tensor(rows)


def match(found: Tensor, *lesions: Truth, kinds: int = 1) -> list[int]:
    known = target(lesions, kinds=kinds)
    return matched(found, lesions_of(known, 0), known.heat_weight[0, 0]).tolist()


BOX = Truth((8, 8, 24, 24))  # cells 2 to 5


def test_the_truth_comes_back_from_the_maps() -> None:
    known = lesions_of(target([Truth((9, 10, 31, 22)), Truth((40, 40, 48, 56), kind=1, sized=False)], kinds=2), 0)

    assert known.kind.tolist() == [0, 1]
    assert known.centre.tolist() == [[5.0, 4.0], [11.0, 12.0]]
    assert known.log_size.exp().flatten().tolist() == pytest.approx([5.5, 3.0, 2.0, 4.0])
    assert known.sized.tolist() == [True, False]


def test_a_lesion_goes_to_the_strongest_peak_on_it_and_a_second_one_is_not_taught() -> None:
    assert match(queries((10, 10), (4, 4), (3, 3)), BOX) == [BACKGROUND, 0, NEITHER]


def test_a_peak_on_two_lesions_goes_to_the_nearer_and_leaves_the_other() -> None:
    left, right = Truth((8, 8, 24, 24)), Truth((16, 8, 32, 24))

    assert match(queries((3, 5), (3, 4)), left, right) == [1, 0]


def test_a_peak_of_another_kind_is_no_hit() -> None:
    assert match(queries((4, 4), kind=1), BOX, kinds=2) == [BACKGROUND]


def test_a_centre_without_a_size_reaches_further_than_its_usual_box() -> None:
    assert match(queries((3, 6)), BOX) == [BACKGROUND]
    assert match(queries((3, 6)), Truth(BOX.box_xyxy, sized=False)) == [0]


def test_what_cannot_be_seen_is_not_taught() -> None:
    assert match(queries((4, 4), (12, 12)), Truth(BOX.box_xyxy, counts=False)) == [NEITHER, BACKGROUND]


def test_a_place_that_no_peak_took_is_not_taught() -> None:
    found = queries((4, 4), (12, 12))
    found[:, 3] -= 1000

    assert match(found, BOX) == [NEITHER, NEITHER]


def test_generalised_overlap_is_what_it_is_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 2, 2]] * 3)
    b = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [4, 0, 6, 2]])

    assert giou(a, b).tolist() == pytest.approx([1.0, 1 / 3, -1 / 3])


def test_boxes_that_are_right_cost_nothing_and_unknown_sizes_never_do() -> None:
    right = queries((3, 3))
    right[0, 4:] = torch.tensor([1.0, 1.0, *(torch.tensor([4.0, 4.0]).log())])
    odd = right.clone()
    odd[0, 6:] += 1

    assert query_loss(right[None], target([BOX]))["query boxes"] == pytest.approx(0, abs=1e-5)
    assert query_loss(odd[None], target([BOX]))["query boxes"] > 1
    assert query_loss(odd[None], target([Truth(BOX.box_xyxy, sized=False)]))["query boxes"] == pytest.approx(
        0, abs=1e-5
    )


def test_images_without_a_lesion_still_teach_what_is_none() -> None:
    found = queries((3, 3))[None].requires_grad_()

    parts = query_loss(found, target([]))
    torch.stack([*parts.values()]).sum().backward()

    assert found.grad is not None
    assert found.grad[0, 0, 3] > 0
    assert not found.grad[0, 0, 4:].any()


def test_queries_learn_to_tell_peaks_apart_that_the_box_head_cannot() -> None:
    """Of two peaks alike, the lesion is the one where the map at stride 16 says so. Chance is 0.5."""
    torch.manual_seed(0)
    decoder = QueryDecoder(_config())
    optimiser = torch.optim.AdamW(decoder.parameters(), 4e-3)
    for step in range(40):
        inputs, known, _ = _two_peaks(12, seed=step)
        parts = query_loss(decoder(*inputs), known)
        optimiser.zero_grad()
        torch.stack([*parts.values()]).sum().backward()
        optimiser.step()

    inputs, _, true_columns = _two_peaks(100, seed=1000)
    with torch.no_grad():
        refined = decoder.eval()(*inputs)
    best = refined.gather(1, refined[..., 3].argmax(dim=1)[:, None, None].expand(-1, 1, 8))[:, 0]

    assert (best[:, 2] == true_columns).float().mean() > 0.8


def _config() -> NetworkConfig:
    return NetworkConfig(
        size=64, stem=(8, 8), widths=(8, 8, 8), depths=(1, 1, 1), heads=(1, 1, 1), window=4, mlp_ratio=2.0,
        drop_path=0.0, decoder=(8, 8, 8), masks=(), points=(), classes=(), boxes=("nodule-or-mass",), queries=2,
    )  # fmt: skip


def _two_peaks(images: int, seed: int) -> tuple[tuple[Tensor, ...], Target, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    fine, middle, coarse = (torch.randn(images, 8, n, n, generator=generator) for n in (CELLS, 4, 2))
    boxes = torch.full((images, 5, CELLS, CELLS), -9.0)
    boxes[:, 0, 6, (3, 12)] = torch.randn(images, 2, generator=generator) * 0.1
    boxes[:, 1:] = 0.5
    columns = torch.where(torch.rand(images, generator=generator) < 0.5, 3, 12)
    middle[torch.arange(images), 0, 1, columns // 4] += 8
    lesions = [[Truth((c * 4.0 - 4, 20, c * 4.0 + 8, 32))] for c in columns.tolist()]
    return (boxes, fine, middle, coarse), target(*lesions), columns
