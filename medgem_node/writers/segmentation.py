"""DICOM Segmentation: every mask of an analysis as a segment over its source images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from medgem_node import evidence as ev
from medgem_node.errors import MedgemError
from medgem_node.evidence import Source
from medgem_node.finding import Analysis, Mask
from medgem_node.geometry import is_projection, size, spacing_mm
from medgem_node.header import ascii_, carry

VARIANTS = ("binary",)


def create(source: Source, variant: str = VARIANTS[0]) -> SegmentationWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    return SegmentationWriter(source, variant)


@dataclass(frozen=True, slots=True)
class SegmentationWriter:
    """One object for each radiograph, as each has a frame of reference of its own; one for all slices of a volume."""

    source: Source
    variant: str = VARIANTS[0]

    def write(
        self,
        analysis: Analysis,
        originals: Sequence[Dataset],
        made: Sequence[Dataset],
        uid: Callable[[str], str],
    ) -> Sequence[Dataset]:
        """The segmentations; none if no mask has a pixel."""
        self.source.check(analysis)
        if not analysis.applicable or not analysis.masks:
            return ()
        ev.check(analysis, originals)
        groups = _groups(list(ev.analysed(analysis, originals)))
        objects = (self._segmentation(analysis, images, uid) for images in groups)
        return tuple(found for found in objects if found is not None)

    def _segmentation(self, analysis: Analysis, images: list[Dataset], uid: Callable[[str], str]) -> Dataset | None:
        masks = [(mask, pixels) for mask in analysis.masks if (pixels := _pixels(mask, images)).any()]
        if not masks:
            return None
        n = ev.number(analysis, images[0].SOPInstanceUID)
        stack = np.stack([pixels for _, pixels in masks], axis=-1)
        headers = [ev.placed(image, uid(f"frame-of-reference-{n}")) for image in images]
        segmentation: Dataset = highdicom.seg.Segmentation(
            source_images=headers,
            pixel_array=stack.astype(np.uint8),
            segment_descriptions=[
                self._segment(analysis, mask, k, uid(tracking_role(mask.label, n)))
                for k, (mask, _) in enumerate(masks, 1)
            ],
            series_instance_uid=uid(f"seg-series-{n}"),
            series_number=ev.SERIES_NUMBER["segmentation"],
            sop_instance_uid=uid(f"seg-{n}"),
            instance_number=n,
            manufacturer=self.source.station.manufacturer,
            manufacturer_model_name=self.source.station.model_name,
            software_versions=self.source.station.software_version,
            device_serial_number=self.source.station.serial_number,
            content_label="AI_RESEARCH_ONLY",
            content_description=ev.described(self.source.algorithm),
            content_creator_name="medgem-node^",
            omit_empty_frames=True,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **_encoding(stack),
        )
        self._complete(segmentation, images[0], uid(f"dimension-organization-{n}"))
        return segmentation

    def _segment(self, analysis: Analysis, mask: Mask, k: int, tracking_uid: str) -> SegmentDescription:
        segment = SegmentDescription(
            segment_number=k,
            segment_label=ascii_(mask.label, 64),
            segmented_property_category=ev.concept(mask.category),
            segmented_property_type=ev.concept(mask.code),
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=ev.algorithm_sequence(self.source, analysis),
            tracking_uid=tracking_uid,
            tracking_id=ascii_(mask.label, 64),
            display_color=highdicom.color.CIELabColor.from_rgb(*mask.colour_rgb),
        )
        if mask.laterality is not None:  # a modifier of the property type, PS3.3 C.8.20.4.4
            segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
                ev.concept(mask.laterality)
            ]
        return segment

    def _complete(self, segmentation: Dataset, original: Dataset, dimension_organization_uid: str) -> None:
        segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = dimension_organization_uid
        for index in segmentation.DimensionIndexSequence:
            index.DimensionOrganizationUID = dimension_organization_uid
        carry(segmentation, original, ["BodyPartExamined"])
        if is_projection(original):  # General Image wants it where there is no Image Orientation (2C)
            segmentation.PatientOrientation = ""
            carry(segmentation, original, ["PatientOrientation"])
            if spacing_mm(original) is None:
                segmentation.DerivationDescription = "Pixel spacing unknown: 1 mm is written, do not measure on it"
        ev.finish(segmentation, original, self.source, f"AI segmentation {self.source.algorithm}")


def tracking_role(label: str, n: int) -> str:
    """The role of the UID that ties a segment to its group in the report."""
    return f"tracking-{label}-{n}"


def segment_number(segmentation: Dataset, label: str) -> int | None:
    """The number of the segment with a mask's label."""
    for segment in segmentation.SegmentSequence:
        if segment.SegmentLabel == ascii_(label, 64):
            return int(segment.SegmentNumber)
    return None


def _groups(images: list[Dataset]) -> Iterator[list[Dataset]]:
    volumes: dict[tuple[str, str], list[Dataset]] = {}
    for image in images:
        if is_projection(image):
            yield [image]
        else:
            key = (str(image.SeriesInstanceUID), str(image.get("FrameOfReferenceUID")))
            volumes.setdefault(key, []).append(image)
    yield from volumes.values()


def _pixels(mask: Mask, images: list[Dataset]) -> NDArray[np.bool_]:
    """(images, rows, columns), False where the mask does not speak of an image. Raises MedgemError if sizes differ."""
    rows, columns = size(images[0])
    pixels = np.zeros((len(images), rows, columns), bool)
    for k, image in enumerate(images):
        frame = mask.plane(str(image.SOPInstanceUID))
        if frame is not None:
            if frame.shape != (rows, columns):
                raise MedgemError(f"mask {mask.label} is {frame.shape}, its image {(rows, columns)} pixels")
            pixels[k] = frame
    return pixels


def _encoding(stack: NDArray[np.bool_]) -> dict[str, Any]:
    """BINARY, unless its bit-packed frames would not end on a byte: OHIF then asks for frames that Orthanc refuses.

    FRACTIONAL with only 0 and the maximum is shown alike.
    """
    if stack.shape[1] * stack.shape[2] % 8 == 0:
        return {"segmentation_type": "BINARY"}
    return {"segmentation_type": "FRACTIONAL", "fractional_type": "OCCUPANCY", "max_fractional_value": 255}
