"""Grayscale Softcopy Presentation State: outlines and labels over the source images, for a PACS that knows no report.

One object for all images of a series that are shown alike, so that a reader opens one and scrolls; an image that needs
another rescale, size or polarity gets one of its own, as PS3.3 A.33.1 has one of each for all images of an object.
A finding that is absent is never drawn: it is said in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import highdicom
import numpy as np
from highdicom.pr import GraphicAnnotation, GraphicLayer, GraphicObject, SoftcopyVOILUTTransformation, TextObject
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from medgem_node import evidence as ev
from medgem_node import picture
from medgem_node.errors import ConfigError, MedgemError
from medgem_node.evidence import Source
from medgem_node.finding import Analysis, Finding, Mask
from medgem_node.geometry import frames, size
from medgem_node.header import ascii_
from medgem_node.outline import outlines
from medgem_node.softcopy import Look, Rescale, Table, Window, contrast, is_grey, look

VARIANTS = ("grayscale",)

RGB = tuple[int, int, int]
_ORGANS = ("91723000", "123037004")  # SCT Anatomical Structure, of CID 7150: there also where nothing is found
_LINES_RGB, _FINDINGS_RGB, _NOTICE_RGB = (255, 120, 220), (255, 214, 10), (255, 255, 255)


def create(source: Source, variant: str = VARIANTS[0]) -> PresentationStateWriter:
    """The writer of what the model of `source` answers. Raises ConfigError."""
    if variant not in VARIANTS:
        raise ConfigError(f'presentation_state knows no variant "{variant}"; known are {", ".join(VARIANTS)}')
    return PresentationStateWriter(source, variant)


@dataclass(frozen=True, slots=True)
class _Layer:
    """What a reader can switch on and off, in one colour; layers are drawn in the order of `rank`."""

    rank: int
    name: str
    description: str
    colour_rgb: RGB


@dataclass(frozen=True, slots=True)
class _Mark:
    """One thing drawn on one frame: its lines, and what is written beside them."""

    layer: _Layer
    lines: tuple[NDArray[np.float64], ...]
    text: str
    tracking: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Sheet:
    """One frame with all that is drawn on it."""

    original: Dataset
    frame: int
    look: Look
    marks: tuple[_Mark, ...]
    said: str

    @property
    def header(self) -> Dataset:
        """A stand-in with what highdicom asks of a referenced image."""
        header = ev.stand_in(self.original)
        header.SamplesPerPixel = 1
        if frames(self.original) > 1:
            header.NumberOfFrames = frames(self.original)
        header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [Dataset()], []
        return header


@dataclass(frozen=True, slots=True)
class PresentationStateWriter:
    """None where there is nothing to draw, and none over an image that is not grey."""

    source: Source
    variant: str = VARIANTS[0]

    def write(
        self,
        analysis: Analysis,
        originals: Sequence[Dataset],
        made: Sequence[Dataset],
        uid: Callable[[str], str],
    ) -> Sequence[Dataset]:
        """The presentation states."""
        self.source.check(analysis)
        if not analysis.applicable:
            return ()
        ev.check(analysis, originals)
        groups: dict[Look, list[_Sheet]] = {}
        for original in ev.analysed(analysis, originals):
            for sheet in _sheets(analysis, original, made):
                groups.setdefault(sheet.look, []).append(sheet)
        return tuple(self._state(analysis, k, sheets, uid) for k, sheets in enumerate(groups.values(), 1))

    def _state(self, analysis: Analysis, n: int, sheets: Sequence[_Sheet], uid: Callable[[str], str]) -> Dataset:
        headers = _headers(sheets)
        state: Dataset = highdicom.pr.GrayscaleSoftcopyPresentationState(
            referenced_images=headers,
            series_instance_uid=uid("pr-series"),
            series_number=ev.SERIES_NUMBER["presentation_state"],
            sop_instance_uid=uid(f"pr-{n}"),
            instance_number=n,
            manufacturer=self.source.station.manufacturer,
            manufacturer_model_name=self.source.station.model_name,
            software_versions=self.source.station.software_version,
            device_serial_number=self.source.station.serial_number,
            content_label="AI_RESEARCH_ONLY",
            content_description=ev.described(self.source.algorithm),
            content_creator_name="medgem-node^",
            graphic_layers=[_layer(k, layer) for k, layer in enumerate([*_layers(sheets), _NOTICE], 1)],
            graphic_annotations=list(self._annotations(analysis, headers, sheets)),
            modality_lut_transformation=_modality(sheets[0].look),
            voi_lut_transformations=_contrasts(sheets) or None,
            presentation_lut_transformation=highdicom.PresentationLUTTransformation(
                presentation_lut_shape="INVERSE" if sheets[0].look.is_inverse else "IDENTITY"
            ),
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
        self._complete(state, sheets)
        return state

    def _annotations(
        self, analysis: Analysis, headers: Sequence[Dataset], sheets: Sequence[_Sheet]
    ) -> Iterator[GraphicAnnotation]:
        """Of each frame its marks by layer and what else is said of it; over all frames whose words these are."""
        for sheet in sheets:
            for layer in _layers([sheet]):
                marks = [m for m in sheet.marks if m.layer == layer]
                lines = [line for mark in marks for line in _graphics(mark, sheet.look.size)]
                texts = [_label(mark, sheet.look.size) for mark in marks]
                yield _on([sheet], GraphicAnnotation([sheet.header], _layer(1, layer), None, None, lines, texts))
            if sheet.said:
                text = _across(sheet.said, bottom=True)
                yield _on([sheet], GraphicAnnotation([sheet.header], _layer(1, _NOTICE), text_objects=[text]))
        notice = (ev.WARNING, f"AI {self.source.algorithm}", picture.doubt(analysis))
        text = _across("\r\n".join(filter(None, notice)), bottom=False)
        yield _on(sheets, GraphicAnnotation(headers, _layer(1, _NOTICE), text_objects=[text]))

    def _complete(self, state: Dataset, sheets: Sequence[_Sheet]) -> None:
        for series in state.ReferencedSeriesSequence:
            _name_frames(series.ReferencedImageSequence, sheets)
        for area in state.DisplayedAreaSelectionSequence:
            del area.PixelOriginInterpretation  # highdicom's VOLUME is for tiled images
            area.PresentationPixelAspectRatio = list(sheets[0].look.aspect)
        state.Laterality = ""  # General Series wants it where no body part is named (2C)
        ev.finish(state, sheets[0].original, self.source, f"AI marks {self.source.algorithm}")
        state.PresentationCreationDate, state.PresentationCreationTime = state.ContentDate, state.ContentTime
        del state.ContentDate, state.ContentTime  # of no module of this IOD
        model = state.ContributingEquipmentSequence[0]
        # without its zone, as the times above: dcmtk's reader of presentation states rejects one east of UTC
        model.ContributionDateTime = self.source.content_datetime.strftime("%Y%m%d%H%M%S")


_LINES = _Layer(1000, "AI MEASUREMENTS", "Lines that the AI measured", _LINES_RGB)
_FINDINGS = _Layer(1001, "AI FINDINGS", "Findings of the AI", _FINDINGS_RGB)
_NOTICE = _Layer(1002, "AI NOTICE", ev.WARNING, _NOTICE_RGB)


def _sheets(analysis: Analysis, original: Dataset, made: Sequence[Dataset]) -> Iterator[_Sheet]:
    """The frames of an image with something found or drawn."""
    if not is_grey(original):
        return
    image = str(original.SOPInstanceUID)
    for frame in range(1, frames(original) + 1):
        findings = [f for f in analysis.findings if (f.image, f.frame) == (image, frame)]
        marks = (
            *_of_masks(analysis, original, frame, made),
            *_of_lines(analysis, image, frame),
            *(_of_box(f, image, made) for f in findings if f.present and f.box is not None),
        )
        if marks or any(f.present for f in findings):
            said = "\r\n".join(picture.said(f) for f in findings if not f.present or f.box is None)
            yield _Sheet(original, frame, look(original, frame), marks, said)


def _of_masks(analysis: Analysis, original: Dataset, frame: int, made: Sequence[Dataset]) -> Iterator[_Mark]:
    image = str(original.SOPInstanceUID)
    layers = _segment_layers(analysis)
    for mask in analysis.masks:
        pixels = mask.plane(image, frame)
        if pixels is None or not pixels.any() or _is_absent(analysis, mask):
            continue
        if pixels.shape != size(original):
            raise MedgemError(f"mask {mask.label} is {pixels.shape}, its image {size(original)} pixels")
        measured = [m for m in analysis.measurements if m.mask == mask.label and (m.image, m.frame) == (image, frame)]
        text = "\r\n".join(map(picture.spoken, measured)) or mask.label
        rings = tuple(outlines(pixels, tolerance=max(1.0, max(pixels.shape) / 500)))
        yield _Mark(layers[mask.label], rings, text, _tracking(made, image, frame, mask.label))


def _segment_layers(analysis: Analysis) -> dict[str, _Layer]:
    """One for each name of a mask, as films of one study repeat them."""
    of_label = {m.label: m for m in reversed(analysis.masks)}
    labels = dict.fromkeys(m.label for m in analysis.masks)
    return {
        label: _Layer(n, f"AI SEGMENT {n}", ascii_(label, 64), of_label[label].colour_rgb)
        for n, label in enumerate(labels, 1)
    }


def _is_absent(analysis: Analysis, mask: Mask) -> bool:
    """Whether a mask shows nothing but what was not found; an organ is there in any case."""
    naming = [f for f in analysis.findings if f.mask == mask.label and f.image in mask.images]
    return bool(naming) and not any(f.present for f in naming) and mask.category.value not in _ORGANS


def _of_lines(analysis: Analysis, image: str, frame: int) -> Iterator[_Mark]:
    """Each line once; not those of a finding that is absent."""
    absent = {m for f in analysis.findings if not f.present for m in f.measurements}
    of_findings = [m for f in analysis.findings if f.present for m in f.measurements]
    for line in dict.fromkeys((*of_findings, *(m for m in analysis.measurements if m not in absent))):
        if (line.image, line.frame) == (image, frame) and len(line.points) == 2:
            yield _Mark(_LINES, (np.array([(p.x, p.y) for p in line.points], np.float64),), picture.spoken(line))


def _of_box(finding: Finding, image: str, made: Sequence[Dataset]) -> _Mark:
    assert finding.box is not None
    x0, y0, x1, y1 = finding.box.xyxy
    ring = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], np.float64)
    ratios = [picture.spoken(m) for m in finding.measurements if len(m.points) > 2]
    return _Mark(
        _FINDINGS, (ring,), picture.said(finding, *ratios), _tracking(made, image, finding.frame, finding.mask)
    )


def _tracking(made: Sequence[Dataset], image: str, frame: int, label: str) -> tuple[str, str] | None:
    """Identifier and UID of a mask's segment, if it was written."""
    segmentation = ev.of_image(made, SegmentationStorage, image, frame)
    for segment in segmentation.SegmentSequence if segmentation is not None and label else ():
        if segment.SegmentLabel == ascii_(label, 64):
            return str(segment.TrackingID), str(segment.TrackingUID)
    return None


