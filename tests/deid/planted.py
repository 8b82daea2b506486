"""A corpus whose every planted value is known: where it stands, and whether the Basic Profile lets it stay.

One study a patient, one patient a character set. Each object carries a value of its own in every attribute of
Table E.1-1, on top and inside sequences that stay, in private blocks, in attributes without a row, in the file meta
information, the preamble and what follows the data set; and the patient's own name and numbers in other texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import pydicom.config
from letters import CHARSETS, Writer
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    TwelveLeadECGWaveformStorage,
)

_TABLE = json.loads(files("medgem_node.deid").joinpath("table_e1.json").read_text("utf-8"))["rows"]
_SPECIAL = {0x00020003, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00100010, 0x00100020, 0x00080050, 0x00080005}
UNLISTED = (
    (0x00181210, "SH"), (0x00181160, "SH"), (0x00281055, "LO"), (0x00700081, "LO"), (0x00620006, "ST"),
    (0x00082132, "LO"), (0x00080222, "LO"), (0x00189005, "SH"), (0x00180015, "CS"), (0x0040A160, "UT"),
)  # fmt: skip
"""Attributes that Table E.1-1 lets stay, in which people write what they like; 0018,0015 is a CS (up to 16)."""


@dataclass(frozen=True, slots=True)
class Planted:
    """A value that must not be in the copy of `file`: `token` as bytes as they were written there."""

    file: str
    where: str
    keyword: str
    token: bytes


@dataclass(frozen=True, slots=True)
class Corpus:
    """What was written: the values that must go, the attributes that must stay, and the references."""

    planted: tuple[Planted, ...]
    core: dict[str, dict[str, object]]
    references: dict[str, tuple[tuple[str, str], ...]]
    """Of each file, where it refers to another (keywords and item numbers), and to which."""


def rows() -> Iterator[tuple[int, str, str, str]]:
    """Tag, keyword, VR and basic action of each row that names one attribute; repeating groups by their first."""
    for tag, _, keyword, vr, action, _ in _TABLE:
        if tag == "PRIVATE" or tag[:4] in ("0000", "0002"):
            continue
        number = int(tag.replace("x", "0").replace("X", "0"), 16)
        if number >> 16 & 1 or number in (0x00080005, 0xFFFCFFFC):  # the second is planted as a tail
            continue
        if vr == "any":
            number, vr = 0x50002500, "LO"  # Curve Label
        yield number, keyword or tag, vr or "LO", action


OBJECTS = ("ct1", "ct2", "mr", "cr", "emr", "sr", "ko", "pr", "rt", "seg", "ecg")
WHOLE: dict[str, tuple[str, ...]] = dict.fromkeys(CHARSETS, OBJECTS)
"""Every object in every character set."""
FEW: dict[str, tuple[str, ...]] = {
    "latin": ("ct1", "ct2", "ko"), "utf8": ("ct1", "emr"), "gb18030": ("ct1", "seg"), "japanese": ("ct1", "pr"),
    "korean": ("mr", "ecg"), "cyrillic": ("cr",), "greek": ("ct1", "rt"), "hebrew": ("ct1", "ct2", "sr"),
}  # fmt: skip
"""Each object and each character set at least once."""


def write_corpus(folder: Path, chosen: Mapping[str, Sequence[str]] = WHOLE, seed: int = 1) -> Corpus:
    """Write a study for each character set into `folder`, and tell what was planted where."""
    with pydicom.config.disable_value_validation():
        return _write_corpus(folder, chosen, seed)


def _write_corpus(folder: Path, chosen: Mapping[str, Sequence[str]], seed: int) -> Corpus:
    planted: list[Planted] = []
    core: dict[str, dict[str, object]] = {}
    references: dict[str, tuple[tuple[str, str], ...]] = {}
    for charset, names in chosen.items():
        writer = Writer(charset, seed)
        study = _Study(writer)
        for name, dataset, syntax in study.objects():
            if name not in names:
                continue
            file = f"{charset}/{name}.dcm"
            keep = study.core_of(dataset)
            tokens = study.plant(dataset, name)
            data, outside = _file(dataset, syntax, writer, name)
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            planted += [Planted(file, where, keyword, token) for where, keyword, token in (*tokens, *outside)]
            core[file], references[file] = keep, _references(study.referenced.get(name, ()), charset)
    return Corpus(tuple(planted), core, references)


class _Study:
    """One patient's objects, which refer to each other."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.family, self.given = writer.word(), writer.latin()
        self.patient_id, self.accession = f"{writer.latin(3).upper()}-{writer.digits(7)}", f"A{writer.digits(9)}"
        self.birth, self.date = writer.day(), writer.day()
        self.referring = writer.latin(10)
        self.study, self.frame = writer.uid(), writer.uid()
        self.series = {name: writer.uid() for name in ("ct", "mr", "cr", "emr", "sr", "ko", "pr", "rt", "seg", "ecg")}
        self.instances = {name: writer.uid() for name in ("ct1", "ct2", *self.series)}
        self.referenced: dict[str, list[tuple[str, str]]] = {}

    def objects(self) -> Iterator[tuple[str, Dataset, str]]:
        """Name, data set and transfer syntax of each."""
        yield "ct1", self._image("ct1", "ct", CTImageStorage, "CT"), ExplicitVRLittleEndian
        yield "ct2", self._image("ct2", "ct", CTImageStorage, "CT"), DeflatedExplicitVRLittleEndian
        yield "mr", self._image("mr", "mr", MRImageStorage, "MR"), ExplicitVRBigEndian
        yield "cr", self._image("cr", "cr", ComputedRadiographyImageStorage, "CR"), JPEGBaseline8Bit
        yield "emr", self._enhanced(), ImplicitVRLittleEndian
        yield "sr", self._document("sr", ComprehensiveSRStorage, "SR"), ExplicitVRLittleEndian
        yield "ko", self._document("ko", KeyObjectSelectionDocumentStorage, "KO"), ImplicitVRLittleEndian
        yield "pr", self._presentation(), ExplicitVRLittleEndian
        yield "rt", self._structures(), ImplicitVRLittleEndian
        yield "seg", self._segmentation(), ExplicitVRLittleEndian
        yield "ecg", self._waveform(), ExplicitVRLittleEndian

    def core_of(self, ds: Dataset) -> dict[str, object]:
        """What says nothing of the patient and must be the same in the copy."""
        keywords = (
            "Modality Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel "
            "PhotometricInterpretation PixelSpacing ImagePositionPatient ImageOrientationPatient SliceThickness KVP "
            "RescaleSlope RescaleIntercept EchoTime RepetitionTime SeriesNumber InstanceNumber PatientPosition "
            "NumberOfFrames BodyPartExamined SOPClassUID ValueType"
        )
        return {k: str(ds[k].value) for k in keywords.split() if k in ds}

    def plant(self, ds: Dataset, name: str) -> list[tuple[str, str, bytes]]:
        """Put a value of its own into every attribute of the table, and the patient into other texts."""
        own = [("top", "PatientName", self.writer.encoded(self.family)),
               ("top", "PatientName", self.given.encode()),
               ("top", "PatientID", self.patient_id[4:].encode()), ("top", "AccessionNumber", self.accession.encode()),
               ("top", "StudyInstanceUID", self.study.encode()),
               ("top", "ReferringPhysicianName", self.referring.encode()),
               ("top", "PatientBirthDate", self.birth.encode()), ("top", "StudyDate", self.date.encode()),
               ("top", "SOPInstanceUID", str(ds.SOPInstanceUID).encode())]  # fmt: skip
        tokens = [*own, *self._rows_into(ds, "top")]
        holder = Dataset()
        tokens += self._rows_into(holder, "nested")
        deep = Dataset()
        tokens += self._rows_into(deep, "three deep")
        holder.add_new(0x00409096, "SQ", [_inside(0x00409096, deep)])
        ds.add_new(0x00409096, "SQ", [holder])  # Real World Value Mapping Sequence: no row, so it stays
        tokens += self._private(ds)
        self._texts(ds)
        return tokens

    def _rows_into(self, ds: Dataset, where: str) -> list[tuple[str, str, bytes]]:
        tokens: list[tuple[str, str, bytes]] = []
        for tag, keyword, vr, _ in rows():
            if tag in _SPECIAL or tag in ds or tag >> 16 == 0x7FE0:
                continue
            if vr == "SQ":
                item, inner = self._item()
                ds.add_new(tag, "SQ", [item])
                tokens += [(f"in a sequence, {where}", keyword, token) for token in inner]
                continue
            value, token = self.writer.value(vr)
            ds.add_new(tag, vr.split(" or ")[-1] if vr.split(" or ")[0] in ("OB", "OW") else vr.split(" or ")[0], value)
            if token:
                tokens.append((where, keyword, token))
        return tokens

    def _item(self) -> tuple[Dataset, list[bytes]]:
        """An item of a code of a site's own, with a person and an instance."""
        item, meaning, value, person = Dataset(), self.writer.word(), self.writer.latin(), self.writer.word()
        uid = self.writer.uid()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99SITE", meaning
        item.PersonName, item.ReferencedSOPInstanceUID = f"{person}^X", uid
        return item, [self.writer.encoded(meaning), value.encode(), self.writer.encoded(person), uid.encode()]

    def _private(self, ds: Dataset) -> list[tuple[str, str, bytes]]:
        creator, text, blob, nested = (self.writer.latin(12) for _ in range(4))
        block = ds.private_block(0x0029, creator, create=True)
        block.add_new(0x10, "LO", text)
        block.add_new(0x11, "UN", blob.encode())
        item = Dataset()
        item.PatientComments = nested
        block.add_new(0x12, "SQ", [item])
        return [("private", "a private element", t.encode()) for t in (creator, text, blob, nested)]

    def _texts(self, ds: Dataset) -> None:
        """The patient in attributes that stay, in every spelling."""
        family, given = self.family, self.given
        spellings = [
            f"{given} {family}", f"{family}, {given}", f"{given.upper()}_{family}", f"pat {self.patient_id}",
            f"{self.patient_id.replace('-', ' ')} x", f"acc#{self.accession}", f"born {self.birth}",
            f"*{self.birth[6:]}.{self.birth[4:6]}.{self.birth[:4]}", f"Dr {self.referring}", f"seen {family}",
        ]  # fmt: skip
        for (tag, vr), text in zip(UNLISTED, spellings, strict=True):
            text = self.patient_id.replace("-", "_").upper() if vr == "CS" else text[: {"SH": 16}.get(vr, 64)]
            if tag not in ds:
                ds.add_new(tag, vr, text)

    def _patient(self, name: str, series: str, sop_class: str, modality: str) -> Dataset:
        ds = Dataset()
        ds.SpecificCharacterSet = self.writer.terms
        ds.SOPClassUID, ds.SOPInstanceUID = sop_class, self.instances[name]
        ds.StudyInstanceUID, ds.SeriesInstanceUID = self.study, self.series[series]
        ds.PatientName, ds.PatientID = f"{self.family}^{self.given}", self.patient_id
        ds.PatientBirthDate, ds.PatientSex, ds.StudyDate, ds.StudyTime = self.birth, "F", self.date, "101112"
        ds.AccessionNumber, ds.ReferringPhysicianName = self.accession, f"{self.referring}^Doc"
        ds.StudyID, ds.SeriesNumber, ds.InstanceNumber, ds.Modality = "1", 1, 1, modality
        ds.Manufacturer = "Foundry"
        return ds

    def _image(self, name: str, series: str, sop_class: str, modality: str) -> Dataset:
        ds = self._patient(name, series, sop_class, modality)
        ds.ImageType, ds.BodyPartExamined, ds.PatientPosition = ["ORIGINAL", "PRIMARY", "AXIAL"], "CHEST", "HFS"
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 16, 16, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (8, 8, 7, 0) if modality == "CR" else (
            16, 12, 11, 0)  # fmt: skip
        ds.FrameOfReferenceUID, ds.SliceThickness, ds.KVP = self.frame, "5", "120"
        ds.PixelSpacing, ds.ImagePositionPatient = ["0.5", "0.5"], ["0", "0", "1"]
        ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
        ds.add_new(0x7FE00010, "OW", bytes(range(256)) * ds.BitsAllocated.__floordiv__(8))
        return ds

    def _enhanced(self) -> Dataset:
        ds = self._image("emr", "emr", EnhancedMRImageStorage, "MR")
        ds.NumberOfFrames = 2
        ds.PixelData = bytes(1024)
        content = Dataset()
        content.FrameAcquisitionDateTime, content.FrameReferenceDateTime = f"{self.date}1011", f"{self.date}1012"
        content.FrameComments = f"{self.family} {self.given}"
        frame = Dataset()
        frame.FrameContentSequence = [content]
        path = "PerFrameFunctionalGroupsSequence.0.ReferencedImageSequence.0"
        frame.ReferencedImageSequence = [self._reference("emr", "ct1", path)]
        ds.PerFrameFunctionalGroupsSequence = [frame, frame]
        return ds

    def _reference(self, of: str, to: str, path: str) -> Dataset:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, self.instances[to]
        self.referenced.setdefault(of, []).append((path, to))
        return item

    def _document(self, name: str, sop_class: str, modality: str) -> Dataset:
        ds = self._patient(name, name, sop_class, modality)
        ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
        ds.ConceptNameCodeSequence = [_code("113000" if modality == "KO" else "126000", "DCM", "Of Interest")]
        series = Dataset()
        series.SeriesInstanceUID = self.series["ct"]
        path = "CurrentRequestedProcedureEvidenceSequence.0.ReferencedSeriesSequence.0.ReferencedSOPSequence"
        series.ReferencedSOPSequence = [self._reference(name, to, f"{path}.{n}") for n, to in enumerate(("ct1", "ct2"))]
        study = Dataset()
        study.StudyInstanceUID, study.ReferencedSeriesSequence = self.study, [series]
        ds.CurrentRequestedProcedureEvidenceSequence = [study]
        return ds

    def _presentation(self) -> Dataset:
        ds = self._patient("pr", "pr", GrayscaleSoftcopyPresentationStateStorage, "PR")
        series = Dataset()
        series.SeriesInstanceUID = self.series["ct"]
        series.ReferencedImageSequence = [
            self._reference("pr", "ct1", "ReferencedSeriesSequence.0.ReferencedImageSequence.0")
        ]
        ds.ReferencedSeriesSequence = [series]
        return ds

    def _structures(self) -> Dataset:
        ds = self._patient("rt", "rt", RTStructureSetStorage, "RTSTRUCT")
        contour, roi = Dataset(), Dataset()
        path = "ROIContourSequence.0.ContourSequence.0.ContourImageSequence.0"
        contour.ContourImageSequence = [self._reference("rt", "ct1", path)]
        contour.ContourGeometricType, contour.NumberOfContourPoints, contour.ContourData = "POINT", 1, ["1", "2", "3"]
        roi.ReferencedROINumber, roi.ContourSequence = 1, [contour]
        ds.ROIContourSequence = [roi]
        return ds

    def _segmentation(self) -> Dataset:
        ds = self._patient("seg", "seg", SegmentationStorage, "SEG")
        source, frame = Dataset(), Dataset()
        source.DerivationCodeSequence = [_code("113076", "DCM", "Segmentation")]
        path = "PerFrameFunctionalGroupsSequence.0.DerivationImageSequence.0.SourceImageSequence.0"
        source.SourceImageSequence = [self._reference("seg", "ct1", path)]
        frame.DerivationImageSequence = [source]
        ds.PerFrameFunctionalGroupsSequence = [frame]
        ds.Rows, ds.Columns, ds.NumberOfFrames, ds.SamplesPerPixel = 16, 16, 1, 1
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.add_new(0x7FE00010, "OB", bytes(256))
        return ds

    def _waveform(self) -> Dataset:
        ds = self._patient("ecg", "ecg", TwelveLeadECGWaveformStorage, "ECG")
        group = Dataset()
        group.NumberOfWaveformChannels, group.NumberOfWaveformSamples, group.SamplingFrequency = 1, 8, "500"
        group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
        group.add_new(0x54001010, "OW", bytes(16))
        ds.WaveformSequence = [group]
        return ds


