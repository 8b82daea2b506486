"""DICOM Segmentation: every mask of an analysis as a segment over its source images.

highdicom makes the object for one small frame, so that its modules are highdicom's; the frames are then put in one by
one from packed masks, so that a volume is never unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import highdicom
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medgem_node import evidence as ev
from medgem_node import frame_groups
from medgem_node.errors import ConfigError, MedgemError
from medgem_node.evidence import Source
from medgem_node.finding import Analysis, Bits, Mask, packed
from medgem_node.frame_groups import item, reference
from medgem_node.geometry import frames, spacing_mm
from medgem_node.header import ascii_, carry
from medgem_node.part10 import without_collection
from medgem_node.volume import Volume, decimal, volumes

VARIANTS = ("binary", "fractional", "labelmap")
"""`fractional` writes a byte for each pixel, 0 or 255; `labelmap` one byte for all segments, where none overlap (a
Label Map Segmentation, which few viewers know), else what `binary` writes."""

_TINY = 8  # rows and columns of the frame that highdicom is given
_KINDS: dict[str, dict[str, Any]] = {
    "BINARY": {"segmentation_type": "BINARY"},
    "FRACTIONAL": {"segmentation_type": "FRACTIONAL", "fractional_type": "OCCUPANCY", "max_fractional_value": 255},
    "LABELMAP": {"segmentation_type": "LABELMAP"},
}
_MOST_LABELS = 255  # of a byte; 0 is the background


def create(source: Source, variant: str = VARIANTS[0]) -> SegmentationWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    if variant not in VARIANTS:
        raise ConfigError(f'segmentation has no variant "{variant}"; known are {", ".join(VARIANTS)}')
    return SegmentationWriter(source, variant)


@dataclass(frozen=True, slots=True, eq=False)
class _Packed:
    """A mask and which of its frames speak of which frame of an image."""

    mask: Mask
    bits: Bits
    order: dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True, eq=False)
class _Segment:
    """A mask in one volume: its packed frames, by the index of their slice; those that are empty are left out."""

    mask: Mask
    of_slice: dict[int, NDArray[np.uint8]]


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
        """The segmentations; none if no mask has a pixel. Raises MedgemError if a mask has not its image's size."""
        self.source.check(analysis)
        if not analysis.applicable or not analysis.masks:
            return ()
        ev.check(analysis, originals)
        masks = [_Packed(mask, packed(mask.pixels), mask.order()) for mask in analysis.masks]
        written = []
        with without_collection():
            for volume in volumes(ev.analysed(analysis, originals)):
                if segments := _segments(masks, volume):
                    written.append(self._segmentation(analysis, volume, segments, uid))
        return tuple(written)

    def _segmentation(
        self, analysis: Analysis, volume: Volume, segments: Sequence[_Segment], uid: Callable[[str], str]
    ) -> Dataset:
        n, overlap = volume.role(analysis.images), _overlap(segments)
        kind = _kind(self.variant, volume, segments, overlap)
        segmentation: Dataset = highdicom.seg.Segmentation(
            source_images=[_tiny(volume, uid(f"frame-of-reference-{n}"))],
            pixel_array=np.ones((1, _TINY, _TINY, *([] if kind == "LABELMAP" else [len(segments)])), np.uint8),
            segment_descriptions=[
                self._segment(analysis, segment.mask, k, uid(tracking_role(segment.mask.label, n)))
                for k, segment in enumerate(segments, 1)
            ],
            series_instance_uid=uid(f"seg-series-{self._mark}{n}"),
            series_number=ev.SERIES_NUMBER["segmentation"],
            sop_instance_uid=uid(f"seg-{self._mark}{n}"),
            instance_number=ev.number(analysis, volume.first.name[0]),
            manufacturer=self.source.station.manufacturer,
            manufacturer_model_name=self.source.station.model_name,
            software_versions=self.source.station.software_version,
            device_serial_number=self.source.station.serial_number,
            content_label="AI_RESEARCH_ONLY",
            content_description=ev.described(self.source.algorithm),
            content_creator_name="medgem-node^",
            omit_empty_frames=False,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **_KINDS[kind],
        )
        self._complete(segmentation, volume, uid(f"dimension-organization-{self._mark}{n}"))
        segmentation.SegmentsOverlap = "YES" if overlap else "NO"
        _refer(segmentation, volume)
        self._replace(segmentation, n)
        _fill(segmentation, volume, segments, kind)
        return segmentation

    @property
    def _mark(self) -> str:
        """Tells the UIDs of the other variants from those of the first; tracking UIDs are the same in all."""
        return "" if self.variant == VARIANTS[0] else f"{self.variant}-"

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

    def _complete(self, segmentation: Dataset, volume: Volume, dimension_organization_uid: str) -> None:
        original = volume.first.image
        segmentation.Rows, segmentation.Columns = volume.size
        segmentation.DimensionOrganizationSequence[0].DimensionOrganizationUID = dimension_organization_uid
        for index in segmentation.DimensionIndexSequence:
            index.DimensionOrganizationUID = dimension_organization_uid
        carry(segmentation, original, ["BodyPartExamined"])
        if not volume.is_placed:  # General Image wants it where there is no Image Orientation (2C)
            segmentation.PatientOrientation = ""
            carry(segmentation, original, ["PatientOrientation"])
            if spacing_mm(original) is None:
                segmentation.DerivationDescription = "Pixel spacing unknown: 1 mm is written, do not measure on it"
        ev.finish(segmentation, original, self.source, f"AI segmentation {self.source.algorithm}")

    def _replace(self, segmentation: Dataset, n: str) -> None:
        """Names the object of an earlier revision. No code of CID 7201 says "replaces", and purpose is type 3 there."""
        earlier = self.source.earlier
        found = earlier.reference(f"seg-{self._mark}{n}") if earlier is not None else None
        if earlier is None or found is None:
            return
        replaced = item(ReferencedSOPClassUID=found[0], ReferencedSOPInstanceUID=found[1])
        segmentation.ReferencedImageSequence = [replaced]
        segmentation.ReferencedSeriesSequence.append(
            item(SeriesInstanceUID=earlier.uid(f"seg-series-{self._mark}{n}"), ReferencedInstanceSequence=[replaced])
        )


