"""What a document says: references, tracked groups, regions, numbers, evaluations. Pure; knows no ledger.

It reads structured reports (TID 1500 by any vendor, and others as far as they refer) and key object selections, ours
and a radiologist's alike, so that `verdict` compares like with like.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import chain
from typing import Any

from pydicom import Dataset
from pydicom.sr._snomed_dict import mapping
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, KeyObjectSelectionDocumentStorage

from medgem_node import part10
from medgem_node.errors import NotUnderstood
from medgem_node.region import Region

MAXIMUM_BYTES = 64 << 20
"""Of a document that is read; a report with a thousand findings has two megabytes."""

_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.88."  # PS3.4 B.5: every SR storage class, and key object selection
_ITEMS = 200_000
_FAR = 1e7
_NOBODY = ("", "unknown", "anonymous")  # OHIF 3.13 writes unknown^unknown for everybody
_SECONDARY = ("ControlPoints", "TextPosition")  # where OHIF keeps handles and labels, beside the region


@dataclass(frozen=True, slots=True)
class Concept:
    """A coded concept; the same whatever its meaning reads, and in SNOMED RT as in SNOMED CT."""

    value: str
    scheme: str
    meaning: str = field(default="", compare=False)

    @classmethod
    def of(cls, code: Code) -> Concept:
        """One of pydicom's."""
        return cls(code.value, code.scheme_designator, code.meaning)


@dataclass(frozen=True, slots=True)
class Number:
    """A measured value; `unit` is a UCUM code."""

    concept: Concept
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Group:
    """One measurement group. `evaluations` are pairs of question and answer, such as (Cardiomegaly, Absent)."""

    tracking_uid: str
    finding: Concept | None = None
    sites: tuple[Concept, ...] = ()
    lateralities: tuple[Concept, ...] = ()
    numbers: tuple[Number, ...] = ()
    evaluations: tuple[tuple[Concept, Concept], ...] = ()
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One structured report or key object selection.

    `reader` names whoever signed or wrote it: identity, to be keyed before it is kept. `references` are the SOP
    Instance UIDs of all that the document names but its predecessors.
    """

    title: Concept | None
    is_key_objects: bool
    complete: bool
    verified: bool
    reader: str
    content_at: datetime | None
    predecessors: frozenset[str]
    references: frozenset[str]
    groups: tuple[Group, ...]


_MEASUREMENT_GROUP = Concept.of(codes.DCM.MeasurementGroup)
_TRACKING = Concept.of(codes.DCM.TrackingUniqueIdentifier)
_FINDING = Concept.of(codes.DCM.Finding)
_SITE = Concept.of(codes.SCT.FindingSite)
_LATERALITY = Concept.of(codes.SCT.Laterality)
_REGION = Concept.of(codes.DCM.ImageRegion)
_OBSERVER = Concept.of(codes.DCM.PersonObserverName)


def is_document(sop_class_uid: str) -> bool:
    """Whether instances of the class are read here and are no images: no model is chosen by their headers."""
    return sop_class_uid.startswith(_DOCUMENTS)


def read_document(dataset: Dataset) -> Document:
    """What the document says. Raises NotUnderstood, whatever a stranger wrote."""
    try:
        part10.check_depth(dataset)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # strangers' values break rules; those that matter are looked at here
            return _document(dataset)
    except part10.UNPARSABLE as exc:
        raise NotUnderstood(f"the document cannot be read ({type(exc).__name__})") from None  # its cause may quote it


def _document(dataset: Dataset) -> Document:
    named = frozenset(chain(_evidence(dataset), *(_uids(item) for item in _tree(dataset))))
    predecessors = frozenset(_listed(dataset, "PredecessorDocumentsSequence"))
    groups = (item for item in _tree(dataset) if _code(item, "ConceptNameCodeSequence") == _MEASUREMENT_GROUP)
    return Document(
        title=_code(dataset, "ConceptNameCodeSequence"),
        is_key_objects=dataset.SOPClassUID == KeyObjectSelectionDocumentStorage,
        complete=_text(dataset, "CompletionFlag") == "COMPLETE",
        verified=_text(dataset, "VerificationFlag") == "VERIFIED",
        reader=_reader(dataset),
        content_at=_content_at(dataset),
        predecessors=predecessors,
        references=named - predecessors,
        groups=tuple(map(_group, groups)),
    )


# -- references ----------------------------------------------------------------------------------------------------


def _evidence(dataset: Dataset) -> Iterator[str]:
    for keyword in (
        "CurrentRequestedProcedureEvidenceSequence",
        "PertinentOtherEvidenceSequence",
        "IdenticalDocumentsSequence",
    ):
        yield from _listed(dataset, keyword)


def _listed(dataset: Dataset, keyword: str) -> Iterator[str]:
    """The Hierarchical SOP Instance Reference Macro (PS3.3 C.17.2.1)."""
    for study in _items(dataset, keyword):
        for series in _items(study, "ReferencedSeriesSequence"):
            yield from _uids(series)


def _uids(item: Dataset) -> Iterator[str]:
    for reference in _items(item, "ReferencedSOPSequence"):
        yield _text(reference, "ReferencedSOPInstanceUID")


# -- groups --------------------------------------------------------------------------------------------------------


def _group(item: Dataset) -> Group:
    children = list(_items(item, "ContentSequence"))
    sites = [child for child in children if _is(child, _SITE)]
    return Group(
        tracking_uid=next((uid for c in children if _is(c, _TRACKING) and UID(uid := _text(c, "UID")).is_valid), ""),
        finding=next((_code(c, "ConceptCodeSequence") for c in children if _is(c, _FINDING)), None),
        sites=_some(_code(site, "ConceptCodeSequence") for site in sites),
        lateralities=_some(
            _code(part, "ConceptCodeSequence")
            for site in sites
            for part in _items(site, "ContentSequence")
            if _is(part, _LATERALITY)
        ),
        numbers=_some(map(_number, children)),
        evaluations=tuple(
            (question, answer)
            for child in children
            if _text(child, "ValueType") == "CODE" and _text(child, "RelationshipType") == "CONTAINS"
            if (question := _code(child, "ConceptNameCodeSequence")) is not None
            if (answer := _code(child, "ConceptCodeSequence")) is not None
            if question not in (_FINDING, _SITE)
        ),
        region=_region(children),
    )


def _number(item: Dataset) -> Number | None:
    concept = _code(item, "ConceptNameCodeSequence")
    value = next(_items(item, "MeasuredValueSequence"), None)
    if _text(item, "ValueType") != "NUM" or concept is None or value is None or not _text(value, "NumericValue"):
        return None
    measured, unit = float(value.NumericValue), _code(value, "MeasurementUnitsCodeSequence")
    return Number(concept, measured, unit.value if unit else "") if math.isfinite(measured) else None


def _region(children: list[Dataset]) -> Region | None:
    """The group's own image region, else what its first number was inferred from, as OHIF and cornerstone write it."""
    inferred = (c for n in children if _text(n, "ValueType") == "NUM" for c in _items(n, "ContentSequence"))
    own = (c for c in children if _is(c, _REGION))
    return next(iter(_some(map(_shape, chain(own, inferred, children)))), None)


