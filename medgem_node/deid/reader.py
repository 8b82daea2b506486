"""Text in a picture: where it stands, and as far as it can be read, what it says.

Found by RapidOCR (PP-OCRv4, whose models lie in its wheel: nothing is fetched), imported when first asked for. What it
sees and misses is measured by tests/bench/bench_ocr.py; docs/deid-pixels.md has the tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from medgem_node.errors import ConfigError

Grey = NDArray[np.uint8]

INSTALL = 'install the text reader: pip install "medgem-node[pixels]"'
INSTALL_LIBRARIES = "the text reader lacks system libraries: apt-get install libgl1 libglib2.0-0"

_TILE = 1280  # pixels of a side, as the detector sees them: it never shrinks one
_OVERLAP = 160  # more than the height of any line that is no headline
_DOUBLED_UP_TO = 1280  # pixels: small print is found at twice its size (recall at 8-12 px), large films have no such
_AROUND = 24  # pixels: how far around a pixel its contrast is judged
LEGIBLE = 0.4  # of the recogniser: below, it saw no letters
SURELY = 0.8
_LARGE_PRINT = 16  # pixels of a box, whose letters are at least 10 px high: read well where there are any
_LEAST_SPREAD = 3.0  # grey levels: below lies noise
_STEEP = 40.0


class Box(NamedTuple):
    """Half-open ranges of rows and columns."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def moved(self, rows: int, columns: int) -> Box:
        """The box, further down and to the right."""
        return Box(self.top + rows, self.left + columns, self.bottom + rows, self.right + columns)


class Text(NamedTuple):
    """A piece of text; `said` may be wrong or empty, and is for no decision but whether it is a side marker."""

    box: Box
    said: str = ""
    confidence: float = 0.0


class Reader(Protocol):
    """Finds text in a picture."""

    def read(self, grey: Grey) -> list[Text]:
        """Every piece of text of a picture (rows, columns), 0 black to 255 white."""
        ...


@cache
def installed() -> Reader | None:
    """The reader of this installation, None without one. Raises ConfigError if system libraries are missing."""
    try:
        import rapidocr_onnxruntime  # noqa: F401
    except ModuleNotFoundError:
        return None
    except ImportError as exc:  # a library of the system that OpenCV is linked to
        raise ConfigError(INSTALL_LIBRARIES) from exc
    return RapidReader()


class RapidReader:
    """RapidOCR on one thread: studies are many, and each worker is one process."""

    def __init__(self) -> None:
        from rapidocr_onnxruntime import RapidOCR

        self._engine = RapidOCR(
            intra_op_num_threads=1, inter_op_num_threads=1, det_limit_type="min", det_limit_side_len=32
        )

    def read(self, grey: Grey) -> list[Text]:
        """Looks twice: closely, with contrast made alike everywhere, and from afar, as the picture is."""
        close, alike = 2 if max(grey.shape) <= _DOUBLED_UP_TO else 1, _local_contrast(grey)
        found = [*self._found(alike, close), *self._found(grey, close / 2)]
        small = [b for b in found if not is_large(b, grey.shape)]
        large = [b for b in found if is_large(b, grey.shape) and not any(_shared(b, s) for s in small)]
        texts = [self._said(grey, alike, box) for box in _merged([*small, *large])]
        return [t for t in texts if not _is_shade(t, grey.shape)]

    def _found(self, grey: Grey, times: float) -> Iterator[Box]:
        for top, bottom in _tiles(grey.shape[0], times):
            for left, right in _tiles(grey.shape[1], times):
                for box in self._in_tile(_resized(grey[top:bottom, left:right], times)):
                    yield _scaled(box, 1 / times).moved(top, left)

    def _in_tile(self, grey: Grey) -> list[Box]:
        corners, _ = self._engine.text_det(_colour(grey))
        if corners is None:
            return []
        return [_around(c) for c in corners]

    def _said(self, grey: Grey, alike: Grey, box: Box) -> Text:
        """What the better of both pictures says, upright or turned."""
        best = Text(box)
        for picture in (grey, alike):
            crop = picture[box.top : box.bottom, box.left : box.right]
            turned = [np.rot90(crop), np.rot90(crop, 3)] if box.height >= 1.5 * box.width else [crop]
            for said, confidence in self._engine.text_rec([_colour(c) for c in turned])[0]:
                if confidence > best.confidence:
                    best = Text(box, str(said), float(confidence))
            if best.confidence > LEGIBLE:
                break
        return best


def is_large(box: Box, shape: tuple[int, ...]) -> bool:
    """Whether a box is taller and wider than any line of text: more than 15 % of the picture."""
    return box.height > 0.15 * shape[0] and box.width > 0.15 * shape[1]


def _is_shade(text: Text, shape: tuple[int, ...]) -> bool:
    """Whether a blob or an edge was taken for text: too large to be illegible, and no line of letters."""
    box = text.box
    if is_large(box, shape):
        return text.confidence < SURELY or len(text.said) < 4
    if min(box.height, box.width) < _LARGE_PRINT or box.width >= 3 * box.height:
        return False
    return text.confidence < (SURELY if box.height > 0.08 * shape[0] else LEGIBLE)


def _tiles(length: int, times: float) -> Iterator[tuple[int, int]]:
    """Equal parts of a side, none above `_TILE` once enlarged, overlapping."""
    overlap = _OVERLAP / times
    count = max(1, math.ceil((length - overlap) / (_TILE / times - overlap)))
    size = math.ceil((length + (count - 1) * overlap) / count)
    for n in range(count):
        begin = (length - size) * n // max(count - 1, 1)
        yield begin, begin + size


def _local_contrast(grey: Grey) -> Grey:
    """How much each pixel differs from what is around it, in units of how much things differ there."""
    import cv2

    side = (2 * _AROUND + 1, 2 * _AROUND + 1)
    values = grey.astype(np.float32)
    mean = cv2.boxFilter(values, -1, side)
    variance = cv2.boxFilter(values * values, -1, side) - mean * mean
    spread = np.sqrt(np.maximum(variance, 0)) + _LEAST_SPREAD
    return np.asarray(np.clip(128 + _STEEP * (values - mean) / spread, 0, 255), np.uint8)


def _resized(grey: Grey, times: float) -> Grey:
    if times == 1:
        return grey
    import cv2

    how = cv2.INTER_CUBIC if times > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(grey, None, fx=times, fy=times, interpolation=how), np.uint8)


def _colour(grey: Grey) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)


def _around(corners: Any) -> Box:
    (left, top), (right, bottom) = np.floor(corners.min(axis=0)), np.ceil(corners.max(axis=0))
    return Box(int(top), int(left), int(bottom) + 1, int(right) + 1)


def _scaled(box: Box, times: float) -> Box:
    low, high = (int(np.floor(v * times)) for v in box[:2]), (int(np.ceil(v * times)) for v in box[2:])
    return Box(*low, *high)


def _merged(boxes: list[Box]) -> list[Box]:
    """Boxes of which none lies mostly within another."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda b: -b.height * b.width):
        if not any(_shared(box, other) > 0.8 * box.height * box.width for other in kept):
            kept.append(box)
    return kept


def _shared(one: Box, other: Box) -> int:
    rows = min(one.bottom, other.bottom) - max(one.top, other.top)
    columns = min(one.right, other.right) - max(one.left, other.left)
    return max(rows, 0) * max(columns, 0)
