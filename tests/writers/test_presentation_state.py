from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from harness import chest, volume
from harness.chest import as_bytes, as_sent
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.uid import SegmentationStorage

from medgem_node import evidence as ev
from medgem_node.errors import ConfigError, MedgemError, ModelRejected
from medgem_node.finding import Analysis, Mask, Measurement, Point, not_analysed
from medgem_node.writers import presentation_state, segmentation


def written(analysis: Analysis, originals: list[Dataset], made: tuple[Dataset, ...] = ()) -> list[Dataset]:
    """The presentation states, read back from bytes."""
    sent = [as_sent(original) for original in originals]
    return [as_sent(state) for state in presentation_state.create(chest.SOURCE).write(analysis, sent, made, chest.uid)]


def drawn(state: Dataset, layer: str, image: str = "", frame: int = 1) -> list[np.ndarray]:
    """The polygons of a layer on one frame, as (points, 2)."""
    return [
        np.reshape(graphic.GraphicData, (-1, 2))
        for annotation in of_layer(state, layer, image, frame)
        for graphic in annotation.get("GraphicObjectSequence", ())
    ]


def texts(state: Dataset, layer: str, image: str = "", frame: int = 1) -> list[str]:
    return [
        text.UnformattedTextValue
        for annotation in of_layer(state, layer, image, frame)
        for text in annotation.get("TextObjectSequence", ())
    ]


def of_layer(state: Dataset, layer: str, image: str, frame: int) -> list[Dataset]:
    def is_on(annotation: Dataset) -> bool:
        of_image = [r for r in annotation.ReferencedImageSequence if r.ReferencedSOPInstanceUID == image]
        return not image or any(frame in np.atleast_1d(r.get("ReferencedFrameNumber", 1)) for r in of_image)

    return [a for a in state.GraphicAnnotationSequence if a.GraphicLayer == layer and is_on(a)]


def layers(state: Dataset) -> dict[str, str]:
    """The names of the layers by what they describe."""
    return {layer.GraphicLayerDescription: layer.GraphicLayer for layer in state.GraphicLayerSequence}


def test_an_outline_encloses_the_pixels_of_its_mask() -> None:
    film = chest.film()
    analysis = chest.analysis(film)

    (state,) = written(analysis, [film])

    for mask in analysis.masks:
        rings = drawn(state, layers(state)[mask.label])
        assert all((ring[0] == ring[-1]).all() for ring in rings)
        filled = Image.new("1", (480, 512))
        for ring in rings:
            ImageDraw.Draw(filled).polygon([(x - 0.5, y - 0.5) for x, y in ring.tolist()], fill=1)
        differs = np.asarray(filled) ^ mask.pixels[0]
        assert differs.sum() < 0.02 * mask.pixels.sum()


def test_a_box_and_a_line_are_drawn_where_they_were_found() -> None:
    film = chest.film()
    analysis = chest.analysis(film)
    box, line = analysis.findings[0].box, analysis.measurements[0].points

    (state,) = written(analysis, [film])

    (ring,) = drawn(state, "AI FINDINGS")
    assert np.allclose(ring.min(axis=0), (box.x0, box.y0), atol=1e-4)
    assert np.allclose(ring.max(axis=0), (box.x1, box.y1), atol=1e-4)
    assert texts(state, "AI FINDINGS") == ["Cardiomegaly 71%, Cardiothoracic ratio 0.55"]
    cardiac, _ = drawn(state, "AI MEASUREMENTS")
    assert np.allclose(cardiac, [(p.x, p.y) for p in line], atol=1e-4)
    assert re.fullmatch(r"Cardiac width \d+ mm", texts(state, "AI MEASUREMENTS")[0])


def test_what_is_absent_is_said_and_never_drawn() -> None:
    film = chest.film()
    absent = chest.analysis(film, probability=0.12)

    (state,) = written(absent, [film])

    assert drawn(state, "AI FINDINGS") == []
    assert texts(state, "AI FINDINGS") == []
    assert "No cardiomegaly by AI, probability of cardiomegaly 12%" in texts(state, "AI NOTICE")
    assert len(drawn(state, layers(state)["Heart"])) == 1  # the heart is there all the same


def test_a_lesion_that_is_absent_leaves_no_trace() -> None:
    film = chest.film()
    found = chest.analysis(film, probability=0.12)
    image = str(film.SOPInstanceUID)
    size = Measurement(volume.LONG_AXIS, 12, chest.MM, "Long axis", image, (Point(9, 9), Point(30, 9)))
    lesion = Mask("Nodule", volume.ABNORMAL, volume.NODULE_TYPE, (image,), found.masks[2].pixels)
    finding = replace(found.findings[0], label="Nodule", mask="Nodule", measurements=(size,))

    assert written(replace(found, findings=(finding,), measurements=(size,), masks=(lesion,)), [film]) == []
    (state,) = written(
        replace(found, findings=(replace(finding, present=True),), measurements=(size,), masks=(lesion,)), [film]
    )
    assert len(drawn(state, "AI MEASUREMENTS")) == len(drawn(state, "AI SEGMENT 1")) == 1


