"""Structured report after TID 1500: findings, measurements, what was not found, or why nothing was analysed.

Made so that OHIF draws it: a group has a region, every number in it repeats its coordinates, and a Comment says in
words what the group means; a group without a region blanks the whole report there, unless its Tracking UID is that of
one with a region. A finding that is not `present` is coded as Absent, and never as the Finding of a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from highdicom import sr
from highdicom.sr import RelationshipTypeValues
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, SecondaryCaptureImageStorage

from medgem_node import answer, picture
from medgem_node import evidence as ev
from medgem_node.errors import ConfigError, MedgemError
from medgem_node.evidence import Source
from medgem_node.finding import Analysis, Box, Code, Finding, Measurement, Point
from medgem_node.geometry import are_pixels_square, frames, plane, size
from medgem_node.header import ascii_, text_of
from medgem_node.image_library import library
from medgem_node.measurement_group import (
    Number,
    Place,
    Said,
    Segment,
    comment,
    illustration,
    planar,
    probability,
    ring,
    source_of,
    volumetric,
)
from medgem_node.outline import outlines
from medgem_node.writers.segmentation import segment_number, tracking_role

VARIANTS = ("comprehensive-3d", "comprehensive", "enhanced")
"""The SOP class: Comprehensive 3D SR, and for a PACS that knows no such Comprehensive SR or Enhanced SR."""

_CONTAINS = RelationshipTypeValues.CONTAINS
_PROCEDURES = {  # CID 100
    **dict.fromkeys(("CR", "DX", "RG", "RF", "XA", "MG", "IO", "PX"), codes.cid100.XRUnspecifiedBodyRegion),
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
    "NM": codes.cid100.NMUnspecifiedBodyRegion,
}
_METHODS = {code.meaning: code for code in (*codes.cid6140.concepts.values(), *codes.cid6147.concepts.values())}
_QUALITATIVE = sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500 row 12; in no CID


def create(source: Source, variant: str = VARIANTS[0]) -> ReportWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    if variant not in VARIANTS:
        raise ConfigError(f'measurement_report has no variant "{variant}"; known are {", ".join(VARIANTS)}')
    return ReportWriter(source, variant)


class _Bare(Dataset):
    """Without highdicom's own copying, which knows only some SOP classes; `evidence.finish` does it."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        pass


class _Comprehensive3D(_Bare, sr.Comprehensive3DSR):  # type: ignore[misc]
    pass


class _Comprehensive(_Bare, sr.ComprehensiveSR):  # type: ignore[misc]
    pass


class _Enhanced(_Bare, sr.EnhancedSR):  # type: ignore[misc]
    pass


_CLASSES = dict(zip(VARIANTS, (_Comprehensive3D, _Comprehensive, _Enhanced), strict=True))


def _role(variant: str) -> str:
    return "sr" if variant == VARIANTS[0] else f"sr-{variant}"


@dataclass(slots=True)
class _Run:
    """One report in the making; `taken` are the tracking UIDs that have their group already."""

    source: Source
    analysis: Analysis
    originals: Sequence[Dataset]
    made: Sequence[Dataset]
    uid: Callable[[str], str]
    in_space: bool = False
    taken: set[str] = field(default_factory=set)
    illustrated: set[str] = field(default_factory=set)

    def place(self, image: str, frame: int = 1) -> Place:
        original = next((o for o in self.originals if str(o.SOPInstanceUID) == image), None)
        if original is None or image not in self.analysis.images:
            raise MedgemError("the analysis speaks of an image that is not among those analysed")
        if not 1 <= frame <= frames(original):
            raise MedgemError("the analysis speaks of a frame that its image does not have")
        known = self.in_space and UID(text_of(original, "FrameOfReferenceUID")).is_valid
        return Place(original, frame, plane(original, frame) if known else None)

    def whole(self) -> Place:
        """Where to say what is said of the study: the first image that has pixels."""
        return Place(next((o for o in self.originals if min(size(o)) > 0), self.originals[0]))

    def segment(self, image: str, label: str) -> Segment | None:
        for made in self.made if label else ():
            is_of = "SegmentSequence" in made and ev.of_image([made], made.SOPClassUID, image) is not None
            if is_of and (n := segment_number(made, label)) is not None:
                return Segment(made, n)
        return None

    def algorithm(self, *parameters: str) -> sr.AlgorithmIdentification:
        return ev.algorithm(self.source, self.analysis, *parameters)

    def pictures(self, place: Place) -> list[sr.ContentItem]:
        """The heatmap of the frame, once in a report, if it was written."""
        image = str(place.original.SOPInstanceUID)
        shown = ev.of_image(self.made, SecondaryCaptureImageStorage, image, place.frame)
        if shown is None or image not in self.analysis.images or shown.SOPInstanceUID in self.illustrated:
            return []
        self.illustrated.add(str(shown.SOPInstanceUID))
        return [illustration(shown)]

    def track(self, label: str, image: str = "") -> str:
        """A tracking UID that nothing else in this report has: the segment's own if `label` is a mask's."""
        role = tracking_role(label, ev.number(self.analysis, image) if image in self.analysis.images else 0)
        segment = self.segment(image, label)
        known = (segment.tracking_uid,) if segment is not None and segment.tracking_uid else ()
        roles = (role, *(f"{role}-{k}" for k in range(2, 1000)))
        tracking_uid = next(uid for uid in chain(known, map(self.uid, roles)) if uid not in self.taken)
        self.taken.add(tracking_uid)
        return tracking_uid


