"""Removers that are broken on purpose: each a correct copy into which one fault puts back something of the original.

None depends on how the copier works: a fault is laid into the finished copy, in the way a broken remover would leave
it. `python tests/deid/mutants.py` writes docs/results/deid-mutations.md anew.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom.config
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from medgem_node.deid.options import Option
from medgem_node.deid.profile import deidentify_bytes
from medgem_node.deid.proof import leaks
from medgem_node.deid.pseudonym import Pseudonyms

ROOT = "1.3.6.1.4.1.55555.20200705.7"
SHIFTED = frozenset({Option.RETAIN_MODIFIED_DATES})
_KEY = b"k" * 32

Fault = Callable[[Dataset, Dataset], "bytes | None"]
"""Changes a copy, given the original and the copy; or answers the copy's bytes."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault: what kind it is, what `proof` must say of it, and what it is laid into."""

    kind: str
    said: str
    fault: Fault
    name: str = "Quartermain^Zebulon"
    charset: str | list[str] = "ISO_IR 192"
    syntax: str = ExplicitVRLittleEndian
    options: frozenset[Option] = frozenset()

    def original(self) -> bytes:
        """The file before it was copied."""
        return original(self.name, self.charset, self.syntax)

    def copies(self) -> tuple[bytes, bytes]:
        """The correct copy, written once more, and the one with the fault."""
        source = self.original()
        original = dcmread(BytesIO(source))
        made = deidentify_bytes(source, Pseudonyms(_KEY))
        control, copy = dcmread(BytesIO(made)), dcmread(BytesIO(made))
        with pydicom.config.disable_value_validation():
            answer = self.fault(original, copy)
            return _written(control), answer if answer is not None else _written(copy)


def original(name: str, charset: str | list[str], syntax: str) -> bytes:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax in _CODED else syntax
    ds.file_meta.SourceApplicationEntityTitle = "OLDTOWN_CR7"
    ds.SpecificCharacterSet = charset
    ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, f"{ROOT}.1"
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.FrameOfReferenceUID = f"{ROOT}.2", f"{ROOT}.3", f"{ROOT}.4"
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = name, "ZQ-448812", "OLDTOWNS"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge, ds.PatientWeight = "19510314", "F", "069Y", "71.5"
    ds.StudyDate, ds.StudyTime, ds.ContentDate, ds.AccessionNumber = "20200705", "171157", "20200706", "ACC9917733"
    ds.SeriesDate, ds.StudyID, ds.ReferringPhysicianName = "20200705", "S1", "Brombeer^Hedwig"
    ds.OperatorsName, ds.InstitutionName, ds.InstitutionAddress = "Vogelsang^Ute", "St. Ottilien", "Hafenweg 12"
    ds.OtherPatientIDs, ds.PatientTelephoneNumbers, ds.PatientAddress = "77120934", "030 7712 0934", "Lindenallee 44"
    ds.PatientComments, ds.StudyDescription = "walks with two sticks", "Thorax after fall from plum tree"
    ds.StationName, ds.DeviceSerialNumber, ds.ProtocolName = "ROENTGEN7", "SN40719", "kyphosis twelve"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition, ds.PatientOrientation = "CR", "CHEST", "PA", ["L", "F"]
    ds.ImageType, ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = ["DERIVED", "PRIMARY"], "Foundry", 1, 1
    request, reference = Dataset(), Dataset()
    request.ScheduledProcedureStepDescription, request.RequestedProcedureID = "plum tree thorax", "RP-553120"
    ds.RequestAttributesSequence = [request]
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = ComputedRadiographyImageStorage, f"{ROOT}.1"
    ds.SourceImageSequence = [reference]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns, ds.PixelSpacing, ds.WindowCenter, ds.WindowWidth = 16, 16, [0.2, 0.2], 128, 256
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.add_new(0x7FE00010, "OW", np.arange(256, dtype=np.uint8).tobytes())
    if syntax in _CODED:
        ds.PixelData = encapsulate([_CODED[syntax]()])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = syntax
    return _written(ds)


def _picture(kind: str) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    options = {"irreversible": False, "no_jp2": True} if kind == "JPEG2000" else {}
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(buffer, kind, **options)
    return buffer.getvalue() + b"\0" * (len(buffer.getvalue()) & 1)