def test_nothing_is_written_where_there_is_nothing_to_draw() -> None:
    film = chest.film()
    bare = replace(chest.analysis(film, probability=0.12), masks=(), measurements=())
    colour = chest.film(PhotometricInterpretation="RGB", SamplesPerPixel=3)

    assert written(bare, [film]) == []
    assert written(chest.analysis(colour), [colour]) == []
    assert written(not_analysed(chest.CARD.name, chest.CARD.version, "lateral-view", "a lateral view"), [film]) == []


def test_whose_words_these_are_stands_on_every_image() -> None:
    slices = volume.study()
    analysis = volume.analysis(*slices)

    (state,) = written(analysis, slices)

    referenced = [r.ReferencedSOPInstanceUID for s in state.ReferencedSeriesSequence for r in s.ReferencedImageSequence]
    assert referenced
    for image in referenced:
        assert f"{ev.WARNING}\r\nAI chest-heart 1.2.3" in texts(state, "AI NOTICE", image)
    assert "research use only" in state.SeriesDescription
    assert state.ContentLabel == "AI_RESEARCH_ONLY"


def test_every_label_lies_inside_the_image() -> None:
    film = chest.film(64, 48)
    found = chest.analysis(film, fit=(0.7, 0.2))

    (state,) = written(found, [film])

    for annotation in state.GraphicAnnotationSequence:
        for text in annotation.TextObjectSequence:
            (x0, y0), (x1, y1) = text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner
            columns, rows = (48, 64) if text.BoundingBoxAnnotationUnits == "PIXEL" else (1, 1)
            assert 0 <= x0 < x1 <= columns
            assert 0 <= y0 < y1 <= rows


def test_one_object_shows_a_whole_series_and_only_its_slices_with_something_drawn() -> None:
    slices = volume.study()
    analysis = volume.analysis(*slices)
    drawn_on = {m.images[k] for m in analysis.masks for k in range(len(slices)) if m.pixels[k].any()}

    (state,) = written(analysis, slices)

    (series,) = state.ReferencedSeriesSequence
    assert {r.ReferencedSOPInstanceUID for r in series.ReferencedImageSequence} == drawn_on
    assert series.SeriesInstanceUID == slices[0].SeriesInstanceUID


def test_frames_of_an_enhanced_image_are_named() -> None:
    image = volume.enhanced()
    analysis = volume.analysis(image)
    of_nodule = [k + 1 for k in range(12) if analysis.masks[0].pixels[k].any()]
    key = analysis.findings[0]

    (state,) = written(analysis, [image])

    (reference,) = state.ReferencedSeriesSequence[0].ReferencedImageSequence
    assert set(of_nodule) <= set(reference.ReferencedFrameNumber)
    for frame in range(1, 13):
        assert bool(drawn(state, "AI SEGMENT 1", key.image, frame)) == (frame in of_nodule)
    (ring,) = drawn(state, "AI FINDINGS", key.image, key.frame)
    assert np.allclose(ring.min(axis=0), (key.box.x0, key.box.y0))
    assert state.SoftcopyVOILUTSequence[0].WindowWidth == 1600
    assert (state.RescaleIntercept, state.RescaleType) == (-1024, "HU")


def test_pixels_that_are_not_square_keep_their_shape() -> None:
    slices = volume.study(spacing_mm=(3.0, 0.9, 0.6))

    (state,) = written(volume.analysis(*slices), slices)

    (area,) = state.DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelAspectRatio) == [3, 2]
    assert list(area.DisplayedAreaBottomRightHandCorner) == [80, 96]
    assert "PresentationPixelSpacing" not in area


def test_images_that_are_shown_differently_get_objects_of_their_own() -> None:
    films = [chest.film(uid_seed="a"), chest.film(400, 320, uid_seed="b"), chest.film(uid_seed="c", WindowWidth="1000")]

    first, second = written(chest.analysis(*films), films)

    of_first = [r.ReferencedSOPInstanceUID for r in first.ReferencedSeriesSequence[0].ReferencedImageSequence]
    assert of_first == [films[0].SOPInstanceUID, films[2].SOPInstanceUID]
    windows = {w.ReferencedImageSequence[0].ReferencedSOPInstanceUID: w for w in first.SoftcopyVOILUTSequence}
    assert windows[films[2].SOPInstanceUID].WindowWidth == 1000
    assert (first.InstanceNumber, second.InstanceNumber) == (1, 2)
    assert first.SeriesInstanceUID == second.SeriesInstanceUID


def test_masks_lead_to_their_segments() -> None:
    film = chest.film()
    analysis = chest.analysis(film)
    made = tuple(segmentation.create(chest.SOURCE).write(analysis, [as_sent(film)], [], chest.uid))
    (of_segment,) = [m for m in made if m.SOPClassUID == SegmentationStorage]

    (state,) = written(analysis, [film], made)

    uids = {s.SegmentLabel: s.TrackingUID for s in of_segment.SegmentSequence}
    (annotation,) = of_layer(state, layers(state)["Heart"], "", 1)
    assert annotation.GraphicObjectSequence[0].TrackingUID == uids["Heart"]


