from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from harness import chest, volume
from PIL import Image, ImageDraw
from pydicom import Dataset
from pydicom.uid import RLELossless, SecondaryCaptureImageStorage

from medgem_node import picture, window
from medgem_node.errors import MedgemError, NotApplicable, Unreadable
from medgem_node.evidence import Earlier
from medgem_node.finding import Analysis, Box, Mask, not_analysed
from medgem_node.frame import coded, decoded
from medgem_node.pen import Pen
from medgem_node.writers import heatmap

MAGENTA = (255, 0, 255)


def pictures(analysis: Analysis, originals: Sequence[Dataset], earlier: Earlier | None = None) -> list[Dataset]:
    sent = [chest.as_sent(original) for original in originals]
    made = heatmap.create(replace(chest.SOURCE, earlier=earlier)).write(analysis, sent, [], chest.uid)
    return [chest.as_sent(capture) for capture in made]


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

    rgb = picture.overlay(window.grey(film), analysis, str(film.SOPInstanceUID), []).astype(int)

    spread = rgb.max(axis=-1) - rgb.min(axis=-1)
    assert spread[317, 259] > 60  # the middle of the glow
    assert spread[100:200, 30:120].max() == 0


def test_boxes_outlines_and_lines_are_drawn_where_they_are_said_to_be() -> None:
    film = chest.film()
    analysis = replace(chest.analysis(film), heatmaps=())
    box = analysis.findings[0].box

    rgb = picture.overlay(window.grey(film), analysis, str(film.SOPInstanceUID), []).astype(int)

    assert box is not None
    column = rgb[round(box.y0 + 30), round(box.x0) - 2 : round(box.x0) + 3]
    assert any(abs(pixel - [255, 214, 10]).max() < 40 for pixel in column)
    right = analysis.masks[0]
    edge = np.argmax(right.pixels[0][240])
    assert any(abs(pixel - np.array(right.colour_rgb)).max() < 60 for pixel in rgb[240, int(edge) - 2 : int(edge) + 3])


