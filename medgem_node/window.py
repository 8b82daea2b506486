"""A source image as a radiologist sees it: stored values through modality LUT, window or VOI LUT, to grey.

Of PS3.3 C.11.1 (modality), C.11.2 (VOI) and C.7.6.3.1.2 (photometric interpretation); of a frame by its own functional
groups. What a vendor left out or wrote wrong is replaced by the 1st to 99th percentile of what the image holds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from medgem_node import frame
from medgem_node.geometry import functional_group
from medgem_node.header import text_of

Levels = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Values after the modality LUT to 0 (dark) to 1 (bright)."""

_STRIP_ROWS = 64  # of a look-up: indices that stay within the processor's cache
_SAMPLES = 500_000
_MALFORMED = (AttributeError, IndexError, NotImplementedError, OverflowError, TypeError, ValueError, struct.error)
_HOUNSFIELD = np.linspace(-1024, 3071, 1024)


def grey(original: Dataset, number: int = 1) -> NDArray[np.uint8]:
    """Frame `number` as (rows, columns), 0 black to 255 white. Raises Unreadable."""
    with frame.coded("pixel-data", "the pixels cannot be decoded"):
        stored = frame.decoded_frame(original, number)
        if stored.ndim == 3:
            top = np.iinfo(stored.dtype).max
            return np.asarray(np.rint(stored.mean(axis=-1) * (255 / top)), np.uint8)
        if stored.dtype.itemsize > 2:
            return _shades(stored, original, number, _sample(stored))
        return _looked_up(stored, original, number)


def _looked_up(stored: NDArray[np.integer], original: Dataset, number: int) -> NDArray[np.uint8]:
    """Each value that occurs is windowed once, not once for every pixel."""
    lowest, highest = int(stored.min()), int(stored.max())
    table = _shades(np.arange(lowest, highest + 1), original, number, _sample(stored))
    shown = np.empty(stored.shape, np.uint8)
    for y in range(0, len(stored), _STRIP_ROWS):
        strip = stored[y : y + _STRIP_ROWS].astype(np.intp) - lowest
        np.take(table, strip, out=shown[y : y + _STRIP_ROWS], mode="clip")
    return shown


def _sample(stored: NDArray[np.integer]) -> NDArray[np.integer]:
    flat = stored.reshape(-1)
    return flat[:: max(1, flat.size // _SAMPLES)]


def _shades(
    stored: NDArray[np.integer], original: Dataset, number: int, sample: NDArray[np.integer]
) -> NDArray[np.uint8]:
    """The grey of each stored value; padding is black."""
    kept = sample[~_padding(original, sample)]
    levels = _levels(original, number, _modality(kept if kept.size else sample, original, number))
    level = np.clip(levels(_modality(stored, original, number)), 0, 1)
    if original.get("PhotometricInterpretation") == "MONOCHROME1":
        level = 1 - level
    level[_padding(original, stored)] = 0
    return np.asarray(np.rint(level * 255), np.uint8)


def _padding(original: Dataset, stored: NDArray[np.integer]) -> NDArray[np.bool_]:
    first = original.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(stored.shape, bool)
    last = original.get("PixelPaddingRangeLimit")
    ends = sorted((first, last if isinstance(last, int) else first))
    return np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _modality(stored: NDArray[np.integer], original: Dataset, number: int) -> NDArray[np.float64]:
    of_frame = functional_group(original, "PixelValueTransformationSequence", number)
    try:
        values = apply_modality_lut(stored, of_frame if "RescaleSlope" in of_frame else original)
    except _MALFORMED:
        values = stored
    return np.asarray(values, np.float64)


def _levels(original: Dataset, number: int, sample: NDArray[np.float64]) -> Levels:
    """What the image asks for first and that shows something."""
    is_ct = text_of(original, "Modality") == "CT"
    for levels in _asked_for(original, number):
        try:
            shown = np.clip(levels(_HOUNSFIELD if is_ct else sample), 0, 1)
        except _MALFORMED:
            continue
        # a narrow window is the rule in CT, and all its slices are shown alike
        if _contrast(shown) > 0.1 and (is_ct or np.mean((shown > 0.02) & (shown < 0.98)) > 0.05):
            return levels
    low, high = (float(v) for v in np.percentile(sample, (1, 99)))
    return lambda values: (values - low) / max(high - low, 1e-6)


def _contrast(shown: NDArray[np.float64]) -> float:
    dark, bright = np.percentile(shown, (1, 99))
    return float(bright - dark)


def _asked_for(original: Dataset, number: int) -> Iterator[Levels]:
    """The first VOI LUT, then the first window, of the frame or of the image."""
    if original.get("VOILUTSequence"):
        yield lambda values: _voi_lut(values, original)
    of_frame = functional_group(original, "FrameVOILUTSequence", number)
    holder = of_frame if "WindowCenter" in of_frame else original
    try:
        centre, width = _first(holder.get("WindowCenter")), _first(holder.get("WindowWidth"))
    except (TypeError, ValueError):
        return
    function = text_of(holder, "VOILUTFunction") or "LINEAR"
    if math.isfinite(centre) and (1 if function == "LINEAR" else 0) < width < math.inf:
        yield _windowed(centre, width, function)


def _voi_lut(values: NDArray[np.float64], original: Dataset) -> NDArray[np.float64]:
    bits = int(original.VOILUTSequence[0].LUTDescriptor[2])
    return np.asarray(apply_voi(np.rint(values).astype(np.int64), original) / (2**bits - 1), np.float64)


def _windowed(centre: float, width: float, function: str) -> Levels:
    """PS3.3 C.11.2.1.2.1 and C.11.2.1.3."""
    if function == "SIGMOID":
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return lambda values: (values - centre) / width + 0.5
    return lambda values: (values - (centre - 0.5)) / (width - 1) + 0.5


def _first(value: object) -> float:
    return float(value[0] if isinstance(value, MultiValue) else value)  # type: ignore[arg-type]
