"""Comprehensive 3D SR after TID 1500: findings, measurements, what was not found, or why nothing was analysed.

Made so that OHIF draws it: every group has a region, every number repeats its coordinates, and a Comment says in words
what the group means. A finding that is not `present` is coded as Absent, and never as the Finding of a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from highdicom import sr
from highdicom.sr import ImageContentItem, RelationshipTypeValues
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from medgem_node import evidence as ev
from medgem_node import picture
from medgem_node.errors import MedgemError
from medgem_node.evidence import Source
from medgem_node.finding import Analysis, Box, Code, Finding, Measurement, Point
from medgem_node.geometry import size
from medgem_node.header import ascii_, text_of
from medgem_node.outline import outlines
from medgem_node.writers.segmentation import segment_number, tracking_role

VARIANTS = ("comprehensive-3d",)

FAILURES = (
    *("failed", "unreadable", "header", "pixel", "no-pixel", "transfer-syntax", "image-size", "constant-image"),
    *("worker", "out-of-memory", "model-rejected", "lease-expired", "bad-outcome", "not-written", "not-deidentified"),
)
"""Reasons that begin so mean that the analysis was tried and broke; all others that it was not tried."""

_CONTAINS, _FROM = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.INFERRED_FROM
_TOOL = "Cornerstone3DTools@^0.1.0"  # OHIF restores what names one of its tools
_PROCEDURES = {
    **dict.fromkeys(("CR", "DX", "RG"), codes.cid100.XRUnspecifiedBodyRegion),
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
}
_QUALITATIVE = sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")  # TID 1500 row 12; in no CID


def create(source: Source, variant: str = VARIANTS[0]) -> ReportWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    return ReportWriter(source, variant)


class _Report(sr.Comprehensive3DSR):  # type: ignore[misc]
    """Without highdicom's own copying, which knows only some SOP classes; `evidence.finish` does it."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Number:
    """One NUM of a group: what it was taken at and what it speaks of."""

    measurement: sr.Measurement
    outlines: tuple[NDArray[np.float64], ...] = ()  # none: the group's own region
    speaks_of: tuple[sr.ContentItem, ...] = ()


@dataclass(slots=True)
class _Run:
    """One report in the making; `taken` are the tracking UIDs that have their group already."""

    source: Source
    analysis: Analysis
    originals: Sequence[Dataset]
    made: Sequence[Dataset]
    uid: Callable[[str], str]
    taken: set[str] = field(default_factory=set)
    illustrated: set[str] = field(default_factory=set)

    def original(self, image: str) -> Dataset:
        found = next((o for o in self.originals if str(o.SOPInstanceUID) == image), None)
        if found is None or image not in self.analysis.images:
            raise MedgemError("the analysis speaks of an image that is not among those analysed")
        return found

    def track(self, label: str, image: str) -> str:
        """A tracking UID that no other group of this report has: the segment's own if `label` is a mask's."""
        role = tracking_role(label, ev.number(self.analysis, image) if image in self.analysis.images else 0)
        roles = (role, *(f"{role}-{k}" for k in range(2, 1000)))
        tracking_uid = next(uid for uid in map(self.uid, roles) if uid not in self.taken)
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
        run = _Run(self.source, analysis, originals, made, uid)
        groups = _answer(run) if analysis.applicable else [_refusal(run)]
        content = _content(run, groups)
        headers = [ev.stand_in(o) for o in originals]
        report = _Report(
            evidence=[*headers, *made],
            content=content[0],
            series_instance_uid=uid("sr-series"),
            series_number=ev.SERIES_NUMBER["measurement_report"],
            sop_instance_uid=uid("sr"),
            instance_number=1,
            manufacturer=self.source.station.manufacturer,
            is_complete=True,
            is_verified=False,
        )
        what = f"findings {self.source.algorithm}" if analysis.applicable else "not analysed"
        ev.finish(report, originals[0], self.source, f"AI: {what}")
        return (report,)


def _answer(run: _Run) -> list[sr.Template]:
    groups = [_doubt(run)] if run.analysis.detail else []
    groups += [_of_finding(run, finding) for finding in run.analysis.findings]
    grouped = {m for finding in run.analysis.findings for m in _measurements_of(run, finding)}
    groups += [_of_measurement(run, m) for m in run.analysis.measurements if m not in grouped]
    if not groups:  # OHIF needs one group, and a reader the truth
        text = "AI ran and reports neither a finding nor a measurement"
        groups.append(_group(run, _subject(run), None, text, "RectangleROI", run.track("whole", "")))
    return groups


def _doubt(run: _Run) -> sr.Template:
    """What the model held back, and why: silence could be read as a normal result."""
    text, status = picture.doubt(run.analysis), codes.cid6042.PartiallySucceeded
    return _group(run, _subject(run), None, text, "RectangleROI", run.track("whole", ""), finding=status)