def _headers(sheets: Sequence[_Sheet]) -> list[Dataset]:
    return list({str(sheet.original.SOPInstanceUID): sheet.header for sheet in sheets}.values())


def _layers(sheets: Sequence[_Sheet]) -> list[_Layer]:
    return sorted({m.layer for sheet in sheets for m in sheet.marks}, key=lambda layer: layer.rank)


def _layer(order: int, layer: _Layer) -> GraphicLayer:
    colour = highdicom.color.CIELabColor.from_rgb(*layer.colour_rgb)
    return GraphicLayer(layer.name, order, layer.description, colour)


def _graphics(mark: _Mark, of: tuple[int, int]) -> list[GraphicObject]:
    inside = (np.clip(line, 0, (of[1], of[0])) for line in mark.lines)
    identifier, uid = mark.tracking or (None, None)
    return [GraphicObject("POLYLINE", line, "PIXEL", tracking_id=identifier, tracking_uid=uid) for line in inside]


def _label(mark: _Mark, of: tuple[int, int]) -> TextObject:
    """Above the highest point of what it names, or below the edge of the image; wholly inside."""
    rows, columns = of
    points = np.clip(np.concatenate(mark.lines), 0, (columns, rows))
    x, y = (float(v) for v in points[int(points[:, 1].argmin())])
    lines = ascii_(mark.text, 1024).split("\r\n")
    height = min(rows / 2, rows / 40 * len(lines))
    width = min(float(columns), rows / 40 * 0.6 * max(map(len, lines)))
    left, top = min(x, columns - width), max(0.0, y - height)
    box = (left, top, left + width, top + height)
    return TextObject("\r\n".join(lines), "PIXEL", box, (x, y), "LEFT", anchor_point_visible=False)


