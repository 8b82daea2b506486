"""What all writers know of the source images and of this node, so that their objects agree.

highdicom is given a stand-in for each original: a header with exactly what it reads, clean and complete. Headers come
from strangers, and it stops at what real ones lack. What belongs to the patient and the study is then carried over
from the original as it was sent (`finish`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import highdicom
from highdicom import sr
from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import UID

from medgem_node import __version__
from medgem_node.card import ModelCard
from medgem_node.errors import MedgemError, ModelRejected
from medgem_node.finding import Analysis, Code

RESEARCH = "research use only"
WARNING = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"
SERIES_NUMBER = {"segmentation": 9001, "heatmap": 9002, "measurement_report": 9003}

_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
# The modules Patient, General Study, Patient Study, Clinical Trial Subject and Study of PS3.3, without what is retired
_MODULES = """
TimezoneOffsetFromUTC IssuerOfPatientID IssuerOfPatientIDQualifiersSequence TypeOfPatientID PatientBirthTime
PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar
OtherPatientIDsSequence OtherPatientNames EthnicGroup PatientComments QualityControlSubject
PatientSpeciesDescription PatientSpeciesCodeSequence PatientBreedDescription PatientBreedCodeSequence
BreedRegistrationSequence StrainDescription StrainNomenclature ResponsiblePerson ResponsiblePersonRole
ResponsibleOrganization PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence
StudyInstanceUID StudyDescription ProcedureCodeSequence ReferringPhysicianIdentificationSequence
ConsultingPhysicianName ConsultingPhysicianIdentificationSequence IssuerOfAccessionNumberSequence PhysiciansOfRecord
PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence
RequestingService RequestingServiceCodeSequence ReasonForPerformedProcedureCodeSequence
AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize PatientSizeCodeSequence
PatientWeight MedicalAlerts Allergies SmokingStatus PregnancyStatus LastMenstrualDate PatientState Occupation
AdditionalPatientHistory AdmissionID IssuerOfAdmissionIDSequence ReasonForVisit ReasonForVisitCodeSequence
ServiceEpisodeID IssuerOfServiceEpisodeIDSequence ServiceEpisodeDescription PatientSexNeutered
ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName
ClinicalTrialSubjectID ClinicalTrialSubjectReadingID ClinicalTrialTimePointID ClinicalTrialTimePointDescription
LongitudinalTemporalOffsetFromEvent LongitudinalTemporalEventType ConsentForClinicalTrialUseSequence
ClinicalTrialProtocolEthicsCommitteeName ClinicalTrialProtocolEthicsCommitteeApprovalNumber
"""
_IDENTITY = (*_TYPE_2, *_MODULES.split())
_LOSS = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


@dataclass(frozen=True, slots=True)
class Station:
    """This installed node, as its results name it."""

    serial_number: str
    ae_title: str
    software_version: str = __version__
    manufacturer: str = "medgem-node"
    model_name: str = "medgem-node"


@dataclass(frozen=True, slots=True)
class Source:
    """Who writes, and when: what every object of one run says alike. `content_datetime` knows its zone."""

    card: ModelCard
    station: Station
    content_datetime: datetime

    @property
    def algorithm(self) -> str:
        """The model and its version, as one short text."""
        return f"{self.card.name} {self.card.version}"

    def check(self, analysis: Analysis) -> None:
        """Raises ModelRejected if the analysis is another model's: its results would name the wrong one."""
        if (analysis.model, analysis.version) != (self.card.name, self.card.version):
            raise ModelRejected(f"an analysis of {analysis.model} {analysis.version} came with {self.algorithm}'s card")


def originals(analysis: Analysis, evidence: Sequence[Dataset], uid: Callable[[str], str]) -> tuple[Dataset, ...]:
    """The evidence without our own objects, the analysed images first. Raises MedgemError if it mixes patients."""
    ours = {uid(f"{kind}-{n}") for kind in ("seg", "sc") for n in range(1, len(analysis.images) + 1)}
    found = [instance for instance in evidence if instance.SOPInstanceUID not in ours]
    if len({(str(i.StudyInstanceUID), text_of(i, "PatientID")) for i in found}) != 1:
        raise MedgemError("the evidence is not of one patient and one study, so no result is written")
    order = {image: n for n, image in enumerate(analysis.images)}
    if missing := order.keys() - {i.SOPInstanceUID for i in found}:
        raise MedgemError(f"{len(missing)} analysed images are not among the evidence, so no result is written")
    return tuple(sorted(found, key=lambda i: order.get(i.SOPInstanceUID, len(order))))


def result(evidence: Iterable[Dataset], sop_instance_uid: str) -> Dataset | None:
    """The object that an earlier writer made, if it made one."""
    return next((instance for instance in evidence if instance.SOPInstanceUID == sop_instance_uid), None)


def number(analysis: Analysis, image: str) -> int:
    """An image's number in the roles of UIDs, from 1."""
    return analysis.images.index(image) + 1


