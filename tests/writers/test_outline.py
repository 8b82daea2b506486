from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from medgem_node.outline import outlines


def _area(polygon: np.ndarray) -> float:
    x, y = polygon[:, 0], polygon[:, 1]
    return abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))) / 2


def test_the_outline_of_a_pixel_is_its_four_corners() -> None:
    mask = np.zeros((4, 5), bool)
    mask[2, 3] = True

    (polygon,) = outlines(mask, tolerance=0)

    assert polygon.tolist() == [[3, 2], [4, 2], [4, 3], [3, 3], [3, 2]]


def test_the_largest_piece_comes_first_and_touching_corners_do_not_join() -> None:
    mask = np.zeros((20, 20), bool)
    mask[0:3, 0:3] = True
    mask[3:15, 3:15] = True

    polygons = outlines(mask, tolerance=0)

    assert [_area(p) for p in polygons] == [144, 9]


def test_an_outline_at_the_border_stays_within_the_image() -> None:
    (polygon,) = outlines(np.ones((6, 8), bool))

    assert polygon.min() == 0
    assert polygon.max(axis=0).tolist() == [8, 6]


def test_a_few_points_hold_nearly_the_area_of_a_large_ellipse() -> None:
    y, x = np.mgrid[0:1000, 0:800]
    mask = ((x - 400) / 300) ** 2 + ((y - 500) / 420) ** 2 < 1

    (polygon,) = outlines(mask, tolerance=2)

    assert len(polygon) < 60
    assert abs(_area(polygon) / mask.sum() - 1) < 0.01
    assert polygon[0].tolist() == polygon[-1].tolist()


def test_no_pixel_has_no_outline() -> None:
    assert outlines(np.zeros((5, 5), bool)) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_every_piece_without_holes_has_its_own_area(seed: int, density: float) -> None:
    image = Image.new("1", (24, 20))
    draw = ImageDraw.Draw(image)
    rng = np.random.default_rng(seed)
    for x, y in rng.integers(0, 20, (max(1, int(5 * density)), 2)):
        draw.rectangle((int(x), int(y), int(x) + 2, int(y) + 2), fill=1)
    mask = np.asarray(image)

    exact = outlines(mask, tolerance=0)

    assert sum(_area(p) for p in exact) >= mask.sum()  # more only where a hole is not followed
    assert all(len(p) >= 5 for p in exact)