def test_layers_are_coloured_and_ordered_with_findings_over_masks() -> None:
    film = chest.film()

    (state,) = written(chest.analysis(film), [film])

    in_order = sorted(state.GraphicLayerSequence, key=lambda layer: layer.GraphicLayerOrder)
    assert [layer.GraphicLayer for layer in in_order] == [
        *("AI SEGMENT 1", "AI SEGMENT 2", "AI SEGMENT 3", "AI MEASUREMENTS", "AI FINDINGS", "AI NOTICE")
    ]
    red = highdicom.color.CIELabColor.from_rgb(255, 90, 90).value
    assert tuple(in_order[2].GraphicLayerRecommendedDisplayCIELabValue) == tuple(red)


@pytest.mark.parametrize(
    "window", [{"WindowWidth": "0"}, {"WindowWidth": None}, {"WindowCenter": ""}, {"VOILUTFunction": "ODD"}]
)
def test_a_window_that_is_none_is_left_out(window: dict) -> None:
    film = chest.film(**window)

    (state,) = written(chest.analysis(film), [film])

    assert "SoftcopyVOILUTSequence" not in state


def test_a_mask_of_another_size_than_its_image_is_not_drawn() -> None:
    film = chest.film(64, 48)
    found = chest.analysis(film)
    wrong = replace(found.masks[0], pixels=np.ones((1, 32, 32), bool))

    with pytest.raises(MedgemError, match="mask Right lung"):
        written(replace(found, masks=(wrong,)), [film])


def test_another_models_analysis_and_an_unknown_variant_are_rejected() -> None:
    film = chest.film(64, 48)

    with pytest.raises(ModelRejected):
        written(replace(chest.analysis(film), version="9.9.9"), [film])
    with pytest.raises(ConfigError, match="colour"):
        presentation_state.create(chest.SOURCE, "colour")


def test_a_second_run_writes_the_same_bytes() -> None:
    slices = volume.study()
    analysis = volume.analysis(*slices)

    first, second = (as_bytes(written(analysis, slices)[0]) for _ in range(2))

    assert first == second
    (state,) = written(analysis, slices)
    assert (state.PresentationCreationDate, state.PresentationCreationTime) == ("20260302", "094507")


def _table(values: np.ndarray, first: int, bits: int, **more: str) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(values), first, bits])
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item


def _film(**attributes: object) -> Dataset:
    """Without a window or a rescale where it has a table."""
    film = chest.film(**attributes)
    gone = ["WindowCenter", "WindowWidth"] if "VOILUTSequence" in film else []
    gone += ["RescaleIntercept", "RescaleSlope", "RescaleType"] if "ModalityLUTSequence" in film else []
    for keyword in gone:
        delattr(film, keyword)
    return film


CURVE = np.round(4095 * (np.arange(4096) / 4095) ** 0.5)
IMAGES = {
    "a film": _film,
    "a film in negative": lambda: _film(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
    "a film with a sigmoid": lambda: _film(VOILUTFunction="SIGMOID"),
    "a film with a VOI LUT": lambda: _film(VOILUTSequence=[_table(CURVE, 0, 12)]),
    "a film with a modality LUT": lambda: _film(ModalityLUTSequence=[_table(CURVE[::-1], 0, 12, ModalityLUTType="US")]),
    "a real film": chest.real_film,
    "a slice": lambda: volume.study()[4],
}


def _shown(folder: Path, image: Dataset, state: Dataset | None = None, frame: int = 1) -> np.ndarray:
    """The grey that dcmtk makes of a frame, by a presentation state or by the image alone."""
    image.save_as(folder / "image.dcm", enforce_file_format=True)
    options = ["-f", str(frame)]
    if state is not None:
        state.save_as(folder / "state.dcm", enforce_file_format=True)
        options += ["-p", str(folder / "state.dcm")]
    command = ["dcmp2pgm", *options, str(folder / "image.dcm"), str(folder / "shown.pgm")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
    return np.asarray(Image.open(folder / "shown.pgm")).astype(int)


dcmtk = pytest.mark.skipif(
    shutil.which("dcmp2pgm") is None, reason="dcmtk is not installed: run scripts/install-viewer"
)


@dcmtk
@pytest.mark.parametrize("name", IMAGES)
def test_dcmtk_shows_the_image_through_it_as_without_it(tmp_path: Path, name: str) -> None:
    image = IMAGES[name]()
    box = chest.analysis(chest.film(64, 48)).findings[0]
    found = Analysis(
        chest.CARD.name,
        chest.CARD.version,
        images=(str(image.SOPInstanceUID),),
        findings=(replace(box, image=str(image.SOPInstanceUID), measurements=()),),
    )

    (state,) = written(found, [image])

    shown = _shown(tmp_path, image, state)
    assert abs(shown - _shown(tmp_path, image)).max() <= 1
    assert shown.std() > 20


@dcmtk
def test_dcmtk_shows_a_frame_through_it_as_the_slice_it_was(tmp_path: Path) -> None:
    whole = volume.enhanced()

    (state,) = written(volume.analysis(whole), [whole])

    assert abs(_shown(tmp_path, whole, state, 5) - _shown(tmp_path, volume.study()[4])).max() <= 1
