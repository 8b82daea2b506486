"""What de-identifying costs beside reading and writing the same bytes: `python tests/bench/bench_deid.py`.

CPU time (user and system) of one process; 500 CT instances of 531 KB with 310 elements, nested and private ones among
them, and one structured report of 59,434 elements. Both are made here.
"""

import argparse
import os
import resource
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from medgem_node.deid.options import BASIC, Option, Profile
from medgem_node.deid.profile import Deidentifier
from medgem_node.deid.pseudonym import Pseudonyms

RESEARCH = Profile(
    frozenset(
        {
            Option.CLEAN_DESCRIPTORS,
            Option.CLEAN_STRUCTURED_CONTENT,
            Option.CLEAN_GRAPHICS,
            Option.RETAIN_MODIFIED_DATES,
            Option.RETAIN_PATIENT_CHARACTERISTICS,
            Option.RETAIN_DEVICE_IDENTITY,
            Option.RETAIN_SAFE_PRIVATE,
        }
    )
)
LONG = {"OB", "OW", "SQ", "UN", "UT"}
ROOT = "1.3.6.1.4.1.55555.7"


def element(tag: int, vr: str, value: bytes) -> bytes:
    value += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in LONG:
        return head + struct.pack("<HL", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def elements(*rows: tuple[int, str, bytes]) -> bytes:
    return b"".join(element(*row) for row in sorted(rows))


def sequence(tag: int, *items: bytes) -> tuple[int, str, bytes]:
    return tag, "SQ", b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item for item in items)


def code(value: bytes, meaning: bytes, scheme: bytes = b"DCM") -> bytes:
    return elements((0x00080100, "SH", value), (0x00080102, "SH", scheme), (0x00080104, "LO", meaning))


def file(body: bytes, sop_class_uid: bytes, instance: bytes) -> bytes:
    meta = elements(
        (0x00020001, "OB", b"\0\1"),
        (0x00020002, "UI", sop_class_uid),
        (0x00020003, "UI", instance),
        (0x00020010, "UI", b"1.2.840.10008.1.2.1"),
        (0x00020012, "UI", b"1.2.3.4"),
        (0x00020016, "AE", b"SENDER"),
    )
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<L", len(meta))) + meta + body


def patient(sop_class_uid: bytes, instance: bytes, modality: bytes) -> list[tuple[int, str, bytes]]:
    return [
        (0x00080005, "CS", b"ISO_IR 100"),
        (0x00080012, "DA", b"20230405"),
        (0x00080013, "TM", b"101112"),
        (0x00080016, "UI", sop_class_uid),
        (0x00080018, "UI", instance),
        (0x00080020, "DA", b"20230405"),
        (0x00080023, "DA", b"20230405"),
        (0x00080030, "TM", b"101010"),
        (0x00080033, "TM", b"101112"),
        (0x00080050, "SH", b"A778899221"),
        (0x00080060, "CS", modality),
        (0x00080070, "LO", b"Foundry"),
        (0x00080080, "LO", b"St. Alban Infirmary"),
        (0x00080090, "PN", b"Brombeer^Hedwig"),
        (0x00081030, "LO", b"CT Chest routine"),
        (0x0008103E, "LO", b"Chest 1.0 B31f"),
        (0x00100010, "PN", b"Quartermain^Zebulon"),
        (0x00100020, "LO", b"ZQ-448812"),
        (0x00100030, "DA", b"19510314"),
        (0x00100040, "CS", b"M"),
        (0x00101010, "AS", b"072Y"),
        (0x0020000D, "UI", f"{ROOT}.1".encode()),
        (0x0020000E, "UI", f"{ROOT}.1.1".encode()),
        (0x00200010, "SH", b"1"),
        (0x00200011, "IS", b"2"),
    ]


