"""Secondary Capture: the source image with all that the model says of it, for viewers that show pictures only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import highdicom
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from medgem_node import evidence as ev
from medgem_node import picture
from medgem_node.evidence import Earlier, Source
from medgem_node.finding import Analysis
from medgem_node.geometry import frames, plane, spacing_mm
from medgem_node.header import carry, text_of
from medgem_node.window import grey

VARIANTS = ("true-colour",)
_OBLIQUE = 0.05  # a direction's smaller components are not worth a letter: 3 degrees


def create(source: Source, variant: str = VARIANTS[0]) -> HeatmapWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    return HeatmapWriter(source, variant)


@dataclass(frozen=True, slots=True)
class HeatmapWriter:
    """One picture for each image or frame that the analysis says something of, all in one series.

    A picture has no position in space (PS3.3 A.8.1 has no Image Plane Module); it refers to the image that has.
    """

    source: Source
    variant: str = VARIANTS[0]

    def write(
        self,
        analysis: Analysis,
        originals: Sequence[Dataset],
        made: Sequence[Dataset],
        uid: Callable[[str], str],
    ) -> Sequence[Dataset]:
        """The pictures; none if there is nothing to draw. Raises Unreadable if an image cannot be decoded."""
        self.source.check(analysis)
        if not analysis.applicable:
            return ()
        ev.check(analysis, originals)
        return tuple(self._picture(analysis, *place, uid) for place in _places(analysis, originals))

    def _picture(
        self, analysis: Analysis, original: Dataset, frame: int, number: int, uid: Callable[[str], str]
    ) -> Dataset:
        image = str(original.SOPInstanceUID)
        role = _role(ev.number(analysis, image), frame)
        title = [f"AI {self.source.algorithm} - {ev.WARNING}"]
        scale = picture.scale(original, frame)
        capture: Dataset = highdicom.sc.SCImage.from_ref_dataset(
            ref_dataset=ev.stand_in(original),
            pixel_array=picture.overlay(grey(original, frame), analysis, image, title, frame, scale),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),  # replaced by the original's below
            series_instance_uid=uid("sc-series"),
            series_number=ev.SERIES_NUMBER["heatmap"],
            sop_instance_uid=uid(role),
            instance_number=number,
            manufacturer=self.source.station.manufacturer,
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        self._complete(capture, original, frame)
        replaces(capture, self.source.earlier, role)
        return capture

    def _complete(self, capture: Dataset, original: Dataset, frame: int) -> None:
        capture.Modality = "OT"
        capture.ConversionType = "WSD"
        capture.BurnedInAnnotation = "YES"
        capture.DerivationDescription = f"Drawn over the source image by {self.source.algorithm}, {ev.RESEARCH}"
        capture.PatientOrientation = _orientation(original, frame)
        carry(capture, original, ["PatientOrientation", "BodyPartExamined"])
        _space(capture, original, frame)
        reference = Dataset()
        reference.ReferencedSOPClassUID = original.SOPClassUID
        reference.ReferencedSOPInstanceUID = original.SOPInstanceUID
        if frames(original) > 1:
            reference.ReferencedFrameNumber = frame
        purpose = codes.cid7202.SourceImageForImageProcessingOperation
        reference.PurposeOfReferenceCodeSequence = [highdicom.sr.CodedConcept.from_code(purpose)]
        capture.SourceImageSequence = [reference]
        ev.finish(capture, original, self.source, f"AI heatmap {self.source.algorithm}")


def replaces(target: Dataset, earlier: Earlier | None, role: str) -> None:
    """Names the object of the same role of the revision before, if it was delivered (PS3.3 C.12.4).

    CID 7201 has no nearer purpose than the temporal predecessor.
    """
    found = earlier.reference(role) if earlier is not None else None
    if found is None:
        return
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = found
    purpose = highdicom.sr.CodedConcept.from_code(codes.cid7201.TemporalPredecessor)
    reference.PurposeOfReferenceCodeSequence = [purpose]
    target.ReferencedInstanceSequence = [reference]


def _places(analysis: Analysis, originals: Sequence[Dataset]) -> Iterator[tuple[Dataset, int, int]]:
    """Image, frame and instance number of each picture, numbered as if there were one of every frame."""
    before = 0
    for original in ev.analysed(analysis, originals):
        image, count = str(original.SOPInstanceUID), frames(original)
        for frame in range(1, count + 1):
            if picture.is_spoken_of(analysis, image, frame):
                yield original, frame, before + frame
        before += count


def _role(n: int, frame: int) -> str:
    return f"sc-{n}" if frame == 1 else f"sc-{n}-{frame}"


def _space(capture: Dataset, original: Dataset, frame: int) -> None:
    """How far apart the picture's pixels are, or at least their shape."""
    spacing = spacing_mm(original, frame)
    if spacing is None:
        carry(capture, original, ["PixelAspectRatio"])
        return
    times = int(capture.Columns) // max(1, int(original.Columns))
    capture.PixelSpacing = [DSfloat(mm / times, auto_format=True) for mm in spacing]
    if text_of(original, "PixelSpacing"):
        carry(capture, original, ["PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription"])


def _orientation(original: Dataset, frame: int) -> str | list[str]:
    """Patient Orientation of a frame that lies in space (PS3.3 C.7.6.1.1.1); empty for one that does not."""
    place = plane(original, frame)
    return [_letters(place.across), _letters(place.down)] if place is not None else ""


def _letters(direction: tuple[float, float, float]) -> str:
    """`LPH` are the directions in which x, y and z of the patient grow, `RAF` the opposite; the largest first."""
    letters = [("RL"[value > 0], "AP"[value > 0], "FH"[value > 0])[axis] for axis, value in enumerate(direction)]
    by_size = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    return "".join(letters[axis] for axis in by_size if abs(direction[axis]) > _OBLIQUE)
