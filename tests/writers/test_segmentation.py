from __future__ import annotations

from dataclasses import replace

import highdicom
import numpy as np
import pytest
from harness import chest, volume
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from medgem_node.errors import ConfigError, MedgemError
from medgem_node.evidence import Earlier
from medgem_node.finding import Analysis, not_analysed, packed
from medgem_node.writers import segmentation

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation Storage


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


def written(analysis: Analysis, images: list[Dataset], variant: str = "binary", **source: object) -> list[Dataset]:
    found = segmentation.create(replace(chest.SOURCE, **source), variant).write(analysis, images, (), chest.uid)
    return [chest.as_sent(one) for one in found]


def apart(analysis: Analysis) -> Analysis:
    """Without the pixels that two masks share."""
    first, second = analysis.masks
    return replace(analysis, masks=(first, replace(second, pixels=second.pixels & ~first.pixels)))


def read(seg: Dataset, image: str) -> np.ndarray:
    """(rows, columns, segments) over one source image, as highdicom reads it."""
    found = highdicom.seg.Segmentation.from_dataset(seg).get_pixels_by_source_instance(
        [image], assert_missing_frames_are_empty=True, ignore_spatial_locations=True
    )
    return found[0] > 0


@pytest.mark.parametrize("variant", segmentation.VARIANTS)
def test_each_variant_gives_back_the_masks_of_every_slice(variant: str) -> None:
    images = volume.study(oblique=True)
    analysis = apart(volume.analysis(*images))

    (seg,) = written(analysis, images, variant)

    kind = {"binary": "BINARY", "fractional": "FRACTIONAL", "labelmap": "LABELMAP"}[variant]
    assert seg.SegmentationType == kind
    assert seg.SOPClassUID == (LABEL_MAP if variant == "labelmap" else SegmentationStorage)
    assert seg.SegmentsOverlap == "NO"
    for k, image in enumerate(images):
        if any(mask.pixels[k].any() for mask in analysis.masks):
            found = read(seg, image.SOPInstanceUID)
            for n, mask in enumerate(analysis.masks):
                assert np.array_equal(found[..., n], mask.pixels[k])


def test_variants_are_objects_of_their_own_that_speak_of_the_same_things() -> None:
    images = volume.study()
    analysis = apart(volume.analysis(*images))

    objects = [written(analysis, images, variant)[0] for variant in segmentation.VARIANTS]

    assert objects[0].SOPInstanceUID == chest.uid("seg-1")
    assert objects[2].SOPInstanceUID == chest.uid("seg-labelmap-1")
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({o[keyword].value for o in objects}) == 3
    for label in ("Nodule", "Coronary calcification"):
        expected = chest.uid(segmentation.tracking_role(label, 1))
        assert [segmentation.tracking_uid(o, label) for o in objects] == [expected] * 3
        number = segmentation.segment_number(objects[0], label)
        assert [segmentation.segment_number(o, label) for o in objects] == [number] * 3


def test_segments_that_overlap_are_no_label_map() -> None:
    images = volume.study(modality="MR")
    analysis = volume.analysis(*images)  # the enhancing tumour lies within the whole

    (seg,) = written(analysis, images, "labelmap")

    assert (seg.SegmentationType, seg.SegmentsOverlap) == ("BINARY", "YES")


def test_an_unknown_variant_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match='no variant "surface"; known are binary, fractional, labelmap'):
        segmentation.create(chest.SOURCE, "surface")


@pytest.mark.parametrize("columns", [80, 79])
def test_packed_masks_are_written_as_the_arrays_they_were_packed_from(columns: int) -> None:
    images = volume.study(columns=columns, rows=95)
    analysis = volume.analysis(*images)
    small = replace(analysis, masks=tuple(replace(m, pixels=packed(m.pixels)) for m in analysis.masks))

    assert chest.as_bytes(written(small, images)[0]) == chest.as_bytes(written(analysis, images)[0])


@pytest.mark.parametrize("order", [1, -1])
def test_dimension_indices_count_the_slices_in_space_whatever_their_order(order: int) -> None:
    images = volume.study(slices=6, rows=32, columns=24)[::order]
    pixels = np.zeros((6, 32, 24), bool)
    pixels[[0, 2, 5], 4, 4] = True
    analysis = volume.analysis(*images)
    first, second = (
        replace(m, pixels=pixels & (np.arange(6) < n)[:, None, None])
        for m, n in zip(analysis.masks, (6, 3), strict=True)
    )

    (seg,) = written(replace(analysis, masks=(first, second)), images)

    indices = [tuple(i.FrameContentSequence[0].DimensionIndexValues) for i in seg.PerFrameFunctionalGroupsSequence]
    assert indices == (
        [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)] if order == 1 else [(1, 1), (1, 2), (1, 3), (2, 2), (2, 3)]
    )
    heights = [float(i.PlanePositionSequence[0].ImagePositionPatient[2]) for i in seg.PerFrameFunctionalGroupsSequence]
    assert heights[:3] == sorted(heights[:3])
    assert float(seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices) == 3.0
    assert seg.NumberOfFrames == 5


def test_the_segments_of_an_enhanced_image_name_its_frames() -> None:
    image = volume.enhanced()
    analysis = volume.analysis(image)

    (seg,) = written(analysis, [image])

    nodule = analysis.masks[0]
    named = {
        int(i.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
        for i in seg.PerFrameFunctionalGroupsSequence
        if i.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
    }
    assert named == {n for n, pixels in enumerate(nodule.pixels, 1) if pixels.any()}
    found = highdicom.seg.Segmentation.from_dataset(seg).get_pixels_by_source_frame(
        image.SOPInstanceUID, range(1, 13), assert_missing_frames_are_empty=True
    )
    assert np.array_equal(found[..., 0] > 0, nodule.pixels)


def test_a_revision_names_the_segmentation_that_it_replaces() -> None:
    images = volume.study()
    earlier = Earlier(lambda role: chest.uid(f"before {role}"), {chest.uid("before seg-1"): SegmentationStorage})

    (seg,) = written(volume.analysis(*images), images, earlier=earlier)

    (replaced,) = seg.ReferencedImageSequence
    assert replaced.ReferencedSOPClassUID == SegmentationStorage
    assert replaced.ReferencedSOPInstanceUID == chest.uid("before seg-1")
    assert [s.SeriesInstanceUID for s in seg.ReferencedSeriesSequence] == [
        images[0].SeriesInstanceUID,
        chest.uid("before seg-series-1"),
    ]
    assert "ReferencedImageSequence" not in written(volume.analysis(*images), images, "fractional", earlier=earlier)[0]


def test_the_same_analysis_gives_the_same_bytes() -> None:
    images = volume.study()

    first, second = (written(volume.analysis(*images), images)[0] for _ in range(2))

    assert chest.as_bytes(first) == chest.as_bytes(second)
