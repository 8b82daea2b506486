from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from harness import chest, validators, volume
from pydicom import Dataset
from pydicom.uid import ParametricMapStorage

from medgem_node.evidence import Earlier
from medgem_node.finding import Analysis, Heatmap, not_analysed
from medgem_node.geometry import plane
from medgem_node.writers import parametric_map

without_dcmqi = pytest.mark.skipif(
    bool(validators.missing("paramap2itkimage")), reason=validators.missing("paramap2itkimage") or "dcmqi"
)


def maps(analysis: Analysis, originals: Sequence[Dataset], earlier: Earlier | None = None) -> list[Dataset]:
    sent = [chest.as_sent(original) for original in originals]
    made = parametric_map.create(replace(chest.SOURCE, earlier=earlier)).write(analysis, sent, [], chest.uid)
    return [chest.as_sent(thing) for thing in made]


def values(thing: Dataset) -> np.ndarray:
    return np.frombuffer(thing.FloatPixelData, "<f4").reshape(-1, int(thing.Rows), int(thing.Columns))


def studies() -> dict[str, list[Dataset]]:
    return {
        "film": [chest.film(120, 90)],
        "CT": volume.study(8),
        "oblique CT": volume.study(8, oblique=True),
        "MR": volume.study(8, modality="MR"),
        "enhanced CT": [volume.enhanced(8)],
    }


def analysis_of(images: Sequence[Dataset]) -> Analysis:
    return chest.analysis(*images) if images[0].Modality == "DX" else volume.analysis(*images)


def test_the_map_says_what_its_numbers_mean_and_where_they_lie() -> None:
    film = chest.film(120, 90)

    (thing,) = maps(chest.analysis(film), [film])

    shared = thing.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "130402"
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeMeaning == "no units"
    assert mapping.LUTExplanation == "where the model saw cardiomegaly"
    identity = shared.PixelValueTransformationSequence[0]
    assert (identity.RescaleIntercept.original_string, identity.RescaleSlope.original_string) == ("0", "1")
    assert shared.FrameAnatomySequence[0].AnatomicRegionSequence[0].CodeValue == "816094009"
    assert shared.PixelMeasuresSequence[0].PixelSpacing == pytest.approx(film.PixelSpacing)
    assert (thing.ContentCreatorName, thing.ContentQualification) == ("medgem-node^", "RESEARCH")
    assert thing.ContributingEquipmentSequence[0].DeviceUID == chest.CARD.device_uid
    assert "research use only" in thing.SeriesDescription


def test_the_map_of_a_film_has_the_segmentations_frame_of_reference() -> None:
    films = [chest.film(120, 90, uid_seed=f"film {k}") for k in range(2)]

    first, second = maps(chest.analysis(*films), films)

    assert [t.FrameOfReferenceUID for t in (first, second)] == [
        chest.uid("frame-of-reference-1"),
        chest.uid("frame-of-reference-2"),
    ]
    assert [t.SOPInstanceUID for t in (first, second)] == [chest.uid("pm-1"), chest.uid("pm-2")]
    assert [t.SeriesInstanceUID for t in (first, second)] == [chest.uid("pm-series-1"), chest.uid("pm-series-2")]
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == films[1].SOPInstanceUID


def test_nothing_is_written_of_nothing() -> None:
    film = chest.film(120, 90)
    refused = not_analysed(chest.CARD.name, chest.CARD.version, "lateral-view", "the image is a lateral view")

    assert maps(replace(chest.analysis(film), heatmaps=()), [film]) == []
    assert maps(refused, [film]) == []


def test_the_map_of_a_film_is_left_out_where_viewers_show_it_wrong() -> None:
    film, slices = chest.film(64, 48), volume.study(4)
    writer = parametric_map.create(chest.SOURCE, "volumes")

    assert writer.write(chest.analysis(film), [film], [], chest.uid) == ()
    assert len(writer.write(volume.analysis(*slices), slices, [], chest.uid)) == 1


