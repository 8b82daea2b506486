"""Documents as a radiologist's workstation writes them, made from a report of ours."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import highdicom
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from medgem_node.feedback import Concept, read_document

IDENTITY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription"),
)


@dataclass(frozen=True)
class Shape:
    """One annotation in OHIF."""

    tool: str
    image: tuple[str, str]
    points: tuple[tuple[float, float], ...]
    finding: Code | None = None
    sites: tuple[Code, ...] = ()
    label: str = ""


def shapes_of(report: Dataset) -> list[Shape]:
    """What OHIF makes of a report of ours when its reader restores the measurements."""
    classes = {
        str(i.ReferencedSOPInstanceUID): str(i.ReferencedSOPClassUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for i in series.ReferencedSOPSequence
    }
    made = []
    for group in read_document(report).groups:
        assert group.region is not None
        uid, points = group.region.place, group.region.points
        tool = "Length" if len(points) == 2 else "RectangleROI" if len(points) == 5 else "PlanarFreehandROI"
        finding = _known(group.finding) if group.finding else None
        made.append(Shape(tool, (classes[uid], uid), points, finding, tuple(map(_known, group.sites))))  # type: ignore[arg-type]
    return made


def ohif_report(
    report: Dataset, shapes: Sequence[Shape], *, predecessor: Dataset | None = None, at: str = "20261122120000"
) -> Dataset:
    """What OHIF 3.13 (adapters 5.6.8, dcmjs 0.52) stores: new tracking UIDs, an area where we had a probability,
    `unknown^unknown` for every reader, and the predecessor if it is stored into the series that it came from."""
    made = _document(report, ComprehensiveSRStorage if predecessor is None else Comprehensive3DSRStorage, at)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.Manufacturer = "Unspecified"
    made.CompletionFlag, made.VerificationFlag = "COMPLETE", "UNVERIFIED"
    made.ConceptNameCodeSequence = [_code(codes.DCM.ImagingMeasurementReport)]
    made.ContentTemplateSequence = [_with(MappingResource="DCMR", TemplateIdentifier="1500")]
    images = {shape.image for shape in shapes}
    made.CurrentRequestedProcedureEvidenceSequence = [
        _study(report.StudyInstanceUID, generate_uid(), i) for i in images
    ]
    if predecessor is not None:
        made.SeriesInstanceUID = predecessor.SeriesInstanceUID
        reference = (str(predecessor.SOPClassUID), str(predecessor.SOPInstanceUID))
        made.PredecessorDocumentsSequence = [
            _study(predecessor.StudyInstanceUID, predecessor.SeriesInstanceUID, reference)
        ]
    measurements = _container(codes.DCM.ImagingMeasurements, [_ohif_group(shape) for shape in shapes])
    observer = _item("PNAME", codes.DCM.PersonObserverName, "HAS OBS CONTEXT", PersonName="unknown^unknown")
    made.ContentSequence = [observer, measurements]
    return made


def _ohif_group(shape: Shape) -> Dataset:
    identifier = f"Cornerstone3DTools@^0.1.0:{shape.tool}"
    parts = [
        _item("TEXT", codes.DCM.TrackingIdentifier, "HAS OBS CONTEXT", TextValue=identifier),
        _item("UIDREF", codes.DCM.TrackingUniqueIdentifier, "HAS OBS CONTEXT", UID=generate_uid()),
    ]
    if shape.finding is not None:
        parts.append(_item("CODE", codes.DCM.Finding, ConceptCodeSequence=[_code(shape.finding)]))
    parts += [_item("CODE", codes.SCT.FindingSite, ConceptCodeSequence=[_code(site)]) for site in shape.sites]
    for concept, value in ((codes.SCT.Area, 1234.5), (Code("Mean", "99CS3D", "Mean"), 17.0)):
        number = _with(NumericValue=str(value), MeasurementUnitsCodeSequence=[_code(codes.UCUM.SquareMillimeter)])
        measured = _item("NUM", concept, MeasuredValueSequence=[number])
        measured.ContentSequence = [_scoord(shape.image, shape.points)]
        parts.append(measured)
    text_place = _scoord(shape.image, ((1.0, 1.0),), "POINT")
    text_place.ConceptNameCodeSequence = [_code(Code("TextPosition", "99CS3D", "Text Annotation Position"))]
    parts += [_item("TEXT", codes.DCM.Comment, TextValue=shape.label), text_place]
    return _container(codes.DCM.MeasurementGroup, parts)


def tracked_report(report: Dataset, *, predecessor: bool = False, reader: str = "Reader^Rita") -> Dataset:
    """A copy that keeps our tracking UIDs, as a workstation that edits a report writes it; to be changed by a test."""
    made = copy.deepcopy(report)
    made.SOPInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.Manufacturer, made.CompletionFlag, made.VerificationFlag = "Workstation", "COMPLETE", "VERIFIED"
    made.VerifyingObserverSequence = [_with(VerifyingObserverName=reader, VerificationDateTime="20261122120000")]
    if "PredecessorDocumentsSequence" in made:
        del made.PredecessorDocumentsSequence
    if predecessor:
        made.PredecessorDocumentsSequence = [_study(report.StudyInstanceUID, report.SeriesInstanceUID, _named(report))]
    return made


def groups_of(report: Dataset) -> list[Dataset]:
    """The measurement groups, to be changed in place."""
    (measurements,) = (
        i
        for i in report.ContentSequence
        if Code(*_value(i)) == codes.DCM.ImagingMeasurements and "ContentSequence" in i
    )
    found: list[Dataset] = measurements.ContentSequence
    return found


def part(group: Dataset, concept: Code) -> Dataset:
    """The first content item of a group with this concept."""
    return next(i for i in group.ContentSequence if Code(*_value(i)) == concept)


def evaluate(group: Dataset, question: Code, answer: Code) -> None:
    """Replaces what the group evaluates."""
    kept = [i for i in group.ContentSequence if Code(*_value(i)) != question]
    group.ContentSequence = [*kept, _item("CODE", question, ConceptCodeSequence=[_code(answer)])]


def text_report(report: Dataset, *, predecessor: bool = False) -> Dataset:
    """A dictated report (TID 2000) that names ours."""
    made = _document(report, BasicTextSRStorage, "20261122120000")
    made.CompletionFlag, made.VerificationFlag = "COMPLETE", "VERIFIED"
    made.ConceptNameCodeSequence = [_code(codes.LN.DiagnosticImagingReport)]
    made.ContentTemplateSequence = [_with(MappingResource="DCMR", TemplateIdentifier="2000")]
    reference = _study(report.StudyInstanceUID, report.SeriesInstanceUID, _named(report))
    if predecessor:
        made.PredecessorDocumentsSequence = [reference]
    else:
        made.PertinentOtherEvidenceSequence = [reference]
    made.VerifyingObserverSequence = [_with(VerifyingObserverName="Reader^Rita")]
    finding = _item("TEXT", codes.DCM.Finding, TextValue="Mr Patient has no nodule")
    made.ContentSequence = [_container(codes.DCM.Findings, [finding])]
    return made


def key_objects(title: Code, evidence: Sequence[Dataset]) -> Dataset:
    """A key object selection, by highdicom."""
    made = KeyObjectSelectionDocument(
        evidence=evidence,
        content=KeyObjectSelection(document_title=title, referenced_objects=evidence),
        series_instance_uid=generate_uid(),
        series_number=77,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Workstation",
        institution_name="Invented Hospital",
        institutional_department_name="Radiology",
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    assert isinstance(made, highdicom.SOPClass)
    return made


def _document(report: Dataset, sop_class_uid: str, at: str) -> Dataset:
    made = Dataset()
    for keyword in ("SpecificCharacterSet", *IDENTITY):
        if keyword in report:
            setattr(made, keyword, report[keyword].value)
    made.SOPClassUID, made.SOPInstanceUID, made.SeriesInstanceUID = sop_class_uid, generate_uid(), generate_uid()
    made.Modality, made.SeriesNumber, made.InstanceNumber = "SR", 3, 1
    made.ContentDate, made.ContentTime, made.ValueType = at[:8], at[8:], "CONTAINER"
    made.ContinuityOfContent = "SEPARATE"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def _named(report: Dataset) -> tuple[str, str]:
    return str(report.SOPClassUID), str(report.SOPInstanceUID)


def _value(item: Dataset) -> tuple[str, str, str]:
    code = item.ConceptNameCodeSequence[0] if item.get("ConceptNameCodeSequence") else None
    return (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) if code else ("none", "none", "none")


def _with(**attributes: object) -> Dataset:
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def _known(concept: Concept) -> Code:
    return Code(concept.value, concept.scheme, concept.meaning)


def _code(code: Code) -> Dataset:
    return _with(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)


def _item(kind: str, concept: Code | None, relation: str = "CONTAINS", **attributes: object) -> Dataset:
    made = _with(RelationshipType=relation, ValueType=kind, **attributes)
    if concept is not None:
        made.ConceptNameCodeSequence = [_code(concept)]
    return made


def _container(concept: Code, items: list[Dataset]) -> Dataset:
    return _item("CONTAINER", concept, ContinuityOfContent="SEPARATE", ContentSequence=items)


def _scoord(image: tuple[str, str], points: Sequence[Sequence[float]], graphic: str = "POLYLINE") -> Dataset:
    made = _item("SCOORD", None, "INFERRED FROM", GraphicType=graphic)
    made.GraphicData = [value for point in points for value in point]
    made.ContentSequence = [_item("IMAGE", None, "SELECTED FROM", ReferencedSOPSequence=[_reference(image)])]
    return made


def _reference(image: tuple[str, str]) -> Dataset:
    return _with(ReferencedSOPClassUID=image[0], ReferencedSOPInstanceUID=image[1])


def _study(study: str, series: str, image: tuple[str, str]) -> Dataset:
    of_series = _with(SeriesInstanceUID=series, ReferencedSOPSequence=[_reference(image)])
    return _with(StudyInstanceUID=study, ReferencedSeriesSequence=[of_series])