def text_of(instance: Dataset, keyword: str) -> str:
    """A text attribute in its character set, without decoding it in the instance; empty where there is none."""
    probe = Dataset()
    carry(probe, instance, ("SpecificCharacterSet", keyword))
    value = probe.get(keyword)
    return "" if value is None else str(value).strip()


def size(original: Dataset) -> tuple[int, int]:
    """Rows and columns; (0, 0) where there is no image."""
    try:
        return max(0, int(original.get("Rows") or 0)), max(0, int(original.get("Columns") or 0))
    except (TypeError, ValueError):
        return 0, 0


def spacing_mm(original: Dataset) -> tuple[float, float] | None:
    """Between rows and between columns, by Pixel Spacing or else at the detector; None if unknown or not positive."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            rows, columns = (
                float(part) for part in text_of(original, keyword).strip("[]").replace(",", "\\").split("\\")
            )
        except ValueError:
            continue
        if 0 < rows < 100 and 0 < columns < 100:
            return rows, columns
    return None


def is_projection(original: Dataset) -> bool:
    """Whether it has no position in space of its own, as a radiograph."""
    return not ("ImageOrientationPatient" in original and "ImagePositionPatient" in original)


def stand_in(original: Dataset) -> Dataset:
    """A header with what highdicom needs to refer to an image, and no identity."""
    header = Dataset()
    for keyword in _TYPE_2:
        setattr(header, keyword, "")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(header, keyword, UID(str(original.get(keyword) or "")))
    header.Modality = text_of(original, "Modality") or "OT"
    header.Rows, header.Columns = size(original)
    return header


def placed(original: Dataset, frame_of_reference_uid: str) -> Dataset:
    """A stand-in with a position in space: the original's own, or for a radiograph an invented one.

    Without it neither OHIF nor dcmqi nor highdicom shows a segmentation of a radiograph. x runs along the rows, y along
    the columns, the origin is the first pixel, and 1 mm a pixel where the spacing is unknown.
    """
    header = stand_in(original)
    header.PositionReferenceIndicator = ""
    header.PixelSpacing = list(spacing_mm(original) or (1.0, 1.0))
    if is_projection(original):
        header.FrameOfReferenceUID = frame_of_reference_uid
        header.ImageOrientationPatient, header.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 0]
        header.SliceThickness = 1
        return header
    header.FrameOfReferenceUID = original.get("FrameOfReferenceUID") or frame_of_reference_uid
    header.ImageOrientationPatient = original.ImageOrientationPatient
    header.ImagePositionPatient = original.ImagePositionPatient
    header.SliceThickness = original.get("SliceThickness") or 1
    return header


def concept(code: Code) -> sr.CodedConcept:
    """The code as highdicom wants it."""
    return sr.CodedConcept(code.value, code.scheme, code.meaning)


def algorithm(source: Source, analysis: Analysis, *more: str) -> sr.AlgorithmIdentification:
    """TID 4019: which model, and with which weights and parameters."""
    parameters = [f"{key}={value}" for key, value in sorted(analysis.parameters.items())]
    return sr.AlgorithmIdentification(
        name=source.card.name,
        version=source.card.version,
        parameters=[ascii_(p, 1024) for p in (*parameters, f"weights_sha256={source.card.weights_sha256}", *more)],
        family=codes.cid7162.ArtificialIntelligence,
        manufacturer=ascii_(source.card.manufacturer, 64),
    )


def algorithm_sequence(source: Source, analysis: Analysis) -> highdicom.AlgorithmIdentificationSequence:
    """The same for a segment."""
    return highdicom.AlgorithmIdentificationSequence(
        name=source.card.name,
        family=codes.cid7162.ArtificialIntelligence,
        version=source.card.version,
        source=ascii_(source.card.manufacturer, 64),
        parameters={
            "weights_sha256": source.card.weights_sha256,
            **{ascii_(key, 64): ascii_(value, 1024) for key, value in sorted(analysis.parameters.items())},
        },
    )


def observer(source: Source) -> sr.ObservationContext:
    """TID 1002: the model on this node observed."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=source.card.device_uid,
        name=f"{source.algorithm} ({RESEARCH})",
        manufacturer_name=source.station.manufacturer,
        model_name=source.station.model_name,
        serial_number=source.station.serial_number,
    )
    context = sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return sr.ObservationContext(observer_device_context=context)


def library(images: Iterable[Dataset]) -> list[sr.ContainerContentItem]:
    """TID 1600 with what can be said of every image; one without Rows is named in the evidence only."""
    entries = [entry for entry in map(_entry, images) if entry is not None]
    if not entries:
        return []
    contains = sr.RelationshipTypeValues.CONTAINS
    group = sr.ContainerContentItem(codes.DCM.ImageLibraryGroup, relationship_type=contains)
    group.ContentSequence = sr.ContentSequence(entries)
    whole = sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=contains)
    whole.ContentSequence = sr.ContentSequence([group])
    return [whole]