def tracking_role(label: str, n: int | str) -> str:
    """The role of the UID that ties a segment to its group in the report."""
    return f"tracking-{label}-{n}"


def segment_number(segmentation: Dataset, label: str) -> int | None:
    """The number of the segment with a mask's label."""
    found = _named(segmentation, label)
    return None if found is None else int(found.SegmentNumber)


def tracking_uid(segmentation: Dataset, label: str) -> str | None:
    """The tracking UID of the segment with a mask's label, for the group of a report that speaks of it."""
    found = _named(segmentation, label)
    return None if found is None else str(found.TrackingUID)


def _named(segmentation: Dataset, label: str) -> Dataset | None:
    return next((s for s in segmentation.SegmentSequence if s.SegmentLabel == ascii_(label, 64)), None)


def _segments(masks: Sequence[_Packed], volume: Volume) -> list[_Segment]:
    """Those masks that have a pixel in the volume."""
    segments = []
    for each in masks:
        said = {k: each.order[s.name] for k, s in enumerate(volume.slices) if s.name in each.order}
        if said and each.bits.shape[1:] != volume.size:
            raise MedgemError(f"mask {each.mask.label} is {each.bits.shape[1:]}, its image {volume.size} pixels")
        if of_slice := {k: each.bits.data[n] for k, n in said.items() if each.bits.data[n].any()}:
            segments.append(_Segment(each.mask, of_slice))
    return segments


def _overlap(segments: Sequence[_Segment]) -> bool:
    taken: dict[int, NDArray[np.uint8]] = {}
    for segment in segments:
        for k, bits in segment.of_slice.items():
            if k in taken and (taken[k] & bits).any():
                return True
            taken[k] = taken[k] | bits if k in taken else bits
    return False


