"""Part 10 files there and back, and bytes that are none."""

from __future__ import annotations

import random
import resource
import zlib
from contextlib import suppress
from io import BytesIO

import pytest
from harness import chest, wire
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from medgem_node import part10, testing
from medgem_node.errors import NotUnderstood


def small_film() -> Dataset:
    return testing.dx_instance(testing.chest_film(rows=64, columns=64))


def deflated(*parts: bytes) -> bytes:
    """A Part 10 file whose deflated data set is made of `parts`."""
    empty = Dataset()
    empty.file_meta = small_film().file_meta
    empty.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head = part10.encode(empty)[:-2]  # nothing deflates to two bytes
    return head + b"".join(packer.compress(part) for part in parts) + packer.flush()


def test_what_is_written_is_read_again() -> None:
    film = small_film()

    again = part10.decode(part10.encode(film))

    assert again == film
    assert again.file_meta.TransferSyntaxUID == film.file_meta.TransferSyntaxUID


def test_headers_come_without_pixels() -> None:
    header = part10.decode(part10.encode(small_film()), headers_only=True)

    assert "PixelData" not in header
    assert header.Rows == 64


def test_tags_limit_what_is_read() -> None:
    found = part10.decode(part10.encode(small_film()), tags=["Modality"])

    assert {e.keyword for e in found} == {"SpecificCharacterSet", "Modality"}


def test_the_same_data_set_gives_the_same_bytes() -> None:
    film = small_film()

    assert part10.encode(film) == part10.encode(film)


def test_a_deflated_data_set_is_read() -> None:
    assert part10.decode(deflated(wire.encoded(small_film()))).Rows == 64


@pytest.fixture(scope="module")
def bomb() -> bytes:
    size = part10.MAXIMUM_INFLATED_BYTES
    zeros = [bytes(1 << 20)] * (size >> 20)
    return deflated(wire.encoded(small_film()), wire.element(0x7FE10010, "OB", b"", size), *zeros)


@pytest.mark.parametrize("headers_only", [True, False])
def test_a_deflated_bomb_is_refused_before_it_is_inflated(bomb: bytes, headers_only: bool) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(NotUnderstood, match="more than 256 MB"):
        part10.decode(bomb, headers_only=headers_only)

    assert len(bomb) < 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


@pytest.mark.parametrize(
    "data",
    [b"", b"DICM", b"\0" * 128 + b"DICM", b"\0" * 999, b"\0" * 128 + b"DICM" + b"\xff" * 999, b"<html>" * 99],
    ids=["empty", "prefix", "preamble", "zeros", "ones", "text"],
)
def test_bytes_that_are_no_dicom_give_no_instance(data: bytes) -> None:
    try:
        understood = part10.decode(data)
    except NotUnderstood:
        return

    assert len(understood) < 3  # ones and zeros read as elements are none that a study could be filed by
    assert "SOPInstanceUID" not in understood


def test_pixels_without_end_do_not_pass_for_an_empty_data_set() -> None:
    film = small_film()
    film.PixelData = encapsulate([b"x" * 90])
    film["PixelData"].is_undefined_length = True
    film.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data = part10.encode(film)[:-40]

    with pytest.raises(NotUnderstood):
        part10.decode(data)
    assert part10.decode(data, headers_only=True).PatientID == film.PatientID


def nested(levels: int) -> Dataset:
    film = small_film()
    for _ in range(levels):
        item = Dataset()
        if "ProcedureCodeSequence" in film:
            item.ProcedureCodeSequence = film.ProcedureCodeSequence
        film.ProcedureCodeSequence = [item]
    return film


def test_levels_that_pydicom_would_write_for_hours_are_not_written() -> None:
    assert part10.decode(part10.encode(nested(60))).ProcedureCodeSequence

    with pytest.raises(NotUnderstood, match="levels deep"):
        part10.encode(nested(250))


def test_writing_leaves_values_that_are_still_bytes_as_they_are() -> None:
    film = part10.decode(part10.encode(small_film()))

    part10.check_depth(film)

    assert film.get_item("PatientName").is_raw


def test_a_value_representation_that_nobody_knows_does_not_stop_the_count_of_levels() -> None:
    data = chest.as_bytes(chest.film(16, 16)).replace(b"\x08\x00\x18\x22SQ", b"\x08\x00\x18\x22Sa")
    film = dcmread(BytesIO(data), force=True)

    with pytest.raises(NotImplementedError):
        film.get_item("AnatomicRegionSequence")

    part10.check_depth(film)


def test_a_broken_deflated_data_set_is_not_understood() -> None:
    with pytest.raises(NotUnderstood):
        part10.decode(deflated(wire.encoded(small_film()))[:-99])


@pytest.mark.parametrize("implicit", [False, True])
def test_damaged_bytes_are_understood_or_not_but_never_anything_else(implicit: bool) -> None:
    film = small_film()
    if implicit:
        film.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    whole = part10.encode(film)[:2000]
    chance = random.Random(4711)

    for _ in range(300):
        damaged = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.5 else whole)
        for _ in range(chance.randrange(9) if damaged else 0):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        for headers_only in (True, False):
            with suppress(NotUnderstood):
                part10.decode(bytes(damaged), headers_only=headers_only)
