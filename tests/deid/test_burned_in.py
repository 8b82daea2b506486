"""What may show text of a patient: let pass, held, or blanked."""

import struct

import numpy as np
import pytest

from medgem_node.deid import burned_in, layout, reader
from medgem_node.deid.burned_in import Examined, examined
from medgem_node.deid.options import BASIC, Option, Profile
from medgem_node.deid.pixels import Pixels
from medgem_node.deid.reader import Box, Grey, Text
from medgem_node.errors import CannotDeidentify

CLEAN, TRUST = Profile(frozenset({Option.CLEAN_PIXEL_DATA})), Profile(pixels="trust")
SYNTAX = layout.Syntax.of("1.2.840.10008.1.2.1")
ROOT = "1.2.840.10008.5.1.4.1.1."
CR, CT, US, US_MULTI, SC, PHOTO, XA = (ROOT + end for end in ("1", "2", "6.1", "3.1", "7", "77.1.4", "12.1"))
NAME = Text(Box(10, 20, 20, 60), "DOE^JANE", 0.99)
ROWS, COLUMNS = 120, 160
INSTALLED = "installed"


class Eyes:
    """Sees a text wherever a pixel of its box is not black; another reader than the installed one."""

    def __init__(self, *texts: Text) -> None:
        self.texts = texts
        self.pictures: list[Grey] = []

    def read(self, grey: Grey) -> list[Text]:
        self.pictures.append(grey.copy())
        return [t for t in self.texts if np.ptp(grey[t.box.top : t.box.bottom, t.box.left : t.box.right])]


def looked_at(
    sop_class_uid: str,
    profile: Profile,
    *texts: Text,
    eyes: Eyes | str = "",
    frames: int = 1,
    array: np.ndarray | None = None,
    **more: str | bytes,
) -> Examined:
    if array is None:
        array = np.random.default_rng(1).integers(1, 255, (frames, ROWS, COLUMNS), np.uint8)
    values = {
        0x00080016: sop_class_uid.encode(),
        0x00080008: b"ORIGINAL\\PRIMARY",
        0x00280002: b"\1\0",
        0x00280004: b"MONOCHROME2 ",
        0x00280008: str(len(array)).encode(),
        0x00280010: struct.pack("<H", array.shape[1]),
        0x00280011: struct.pack("<H", array.shape[2]),
        0x00280100: struct.pack("<H", array.itemsize * 8),
        0x00280101: struct.pack("<H", array.itemsize * 8),
    }
    tags = {"image_type": 0x00080008, "burned_in": 0x00280301, "conversion": 0x00080064, "regions": 0x00186011}
    values |= {tags[name]: v if isinstance(v, bytes) else v.encode() for name, v in more.items() if name in tags}
    values[0x00080060] = str(more.get("modality", "")).encode()
    pixels = Pixels(0x7FE00010, "OB", (memoryview(array.tobytes()),))
    return examined(
        pixels, values, SYNTAX, profile, Eyes(*texts) if eyes == "" else None if eyes == INSTALLED else eyes
    )


def array_of(result: Examined, frames: int = 1) -> np.ndarray:
    whole = result.pixels.between(0, result.pixels.size_bytes)
    return np.frombuffer(whole, np.uint8).reshape(frames, ROWS, COLUMNS)


@pytest.mark.parametrize("profile", [BASIC, CLEAN, TRUST])
def test_an_original_section_passes_and_nobody_says_that_it_was_examined(profile: Profile) -> None:
    square = np.ones((1, 64, 64), np.uint16)

    assert looked_at(CT, profile, NAME, array=square, modality="CT").said == "not examined"


@pytest.mark.parametrize(
    ("sop_class_uid", "more"),
    [
        (US, {}),
        (US_MULTI, {}),
        (SC, {"burned_in": "NO"}),
        (PHOTO, {}),
        (XA, {"burned_in": "YES"}),
        (CT, {"image_type": "DERIVED\\SECONDARY\\SCREEN SAVE", "modality": "CT"}),
        (CT, {"image_type": "DERIVED\\SECONDARY\\LOCALIZER", "modality": "CT"}),
        (CT, {"image_type": "ORIGINAL\\PRIMARY\\DOSE_INFO", "modality": "CT"}),
        (CT, {"conversion": "WSD", "modality": "CT"}),
        ("1.2.3", {}),
    ],
)
@pytest.mark.parametrize("profile", [BASIC, TRUST])
def test_what_shows_text_as_a_rule_is_held_when_text_is_found_and_when_nobody_looks(
    sop_class_uid: str, more: dict[str, str], profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CannotDeidentify, match='option "Clean Pixel Data"'):
        looked_at(sop_class_uid, profile, NAME, **more)

    monkeypatch.setattr(reader, "installed", lambda: None)
    with pytest.raises(CannotDeidentify, match=r"medgem-node\[pixels\]"):
        looked_at(sop_class_uid, profile, eyes=INSTALLED, **more)


