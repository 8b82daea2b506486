"""The functional groups of single frames (PS3.3 C.7.6.16), made to be written by the thousand.

pydicom spends most of its time on turning values into bytes. Here they are bytes from the start, as if they had been
read from a file: pydicom copies such values, and decodes one when it is looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from medgem_node.volume import Slice, decimal

_PADDING = {"UI": b"\0"}  # PS3.5 section 6.2; a space for all others


def of_slices(slices: Sequence[Slice]) -> list[Dataset]:
    """Where each slice lies, and the source frame that its segments are derived from."""
    derivation = _sequence("DerivationCodeSequence", _code(codes.cid7203.SegmentationImageDerivation))
    purpose = _sequence("PurposeOfReferenceCodeSequence", _code(codes.cid7202.SourceImageForImageProcessingOperation))
    preserved = _text("SpatialLocationsPreserved", "CS", "YES")
    groups = []
    for one in slices:
        source = _made_of(*_reference(one), purpose, preserved)
        position = "\\".join(str(decimal(v)) for v in one.place.position_mm)
        place = _made_of(_text("ImagePositionPatient", "DS", position))
        groups.append(
            _made_of(
                _sequence("PlanePositionSequence", place),
                _sequence("DerivationImageSequence", _made_of(derivation, _sequence("SourceImageSequence", source))),
            )
        )
    return groups


def of_segment(number: int) -> Dataset:
    """Which segment a frame is of."""
    named = _made_of(_number("ReferencedSegmentNumber", "US", number))
    return _made_of(_sequence("SegmentIdentificationSequence", named))


def frame(indices: Sequence[int], *groups: Dataset) -> Dataset:
    """One frame at its Dimension Index Values, with the groups that it shares with others."""
    content = _sequence("FrameContentSequence", _made_of(_number("DimensionIndexValues", "UL", *indices)))
    return _made_of(content, *(each.get_item(tag) for each in groups for tag in list(each.keys())))


def reference(image: Dataset, frames: Sequence[int] = ()) -> Dataset:
    """A reference to an image, or to some of its frames."""
    found = item(ReferencedSOPClassUID=str(image.SOPClassUID), ReferencedSOPInstanceUID=str(image.SOPInstanceUID))
    if frames:
        found.ReferencedFrameNumber = sorted(frames)
    return found


def item(**attributes: object) -> Dataset:
    """An item of a sequence."""
    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def _reference(one: Slice) -> list[RawDataElement]:
    image = one.image
    elements = [
        _text("ReferencedSOPClassUID", "UI", str(image.SOPClassUID)),
        _text("ReferencedSOPInstanceUID", "UI", str(image.SOPInstanceUID)),
    ]
    if "NumberOfFrames" in image:
        elements.append(_text("ReferencedFrameNumber", "IS", str(one.frame)))
    return elements


def _code(code: Any) -> Dataset:
    return _made_of(
        _text("CodeValue", "SH", code.value),
        _text("CodingSchemeDesignator", "SH", code.scheme_designator),
        _text("CodeMeaning", "LO", code.meaning),
    )


def _text(keyword: str, vr: str, text: str) -> RawDataElement:
    value = text.encode("ascii")
    value += _PADDING.get(vr, b" ") * (len(value) % 2)
    return RawDataElement(Tag(keyword), vr, len(value), value, 0, False, True)


def _number(keyword: str, vr: str, *numbers: int) -> RawDataElement:
    value = struct.pack(f"<{len(numbers)}{'H' if vr == 'US' else 'L'}", *numbers)
    return RawDataElement(Tag(keyword), vr, len(value), value, 0, False, True)


def _sequence(keyword: str, one: Dataset) -> DataElement:
    return DataElement(Tag(keyword), "SQ", [one])


def _made_of(*elements: Any) -> Dataset:
    made = Dataset({element.tag: element for element in elements})
    made.set_original_encoding(False, True, default_encoding)
    return made
