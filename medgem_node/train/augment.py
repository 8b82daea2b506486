"""One film, as another hospital might have taken it: placed, exposed and processed otherwise.

Anatomy is never mirrored: a mirrored chest is one of the things the gate must recognise. Masks and boxes go where the
film goes. Three changes are made only if the recipe's `[augment]` asks for them:

`elastic`   the film is bent smoothly, by at most this part of its side (0.02: 8 pixels of 384).
`density`   all of the exposed film is lighter or darker by at most this part of its grey range.
`masked`    of all blocks of 16 pixels, how many are hidden; a lesion that is half hidden is not taught.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from medgem_node.detector.boxes import Truth
from medgem_node.train.film import Film
from medgem_node.train.lesions import Lesion
from medgem_node.train.listed import FromFile
from medgem_node.train.pictures import shrunk

Grey = NDArray[Any]
"""(rows, columns) in 0..1, float; what leaves this file is float32."""
_NODES = 6  # along each side of the grid that a bent film hangs on
_BLOCK = 16  # pixels
_FLAT = np.zeros((2, 0, 0), np.float32)  # the film is not bent


def prepared(film: Film, size: int) -> Film:
    """The film in 0..1 and not much larger than the network's input, once for the whole training.

    One that is read when it is shown is made so then, and kept as its source's shelf keeps them.
    """
    if film.reading is not None:
        assert isinstance(film.reading, FromFile), "a film is prepared once"
        return replace(film, reading=Prepared(film.reading, size))
    grey = _fitted(film.pixels, size)
    truth = None if film.truth is None else np.stack([_eight_bits(shrunk(m, _shape(grey))) for m in film.truth])
    return replace(film, pixels=grey, truth=truth)


@dataclass(frozen=True, slots=True)
class Prepared:
    """The pixels of a film as `prepared` leaves them."""

    file: FromFile
    size: int

    @property
    def path(self) -> Path:
        """The film's file."""
        return self.file.path

    def __call__(self) -> NDArray[np.uint8]:
        """(rows, columns). Raises Unreadable."""
        return self.file.shelf.picture(self.path, f"prepared {self.size}", lambda: _fitted(self.file(), self.size))