def _inside(tag: int, ds: Dataset) -> Dataset:
    """A data set one sequence deeper."""
    item = Dataset()
    item.add_new(tag, "SQ", [ds])
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _file(ds: Dataset, syntax: str, writer: Writer, name: str) -> tuple[bytes, list[tuple[str, str, bytes]]]:
    """The file, with a preamble, file meta information and a tail that tell of the site."""
    sender, note, front, tail = (writer.latin(12) for _ in range(4))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle = syntax, sender
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = writer.uid(), note.encode()
    outside = [("file meta", "SourceApplicationEntityTitle", sender.encode()),
               ("file meta", "PrivateInformation", note.encode()),
               ("preamble", "preamble", front.encode())]  # fmt: skip
    if syntax == JPEGBaseline8Bit:
        comment = writer.latin(12)
        ds.PixelData = encapsulate([_jpeg(comment)])
        ds["PixelData"].is_undefined_length = True
        ds["PixelData"].VR = "OB"
        outside.append(("code stream", "a JPEG comment", comment.encode()))
    elif syntax != DeflatedExplicitVRLittleEndian:
        ds.add_new(0xFFFCFFFC, "OB", tail.encode())
        outside.append(("tail", "DataSetTrailingPadding", tail.encode()))
    ds.file_meta = meta
    ds.preamble = front.encode().ljust(128, b"\0")
    buffer = BytesIO()
    little, implicit = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    dcmwrite(buffer, ds, enforce_file_format=True, little_endian=little, implicit_vr=implicit)
    return buffer.getvalue(), outside


def _jpeg(comment: str) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.new("L", (16, 16), 90).save(buffer, "JPEG", comment=comment)
    data = buffer.getvalue()
    return data + b"\0" * (len(data) & 1)


def _references(found: Sequence[tuple[str, str]], charset: str) -> tuple[tuple[str, str], ...]:
    return tuple((path, f"{charset}/{to}.dcm") for path, to in found)
