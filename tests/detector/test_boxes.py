"""Boxes: what is encoded is decoded again, and what is not known is not taught."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medgem_node.detector.boxes import Encoded, Truth, decode, encode


def as_output(made: Encoded) -> torch.Tensor:
    """The output of a head that has learnt these maps by heart."""
    heat = np.clip(made.heat, 1e-4, 1 - 1e-4)
    return torch.from_numpy(np.concatenate((np.log(heat / (1 - heat)), made.geometry)))[None]


def test_a_box_comes_back_from_its_maps() -> None:
    box = (41.0, 22.5, 66.0, 40.5)

    (found,) = decode(as_output(encode([Truth(box)], 1, 32, 48)), 1, at_least=0.5)[0]

    assert found.box_xyxy == pytest.approx(box, abs=1e-3)
    assert found.score == pytest.approx(1.0, abs=1e-3)


def test_boxes_come_highest_score_first_and_keep_their_kind() -> None:
    made = encode([Truth((8, 8, 24, 24), kind=1), Truth((60, 60, 80, 76), kind=0)], 2, 32, 32)
    made.heat[0] *= 0.8

    found = decode(as_output(made), 2, at_least=0.5)[0]

    assert [f.kind for f in found] == [1, 0]


def test_two_peaks_in_one_lesion_are_one_box() -> None:
    made = encode([Truth((20, 20, 60, 60))], 1, 32, 32)
    made.heat[0, 8, 11] = 0.9
    made.geometry[:, 8, 11] = made.geometry[:, 10, 10]

    assert len(decode(as_output(made), 1, at_least=0.5)[0]) == 1


def test_neighbours_stay_two() -> None:
    found = decode(as_output(encode([Truth((0, 0, 16, 16)), Truth((16, 0, 32, 16))], 1, 32, 32)), 1, at_least=0.5)[0]

    assert len(found) == 2


def test_no_more_boxes_are_given_than_asked_for() -> None:
    lesions = [Truth((x, y, x + 8.0, y + 8.0)) for x in range(0, 128, 16) for y in range(0, 128, 16)]

    assert len(decode(as_output(encode(lesions, 1, 32, 32)), 1, at_most=5)[0]) == 5


def test_a_lesion_outside_the_image_is_not_taught() -> None:
    made = encode([Truth((-30, 4, -10, 24))], 1, 32, 32)

    assert not made.heat.any()
    assert made.weight.all()


def test_what_cannot_be_seen_is_neither_lesion_nor_background() -> None:
    made = encode([Truth((8, 8, 24, 24), counts=False)], 1, 32, 32)

    assert not made.heat.any()
    assert not made.weight[0, 2:6, 2:6].any()
    assert made.weight.sum() == 32 * 32 - 16


def test_a_centre_without_a_size_teaches_no_size() -> None:
    made = encode([Truth((8, 8, 24, 24), sized=False)], 1, 32, 32)

    assert made.known[0].sum() == 1
    assert made.known[1].sum() == 0


def test_an_untaught_size_cannot_overflow() -> None:
    maps = torch.full((1, 5, 8, 8), 500.0)

    (found, *_) = decode(maps, 1)[0]

    assert all(np.isfinite(found.box_xyxy))