def augmented(
    film: Film, size: int, ranges: Mapping[str, float], rng: Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The picture, (size, size), and the three masks on it, (3, size, size)."""
    grey, truth, _ = with_lesions(film, size, ranges, rng)
    return grey, truth


def with_lesions(
    film: Film, size: int, ranges: Mapping[str, float], rng: Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], tuple[Truth, ...]]:
    """As `augmented`, with the film's lesions where they now lie, in pixels."""
    place = _placement(film.pixels.shape, size, ranges, rng)
    bend = _bend(size, ranges.get("elastic", 0.0), rng)
    placed = _placed(film.pixels, size, place, bend) / 255
    truth = np.zeros((3, size, size), np.float32)
    if film.truth is not None and film.truth.any():
        truth = np.stack([_placed(mask, size, place, bend) / 255 for mask in film.truth])
    lesions = tuple(_bent(_moved(lesion, film.pixels.shape, place), bend) for lesion in film.lesions or ())
    grey = exposed(placed, ranges, rng, clouds=film.lesions is None)
    if part := ranges.get("masked", 0.0):
        grey, lesions = _hidden(grey, lesions, part, rng)
    return grey, truth, lesions


def exposed(grey: Grey, ranges: Mapping[str, float], rng: Generator, *, clouds: bool = True) -> NDArray[np.float32]:
    """Another exposure, detector and processing; no clouds where they could be taken for a lesion that is not there."""
    if most := ranges.get("density", 0.0):
        grey = np.where(grey > 0, grey + rng.uniform(-1, 1) * most, grey)  # beside the film all stays black
    for change, chance in _CHANGES:
        if rng.random() < chance and (clouds or change is not _opacity):
            grey = change(grey, ranges, rng)
    return np.clip(grey, 0, 1).astype(np.float32)


def turned(grey: NDArray[np.float32], kind: str, rng: Generator) -> NDArray[np.float32]:
    """An upright frontal film, (size, size), turned into one of the gate's other classes."""
    quarter = int(rng.choice((1, 3)))
    if kind == "rotated":
        return np.rot90(grey if rng.random() < 0.5 else grey[:, ::-1], quarter).copy()
    if kind == "upside-down":
        return np.ascontiguousarray(grey[::-1] if rng.random() < 0.5 else grey[::-1, ::-1])
    if kind == "mirrored":
        return np.ascontiguousarray(grey[:, ::-1])
    if kind == "inverted":
        return (1 - grey).astype(np.float32)
    return _detail(grey, rng) if rng.random() < 0.6 else _nonsense(grey.shape[0], rng)


def _placement(shape: tuple[int, ...], size: int, ranges: Mapping[str, float], rng: Generator) -> tuple[float, ...]:
    """The six numbers of PIL's affine transform: where in the film each pixel of the square comes from."""
    rows, columns = shape
    angle = math.radians(rng.uniform(-1, 1) * ranges["rotation_degrees"])
    scale = size / max(rows, columns) * (1 + rng.uniform(-1, 1) * ranges["scale"])
    stretch = 1 + rng.uniform(-1, 1) * ranges["aspect"]
    dx, dy = rng.uniform(-1, 1, 2) * ranges["shift"] * size
    sx, sy = scale * stretch, scale / stretch
    a, b = math.cos(angle) / sx, math.sin(angle) / sx
    d, e = -math.sin(angle) / sy, math.cos(angle) / sy
    centre = size / 2
    return (
        a, b, columns / 2 - a * (centre + dx) - b * (centre + dy),
        d, e, rows / 2 - d * (centre + dx) - e * (centre + dy),
    )  # fmt: skip


def _bend(size: int, most: float, rng: Generator) -> NDArray[np.float32]:
    """How far, right and down, the place that a pixel is taken from lies off it: (2, size, size) pixels.

    A grid of few nodes, pulled at random and smooth between them (free-form deformation, Rueckert et al. 1999,
    doi:10.1109/42.796284), so that nothing is folded or torn.
    """
    if not most:
        return _FLAT
    pulls = (rng.uniform(-1, 1, (2, _NODES, _NODES)) * rng.random() * most * size).astype(np.float32)
    resized = (Image.fromarray(pull).resize((size, size), Image.Resampling.BICUBIC) for pull in pulls)
    return np.stack([np.asarray(pull, np.float32) for pull in resized])


def _placed(values: Grey, size: int, place: tuple[float, ...], bend: NDArray[np.float32] = _FLAT) -> Grey:
    if not bend.size:
        image = Image.fromarray(values).transform(
            (size, size), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR
        )
        return np.asarray(image, np.float32)
    a, b, c, d, e, f = place
    middles = np.arange(size, dtype=np.float32) + 0.5
    x, y = middles + bend[0], middles[:, None] + bend[1]
    return _sampled(values, a * x + b * y + c, d * x + e * y + f)


def _sampled(values: Grey, x: Grey, y: Grey) -> Grey:
    """Bilinear, at image coordinates; 0 outside."""
    rows, columns = values.shape
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    x, y = np.clip(x - 0.5, 0, columns - 1), np.clip(y - 0.5, 0, rows - 1)
    left, top = x.astype(int), y.astype(int)
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    over, down = x - left, y - top
    upper = values[top, left] * (1 - over) + values[top, right] * over
    lower = values[bottom, left] * (1 - over) + values[bottom, right] * over
    return np.where(inside, upper * (1 - down) + lower * down, 0).astype(np.float32)


def _moved(lesion: Lesion, shape: tuple[int, ...], place: tuple[float, ...]) -> Truth:
    """A lesion of the film in the placed picture: its centre turned with it, its sides stretched."""
    a, b, c, d, e, f = place
    columns, rows = shape[1], shape[0]
    x0, y0, x1, y1 = lesion.box
    x, y = (x0 + x1) / 2 * columns - c, (y0 + y1) / 2 * rows - f
    area = a * e - b * d
    to_x, to_y = (e * x - b * y) / area, (a * y - d * x) / area
    width, height = (x1 - x0) * columns / math.hypot(a, d), (y1 - y0) * rows / math.hypot(b, e)
    box = (to_x - width / 2, to_y - height / 2, to_x + width / 2, to_y + height / 2)
    return Truth(box, sized=lesion.sized, counts=lesion.counts)


def _bent(lesion: Truth, bend: NDArray[np.float32]) -> Truth:
    """Where a lesion of the placed film comes to lie when that is bent: by the middles of its four sides."""
    if not bend.size:
        return lesion
    x0, y0, x1, y1 = lesion.box_xyxy
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    (left, _), (right, _) = _back(x0, y, bend), _back(x1, y, bend)
    (_, top), (_, bottom) = _back(x, y0, bend), _back(x, y1, bend)
    return replace(lesion, box_xyxy=(left, top, right, bottom))


def _back(x: float, y: float, bend: NDArray[np.float32]) -> tuple[float, float]:
    """The pixel that is taken from (x, y): what lies there plus its bend is (x, y), found by repetition."""
    last = bend.shape[1] - 1
    to_x, to_y = x, y
    for _ in range(12):  # each brings it nearer by the steepest slope of the bend, at most 0.7
        column, row = (min(max(int(v), 0), last) for v in (to_x, to_y))
        to_x, to_y = x - float(bend[0, row, column]), y - float(bend[1, row, column])
    return to_x, to_y


def _hidden(
    grey: NDArray[np.float32], lesions: tuple[Truth, ...], part: float, rng: Generator
) -> tuple[NDArray[np.float32], tuple[Truth, ...]]:
    """Blocks made as grey as the picture is on the whole; what is half behind them is neither lesion nor background."""
    size = grey.shape[0]
    blocks = rng.random((-(-size // _BLOCK),) * 2) < part
    behind = blocks.repeat(_BLOCK, 0).repeat(_BLOCK, 1)[:size, :size]
    seen = tuple(replace(lesion, counts=lesion.counts and _share(lesion, behind) <= 0.5) for lesion in lesions)
    return np.where(behind, grey.mean(), grey).astype(np.float32), seen


def _share(lesion: Truth, behind: NDArray[np.bool_]) -> float:
    """How much of a lesion's box in the picture is hidden."""
    x0, y0, x1, y1 = (max(int(v), 0) for v in lesion.box_xyxy)
    own = behind[y0 : y1 + 1, x0 : x1 + 1]
    return float(own.mean()) if own.size else 0.0


def _fitted(pixels: NDArray[Any], size: int) -> NDArray[np.uint8]:
    low, high = np.percentile(pixels, (0.1, 99.9)).tolist()
    grey = np.clip((pixels - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    factor = min(1.0, 1.15 * size / max(grey.shape))
    return _eight_bits(shrunk(grey, (round(grey.shape[0] * factor), round(grey.shape[1] * factor))))


def _shape(grey: NDArray[np.uint8]) -> tuple[int, int]:
    return grey.shape[0], grey.shape[1]


def _eight_bits(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(values, 0, 1) * 255 + 0.5, np.uint8)


def _gamma(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    return np.asarray(np.clip(grey, 0, 1) ** math.exp(rng.uniform(-1, 1) * ranges["gamma"]))


def _window(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    low, high = rng.uniform(-0.3, 1, 2) * ranges["window"]
    return np.asarray(np.clip((grey - low) / (1 - low - high), 0, 1))


def _slope(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    """Uneven exposure, as by a tilted grid."""
    rows, columns = grey.shape
    gx, gy = rng.uniform(-0.15, 0.15, 2)
    x, y = np.linspace(-1, 1, columns, dtype=np.float32), np.linspace(-1, 1, rows, dtype=np.float32)
    return np.where(grey > 0, grey + gx * x + gy * y[:, None], grey)


def _local_contrast(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    """What a vendor's multi-scale processing does to the large densities."""
    coarse = _blurred(grey, rng.uniform(8, 30))
    return np.asarray(grey - rng.uniform(0.2, 0.7) * (coarse - coarse.mean()))


def _sharpen(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    return grey + rng.uniform(0.3, 1.5) * (grey - _blurred(grey, rng.uniform(0.8, 3)))


def _blur(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    return _blurred(grey, rng.uniform(0.2, ranges["blur"]))


def _noise(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    return grey + rng.normal(0, rng.uniform(0, ranges["noise"]), grey.shape).astype(np.float32)


def _opacity(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    """A soft white cloud: the border of a lung goes on behind it."""
    size = grey.shape[0]
    image = Image.new("F", (size, size))
    for _ in range(int(rng.integers(1, 4))):
        (x, y), (w, h) = rng.uniform(0.15, 0.85, 2) * size, rng.uniform(0.03, 0.16, 2) * size
        ImageDraw.Draw(image).ellipse((x - w, y - h, x + w, y + h), fill=rng.uniform(0.1, 0.45))
    return grey + _blurred(np.asarray(image, np.float32), rng.uniform(3, 10))


def _foreign(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    """Cables, tubes and side markers."""
    size = grey.shape[0]
    image = Image.new("F", (size, size))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):
        ends = rng.uniform(0, size, (3, 2))
        draw.line([tuple(p) for p in ends.tolist()], fill=rng.uniform(0.1, 0.5), width=int(rng.integers(1, 3)))
    x, y = rng.uniform(0, size, 2)
    draw.rectangle((x, y, x + rng.uniform(3, 14), y + rng.uniform(3, 14)), fill=1.0)
    return grey + _blurred(np.asarray(image, np.float32), 0.7)


def _collimated(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    """A shutter or a white frame on some sides, with a written line at times."""
    size = grey.shape[0]
    framed = grey.copy()
    fill = 0.0 if rng.random() < 0.75 else 1.0
    for turns in range(4):
        if rng.random() < 0.5:
            np.rot90(framed, turns)[: int(rng.uniform(0, 0.07) * size)] = fill
    return framed


def _jpeg(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    buffer = io.BytesIO()
    _image(grey).save(buffer, "JPEG", quality=int(rng.integers(25, 90)))
    return np.asarray(Image.open(buffer), np.float32) / 255


def _coarse(grey: Grey, ranges: Mapping[str, float], rng: Generator) -> Grey:
    size = grey.shape[0]
    small = round(size * rng.uniform(0.4, 0.9))
    return shrunk(shrunk(grey, (small, small)), (size, size))


_CHANGES: tuple[tuple[Callable[[Grey, Mapping[str, float], Generator], Grey], float], ...] = (
    (_opacity, 0.15),
    (_slope, 0.3),
    (_gamma, 0.8),
    (_local_contrast, 0.25),
    (_window, 0.6),
    (_foreign, 0.15),
    (_sharpen, 0.2),
    (_blur, 0.2),
    (_coarse, 0.15),
    (_noise, 0.3),
    (_jpeg, 0.15),
    (_collimated, 0.25),
)


def _detail(grey: Grey, rng: Generator) -> Grey:
    """A part of a chest that is none by itself."""
    size = grey.shape[0]
    height, width = (int(v) for v in rng.uniform(0.22, 0.42, 2) * size)
    top, left = (int(rng.integers(0, size - n)) for n in (height, width))
    return shrunk(np.ascontiguousarray(grey[top : top + height, left : left + width]), (size, size))


def _nonsense(size: int, rng: Generator) -> Grey:
    """Noise, gradients and shapes."""
    x = np.linspace(-1, 1, size, dtype=np.float32)
    grey = 0.5 + rng.uniform(-0.5, 0.5) * x + rng.uniform(-0.5, 0.5) * x[:, None]
    coarse = int(rng.integers(2, 64))
    grey = grey + rng.uniform(0, 1) * shrunk(rng.normal(0, 0.4, (coarse, coarse)).astype(np.float32), (size, size))
    image = _image(np.clip(grey, 0, 1).astype(np.float32))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 6))):
        x0, y0 = rng.uniform(-0.2, 0.9, 2) * size
        corners = (x0, y0, x0 + rng.uniform(0.05, 0.8) * size, y0 + rng.uniform(0.05, 0.8) * size)
        (draw.ellipse if rng.random() < 0.6 else draw.rectangle)(corners, fill=int(rng.integers(0, 256)))
    return np.asarray(image, np.float32) / 255


def _blurred(grey: Grey, radius: float) -> Grey:
    """8-bit blur of PIL is fast; its steps of 1/255 vanish in the average."""
    low, high = float(grey.min()), float(grey.max())
    if high - low < 1e-6:
        return grey
    image = _image((grey - low) / (high - low)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float32) / 255 * (high - low) + low


def _image(grey: Grey) -> Image.Image:
    return Image.fromarray((np.clip(grey, 0, 1) * 255 + 0.5).astype(np.uint8))