def test_values_are_spread_evenly_over_the_whole_image() -> None:
    film = chest.film(120, 90)
    slope = (np.arange(32, dtype=np.float32) + 0.5) / 32  # rises by one over the image's width
    glow = Heatmap("Slope", (str(film.SOPInstanceUID),), np.broadcast_to(slope, (1, 32, 32)))

    (thing,) = maps(replace(chest.analysis(film), heatmaps=(glow,)), [film])

    columns = (np.arange(90) + 0.5) / 90
    expected = np.clip(columns, slope[0], slope[-1])  # beyond the outermost centres there is nothing to rise to
    assert values(thing)[0] == pytest.approx(np.broadcast_to(expected, (120, 90)), abs=1e-6)


def test_values_on_the_images_own_grid_are_written_as_they_are() -> None:
    film = chest.film(120, 90)
    sent = np.random.default_rng(1).random((1, 120, 90), np.float32)
    glow = Heatmap("Own grid", (str(film.SOPInstanceUID),), sent)

    (thing,) = maps(replace(chest.analysis(film), heatmaps=(glow,)), [film])

    assert np.array_equal(values(thing), sent)


def test_what_is_no_number_between_0_and_1_is_none_in_the_map() -> None:
    film = chest.film(120, 90)
    sent = np.full((1, 120, 90), 0.5, np.float32)
    sent[0, 0, :4] = np.nan, np.inf, -3, 7

    (thing,) = maps(
        replace(chest.analysis(film), heatmaps=(Heatmap("Wild", (str(film.SOPInstanceUID),), sent),)), [film]
    )

    assert values(thing)[0, 0, :5].tolist() == [0, 1, 0, 1, 0.5]


def test_two_heatmaps_of_one_film_are_two_maps_of_one_series() -> None:
    film = chest.film(120, 90)
    analysis = chest.analysis(film)
    other = replace(analysis.heatmaps[0], label="Effusion", meaning="where the model saw an effusion")

    first, second = maps(replace(analysis, heatmaps=(*analysis.heatmaps, other)), [film])

    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert (first.SOPInstanceUID, second.SOPInstanceUID) == (chest.uid("pm-1"), chest.uid("pm-1-map2"))


@pytest.mark.parametrize("name", ["CT", "oblique CT", "MR", "enhanced CT"])
def test_a_volume_has_one_map_and_each_frame_names_the_slice_it_lies_on(name: str) -> None:
    images = studies()[name]
    analysis = analysis_of(images)
    of_uid = {str(image.SOPInstanceUID): image for image in images}

    (thing,) = maps(analysis, images)

    assert thing.NumberOfFrames == 8
    assert len(thing.SourceImageSequence) == len(images)
    written = values(thing)
    seen = set()
    for k, group in enumerate(thing.PerFrameFunctionalGroupsSequence):
        (reference,) = group.DerivationImageSequence[0].SourceImageSequence
        uid, frame = str(reference.ReferencedSOPInstanceUID), int(reference.get("ReferencedFrameNumber", 1))
        place = plane(of_uid[uid], frame)
        assert group.PlanePositionSequence[0].ImagePositionPatient == pytest.approx(place.position_mm, abs=1e-6)
        glow = analysis.heatmaps[0].plane(uid, frame)
        assert written[k].max() == pytest.approx(float(glow.max()), abs=0.2)
        assert ("ReferencedFrameNumber" in reference) == (name == "enhanced CT")
        seen.add((uid, frame))
    assert len(seen) == 8


