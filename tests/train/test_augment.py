"""Films as another hospital might have taken them."""

from __future__ import annotations

import numpy as np
import pytest

from medgem_node.train.augment import augmented, exposed, prepared, turned
from medgem_node.train.data import Film

RANGES = {
    "rotation_degrees": 8.0, "scale": 0.15, "shift": 0.07, "aspect": 0.06,
    "gamma": 0.45, "window": 0.12, "noise": 0.04, "blur": 1.2,
}  # fmt: skip
NONE = dict.fromkeys(RANGES, 0.0)


@pytest.fixture
def film() -> Film:
    """Bright at the image's left third, which is also its first mask."""
    pixels = np.full((90, 120), 10, np.float32)
    pixels[:, :40] = 200
    truth = np.zeros((3, 90, 120), np.float32)
    truth[0, :, :40] = 1
    return prepared(Film("f", "f", "made", "contours", pixels, truth), 64)


def test_the_same_seed_gives_the_same_picture(film: Film) -> None:
    first, second = (augmented(film, 64, RANGES, np.random.default_rng(5)) for _ in range(2))

    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize("seed", range(8))
def test_a_mask_follows_its_film_and_is_never_mirrored(film: Film, seed: int) -> None:
    _, truth = augmented(film, 64, RANGES, np.random.default_rng(seed))

    where = np.flatnonzero((truth[0] > 0.5).any(axis=0))
    assert where.mean() < 28
    assert truth[0].mean() == pytest.approx(0.25, abs=0.09)  # a third of a picture of three quarters


@pytest.mark.parametrize("seed", range(8))
def test_a_picture_stays_within_black_and_white(film: Film, seed: int) -> None:
    grey = exposed(np.random.default_rng(0).random((64, 64), np.float32), RANGES, np.random.default_rng(seed))

    assert grey.dtype == np.float32
    assert 0 <= grey.min() <= grey.max() <= 1


def test_turned_films_are_what_they_are_called() -> None:
    rng = np.random.default_rng(0)
    grey = rng.random((8, 8), np.float32)

    assert np.array_equal(turned(grey, "mirrored", rng), grey[:, ::-1])
    assert np.array_equal(turned(grey, "upside-down", rng)[0].sum(), grey[-1].sum())
    assert np.allclose(turned(grey, "inverted", rng), 1 - grey)
    assert np.allclose(np.sort(turned(grey, "rotated", rng)[0]), np.sort(grey[:, 0])) or np.allclose(
        np.sort(turned(grey, "rotated", rng)[0]), np.sort(grey[:, -1])
    )
