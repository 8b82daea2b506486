from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from harness import chest

from medgem_node import picture
from medgem_node.errors import Unreadable


def test_the_heatmap_is_a_picture_of_the_sources_size_that_says_what_it_is(write) -> None:
    film = chest.film()

    sc = write(chest.analysis(film), [film])["OT 1"]

    assert (sc.Rows, sc.Columns, sc.PhotometricInterpretation, sc.BitsStored) == (512, 480, "RGB", 8)
    assert (sc.ConversionType, sc.BurnedInAnnotation, sc.Modality) == ("WSD", "YES", "OT")
    assert "research use only" in sc.SeriesDescription
    assert len(sc.SeriesDescription) <= 64
    assert sc.SourceImageSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
    assert sc.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "121322"


def test_colour_is_where_the_model_looked_and_grey_elsewhere() -> None:
    film = chest.film()
    analysis = replace(chest.analysis(film), findings=(), masks=(), measurements=())

    rgb = picture.overlay(picture.grey(film), analysis, str(film.SOPInstanceUID), []).astype(int)

    spread = rgb.max(axis=-1) - rgb.min(axis=-1)
    assert spread[317, 259] > 60  # the middle of the glow
    assert spread[100:200, 30:120].max() == 0


def test_boxes_outlines_and_lines_are_drawn_where_they_are_said_to_be() -> None:
    film = chest.film()
    analysis = replace(chest.analysis(film), heatmaps=())
    box = analysis.findings[0].box

    rgb = picture.overlay(picture.grey(film), analysis, str(film.SOPInstanceUID), []).astype(int)

    assert box is not None
    column = rgb[round(box.y0 + 30), round(box.x0) - 2 : round(box.x0) + 3]
    assert any(abs(pixel - [255, 214, 10]).max() < 40 for pixel in column)
    right = analysis.masks[0]
    edge = np.argmax(right.pixels[0][240])
    assert any(abs(pixel - np.array(right.colour_rgb)).max() < 60 for pixel in rgb[240, int(edge) - 2 : int(edge) + 3])


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (100, 900), (900, 100), (3000, 2400)])
def test_the_warning_is_readable_at_any_size(rows: int, columns: int) -> None:
    blank = np.zeros((rows, columns), np.uint8)
    analysis = replace(chest.analysis(chest.film(rows, columns)), findings=(), masks=(), measurements=(), heatmaps=())

    rgb = picture.overlay(blank, analysis, "none", ["AI chest-heart 1.2.3 - RESEARCH USE ONLY - NOT FOR DIAGNOSIS"])

    white = np.argwhere(rgb.min(axis=-1) > 128)
    assert white.size
    assert white[:, 1].max() < columns - 1  # nothing runs out of the picture
    assert white[:, 0].max() < rows - 1


def test_white_is_bone_in_both_photometric_interpretations() -> None:
    film = chest.film()
    inverted = chest.film(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    inverted.PixelData = (4095 - film.pixel_array).astype("<u2").tobytes()
    inverted.WindowCenter = str(4095 - 1800)

    difference = picture.grey(film).astype(int) - picture.grey(inverted)

    assert abs(difference).max() <= 1


@pytest.mark.parametrize(
    "window",
    [{}, {"WindowCenter": "60000", "WindowWidth": "1"}, {"WindowCenter": ["1800", "9"], "WindowWidth": ["3600", "9"]}],
)
def test_a_window_that_shows_nothing_is_not_believed(window: dict) -> None:
    film = chest.film()
    del film.WindowCenter, film.WindowWidth
    film.update({})
    for keyword, value in window.items():
        setattr(film, keyword, value)

    grey = picture.grey(film)

    assert np.percentile(grey, 95) - np.percentile(grey, 5) > 80


def test_padding_is_black_and_does_not_move_the_window() -> None:
    film = chest.film(PixelPaddingValue=4095)
    del film.WindowCenter, film.WindowWidth
    pixels = film.pixel_array.copy()
    pixels[:, :60] = 4095
    film.PixelData = pixels.tobytes()

    grey = picture.grey(film)

    assert grey[:, :60].max() == 0
    assert grey[:, 60:].max() == 255


def test_pixels_that_cannot_be_decoded_are_named_unreadable() -> None:
    film = chest.film(PixelData=b"short")

    with pytest.raises(Unreadable, match="5 bytes of pixel data"):
        picture.grey(film)


def test_what_is_absent_is_not_worded_as_found() -> None:
    absent = chest.analysis(chest.film(), probability=0.12).findings[0]

    assert picture.said(absent) == "No cardiomegaly by AI, probability of cardiomegaly 12%"
    assert picture.said(replace(absent, present=True, probability=0.71)) == "Cardiomegaly 71%"