def _runs() -> bytes:
    literal = b"".join(b"\x7f" + bytes(range(n, n + 128)) for n in (0, 128))
    return (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + literal


_CODED = {JPEGBaseline8Bit: lambda: _picture("JPEG"), JPEG2000Lossless: lambda: _picture("JPEG2000"),
          RLELossless: _runs}  # fmt: skip


def _written(ds: Dataset) -> bytes:
    buffer = BytesIO()
    with pydicom.config.disable_value_validation():
        ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _kept(*keywords: str) -> Fault:
    def fault(original: Dataset, copy: Dataset) -> None:
        for keyword in keywords:
            copy[keyword] = deepcopy(original[keyword])

    return fault


def _put(keyword: str, text: str) -> Fault:
    def fault(_: Dataset, copy: Dataset) -> None:
        setattr(copy, keyword, text)

    return fault


def _deep(vr: str, tag: int, value: object, levels: int = 1) -> Fault:
    def fault(_: Dataset, copy: Dataset) -> None:
        item = Dataset()
        item.add_new(tag, vr, value)
        for _level in range(levels - 1):
            outer = Dataset()
            outer.add_new(0x00409096, "SQ", [item])
            item = outer
        copy.add_new(0x00409096, "SQ", [item])

    return fault


def _bytes(tag: int, vr: str, text: str, codec: str) -> Fault:
    def fault(_: Dataset, copy: Dataset) -> None:
        copy.add_new(tag, vr, text.encode(codec))

    return fault


def _private(original: Dataset, copy: Dataset) -> None:
    copy.private_block(0x0029, "FOUNDRY HEADER", create=True).add_new(0x10, "UN", b"\1\2\3\4")


def _private_sequence(original: Dataset, copy: Dataset) -> None:
    item = Dataset()
    item.PatientSex = "F"
    copy.private_block(0x0029, "FOUNDRY HEADER", create=True).add_new(0x10, "SQ", [item])


def _private_name(original: Dataset, copy: Dataset) -> None:
    copy.private_block(0x00E1, "ELSCINT1", create=True).add_new(0x21, "LO", "quartermain")


def _meta(original: Dataset, copy: Dataset) -> None:
    copy.file_meta.SourceApplicationEntityTitle = original.file_meta.SourceApplicationEntityTitle


def _meta_private(original: Dataset, copy: Dataset) -> None:
    copy.file_meta.PrivateInformationCreatorUID, copy.file_meta.PrivateInformation = "1.2.3", b"plum tree "


def _preamble(original: Dataset, copy: Dataset) -> bytes:
    return b"seen by Brombeer".ljust(128, b"\0") + _written(copy)[128:]


def _tail(original: Dataset, copy: Dataset) -> bytes:
    return _written(copy) + b"plum tree "


def _many_uids(keywords: tuple[str, ...]) -> Fault:
    def fault(original: Dataset, copy: Dataset) -> None:
        for keyword in keywords:
            setattr(copy, keyword, original[keyword].value)
        copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID

    return fault


def _reference(uid: str) -> Fault:
    def fault(original: Dataset, copy: Dataset) -> None:
        copy.SourceImageSequence[0].ReferencedSOPInstanceUID = uid

    return fault


def _one_for_two(original: Dataset, copy: Dataset) -> None:
    copy.SeriesInstanceUID = copy.StudyInstanceUID


def _meaning(original: Dataset, copy: Dataset) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "39607008", "SCT", "Lung of Quartermain"
    copy.AnatomicRegionSequence = [item]


def _text_value(original: Dataset, copy: Dataset) -> None:
    item = Dataset()
    item.ValueType, item.TextValue = "TEXT", "Mrs. Zebulon  Quartermain, seen again"
    copy.ContentSequence = [item]


def _within(keyword: str, planted: Callable[[Dataset], Dataset]) -> Fault:
    def fault(original: Dataset, copy: Dataset) -> None:
        setattr(copy, keyword, [planted(original)])

    return fault


def _icon(original: Dataset) -> Dataset:
    item = Dataset()
    item.Rows = item.Columns = 8
    item.add_new(0x7FE00010, "OB", bytes(64))
    return item


def _earlier(original: Dataset) -> Dataset:
    item, modified = Dataset(), Dataset()
    modified.PatientSex = "F"
    item.ModifiedAttributesSequence = [modified]
    return item


def _request(original: Dataset) -> Dataset:
    return deepcopy(original.RequestAttributesSequence[0])


def _label(tag: int) -> Fault:
    def fault(_: Dataset, copy: Dataset) -> None:
        copy.add_new(tag, "LO", "left side")

    return fault


def _stream(after: int, inserted: Callable[[bytes], bytes] | None, tail: bytes = b"") -> Fault:
    """A code stream with something after its first bytes, or behind its end."""

    def fault(_: Dataset, copy: Dataset) -> None:
        frame = get_frame(copy.PixelData, 0, number_of_frames=1)
        frame = frame[:after] + (inserted(frame) if inserted else b"") + frame[after:] + tail
        copy.PixelData = encapsulate([frame + b"\0" * (len(frame) & 1)])
        copy["PixelData"].VR, copy["PixelData"].is_undefined_length = "OB", True

    return fault


def _segment(marker: int, text: bytes) -> Callable[[bytes], bytes]:
    return lambda _: bytes([0xFF, marker]) + (len(text) + 2).to_bytes(2, "big") + text


def _unread(original: Dataset, copy: Dataset) -> bytes:
    return _written(copy)[:-100]


def _not_said(original: Dataset, copy: Dataset) -> None:
    del copy.PatientIdentityRemoved


_LUT = "LUTExplanation"  # an attribute without a row: it stays


def mutants() -> Iterator[Mutant]:
    """Every kind of fault."""
    yield from _skipped()
    yield from _misread()
    yield from _elsewhere()
    yield from _spelt()


def _skipped() -> Iterator[Mutant]:
    """Actions that did not happen."""
    yield Mutant("Z skipped: birth date", "PatientBirthDate", _kept("PatientBirthDate"))
    yield Mutant("Z skipped: one letter (sex)", "PatientSex", _kept("PatientSex"))
    yield Mutant("Z skipped: accession number", "AccessionNumber", _kept("AccessionNumber"))
    yield Mutant("Z skipped: study time", "StudyTime", _kept("StudyTime"))
    yield Mutant("Z/D skipped: patient ID", "PatientID", _kept("PatientID"))
    yield Mutant("Z/D skipped: content date", "ContentDate", _kept("ContentDate"))
    yield Mutant("X skipped: age", "PatientAge", _kept("PatientAge"))
    yield Mutant("X skipped: a number (weight)", "PatientWeight", _kept("PatientWeight"))
    yield Mutant("X skipped: other patient IDs", "OtherPatientIDs", _kept("OtherPatientIDs"))
    yield Mutant("X skipped: telephone", "PatientTelephoneNumbers", _kept("PatientTelephoneNumbers"))
    yield Mutant("X skipped: address", "PatientAddress", _kept("PatientAddress"))
    yield Mutant("X skipped: patient comments", "PatientComments", _kept("PatientComments"))
    yield Mutant("X skipped: staff", "OperatorsName", _kept("OperatorsName"))
    yield Mutant("X skipped: description", "StudyDescription", _kept("StudyDescription"))
    yield Mutant("X/Z/D skipped: institution", "InstitutionName", _kept("InstitutionName"))
    yield Mutant("X/Z/D skipped: device serial number", "DeviceSerialNumber", _kept("DeviceSerialNumber"))
    yield Mutant("X/Z/D skipped: station", "StationName", _kept("StationName"))
    yield Mutant("X/D skipped: protocol", "ProtocolName", _kept("ProtocolName"))
    yield Mutant("X skipped: a sequence", "RequestedProcedureID", _within("RequestAttributesSequence", _request))
    yield Mutant("X skipped: original attributes", "OriginalAttributesSequence",
                 _within("OriginalAttributesSequence", _earlier))  # fmt: skip
    yield Mutant("X skipped: icon image", "IconImageSequence", _within("IconImageSequence", _icon))
    yield Mutant("U skipped: series", "SeriesInstanceUID", _many_uids(("SeriesInstanceUID",)))
    yield Mutant("U skipped: instance", "SOPInstanceUID", _many_uids(("SOPInstanceUID",)))
    yield Mutant("a reference kept", "SOPInstanceUID", _reference(f"{ROOT}.1"))
    yield Mutant("a reference to another UID than the instance got", "references", _reference("2.25.4711"))
    yield Mutant("two UIDs made one", "references", _one_for_two)
    yield Mutant("a date shifted by zero days", "SeriesDate", _kept("SeriesDate"), options=SHIFTED)
    yield Mutant("the copy does not say that it is one", "PatientIdentityRemoved", _not_said)


def _misread() -> Iterator[Mutant]:
    """Encodings and depths that were missed."""
    yield Mutant("one nested level missed", "PatientName", _deep("PN", 0x00100010, "Quartermain^Zebulon"))
    yield Mutant("the third level missed", "PatientName", _deep("LO", 0x00283003, "Quartermain", 3))
    yield Mutant("UTF-8 missed", "PatientName", _bytes(0x00283003, "LO", "Szczęśniak", "utf-8"), "Szczęśniak^Z")
    yield Mutant("Latin-1 missed", "PatientName", _bytes(0x00283003, "LO", "Müßiggäng", "latin-1"), "Müßiggäng^A")
    yield Mutant("GB18030 missed", "PatientName", _bytes(0x00283003, "LO", "见 王小东", "gb18030"),
                 "Wang^XiaoDong=王^小东", "GB18030")  # fmt: skip
    yield Mutant("ISO 2022 Japanese missed", "PatientName", _bytes(0x00283003, "LO", "山田 x", "iso2022_jp"),
                 "Yamada^Tarou=山田^太郎", ["", "ISO 2022 IR 87"])  # fmt: skip
    yield Mutant("Shift JIS missed", "PatientName", _bytes(0x00283003, "LO", "ﾔﾏﾀﾞ", "shift_jis"),
                 "Yamada^Tarou==ﾔﾏﾀﾞ^ﾀﾛｳ", ["ISO_IR 13", "ISO 2022 IR 87"])  # fmt: skip
    yield Mutant("ISO 2022 Korean missed", "PatientName",
                 lambda _, copy: copy.add_new(0x00283003, "LO", b"\x1b$)C" + "김희중".encode("euc_kr")),
                 "Hong^Gildong=金^喜中=김희중^길동", ["", "ISO 2022 IR 149"])  # fmt: skip
    yield Mutant("UTF-16 missed", "PatientName", _bytes(0x00281199, "OW", "Quartermain", "utf-16-le"))
    yield Mutant("an element of VR UN", "PatientName", _bytes(0x00283003, "UN", "quartermain ", "ascii"))
    for words, syntax in (("a deflated data set", DeflatedExplicitVRLittleEndian),
                          ("implicit VR", ImplicitVRLittleEndian), ("big endian", ExplicitVRBigEndian)):  # fmt: skip
        yield Mutant(f"a name nested in {words}", "PatientName", _deep("LO", 0x00283003, "Quartermain"), syntax=syntax)
    yield Mutant("base64", "PatientName",
                 _put(_LUT, base64.b64encode(b"id Quartermain").decode()))  # fmt: skip
    yield Mutant("hexadecimal digits", "PatientName", _put(_LUT, b"Quartermain".hex()))
    yield Mutant("a copy that ends too early", "unreadable", _unread)


def _elsewhere() -> Iterator[Mutant]:
    """What stands outside the elements that one thinks of."""
    yield Mutant("a private block kept", "a private attribute", _private)
    yield Mutant("a private sequence kept", "a private attribute", _private_sequence)
    yield Mutant("a safe private attribute that holds a name", "PatientName", _private_name,
                 options=frozenset({Option.RETAIN_SAFE_PRIVATE}))  # fmt: skip
    yield Mutant("file meta copied: AE title", "SourceApplicationEntityTitle", _meta)
    yield Mutant("file meta copied: private information", "PrivateInformation", _meta_private)
    yield Mutant("preamble kept", "preamble", _preamble)
    yield Mutant("trailing bytes kept", "bytes after the data set", _tail)
    yield Mutant("trailing padding kept", "bytes after the data set", _bytes(0xFFFCFFFC, "OB", "plum", "ascii"))
    yield Mutant("overlay label kept (60xx)", "OverlayLabel", _label(0x60001500))
    yield Mutant("curve label kept (50xx)", "CurveLabel", _label(0x50002500))
    yield Mutant("a name in a JPEG comment", "PatientName",
                 _stream(2, _segment(0xFE, b"Zebulon Quartermain")), syntax=JPEGBaseline8Bit)  # fmt: skip
    yield Mutant("any JPEG comment", "a comment in a frame",
                 _stream(2, _segment(0xFE, b"two sticks")), syntax=JPEGBaseline8Bit)  # fmt: skip
    yield Mutant("a name in a JPEG 2000 comment", "PatientName",
                 _stream(51, _segment(0x64, b"\0\1QUARTERMAIN Z")), syntax=JPEG2000Lossless)  # fmt: skip
    yield Mutant("a name behind the last run (RLE)", "PatientName", _stream(0, None, b"quartermain"),
                 syntax=RLELossless)  # fmt: skip


def _spelt() -> Iterator[Mutant]:
    """The patient in texts that stay."""
    texts = [
        ("name, given first", "PatientName", "Zebulon Quartermain"),
        ("name in lower case", "PatientName", "mrs quartermain"),
        ("name with a hyphen", "PatientName", "Quarter-main"),
        ("name with an underscore, joined", "PatientName", "QUARTERMAIN_ZEBULON"),
        ("referring physician", "ReferringPhysicianName", "to dr. brombeer"),
        ("patient ID with other separators", "PatientID", "ZQ 448 812"),
        ("telephone with other separators", "PatientTelephoneNumbers", "tel. 030/77120934"),
        ("address", "PatientAddress", "lives LINDENALLEE 44"),
        ("institution", "InstitutionName", "from St.Ottilien"),
        ("AE title", "SourceApplicationEntityTitle", "via OLDTOWN_CR7"),
        ("birth date as ISO 8601", "PatientBirthDate", "born 1951-03-14"),
        ("birth date as in Germany", "PatientBirthDate", "geb. 14.3.1951"),
        ("birth date as in the USA", "PatientBirthDate", "DOB 03/14/1951"),
        ("date with its month in letters", "StudyDate", "on 5 July 2020"),
        ("a UID", "StudyInstanceUID", f"see {ROOT}.3."),
        ("a removed description", "StudyDescription", "thorax after fall from plum tree"),
    ]
    for kind, said, text in texts:
        yield Mutant(f"in text: {kind}", said, _put(_LUT, text))
    yield Mutant("in text: accents lost", "PatientName", _put(_LUT, "MUESSIGGAENG"), "Müßiggäng^A")
    yield Mutant("in text: accents gained", "PatientName", _put(_LUT, "Quartérmäin"))
    yield Mutant("in text: names too short to stand alone", "PatientName", _put(_LUT, "for Wei Li"), "Li^Wei")
    yield Mutant("in text: a single ideograph each", "PatientName", _put(_LUT, "氏 王东"), "Wang^Dong=王^东")
    yield Mutant("accession number in Study ID", "AccessionNumber", _put("StudyID", "acc9917733"))
    yield Mutant("a name in Code Meaning", "PatientName", _meaning)
    yield Mutant("a name in the text of a report", "PatientName", _text_value)
    yield Mutant("a name in Image Type", "PatientName",
                 lambda _, copy: setattr(copy, "ImageType", ["DERIVED", "PRIMARY", "QUARTERMAIN"]))  # fmt: skip


def table() -> str:
    """What `proof` said of each, as Markdown. Raises AssertionError if it missed one, or alarms at a correct copy."""
    lines = []
    for mutant in mutants():
        original = mutant.original()
        control, broken = mutant.copies()
        alarms, said = leaks(original, [control]), leaks(original, [broken], mutant.options)
        assert not alarms, mutant.kind
        assert mutant.said in said, mutant.kind
        lines.append(f"| {mutant.kind} | {', '.join(said)} |")
    return "\n".join(lines)


HEAD = """# Broken removers that the proof catches

Into a correct copy one fault is laid, as a broken remover would leave it, and `medgem_node.deid.proof.leaks` is asked.
The copy without the fault, written by the same writer, raises no alarm. Caught: {count} of {count}.

Made by `python tests/deid/mutants.py`; `tests/deid/test_mutations.py` asks the same at every run of the tests.

| fault | what the proof says |
| --- | --- |
"""


def main() -> None:
    """Write the table."""
    rows = table()
    target = Path(__file__).parents[2] / "docs" / "results" / "deid-mutations.md"
    target.write_text(HEAD.format(count=rows.count("\n") + 1) + rows + "\n", encoding="utf-8")
    sys.stdout.write(f"{target}\n")


if __name__ == "__main__":
    main()
