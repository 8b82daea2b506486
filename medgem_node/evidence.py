"""What all writers know of the source images and of this node, so that their objects agree.

highdicom is given a stand-in for each original: a header with exactly what it reads, clean and complete. Headers come
from strangers, and it stops at what real ones lack. What belongs to the patient and the study is then carried over
from the original as it was sent (`finish`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import highdicom
from highdicom import sr
from pydicom import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.multival import MultiValue
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from medgem_node import __version__
from medgem_node.card import ModelCard
from medgem_node.errors import MedgemError, ModelRejected
from medgem_node.finding import Analysis, Code
from medgem_node.geometry import size
from medgem_node.header import LOSS, TYPE_2, ascii_, carry, identify, stamp, text_of

RESEARCH = "research use only"
WARNING = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"
SERIES_NUMBER = {
    "measurement_report": 9001,
    "segmentation": 9002,
    "heatmap": 9003,
    "parametric_map": 9004,
    "presentation_state": 9005,
    "key_objects": 9006,
}
"""In the order in which a radiologist looks: what is said, then where."""


@dataclass(frozen=True, slots=True)
class Station:
    """This installed node, as its results name it."""

    serial_number: str
    ae_title: str
    software_version: str = __version__
    manufacturer: str = "medgem-node"
    model_name: str = "medgem-node"


@dataclass(frozen=True, slots=True)
class Earlier:
    """The delivered results of the revision before this one, which the results of this one replace.

    `uid(role)` is that revision's; `sop_class_uid` names the class of each SOP Instance UID that was delivered.
    """

    uid: Callable[[str], str]
    sop_class_uid: Mapping[str, str]

    def reference(self, role: str) -> tuple[str, str] | None:
        """SOP Class and SOP Instance UID of the object that had `role`, if it was delivered."""
        sop_instance_uid = self.uid(role)
        found = self.sop_class_uid.get(sop_instance_uid)
        return (found, sop_instance_uid) if found else None


@dataclass(frozen=True, slots=True)
class Source:
    """Who writes, and when: what every object of one run says alike.

    `content_datetime` knows its zone. `region` is how a report writes regions where it has the choice: `scoord` in
    the image, `scoord3d` in space, `where-square` in the image unless its pixels are not square.
    """

    card: ModelCard
    station: Station
    content_datetime: datetime
    region: str = "scoord"
    earlier: Earlier | None = None

    @property
    def algorithm(self) -> str:
        """The model and its version, as one short text."""
        return f"{self.card.name} {self.card.version}"

    def check(self, analysis: Analysis) -> None:
        """Raises ModelRejected if the analysis is another model's: its results would name the wrong one."""
        if (analysis.model, analysis.version) != (self.card.name, self.card.version):
            raise ModelRejected(f"an analysis of {analysis.model} {analysis.version} came with {self.algorithm}'s card")


def check(analysis: Analysis, originals: Sequence[Dataset]) -> None:
    """Raises MedgemError if the originals mix patients or studies, or lack an image that was analysed."""
    if len({(str(o.StudyInstanceUID), text_of(o, "PatientID")) for o in originals}) != 1:
        raise MedgemError("the evidence is not of one patient and one study, so no result is written")
    if missing := set(analysis.images) - {str(o.SOPInstanceUID) for o in originals}:
        raise MedgemError(f"{len(missing)} analysed images are not among the evidence, so no result is written")


def analysed(analysis: Analysis, originals: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """The originals that were analysed, in the analysis' order."""
    of_uid = {str(o.SOPInstanceUID): o for o in originals}
    return tuple(of_uid[image] for image in analysis.images)


def number(analysis: Analysis, image: str) -> int:
    """An image's number in the roles of UIDs, from 1."""
    return analysis.images.index(image) + 1


def of_image(made: Iterable[Dataset], sop_class_uid: str, image: str, frame: int = 1) -> Dataset | None:
    """The first object of a class that earlier writers of this run made from an image, or from one of its frames."""
    return next((m for m in made if m.SOPClassUID == sop_class_uid and _is_of(m, image, frame)), None)


def _is_of(made: Dataset, image: str, frame: int) -> bool:
    """Whether `made` names the image as its source; where it names frames, whether this one is among them."""
    of_series = (i for s in made.get("ReferencedSeriesSequence", ()) for i in s.ReferencedInstanceSequence)
    for item in (*made.get("SourceImageSequence", ()), *of_series):
        if item.ReferencedSOPInstanceUID == image:
            named = item.get("ReferencedFrameNumber")
            numbers = named if isinstance(named, MultiValue) else [named]
            if named is None or frame in map(int, numbers):
                return True
    return False


def stand_in(original: Dataset) -> Dataset:
    """A header with what highdicom needs to refer to an image, and no identity."""
    header = Dataset()
    for keyword in TYPE_2:
        setattr(header, keyword, "")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(header, keyword, UID(str(original.get(keyword) or "")))
    header.Modality = text_of(original, "Modality") or "OT"
    header.Rows, header.Columns = size(original)
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


def described(what: str) -> str:
    """A description (64 characters) that keeps its end, whatever the length of a model's name."""
    end = f" ({RESEARCH})"
    return ascii_(what, 64 - len(end)) + end


def finish(target: Dataset, original: Dataset, source: Source, what: str) -> None:
    """Gives an object its identity, its time, its equipment and its series: all that highdicom cannot know."""
    identify(target, original)
    stamp(target, original, source.content_datetime)
    _equip(target, source)
    target.SeriesDescription = described(what)
    _name_private_schemes(target, source)
    if text_of(original, "LossyImageCompression") == "01" and target.Modality != "SR":
        carry(target, original, LOSS)
    # From here on it is written as it stands: pydicom would decode and encode again what `carry` left as bytes
    correct_ambiguous_vr(target, True)
    target.set_original_encoding(False, True, target._character_set)


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
