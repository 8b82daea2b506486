"""Widths, ratios and areas against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medgem_node.detector import measure
from medgem_node.finding import Point


def rectangle(y0: int, y1: int, x0: int, x1: int) -> NDArray[np.bool_]:
    mask = np.zeros((20, 30), bool)
    mask[y0:y1, x0:x1] = True
    return mask


RIGHT, LEFT, HEART = rectangle(2, 16, 3, 11), rectangle(2, 16, 18, 27), rectangle(9, 16, 10, 21)


def test_the_ratio_of_three_rectangles_is_as_by_hand() -> None:
    lines = measure.chest_lines(RIGHT, LEFT, HEART)

    assert lines is not None
    assert measure.width(lines.cardiac) == 11  # columns 10 to 20
    assert measure.width(lines.thoracic) == 24  # columns 3 to 26
    assert lines.ratio == 11 / 24


def test_points_are_corners_across_and_centres_along() -> None:
    lines = measure.chest_lines(RIGHT, LEFT, HEART)

    assert lines is not None
    assert lines.cardiac == (Point(10.0, 12.5), Point(21.0, 12.5))
    assert lines.thoracic == (Point(3.0, 9.5), Point(27.0, 9.5))


def test_a_heart_whose_borders_lie_at_different_levels_is_measured_along_one_level() -> None:
    heart = rectangle(5, 7, 12, 16) | rectangle(10, 12, 15, 20)

    line = measure.cardiac_line(heart)

    assert line == (Point(12.0, 8.5), Point(20.0, 8.5))
    assert measure.width(line) == 8


def test_the_thorax_is_measured_at_one_level_that_shows_both_lungs() -> None:
    right = RIGHT | rectangle(17, 19, 0, 5)  # reaches further out, where there is no left lung

    line = measure.thoracic_line(right, LEFT)

    assert line is not None
    assert measure.width(line) == 24


def test_widths_use_the_spacing_of_columns_and_areas_both() -> None:
    assert measure.width((Point(3.0, 0.5), Point(27.0, 0.5)), 0.5) == 12.0
    assert measure.area(RIGHT, (0.5, 2.0)) == 14 * 8


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_without_a_structure_there_is_no_line(empty: int) -> None:
    masks = [RIGHT, LEFT, HEART]
    masks[empty] = np.zeros_like(RIGHT)

    assert measure.chest_lines(*masks) is None


def test_the_largest_part_is_kept_whole() -> None:
    horseshoe = rectangle(2, 12, 4, 6) | rectangle(2, 12, 10, 12) | rectangle(10, 12, 4, 12)
    speck = rectangle(15, 17, 20, 23)

    assert np.array_equal(measure.largest_part(horseshoe | speck), horseshoe)
    assert len(measure.connected_parts(horseshoe | speck)) == 2


def test_parts_that_touch_at_a_corner_only_are_two() -> None:
    assert len(measure.connected_parts(rectangle(2, 4, 2, 4) | rectangle(4, 6, 4, 6))) == 2


def test_nothing_has_no_part_and_no_box() -> None:
    nothing = np.zeros((4, 5), bool)

    assert not measure.largest_part(nothing).any()
    assert measure.bounding_box(nothing) is None


def test_a_box_reaches_from_edge_to_edge() -> None:
    assert measure.bounding_box(HEART) == measure.Box(10.0, 9.0, 21.0, 16.0)


def test_the_holes_of_a_mask_are_filled_and_its_bays_are_not() -> None:
    ring = np.zeros((8, 8), bool)
    ring[1:6, 1:6] = True
    ring[2:4, 2:4] = False  # a hole
    ring[5, 3] = False  # a bay

    filled = measure.filled(ring)

    assert filled[2:4, 2:4].all()
    assert not filled[5, 3]
    assert filled.sum() == 24
