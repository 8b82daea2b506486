from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medgem_node.detector.preprocess import Letterbox, Preprocessing, letterbox, to_tensor
from medgem_node.errors import ModelRejected, Unreadable

SHAPES = [(256, 256), (3000, 2500), (2500, 3000), (440, 440), (1955, 1841), (97, 61), (61, 97), (301, 1000)]


def phantom(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns]
    waves = 1000 + 400 * np.sin(x / columns * 9) + 300 * np.cos(y / rows * 7)
    return (waves + np.random.default_rng(seed).normal(0, 10, (rows, columns))).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(st.integers(16, 4000), st.integers(16, 4000), st.floats(0, 1), st.floats(0, 1))
def test_a_point_goes_to_the_network_and_back(rows: int, columns: int, u: float, v: float) -> None:
    box = letterbox(rows, columns)

    x, y = box.to_network(u * columns, v * rows)

    assert -1e-9 <= x <= 256 + 1e-9
    assert -1e-9 <= y <= 256 + 1e-9
    assert box.to_image(x, y) == pytest.approx((u * columns, v * rows), abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_drawn_rectangle_lands_where_the_letterbox_says(shape: tuple[int, int]) -> None:
    rows, columns = shape
    pixels = np.zeros(shape, np.float32)
    x0, y0, x1, y1 = columns // 5, rows // 3, columns // 2, rows * 3 // 4
    pixels[y0:y1, x0:x1] = 100

    tensor, box = to_tensor(pixels)

    grey = tensor[0] * 0.25 + 0.5
    assert grey.min() == pytest.approx(0, abs=1e-6)
    assert grey.max() == pytest.approx(1, abs=1e-6)
    (nx0, ny0), (nx1, ny1) = box.to_network(x0, y0), box.to_network(x1, y1)
    assert grey.sum() == pytest.approx((nx1 - nx0) * (ny1 - ny0), rel=0.01)
    y, x = np.mgrid[0:256, 0:256] + 0.5
    assert (grey * x).sum() / grey.sum() == pytest.approx((nx0 + nx1) / 2, abs=0.05)
    assert (grey * y).sum() / grey.sum() == pytest.approx((ny0 + ny1) / 2, abs=0.05)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fraction", [1, 4])
def test_a_drawn_rectangle_returns_to_its_place(shape: tuple[int, int], fraction: int) -> None:
    rows, columns = shape
    pixels = np.zeros(shape, np.float32)
    x0, y0, x1, y1 = columns // 5, rows // 3, columns // 2, rows * 3 // 4
    pixels[y0:y1, x0:x1] = 100

    tensor, box = to_tensor(pixels)
    grey = tensor[0] * 0.25 + 0.5
    side = 256 // fraction
    coarse = grey.reshape(side, fraction, side, fraction).mean(axis=(1, 3))
    back = box.crop_resize(coarse)

    assert back.shape == shape
    assert back.dtype == np.float32
    ys, xs = np.nonzero(back > 0.5)
    tolerance = fraction * max(1, 1 / box.scale)  # one pixel of the map
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == pytest.approx((x0, y0, x1, y1), abs=tolerance)


def test_a_map_of_coordinates_returns_exact_coordinates() -> None:
    box = letterbox(600, 401)
    x = np.tile(np.arange(256, dtype=np.float32) + 0.5, (256, 1))

    back = box.crop_resize(x)

    column = np.arange(401) + 0.5
    inner = slice(5, -5)
    assert back[300][inner] == pytest.approx((column * box.scale + box.left)[inner], abs=1e-3)


def test_the_aspect_is_kept_and_the_image_is_centred() -> None:
    assert letterbox(2000, 1000) == Letterbox(0.128, 64, 0, 2000, 1000)
    assert letterbox(1000, 2000) == Letterbox(0.128, 0, 64, 1000, 2000)


def test_beside_the_image_it_is_black() -> None:
    tensor, box = to_tensor(phantom(200, 100))

    assert tensor.shape == (1, 256, 256)
    assert tensor.dtype == np.float32
    assert (tensor[0, :, : box.left] == -2).all()
    assert (tensor[0, :, 256 - box.left :] == -2).all()
    assert tensor.max() == 2
    assert tensor.min() == -2


def test_gain_and_offset_of_the_detector_do_not_matter() -> None:
    pixels = phantom(500, 400)

    one, _ = to_tensor(pixels)
    other, _ = to_tensor(pixels * 37 - 9000)

    np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("border", [0, 60000])
def test_a_shutter_or_white_frame_does_not_set_the_grey_scale(border: float) -> None:
    pixels = phantom(500, 500)
    framed = np.full((800, 700), border, np.float32)
    framed[150:650, 100:600] = pixels

    plain, box = to_tensor(pixels)
    tensor, framed_box = to_tensor(framed)

    grey = framed_box.crop_resize(tensor[0])[150:650, 100:600]
    inner = slice(10, -10)
    np.testing.assert_allclose(grey[inner, inner], box.crop_resize(plain[0])[inner, inner], atol=0.2)


def test_padding_has_no_say_in_the_grey_scale_and_becomes_black() -> None:
    pixels = phantom(256, 256)
    padded = pixels.copy()
    exposed = np.ones((256, 256), bool)
    exposed[:90, :90] = False
    padded[~exposed] = 65535

    tensor, _ = to_tensor(padded, exposed=exposed)

    assert (tensor[0, :89, :89] == -2).all()
    lower = np.percentile(pixels[exposed], 0.5)
    upper = np.percentile(pixels[exposed], 99.5)
    expected = (np.clip((pixels - lower) / (upper - lower), 0, 1) - 0.5) / 0.25
    np.testing.assert_allclose(tensor[0][exposed], expected[exposed], atol=1e-3)


@pytest.mark.parametrize("value", [0, 7, 65535, np.nan])
def test_a_constant_image_is_unreadable(value: float) -> None:
    with pytest.raises(Unreadable) as error:
        to_tensor(np.full((300, 200), value, np.float32))

    assert error.value.reason == "constant-image"


def test_an_image_of_padding_only_is_unreadable() -> None:
    with pytest.raises(Unreadable) as error:
        to_tensor(phantom(50, 50), exposed=np.zeros((50, 50), bool))

    assert error.value.reason == "constant-image"


def test_a_saturated_image_still_has_a_grey_scale() -> None:
    pixels = np.zeros((400, 400), np.float32)
    pixels[:, 200:] = 4095

    tensor, _ = to_tensor(pixels)

    assert set(np.unique(tensor)) >= {-2, 2}


def test_the_input_is_left_as_it_was() -> None:
    pixels = phantom(120, 100)
    before = pixels.copy()

    to_tensor(pixels)

    assert (pixels == before).all()


def test_a_network_may_be_larger() -> None:
    pixels = phantom(300, 200)

    tensor, box = to_tensor(pixels, 512)

    assert tensor.shape == (1, 512, 512)
    back = box.crop_resize(tensor[0])
    assert np.corrcoef(back.ravel(), pixels.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    "table", [{"mode": 1}, {"mean": "x"}, {"deviation": 0}, {"low_percentile": 99.9}, {"high_percentile": 101}]
)
def test_a_manifest_with_impossible_numbers_is_rejected(table: dict[str, object]) -> None:
    with pytest.raises(ModelRejected, match="preprocessing"):
        Preprocessing.parse(table)


def test_a_manifest_sets_the_numbers() -> None:
    constants = Preprocessing.parse({"low_percentile": 1, "high_percentile": 99, "mean": 0, "deviation": 1})

    tensor, _ = to_tensor(phantom(100, 100), constants=constants)

    assert (tensor.min(), tensor.max()) == (0, 1)


def test_a_full_size_radiograph_takes_a_fifth_of_a_second() -> None:
    pixels = phantom(3000, 2500)

    began = time.process_time()
    _, box = to_tensor(pixels)
    between = time.process_time()
    box.crop_resize(np.zeros((256, 256), np.float32))
    ended = time.process_time()

    assert between - began < 0.4  # 0.1 s here; the margin is for a shared runner
    assert ended - between < 0.4
    print(f"to_tensor {between - began:.3f} s, crop_resize {ended - between:.3f} s")


def test_a_mask_is_where_the_map_is_above_one_half_but_for_rounding() -> None:
    box = letterbox(300, 250, 64)
    y, x = np.mgrid[0:64, 0:64].astype(np.float32)
    p = 1 / (1 + np.exp(np.hypot(x - 30, y - 33) - 20))

    assert np.mean(box.mask(p) != (box.crop_resize(p) > 0.5)) < 1e-3
