"""Parametric Map: the heatmap as numbers over its source image, for viewers that lay one image over another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import highdicom
import numpy as np
from highdicom.pm import ParametricMap, RealWorldValueMapping
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medgem_node import evidence as ev
from medgem_node.errors import ConfigError
from medgem_node.evidence import Source
from medgem_node.finding import Analysis, Heatmap
from medgem_node.geometry import frames, functional_group, spacing_mm
from medgem_node.header import ascii_, carry, text_of
from medgem_node.volume import Slice, Volume, decimal, volumes
from medgem_node.writers.heatmap import replaces

VARIANTS = ("float", "volumes")

_REGIONS = {
    "ABDOMEN": codes.SCT.Abdomen,
    "BRAIN": codes.SCT.Brain,
    "CHEST": codes.SCT.Chest,
    "HEAD": codes.SCT.Head,
    "HEART": codes.SCT.Heart,
    "PELVIS": codes.SCT.Pelvis,
}


def create(source: Source, variant: str = VARIANTS[0]) -> ParametricMapWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    if variant not in VARIANTS:
        raise ConfigError(f'parametric_map has no variant "{variant}"; known are {", ".join(VARIANTS)}')
    return ParametricMapWriter(source, variant)


@dataclass(frozen=True, slots=True)
class _Part:
    """One heatmap over the slices of one volume that it speaks of; `role` is its suffix in the roles of UIDs."""

    volume: Volume
    slices: tuple[Slice, ...]
    maps: tuple[Heatmap, ...]  # of each slice
    series: str
    role: str
    number: int


@dataclass(frozen=True, slots=True)
class ParametricMapWriter:
    """One object for each heatmap over each radiograph, or over each volume; the variant `volumes`: those only."""

    source: Source
    variant: str = VARIANTS[0]

    def write(
        self,
        analysis: Analysis,
        originals: Sequence[Dataset],
        made: Sequence[Dataset],
        uid: Callable[[str], str],
    ) -> Sequence[Dataset]:
        """The maps; none where the analysis has no heatmap."""
        self.source.check(analysis)
        if not analysis.applicable or not analysis.heatmaps:
            return ()
        ev.check(analysis, originals)
        parts = (p for p in _parts(analysis, originals) if self.variant == "float" or p.volume.is_placed)
        return tuple(self._map(part, uid) for part in parts)

    def _map(self, part: _Part, uid: Callable[[str], str]) -> Dataset:
        headers = _headers(part, uid(f"frame-of-reference-{part.series}"))
        label = part.maps[0].meaning or part.maps[0].label
        target: Dataset = ParametricMap(
            source_images=headers,
            pixel_array=_values(part),
            series_instance_uid=uid(f"pm-series-{part.series}"),
            series_number=ev.SERIES_NUMBER["parametric_map"],
            sop_instance_uid=uid(f"pm-{part.role}"),
            instance_number=part.number,
            manufacturer=self.source.station.manufacturer,
            manufacturer_model_name=self.source.station.model_name,
            software_versions=self.source.station.software_version,
            device_serial_number=self.source.station.serial_number,
            contains_recognizable_visual_features=False,
            real_world_value_mappings=[
                RealWorldValueMapping(
                    lut_label="AI",
                    lut_explanation=ascii_(label, 64),
                    unit=codes.UCUM.NoUnits,
                    value_range=(0.0, 1.0),
                    slope=1.0,
                    intercept=0.0,
                    quantity_definition=codes.cid7469.ClassActivation,
                )
            ],
            voi_lut_transformations=[
                highdicom.VOILUTTransformation(
                    window_center=0.5, window_width=1.0, voi_lut_function=highdicom.VOILUTFunctionValues.LINEAR_EXACT
                )
            ],
            content_label="AI_RESEARCH_ONLY",
            content_description=ev.described(self.source.algorithm),
            content_creator_name="medgem-node^",
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        self._complete(target, part, uid)
        return target

    def _complete(self, target: Dataset, part: _Part, uid: Callable[[str], str]) -> None:
        first = part.slices[0]
        organization = uid(f"dimension-organization-pm-{part.role}")
        target.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
        for index in target.DimensionIndexSequence:
            index.DimensionOrganizationUID = organization
        shared = target.SharedFunctionalGroupsSequence[0]
        shared.FrameAnatomySequence = [_anatomy(first)]  # mandatory; highdicom leaves it out, and dcmqi crashes
        identity = shared.PixelValueTransformationSequence[0]
        identity.RescaleIntercept, identity.RescaleSlope = "0", "1"  # enumerated, not 0.0 and 1.0
        _order(target)
        _refer(target, part)
        carry(target, first.image, ["BodyPartExamined"])
        if not part.volume.is_placed:  # General Image wants it where there is no Image Orientation (2C)
            target.PatientOrientation = ""
            carry(target, first.image, ["PatientOrientation"])
            if spacing_mm(first.image) is None:
                target.DerivationDescription = "Pixel spacing unknown: 1 mm is written, do not measure on it"
        ev.finish(target, first.image, self.source, f"AI activation map {self.source.algorithm}")
        self._replaces(target, part)

    def _replaces(self, target: Dataset, part: _Part) -> None:
        earlier = self.source.earlier
        replaces(target, earlier, f"pm-{part.role}")
        if earlier is not None and "ReferencedInstanceSequence" in target:
            reference = deepcopy(target.ReferencedInstanceSequence[0])
            del reference.PurposeOfReferenceCodeSequence
            series = Dataset()
            series.SeriesInstanceUID = earlier.uid(f"pm-series-{part.series}")
            series.ReferencedInstanceSequence = [reference]
            target.ReferencedSeriesSequence.append(series)


def _parts(analysis: Analysis, originals: Sequence[Dataset]) -> Iterator[_Part]:
    """Heatmaps of one label are one, whichever slices each of them speaks of."""
    for volume in volumes(ev.analysed(analysis, originals)):
        series, number = volume.role(analysis.images), 0
        for label in dict.fromkeys(h.label for h in analysis.heatmaps):
            of_label = [h for h in analysis.heatmaps if h.label == label]
            named = [(s, next((h for h in of_label if h.plane(*s.name) is not None), None)) for s in volume.slices]
            spoken = [(s, h) for s, h in named if h is not None]
            if spoken:
                number += 1
                slices, maps = zip(*spoken, strict=True)
                yield _Part(volume, slices, maps, series, series if number == 1 else f"{series}-map{number}", number)


def _headers(part: _Part, frame_of_reference_uid: str) -> list[Dataset]:
    """Each slice as an image of its own, its number in place of its UID: highdicom takes a multi-frame image whole."""
    first = part.volume.header(frame_of_reference_uid)
    headers = []
    for k, one in enumerate(part.slices):
        header = deepcopy(first)
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, f"2.25.{k}"
        header.ImagePositionPatient = [decimal(v) for v in one.place.position_mm]
        headers.append(header)
    return headers


def _order(target: Dataset) -> None:
    """Frames in the slices' order, along the normal: dcmqi takes them so, wherever they say that they lie."""
    groups = list(target.PerFrameFunctionalGroupsSequence)
    found = [_stood_in_for(group.DerivationImageSequence[0].SourceImageSequence[0]) for group in groups]
    order = sorted(range(len(groups)), key=found.__getitem__)
    if order == list(range(len(groups))):
        return
    for k, n in enumerate(order, 1):
        groups[n].FrameContentSequence[0].DimensionIndexValues = [k]
    target.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]
    pixels, size = target.FloatPixelData, len(target.FloatPixelData) // len(groups)
    target.FloatPixelData = b"".join(pixels[n * size : (n + 1) * size] for n in order)


