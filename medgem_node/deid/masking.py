"""What is blanked in frames: boxes around text, regions, faces. Frames that are not touched stay byte for byte.

Of native pixels only the rows that are touched are copied. Of compressed ones a touched frame is decoded and written
again in its own transfer syntax; every pixel outside the mask keeps its value, but for JPEG baseline, where frames that
are touched lose a little once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medgem_node.deid import samples
from medgem_node.deid.layout import Broken, Syntax
from medgem_node.deid.pixels import Pixels
from medgem_node.deid.reader import Box
from medgem_node.deid.samples import Samples
from medgem_node.deid.shape import UNFIT, Shape
from medgem_node.errors import CannotDeidentify, NotAnalysable

Mask = NDArray[np.bool_]


def blanked(
    pixels: Pixels,
    values: Mapping[int, bytes],
    syntax: Syntax,
    mask: Mask | Sequence[Box],
    fill: float | None = None,
) -> Pixels:
    """Pixels with the background where `mask` is True.

    Parameters
    ----------
    values
        Raw values of the header, of `shape.TAGS` at least.
    mask
        Boxes or (rows, columns), for every frame; or (frames, rows, columns).
    fill
        Stored value of a grey image to write; without one, the darkest that the frame holds.

    Raises
    ------
    CannotDeidentify
        If a frame cannot be decoded, or not be written again.
    """
    try:
        shape = Shape.of(values, syntax)
        mask = _as_mask(mask, shape)
        if not mask.any():
            return pixels
        if pixels.is_encapsulated:
            return _compressed(pixels, shape, syntax, mask, fill)
        if shape.allocated == 1:
            return _bits(pixels, shape, syntax, mask)
        patches = [p for n in range(shape.frames) for p in _patches(pixels, shape, syntax, n, _of(mask, n), fill)]
        return pixels.with_bytes(patches)
    except (Broken, NotAnalysable) as exc:
        raise CannotDeidentify(f"what must be blanked cannot be: {exc}") from None
    except UNFIT as exc:
        raise CannotDeidentify(f"what must be blanked cannot be ({type(exc).__name__})") from None


def _as_mask(mask: Mask | Sequence[Box], shape: Shape) -> Mask:
    if isinstance(mask, np.ndarray):
        if mask.shape not in ((shape.rows, shape.columns), (shape.frames, shape.rows, shape.columns)):
            raise Broken("a mask of another size than its image")
        return mask
    made = np.zeros((shape.rows, shape.columns), bool)
    for box in mask:
        made[max(box.top, 0) : max(box.bottom, 0), max(box.left, 0) : max(box.right, 0)] = True
    return made


def _of(mask: Mask, number: int) -> Mask:
    return mask if mask.ndim == 2 else mask[number]


def _compressed(pixels: Pixels, shape: Shape, syntax: Syntax, mask: Mask, fill: float | None) -> Pixels:
    new = {}
    for number in range(shape.frames):
        touched = _of(mask, number)
        if touched.any():
            frame = samples.stored(pixels, shape, syntax, number).copy()
            if frame.shape[:2] != touched.shape:
                raise Broken("a frame of another size than the header says")
            is_rgb = shape.photometric != "YBR_FULL" or syntax.uid in samples.LOSSY
            frame[touched] = _background(frame, "RGB" if is_rgb and frame.ndim == 3 else shape.photometric, shape, fill)
            new[number] = samples.compressed(frame, pixels, shape, syntax, number)
    return pixels.with_frames(shape.frames, new, is_lossy_again=syntax.uid in samples.LOSSY)


def _patches(
    pixels: Pixels, shape: Shape, syntax: Syntax, number: int, mask: Mask, fill: float | None
) -> Iterator[tuple[int, bytes]]:
    """Where runs of touched rows begin in native pixels, and what stands there instead."""
    if not mask.any():
        return
    if shape.is_halved:
        mask = mask[:, 0::2] | mask[:, 1::2]  # two pixels share their colour
    frame = samples.native(pixels, shape, syntax, number)
    background = _background(frame, shape.photometric, shape, fill)
    planes = (
        [(frame[:, :, k], background[k]) for k in range(shape.samples)] if shape.is_planar else [(frame, background)]
    )
    at = number * shape.frame_bytes()
    for plane, value in planes:
        for first, after in _runs(np.asarray(mask.any(axis=1))):
            rows = plane[first:after].copy()
            rows[mask[first:after]] = value
            yield at + first * rows[0].nbytes, rows.tobytes()
        at += plane.nbytes


def _runs(touched: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(touched.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _bits(pixels: Pixels, shape: Shape, syntax: Syntax, mask: Mask) -> Pixels:
    values = samples.bits(pixels, shape, syntax)
    values[np.broadcast_to(mask, values.shape)] = 0
    packed = np.packbits(values.reshape(-1), bitorder="little").tobytes()
    return pixels.with_bytes([(0, packed)])


def _background(frame: Samples, photometric: str, shape: Shape, fill: float | None) -> Samples:
    """Black, in what the samples mean."""
    if frame.ndim == 3:
        grey = 1 << shape.stored - 1
        if shape.is_halved and frame.shape[2] == 4:
            return np.array([0, 0, grey, grey], frame.dtype)
        is_ybr = photometric.startswith("YBR") and photometric not in ("YBR_ICT", "YBR_RCT")
        return np.array([0, grey, grey] if is_ybr else [0] * frame.shape[2], frame.dtype)
    if fill is not None:
        limits = np.finfo(frame.dtype) if frame.dtype.kind == "f" else np.iinfo(frame.dtype)
        return np.asarray(np.clip(fill, limits.min, limits.max)).astype(frame.dtype)
    return np.asarray(frame.max() if photometric == "MONOCHROME1" else frame.min())
