"""DICOM as a stranger writes it: without pydicom, and without its scruples."""

import struct
from collections.abc import Sequence

STUDY, SERIES, INSTANCE = (f"1.3.6.1.4.1.55555.20200705.1.{n}" for n in (1, 2, 3))
LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}

Element = tuple[int, str, bytes]


def raw_file(elements: Sequence[Element], meta: Sequence[Element] = ()) -> bytes:
    """A Part 10 file of any elements, explicit little endian, written without pydicom and without its scruples."""
    syntax = (0x00020010, "UI", b"1.2.840.10008.1.2.1\0")
    return b"\0" * 128 + b"DICM" + raw((*meta, syntax)) + raw(elements)


def raw(elements: Sequence[Element]) -> bytes:
    """Elements in the order of their tags, with the group 7FE0 and what follows last."""
    return b"".join(_raw_element(*e) for e in sorted(elements, key=lambda e: e[0]))


def raw_item(elements: Sequence[Element]) -> bytes:
    """An item of a sequence."""
    body = raw(elements)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(body)) + body


def _raw_element(tag: int, vr: str, value: bytes) -> bytes:
    value += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(value) & 1)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in LONG_VRS:
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def raw_film() -> list[Element]:
    """The elements that an instance needs to be copied at all."""
    number = (48).to_bytes(2, "little")
    return [
        (0x00080008, "CS", b"ORIGINAL\\PRIMARY"),
        (0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.1"),
        (0x00080018, "UI", INSTANCE.encode()),
        (0x00080060, "CS", b"CR"),
        (0x0020000D, "UI", STUDY.encode()),
        (0x0020000E, "UI", SERIES.encode()),
        (0x00280002, "US", b"\1\0"),
        (0x00280004, "CS", b"MONOCHROME2"),
        (0x00280010, "US", number),
        (0x00280011, "US", b"\2\0"),
        (0x00280100, "US", b"\x10\0"),
        (0x00280101, "US", b"\x0c\0"),
        (0x00280102, "US", b"\x0b\0"),
        (0x00280103, "US", b"\0\0"),
        (0x7FE00010, "OW", bytes(48 * 2 * 2)),
    ]
