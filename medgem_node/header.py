"""What a result carries over from its original as it was sent: patient, study, text in its own character set.

Headers come from strangers; text stays the bytes that were sent, so no character is lost to a wrong declaration.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

TYPE_2 = (
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
_IDENTITY = (*TYPE_2, *_MODULES.split())
_REQUEST_TYPE_2 = (
    *("AccessionNumber", "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"),
    *("RequestedProcedureID", "RequestedProcedureDescription"),
)
_REQUEST = (
    *(
        "StudyInstanceUID",
        "ReferencedStudySequence",
        "IssuerOfAccessionNumberSequence",
        "ReasonForTheRequestedProcedure",
    ),
    *("OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence", "RequestedProcedureCodeSequence"),
    "ReasonForRequestedProcedureCodeSequence",
)
LOSS = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def text_of(instance: Dataset, keyword: str) -> str:
    """A text attribute in its character set, without decoding it in the instance; empty where there is none."""
    probe = Dataset()
    carry(probe, instance, ("SpecificCharacterSet", keyword))
    value = probe.get(keyword)
    return "" if value is None else str(value).strip()


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


def identify(target: Dataset, original: Dataset) -> None:
    """Gives `target` the patient and the study of `original`, and nothing else that it named itself."""
    for keyword in ("SpecificCharacterSet", *_IDENTITY):
        if keyword in target:
            del target[keyword]
    if original.get("SpecificCharacterSet"):
        target.SpecificCharacterSet = deepcopy(original.SpecificCharacterSet)
    carry(target, original, _IDENTITY)
    for keyword in TYPE_2:
        if keyword not in target:
            setattr(target, keyword, "")
    _drop_incomplete(target)
    _request(target, original)


def _drop_incomplete(target: Dataset) -> None:
    """Other IDs that are none: de-identification leaves items without what makes them valid (PS3.3 C.7.1.1)."""
    items = target.get("OtherPatientIDsSequence")
    if items is None:
        return
    whole = [item for item in items if item.get("PatientID") and item.get("TypeOfPatientID")]
    del target.OtherPatientIDsSequence
    if whole:
        target.OtherPatientIDsSequence = whole


def _request(target: Dataset, original: Dataset) -> None:
    """Names the orders that the study was made for: as a series does it (PS3.3 C.7.3.1), or a document (C.17.2)."""
    requests = original.get("RequestAttributesSequence") or ()
    if not requests:
        return
    if target.Modality not in ("SR", "KO"):
        carry(target, original, ["RequestAttributesSequence"])
        return
    target.ReferencedRequestSequence = [_referenced(request, original) for request in requests]


def _referenced(request: Dataset, original: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedStudySequence = item.RequestedProcedureCodeSequence = []
    for keyword in _REQUEST_TYPE_2:
        setattr(item, keyword, "")
    carry(item, original, ["StudyInstanceUID", "AccessionNumber", "IssuerOfAccessionNumberSequence"])
    carry(item, request, [*_REQUEST_TYPE_2, *_REQUEST])
    return item


def stamp(target: Dataset, original: Dataset, at: datetime) -> None:
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