def _shape(item: Dataset) -> Region | None:
    dimensions = {"SCOORD": 2, "SCOORD3D": 3}.get(_text(item, "ValueType"), 0)
    concept = _code(item, "ConceptNameCodeSequence")
    if not dimensions or (concept is not None and concept.value in _SECONDARY):
        return None
    values = [float(v) for v in _many(item.get("GraphicData"))]
    points = tuple(tuple(values[n : n + dimensions]) for n in range(0, len(values) - dimensions + 1, dimensions))
    place, frame = _text(item, "ReferencedFrameOfReferenceUID"), 1
    if dimensions == 2:
        images = (r for child in _items(item, "ContentSequence") for r in _items(child, "ReferencedSOPSequence"))
        image = next(images, None)
        if image is None:
            return None
        place = _text(image, "ReferencedSOPInstanceUID")
        frame = int(next(iter(_many(image.get("ReferencedFrameNumber"))), 1))
    usable = points and place and all(abs(v) < _FAR for v in values)  # NaN is not less either
    return Region(place, frame, _text(item, "GraphicType"), points) if usable else None


# -- who and when --------------------------------------------------------------------------------------------------


def _reader(dataset: Dataset) -> str:
    names = [_text(item, "VerifyingObserverName") for item in _items(dataset, "VerifyingObserverSequence")]
    names += [_text(item, "PersonName") for item in _items(dataset, "AuthorObserverSequence")]
    names += [_text(item, "PersonName") for item in _items(dataset, "ContentSequence") if _is(item, _OBSERVER)]
    plain = (" ".join(name.replace("^", " ").replace("=", " ").casefold().split()) for name in names)
    return next((name for name in plain if not set(name.split()) <= set(_NOBODY)), "")


def _content_at(dataset: Dataset) -> datetime | None:
    date, time = _text(dataset, "ContentDate"), _text(dataset, "ContentTime").partition(".")[0]
    try:
        at = datetime.strptime(date + time.ljust(6, "0"), "%Y%m%d%H%M%S")
        offset = _text(dataset, "TimezoneOffsetFromUTC")
        if not offset:
            return at.astimezone()
        minutes = int(offset[1:3]) * 60 + int(offset[3:5])
        return at.replace(tzinfo=timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))
    except (ValueError, OverflowError, OSError):
        return None  # a document without a time of its own is as old as its arrival


# -- content items -------------------------------------------------------------------------------------------------


def _tree(dataset: Dataset) -> Iterator[Dataset]:
    """Every content item, from the top. Raises NotUnderstood when there is no end of them."""
    level, seen = list(_items(dataset, "ContentSequence")), 0
    while level:
        seen += len(level)
        if seen > _ITEMS:
            raise NotUnderstood(f"the document has more than {_ITEMS} content items")
        yield from level
        level = [child for item in level for child in _items(item, "ContentSequence")]


def _items(dataset: Dataset, keyword: str) -> Iterator[Dataset]:
    value = dataset.get(keyword)
    yield from (item for item in _many(value) if isinstance(item, Dataset))


def _many(value: Any) -> Iterable[Any]:
    if value is None or value == "":
        return ()
    return value if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else (value,)


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip("\0 ")


def _code(dataset: Dataset, keyword: str) -> Concept | None:
    item = next(_items(dataset, keyword), None)
    if item is None:
        return None
    value = next(filter(None, (_text(item, k) for k in ("CodeValue", "LongCodeValue", "URNCodeValue"))), "")
    scheme = _text(item, "CodingSchemeDesignator")
    if scheme == "SRT" and value in mapping["SRT"]:
        value, scheme = mapping["SRT"][value], "SCT"
    return Concept(value, scheme, _text(item, "CodeMeaning")) if value else None


def _is(item: Dataset, concept: Concept) -> bool:
    return _code(item, "ConceptNameCodeSequence") == concept


def _some(found: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(thing for thing in found if thing is not None)