@pytest.mark.parametrize(("rows", "columns"), [(64, 48), (64, 64), (512, 512), (100, 900), (4000, 500), (3000, 2500)])
def test_the_warning_is_readable_at_any_size(rows: int, columns: int) -> None:
    blank = np.zeros((rows, columns), np.uint8)
    analysis = replace(chest.analysis(chest.film(rows, columns)), findings=(), masks=(), measurements=(), heatmaps=())

    rgb = picture.overlay(blank, analysis, "none", ["AI chest-heart 1.2.3 - RESEARCH USE ONLY - NOT FOR DIAGNOSIS"])

    white = np.argwhere(rgb.min(axis=-1) > 128)
    assert white.size
    assert white[:, 1].max() < rgb.shape[1] - 1  # nothing runs out of the picture
    assert white[:, 0].max() < rgb.shape[0] - 1
    letters = np.flatnonzero((rgb[: rgb.shape[0] // 3].min(axis=-1) > 128).any(axis=1))
    first_line = np.split(letters, np.flatnonzero(np.diff(letters) > 1) + 1)[0]
    assert len(first_line) >= max(9, min(rows, columns) / 100)  # the height of its letters


def test_the_picture_of_a_small_image_is_larger_and_says_so_in_its_spacing() -> None:
    film = chest.film(64, 48)

    (sc,) = pictures(chest.analysis(film), [film])

    assert (sc.Rows, sc.Columns) == (64 * 9, 48 * 9)
    assert sc.PixelSpacing == pytest.approx([400 / 64 / 9] * 2)


@pytest.mark.parametrize(("rows", "columns"), [(480, 400), (96, 80), (1024, 900), (1900, 1850)])
def test_an_outline_has_as_much_inside_as_outside_of_the_masks_edge(rows: int, columns: int) -> None:
    mask = np.zeros((rows, columns), bool)
    mask[rows // 4 : rows // 2, columns // 4 : columns // 2] = True
    mask[rows // 4 + 12 : rows // 4 + 18, columns // 4 + 12 : columns // 4 + 15] = False  # a hole, with its own edge

    drawn, times, half = _outline(mask)

    assert half >= 1
    assert np.array_equal(drawn, _within(mask.repeat(times, 0).repeat(times, 1), half))


def test_an_outline_at_the_images_border_stays_on_the_image() -> None:
    mask = np.zeros((450, 500), bool)
    mask[:40, :30] = mask[-20:, -25:] = True

    drawn, times, half = _outline(mask)

    assert times == 1
    assert np.array_equal(drawn, _within(mask, half))


def test_a_mask_of_another_size_than_its_image_is_not_drawn_anywhere() -> None:
    film = chest.film()
    analysis = chest.analysis(film)
    cropped = replace(analysis.masks[0], pixels=analysis.masks[0].pixels[:, 8:])

    with pytest.raises(MedgemError, match="its image"):
        pictures(replace(analysis, masks=(cropped,)), [film])


def test_a_flipped_image_has_a_flipped_picture() -> None:
    film = chest.film(480, 400, PatientOrientation=["R", "F"])
    mirrored = chest.film(480, 400, PatientOrientation=["L", "F"])
    mirrored.PixelData = film.pixel_array[:, ::-1].tobytes()
    mask = np.zeros((1, 480, 400), bool)
    mask[0, 200:260, 37:112] = True

    left, right = (
        _drawn_over(image, pixels)[100:350].astype(int) for image, pixels in ((film, mask), (mirrored, mask[..., ::-1]))
    )

    assert abs(left - right[:, ::-1]).max() <= 1


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": ["0.2", "0.2"], "PixelSpacingCalibrationType": "FIDUCIAL"}, (20, "20 mm")),
        ({"PixelSpacing": ["0.8", "0.2"], "PixelSpacingCalibrationType": "FIDUCIAL"}, (20, "20 mm")),  # along a row
        ({"PixelSpacing": None, "ImagerPixelSpacing": ["0.2", "0.2"]}, (20, "20 mm at the detector")),
        (
            {"PixelSpacing": ["0.2"] * 2, "ImagerPixelSpacing": ["0.2"] * 2, "PixelSpacingCalibrationType": None},
            (20, "20 mm at the detector"),
        ),
    ],
)
def test_the_scale_bar_is_as_long_as_it_says(attributes: dict, expected: tuple[float, str]) -> None:
    film = chest.film(480, 400)
    for keyword, value in attributes.items():
        if value is None:
            delattr(film, keyword)
        else:
            setattr(film, keyword, value)
    written: list[str] = []

    rgb = _with_words(np.zeros((480, 400), np.uint8), picture.scale(film), written)

    length_mm, text = expected
    assert text in written
    assert _longest_white_run(rgb) == round(length_mm / 0.2)


@pytest.mark.parametrize("missing", [None, ["0", "0"], ["0.2", "-1"]])
def test_a_picture_without_spacing_says_so(missing: list[str] | None) -> None:
    film = chest.film(480, 400)
    del film.ImagerPixelSpacing, film.PixelSpacing
    if missing:
        film.PixelSpacing = missing
    written: list[str] = []

    _with_words(np.zeros((480, 400), np.uint8), picture.scale(film), written)
    (sc,) = pictures(chest.analysis(film) if not missing else _only_finding(film), [film])

    assert picture.NO_SCALE in written
    assert "PixelSpacing" not in sc


def test_the_shape_of_pixels_is_carried_over() -> None:
    film = chest.film(480, 400, PixelSpacing=["0.8", "0.2"])
    unknown = chest.film(480, 400, PixelAspectRatio=[4, 1])
    del unknown.PixelSpacing, unknown.ImagerPixelSpacing

    (calibrated,), (bare,) = (pictures(_only_finding(image), [image]) for image in (film, unknown))

    assert calibrated.PixelSpacing == [0.8, 0.2]
    assert calibrated.PixelSpacingCalibrationType == "FIDUCIAL"
    assert "PixelAspectRatio" not in calibrated
    assert bare.PixelAspectRatio == [4, 1]


def test_every_frame_of_an_enhanced_ct_that_is_spoken_of_gets_its_own_picture() -> None:
    image = volume.enhanced(12)
    analysis = volume.analysis(image)
    spoken = [n + 1 for n, plane in enumerate(volume.pixels(image)) if (plane >= volume.NODULE_AT).any()]

    made = pictures(analysis, [image])

    assert [sc.SourceImageSequence[0].ReferencedFrameNumber for sc in made] == spoken
    assert [sc.InstanceNumber for sc in made] == spoken
    assert [sc.SOPInstanceUID for sc in made] == [chest.uid("sc-1" if n == 1 else f"sc-1-{n}") for n in spoken]
    assert len({(sc.SeriesInstanceUID, sc.SeriesDate, sc.SeriesTime) for sc in made}) == 1
    assert all(len(sc.SourceImageSequence) == 1 for sc in made)


def test_a_picture_of_a_frame_shows_that_frame() -> None:
    image = volume.enhanced(12)
    flat = chest.as_sent(image)
    values = image.pixel_array.copy()
    values[4] = 1024 - 300 + 400  # half way up the window of the shared functional groups
    flat.PixelData = values.tobytes()

    made = {int(sc.InstanceNumber): sc for sc in pictures(volume.analysis(image), [flat])}

    middle = {n: sc.pixel_array[:, 10:30].mean(axis=-1) for n, sc in made.items()}
    assert np.median(middle[5]) == pytest.approx(255 * 0.75, abs=2)
    assert np.median(middle[6]) < 40


def test_each_slice_of_a_ct_that_is_spoken_of_gets_its_picture() -> None:
    images = volume.study(12)
    spoken = [n for n, image in enumerate(images, 1) if (volume.pixels(image) >= volume.NODULE_AT).any()]

    made = pictures(volume.analysis(*images), images)

    assert [sc.InstanceNumber for sc in made] == spoken
    assert [sc.SOPInstanceUID for sc in made] == [chest.uid(f"sc-{n}") for n in spoken]
    assert [sc.SourceImageSequence[0].ReferencedSOPInstanceUID for sc in made] == [
        images[n - 1].SOPInstanceUID for n in spoken
    ]
    assert all("ReferencedFrameNumber" not in sc.SourceImageSequence[0] for sc in made)


@pytest.mark.parametrize(("oblique", "expected"), [(False, ["L", "P"]), (True, ["LP", "PHR"])])
def test_the_picture_of_a_slice_says_how_the_patient_lay(oblique: bool, expected: list[str]) -> None:
    images = volume.study(6, oblique=oblique)

    assert all(sc.PatientOrientation == expected for sc in pictures(volume.analysis(*images), images))


def test_a_picture_names_the_one_that_it_replaces() -> None:
    images = volume.study(12)
    before = {chest.uid("old sc-5"): SecondaryCaptureImageStorage}
    earlier = Earlier(lambda role: chest.uid(f"old {role}"), before)

    made = {int(sc.InstanceNumber): sc for sc in pictures(volume.analysis(*images), images, earlier)}

    (reference,) = made[5].ReferencedInstanceSequence
    assert reference.ReferencedSOPInstanceUID == chest.uid("old sc-5")
    assert reference.ReferencedSOPClassUID == SecondaryCaptureImageStorage
    assert reference.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Temporal Predecessor"
    assert all("ReferencedInstanceSequence" not in sc for n, sc in made.items() if n != 5)


def test_a_compressed_frame_is_found_among_its_others() -> None:
    image = volume.enhanced(6)
    plain = [window.grey(image, n) for n in range(1, 7)]
    image.compress(RLELossless, generate_instance_uid=False)

    packed = [window.grey(chest.as_sent(image), n) for n in range(1, 7)]

    assert all(np.array_equal(a, b) for a, b in zip(plain, packed, strict=True))
    assert not np.array_equal(plain[0], plain[3])


def test_a_frame_that_is_not_there_is_unreadable() -> None:
    image = volume.enhanced(3)

    with pytest.raises(Unreadable, match="frame 4 of 3"):
        window.grey(image, 4)
    image.PixelData = image.PixelData[: 96 * 80 * 2 * 2 + 10]
    with pytest.raises(Unreadable, match="bytes of pixel data"):
        window.grey(image, 3)


def test_the_detector_still_takes_no_image_of_several_frames() -> None:
    with pytest.raises(NotApplicable) as refused, coded("pixel-data", "the pixels cannot be decoded"):
        decoded(volume.enhanced(3))

    assert refused.value.reason == "multi-frame"


def test_white_is_bone_in_both_photometric_interpretations() -> None:
    film = chest.film()
    inverted = chest.film(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    inverted.PixelData = (4095 - film.pixel_array).astype("<u2").tobytes()
    inverted.WindowCenter = str(4095 - 1800)

    difference = window.grey(film).astype(int) - window.grey(inverted)

    assert abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("function", "expected"),
    [  # PS3.3 C.11.2.1.2 by hand, for stored 500, 1000, 1500 at centre 1000, width 2000
        ("LINEAR", ((500 - 999.5) / 1999 + 0.5, (1000 - 999.5) / 1999 + 0.5, (1500 - 999.5) / 1999 + 0.5)),
        ("LINEAR_EXACT", (0.25, 0.5, 0.75)),
        ("SIGMOID", (1 / (1 + np.e), 0.5, 1 / (1 + 1 / np.e))),
    ],
)
def test_a_window_is_applied_by_its_function(function: str, expected: tuple[float, ...]) -> None:
    film = _ramp(WindowCenter="1000", WindowWidth="2000", VOILUTFunction=function)

    grey = window.grey(film)

    assert grey.reshape(-1)[[500, 1000, 1500]] == pytest.approx([255 * e for e in expected], abs=0.51)


def test_a_voi_lut_comes_before_a_window() -> None:
    film = _ramp(WindowCenter="1000", WindowWidth="2000")
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [2001, 1000, 16], [round(65535 * (k / 2000) ** 2) for k in range(2001)]
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    film.VOILUTSequence = [lut]

    grey = window.grey(film)

    assert grey.reshape(-1)[[0, 1000, 2000, 3000, 4000]] == pytest.approx([0, 0, 255 / 4, 255, 255], abs=0.51)


def test_a_voi_lut_that_is_none_leaves_the_window() -> None:
    film, broken = (_ramp(WindowCenter="1000", WindowWidth="2000") for _ in range(2))
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4, 0, 7], [1, 2, 3, 4]
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    broken.VOILUTSequence = [lut]

    assert np.array_equal(window.grey(film), window.grey(broken))


def test_the_windows_of_frames_are_their_own() -> None:
    image = volume.enhanced(3)
    for k, (centre, width) in enumerate((("40", "400"), ("-600", "1600"))):
        item = Dataset()
        item.WindowCenter, item.WindowWidth = centre, width
        image.PerFrameFunctionalGroupsSequence[k].FrameVOILUTSequence = [item]

    body, lung, shared = (window.grey(image, n)[48, 40] for n in (1, 2, 3))  # 40 HU, more or less ten

    assert (body, lung) == (pytest.approx(128, abs=8), pytest.approx(230, abs=4))
    assert shared == pytest.approx(255 * (40 + 300 + 800) / 1600, abs=3)


def test_a_narrow_window_of_a_ct_is_believed() -> None:
    (head,) = volume.study(1, WindowCenter="40", WindowWidth="80")

    grey = window.grey(head)

    assert grey[2, 2] == 0  # air
    assert grey[48, 40] == pytest.approx(128, abs=36)  # 40 HU, more or less ten


@pytest.mark.parametrize(
    "asked",
    [{}, {"WindowCenter": "60000", "WindowWidth": "1"}, {"WindowCenter": ["1800", "9"], "WindowWidth": ["3600", "9"]}],
)
def test_a_window_that_shows_nothing_is_not_believed(asked: dict) -> None:
    film = chest.film()
    del film.WindowCenter, film.WindowWidth
    for keyword, value in asked.items():
        setattr(film, keyword, value)

    grey = window.grey(film)

    assert np.percentile(grey, 95) - np.percentile(grey, 5) > 80


def test_padding_is_black_and_does_not_move_the_window() -> None:
    film = chest.film(PixelPaddingValue=4095)
    del film.WindowCenter, film.WindowWidth
    pixels = film.pixel_array.copy()
    pixels[:, :60] = 4095
    film.PixelData = pixels.tobytes()

    grey = window.grey(film)

    assert grey[:, :60].max() == 0
    assert grey[:, 60:].max() == 255


def test_pixels_of_32_bits_are_shown_as_those_of_16() -> None:
    film, wide = chest.film(64, 48), chest.film(64, 48)
    wide.PixelData = film.pixel_array.astype("<u4").tobytes()
    wide.BitsAllocated = wide.BitsStored = 32
    wide.HighBit = 31

    assert np.array_equal(window.grey(film), window.grey(wide))


def test_pixels_that_cannot_be_decoded_are_named_unreadable() -> None:
    film = chest.film(PixelData=b"short")

    with pytest.raises(Unreadable, match="5 bytes of pixel data"):
        window.grey(film)


def test_what_is_absent_is_not_worded_as_found() -> None:
    absent = chest.analysis(chest.film(), probability=0.12).findings[0]

    assert picture.said(absent) == "No cardiomegaly by AI, probability of cardiomegaly 12%"
    assert picture.said(replace(absent, present=True, probability=0.71)) == "Cardiomegaly 71%"
    assert picture.said(replace(absent, present=True, probability=0.004)) == "Cardiomegaly below 1%"


def _ramp(**attributes: object) -> Dataset:
    """Every value of 12 bits once, in order."""
    film = chest.film(64, 64, **attributes)
    film.PixelData = np.arange(4096, dtype="<u2").tobytes()
    return film


def _always(analysis: Analysis, film: Dataset, monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, str]:
    """The one picture of the variant `always`, and all the words that were drawn on it."""
    words: list[str] = []
    original = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, at: object, said: str, *rest: object, **more: object) -> None:
        words.append(said)
        original(self, at, said, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    (capture,) = heatmap.create(chest.SOURCE, "always").write(analysis, [film], [], chest.uid)
    return chest.as_sent(capture), " ".join(words)


def _refused(reason: str, detail: str) -> Analysis:
    return not_analysed(chest.CARD.name, chest.CARD.version, reason, detail)


def test_a_picture_says_why_nothing_was_analysed_where_nothing_else_can(monkeypatch: pytest.MonkeyPatch) -> None:
    film = chest.film(700, 600)

    capture, words = _always(_refused("lateral-view", "the image is a lateral view"), film, monkeypatch)

    assert "NOT ANALYSED because: the image is a lateral view" in words
    assert "RESEARCH USE ONLY - NOT FOR DIAGNOSIS" in words
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == film.SOPInstanceUID
    assert (capture.PatientID, capture.Rows) == (film.PatientID, 700)


def test_an_image_that_cannot_be_shown_has_its_answer_on_black(monkeypatch: pytest.MonkeyPatch) -> None:
    film = chest.film(3000, 2500)
    film.PixelData = film.PixelData[:100]

    capture, words = _always(_refused("pixel-data-truncated", ""), film, monkeypatch)

    assert "NOT ANALYSED because: The pixel data is shorter than announced" in words
    assert "SourceImageSequence" not in capture
    assert (capture.Rows, capture.Columns, capture.pixel_array[256, 256].max()) == (512, 512, 0)


def test_a_picture_says_that_nothing_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    film = chest.film(700, 600)
    nothing = replace(_only_finding(film), findings=())

    _, words = _always(nothing, film, monkeypatch)

    assert "Analysed; nothing is marked on the images" in words


def test_the_usual_heatmap_leaves_a_refusal_to_the_report() -> None:
    film = chest.film(64, 48)

    assert heatmap.create(chest.SOURCE).write(_refused("lateral-view", ""), [film], [], chest.uid) == ()


def _only_finding(film: Dataset) -> Analysis:
    found = chest.analysis(chest.film(int(film.Rows), int(film.Columns)))
    image = str(film.SOPInstanceUID)
    finding = replace(found.findings[0], image=image, measurements=(), box=Box(100, 100, 200, 200), mask="")
    return replace(found, images=(image,), findings=(finding,), measurements=(), masks=(), heatmaps=())


def _drawn_over(film: Dataset, pixels: np.ndarray) -> np.ndarray:
    image = str(film.SOPInstanceUID)
    mask = Mask("Mask", chest.ORGAN, chest.HEART, (image,), pixels, None, MAGENTA)
    analysis = replace(_only_finding(film), findings=(), masks=(mask,))
    return picture.overlay(window.grey(film), analysis, image, [])


def _outline(mask: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Which pixels of the picture the pen drew, how much larger it is, and half the width of its strokes."""
    times = picture.magnification(*mask.shape)
    canvas = Image.new("RGB", (mask.shape[1] * times, mask.shape[0] * times))
    pen = Pen(canvas, times)
    pen.edge(mask, MAGENTA)
    return np.asarray(canvas)[..., 0] > 0, times, pen.half


def _within(mask: np.ndarray, half: int) -> np.ndarray:
    """Pixels with a pixel of the other kind no more than `half` away, found slowly."""
    wide = np.pad(mask, half)
    near = np.zeros(mask.shape, bool)
    rows, columns = mask.shape
    around = range(-half, half + 1)
    views = {
        (dy, dx): wide[half + dy : half + dy + rows, half + dx : half + dx + columns] for dy in around for dx in around
    }
    for view in views.values():
        near |= view != mask
    return near


def _with_words(image: np.ndarray, scale: picture.Scale | None, written: list[str]) -> np.ndarray:
    """An overlay of nothing but a title and the scale; `written` gets every text that was drawn."""
    original, nothing = ImageDraw.ImageDraw.text, replace(chest.analysis(chest.film(64, 48)), findings=(), masks=())

    def text(self: ImageDraw.ImageDraw, at: object, words: str, *rest: object, **more: object) -> None:
        written.append(words)
        if words.endswith(picture.NO_SCALE):
            original(self, at, words, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", text)
        return picture.overlay(image, replace(nothing, measurements=(), heatmaps=()), "none", ["title"], 1, scale)


def _longest_white_run(rgb: np.ndarray) -> int:
    white = np.pad(rgb.min(axis=-1) > 250, ((0, 0), (1, 1))).astype(int)
    steps = np.diff(white, axis=1)
    starts, ends = np.nonzero(steps == 1), np.nonzero(steps == -1)
    return int((ends[1] - starts[1]).max())