def _kind(variant: str, volume: Volume, segments: Sequence[_Segment], overlap: bool) -> str:
    """BINARY, unless its bit-packed frames would not end on a byte: OHIF then asks for frames that Orthanc refuses.

    FRACTIONAL with only 0 and the maximum is shown alike.
    """
    if variant == "labelmap" and not overlap and len(segments) <= _MOST_LABELS:
        return "LABELMAP"
    rows, columns = volume.size
    return "FRACTIONAL" if variant == "fractional" or rows * columns % 8 else "BINARY"


def _tiny(volume: Volume, frame_of_reference_uid: str) -> Dataset:
    header = volume.header(frame_of_reference_uid)
    header.SOPClassUID = CTImageStorage  # of an enhanced image highdicom would ask for functional groups
    header.Rows, header.Columns = _TINY, _TINY
    return header


def _refer(segmentation: Dataset, volume: Volume) -> None:
    """Names every source image; of a multi-frame image that lies in several volumes, the frames."""
    numbers: dict[str, list[int]] = {}
    for each in volume.slices:
        numbers.setdefault(each.name[0], []).append(each.frame)
    images = list({each.name[0]: each.image for each in volume.slices}.values())
    references = [reference(image) for image in images]
    segmentation.ReferencedSeriesSequence = [
        item(SeriesInstanceUID=str(volume.first.image.SeriesInstanceUID), ReferencedInstanceSequence=references)
    ]
    segmentation.SourceImageSequence = [
        whole if len(found) == frames(image) else reference(image, found)
        for whole, image, found in zip(references, images, numbers.values(), strict=True)
    ]


def _fill(segmentation: Dataset, volume: Volume, segments: Sequence[_Segment], kind: str) -> None:
    """Puts in the frames, segment after segment and each in the order in space, and says where they lie."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:  # of a single segment; in every frame's own it is read by all
        del shared.SegmentIdentificationSequence
    if volume.step_mm is not None:
        shared.PixelMeasuresSequence[0].SpacingBetweenSlices = decimal(volume.step_mm)
    used = sorted({k for segment in segments for k in segment.of_slice})
    place_of = dict(zip(used, frame_groups.of_slices([volume.slices[k] for k in used]), strict=True))
    segment_of = [frame_groups.of_segment(n) for n in range(len(segments) + 1)]
    items, packs = [], []
    pixels = volume.size[0] * volume.size[1]
    for numbers, rank, k in _frames(segments, used, kind):
        of_segment = segment_of[numbers[0]] if numbers else Dataset()
        items.append(frame_groups.frame([*numbers, rank], place_of[k], of_segment))
        packs.append(_encoded(segments, numbers, k, kind, pixels))
    segmentation.PerFrameFunctionalGroupsSequence = items
    segmentation.NumberOfFrames = len(packs)
    data = b"".join(packs)
    segmentation.add(DataElement(0x7FE00010, "OB", data + b"\0" * (len(data) % 2)))


def _frames(segments: Sequence[_Segment], used: Sequence[int], kind: str) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """The segment's number, if a frame is of one; the rank of its slice among those used; the slice."""
    if kind == "LABELMAP":
        yield from (((), rank, k) for rank, k in enumerate(used, 1))
        return
    for n, segment in enumerate(segments, 1):
        yield from (((n,), rank, k) for rank, k in enumerate(used, 1) if k in segment.of_slice)


def _encoded(segments: Sequence[_Segment], numbers: tuple[int, ...], k: int, kind: str, pixels: int) -> bytes:
    if kind == "BINARY":
        return segments[numbers[0] - 1].of_slice[k].tobytes()
    flat = np.zeros(pixels, np.uint8)
    for n, segment in enumerate(segments, 1):
        if k in segment.of_slice and numbers in ((), (n,)):
            bits = np.unpackbits(segment.of_slice[k], count=pixels, bitorder="little")
            flat += bits * np.uint8(n if kind == "LABELMAP" else 255)
    return flat.tobytes()
