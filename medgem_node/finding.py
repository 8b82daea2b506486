"""What a detector says of a study: findings, masks, measurements, heatmaps.

Coordinates are image coordinates of PS3.3 C.18.6: (0.0, 0.0) is the top left *corner* of the image, so the centre
of the pixel with index (row 0, column 0) is (x 0.5, y 0.5). x runs along a row, y along a column.
`image` and `images` are SOP Instance UIDs: pseudonymous in the worker, the original ones in the node. `frame` and
`frames` are the numbers of frames in a multi-frame image, from 1; `images` then names the image once for each frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

TIERS = ("high", "medium", "review")
"""Confidence in a finding: `review` asks for a second look before anything is made of it."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept: value, coding scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Point:
    """A position in an image, in image coordinates."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel region, in image coordinates; x0 < x1 and y0 < y1."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number with a unit (UCUM) and the points that it was taken at.

    Points come in pairs: each pair is the two ends of one line; none means a measurement of the whole segment `mask`.
    """

    code: Code
    value: float
    unit: Code
    label: str
    image: str
    points: tuple[Point, ...] = ()
    mask: str = ""
    method: str = ""
    frame: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Bits:
    """The frames of a mask, one bit a pixel: 512 x 512 x 400 voxels in 13 MB. Read as an array of them: `bits[n]`.

    `data`: (frames, bytes) uint8. Each frame begins on a byte; the first pixel is the lowest bit (PS3.5 section 8.1.1).
    Raises ValueError if the bytes are not those of such frames.
    """

    data: NDArray[np.uint8]
    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or self.data.ndim != 2 or self.data.dtype != np.uint8:
            raise ValueError("no frames of bits")
        size_bytes = (self.rows * self.columns + 7) // 8
        if self.data.shape[1] != size_bytes:
            raise ValueError(f"a frame of {self.data.shape[1]} bytes, not {size_bytes}")
        rest = self.rows * self.columns % 8
        if rest and (self.data[:, -1] >> rest).any():
            raise ValueError("bits behind the last pixel of a frame")

    @classmethod
    def from_frames(cls, frames: Iterable[NDArray[np.bool_]]) -> Bits:
        """Packs (rows, columns) after (rows, columns), so that no more than one frame is ever unpacked."""
        packed, shapes = [], set()
        for frame in frames:
            shapes.add(frame.shape)
            packed.append(np.packbits(np.asarray(frame, bool), bitorder="little"))
        if len(shapes) != 1:
            raise ValueError(f"frames of {len(shapes)} sizes; a mask has one")
        rows, columns = shapes.pop()
        return cls(np.stack(packed), int(rows), int(columns))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, rows, columns."""
        return len(self.data), self.rows, self.columns

    def any(self) -> bool:
        """Whether a pixel is set."""
        return bool(self.data.any())

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, n: int) -> NDArray[np.bool_]:
        """(rows, columns) of one frame, from 0."""
        flat = np.unpackbits(self.data[n], count=self.rows * self.columns, bitorder="little")
        return flat.view(bool).reshape(self.rows, self.columns)


def packed(pixels: NDArray[np.bool_] | Bits) -> Bits:
    """(frames, rows, columns), one bit a pixel."""
    if isinstance(pixels, Bits):
        return pixels
    frames, rows, columns = pixels.shape
    flat = np.asarray(pixels, bool).reshape(frames, rows * columns)
    return Bits(np.packbits(flat, axis=1, bitorder="little"), rows, columns)


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """One segment. `pixels`: (frames, rows, columns) bool in the images' own geometry, a frame for each of `images`.

    A volume's are packed (`Bits`), and so are all that come out of an Outcome. `frames` are the numbers of those frames
    in their images; empty: 1 for each.
    """

    label: str
    category: Code
    code: Code
    images: tuple[str, ...]
    pixels: NDArray[np.bool_] | Bits
    laterality: Code | None = None
    colour_rgb: tuple[int, int, int] = (64, 200, 255)
    frames: tuple[int, ...] = ()

    def order(self) -> dict[tuple[str, int], int]:
        """Which of `pixels` is which frame, by image and frame number."""
        return {named: n for n, named in enumerate(_named(self.images, self.frames))}

    def plane(self, image: str, frame: int = 1) -> NDArray[np.bool_] | None:
        """(rows, columns) of one frame; None where the mask does not speak of it."""
        n = _index(self.images, self.frames, image, frame)
        return None if n is None else self.pixels[n]


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """Where the model looked. `values`: (frames, rows, columns) float in 0..1, spread evenly over each whole image.

    Rows and columns may be fewer than the image's: a writer resizes. `frames` as in a Mask.
    """

    label: str
    images: tuple[str, ...]
    values: NDArray[np.float32]
    meaning: str = ""
    frames: tuple[int, ...] = ()

    def plane(self, image: str, frame: int = 1) -> NDArray[np.float32] | None:
        """(rows, columns) of one frame; None where the heatmap does not speak of it."""
        n = _index(self.images, self.frames, image, frame)
        return None if n is None else self.values[n]


def _index(images: tuple[str, ...], frames: tuple[int, ...], image: str, frame: int) -> int | None:
    return next((n for n, named in enumerate(_named(images, frames)) if named == (image, frame)), None)


def _named(images: tuple[str, ...], frames: tuple[int, ...]) -> Iterable[tuple[str, int]]:
    return zip(images, frames or (1,) * len(images), strict=True)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found, or looked for and not found (`present` False), at its operating point."""

    code: Code
    label: str
    probability: float
    present: bool
    operating_point: float
    image: str
    box: Box | None = None  # None: the whole image
    site: Code | None = None
    laterality: Code | None = None
    mask: str = ""  # the label of its segment, if it has one
    measurements: tuple[Measurement, ...] = ()
    frame: int = 1
    tier: str = ""  # how sure, of a calibrated probability: one of TIERS; empty where it is not calibrated
    calibrated: bool = True  # False: `probability` is only the algorithm's score, and is never written as one
    explanation: str = ""  # one sentence of measured parts only: what, where, how large, how sure

    @property
    def is_asserted(self) -> bool:
        """Whether it is said to be there, and not only offered for review."""
        return self.present and self.tier != "review"


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """All that one model says of one study; when `applicable` is False, `reason` and `detail` say why nothing.

    `reason` is a short identifier such as `lateral-view`; `detail` a sentence without identity.
    `images` are the images that were analysed. `parameters` go into the algorithm identification.
    """

    model: str
    version: str
    applicable: bool = True
    reason: str = ""
    detail: str = ""
    images: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    candidates: tuple[Finding, ...] = ()  # every box down to probability 0.001, for evaluation only
    measurements: tuple[Measurement, ...] = ()
    masks: tuple[Mask, ...] = ()
    heatmaps: tuple[Heatmap, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def renamed(self, uid: Mapping[str, str]) -> Analysis:
        """The same analysis with every image's UID replaced; raises KeyError for one that is not in `uid`."""

        def image(old: str) -> str:
            return uid[old] if old else old

        def measurement(m: Measurement) -> Measurement:
            return replace(m, image=image(m.image))

        def finding(f: Finding) -> Finding:
            return replace(f, image=image(f.image), measurements=tuple(map(measurement, f.measurements)))

        return replace(
            self,
            images=tuple(map(image, self.images)),
            findings=tuple(map(finding, self.findings)),
            candidates=tuple(map(finding, self.candidates)),
            measurements=tuple(map(measurement, self.measurements)),
            masks=tuple(replace(m, images=tuple(map(image, m.images))) for m in self.masks),
            heatmaps=tuple(replace(h, images=tuple(map(image, h.images))) for h in self.heatmaps),
        )


def not_analysed(model: str, version: str, reason: str, detail: str, **rest: Any) -> Analysis:
    """The answer for a study that could not be analysed."""
    return Analysis(model=model, version=version, applicable=False, reason=reason, detail=detail, **rest)
