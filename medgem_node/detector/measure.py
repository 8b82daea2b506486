"""The cardiothoracic ratio, widths and areas, measured on masks.

Coordinates are image coordinates (PS3.3 C.18.6): the left edge of column 0 is x = 0, so a structure that covers the
columns 3 to 5 is three pixels wide, from x = 3 to x = 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgem_node.finding import Box, Point

Line = tuple[Point, Point]
"""Its end at the image's left (the patient's right) first."""


@dataclass(frozen=True, slots=True)
class ChestLines:
    """Where the two widths of the cardiothoracic ratio are taken.

    The heart's borders lie at different levels as a rule: the width is the horizontal distance between them, the sum
    of the greatest distances to either side of any vertical line (Danzer 1919). The thorax's lie at one level.
    """

    cardiac: Line
    thoracic: Line

    @property
    def ratio(self) -> float:
        """Cardiac by thoracic width; free of the pixel spacing, as both are horizontal."""
        return width(self.cardiac) / width(self.thoracic)

    @property
    def points(self) -> tuple[Point, Point, Point, Point]:
        """The heart's right and left border, the thorax's right and left border, each as the patient's."""
        return *self.cardiac, *self.thoracic


def chest_lines(right: NDArray[np.bool_], left: NDArray[np.bool_], heart: NDArray[np.bool_]) -> ChestLines | None:
    """The lines on masks of (rows, columns), `right` being the patient's right lung; None where one cannot be drawn."""
    cardiac, thoracic = cardiac_line(heart), thoracic_line(right, left)
    return ChestLines(cardiac, thoracic) if cardiac and thoracic else None


def cardiac_line(heart: NDArray[np.bool_]) -> Line | None:
    """From the heart's border at the image's left to its border at the image's right; None if there is no heart.

    Drawn at one level, the middle of the two: a viewer that measures the line again must find the same width.
    """
    columns = np.flatnonzero(heart.any(axis=0))
    if not columns.size:
        return None
    first, last = int(columns[0]), int(columns[-1])
    y = (_middle(heart[:, first]) + _middle(heart[:, last])) / 2
    return Point(float(first), y), Point(float(last + 1), y)


def thoracic_line(right: NDArray[np.bool_], left: NDArray[np.bool_]) -> Line | None:
    """The widest level that shows both lungs, from one outer lung border to the other; None if there is none.

    The outer border of a lung is the inner border of the ribs. Of equally wide levels the middle one counts.
    """
    rows = np.flatnonzero(right.any(axis=1) & left.any(axis=1))
    if not rows.size:
        return None
    lungs = right[rows] | left[rows]
    first = lungs.argmax(axis=1)
    end = lungs.shape[1] - lungs[:, ::-1].argmax(axis=1)
    widest = np.flatnonzero(end - first == (end - first).max())
    n = int(widest[widest.size // 2])
    y = float(rows[n]) + 0.5
    return Point(float(first[n]), y), Point(float(end[n]), y)


def width(line: Line, spacing_mm: float = 1.0) -> float:
    """The horizontal distance, in pixels, or in mm with the spacing of the columns."""
    return (line[1].x - line[0].x) * spacing_mm


def area(mask: NDArray[np.bool_], spacing_mm: tuple[float, float] = (1.0, 1.0)) -> float:
    """In pixels, or in mm2 with the spacing (between rows, between columns)."""
    return float(np.count_nonzero(mask)) * spacing_mm[0] * spacing_mm[1]


def bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """Around every pixel of `mask`; None if there is none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return Box(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest 4-connected part of `mask` (rows, columns), the first of equals; empty if `mask` is."""
    parts = connected_parts(mask)
    return max(parts, key=np.count_nonzero) if parts else np.zeros_like(mask)


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """`mask` (rows, columns) with its holes: all that no way along unmarked pixels joins to the image's edge."""
    around, *_ = connected_parts(np.pad(~mask, 1, constant_values=True))
    return ~around[1:-1, 1:-1]


def connected_parts(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The 4-connected parts, in the order of their first row; runs of a row are joined to those of the row above."""
    root: list[int] = []
    runs: list[tuple[int, int, int]] = []  # row, first column, end column
    above: list[int] = []
    padded = np.pad(np.asarray(mask, bool), ((0, 0), (1, 1)))
    rows, edges = np.nonzero(padded[:, 1:] != padded[:, :-1])  # each run's first column and the one after its last
    ends = np.searchsorted(rows, np.arange(mask.shape[0] + 1)).tolist()
    columns = edges.tolist()
    for row in range(mask.shape[0]):
        here = []
        of_row = columns[ends[row] : ends[row + 1]]
        for first, end in zip(of_row[::2], of_row[1::2], strict=True):
            run = len(runs)
            runs.append((row, first, end))
            root.append(run)
            here.append(run)
            for other in above:
                if runs[other][1] < end and first < runs[other][2]:
                    a, b = sorted((_root(root, other), _root(root, run)))
                    root[b] = a
        above = here
    parts: dict[int, NDArray[np.bool_]] = {}
    for run, (row, first, end) in enumerate(runs):
        parts.setdefault(_root(root, run), np.zeros_like(mask))[row, first:end] = True
    return list(parts.values())


def _root(root: list[int], run: int) -> int:
    while root[run] != run:
        root[run] = root[root[run]]
        run = root[run]
    return run


def _middle(line: NDArray[np.bool_]) -> float:
    """The middle of the marked pixels."""
    return float(np.flatnonzero(line).mean()) + 0.5
