"""The walk over bytes: odd files come out right or are held, large ones cost little."""

import mmap
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from pydicom.uid import EncapsulatedPDFStorage, EncapsulatedSTLStorage, ImplicitVRLittleEndian
from stranger import INSTANCE, Element, raw, raw_file, raw_film, raw_item

from medgem_node import part10
from medgem_node.deid.copier import DEEPEST
from medgem_node.deid.options import BASIC, Option, Profile
from medgem_node.deid.profile import Deidentifier, deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import CannotDeidentify

NESTED = 0x00409096
TRUST = Profile(pixels="trust")


def with_options(*options: Option) -> Profile:
    return Profile(frozenset(options), "trust")


def undefined(tag: int, *items: bytes) -> bytes:
    """A sequence of undefined length, its items too."""
    inside = b"".join(b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + i + b"\xfe\xff\x0d\xe0\0\0\0\0" for i in items)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + b"SQ\0\0\xff\xff\xff\xff"
    return head + inside + b"\xfe\xff\xdd\xe0\0\0\0\0"


def film_with(*elements: Element) -> list[Element]:
    tags = {e[0] for e in elements}
    return [*(e for e in raw_film() if e[0] not in tags), *elements]


def before_pixels(extra: bytes, *elements: Element) -> bytes:
    """A film whose last elements before the pixels are these bytes."""
    whole = film_with(*elements)
    return raw_file([e for e in whole if e[0] < 0x7FE00000]) + extra + raw([e for e in whole if e[0] >= 0x7FE00000])


def test_sequences_of_undefined_length_are_walked_and_written_whole(pseudonyms: Pseudonyms) -> None:
    name = (0x00100010, "PN", b"Quartermain^Zebulon")
    inner = undefined(NESTED, raw([name, (0x00280010, "US", b"\7\0")]), raw([(0x00280010, "US", b"\x08\0")]))

    copy = deidentify_bytes(before_pixels(undefined(NESTED, inner)), pseudonyms, TRUST)

    (item,) = part10.decode(copy)[NESTED].value
    assert b"uartermain" not in copy
    assert [each.Rows for each in item[NESTED].value] == [7, 8]


def test_elements_in_no_order_come_out_in_order(pseudonyms: Pseudonyms) -> None:
    unsorted = raw([(0x00281050, "DS", b"40")]) + raw([(0x00200011, "IS", b"3")])

    ds = part10.decode(deidentify_bytes(before_pixels(unsorted), pseudonyms, TRUST))

    assert list(ds.keys()) == sorted(ds.keys())
    assert (ds.WindowCenter, ds.SeriesNumber) == (40, 3)


def test_odd_lengths_come_out_even(pseudonyms: Pseudonyms) -> None:
    odd = struct.pack("<HH", 0x0028, 0x1054) + b"LO" + struct.pack("<H", 3) + b"HUx"

    copy = deidentify_bytes(before_pixels(odd), pseudonyms, TRUST)

    assert b"LO\x04\0HUx " in copy
    assert part10.decode(copy).RescaleType == "HUx"


def test_an_element_without_a_vr_among_others_gets_one(pseudonyms: Pseudonyms) -> None:
    implicit = struct.pack("<HHL", 0x0028, 0x1054, 2) + b"HU"
    item = struct.pack("<HHL", 0xFFFE, 0xE000, len(implicit)) + implicit

    ds = part10.decode(deidentify_bytes(raw_file(film_with((NESTED, "SQ", item))), pseudonyms, TRUST))

    assert ds[NESTED].value[0].RescaleType == "HU"


@pytest.mark.parametrize(("depth", "comes_out"), [(DEEPEST, True), (DEEPEST + 1, False)])
def test_nesting_ends_at_a_stated_depth(depth: int, comes_out: bool, pseudonyms: Pseudonyms) -> None:
    inside = raw([(0x00280010, "US", b"\7\0")])
    for _ in range(depth):
        inside = undefined(NESTED, inside)
    data = before_pixels(inside)

    if comes_out:
        assert deidentify_bytes(data, pseudonyms, TRUST)
    else:
        with pytest.raises(CannotDeidentify, match="deeper"):
            deidentify_bytes(data, pseudonyms, TRUST)


def test_two_hundred_thousand_items_cost_seconds_at_most(pseudonyms: Pseudonyms) -> None:
    items = b"".join(raw_item([(0x0040A30A, "DS", b"%d" % n)]) for n in range(200_000))
    data = raw_file(film_with((NESTED, "SQ", items)))

    begin = time.process_time()
    copy = Deidentifier(pseudonyms, TRUST)._copied(data, None)

    assert len(copy.data()) > len(items)
    assert time.process_time() - begin < 5


