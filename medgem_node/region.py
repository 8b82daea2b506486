"""Drawn shapes of reports, and how much two of them are the same place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

TOLERANCE = 1.0
"""Pixels (or millimetres in space) that a corner may be off: what a viewer's way through world coordinates costs."""

_PAIRS = 10**6


@dataclass(frozen=True, slots=True)
class Region:
    """A drawn shape. `place` is the SOP Instance UID of its image, or for three coordinates its Frame of Reference."""

    place: str
    frame: int
    graphic: str
    points: tuple[tuple[float, ...], ...]


def is_same(a: Region, b: Region) -> bool:
    """Whether every corner of one is a corner of the other, wherever the polygon begins."""
    if (a.place, a.frame, len(a.points[0])) != (b.place, b.frame, len(b.points[0])):
        return False
    curved = {"CIRCLE", "ELLIPSE"} & {a.graphic, b.graphic}
    if (curved and a.graphic != b.graphic) or len(a.points) * len(b.points) > _PAIRS:
        return False
    apart = np.linalg.norm(np.array(a.points)[:, None] - np.array(b.points)[None], axis=2)
    return bool(max(apart.min(axis=0).max(), apart.min(axis=1).max()) <= TOLERANCE)


def overlap(a: Region, b: Region) -> float | None:
    """Intersection over union of areas; of two lines how near their ends are. None: not to be compared."""
    if len(a.points[0]) != len(b.points[0]):
        return None  # one in the image, one in space
    if len(a.points[0]) == 2 and (a.place, a.frame) != (b.place, b.frame):
        return 0.0
    if a.place != b.place:
        return None
    planes = _in_plane(np.array(a.points), np.array(b.points)) if len(a.points[0]) == 3 else None
    if len(a.points[0]) == 3 and planes is None:
        return 0.0
    first, second = planes or (np.array(a.points), np.array(b.points))
    if len(first) == 2 and len(second) == 2 and "CIRCLE" not in (a.graphic, b.graphic):
        return _nearness(first, second)
    first, second = _polygon(first, a.graphic), _polygon(second, b.graphic)
    if len(first) < 3 or len(second) < 3:
        return None
    return _intersection_over_union(first, second)


def _in_plane(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Both in two coordinates of the plane of `a`; None when `b` lies in another."""
    centre = a.mean(axis=0)
    _, _, axes = np.linalg.svd(a - centre)
    if len(a) > 2 and np.abs((b - centre) @ axes[2]).max() > TOLERANCE:
        return None
    return (a - centre) @ axes[:2].T, (b - centre) @ axes[:2].T


def _nearness(a: NDArray[Any], b: NDArray[Any]) -> float:
    """1 for the same line, 0 when an end is a whole length away."""
    apart = min(np.linalg.norm(a - ends, axis=1).max() for ends in (b, b[::-1]))
    length = float(np.linalg.norm(a[0] - a[1]))
    return max(0.0, 1.0 - float(apart) / length) if length > 0 else 0.0


def _polygon(points: NDArray[Any], graphic: str) -> NDArray[Any]:
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
    if graphic == "CIRCLE" and len(points) == 2:
        radius = np.linalg.norm(points[1] - points[0])
        return np.asarray(points[0] + radius * np.hstack([np.cos(turn), np.sin(turn)]))
    if graphic == "ELLIPSE" and len(points) == 4:
        centre = points.mean(axis=0)
        return np.asarray(
            centre + np.cos(turn) * (points[1] - points[0]) / 2 + np.sin(turn) * (points[3] - points[2]) / 2
        )
    return points


def _intersection_over_union(a: NDArray[Any], b: NDArray[Any], cells: int = 512) -> float:
    low = np.minimum(a.min(axis=0), b.min(axis=0))
    extent = float((np.maximum(a.max(axis=0), b.max(axis=0)) - low).max())
    if extent <= 0:
        return 0.0
    first, second = (_filled((points - low) / extent * (cells - 1), cells) for points in (a, b))
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0


def _filled(points: NDArray[Any], cells: int) -> NDArray[np.bool_]:
    canvas = Image.new("1", (cells, cells))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in points], fill=1, outline=1)
    return np.asarray(canvas, bool)