@dataclass(frozen=True, slots=True)
class ReportWriter:
    """Always one report for an analysis, also for one that says why it could not be made."""

    source: Source
    variant: str = VARIANTS[0]

    def write(
        self,
        analysis: Analysis,
        originals: Sequence[Dataset],
        made: Sequence[Dataset],
        uid: Callable[[str], str],
    ) -> Sequence[Dataset]:
        """The report."""
        self.source.check(analysis)
        ev.check(analysis, originals)
        displaced = self.source.region == "where-square" and not all(map(are_pixels_square, originals))
        in_space = self.variant == "comprehensive-3d" and (displaced or self.source.region == "scoord3d")
        run = _Run(self.source, analysis, originals, made, uid, in_space)
        role = _role(self.variant)
        content = _content(run, _groups(run))[0]
        report = _CLASSES[self.variant](
            evidence=[*(ev.stand_in(o) for o in originals), *made],
            content=_root(content),
            series_instance_uid=uid(f"{role}-series"),
            series_number=ev.SERIES_NUMBER["measurement_report"],
            sop_instance_uid=uid(role),
            instance_number=1,
            manufacturer=self.source.station.manufacturer,
            is_complete=True,
            is_verified=False,
            previous_versions=self._predecessors(originals[0]) or None,
        )
        report.ContentSequence = content.ContentSequence
        what = f"findings {self.source.algorithm}" if analysis.applicable else "not analysed"
        ev.finish(report, originals[0], self.source, f"AI: {what}")
        return (report,)

    def _predecessors(self, original: Dataset) -> list[Dataset]:
        """The report of the revision before, of the same variant if it was delivered."""
        earlier = self.source.earlier
        for variant in (self.variant, *VARIANTS) if earlier is not None else ():
            assert earlier is not None
            reference = earlier.reference(_role(variant))
            if reference is not None:
                before = Dataset()
                before.SOPClassUID, before.SOPInstanceUID = reference
                before.StudyInstanceUID = original.StudyInstanceUID
                before.SeriesInstanceUID = earlier.uid(f"{_role(variant)}-series")
                return [before]
        return []


def _groups(run: _Run) -> list[sr.Template]:
    if not run.analysis.applicable:
        return [_of_study(run, f"Not analysed: {run.analysis.detail or run.analysis.reason}")]
    groups = [_of_study(run, picture.doubt(run.analysis))] if run.analysis.detail else []
    groups += [group for finding in run.analysis.findings for group in _of_finding(run, finding)]
    groups += [group for measurement in _ungrouped(run) for group in _of_measurement(run, measurement)]
    if not groups:  # OHIF needs one group, and a reader the truth
        groups.append(_of_study(run, "AI ran and reports neither a finding nor a measurement", with_status=False))
    return groups


def _ungrouped(run: _Run) -> list[Measurement]:
    """Those that stand with no finding."""
    grouped = {m for finding in run.analysis.findings for m in _measurements_of(run, finding)}
    return [m for m in run.analysis.measurements if m not in grouped]