def test_the_pixels_of_a_large_file_take_no_memory(pseudonyms: Pseudonyms, tmp_path: Path) -> None:
    size = 1 << 30
    number = struct.pack("<H", 32768)
    film = film_with((0x00280010, "US", number), (0x00280011, "US", b"\0\x40"))
    head = raw_file([e for e in film if e[0] < 0x7FE00000])
    head += struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size)
    path = tmp_path / "large.dcm"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        tracemalloc.start()
        copy = Deidentifier(pseudonyms, TRUST)._copied(data, None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        total = sum(map(len, copy.parts))
        del copy

    assert total > size
    assert peak < 4 << 20


def test_who_is_named_behind_a_text_is_taken_out_of_it_all_the_same(pseudonyms: Pseudonyms) -> None:
    late = raw_item([(0x0040A123, "PN", b"Zwetschkenbaum^Ida")])
    film = film_with((0x00081090, "LO", b"by Zwetschkenbaum"), (NESTED, "SQ", late))

    copy = deidentify_bytes(raw_file(film), pseudonyms, TRUST)

    assert b"wetschkenbaum" not in copy
    assert part10.decode(copy).ManufacturerModelName == "by [removed]"


def test_one_deidentifier_forgets_the_patient_before(pseudonyms: Pseudonyms) -> None:
    deidentifier = Deidentifier(pseudonyms, TRUST)
    code = [(0x00080100, "SH", b"1"), (0x00080102, "SH", b"DCM"), (0x00080104, "LO", b"Brombeer sign")]
    quiet = film_with((0x00100010, "PN", b"Miller^Ada"), (0x00082218, "SQ", raw_item(code)))
    named = film_with((0x00100010, "PN", b"Brombeer^Ada"), (0x00082218, "SQ", raw_item(code)))

    meanings = [
        part10.decode(deidentifier.copy(raw_file(film)).data()).AnatomicRegionSequence[0].CodeMeaning
        for film in (quiet, named, quiet)
    ]

    assert meanings == ["Brombeer sign", "[removed] sign", "Brombeer sign"]


def test_dates_are_shifted_by_the_patient_and_ages_capped(pseudonyms: Pseudonyms) -> None:
    film = film_with(
        (0x00080020, "DA", b"20200705"), (0x00080021, "DA", b"20200707"), (0x00100020, "LO", b"ZQ-448812"),
        (0x00101010, "AS", b"094Y"),
    )  # fmt: skip
    profile = with_options(Option.RETAIN_MODIFIED_DATES, Option.RETAIN_PATIENT_CHARACTERISTICS)

    ds = part10.decode(deidentify_bytes(raw_file(film), pseudonyms, profile))

    assert ds.StudyDate != "20200705"
    assert int(ds.SeriesDate) - int(ds.StudyDate) in (2, 2 + 70, 2 + 69, 2 + 8870, 2 + 71, 2 + 72)
    assert ds.PatientAge == "090Y"
    assert ds.LongitudinalTemporalInformationModified == "MODIFIED"


def test_private_attributes_stay_only_if_they_are_known_to_be_safe(pseudonyms: Pseudonyms) -> None:
    film = film_with(
        (0x00190010, "LO", b"SIEMENS MR HEADER"), (0x0019100C, "IS", b"1000"), (0x00191099, "LO", b"unlisted"),
        (0x00210010, "LO", b"SOMEBODY"), (0x0021100C, "IS", b"1"),
    )  # fmt: skip

    ds = part10.decode(deidentify_bytes(raw_file(film), pseudonyms, with_options(Option.RETAIN_SAFE_PRIVATE)))

    assert {int(tag) for tag in ds.keys() if tag.is_private} == {0x00190010, 0x0019100C}  # noqa: SIM118


def test_uids_stay_when_that_is_asked_for(pseudonyms: Pseudonyms) -> None:
    copy = Deidentifier(pseudonyms, with_options(Option.RETAIN_UIDS)).copy(raw_file(raw_film()))

    assert copy.sop_instance_uid == part10.decode(copy.data()).SOPInstanceUID == INSTANCE


def test_a_pdf_is_replaced_by_an_empty_page_and_other_documents_are_held(pseudonyms: Pseudonyms) -> None:
    def document(sop_class_uid: str) -> bytes:
        film = film_with((0x00080016, "UI", sop_class_uid.encode()), (0x00420011, "OB", b"%PDF Quartermain"))
        return raw_file([e for e in film if e[0] >> 16 not in (0x28, 0x7FE0)])

    copy = deidentify_bytes(document(EncapsulatedPDFStorage), pseudonyms, BASIC)

    assert b"Quartermain" not in copy
    assert part10.decode(copy).EncapsulatedDocument.startswith(b"%PDF-1.4")
    with pytest.raises(CannotDeidentify, match="document"):
        deidentify_bytes(document(EncapsulatedSTLStorage), pseudonyms, BASIC)


def test_a_directory_of_files_is_held(pseudonyms: Pseudonyms) -> None:
    directory = film_with((0x00080016, "UI", b"1.2.840.10008.1.3.10"))

    with pytest.raises(CannotDeidentify, match="DICOMDIR"):
        deidentify_bytes(raw_file(directory), pseudonyms, TRUST)


def test_what_is_no_sequence_where_one_should_be_goes(pseudonyms: Pseudonyms) -> None:
    meta = b"".join(
        struct.pack("<HH", tag >> 16, tag & 0xFFFF) + b"UI" + struct.pack("<H", len(v)) + v
        for tag, v in ((0x00020010, ImplicitVRLittleEndian.encode() + b"\0"),)
    )
    rows = [e for e in film_with() if e[0] != 0x7FE00010]
    body = b"".join(
        struct.pack("<HHL", t >> 16, t & 0xFFFF, len(v) + len(v) % 2) + v + b" " * (len(v) % 2) for t, _, v in rows
    )
    broken = struct.pack("<HHL", 0x0040, 0x9096, 12) + b"Quartermain!"
    tail = b"".join(struct.pack("<HHL", t >> 16, t & 0xFFFF, len(v)) + v for t, _, v in raw_film()[-1:])

    copy = Deidentifier(pseudonyms, TRUST)._copied(bytes(128) + b"DICM" + meta + body + broken + tail, None)

    assert b"Quartermain" not in copy.data()
