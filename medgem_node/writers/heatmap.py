"""Secondary Capture: the source image with all that the model says of it, for viewers that show pictures only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import highdicom
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from medgem_node import evidence as ev
from medgem_node import picture
from medgem_node.evidence import Source
from medgem_node.finding import Analysis
from medgem_node.geometry import spacing_mm
from medgem_node.header import carry

VARIANTS = ("true-colour",)


def create(source: Source, variant: str = VARIANTS[0]) -> HeatmapWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    return HeatmapWriter(source, variant)


@dataclass(frozen=True, slots=True)
class HeatmapWriter:
    """One picture for each image that the analysis says something of, all in one series."""

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
        drawn = _drawn(analysis)
        ev.check(analysis, originals)
        return tuple(self._picture(analysis, o, uid) for o in originals if str(o.SOPInstanceUID) in drawn)

    def _picture(self, analysis: Analysis, original: Dataset, uid: Callable[[str], str]) -> Dataset:
        image = str(original.SOPInstanceUID)
        n = ev.number(analysis, image)
        title = [f"AI {self.source.algorithm} - {ev.WARNING}"]
        capture: Dataset = highdicom.sc.SCImage.from_ref_dataset(
            ref_dataset=ev.stand_in(original),
            pixel_array=picture.overlay(picture.grey(original), analysis, image, title),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "F"),  # replaced by the original's below
            series_instance_uid=uid("sc-series"),
            series_number=ev.SERIES_NUMBER["heatmap"],
            sop_instance_uid=uid(f"sc-{n}"),
            instance_number=n,
            manufacturer=self.source.station.manufacturer,
            pixel_spacing=spacing_mm(original),
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        self._complete(capture, original)
        return capture

    def _complete(self, capture: Dataset, original: Dataset) -> None:
        capture.Modality = "OT"
        capture.ConversionType = "WSD"
        capture.BurnedInAnnotation = "YES"
        capture.DerivationDescription = f"Drawn over the source image by {self.source.algorithm}, {ev.RESEARCH}"
        capture.PatientOrientation = ""
        carry(capture, original, ["PatientOrientation", "BodyPartExamined"])
        reference = Dataset()
        reference.ReferencedSOPClassUID = original.SOPClassUID
        reference.ReferencedSOPInstanceUID = original.SOPInstanceUID
        purpose = codes.cid7202.SourceImageForImageProcessingOperation
        reference.PurposeOfReferenceCodeSequence = [highdicom.sr.CodedConcept.from_code(purpose)]
        capture.SourceImageSequence = [reference]
        ev.finish(capture, original, self.source, f"AI heatmap {self.source.algorithm}")


def _drawn(analysis: Analysis) -> frozenset[str]:
    if not analysis.applicable:
        return frozenset()
    of_masks = (image for mask in analysis.masks for image in mask.images)
    of_heatmaps = (image for heatmap in analysis.heatmaps for image in heatmap.images)
    named = (*(f.image for f in analysis.findings), *(m.image for m in analysis.measurements))
    return frozenset((*of_masks, *of_heatmaps, *named)) & frozenset(analysis.images)
