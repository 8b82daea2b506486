"""Where the pixels of an image lie: sizes and spacings of any image, and for volumes the place of a frame in space.

Points are image coordinates of PS3.3 C.18.6: (0.0, 0.0) is the top left corner of the image, x along a row, y along a
column. Image Position (Patient) is the *centre* of the first pixel (PS3.3 C.7.6.2.1.1), so it is the point (0.5, 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medgem_node.header import text_of

_MOST_FRAMES = 20_000  # of an image without functional groups; what says more is not believed


@dataclass(frozen=True, slots=True)
class Plane:
    """One frame in space. Lengths are mm, directions unit vectors, all in LPS.

    `across` points along a row (towards higher columns), `down` along a column.
    """

    position_mm: tuple[float, float, float]
    across: tuple[float, float, float]
    down: tuple[float, float, float]
    spacing_mm: tuple[float, float]  # between rows, between columns

    @property
    def normal(self) -> NDArray[np.float64]:
        """Perpendicular to the frame, across x down."""
        normal: NDArray[np.float64] = np.cross(self.across, self.down)
        return normal

    def to_patient(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 2) image coordinates as (n, 3) positions, mm in LPS."""
        rows_mm, columns_mm = self.spacing_mm
        centred = np.asarray(points, np.float64) - 0.5
        positions: NDArray[np.float64] = np.asarray(self.position_mm) + centred @ [
            np.multiply(self.across, columns_mm),
            np.multiply(self.down, rows_mm),
        ]
        return positions

    def to_image(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 3) positions projected onto the frame, as (n, 2) image coordinates."""
        rows_mm, columns_mm = self.spacing_mm
        offset = np.asarray(positions, np.float64) - np.asarray(self.position_mm)
        return np.column_stack(
            [offset @ np.asarray(self.across) / columns_mm + 0.5, offset @ np.asarray(self.down) / rows_mm + 0.5]
        )


def size(original: Dataset) -> tuple[int, int]:
    """Rows and columns; (0, 0) where there is no image."""
    try:
        return max(0, int(original.get("Rows") or 0)), max(0, int(original.get("Columns") or 0))
    except (TypeError, ValueError):
        return 0, 0


def frames(original: Dataset) -> int:
    """How many frames the image has: what it says, but no more than it can hold."""
    try:
        count = int(original.get("NumberOfFrames") or 1)
    except (TypeError, ValueError, OverflowError):
        return 1
    return max(1, min(count, _most_frames(original))) if count > 1 else 1


def _most_frames(original: Dataset) -> int:
    groups = original.get("PerFrameFunctionalGroupsSequence")
    if groups:
        return len(groups)
    pixels = original.get("PixelData")
    rows, columns = size(original)
    return min(_MOST_FRAMES, len(pixels) * 8 // max(1, rows * columns)) if isinstance(pixels, bytes) else _MOST_FRAMES


def spacing_mm(original: Dataset, frame: int = 1) -> tuple[float, float] | None:
    """Between rows and between columns, by Pixel Spacing or else at the detector; None if unknown or not positive."""
    measures = functional_group(original, "PixelMeasuresSequence", frame)
    for holder, keyword in ((measures, "PixelSpacing"), (original, "PixelSpacing"), (original, "ImagerPixelSpacing")):
        try:
            rows, columns = (
                float(part) for part in text_of(holder, keyword).strip("[]").replace(",", "\\").split("\\")
            )
        except ValueError:
            continue
        if 0 < rows < 100 and 0 < columns < 100:
            return rows, columns
    return None


def plane(original: Dataset, frame: int = 1) -> Plane | None:
    """Where a frame lies, by its own attributes or its functional groups; None if it has no place, as a radiograph."""
    place = functional_group(original, "PlanePositionSequence", frame)
    turn = functional_group(original, "PlaneOrientationSequence", frame)
    try:
        position = [float(v) for v in (place if "ImagePositionPatient" in place else original).ImagePositionPatient]
        orientation = [
            float(v) for v in (turn if "ImageOrientationPatient" in turn else original).ImageOrientationPatient
        ]
    except (AttributeError, TypeError, ValueError):
        return None
    spacing = spacing_mm(original, frame)
    if len(position) != 3 or len(orientation) != 6 or spacing is None:
        return None
    across, down = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    lengths = float(np.linalg.norm(across)), float(np.linalg.norm(down))
    if not all(0.9 < length < 1.1 for length in lengths) or abs(float(across @ down)) > 0.01:
        return None
    return Plane(_triple(position), _triple(across / lengths[0]), _triple(down / lengths[1]), spacing)


def are_pixels_square(original: Dataset) -> bool:
    """False if any frame that has a place in space has rows and columns that are not equally far apart."""
    places = (plane(original, frame) for frame in range(1, frames(original) + 1))
    return all(place is None or math.isclose(*place.spacing_mm, rel_tol=1e-3) for place in places)


def is_projection(original: Dataset) -> bool:
    """Whether it has no position in space of its own, as a radiograph."""
    return plane(original) is None


def functional_group(original: Dataset, keyword: str, frame: int) -> Dataset:
    """A functional group of an enhanced image (PS3.3 C.7.6.16): the frame's own, else the shared one; else empty."""
    of_frames = original.get("PerFrameFunctionalGroupsSequence") or []
    shared = original.get("SharedFunctionalGroupsSequence") or []
    own = of_frames[frame - 1 : frame] if len(of_frames) >= frame else []
    for group in (*own, *shared[:1]):
        if group.get(keyword):
            return group[keyword].value[0]  # type: ignore[no-any-return]
    return Dataset()


def _triple(values: object) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)  # type: ignore[attr-defined]
    return x, y, z