def _of_study(run: _Run, text: str, *, with_status: bool = True) -> sr.Template:
    """TID 1500 wants a group, and OHIF a region: one of the whole image, with the status of CID 6042 as its Finding.

    Silence could be read as a normal result.
    """
    status = sr.CodedConcept.from_code(answer.status(run.analysis)) if with_status else None
    said = Said(ascii_(text, 1024), run.track("whole"), run.algorithm(), finding=status)
    return planar(run.whole(), None, said, more=run.pictures(run.whole()))


def _measurements_of(run: _Run, finding: Finding) -> list[Measurement]:
    """Its own, those of its segment, and ratios of several lines on its image, which have no region of their own."""
    others = [
        m
        for m in run.analysis.measurements
        if m.image == finding.image
        and ((m.mask and m.mask == finding.mask) or (len(m.points) > 2 and finding is _first_on(run, finding.image)))
    ]
    return list(dict.fromkeys((*finding.measurements, *others)))


def _first_on(run: _Run, image: str) -> Finding | None:
    return next((f for f in run.analysis.findings if f.image == image), None)


def _of_finding(run: _Run, finding: Finding) -> list[sr.Template]:
    """A group with its region; one more for its segment in a volume, with the same Tracking UID."""
    place = run.place(finding.image, finding.frame)
    measured = _measurements_of(run, finding)
    segment = run.segment(finding.image, finding.mask)
    in_volume = segment is not None and _is_of_volume(run, place)
    of_segment = [m for m in measured if in_volume and m.mask == finding.mask]
    site = ev.concept(finding.site) if finding.site else None
    spoken = [picture.spoken(m) for m in measured if len(m.points) > 2 or _is_of_whole(m, finding, place)]
    review = ["to be reviewed"] if finding.tier == "review" else []
    explains = finding.explanation and not finding.mask
    said = Said(
        ", ".join((finding.explanation, *review)) if explains else picture.said(finding, *spoken, *review),
        run.track(finding.mask or finding.label, finding.image),
        run.algorithm(f"operating_point={finding.operating_point:g}", *_methods(measured)),
        finding=ev.concept(finding.code) if finding.present else site,
        site=_site(site, finding.laterality),
        evaluations=_evaluations(finding),
    )
    numbers = [*probability(finding), *(_number(run, m) for m in measured if m not in of_segment)]
    region = None if finding.box is None else ring(finding.box)
    groups = [planar(place, region, said, numbers, [*source_of(segment), *run.pictures(place)])]
    if in_volume and segment is not None:
        groups.append(volumetric(place, segment, said, list(map(_measured, of_segment))))
    return groups


def _is_of_whole(measurement: Measurement, finding: Finding, place: Place) -> bool:
    """Whether it is of all slices, so that the region on one of them does not show it."""
    is_in_space = plane(place.original, place.frame) is not None
    return bool(measurement.mask) and measurement.mask == finding.mask and is_in_space


def _is_of_volume(run: _Run, place: Place) -> bool:
    """Whether its segments have groups of their own.

    Not beside regions in space, nor in a report of one thing only: PixelMed (2022), by which IHE AIR is tested, then
    takes one kind of group for the other.
    """
    things = len(run.analysis.findings) + len(_ungrouped(run)) + bool(run.analysis.detail)
    return things > 1 and place.space is None and plane(place.original, place.frame) is not None


def _site(code: sr.CodedConcept | None, laterality: Code | None) -> sr.FindingSite | None:
    side = ev.concept(laterality) if laterality is not None else None
    return sr.FindingSite(code, laterality=side) if code is not None else None


def _evaluations(finding: Finding) -> tuple[sr.QualitativeEvaluation, ...]:
    presence = codes.SCT.Present if finding.present else codes.SCT.Absent
    said = [(ev.concept(finding.code), presence), *answer.evaluations(finding.tier)]
    return tuple(sr.QualitativeEvaluation(name, value) for name, value in said)


