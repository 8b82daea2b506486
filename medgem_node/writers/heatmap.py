"""Secondary Capture: the source image with all that the model says of it, for viewers that show pictures only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from medgem_node import evidence as ev
from medgem_node import picture
from medgem_node.answer import REASONS
from medgem_node.errors import ConfigError, NotAnalysable
from medgem_node.evidence import Earlier, Source
from medgem_node.finding import Analysis
from medgem_node.geometry import frames, plane, spacing_mm
from medgem_node.header import ascii_, carry, text_of
from medgem_node.window import grey

VARIANTS = ("true-colour", "always")
_BLANK = (512, 512)  # rows and columns where no image can be shown
_OBLIQUE = 0.05  # a direction's smaller components are not worth a letter: 3 degrees


def create(source: Source, variant: str = VARIANTS[0]) -> HeatmapWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    if variant not in VARIANTS:
        raise ConfigError(f'heatmap has no variant "{variant}"; known are {", ".join(VARIANTS)}')
    return HeatmapWriter(source, variant)


@dataclass(frozen=True, slots=True)
class HeatmapWriter:
    """One picture for each image or frame that the analysis says something of, all in one series.

    A picture has no position in space (PS3.3 A.8.1 has no Image Plane Module); it refers to the image that has. The
    variant `always` has one picture also where there is nothing to draw: it says so, or why nothing was analysed.
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
        """The pictures. Raises Unreadable if an image that something is said of cannot be decoded."""
        self.source.check(analysis)
        ev.check(analysis, originals)
        places = _places(analysis, originals) if analysis.applicable else ()
        pictures = tuple(self._picture(analysis, *place, uid) for place in places)
        if pictures or self.variant != "always":
            return pictures
        return (self._answer(analysis, originals, uid),)

    def _picture(
        self, analysis: Analysis, original: Dataset, frame: int, number: int, uid: Callable[[str], str]
    ) -> Dataset:
        image = str(original.SOPInstanceUID)
        role = _role(ev.number(analysis, image), frame)
        scale = picture.scale(original, frame)
        pixels = picture.overlay(grey(original, frame), analysis, image, [self._title], frame, scale)
        capture = self._capture(pixels, original, role, number, uid)
        self._complete(capture, original, frame)
        _space(capture, original, frame)
        return capture

    def _answer(self, analysis: Analysis, originals: Sequence[Dataset], uid: Callable[[str], str]) -> Dataset:
        """One picture of the first image that can be shown, else of none, with the answer in words."""
        shown = next((found for found in map(_shown, originals) if found is not None), None)
        original, image = shown or (originals[0], np.zeros(_BLANK, np.uint8))
        words = [self._title, ascii_(_in_words(analysis), 400)]
        said = replace(analysis, detail="")  # in the title already
        scale = picture.scale(original) if shown else None
        pixels = picture.overlay(image, said, str(original.SOPInstanceUID), words, scale=scale)
        capture = self._capture(pixels, original, "sc-answer", 1, uid)
        self._complete(capture, original, 1)
        if shown:
            _space(capture, original, 1)
        else:
            del capture.SourceImageSequence
        return capture

    @property
    def _title(self) -> str:
        return f"AI {self.source.algorithm} - {ev.WARNING}"

    def _capture(
        self, pixels: NDArray[np.uint8], original: Dataset, role: str, number: int, uid: Callable[[str], str]
    ) -> Dataset:
        capture: Dataset = highdicom.sc.SCImage.from_ref_dataset(
            ref_dataset=ev.stand_in(original),
            pixel_array=pixels,
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
        replaces(capture, self.source.earlier, role)
        return capture

    def _complete(self, capture: Dataset, original: Dataset, frame: int) -> None:
        capture.Modality = "OT"
        capture.ConversionType = "WSD"
        capture.BurnedInAnnotation = "YES"
        capture.DerivationDescription = f"Drawn over the source image by {self.source.algorithm}, {ev.RESEARCH}"
        capture.PatientOrientation = _orientation(original, frame)
        carry(capture, original, ["PatientOrientation", "BodyPartExamined", "Laterality"])
        if "BodyPartExamined" not in capture and "Laterality" not in capture:
            capture.Laterality = ""  # General Series wants it where nobody says what is shown (2C)
        reference = Dataset()
        reference.ReferencedSOPClassUID = original.SOPClassUID
        reference.ReferencedSOPInstanceUID = original.SOPInstanceUID
        if frames(original) > 1:
            reference.ReferencedFrameNumber = frame
        purpose = codes.cid7202.SourceImageForImageProcessingOperation
        reference.PurposeOfReferenceCodeSequence = [highdicom.sr.CodedConcept.from_code(purpose)]
        capture.SourceImageSequence = [reference]
        ev.finish(capture, original, self.source, f"AI heatmap {self.source.algorithm}")


def _shown(original: Dataset) -> tuple[Dataset, NDArray[np.uint8]] | None:
    try:
        return original, grey(original)
    except NotAnalysable:
        return None


def _in_words(analysis: Analysis) -> str:
    if not analysis.applicable:
        return f"NOT ANALYSED because: {analysis.detail or REASONS.get(analysis.reason, analysis.reason)}"
    return "; ".join(filter(None, ("Analysed; nothing is marked on the images", analysis.detail)))


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