def _refusal(run: _Run) -> sr.Template:
    """TID 1500 wants a group: one for the whole image, with the status of CID 6042 as its Finding."""
    analysis = run.analysis
    failed = analysis.reason.startswith(FAILURES)
    status = codes.cid6042.Failed if failed else codes.cid6042.NotAttempted
    text = ascii_(f"Not analysed: {analysis.detail or analysis.reason}", 1024)
    return _group(run, _subject(run), None, text, "RectangleROI", run.track("whole", ""), finding=status)


def _subject(run: _Run) -> Dataset:
    return next((o for o in run.originals if min(size(o)) > 0), run.originals[0])


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


def _of_finding(run: _Run, finding: Finding) -> sr.Template:
    original = run.original(finding.image)
    probability = sr.Measurement(codes.DCM.Probability, round(100 * finding.probability, 1), codes.UCUM.Percent)
    of_what = sr.CodeContentItem(codes.DCM.Finding, ev.concept(finding.code), RelationshipTypeValues.HAS_CONCEPT_MOD)
    measured = _measurements_of(run, finding)
    site = ev.concept(finding.site) if finding.site else None
    return _group(
        run,
        original,
        None if finding.box is None else _ring(finding.box),
        picture.said(finding, *(picture.spoken(m) for m in measured if len(m.points) > 2)),
        "RectangleROI",
        run.track(finding.mask or finding.label, finding.image),
        finding=ev.concept(finding.code) if finding.present else site,
        sites=[sr.FindingSite(site, laterality=_side(finding.laterality))] if site else None,
        numbers=[_Number(probability, speaks_of=(of_what,)), *(_number(run, m) for m in measured)],
        evaluations=[_evaluation(finding)],
        parameters=[f"operating_point={finding.operating_point:g}", *_methods(measured)],
        mask=finding.mask,
    )


def _side(laterality: Code | None) -> sr.CodedConcept | None:
    return ev.concept(laterality) if laterality is not None else None


def _evaluation(finding: Finding) -> sr.QualitativeEvaluation:
    return sr.QualitativeEvaluation(
        ev.concept(finding.code), codes.SCT.Present if finding.present else codes.SCT.Absent
    )


def _of_measurement(run: _Run, measurement: Measurement) -> sr.Template:
    """A group of its own: a line that OHIF shows as a length, the outline of a segment, or a box around all points."""
    number = _number(run, measurement)
    mask = next((m for m in run.analysis.masks if m.label == measurement.mask), None)
    if measurement.mask:
        region, tool = number.outlines[0] if number.outlines else None, "PlanarFreehandROI"
    elif len(measurement.points) == 2:
        region, tool = number.outlines[0], "Length"
    else:
        region, tool = _around(measurement.points), "RectangleROI"
    return _group(
        run,
        run.original(measurement.image),
        region,
        picture.spoken(measurement),
        tool if region is not None else "RectangleROI",
        run.track(measurement.mask or measurement.label, measurement.image),
        finding=ev.concept(mask.code) if mask else None,
        sites=[sr.FindingSite(ev.concept(mask.code), laterality=_side(mask.laterality))] if mask else None,
        numbers=[number],
        parameters=_methods([measurement]),
        mask=measurement.mask,
    )


def _number(run: _Run, measurement: Measurement) -> _Number:
    if not math.isfinite(measurement.value):
        raise MedgemError(f"the measurement {measurement.label} is no finite number")
    num = sr.Measurement(ev.concept(measurement.code), round(measurement.value, 4), ev.concept(measurement.unit))
    if measurement.mask:
        return _Number(num, _outline(run, measurement))
    pairs = zip(measurement.points[::2], measurement.points[1::2], strict=True)
    return _Number(num, tuple(np.array([(a.x, a.y), (b.x, b.y)]) for a, b in pairs))


def _outline(run: _Run, measurement: Measurement) -> tuple[NDArray[np.float64], ...]:
    """The largest piece of the segment, with few enough points to be edited."""
    for mask in run.analysis.masks:
        pixels = mask.plane(measurement.image, measurement.frame)
        if mask.label == measurement.mask and pixels is not None:
            return tuple(outlines(pixels, tolerance=max(1.0, max(pixels.shape) / 500))[:1])
    return ()


def _segment(run: _Run, image: str, label: str) -> list[sr.ContentItem]:
    """The segment of a mask, if it was written; beside the region, as TID 320 and 1410 take one of the two only."""
    segmentation = ev.of_image(run.made, SegmentationStorage, image)
    n = segment_number(segmentation, label) if segmentation is not None else None
    if segmentation is None or n is None:
        return []
    name, class_uid, instance_uid = codes.DCM.SourceOfMeasurement, segmentation.SOPClassUID, segmentation.SOPInstanceUID
    return [ImageContentItem(name, class_uid, instance_uid, None, n, _CONTAINS)]


def _methods(measurements: Sequence[Measurement]) -> list[str]:
    return [f"{m.label}: {m.method}" for m in measurements if m.method]


