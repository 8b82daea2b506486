from __future__ import annotations

from dataclasses import replace

import highdicom
import numpy as np
import pytest
from harness import chest
from pydicom.uid import ExplicitVRLittleEndian

from medgem_node.errors import MedgemError
from medgem_node.finding import not_analysed


def test_every_mask_is_a_segment_with_its_own_pixels_colour_and_side(write) -> None:
    film = chest.film()
    analysis = chest.analysis(film)

    seg = highdicom.seg.Segmentation.from_dataset(write(analysis, [film])["SEG 1"])

    assert seg.SegmentationType == "BINARY"
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Right lung", "Left lung", "Heart"]
    pixels = seg.get_pixels_by_source_instance([film.SOPInstanceUID], assert_missing_frames_are_empty=True)
    for k, mask in enumerate(analysis.masks):
        assert np.array_equal(pixels[0, :, :, k], mask.pixels[0])
    assert all("RecommendedDisplayCIELabValue" in s for s in seg.SegmentSequence)
    right = seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert right.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == chest.RIGHT.value


def test_a_radiograph_gets_a_place_in_space_so_that_viewers_can_show_the_segments(write) -> None:
    film = chest.film()

    seg = write(chest.analysis(film), [film])["SEG 1"]

    shared = seg.SharedFunctionalGroupsSequence[0]
    assert seg.FrameOfReferenceUID == chest.uid("frame-of-reference-1")
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == [float(v) for v in film.PixelSpacing]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert seg.PatientOrientation == ["L", "F"]
    reference = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    assert reference.ReferencedSOPInstanceUID == film.SOPInstanceUID
    assert seg.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


@pytest.mark.parametrize("columns", [61, 63])
def test_frames_that_do_not_end_on_a_byte_are_written_as_bytes(write, columns: int) -> None:
    film = chest.film(71, columns)
    analysis = chest.analysis(film)

    seg = write(analysis, [film])["SEG 1"]

    assert (seg.SegmentationType, seg.SegmentationFractionalType, seg.MaximumFractionalValue) == (
        "FRACTIONAL",
        "OCCUPANCY",
        255,
    )
    assert set(np.unique(seg.pixel_array)) == {0, 255}
    assert np.array_equal(seg.pixel_array[0] == 255, analysis.masks[0].pixels[0])


def test_the_unknown_spacing_of_a_film_is_told(write) -> None:
    film = chest.real_film()  # Pixel Spacing 0\0

    seg = write(chest.analysis(film), [film])["SEG 1"]

    assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [1, 1]
    assert "do not measure" in seg.DerivationDescription


def test_two_films_get_two_segmentations_in_two_frames_of_reference(write) -> None:
    films = [chest.film(), chest.film(400, 328, uid_seed="second")]

    results = write(chest.analysis(*films), films)

    first, second = results["SEG 1"], results["SEG 2"]
    assert first.FrameOfReferenceUID != second.FrameOfReferenceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert (second.Rows, second.Columns) == (400, 328)


def test_an_empty_mask_is_no_segment_and_no_mask_no_object(write) -> None:
    film = chest.film()
    analysis = chest.analysis(film)
    right, left, heart = analysis.masks
    empty = replace(left, pixels=np.zeros_like(left.pixels))

    seg = write(replace(analysis, masks=(right, empty, heart)), [film])["SEG 1"]

    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Right lung", "Heart"]
    assert "SEG 1" not in write(replace(analysis, masks=(empty,)), [film])
    assert "SEG 1" not in write(replace(analysis, masks=()), [film])


def test_slices_with_a_place_of_their_own_share_one_segmentation(write) -> None:
    slices = [
        chest.film(
            64,
            48,
            uid_seed=f"slice {k}",
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            ImagePositionPatient=[0, 0, 2.5 * k],
            FrameOfReferenceUID="2.25.77",
            SliceThickness="2.5",
        )
        for k in range(3)
    ]

    results = write(chest.analysis(*slices), slices)

    assert [name for name in results if name.startswith("SEG")] == ["SEG 1"]
    assert results["SEG 1"].NumberOfFrames == 9
    assert results["SEG 1"].FrameOfReferenceUID == "2.25.77"


def test_a_mask_of_another_size_is_refused(write) -> None:
    film = chest.film()
    analysis = chest.analysis(film)
    small = replace(analysis.masks[0], pixels=np.ones((1, 10, 10), bool))

    with pytest.raises(MedgemError, match="mask Right lung is"):
        write(replace(analysis, masks=(small,)), [film])


def test_a_study_that_was_not_analysed_has_neither_segmentation_nor_heatmap(write) -> None:
    refusal = not_analysed(chest.CARD.name, chest.CARD.version, "lateral-view", "the image is a lateral view")

    assert list(write(refusal, [chest.film()])) == ["SR 1"]
