"""From a radiograph of any size and depth to the network's input, and back.

Coordinates are corner-based on both sides (PS3.3 C.18.6): (0.0, 0.0) is the top left corner of the first pixel, in the
image and in the network's square alike, so going there and back is one factor and one offset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medgem_node.errors import ModelRejected, Unreadable

_SAMPLES_PER_SIDE = 512  # percentiles of a grid of this size differ by less than noise from those of all pixels
_FLAT = 0.02  # a border line whose spread is below this part of the other lines' spread shows no anatomy


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The numbers of a manifest's `[preprocessing]`; grey value in 0..1 becomes `(grey - mean) / deviation`."""

    low_percentile: float = 0.5
    high_percentile: float = 99.5
    mean: float = 0.5
    deviation: float = 0.25

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Preprocessing:
        """The manifest's table. Raises ModelRejected."""
        try:
            found = cls(**{key: float(value) for key, value in table.items()})
        except (TypeError, ValueError) as exc:
            raise ModelRejected(f"model.toml: [preprocessing] cannot be used: {exc}") from exc
        if not (0 <= found.low_percentile < found.high_percentile <= 100 and found.deviation > 0):
            raise ModelRejected("model.toml: [preprocessing] needs ordered percentiles and a deviation above 0")
        return found


DEFAULTS = Preprocessing()


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image of `rows` x `columns` lies in the network's square: `scale` network pixels to one image pixel."""

    scale: float
    left: int
    top: int
    rows: int
    columns: int

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """Network coordinates to image coordinates."""
        return (x - self.left) / self.scale, (y - self.top) / self.scale

    def to_network(self, x: float, y: float) -> tuple[float, float]:
        """Image coordinates to network coordinates."""
        return x * self.scale + self.left, y * self.scale + self.top

    def crop_resize(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A square map over the network's whole input, (h, h), as (rows, columns), bilinear.

        The map may be coarser or finer than the input; it is stretched over it evenly.
        """
        return np.array(self._resized(np.ascontiguousarray(values, np.float32)), dtype=np.float32)

    def mask(self, probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where a map of probabilities is above one half, likewise; in eight bits, which a large image is glad of."""
        levels = np.asarray(np.clip(probabilities, 0, 1) * 255 + 0.5, np.uint8)
        return np.asarray(self._resized(levels)) > 127

    def _resized(self, values: NDArray[Any]) -> Image.Image:
        side = values.shape[0]
        size = max(self.rows, self.columns) * self.scale
        if values.shape != (side, side):
            raise ValueError(f"a map over a square input is square, not {values.shape}")
        x0, y0 = self.to_network(0, 0)
        x1, y1 = self.to_network(self.columns, self.rows)
        part = tuple(min(float(side), v * side / size) for v in (x0, y0, x1, y1))
        whole = Image.fromarray(values)
        return whole.resize((self.columns, self.rows), Image.Resampling.BILINEAR, box=part)


def letterbox(rows: int, columns: int, size: int = 256) -> Letterbox:
    """The whole image, its aspect kept, in the middle of a square of `size`."""
    scale = size / max(rows, columns)
    width, height = _covered(columns, scale), _covered(rows, scale)
    return Letterbox(scale, (size - width) // 2, (size - height) // 2, rows, columns)


def to_tensor(
    pixels: NDArray[np.float32],
    size: int = 256,
    exposed: NDArray[np.bool_] | None = None,
    constants: Preprocessing = DEFAULTS,
) -> tuple[NDArray[np.float32], Letterbox]:
    """The network's input, (1, size, size), and where the image lies in it.

    Parameters
    ----------
    pixels
        (rows, columns), bright = dense (the sense of MONOCHROME2), any range.
    exposed
        Same shape; False where there is no image (pixel padding): it has no say in the grey scale and becomes black,
        like what lies beside the image. None: all of it is image.

    Raises
    ------
    Unreadable
        `constant-image`, if there is nothing between the percentiles.
    """
    low, high = _grey_range(pixels, exposed, constants)
    rows, columns = pixels.shape
    box = letterbox(rows, columns, size)
    grey = _scaled(pixels, exposed, low, high, box.scale)
    width, height = (_covered(n, box.scale) for n in (columns, rows))
    part = (0, 0, min(width / box.scale, grey.shape[1]), min(height / box.scale, grey.shape[0]))
    # PIL widens its filter when it shrinks, so this is antialiased; box makes the factor exact on both axes
    small = Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR, box=part)
    tensor = np.zeros((1, size, size), np.float32)
    tensor[0, box.top : box.top + height, box.left : box.left + width] = np.asarray(small)
    return (tensor - np.float32(constants.mean)) / np.float32(constants.deviation), box


def _covered(length: int, scale: float) -> int:
    """How many network pixels `length` image pixels touch."""
    return math.ceil(length * scale - 1e-6)


def _grey_range(
    pixels: NDArray[np.float32], exposed: NDArray[np.bool_] | None, constants: Preprocessing
) -> tuple[float, float]:
    step = max(1, math.ceil(max(pixels.shape) / _SAMPLES_PER_SIDE))
    sample = np.asarray(pixels[::step, ::step], np.float64)
    known = np.ones(sample.shape, bool) if exposed is None else exposed[::step, ::step]
    if not known.any():
        raise Unreadable("constant-image", "the image has no pixel that is not padding")
    sample = np.where(known, sample, sample[known].min())
    rows, columns = _field(sample)
    inside = sample[rows, columns][known[rows, columns]]
    low, high = np.percentile(inside, (constants.low_percentile, constants.high_percentile)).tolist()
    if not high - low > 1e-6 * max(abs(low), abs(high)):  # also true of a NaN
        raise Unreadable("constant-image", "the image shows one grey value only")
    return low, high


def _field(sample: NDArray[np.float64]) -> tuple[slice, slice]:
    """The exposed field: what remains when flat lines (shutter, collimation, white frame) are taken off the borders."""
    rows = _between_flat(sample)
    return rows, _between_flat(sample[rows].T)


def _between_flat(lines: NDArray[np.float64]) -> slice:
    low, high = np.percentile(lines, (5, 95), axis=1)  # a side marker in the collimated border is below 5 %
    spread = high - low
    busy = np.flatnonzero(spread > _FLAT * np.percentile(spread, 90))
    return slice(busy[0], busy[-1] + 1) if busy.size else slice(None)


def _scaled(
    pixels: NDArray[np.float32], exposed: NDArray[np.bool_] | None, low: float, high: float, scale: float
) -> NDArray[np.float32]:
    """Grey values in 0..1, with black lines added right and below until a whole number of network pixels is covered."""
    rows, columns = pixels.shape
    padded = tuple(max(n, math.ceil(_covered(n, scale) / scale - 1e-6)) for n in (rows, columns))
    grey = np.zeros(padded, np.float32)
    image = grey[:rows, :columns]
    np.subtract(pixels, np.float32(low), out=image)
    image *= np.float32(1 / (high - low))
    np.clip(image, 0, 1, out=image)
    if exposed is not None:
        image[~exposed] = 0
    return grey