def ct(number: int) -> bytes:
    """A CT instance; `number` tells slices apart."""
    instance = f"{ROOT}.1.1.{number}".encode()
    source = elements((0x00081150, "UI", b"1.2.840.10008.5.1.4.1.1.2"), (0x00081155, "UI", f"{ROOT}.9".encode()))
    study = elements((0x00081150, "UI", b"1.2.840.10008.3.1.2.3.1"), (0x00081155, "UI", f"{ROOT}.1".encode()))
    request = elements(
        (0x00321060, "LO", b"CT Chest"),
        (0x00400007, "LO", b"CT Chest"),
        (0x00400009, "SH", b"P1"),
        (0x00401001, "SH", b"R1"),
        sequence(0x00321064, code(b"CTCH", b"CT Chest", b"99LOCAL")),
    )
    number_text = str(number).encode()
    rows = [
        *patient(b"1.2.840.10008.5.1.4.1.1.2", instance, b"CT"),
        (0x00080008, "CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
        (0x00080022, "DA", b"20230405"),
        (0x0008002A, "DT", b"20230405101112.%06d" % number),
        (0x00080032, "TM", b"101112.%06d" % number),
        (0x00081010, "SH", b"CT01"),
        (0x00081090, "LO", b"Foundry 64"),
        sequence(0x00081110, study),
        sequence(0x00081140, source, source),
        sequence(0x00082112, source),
        sequence(0x00082218, code(b"T-D3000", b"Chest", b"SRT")),
        (0x00180015, "CS", b"CHEST"),
        (0x00180050, "DS", b"1"),
        (0x00180060, "DS", b"120"),
        (0x00181000, "LO", b"SN4711"),
        (0x00181020, "LO", b"VB42"),
        (0x00181030, "LO", b"Chest routine"),
        (0x00185100, "CS", b"HFS"),
        (0x00181210, "SH", b"B31f"),
        (0x00181151, "IS", b"%d" % (100 + number % 90)),
        (0x00200013, "IS", number_text),
        (0x00200032, "DS", b"-150\\-150\\" + number_text),
        (0x00200037, "DS", b"1\\0\\0\\0\\1\\0"),
        (0x00200052, "UI", f"{ROOT}.1.5".encode()),
        (0x00201041, "DS", number_text),
        (0x00280002, "US", b"\1\0"),
        (0x00280004, "CS", b"MONOCHROME2"),
        (0x00280010, "US", b"\0\2"),
        (0x00280011, "US", b"\0\2"),
        (0x00280030, "DS", b"0.7\\0.7"),
        (0x00280100, "US", b"\x10\0"),
        (0x00280101, "US", b"\x0c\0"),
        (0x00280102, "US", b"\x0b\0"),
        (0x00280103, "US", b"\0\0"),
        (0x00281050, "DS", b"40"),
        (0x00281051, "DS", b"400"),
        (0x00281052, "DS", b"-1024"),
        (0x00281053, "DS", b"1"),
        (0x00281054, "LO", b"HU"),
        sequence(0x00400275, request),
        (0x00400244, "DA", b"20230405"),
        (0x00400253, "SH", b"PPS7"),
        (0x00290010, "LO", b"FOUNDRY CT HEADER"),
    ]
    rows += [(0x00291000 + n, "LO", b"private %d" % n) for n in range(40)]
    rows.append((0x00291080, "OB", bytes(3000)))
    taken = {row[0] for row in rows}
    rows += [(tag, "FD", struct.pack("<d", tag)) for tag in _known(range(0x00189301, 0x00189400), "FD", 20)]
    rows += [(tag, "US", b"\1\0") for tag in _known(range(0x00180000, 0x00290000), "US", 80) if tag not in taken]
    rows += [(tag, "DS", b"1.5") for tag in _known(range(0x00180000, 0x00300000), "DS", 82) if tag not in taken]
    rows += [(tag, "SH", b"text") for tag in _known(range(0x00180000, 0x00190000), "SH", 3) if tag not in taken]
    body = elements(*sorted({row[0]: row for row in rows}.values()))
    pixels = element(0x7FE00010, "OW", bytes(range(256)) * 2048)
    return file(body + pixels, b"1.2.840.10008.5.1.4.1.1.2", instance)


@cache
def _known(tags: range, vr: str, count: int) -> list[int]:
    from medgem_node.dictionary import vr_of

    found = []
    for tag in tags:
        if tag & 0xFFFF and vr_of(tag) == vr:
            found.append(tag)
            if len(found) == count:
                break
    return found


def report(groups: int = 4950) -> bytes:
    """A structured report of `groups` measurements, 12 elements each."""
    instance = f"{ROOT}.2.1.1".encode()
    items = []
    for n in range(groups):
        value = elements(sequence(0x004008EA, code(b"mm", b"millimeter", b"UCUM")), (0x0040A30A, "DS", b"%d.5" % n))
        items.append(
            elements(
                (0x0040A010, "CS", b"CONTAINS"),
                (0x0040A040, "CS", b"NUM"),
                sequence(0x0040A043, code(b"121206", b"Distance")),
                sequence(0x0040A300, value),
            )
        )
    rows = [
        *patient(b"1.2.840.10008.5.1.4.1.1.88.33", instance, b"SR"),
        (0x0040A040, "CS", b"CONTAINER"),
        sequence(0x0040A043, code(b"126000", b"Imaging Measurement Report")),
        (0x0040A050, "CS", b"SEPARATE"),
        (0x0040A491, "CS", b"COMPLETE"),
        (0x0040A493, "CS", b"UNVERIFIED"),
        sequence(0x0040A730, *items),
    ]
    return file(elements(*rows), b"1.2.840.10008.5.1.4.1.1.88.33", instance)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of user and system."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def copy_bytes(source: Path, target: Path) -> None:
    for path in source.iterdir():
        _write(target / path.name, [path.read_bytes()])


def copy_clean(source: Path, target: Path, deidentifier: Deidentifier) -> None:
    for path in source.iterdir():
        _write(target / path.name, deidentifier.copy(path.read_bytes()).parts)


def _write(path: Path, parts: object) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        os.writev(handle, parts)  # type: ignore[arg-type]
    finally:
        os.close(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    pseudonyms = Pseudonyms(b"k" * 32)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.mkdir()
        target.mkdir()
        for n in range(chosen.instances):
            (source / f"{n}.dcm").write_bytes(ct(n))
        for name, profile in (("basic", BASIC), ("research", RESEARCH)):
            for _ in range(chosen.rounds):
                plain = cpu(lambda: copy_bytes(source, target))
                clean = cpu(lambda profile=profile: copy_clean(source, target, Deidentifier(pseudonyms, profile)))
                print(
                    f"CT {name}: read and write {plain / chosen.instances * 1000:.3f} ms, de-identified "
                    f"{clean / chosen.instances * 1000:.3f} ms an instance: {clean / plain:.2f} x"
                )
        large = report()
        (Path(folder) / "sr.dcm").write_bytes(large)
        for name, profile in (("basic", BASIC), ("research", RESEARCH)):
            for _ in range(chosen.rounds):
                one = Deidentifier(pseudonyms, profile)
                one.copy(ct(0))
                clean = cpu(lambda one=one: one.copy(large).data())
                again = cpu(lambda one=one: one.copy(large).data())
                print(
                    f"SR {name}, {len(large) / 1e6:.2f} MB: {clean * 1000:.0f} ms, a second time {again * 1000:.0f} ms"
                )


if __name__ == "__main__":
    main()
