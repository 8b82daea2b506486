"""The pixel element: as it was, but for what is no pixel."""

import struct

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from stranger import raw_file, raw_film

from medgem_node import part10
from medgem_node.deid.profile import deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import CannotDeidentify

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
        (RLELossless, struct.pack("<16L", 1, 64, *[0] * 14) + bytes(range(1, 201)) + b"\xff\xd9" + b"\1\2\3\4"),
    ],
)
def test_compressed_pixels_stay_byte_for_byte(syntax: str, frame: bytes, film: Dataset, pseudonyms: Pseudonyms) -> None:
    data = compressed(film, syntax, frame, frame)

    copy = deidentify_bytes(data, pseudonyms)

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

    copy = deidentify_bytes(data, pseudonyms)

    before, after = part10.decode(data).PixelData, part10.decode(copy).PixelData
    assert b"Quartermain" not in copy
    assert len(after) == len(before)
    changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert all(after[n] == 0 for n in changed)
    assert len(changed) < 2 * (len(NAME) + 12)


def test_a_file_format_inside_the_fragments_is_held(film: Dataset, pseudonyms: Pseudonyms) -> None:
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60)

    with pytest.raises(CannotDeidentify, match="JP2"):
        deidentify_bytes(compressed(film, JPEG2000Lossless, boxes), pseudonyms)


def test_a_name_in_fragments_that_nobody_understands_is_held(film: Dataset, pseudonyms: Pseudonyms) -> None:
    data = compressed(film, RLELossless, struct.pack("<16L", 1, 64, *[0] * 14) + NAME)

    with pytest.raises(CannotDeidentify, match="PatientName"):
        deidentify_bytes(data, pseudonyms)


def test_bytes_behind_the_last_pixel_are_cut_off(pseudonyms: Pseudonyms) -> None:
    film = [*(e for e in raw_film() if e[0] != 0x7FE00010), (0x7FE00010, "OW", bytes(192) + NAME)]

    copy = deidentify_bytes(raw_file([*film, (0x00100010, "PN", NAME)]), pseudonyms)

    assert b"Quartermain" not in copy
    assert len(part10.decode(copy).PixelData) == 192


def test_an_overlay_in_the_high_bits_is_cleared_and_the_image_is_not(film: Dataset, pseudonyms: Pseudonyms) -> None:
    pixels = np.arange(48, dtype="<u2") * 80
    film.PixelData = (pixels | 0x8000 * (np.arange(48, dtype="<u2") % 2)).tobytes()
    film.add_new(0x60000100, "US", 16)
    film.add_new(0x60000102, "US", 15)

    ds = part10.decode(deidentify_bytes(part10.encode(film), pseudonyms))

    assert (np.frombuffer(ds.PixelData, "<u2") == pixels).all()
    assert 0x60000102 not in ds


def test_sign_and_padding_above_the_stored_bits_stay(film: Dataset, pseudonyms: Pseudonyms) -> None:
    film.PixelData = np.full(48, -2000, "<i2").tobytes()
    film.PixelRepresentation = 1

    ds = part10.decode(deidentify_bytes(part10.encode(film), pseudonyms))

    assert ds.PixelData == film.PixelData


def test_an_overlay_inside_compressed_pixels_is_held(film: Dataset, pseudonyms: Pseudonyms) -> None:
    film.add_new(0x60000102, "US", 15)

    with pytest.raises(CannotDeidentify, match="overlays"):
        deidentify_bytes(compressed(film, JPEG2000Lossless, jpeg2000(b"")), pseudonyms)