def _group(
    run: _Run,
    original: Dataset,
    region: NDArray[np.float64] | None,
    text: str,
    tool: str,
    tracking_uid: str,
    *,
    finding: object = None,
    sites: Sequence[sr.FindingSite] | None = None,
    numbers: Sequence[_Number] = (),
    evaluations: Sequence[sr.QualitativeEvaluation] = (),
    parameters: Sequence[str] = (),
    mask: str = "",
) -> sr.Template:
    """TID 1410; without a region, the whole image; TID 1501 for what has no pixels to point at."""
    text = ascii_(text, 1024)
    rows, columns = size(original)
    ring = region if region is not None else _ring(Box(0, 0, columns, rows))
    common = {
        "tracking_identifier": sr.TrackingIdentifier(tracking_uid, ascii_(f"{_TOOL}:{tool}:{text}", 1024)),
        "finding_type": finding,
        "finding_sites": sites,
        "algorithm_id": ev.algorithm(run.source, run.analysis, *parameters),
        "measurements": [n.measurement for n in numbers] or None,
        "qualitative_evaluations": list(evaluations) or None,
    }
    if min(rows, columns) == 0:
        group = sr.MeasurementsAndQualitativeEvaluations(**common)
    else:
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=sr.ImageRegion("POLYLINE", _within(ring, rows, columns), _image(original)), **common
        )
        _locate(group, original, ring, numbers)
    segment = _segment(run, str(original.SOPInstanceUID), mask) if mask else []
    group[0].ContentSequence.extend([*segment, *_illustration(run, original), _text(text)])
    return group


def _locate(group: sr.Template, original: Dataset, ring: NDArray[np.float64], numbers: Sequence[_Number]) -> None:
    """Gives every NUM its coordinates; highdicom refuses them in TID 1410, OHIF hydrates nothing without them."""
    items = [item for item in group[0].ContentSequence if item.ValueType == "NUM"]
    for item, number in zip(items, numbers, strict=True):
        if "ContentSequence" not in item:
            item.ContentSequence = sr.ContentSequence()
        item.ContentSequence.extend(number.speaks_of)
        for points in number.outlines or (ring,):
            inside = _within(points, *size(original))
            item.ContentSequence.append(sr.CoordinatesForMeasurement("POLYLINE", inside, _image(original)))


def _image(original: Dataset) -> sr.SourceImageForRegion:
    return sr.SourceImageForRegion(str(original.SOPClassUID), str(original.SOPInstanceUID))


def _illustration(run: _Run, original: Dataset) -> list[sr.ContentItem]:
    """The heatmap, once for each image, if it was written."""
    image = str(original.SOPInstanceUID)
    if image in run.illustrated or image not in run.analysis.images:
        return []
    run.illustrated.add(image)
    shown = ev.of_image(run.made, SecondaryCaptureImageStorage, image)
    if shown is None:
        return []
    name, class_uid, instance_uid = codes.DCM.IllustrationOfFinding, shown.SOPClassUID, shown.SOPInstanceUID
    return [ImageContentItem(name, class_uid, instance_uid, relationship_type=_CONTAINS)]


def _text(text: str) -> sr.TextContentItem:
    return sr.TextContentItem(codes.DCM.Comment, text, _CONTAINS)


def _ring(box: Box) -> NDArray[np.float64]:
    """Closed and clockwise from the top left, as OHIF's rectangle."""
    x0, y0, x1, y1 = box.xyxy
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], np.float64)


def _around(points: Sequence[Point]) -> NDArray[np.float64] | None:
    if not points:
        return None
    xs, ys = [p.x for p in points], [p.y for p in points]
    return _ring(Box(min(xs), min(ys), max(xs), max(ys)))


def _within(points: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    return np.clip(points, 0, (columns, rows))


def _content(run: _Run, groups: Sequence[sr.Template]) -> sr.MeasurementReport:
    content = sr.MeasurementReport(
        observation_context=ev.observer(run.source),
        procedure_reported=_PROCEDURES.get(text_of(run.originals[0], "Modality"), codes.cid100.ImagingProcedure),
        imaging_measurements=groups,
    )
    tree = content[0].ContentSequence
    analysed = [o for o in run.originals if str(o.SOPInstanceUID) in run.analysis.images]
    for library in ev.library(analysed or run.originals):
        tree.insert(len(tree) - 1, library)  # TID 1500 row 6, before the measurements
    if run.analysis.findings:
        tree.append(_looked_for(run.analysis.findings))
    tree.append(_text(f"{ev.WARNING}. AI {run.source.algorithm}"))
    return content


def _looked_for(findings: Sequence[Finding]) -> sr.ContainerContentItem:
    """TID 1500 row 12: all that was looked for, present or absent."""
    box = sr.ContainerContentItem(_QUALITATIVE, is_content_continuous=False, relationship_type=_CONTAINS)
    present: dict[sr.CodedConcept, bool] = {}
    for finding in findings:
        code = ev.concept(finding.code)
        present[code] = present.get(code, False) or finding.present
    box.ContentSequence = sr.ContentSequence(
        sr.CodeContentItem(code, codes.SCT.Present if found else codes.SCT.Absent, _CONTAINS)
        for code, found in present.items()
    )
    return box
