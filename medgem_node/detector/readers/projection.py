"""Projection radiographs (CR, DX, digitised film): one frame, bright where the body is dense.

Grey values pass the standard's pipeline (PS3.4 N.2) as far as it bends or turns them: modality LUT or rescale, VOI LUT
or sigmoid window, polarity. A linear window is left out: it is whatever was saved last, may cut anatomy away, and only
sets gain and offset, which `preprocess` takes from the image itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medgem_node import frame
from medgem_node.detector.selection import text
from medgem_node.errors import NotApplicable, Unreadable

_LUMINANCE = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601
_COLOURED = 0.06  # channels further apart than this part of the range show a colour
_COLOURED_PIXELS = 0.01  # a coloured side marker is forgiven, a colour map is not
MIN_SIDE = 64  # below this a film shows nothing that can be judged


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """One image as a detector sees it.

    `pixels`: (rows, columns), bright = dense, any range. `exposed`: False where there is padding; None: no padding.
    `spacing_mm`: (between rows, between columns), as calibrated or at the detector's plane; None: unknown.
    """

    image_uid: str
    pixels: NDArray[np.float32]
    exposed: NDArray[np.bool_] | None
    spacing_mm: tuple[float, float] | None
    modality: str
    view: str
    body_part: str


def read(instance: Dataset) -> Radiograph:
    """The image, whatever its encoding.

    Raises
    ------
    NotApplicable
        `multi-frame`, `colour-image`.
    Unreadable
        `no-pixel-data`, `image-size`, `transfer-syntax`, `pixel-data-truncated`, `pixel-data`, `header`.
    """
    with frame.coded("pixel-data", "the pixel data cannot be decoded"):
        stored = frame.decoded(instance)
    if min(stored.shape[:2]) < MIN_SIDE:
        raise Unreadable("image-size", f"{stored.shape[0]} x {stored.shape[1]} pixels; a film has {MIN_SIDE} a side")
    with frame.coded("header", "the header cannot be read"):
        exposed = None
        if stored.ndim == 3:
            stored = _luminance(stored)
        else:
            exposed = _exposed(stored, instance)
        return Radiograph(
            image_uid=str(instance.SOPInstanceUID),
            pixels=_dense_is_bright(_windowed(_rescaled(stored, instance), instance), instance),
            exposed=exposed,
            spacing_mm=_spacing_mm(instance),
            modality=text(instance, "Modality"),
            view=text(instance, "ViewPosition"),
            body_part=text(instance, "BodyPartExamined"),
        )


def _luminance(colours: NDArray[Any]) -> NDArray[np.float32]:
    """A grey film that was stored in colour; a true colour image is no radiograph, or one that was drawn upon."""
    apart = colours.max(axis=2) - colours.min(axis=2)
    if np.mean(apart > _COLOURED * colours.max()) > _COLOURED_PIXELS:
        raise NotApplicable("colour-image", "the image is in colour; a radiograph is grey")
    return np.asarray(colours.astype(np.float32) @ _LUMINANCE)


def _exposed(stored: NDArray[Any], instance: Dataset) -> NDArray[np.bool_] | None:
    """Pixel padding (PS3.3 C.7.5.1.1.2), as far as it touches the border along a row or a column.

    Islands of the padding value within the image are image: systems that pad with 0 also saturate there.
    """
    padding = instance.get("PixelPaddingValue")
    if padding is None:
        return None
    limit = instance.get("PixelPaddingRangeLimit")
    low, high = sorted(_as_stored(v, stored.dtype) for v in (padding, padding if limit is None else limit))
    marked = (stored >= low) & (stored <= high)
    if not marked.any():
        return None
    reached = np.zeros_like(marked)
    for view, into in ((marked, reached), (marked.T, reached.T)):
        into |= np.logical_and.accumulate(view, axis=0)
        into[::-1] |= np.logical_and.accumulate(view[::-1], axis=0)
    return ~reached


def _as_stored(value: int, dtype: np.dtype[Any]) -> int:
    """A padding value that was written with the other signedness (US for SS)."""
    limits = np.iinfo(dtype)
    span = limits.max - limits.min + 1
    return (int(value) - limits.min) % span + limits.min


def _rescaled(stored: NDArray[Any], instance: Dataset) -> NDArray[np.float32]:
    if instance.get("ModalityLUTSequence"):
        return _looked_up(stored, instance.ModalityLUTSequence[0], instance)
    slope, intercept = float(instance.get("RescaleSlope") or 1), float(instance.get("RescaleIntercept") or 0)
    if not math.isfinite(slope + intercept):
        raise Unreadable("header", "rescale slope or intercept is no number")
    return np.asarray(stored.astype(np.float32) * np.float32(slope) + np.float32(intercept))


def _windowed(values: NDArray[np.float32], instance: Dataset) -> NDArray[np.float32]:
    """After the first VOI LUT, or else the first window if it bends the grey scale (PS3.3 C.11.2.1)."""
    if instance.get("VOILUTSequence"):
        return _looked_up(values, instance.VOILUTSequence[0], instance)
    centre, width = _first(instance.get("WindowCenter")), _first(instance.get("WindowWidth"))
    if text(instance, "VOILUTFunction") != "SIGMOID" or centre is None or width is None or width <= 0:
        return values
    return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - np.float32(centre)) / np.float32(width), -80, 80))))


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "append") else value)


def _looked_up(values: NDArray[Any], table: Dataset, instance: Dataset) -> NDArray[np.float32]:
    """Through a LUT (PS3.3 C.11.1.1.1); below its first input it gives its first entry, above the last its last.

    Not by pydicom, whose 3.0 truncates the input of an 8-bit table to 8 bits and knows no modality LUT of 12.
    """
    entries, first, bits = (int(v) for v in table.LUTDescriptor)
    if first >= 1 << 15 and values.min() < 0:
        first -= 1 << 16  # written as US, although the input is signed
    outputs = _lut_entries(table, entries or 1 << 16, bits, instance.file_meta.TransferSyntaxUID.is_little_endian)
    at = np.rint(values).astype(np.int64) - first
    return np.asarray(outputs[np.clip(at, 0, len(outputs) - 1)])


def _lut_entries(table: Dataset, entries: int, bits: int, is_little_endian: bool) -> NDArray[np.float32]:
    data = table.LUTData
    raw = data if isinstance(data, bytes) else np.asarray(data, "<u2").tobytes()
    order = "<" if is_little_endian or data is not raw else ">"
    packed = bits <= 8 and len(raw) < 2 * entries  # two entries in a word
    outputs = np.frombuffer(raw, "u1" if packed else f"{order}u2")[:entries]
    if len(outputs) < entries:
        raise Unreadable("header", f"a LUT of {entries} entries has only {len(outputs)}")
    return outputs.astype(np.float32)


def _dense_is_bright(values: NDArray[np.float32], instance: Dataset) -> NDArray[np.float32]:
    """Turned once, though both attributes may ask for it: a DX image of MONOCHROME1 has to say INVERSE as well."""
    inverted = text(instance, "PhotometricInterpretation") == "MONOCHROME1"
    if inverted or text(instance, "PresentationLUTShape") == "INVERSE":
        return np.asarray(values.max() - values)
    return values


def _spacing_mm(instance: Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        value = instance.get(keyword)
        if value is not None and hasattr(value, "append") and len(value) == 2:
            row, column = (float(v) for v in value)
            if 0 < row < math.inf and 0 < column < math.inf:  # some write 0 for unknown
                return row, column
    return None
