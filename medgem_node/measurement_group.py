"""The measurement groups of a report: one finding or measurement with its region or its segment (TID 1410, 1411).

highdicom writes the templates; what viewers want beside them is added here: OHIF draws a number only if it repeats the
coordinates that it was taken at, and lists the Comment as its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import sr
from highdicom.sr import ImageContentItem, RelationshipTypeValues
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes

from medgem_node.evidence import concept
from medgem_node.finding import Box, Finding
from medgem_node.geometry import Plane, frames, size
from medgem_node.header import ascii_

Points = NDArray[np.float64]
_CONTAINS = RelationshipTypeValues.CONTAINS
_TOOL = "Cornerstone3DTools@^0.1.0"  # OHIF restores what names one of its tools


@dataclass(frozen=True, slots=True)
class Place:
    """One frame, and how regions of it are written: in space if `space` is known."""

    original: Dataset
    frame: int = 1
    space: Plane | None = None

    def region(self, points: Points) -> sr.ImageRegion | sr.ImageRegion3D:
        """The region of a group, from image coordinates; what lies outside the image is clipped."""
        if self.space is None:
            return sr.ImageRegion("POLYLINE", self._within(points), self._image())
        return sr.ImageRegion3D("POLYLINE", self.space.to_patient(self._within(points)), self._frame_of_reference())

    def coordinates(self, points: Points) -> sr.CoordinatesForMeasurement | sr.CoordinatesForMeasurement3D:
        """The same for a number."""
        if self.space is None:
            return sr.CoordinatesForMeasurement("POLYLINE", self._within(points), self._image())
        positions = self.space.to_patient(self._within(points))
        return sr.CoordinatesForMeasurement3D("POLYLINE", positions, self._frame_of_reference())

    def _image(self) -> sr.SourceImageForRegion:
        numbers = [self.frame] if frames(self.original) > 1 else None
        return sr.SourceImageForRegion(str(self.original.SOPClassUID), str(self.original.SOPInstanceUID), numbers)

    def _frame_of_reference(self) -> str:
        return str(self.original.FrameOfReferenceUID)

    def _within(self, points: Points) -> Points:
        rows, columns = size(self.original)
        return np.clip(points, 0, (columns, rows))


@dataclass(frozen=True, slots=True)
class Number:
    """One NUM of a group: what it was taken at and what it speaks of."""

    measurement: sr.Measurement
    place: Place | None = None
    outlines: tuple[Points, ...] = ()  # none: the group's own region
    speaks_of: tuple[sr.ContentItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """The segment of a mask as it was written."""

    segmentation: Dataset
    number: int

    @property
    def tracking_uid(self) -> str:
        """Its own, which ties it to its group; empty if it has none."""
        return str(self.segmentation.SegmentSequence[self.number - 1].get("TrackingUID") or "")


@dataclass(frozen=True, slots=True)
class Said:
    """What the groups of one finding or measurement have in common.

    `tool` names what OHIF restores the region as; `finding` is never that of something absent.
    """

    text: str
    tracking_uid: str
    algorithm: sr.AlgorithmIdentification
    tool: str = "RectangleROI"
    finding: sr.CodedConcept | None = None
    site: sr.FindingSite | None = None
    evaluations: tuple[sr.QualitativeEvaluation, ...] = ()

    def content(self, measurements: Sequence[sr.Measurement]) -> dict[str, Any]:
        """What highdicom's classes of groups want alike."""
        identifier = ascii_(f"{_TOOL}:{self.tool}:{self.text}", 1024)
        return {
            "tracking_identifier": sr.TrackingIdentifier(self.tracking_uid, identifier),
            "finding_type": self.finding,
            "finding_sites": [self.site] if self.site is not None else None,
            "algorithm_id": self.algorithm,
            "measurements": list(measurements) or None,
        }


def planar(
    place: Place,
    region: Points | None,
    said: Said,
    numbers: Sequence[Number] = (),
    more: Sequence[sr.ContentItem] = (),
) -> sr.Template:
    """TID 1410; without a region, of the whole image; TID 1501 for what has no pixels to point at."""
    rows, columns = size(place.original)
    outline = region if region is not None else ring(Box(0, 0, columns, rows))
    content = said.content([n.measurement for n in numbers])
    content["qualitative_evaluations"] = list(said.evaluations) or None
    if min(rows, columns) == 0:
        group = sr.MeasurementsAndQualitativeEvaluations(**content)
    else:
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=place.region(outline), **content)
        _locate(group, place, outline, numbers)
    by = "" if said.text.startswith("AI") else "AI: "  # a viewer lists it among what people measured
    group[0].ContentSequence.extend([*more, comment(by + said.text)])
    return group


def _locate(group: sr.Template, place: Place, outline: Points, numbers: Sequence[Number]) -> None:
    """Gives every NUM its coordinates, which highdicom refuses in TID 1410."""
    items = [item for item in group[0].ContentSequence if item.ValueType == "NUM"]
    for item, number in zip(items, numbers, strict=True):
        if "ContentSequence" not in item:
            item.ContentSequence = sr.ContentSequence()
        item.ContentSequence.extend(number.speaks_of)
        where = number.place if number.outlines and number.place is not None else place
        item.ContentSequence.extend(where.coordinates(points) for points in number.outlines or (outline,))


def volumetric(place: Place, segment: Segment, said: Said, measurements: Sequence[sr.Measurement]) -> sr.Template:
    """TID 1411: the whole segment of a volume and what was measured of it.

    Never alone: a viewer wants a planar group of the same Tracking UID to draw.
    """
    made = segment.segmentation
    reference = sr.ReferencedSegment(
        str(made.SOPClassUID),
        str(made.SOPInstanceUID),
        segment.number,
        source_series=sr.SourceSeriesForSegmentation(str(place.original.SeriesInstanceUID)),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=reference, **said.content(measurements)
    )


def probability(finding: Finding) -> list[Number]:
    """That the finding is there; none of what was not calibrated, as a reader takes a score for a chance."""
    if not finding.calibrated:
        return []
    percent = sr.Measurement(codes.DCM.Probability, round(100 * finding.probability, 2), codes.UCUM.Percent)
    of_what = sr.CodeContentItem(codes.DCM.Finding, concept(finding.code), RelationshipTypeValues.HAS_CONCEPT_MOD)
    return [Number(percent, speaks_of=(of_what,))]


def source_of(segment: Segment | None) -> list[sr.ContentItem]:
    """The segment of a mask, if it was written; beside the region, as TID 320 and 1410 take one of the two only."""
    if segment is None:
        return []
    made, name = segment.segmentation, codes.DCM.SourceOfMeasurement
    return [ImageContentItem(name, made.SOPClassUID, made.SOPInstanceUID, None, segment.number, _CONTAINS)]


def illustration(shown: Dataset) -> sr.ContentItem:
    """A picture of the finding."""
    name, class_uid, instance_uid = codes.DCM.IllustrationOfFinding, shown.SOPClassUID, shown.SOPInstanceUID
    return ImageContentItem(name, class_uid, instance_uid, relationship_type=_CONTAINS)


def comment(text: str) -> sr.TextContentItem:
    """Our own words; OHIF's label."""
    return sr.TextContentItem(codes.DCM.Comment, ascii_(text, 1024), _CONTAINS)


def ring(box: Box) -> Points:
    """Closed and clockwise from the top left, as OHIF's rectangle."""
    x0, y0, x1, y1 = box.xyxy
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], np.float64)