def _across(text: str, *, bottom: bool) -> TextObject:
    """Text over the whole width of what is displayed, whatever is zoomed to."""
    height = min(0.4, 0.035 * (1 + text.count("\n")))
    box = (0.01, 0.99 - height, 0.99, 0.99) if bottom else (0.01, 0.01, 0.99, 0.01 + height)
    return TextObject(ascii_(text, 1024), "DISPLAY", box, text_justification="LEFT")


def _on(sheets: Sequence[_Sheet], annotation: GraphicAnnotation) -> GraphicAnnotation:
    _name_frames(annotation.ReferencedImageSequence, sheets)
    return annotation


def _name_frames(references: Sequence[Dataset], sheets: Sequence[_Sheet]) -> None:
    """Of a multi-frame image, only the frames that are meant."""
    for reference in references:
        image = reference.ReferencedSOPInstanceUID
        meant = [s for s in sheets if s.original.SOPInstanceUID == image and frames(s.original) > 1]
        if meant:
            reference.ReferencedFrameNumber = [s.frame for s in meant]


def _modality(of: Look) -> highdicom.ModalityLUTTransformation | None:
    if isinstance(of.modality, Table):
        table = highdicom.ModalityLUT(of.modality.unit or "US", 0, np.frombuffer(of.modality.entries, "<u2"))
        return highdicom.ModalityLUTTransformation(modality_lut=_described(table, of.modality))
    if isinstance(of.modality, Rescale):
        return highdicom.ModalityLUTTransformation(of.modality.intercept, of.modality.slope, of.modality.unit)
    return None


