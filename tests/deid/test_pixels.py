"""The pixel element: as it was, but for what is no pixel."""

import mmap
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from stranger import raw_file, raw_film

from medgem_node import part10
from medgem_node.deid import layout, pixels
from medgem_node.deid.code_stream import blanked
from medgem_node.deid.options import Profile
from medgem_node.deid.profile import deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import CannotDeidentify, NotUnderstood

CORPUS = Path("/work/shared/data/dicom_corpus")
UNREAD = Profile(pixels="trust")  # code streams here are no images
NAME = b"Quartermain^Zebulon"


def jpeg(*segments: tuple[int, bytes], tail: bytes = b"") -> bytes:
    """A code stream with these segments; its coded data is no image."""
    body = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(p) + 2) + p for marker, p in segments)
    return b"\xff\xd8" + body + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(range(1, 200)) + b"\xff\xd9" + tail


def jpeg2000(comment: bytes) -> bytes:
    size = b"\xff\x51" + struct.pack(">H", 41) + bytes(39)
    com = b"\xff\x64" + struct.pack(">HH", len(comment) + 4, 1) + comment
    data = b"\xff\x93" + bytes(range(100))
    part = b"\xff\x90" + struct.pack(">HHLBB", 10, 0, 12 + len(data), 0, 1) + data
    return b"\xff\x4f" + size + com + part + b"\xff\xd9"


def compressed(film: Dataset, syntax: str, *frames: bytes) -> bytes:
    film.file_meta.TransferSyntaxUID = syntax
    film.NumberOfFrames = len(frames)
    film.PixelData = encapsulate(list(frames))
    film["PixelData"].is_undefined_length = True
    film["PixelData"].VR = "OB"
    return part10.encode(film)


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        (
            JPEGBaseline8Bit,
            jpeg((0xDB, bytes(65)), (0xE0, b"JFIF\0\1\2\0\0\1\0\1\0\0"), (0xEE, b"Adobe\0\x64\0\0\0\0\1")),
        ),
        (JPEG2000Lossless, jpeg2000(b"Created by OpenJPEG version 2.5.0")),
        (JPEG2000Lossless, jpeg2000(b"Kakadu-v5.2.1")),
        (RLELossless, struct.pack("<16L", 2, 64, 113, *[0] * 13) + 2 * (b"\x2f" + bytes(range(46)) + b"\xff\xd9")),
    ],
)
def test_compressed_pixels_stay_byte_for_byte(syntax: str, frame: bytes, film: Dataset, pseudonyms: Pseudonyms) -> None:
    data = compressed(film, syntax, frame, frame)

    copy = deidentify_bytes(data, pseudonyms, UNREAD)

    assert part10.decode(copy).PixelData == part10.decode(data).PixelData
    assert part10.decode(copy).file_meta.TransferSyntaxUID == syntax


@pytest.mark.parametrize(
    ("syntax", "frame"),
    [
        (JPEGBaseline8Bit, jpeg((0xFE, NAME), (0xDB, bytes(65)))),
        (JPEGBaseline8Bit, jpeg((0xE1, b"Exif\0\0" + NAME))),
        (JPEGBaseline8Bit, jpeg((0xE0, b"JFIF\0\1\2\0\0\1\0\1\0\0" + NAME))),
        (JPEGBaseline8Bit, jpeg((0xDB, bytes(65)), tail=NAME)),
        (JPEG2000Lossless, jpeg2000(NAME)),
    ],
)
def test_comments_in_code_streams_are_blanked_and_nothing_moves(
    syntax: str, frame: bytes, film: Dataset, pseudonyms: Pseudonyms
) -> None:
    data = compressed(film, syntax, frame, frame)

    copy = deidentify_bytes(data, pseudonyms, UNREAD)

    before, after = part10.decode(data).PixelData, part10.decode(copy).PixelData
    assert b"Quartermain" not in copy
    assert len(after) == len(before)
    changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert all(after[n] == 0 for n in changed)
    assert len(changed) < 2 * (len(NAME) + 12)