def test_a_film_is_read_unless_it_is_trusted_or_nobody_can(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotDeidentify, match="show text"):
        looked_at(CR, BASIC, NAME)
    assert looked_at(CR, BASIC).said == "clean"
    assert looked_at(CR, TRUST, NAME).said == "not examined"

    monkeypatch.setattr(burned_in.reader, "installed", lambda: None)
    values = {0x00080016: CR.encode(), 0x00280010: b"\2\0", 0x00280011: b"\2\0", 0x00280100: b"\x08\0"}
    pixels = Pixels(0x7FE00010, "OB", (bytes(4),))
    assert examined(pixels, values, SYNTAX, BASIC).said == "not examined"
    with pytest.raises(CannotDeidentify, match="pip install"):
        examined(pixels, values, SYNTAX, CLEAN)


def test_a_side_marker_stays_and_initials_do_not() -> None:
    marker = Text(Box(4, 4, 14, 12), "L", 0.97)
    initials = Text(Box(4, 4, 14, 16), "JD", 0.97)
    unsure = Text(Box(4, 4, 14, 12), "L", 0.5)

    assert looked_at(CR, CLEAN, marker).said == "clean"
    assert looked_at(CR, CLEAN, initials).said == "masked"
    assert looked_at(CR, CLEAN, unsure).said == "masked"
    assert looked_at(SC, CLEAN, marker).said == "masked"


def test_a_box_is_blanked_with_room_around_it_and_nothing_else_changes() -> None:
    array = np.random.default_rng(1).integers(1, 255, (1, ROWS, COLUMNS), np.uint8)

    result = looked_at(SC, CLEAN, NAME, array=array)

    blank = array_of(result) != array
    blank[array == array.min()] = True  # the background itself
    assert result.said == "masked"
    assert blank[0, 8:22, 18:62].all()
    untouched = np.ones((ROWS, COLUMNS), bool)
    untouched[8:22, 18:62] = False
    assert (array_of(result)[0][untouched] == array[0][untouched]).all()


def test_a_line_that_is_seen_once_its_neighbour_is_gone_goes_too() -> None:
    class Shy(Eyes):
        def read(self, grey: Grey) -> list[Text]:
            seen = super().read(grey)
            return seen[:1]

    second = Text(Box(40, 20, 50, 60), "14.03.1951", 0.9)

    result = looked_at(SC, CLEAN, eyes=Shy(NAME, second))

    assert len(result.boxes) == 2


def test_text_that_does_not_go_away_is_held() -> None:
    class Obsessed(Eyes):
        def read(self, grey: Grey) -> list[Text]:
            return [NAME]

    with pytest.raises(CannotDeidentify, match="found again"):
        looked_at(SC, CLEAN, eyes=Obsessed())


def test_text_that_stands_still_in_moving_frames_is_found_and_blanked_in_each() -> None:
    eyes = Eyes()
    array = np.random.default_rng(2).integers(0, 200, (20, ROWS, COLUMNS), np.uint8)
    array[:, 10:20, 20:60] = 0
    array[:, 12:18:2, 22:58] = 255

    result = looked_at(US_MULTI, CLEAN, eyes=Eyes(NAME), array=array)
    looked_at(US_MULTI, CLEAN, eyes=eyes, array=array)

    darkest, brightest, *single = eyes.pictures
    assert len(single) == 3
    assert darkest[30:].mean() < single[0][30:].mean() < brightest[30:].mean()
    assert (darkest[12:18:2, 22:58] == 255).all()
    assert (array_of(result, 20)[:, 12:18, 22:58] == 0).all()


def test_each_page_of_a_secondary_capture_is_read_and_too_many_are_held() -> None:
    eyes = Eyes()

    looked_at(SC, BASIC, eyes=eyes, frames=12)

    assert len(eyes.pictures) == 12
    with pytest.raises(CannotDeidentify, match="more pages"):
        looked_at(SC, BASIC, frames=65)


def region(*sides: int) -> bytes:
    elements = b"".join(
        layout.element(tag, "UL", struct.pack("<L", side), SYNTAX)
        for tag, side in zip((0x00186018, 0x0018601A, 0x0018601C, 0x0018601E), sides, strict=True)
    )
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(elements)) + elements


def test_of_ultrasound_only_the_regions_stay_and_what_is_written_in_them_goes() -> None:
    inside = Text(Box(60, 60, 70, 100), "DOE", 0.9)
    array = np.random.default_rng(3).integers(1, 255, (3, ROWS, COLUMNS), np.uint8)

    result = looked_at(US_MULTI, CLEAN, NAME, inside, array=array, regions=region(50, 50, 149, 109))

    copy = array_of(result, 3)
    assert (copy[:, 50:58, 50:150] == array[:, 50:58, 50:150]).all()
    assert (copy[:, 60:70, 60:100] == array.min(axis=(1, 2))[:, None, None]).all()
    assert (copy[:, :50] == array.min(axis=(1, 2))[:, None, None]).all()
    assert (copy[:, :, 150:] == array.min(axis=(1, 2))[:, None, None]).all()


def test_regions_of_ultrasound_do_not_excuse_a_look_without_the_option() -> None:
    with pytest.raises(CannotDeidentify, match="Clean Pixel Data"):
        looked_at(US, BASIC, NAME, regions=region(50, 50, 149, 109))