def _entry(original: Dataset) -> sr.ContentItem | None:
    if min(size(original)) == 0:
        return None
    header = stand_in(original)
    header.Modality = ""  # else highdicom asks for spacing and orientation, which real headers lack
    entry = sr.ImageContentItem(
        codes.SCT.Source,
        header.SOPClassUID,
        header.SOPInstanceUID,
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )
    try:
        entry.ContentSequence = sr.ContentSequence(sr.ImageLibraryEntryDescriptors(header))
    except (KeyError, ValueError):  # no image of a kind that highdicom knows
        return None
    return entry


def ascii_(text: str, length: int) -> str:
    """Our own words in the one repertoire that every Specific Character Set has."""
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")[:length]


def carry(target: Dataset, original: Dataset, keywords: Iterable[str]) -> None:
    """Copies attributes; text stays the bytes that were sent, so no character is lost to a wrong declaration."""
    for keyword in keywords:
        tag, vr = Tag(keyword), dictionary_VR(keyword)
        if tag not in original:
            continue
        sent: Any = original.get_item(tag)
        if sent.is_raw and isinstance(sent.value, bytes) and vr != "SQ":
            target[tag] = sent._replace(VR=vr, is_implicit_VR=False, is_little_endian=True)
        else:
            target[tag] = deepcopy(original[tag])


def described(what: str) -> str:
    """A description (64 characters) that keeps its end, whatever the length of a model's name."""
    end = f" ({RESEARCH})"
    return ascii_(what, 64 - len(end)) + end


def finish(target: Dataset, original: Dataset, source: Source, what: str) -> None:
    """Gives an object its identity, its time, its equipment and its series: all that highdicom cannot know."""
    _identify(target, original)
    _stamp(target, original, source.content_datetime)
    _equip(target, source)
    target.SeriesDescription = described(what)
    _name_private_schemes(target, source)
    if text_of(original, "LossyImageCompression") == "01" and target.Modality != "SR":
        carry(target, original, _LOSS)
    # From here on it is written as it stands: pydicom would decode and encode again what `carry` left as bytes
    correct_ambiguous_vr(target, True)
    target.set_original_encoding(False, True, target._character_set)


def _identify(target: Dataset, original: Dataset) -> None:
    for keyword in ("SpecificCharacterSet", *_IDENTITY):
        if keyword in target:
            del target[keyword]
    if original.get("SpecificCharacterSet"):
        target.SpecificCharacterSet = deepcopy(original.SpecificCharacterSet)
    carry(target, original, _IDENTITY)
    for keyword in _TYPE_2:
        if keyword not in target:
            setattr(target, keyword, "")


def _stamp(target: Dataset, original: Dataset, at: datetime) -> None:
    """Times in the original's zone. Where it names none, ours is named in DT only: an offset would redate the study."""
    local = at.astimezone(_zone(text_of(original, "TimezoneOffsetFromUTC")) or at.tzinfo)
    date, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    for stem in ("InstanceCreation", "Content", "Series"):
        setattr(target, f"{stem}Date", date)
        setattr(target, f"{stem}Time", time)
    if "DateOfSecondaryCapture" in target:
        target.DateOfSecondaryCapture, target.TimeOfSecondaryCapture = date, time


def _zone(offset: str) -> timezone | None:
    if len(offset) != 5 or offset[0] not in "+-" or not offset[1:].isdigit():
        return None
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)) if minutes < 24 * 60 else None


def _name_private_schemes(target: Dataset, source: Source) -> None:
    """Says who is responsible for codes of a private scheme (99..., PS3.16 section 8.2)."""
    designators = {str(e.value) for e in target.iterall() if e.keyword == "CodingSchemeDesignator"}
    items = []
    for designator in sorted(d for d in designators if d.startswith("99")):
        item = Dataset()
        item.CodingSchemeDesignator = designator
        item.CodingSchemeName = f"{source.station.manufacturer} codes"
        item.CodingSchemeResponsibleOrganization = ascii_(source.card.manufacturer, 1024)
        items.append(item)
    if items:
        target.CodingSchemeIdentificationSequence = items


def _equip(target: Dataset, source: Source) -> None:
    """The node made the object, the model contributed to it; its Device UID changes with its weights (IHE AIR)."""
    station, card = source.station, source.card
    target.Manufacturer, target.ManufacturerModelName = station.manufacturer, station.model_name
    target.DeviceSerialNumber, target.SoftwareVersions = station.serial_number, station.software_version
    target.StationName = station.ae_title
    model = highdicom.ContributingEquipment(
        manufacturer=ascii_(card.manufacturer, 64),
        purpose_of_reference=codes.cid7005.ProcessingEquipment,
        manufacturer_model_name=card.name,
        software_versions=card.version,
        device_serial_number=station.serial_number,
        contribution_datetime=source.content_datetime.strftime("%Y%m%d%H%M%S%z"),
        contribution_description=f"AI inference, {RESEARCH}",
    )
    model.DeviceUID = card.device_uid
    target.ContributingEquipmentSequence = [model]