def _of_measurement(run: _Run, measurement: Measurement) -> list[sr.Template]:
    """A group of its own: a line that OHIF shows as a length, the outline of a segment, or a box around all points."""
    place = run.place(measurement.image, measurement.frame)
    segment = run.segment(measurement.image, measurement.mask)
    in_volume = segment is not None and _is_of_volume(run, place)
    number = _number(run, measurement)
    mask = next((m for m in run.analysis.masks if m.label == measurement.mask), None)
    if measurement.mask:
        region, tool = number.outlines[0] if number.outlines else None, "PlanarFreehandROI"
    elif len(measurement.points) == 2:
        region, tool = number.outlines[0], "Length"
    else:
        region, tool = _around(measurement.points), "RectangleROI"
    said = Said(
        picture.spoken(measurement),
        run.track(measurement.mask or measurement.label, measurement.image),
        run.algorithm(*_methods([measurement])),
        tool if region is not None else "RectangleROI",
        finding=ev.concept(mask.code) if mask else None,
        site=_site(ev.concept(mask.code), mask.laterality) if mask else None,
    )
    more = [*source_of(segment), *run.pictures(place)]
    if segment is not None and in_volume:
        return [planar(place, region, said, (), more), volumetric(place, segment, said, [_measured(measurement)])]
    return [planar(place, region, said, [number], more)]


def _measured(measurement: Measurement) -> sr.Measurement:
    """TID 300, with the method as a code where it has one."""
    if not math.isfinite(measurement.value):
        raise MedgemError(f"the measurement {measurement.label} is no finite number")
    name, unit = ev.concept(measurement.code), ev.concept(measurement.unit)
    value = round(float(measurement.value), 4)  # what is behind was never measured
    return sr.Measurement(name, value, unit, method=_METHODS.get(measurement.method))


def _number(run: _Run, measurement: Measurement) -> Number:
    place = run.place(measurement.image, measurement.frame)
    if measurement.mask:
        return Number(_measured(measurement), place, _outline(run, measurement))
    pairs = zip(measurement.points[::2], measurement.points[1::2], strict=True)
    return Number(_measured(measurement), place, tuple(np.array([(a.x, a.y), (b.x, b.y)]) for a, b in pairs))


def _outline(run: _Run, measurement: Measurement) -> tuple[NDArray[np.float64], ...]:
    """The largest piece of the segment, with few enough points to be edited."""
    for mask in run.analysis.masks:
        pixels = mask.plane(measurement.image, measurement.frame)
        if mask.label == measurement.mask and pixels is not None:
            return tuple(outlines(pixels, tolerance=max(1.0, max(pixels.shape) / 500))[:1])
    return ()


def _methods(measurements: Sequence[Measurement]) -> list[str]:
    return [f"{m.label}: {m.method}" for m in measurements if m.method and m.method not in _METHODS]


def _around(points: Sequence[Point]) -> NDArray[np.float64] | None:
    if not points:
        return None
    xs, ys = [p.x for p in points], [p.y for p in points]
    return ring(Box(min(xs), min(ys), max(xs), max(ys)))


def _root(content: Dataset) -> Dataset:
    """The top content item alone: highdicom copies and parses what it is given twice, which takes half the time."""
    root = Dataset()
    root.update({element.tag: element for element in content if element.keyword != "ContentSequence"})
    root.ContentSequence = []
    return root


def _content(run: _Run, groups: Sequence[sr.Template]) -> sr.MeasurementReport:
    content = sr.MeasurementReport(
        observation_context=ev.observer(run.source),
        procedure_reported=_PROCEDURES.get(text_of(run.originals[0], "Modality"), codes.cid100.ImagingProcedure),
        imaging_measurements=groups,
    )
    tree = content[0].ContentSequence
    analysed = [o for o in run.originals if str(o.SOPInstanceUID) in run.analysis.images]
    for images in library(analysed or run.originals):
        tree.insert(len(tree) - 1, images)  # TID 1500 row 6, before the measurements
    tree.append(_overall(run))
    tree.append(comment(f"{ev.WARNING}. AI {run.source.algorithm}"))
    return content


def _overall(run: _Run) -> sr.ContainerContentItem:
    """TID 1500 row 12: the answer for the study, then all that was looked for, present or absent."""
    present: dict[sr.CodedConcept, bool] = {}
    for finding in run.analysis.findings:
        code = ev.concept(finding.code)
        present[code] = present.get(code, False) or finding.present
    looked_for = [(code, codes.SCT.Present if found else codes.SCT.Absent) for code, found in present.items()]
    box = sr.ContainerContentItem(_QUALITATIVE, is_content_continuous=False, relationship_type=_CONTAINS)
    box.ContentSequence = sr.ContentSequence(
        sr.CodeContentItem(name, value, _CONTAINS)
        for name, value in (*answer.overall(run.analysis, run.source.card), *looked_for)
    )
    return box
