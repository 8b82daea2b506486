"""What an image says of how it is to be shown, in the parts that a presentation state repeats (PS3.3 A.33.1).

A presentation state replaces all of it, so what is not repeated is lost: rescale, table, window, polarity, the shape of
a pixel. What a vendor left out stays out, what cannot be one is taken as left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from pydicom import Dataset

from medgem_node.geometry import frames, functional_group, size, spacing_mm
from medgem_node.header import ascii_, text_of

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True, slots=True)
class Rescale:
    """A linear modality transformation; `unit` is its Rescale Type."""

    intercept: float
    slope: float
    unit: str


@dataclass(frozen=True, slots=True)
class Window:
    """The first window of an image, with its VOI LUT Function."""

    centre: float
    width: float
    function: str


@dataclass(frozen=True, slots=True)
class Table:
    """A lookup table of 16 bit words; `first` is the value that the first entry is for."""

    first: int
    bits: int
    entries: bytes
    unit: str  # the Modality LUT Type, if it is one


@dataclass(frozen=True, slots=True)
class Look:
    """All but the window, which one presentation state can have many of; of the rest it has one for all its images."""

    series_instance_uid: str
    size: tuple[int, int]
    aspect: tuple[int, int]  # height and width of a pixel, as whole numbers
    is_inverse: bool
    modality: Rescale | Table | None
    only_image: str = ""  # a multi-frame image stands alone


def is_grey(original: Dataset) -> bool:
    """Whether it is an image of one channel, as Grayscale Softcopy asks."""
    is_monochrome = text_of(original, "PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    return is_monochrome and min(size(original)) > 0


def look(original: Dataset, frame: int = 1) -> Look:
    """How a frame is shown, its window apart."""
    return Look(
        str(original.SeriesInstanceUID),
        size(original),
        _aspect(original, frame),
        text_of(original, "PhotometricInterpretation") == "MONOCHROME1",  # a state's LUT knows no interpretation
        _table(original, "ModalityLUTSequence") or _rescale(original, frame),
        str(original.SOPInstanceUID) if frames(original) > 1 else "",
    )


def contrast(original: Dataset, frame: int = 1) -> Table | Window | None:
    """The first VOI lookup table or else the first window of a frame; None if the image has neither."""
    return _table(original, "VOILUTSequence") or _window(original, frame)


def _aspect(original: Dataset, frame: int) -> tuple[int, int]:
    """A ratio and no spacing: a viewer measures by the image's own, knowing what a radiograph's means."""
    rows_mm, columns_mm = spacing_mm(original, frame) or (1.0, 1.0)
    ratio = Fraction(rows_mm / columns_mm).limit_denominator(1000)
    return (ratio.numerator, ratio.denominator) if ratio else (1, 1)


def _rescale(original: Dataset, frame: int) -> Rescale | None:
    group = functional_group(original, "PixelValueTransformationSequence", frame)
    holder = group if "RescaleSlope" in group else original
    intercept, slope = _number(holder, "RescaleIntercept"), _number(holder, "RescaleSlope")
    if intercept is None or not slope:
        return None
    return Rescale(intercept, slope, ascii_(text_of(holder, "RescaleType"), 64) or "US")


def _window(original: Dataset, frame: int) -> Window | None:
    group = functional_group(original, "FrameVOILUTSequence", frame)
    holder = group if "WindowWidth" in group else original
    centre, width = _number(holder, "WindowCenter"), _number(holder, "WindowWidth")
    function = text_of(holder, "VOILUTFunction") or "LINEAR"
    least = 1.0 if function == "LINEAR" else 1e-6  # PS3.3 C.11.2.1.2.1 and C.11.2.1.3
    if centre is None or width is None or width < least or function not in _FUNCTIONS:
        return None
    return Window(centre, width, function)


def _number(holder: Dataset, keyword: str) -> float | None:
    """The first value, if it is a finite number."""
    try:
        value = float(text_of(holder, keyword).strip("[]").replace("\\", ",").split(",")[0].strip(" '"))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _table(original: Dataset, keyword: str) -> Table | None:
    for item in original.get(keyword) or ():
        try:
            count, first, bits = (int(v) for v in item.LUTDescriptor)
            entries = item.LUTData if isinstance(item.LUTData, bytes) else np.asarray(item.LUTData, "<u2").tobytes()
        except (AttributeError, TypeError, ValueError, OverflowError):
            return None
        if bits in range(8, 17) and len(entries) == 2 * (count or 65536):
            return Table(first, bits, entries, ascii_(text_of(item, "ModalityLUTType"), 64))
        return None
    return None
