"""What a detector says of a study: findings, masks, measurements, heatmaps.

Coordinates are image coordinates of PS3.3 C.18.6: (0.0, 0.0) is the top left *corner* of the image, so the centre
of the pixel with index (row 0, column 0) is (x 0.5, y 0.5). x runs along a row, y along a column.
`image` and `images` are SOP Instance UIDs: pseudonymous in the worker, the original ones in the node. `frame` and
`frames` are the numbers of frames in a multi-frame image, from 1; `images` then names the image once for each frame.
"""

from __future__ import annotations

from collections.abc import Mapping
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
class Mask:
    """One segment. `pixels`: (frames, rows, columns) bool in the images' own geometry, a frame for each of `images`.

    `frames` are the numbers of those frames in their images; empty: 1 for each.
    """

    label: str
    category: Code
    code: Code
    images: tuple[str, ...]
    pixels: NDArray[np.bool_]
    laterality: Code | None = None
    colour_rgb: tuple[int, int, int] = (64, 200, 255)
    frames: tuple[int, ...] = ()

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
    named = zip(images, frames or (1,) * len(images), strict=True)
    return next((n for n, found in enumerate(named) if found == (image, frame)), None)


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
    candidates: tuple[Finding, ...] = ()  # every box down to probability 0.01, for evaluation only
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
