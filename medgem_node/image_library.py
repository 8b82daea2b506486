"""How the images of a report were acquired: its Image Library (PS3.16 TID 1600 to 1606).

What all images of a series have alike stands once, at the series' group; an image repeats only what is its own, so a
volume of many slices stays small. Headers come from strangers: what is missing or no valid value is left out, and a
code is taken only if it is one of the context group's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from highdicom import sr
from highdicom.sr import RelationshipTypeValues
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from medgem_node.geometry import frames, plane, size, spacing_mm
from medgem_node.header import ascii_, text_of

_NO_IMAGES = tuple(f"1.2.840.10008.5.1.4.1.1.{n}." for n in (9, 11, 88, 104))  # waveforms, states, reports, documents
_PROJECTION = ("CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA")
_MODALITIES = {c.value: c for c in codes.cid29.concepts.values()}
_SIDES = {"L": codes.cid244.Left, "R": codes.cid244.Right, "B": codes.cid244.Bilateral}
_VIEWS = {  # Defined Terms of View Position, PS3.3 C.8.7.1.1 and C.8.11.7
    "AP": codes.cid4010.AnteroPosterior,
    "PA": codes.cid4010.PosteroAnterior,
    "LL": codes.cid4010.LeftLateral,
    "RL": codes.cid4010.RightLateral,
    "LAO": codes.cid4010.LeftAnteriorOblique,
    "RAO": codes.cid4010.RightAnteriorOblique,
    "LPO": codes.cid4010.LeftPosteriorOblique,
    "RPO": codes.cid4010.RightPosteriorOblique,
}
_REGIONS = {name.upper(): c for name, c in codes.cid4031.concepts.items()} | {
    "BRAIN": codes.cid4031.Head,  # Defined Terms of Body Part Examined, PS3.16 Annex L, that CID 4031 names otherwise
    "THORAX": codes.cid4031.Chest,
    "LUNG": codes.cid4031.Chest,
    "CSPINE": codes.cid4031.CervicalSpine,
    "TSPINE": codes.cid4031.ThoracicSpine,
    "LSPINE": codes.cid4031.LumbarSpine,
}
_ACQUISITIONS = {  # Acquisition Type, PS3.3 C.8.15.3.2
    "SEQUENCED": codes.cid10013.SequencedAcquisition,
    "SPIRAL": codes.cid10013.SpiralAcquisition,
    "CONSTANT_ANGLE": codes.cid10013.ConstantAngleAcquisition,
    "STATIONARY": codes.cid10013.StationaryAcquisitionCT,
    "FREE": codes.cid10013.FreeAcquisition,
}
_PIXELS = Code("{pixels}", "UCUM", "Pixels")
_COSINE = Code("{-1:1}", "UCUM", "{-1:1}")
_MM = codes.UCUM.Millimeter
_POSITION = (codes.DCM.ImagePositionPatientX, codes.DCM.ImagePositionPatientY, codes.DCM.ImagePositionPatientZ)
_ORIENTATION = (
    codes.DCM.ImageOrientationPatientRowX,
    codes.DCM.ImageOrientationPatientRowY,
    codes.DCM.ImageOrientationPatientRowZ,
    codes.DCM.ImageOrientationPatientColumnX,
    codes.DCM.ImageOrientationPatientColumnY,
    codes.DCM.ImageOrientationPatientColumnZ,
)


@dataclass(frozen=True, slots=True)
class _Fact:
    """One row of the template; the kind of its value decides the kind of the content item."""

    name: Code
    value: Code | UID | date | float | str
    unit: Code | None = None
    is_time: bool = False


def library(images: Iterable[Dataset]) -> list[sr.ContainerContentItem]:
    """TID 1600 with a group for each series; what is no image, or has no Rows, is named in the evidence only."""
    of_series: dict[str, list[Dataset]] = {}
    for image in images:
        if min(size(image)) > 0 and not str(image.SOPClassUID).startswith(_NO_IMAGES):
            of_series.setdefault(str(image.SeriesInstanceUID), []).append(image)
    if not of_series:
        return []
    whole = _container(codes.DCM.ImageLibrary)
    whole.ContentSequence = sr.ContentSequence(_group(series) for series in of_series.values())
    return [whole]


def _container(name: Code) -> sr.ContainerContentItem:
    return sr.ContainerContentItem(name, relationship_type=RelationshipTypeValues.CONTAINS)


def _group(series: Sequence[Dataset]) -> sr.ContainerContentItem:
    facts = [list(_facts(image)) for image in series]
    common = set(facts[0]).intersection(*facts[1:])
    group = _container(codes.DCM.ImageLibraryGroup)
    group.ContentSequence = sr.ContentSequence(_item(fact) for fact in facts[0] if fact in common)
    group.ContentSequence.extend(
        _entry(image, [f for f in own if f not in common]) for image, own in zip(series, facts, strict=True)
    )
    return group


def _entry(image: Dataset, facts: Sequence[_Fact]) -> sr.ImageContentItem:
    entry = sr.ImageContentItem(
        codes.SCT.Source,
        str(image.SOPClassUID),
        str(image.SOPInstanceUID),
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    if facts:
        entry.ContentSequence = sr.ContentSequence(map(_item, facts))
    return entry


def _item(fact: _Fact) -> sr.ContentItem:
    kind = RelationshipTypeValues.HAS_ACQ_CONTEXT
    if isinstance(fact.value, Code):
        return sr.CodeContentItem(fact.name, fact.value, kind)
    if isinstance(fact.value, UID):
        return sr.UIDRefContentItem(fact.name, fact.value, kind)
    if isinstance(fact.value, date):
        return sr.DateContentItem(fact.name, fact.value, kind)
    if isinstance(fact.value, str):
        return (sr.TimeContentItem if fact.is_time else sr.TextContentItem)(fact.name, fact.value, kind)
    return sr.NumContentItem(fact.name, fact.value, fact.unit, relationship_type=kind)


def _facts(image: Dataset) -> Iterator[_Fact]:
    """TID 1602, then what belongs to the kind of image."""
    modality = text_of(image, "Modality")
    if modality in _MODALITIES:
        yield _Fact(codes.DCM.Modality, _MODALITIES[modality])
    # CID 4031 gave the chest another code; a checker of either age refuses the other's, and the row is optional
    if (region := _region(image)) is not None and region != codes.cid4031.Chest:
        yield _Fact(codes.DCM.TargetRegion, region)
    if (side := _SIDES.get(text_of(image, "ImageLaterality") or text_of(image, "Laterality"))) is not None:
        yield _Fact(codes.DCM.ImageLaterality, side)
    yield from _times(image)
    frame_of_reference_uid = UID(text_of(image, "FrameOfReferenceUID"))
    if frame_of_reference_uid.is_valid:
        yield _Fact(codes.DCM.FrameOfReferenceUID, frame_of_reference_uid)
    rows, columns = size(image)
    yield _Fact(codes.DCM.PixelDataRows, rows, _PIXELS)
    yield _Fact(codes.DCM.PixelDataColumns, columns, _PIXELS)
    if modality in _PROJECTION:
        yield from _projection(image)
    else:
        yield from _cross_section(image)
    if modality == "CT":
        acquisition = _ACQUISITIONS.get(_acquisition_type(image))
        yield from [_Fact(codes.DCM.CTAcquisitionType, acquisition)] if acquisition else []  # TID 1605
    if modality == "MR":
        sequence = ascii_(text_of(image, "PulseSequenceName") or text_of(image, "SequenceName"), 64)
        yield from [_Fact(codes.DCM.PulseSequenceName, sequence)] if sequence else []  # TID 1606


def _times(image: Dataset) -> Iterator[_Fact]:
    named = {
        "Study": (codes.DCM.StudyDate, codes.DCM.StudyTime),
        "Content": (codes.DCM.ContentDate, codes.DCM.ContentTime),
        "Acquisition": (codes.DCM.AcquisitionDate, codes.DCM.AcquisitionTime),
    }
    for stem, (date_name, time_name) in named.items():
        try:
            yield _Fact(date_name, datetime.strptime(text_of(image, f"{stem}Date"), "%Y%m%d").date())
            time = text_of(image, f"{stem}Time").partition(".")[0]
            datetime.strptime(time, "%H%M%S")
            yield _Fact(time_name, time, is_time=True)
        except ValueError:
            continue


def _projection(image: Dataset) -> Iterator[_Fact]:
    """TID 1603."""
    if (view := _view(image)) is not None:
        yield _Fact(codes.DCM.ImageView, view)
    orientation = text_of(image, "PatientOrientation").strip("[]").replace("'", "").replace("\\", ",").split(",")
    if len(orientation) == 2 and all(part.strip().isalpha() for part in orientation):
        row, column = (ascii_(part.strip(), 16) for part in orientation)
        yield _Fact(codes.DCM.PatientOrientationRow, row)
        yield _Fact(codes.DCM.PatientOrientationColumn, column)
    yield from _spacing(spacing_mm(image))


def _cross_section(image: Dataset) -> Iterator[_Fact]:
    """TID 1604; of an image with several frames only what is said of the first, where all share it."""
    yield from _spacing(spacing_mm(image))
    for name, keyword in (
        (codes.DCM.SpacingBetweenSlices, "SpacingBetweenSlices"),
        (codes.DCM.SliceThickness, "SliceThickness"),
    ):
        if (value := _number(image, keyword)) is not None:
            yield _Fact(name, value, _MM)
    place = plane(image)
    if place is None or frames(image) > 1:
        return
    for name, value in zip(_POSITION, place.position_mm, strict=True):
        yield _Fact(name, value, _MM)
    for name, value in zip(_ORIENTATION, (*place.across, *place.down), strict=True):
        yield _Fact(name, value, _COSINE)


def _spacing(spacing: tuple[float, float] | None) -> Iterator[_Fact]:
    if spacing is not None:
        yield _Fact(codes.DCM.HorizontalPixelSpacing, spacing[1], _MM)
        yield _Fact(codes.DCM.VerticalPixelSpacing, spacing[0], _MM)


def _number(image: Dataset, keyword: str) -> float | None:
    try:
        value = float(text_of(image, keyword))
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 < value < 1000 else None


def _region(image: Dataset) -> Code | None:
    coded = _coded(image, "AnatomicRegionSequence")
    known = next((c for c in _REGIONS.values() if c == coded), None) if coded else None
    return known or _REGIONS.get(text_of(image, "BodyPartExamined").upper())


def _view(image: Dataset) -> Code | None:
    coded = _coded(image, "ViewCodeSequence")
    known = next((c for c in codes.cid4010.concepts.values() if c == coded), None) if coded else None
    return known or _VIEWS.get(text_of(image, "ViewPosition").upper())


def _coded(image: Dataset, keyword: str) -> Code | None:
    """The code in a header, to be compared only: its words may be anything."""
    sequence = image.get(keyword)
    if not sequence or not isinstance(sequence[0], Dataset):
        return None
    value, scheme = (text_of(sequence[0], k) for k in ("CodeValue", "CodingSchemeDesignator"))
    return Code(value, scheme, "") if value and scheme else None


def _acquisition_type(image: Dataset) -> str:
    """Of an enhanced CT's frames if they share it; elsewhere it is unknown."""
    for group in list(image.get("SharedFunctionalGroupsSequence") or [])[:1]:
        for item in list(group.get("CTAcquisitionTypeSequence") or [])[:1]:
            return text_of(item, "AcquisitionType")
    return ""