def test_a_file_format_inside_the_fragments_is_held(film: Dataset, pseudonyms: Pseudonyms) -> None:
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60)

    with pytest.raises(CannotDeidentify, match="JP2"):
        deidentify_bytes(compressed(film, JPEG2000Lossless, boxes), pseudonyms, UNREAD)


def test_a_name_in_fragments_that_nobody_understands_is_held(film: Dataset, pseudonyms: Pseudonyms) -> None:
    data = compressed(film, RLELossless, struct.pack("<16L", 1, 64, *[0] * 14) + NAME)

    with pytest.raises(CannotDeidentify, match="PatientName"):
        deidentify_bytes(data, pseudonyms, UNREAD)


def test_bytes_behind_the_last_pixel_are_cut_off(pseudonyms: Pseudonyms) -> None:
    film = [*(e for e in raw_film() if e[0] != 0x7FE00010), (0x7FE00010, "OW", bytes(192) + NAME)]

    copy = deidentify_bytes(raw_file([*film, (0x00100010, "PN", NAME)]), pseudonyms, UNREAD)

    assert b"Quartermain" not in copy
    assert len(part10.decode(copy).PixelData) == 192


def test_an_overlay_in_the_high_bits_is_cleared_and_the_image_is_not(film: Dataset, pseudonyms: Pseudonyms) -> None:
    values = np.arange(48, dtype="<u2") * 80
    film.PixelData = (values | 0x8000 * (np.arange(48, dtype="<u2") % 2)).tobytes()
    film.add_new(0x60000100, "US", 16)
    film.add_new(0x60000102, "US", 15)

    ds = part10.decode(deidentify_bytes(part10.encode(film), pseudonyms, UNREAD))

    assert (np.frombuffer(ds.PixelData, "<u2") == values).all()
    assert 0x60000102 not in ds


def test_sign_and_padding_above_the_stored_bits_stay(film: Dataset, pseudonyms: Pseudonyms) -> None:
    film.PixelData = np.full(48, -2000, "<i2").tobytes()
    film.PixelRepresentation = 1

    ds = part10.decode(deidentify_bytes(part10.encode(film), pseudonyms, UNREAD))

    assert ds.PixelData == film.PixelData


def test_an_overlay_inside_compressed_pixels_is_held(film: Dataset, pseudonyms: Pseudonyms) -> None:
    film.add_new(0x60000102, "US", 15)

    with pytest.raises(CannotDeidentify, match="overlays"):
        deidentify_bytes(compressed(film, JPEG2000Lossless, jpeg2000(b"")), pseudonyms, UNREAD)


def taken(element: bytes | mmap.mmap, syntax: str) -> tuple[pixels.Pixels, layout.Syntax]:
    parsed = layout.Syntax.of(syntax)
    found = pixels.take(memoryview(element), 0, parsed)
    assert found is not None
    return found, parsed


def fragments(*items: bytes) -> bytes:
    """A pixel element of these items, the first being its offset table."""
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    head = layout.element_head(0x7FE00010, "OB", layout.UNDEFINED, layout.Syntax.of(RLELossless))
    return head + b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(i)) + i for i in items) + end