def test_only_slices_that_the_heatmap_speaks_of_are_written() -> None:
    images = [volume.enhanced(8)]
    analysis = volume.analysis(*images)
    (glow,) = analysis.heatmaps
    part = replace(glow, images=glow.images[2:5], values=glow.values[2:5], frames=glow.frames[2:5])

    (thing,) = maps(replace(analysis, heatmaps=(part,)), images)

    references = [g.DerivationImageSequence[0].SourceImageSequence[0] for g in thing.PerFrameFunctionalGroupsSequence]
    assert [r.ReferencedFrameNumber for r in references] == [3, 4, 5]
    assert {r.ReferencedSOPInstanceUID for r in references} == {images[0].SOPInstanceUID}
    assert {r.ReferencedSOPClassUID for r in references} == {images[0].SOPClassUID}


def test_no_made_up_uid_is_left_in_a_map() -> None:
    images = [volume.enhanced(4)]

    (thing,) = maps(volume.analysis(*images), images)

    short = [str(e.value) for e in thing.iterall() if e.VR == "UI" and len(str(e.value)) < 12]
    assert short == []


def test_a_map_names_the_one_that_it_replaces() -> None:
    film = chest.film(120, 90)
    earlier = Earlier(lambda role: chest.uid(f"old {role}"), {chest.uid("old pm-1"): ParametricMapStorage})

    (thing,) = maps(chest.analysis(film), [film], earlier)

    (reference,) = thing.ReferencedInstanceSequence
    assert reference.ReferencedSOPInstanceUID == chest.uid("old pm-1")
    assert reference.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Temporal Predecessor"
    listed = {
        str(series.SeriesInstanceUID): [str(i.ReferencedSOPInstanceUID) for i in series.ReferencedInstanceSequence]
        for series in thing.ReferencedSeriesSequence
    }
    assert listed[chest.uid("old pm-series-1")] == [chest.uid("old pm-1")]
    assert listed[film.SeriesInstanceUID] == [film.SOPInstanceUID]


def test_a_second_run_writes_the_same_map() -> None:
    images = volume.study(4)

    first, second = (maps(volume.analysis(*images), images) for _ in range(2))

    assert [chest.as_bytes(thing) for thing in first] == [chest.as_bytes(thing) for thing in second]


@pytest.mark.parametrize("name", studies())
def test_highdicom_reads_the_numbers_and_their_place_back(tmp_path: Path, name: str) -> None:
    images = studies()[name]
    (thing,) = maps(analysis_of(images), images)
    thing.save_as(tmp_path / "pm.dcm")

    read = highdicom.imread(tmp_path / "pm.dcm")

    assert np.array_equal(read.get_frames(dtype=np.float32), values(thing))
    if len(read.get_frames()) > 1:
        geometry = read.get_volume_geometry()
        assert geometry is not None
        corner = geometry.map_indices_to_reference(np.array([[0, 0, 0]]))[0]
        ends = [plane(images[0], 1).position_mm, plane(images[-1], 8 if len(images) == 1 else 1).position_mm]
        assert min(np.linalg.norm(corner - end) for end in ends) < 1e-4


@without_dcmqi
@pytest.mark.parametrize("name", studies())
def test_dcmqi_reads_the_numbers_back_at_their_place(tmp_path: Path, name: str) -> None:
    images = studies()[name]
    (thing,) = maps(analysis_of(images), images)
    thing.save_as(tmp_path / "pm.dcm")

    read = validators.parametric_map(tmp_path / "pm.dcm")

    for group, written in zip(thing.PerFrameFunctionalGroupsSequence, values(thing), strict=True):
        frame = read.frame_at(group.PlanePositionSequence[0].ImagePositionPatient)
        assert frame is not None
        assert np.array_equal(read.values[frame].astype(np.float32), written)


@pytest.mark.parametrize("name", studies())
def test_dciodvfy_finds_no_error_in_a_map(tmp_path: Path, name: str) -> None:
    if reason := validators.missing("dciodvfy"):
        pytest.skip(reason)
    images = studies()[name]
    for k, thing in enumerate(maps(analysis_of(images), images)):
        thing.save_as(tmp_path / f"{k}.dcm")

        assert validators.dciodvfy(tmp_path / f"{k}.dcm") == []