def _described(item: Dataset, table: Table) -> Dataset:
    """highdicom knows 16 bits only, and no negative first value."""
    descriptor = [len(table.entries) // 2 % 65536, table.first, table.bits]
    item.add_new("LUTDescriptor", "SS" if table.first < 0 else "US", descriptor)
    return item


def _contrasts(sheets: Sequence[_Sheet]) -> list[SoftcopyVOILUTTransformation]:
    """What each image has, once for all that have the same."""
    alike: dict[Window | Table | None, list[_Sheet]] = {}
    for sheet in sheets:
        alike.setdefault(contrast(sheet.original, sheet.frame), []).append(sheet)
    return [_contrast(c, of if len(alike) > 1 else ()) for c, of in alike.items() if c is not None]


def _contrast(of: Window | Table, only: Sequence[_Sheet]) -> SoftcopyVOILUTTransformation:
    references = highdicom.ReferencedImageSequence(_headers(only)) if only else None
    if references is not None:
        _name_frames(references, only)
    if isinstance(of, Window):
        return SoftcopyVOILUTTransformation(
            of.centre, of.width, voi_lut_function=of.function, referenced_images=references
        )
    table = _described(highdicom.VOILUT(0, np.frombuffer(of.entries, "<u2")), of)
    return SoftcopyVOILUTTransformation(voi_luts=[table], referenced_images=references)