def test_a_gigabyte_of_frames_is_passed_on_without_a_copy(tmp_path: Path) -> None:
    size = 1 << 30
    with (tmp_path / "frames").open("wb+") as file:
        file.write(layout.element_head(0x7FE00010, "OW", size, layout.Syntax.of(ExplicitVRLittleEndian)))
        file.truncate(12 + size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tracemalloc.start()
            found, syntax = taken(data, ExplicitVRLittleEndian)
            parts = pixels.without_comments(pixels.cut(found, size)).parts(syntax)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            written = sum(map(len, parts))
            del parts, found

    assert written == 12 + size
    assert peak < 100_000


def test_a_true_offset_table_stays_and_any_other_is_emptied() -> None:
    frames = (jpeg2000(b"1"), jpeg2000(b"2.0"))
    true = struct.pack("<2L", 0, 8 + len(frames[0]))
    name = b"Quartermain^Zebulon^"

    kept = b"".join(taken(fragments(true, *frames), JPEG2000Lossless)[0].parts(layout.Syntax.of(JPEG2000Lossless)))
    emptied = b"".join(taken(fragments(name, *frames), JPEG2000Lossless)[0].parts(layout.Syntax.of(JPEG2000Lossless)))

    assert kept == fragments(true, *frames)
    assert emptied == fragments(b"", *frames)


def test_a_comment_across_two_fragments_or_behind_the_first_tile_is_blanked() -> None:
    stream = jpeg2000(b"5.2.1")
    part = stream[stream.index(b"\xff\x90") : -2]
    hidden = struct.pack(">HHH", 0xFF64, len(NAME) + 4, 1) + NAME
    second = part[:6] + struct.pack(">L", len(part) + len(hidden)) + part[10:12] + hidden + part[12:]
    whole = stream[:-2] + second + b"\xff\xd9"
    found, _ = taken(fragments(b"", whole[: len(whole) - 150], whole[len(whole) - 150 :]), JPEG2000Lossless)

    clean = b"".join(pixels.without_comments(found).chunks)

    assert NAME in whole
    assert clean == whole.replace(NAME, bytes(len(NAME))).replace(
        hidden[:6] + bytes(len(NAME)), hidden[:4] + bytes(2 + len(NAME))
    )


def test_segments_between_scans_are_blanked_and_coded_data_is_not() -> None:
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"\x12\xff\x00\xff\xd3\x7f" * 9
    stream = (
        b"\xff\xd8\xff\xdb\0\3\0" + scan + b"\xff\xfe" + struct.pack(">H", len(NAME) + 2) + NAME + scan + b"\xff\xd9"
    )

    assert blanked(stream) == stream.replace(NAME, bytes(len(NAME)))


def test_a_name_behind_the_runs_or_among_their_offsets_is_blanked() -> None:
    head = struct.pack("<16L", 1, 64, *struct.unpack("<3L", NAME[:12]), *[0] * 11)
    runs = bytes([3, 1, 2, 3, 4, 253, 9])  # four values, then four times 9

    clean = blanked(head + runs + NAME, 8)

    assert clean == struct.pack("<16L", 1, 64, *[0] * 14) + runs + bytes(len(NAME))
    assert blanked(clean, 8) is clean


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.8.1"])
def test_a_video_is_held_for_it_may_carry_anything(syntax: str) -> None:
    with pytest.raises(layout.Broken, match="video"):
        taken(fragments(b"", bytes(20)), syntax)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of real files is not there")
def test_real_compressed_files_decode_to_the_same_pixels_and_are_changed_in_comments_only() -> None:
    seen = 0
    for path in sorted(CORPUS.rglob("*.dcm")):
        data = path.read_bytes()
        try:
            ds = part10.decode(data)
            _, syntax, body = layout.split(data)
            _, at = layout.header(body, syntax)
            found = pixels.take(body, at, syntax)
        except (NotUnderstood, layout.Broken, UnicodeDecodeError):
            continue
        if found is None or not found.is_encapsulated or len(data) > 60_000 or "JP2" in path.name:
            continue
        try:
            before = pixel_array(ds, raw=True)
            clean = pixels.without_comments(found, int(ds.Rows) * int(ds.Columns))
        except Exception:  # decoders share no base class; what cannot be decoded proves nothing here
            continue
        ds.PixelData = b"".join(clean.parts(syntax)[1:-1])
        assert (pixel_array(ds, raw=True) == before).all(), path.name
        seen += 1
    assert seen > 20
