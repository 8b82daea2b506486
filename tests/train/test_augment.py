"""Films as another hospital might have taken them."""

from __future__ import annotations

import numpy as np
import pytest

from medgem_node.train import augment
from medgem_node.train.augment import augmented, exposed, prepared, turned, with_lesions
from medgem_node.train.film import Film
from medgem_node.train.lesions import Lesion

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


def waves() -> Film:
    """Grey waves, a mask at the image's left and one lesion."""
    y, x = np.mgrid[0:90, 0:120].astype(np.float32)
    pixels = (100 + 60 * np.sin(x / 9) * np.cos(y / 7)).astype(np.float32)
    truth = np.zeros((3, 90, 120), np.float32)
    truth[0, :, :40] = 1
    return prepared(Film("f", "f", "made", "contours", pixels, truth, (Lesion((0.2, 0.3, 0.4, 0.5)),)), 64)


def discs(rows: int = 300, columns: int = 200) -> tuple[Film, list[tuple[float, float, float, float]]]:
    """Bright discs on grey, each the first mask and a lesion."""
    boxes = [(0.2, 0.15, 0.4, 0.28), (0.6, 0.4, 0.72, 0.48), (0.3, 0.7, 0.5, 0.83)]
    y, x = np.mgrid[0:rows, 0:columns] + 0.5
    grey = np.full((rows, columns), 50.0, np.float32)
    for x0, y0, x1, y1 in boxes:
        dx, dy = (x / columns - (x0 + x1) / 2) / (x1 - x0), (y / rows - (y0 + y1) / 2) / (y1 - y0)
        grey[np.hypot(dx, dy) < 0.5] = 200
    truth = np.stack([grey > 100] * 3).astype(np.float32)
    return Film("a", "a", "x", "contours", grey, truth, tuple(map(Lesion, boxes))), boxes


# what the code gave before it knew of `elastic`, `density` and `masked`: the generator's next number, and those of the
# picture, the mask and the box
BEFORE = {
    0: (0.5715298307297609, 0.3394809, 0.2091586, (10.9652667, 25.0079061, 22.2265472, 34.3789169)),
    1: (0.5307924500262473, 0.3922324, 0.3206562, (15.1745690, 18.9872650, 29.0839279, 30.2681169)),
    2: (0.9242168965068241, 0.3089557, 0.1890922, (9.3673984, 25.1216902, 21.8426737, 33.7379166)),
}


@pytest.mark.parametrize("seed", BEFORE)
@pytest.mark.parametrize("off", [{}, dict.fromkeys(("elastic", "density", "masked"), 0.0)], ids=["absent", "zero"])
def test_what_no_recipe_asks_for_changes_no_picture_and_takes_no_random_number(
    seed: int, off: dict[str, float]
) -> None:
    rng = np.random.default_rng(seed)

    grey, truth, (lesion,) = with_lesions(waves(), 64, {**RANGES, **off}, rng)

    following, picture, mask, box = BEFORE[seed]
    assert rng.random() == following
    assert (grey.mean(), truth[0].mean()) == pytest.approx((picture, mask), abs=1e-4)
    assert lesion.box_xyxy == pytest.approx(box, abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_masks_and_boxes_follow_a_bent_film(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_CHANGES", ())
    film, boxes = discs()
    moves = {**NONE, "rotation_degrees": 5.0, "scale": 0.1, "shift": 0.03, "elastic": 0.04}

    grey, truth, lesions = with_lesions(prepared(film, 192), 192, moves, np.random.default_rng(seed))

    bright = grey > 0.75 * grey.max()
    assert (bright == (truth[0] > 0.5)).mean() > 0.995
    for lesion in lesions:
        x0, y0, x1, y1 = lesion.box_xyxy
        near = np.zeros_like(bright)
        near[max(int(y0) - 6, 0) : int(y1) + 7, max(int(x0) - 6, 0) : int(x1) + 7] = True
        y, x = np.nonzero(bright & near)
        assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == pytest.approx((x0, y0, x1, y1), abs=2.5)
    assert len(lesions) == len(boxes)


def test_a_bent_film_is_moved_neither_too_far_nor_not_at_all() -> None:
    moved = [np.hypot(*augment._bend(100, 0.04, np.random.default_rng(seed))).max() for seed in range(40)]

    assert max(moved) < 1.5 * np.sqrt(2) * 4  # 4 pixels along each axis, and what a smooth curve swings over
    assert max(moved) > 3


@pytest.mark.parametrize("seed", range(10))
def test_a_bent_film_is_nowhere_folded_or_torn(seed: int) -> None:
    right, down = augment._bend(128, 0.04, np.random.default_rng(seed))

    across, along = np.gradient(right), np.gradient(down)
    area = (1 + across[1]) * (1 + along[0]) - across[0] * along[1]
    assert area.min() > 0


def test_a_film_that_is_not_bent_is_sampled_as_before(film: Film) -> None:
    place = augment._placement(film.pixels.shape, 64, RANGES, np.random.default_rng(3))
    still = np.zeros((2, 64, 64), np.float32)

    as_before, sampled = augment._placed(film.pixels, 64, place), augment._placed(film.pixels, 64, place, still)

    assert np.abs(as_before - sampled).max() <= 1.0  # of 255: PIL rounds


def test_density_lightens_or_darkens_the_film_and_nothing_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_CHANGES", ())
    grey = np.full((8, 8), 0.5, np.float32)
    grey[:, :2] = 0

    made = [exposed(grey, {**NONE, "density": 0.2}, np.random.default_rng(seed)) for seed in range(40)]

    changes = [float(picture[0, 4]) - 0.5 for picture in made]
    assert all(np.ptp(picture[:, 2:]) == 0 and not picture[:, :2].any() for picture in made)
    assert -0.2 <= min(changes) < -0.1 < 0.1 < max(changes) <= 0.2


def test_blocks_are_hidden_as_often_as_asked_and_a_hidden_lesion_is_not_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_CHANGES", ())
    film, _ = discs()
    small = prepared(film, 192)
    hidden, taught, open_ = [], 0, 0

    for seed in range(40):
        plain, _, _ = with_lesions(small, 192, NONE, np.random.default_rng(seed))
        grey, truth, lesions = with_lesions(small, 192, {**NONE, "masked": 0.3}, np.random.default_rng(seed))
        behind = grey != plain
        hidden.append(behind.reshape(12, 16, 12, 16).any((1, 3)).mean())
        for lesion in lesions:
            x0, y0, x1, y1 = map(int, lesion.box_xyxy)
            share = (grey == plain.mean())[y0 : y1 + 1, x0 : x1 + 1].mean()
            assert lesion.counts == (share <= 0.5)
            taught, open_ = taught + lesion.counts, open_ + (not lesion.counts)
        assert truth[0].any()  # what lies behind a block is still where it is

    assert np.mean(hidden) == pytest.approx(0.3, abs=0.03)
    assert taught > 0
    assert open_ > 0


def test_no_option_mirrors_a_film() -> None:
    moves = {**RANGES, "elastic": 0.04, "density": 0.1, "masked": 0.1}
    pixels = np.full((90, 120), 10, np.float32)
    pixels[:, :40] = 200
    left = np.zeros((3, 90, 120), np.float32)
    left[0, :, :40] = 1
    film = prepared(Film("f", "f", "made", "contours", pixels, left), 64)

    for seed in range(20):
        _, truth = augmented(film, 64, moves, np.random.default_rng(seed))
        assert np.flatnonzero((truth[0] > 0.5).any(axis=0)).mean() < 32