def _stood_in_for(item: Dataset) -> int:
    return int(item.ReferencedSOPInstanceUID.removeprefix("2.25."))


def _refer(target: Dataset, part: _Part) -> None:
    """Puts the images' own UIDs, and the frames' numbers, in the place of the stand-ins'."""
    for group in target.PerFrameFunctionalGroupsSequence:
        for item in group.DerivationImageSequence[0].SourceImageSequence:
            one = part.slices[_stood_in_for(item)]
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.image.SOPClassUID, one.image.SOPInstanceUID
            if frames(one.image) > 1:
                item.ReferencedFrameNumber = one.frame
    images = {str(one.image.SOPInstanceUID): one.image for one in part.slices}
    series = Dataset()
    series.SeriesInstanceUID = part.slices[0].image.SeriesInstanceUID
    series.ReferencedInstanceSequence = [_reference(image) for image in images.values()]
    target.ReferencedSeriesSequence = [series]
    target.SourceImageSequence = [_reference(image) for image in images.values()]


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return reference


def _values(part: _Part) -> NDArray[np.float32]:
    """(slices, rows, columns) in 0..1 on the images' own grid: bilinear between the centres of the heatmap's cells."""
    rows, columns = part.volume.size
    values = np.empty((len(part.slices), rows, columns), np.float32)
    for k, (one, heatmap) in enumerate(zip(part.slices, part.maps, strict=True)):
        small = heatmap.plane(*one.name)
        cells = Image.fromarray(np.clip(np.nan_to_num(np.asarray(small, np.float32)), 0, 1))
        if cells.size != (columns, rows):
            cells = cells.resize((columns, rows), Image.Resampling.BILINEAR)
        values[k] = np.asarray(cells)
    return np.clip(values, 0, 1, out=values)


def _anatomy(one: Slice) -> Dataset:
    """Frame Anatomy: what the image says, or that it is some part of a body."""
    own = functional_group(one.image, "FrameAnatomySequence", one.frame)
    holder = own if "AnatomicRegionSequence" in own else one.image
    anatomy = Dataset()
    laterality = text_of(own, "FrameLaterality") or text_of(one.image, "ImageLaterality")
    anatomy.FrameLaterality = laterality if laterality in ("R", "L", "B", "U") else "U"
    if holder.get("AnatomicRegionSequence"):
        carry(anatomy, holder, ["AnatomicRegionSequence"])
    else:
        region = _REGIONS.get(text_of(one.image, "BodyPartExamined").upper(), codes.SCT.BodyStructure)
        anatomy.AnatomicRegionSequence = [highdicom.sr.CodedConcept.from_code(region)]
    return anatomy
