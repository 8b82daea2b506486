"""Frames in 8 bits of grey, as a reader of text sees them best: nothing clipped, nothing drowned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from medgem_node.deid import samples
from medgem_node.deid.layout import Broken, Syntax
from medgem_node.deid.pixels import Pixels
from medgem_node.deid.reader import Grey
from medgem_node.deid.samples import Samples
from medgem_node.deid.shape import Shape

STATIC_FRAMES = 8
"""How many frames tell what stands still in all of them."""


def each(pixels: Pixels, values: Mapping[int, bytes], syntax: Syntax) -> Iterator[Grey]:
    """Every frame. Raises Broken, NotAnalysable."""
    shape = Shape.of(values, syntax)
    for number in range(shape.frames):
        yield eight_bits(_levels(pixels, shape, values, syntax, number))


def still(pixels: Pixels, values: Mapping[int, bytes], syntax: Syntax) -> Iterator[Grey]:
    """What stands still in a run of frames: the darkest and the brightest of each pixel, and three single frames.

    Light text on what moves stays in the darkest, dark text in the brightest.
    """
    shape = Shape.of(values, syntax)
    numbers = sorted({round(n) for n in np.linspace(0, shape.frames - 1, STATIC_FRAMES)})
    frames = [_levels(pixels, shape, values, syntax, number) for number in numbers]
    if len(frames) > 3:
        yield eight_bits(reduce(np.minimum, frames))
        yield eight_bits(reduce(np.maximum, frames))
        frames = [frames[0], frames[len(frames) // 2], frames[-1]]
    for frame in frames:
        yield eight_bits(frame)


def eight_bits(levels: NDArray[np.float32]) -> Grey:
    """Most of the grey for the middle 99 % of the pixels, the rest for what is darker and brighter."""
    low, high = (float(v) for v in np.percentile(levels, (0.5, 99.5)))
    least, most = float(levels.min()), float(levels.max())
    if most <= least:
        return np.zeros(levels.shape, np.uint8)
    known = {least: 0.0, low: 16.0 if low > least else 0.0, high: 239.0 if high < most else 255.0, most: 255.0}
    return np.asarray(np.interp(levels, sorted(known), sorted(known.values())), np.uint8)


def _levels(
    pixels: Pixels, shape: Shape, values: Mapping[int, bytes], syntax: Syntax, number: int
) -> NDArray[np.float32]:
    frame = samples.shown(pixels, shape, syntax, number)
    if shape.photometric == "PALETTE COLOR":
        return _looked_up(frame, values, syntax)
    if frame.ndim == 2:
        return np.nan_to_num(frame.astype(np.float32))
    if shape.is_halved and not pixels.is_encapsulated:
        return np.asarray(frame[:, :, :2].reshape(shape.rows, -1), np.float32)
    if shape.photometric.startswith("YBR") and not pixels.is_encapsulated:
        return np.asarray(frame[:, :, 0], np.float32)
    return np.asarray(frame.mean(axis=2), np.float32)


def _looked_up(frame: Samples, values: Mapping[int, bytes], syntax: Syntax) -> NDArray[np.float32]:
    """The brightness of palette colours (PS3.3 C.7.6.3.1.5); indices where the tables are written in segments."""
    tables = [values.get(tag, b"") for tag in (0x00281201, 0x00281202, 0x00281203)]
    head = values.get(0x00281101, b"")
    if len(head) < 6 or not all(tables):
        return frame.astype(np.float32)
    end = "<" if syntax.little else ">"
    count, first, bits = np.frombuffer(head[:6], end + "u2").tolist()
    count = count or 65536
    kind = "u1" if bits == 8 and len(tables[0]) < 2 * count else end + "u2"
    lut = sum(np.frombuffer(t, kind, min(count, len(t) // np.dtype(kind).itemsize)).astype(np.float32) for t in tables)
    if not isinstance(lut, np.ndarray) or not lut.size:
        raise Broken("a palette without colours")
    return np.asarray(lut[np.clip(frame.astype(np.int64) - first, 0, lut.size - 1)])
