"""The outline of a mask, as polygons along the edges of its pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_PIECES = 16  # a mask with more pieces is noise; the largest are among the first in practice
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # east, south, west, north: the next one is a turn to the right
_LEFT = ((-1, 0), (0, 0), (0, -1), (-1, -1))  # (row, column) of the pixel ahead to the left, from a vertex
_RIGHT = ((0, 0), (0, -1), (-1, -1), (-1, 0))


def outlines(mask: NDArray[np.bool_], tolerance: float = 1.0) -> list[NDArray[np.float64]]:
    """Closed polygons around the 4-connected pieces of a mask, the largest first; holes are not followed.

    Parameters
    ----------
    mask
        (rows, columns).
    tolerance
        How many pixels a polygon may stay away from the true edge.

    Returns
    -------
    Each (points, 2): x and y in image coordinates, the last point equal to the first.
    """
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not ys.size:
        return []
    top, left = int(ys[0]), int(xs[0])
    rest = np.pad(mask[top : ys[-1] + 1, left : xs[-1] + 1], 1)  # most of an image is not in the mask
    found: list[tuple[int, NDArray[np.float64]]] = []
    while rest.any() and len(found) < _PIECES:
        vertices = _follow(rest)
        piece = _inside(vertices, rest.shape)
        found.append((int(piece.sum()), _simplified(vertices + np.array([left - 1.0, top - 1.0]), tolerance)))
        rest &= ~piece
    return [polygon for _, polygon in sorted(found, key=lambda item: -item[0])]


def _follow(pixels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Walks once around the piece of the first true pixel, keeping it on the right."""
    start_y, start_x = np.unravel_index(int(np.argmax(pixels)), pixels.shape)
    x, y, heading = int(start_x), int(start_y), 0
    start = (x, y, heading)
    vertices = [(x, y)]
    while True:
        x, y = x + _STEPS[heading][0], y + _STEPS[heading][1]
        before = heading
        if not pixels[y + _RIGHT[heading][0], x + _RIGHT[heading][1]]:
            heading = (heading + 1) % 4
        elif pixels[y + _LEFT[heading][0], x + _LEFT[heading][1]]:
            heading = (heading - 1) % 4
        if heading != before:
            vertices.append((x, y))
        if (x, y, heading) == start:
            return np.asarray(vertices, np.int64)


def _inside(vertices: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels within an outline: along a row, each vertical edge changes inside to outside."""
    edges = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in pairwise(vertices):
        if x0 == x1:
            edges[min(y0, y1) : max(y0, y1), x0] ^= True
    return np.logical_xor.accumulate(edges, axis=1)


def _simplified(points: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Douglas and Peucker 1973, doi:10.3138/FM57-6770-U75U-7727; the ring is cut at its far point."""
    far = int(np.argmax(np.linalg.norm(points - points[0], axis=1)))
    keep = np.zeros(len(points), bool)
    keep[[0, far, -1]] = True
    spans = [(0, far), (far, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        distance = _distance(points[first + 1 : last], points[first], points[last])
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance:
            split = first + 1 + worst
            keep[split] = True
            spans += [(first, split), (split, last)]
    return points[keep]


def _distance(points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    along = end - start
    length = float(np.hypot(along[0], along[1])) or 1.0
    offset = points - start
    return np.asarray(np.abs(along[0] * offset[:, 1] - along[1] * offset[:, 0]) / length)