@pytest.mark.parametrize("value", [region(50, 50, 149, 109)[:-3], b"\0" * 20, region(9, 9, 9, 9)])
def test_regions_that_cannot_be_read_let_nothing_through(value: bytes) -> None:
    try:
        result = looked_at(US, CLEAN, NAME, regions=value)
    except CannotDeidentify:
        return

    assert result.said == "masked"
    assert result.boxes


@pytest.mark.parametrize("profile", [BASIC, CLEAN])
def test_an_image_that_says_it_shows_text_is_never_called_clean(profile: Profile) -> None:
    with pytest.raises(CannotDeidentify, match="Burned In Annotation"):
        looked_at(CR, profile, burned_in="YES")


@pytest.mark.parametrize("profile", [BASIC, CLEAN])
def test_something_as_large_as_no_line_of_text_is_held(profile: Profile) -> None:
    whole = Text(Box(0, 0, ROWS, COLUMNS), "o", 0.3)

    with pytest.raises(CannotDeidentify, match="as large as no line"):
        looked_at(XA, profile, whole)


@pytest.mark.parametrize("profile", [BASIC, CLEAN])
def test_pixels_that_cannot_be_decoded_are_held_and_a_reader_that_fails_is_no_permission(profile: Profile) -> None:
    class Blind(Eyes):
        def read(self, grey: Grey) -> list[Text]:
            raise RuntimeError("DOE^JANE")

    with pytest.raises(CannotDeidentify, match="RuntimeError") as held:
        looked_at(SC, profile, eyes=Blind())
    assert "DOE" not in str(held.value)
    jpeg_2000 = layout.Syntax.of("1.2.840.10008.1.2.4.90")
    values = {0x00080016: SC.encode(), 0x00280004: b"MONOCHROME2", 0x00280010: b"\2\0", 0x00280011: b"\2\0"}
    with pytest.raises(CannotDeidentify):
        examined(
            Pixels(0x7FE00010, "OB", (bytes(20),), True), values | {0x00280100: b"\x08\0"}, jpeg_2000, profile, Eyes()
        )


def test_colours_and_palettes_are_read_as_they_are_seen() -> None:
    index = np.zeros((1, ROWS, COLUMNS), np.uint8)
    index[:, 10:20, 20:60] = np.arange(40) % 2  # two neighbours in the palette, black and white on the screen
    tables = {tag: bytes(np.array([0, 65535], "<u2")) for tag in (0x00281201, 0x00281202, 0x00281203)}
    eyes = Eyes(NAME)
    values = {
        0x00080016: SC.encode(), 0x00280002: b"\1\0", 0x00280004: b"PALETTE COLOR ",
        0x00280010: struct.pack("<H", ROWS), 0x00280011: struct.pack("<H", COLUMNS), 0x00280100: b"\x08\0",
        0x00281101: struct.pack("<3H", 2, 0, 16), **tables,
    }  # fmt: skip

    with pytest.raises(CannotDeidentify):
        examined(Pixels(0x7FE00010, "OB", (index.tobytes(),)), values, SYNTAX, BASIC, eyes)

    assert set(np.unique(eyes.pictures[0])) == {0, 255}


def test_a_film_with_a_name_and_a_marker_loses_the_name_only() -> None:
    pytest.importorskip("rapidocr_onnxruntime", reason="the text reader is not installed: pip install .[pixels]")
    from PIL import Image, ImageDraw, ImageFont

    y, _ = np.mgrid[:240, :320]
    picture = Image.fromarray((40 + y // 4).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    pen.text((20, 20), "DOE^JANE 14.03.1951", font=ImageFont.load_default(16), fill=230)
    pen.text((270, 180), "L", font=ImageFont.load_default(32), fill=250)
    array = (np.asarray(picture).astype(np.uint16) * 16)[None]

    result = looked_at(CR, CLEAN, array=array, eyes=INSTALLED)

    copy = np.frombuffer(result.pixels.between(0, array.nbytes), np.uint16).reshape(240, 320)
    assert result.said == "masked"
    assert copy[:60, :200].max() < 200 * 16
    assert (copy[150:, 240:] == array[0, 150:, 240:]).all()


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (0x00280010, b""),
        (0x00280008, b"9" * 6000),
        (0x00280004, b"YBR_FULL_422"),
        (0x00280002, b"\3\0"),
        (0x00280100, b"\x0c\0"),
        (0x00280011, b"\xff\xff"),
        (0x00280100, b"\x40\0"),
    ],
)
@pytest.mark.parametrize("profile", [BASIC, CLEAN])
def test_a_header_that_does_not_fit_the_pixels_is_held(tag: int, value: bytes, profile: Profile) -> None:
    values = {
        0x00080016: US.encode(), 0x00280010: b"\5\0", 0x00280011: b"\7\0", 0x00280100: b"\x08\0",
        0x00280002: b"\1\0", 0x00280004: b"MONOCHROME2", tag: value,
    }  # fmt: skip

    with pytest.raises(CannotDeidentify):
        examined(Pixels(0x7FE00010, "OB", (bytes(range(35)),)), values, SYNTAX, profile, Eyes(Text(Box(1, 1, 3, 3))))
