"""A series as one volume of cubes in the patient's own directions, and a mask of it back onto the images' pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medgem_node.deid.head import STEP_MM
from medgem_node.deid.surface import Mask, otsu
from medgem_node.errors import CannotDeidentify
from medgem_node.frame import decoded_frame
from medgem_node.geometry import Plane, frames, functional_group, plane
from medgem_node.header import text_of

AIR = -1024.0  # HU

_SIDE_MM, _FRONT_MM, _HIGH_MM = 130.0, 160.0, 290.0  # of a head with its neck, around the middle and below the top
_GAP_MM = 15.0
_ALIKE = 1e-3
_SAME_PLACE_MM = 0.05
_MOST_CUBES = 40_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """One frame: its place and size, and its values as means of `blocks` of pixels (rows, columns)."""

    uid: str
    place: Plane
    size: tuple[int, int]
    blocks: tuple[int, int]
    values: NDArray[np.float32]

    @classmethod
    def all_of(cls, image: Dataset, is_ct: bool) -> list[Slice]:
        """Every frame of an image. Raises CannotDeidentify without a place in space, Unreadable without pixels."""
        if image.SamplesPerPixel != 1 or image.PhotometricInterpretation != "MONOCHROME2":
            raise CannotDeidentify("an image of the series is no plain slice, which may show a face")
        found = []
        for number in range(1, frames(image) + 1):
            place = plane(image, number)
            if place is None:
                raise CannotDeidentify("an image that may show a face has no place in space")
            values = decoded_frame(image, number)
            slope, intercept = _rescale(image, number) if is_ct else (1.0, 0.0)
            blocks = _blocks(place)
            means = _means(values, blocks) * np.float32(slope) + np.float32(intercept)
            size = (int(values.shape[0]), int(values.shape[1]))
            found.append(cls(str(image.SOPInstanceUID), place, size, blocks, means))
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Cubes:
    """Values at (z, y, x), foot to head, front to back, right to left; `origin` is the first centre (x, y, z), mm.

    What was not imaged is air, and not `known`.
    """

    values: NDArray[np.float32]
    known: Mask
    origin: NDArray[np.float64]

    @classmethod
    def of(cls, slices: Sequence[Slice], is_ct: bool) -> Cubes:
        """The head end of a series. Raises CannotDeidentify if its frames make no volume."""
        stack = _stack(slices)
        values = np.stack([s.values for s in stack])
        if is_ct:
            np.clip(values, AIR, 3071.0, out=values)
        return _resampled(stack, values, AIR if is_ct else 0.0, -300.0 if is_ct else 0.5 * otsu(values.ravel()[::13]))

    def onto(self, mask: Mask, place: Plane, size: tuple[int, int]) -> Mask:
        """A mask of the cubes as pixels; beyond the cubes the nearest decides."""
        rows, columns = np.arange(size[0]), np.arange(size[1])
        down = np.outer(rows * place.spacing_mm[0], place.down)
        across = np.outer(columns * place.spacing_mm[1], place.across)
        start = (np.asarray(place.position_mm) - self.origin) / STEP_MM
        index = []
        for axis, length in ((2, mask.shape[0]), (1, mask.shape[1]), (0, mask.shape[2])):
            a, b = start[axis] + down[:, axis] / STEP_MM, across[:, axis] / STEP_MM
            places = (
                a[:, None] if np.ptp(b) < 0.05 else b[None, :] + a[:1, None] if np.ptp(a) < 0.05 else a[:, None] + b
            )
            index.append(np.clip(np.rint(places).astype(np.intp), 0, length - 1))
        found: Mask = np.broadcast_to(mask[index[0], index[1], index[2]], size)
        return found


def extent_mm(slices: Sequence[Slice]) -> tuple[float, int]:
    """How thick the stack is, and which axis of the patient (x, y, z: 0, 1, 2) it is stacked along."""
    normal = slices[0].place.normal
    depths = _depths(slices, normal)
    return float(np.ptp(depths)), int(np.argmax(np.abs(normal)))


def _rescale(image: Dataset, frame: int) -> tuple[float, float]:
    """Rescale Slope and Intercept of a frame. Raises CannotDeidentify without them."""
    group = functional_group(image, "PixelValueTransformationSequence", frame)
    for holder in (group, image):
        try:
            slope, intercept = float(text_of(holder, "RescaleSlope")), float(text_of(holder, "RescaleIntercept"))
        except ValueError:
            continue
        if slope > 0:
            return slope, intercept
    raise CannotDeidentify("a CT image that may show a face has no Hounsfield units")


def _blocks(place: Plane) -> tuple[int, int]:
    rows, columns = (max(1, int(STEP_MM / s + 0.1)) for s in place.spacing_mm)
    return rows, columns


def _means(values: NDArray[np.generic], blocks: tuple[int, int]) -> NDArray[np.float32]:
    b, c = blocks
    rows, columns = (values.shape[0] + b - 1) // b * b, (values.shape[1] + c - 1) // c * c
    padded = np.pad(values, ((0, rows - values.shape[0]), (0, columns - values.shape[1])), mode="edge")
    means: NDArray[np.float32] = padded.reshape(rows // b, b, columns // c, c).mean(axis=(1, 3), dtype=np.float32)
    return means


def _stack(slices: Sequence[Slice]) -> list[Slice]:
    """One slice for each place, in order. Phases, echoes and directions share their place, and so their mask."""
    first = slices[0]
    for one in slices:
        a, b = ((*s.place.across, *s.place.down, *s.place.spacing_mm) for s in (one, first))
        if one.size != first.size or not np.allclose(a, b, rtol=0, atol=_ALIKE):
            raise CannotDeidentify("slices that may show a face differ in direction, size or spacing")
    depths = _depths(slices, first.place.normal)
    order = np.argsort(depths, kind="stable").tolist()
    kept = [order[0]]
    for n in order[1:]:
        if depths[n] - depths[kept[-1]] > _SAME_PLACE_MM:
            kept.append(n)
    if len(kept) < 2 or np.diff(depths[kept]).max() > _GAP_MM:
        raise CannotDeidentify("slices of a head are too far apart or missing")
    return [slices[n] for n in kept]


def _depths(slices: Sequence[Slice], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    depths: NDArray[np.float64] = np.array([s.place.position_mm for s in slices]) @ normal
    return depths


def _resampled(stack: Sequence[Slice], values: NDArray[np.float32], air: float, threshold: float) -> Cubes:
    place, (rows, columns) = stack[0].place, stack[0].blocks
    down = np.multiply(place.down, place.spacing_mm[0] * rows)  # from block to block
    across = np.multiply(place.across, place.spacing_mm[1] * columns)
    half = (rows - 1) / 2 * np.multiply(place.down, place.spacing_mm[0])
    half += (columns - 1) / 2 * np.multiply(place.across, place.spacing_mm[1])
    positions = np.array([s.place.position_mm for s in stack]) + half
    low, high = _box(positions, down, across, values, threshold)
    counts = ((high - low) / STEP_MM).astype(int) + 1
    if int(np.prod(counts)) > _MOST_CUBES or counts.min() < 8:
        raise CannotDeidentify("the slices span no volume of a head's size")
    axes = [low[n] + STEP_MM * np.arange(counts[n]) for n in range(3)]
    cubes, known = _sampled(axes, positions, down, across, values, air)
    return Cubes(cubes, known, low)


def _box(
    positions: NDArray[np.float64],
    down: NDArray[np.float64],
    across: NDArray[np.float64],
    values: NDArray[np.float32],
    threshold: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is looked at, (x, y, z) from and to: around the middle of the tissue at the head end."""
    corners = [r * (values.shape[1] - 1) * down + c * (values.shape[2] - 1) * across for r in (0, 1) for c in (0, 1)]
    ends = np.concatenate([positions + corner for corner in corners])
    low, high = ends.min(axis=0), ends.max(axis=0)
    points = np.argwhere(values[:, ::4, ::4] > threshold)
    if not len(points):
        raise CannotDeidentify("an empty series that is said to show a head")
    places = positions[points[:, 0]] + 4.0 * (points[:, 1:2] * down + points[:, 2:] * across)
    middle = np.median(places[places[:, 2] > places[:, 2].max() - 150.0], axis=0)
    reach = np.array([_SIDE_MM, _FRONT_MM])
    low[:2], high[:2] = np.maximum(low[:2], middle[:2] - reach), np.minimum(high[:2], middle[:2] + reach)
    low[2] = max(low[2], high[2] - _HIGH_MM)
    return low, high


def _sampled(
    axes: Sequence[NDArray[np.float64]],
    positions: NDArray[np.float64],
    down: NDArray[np.float64],
    across: NDArray[np.float64],
    values: NDArray[np.float32],
    air: float,
) -> tuple[NDArray[np.float32], Mask]:
    """Level by level: linear between slices, however they are shifted (a gantry tilt), nearest within."""
    normal = np.cross(down, across)
    normal /= np.linalg.norm(normal)
    depths = positions @ normal
    if depths[-1] < depths[0]:
        normal, depths = -normal, -depths
    x, y, heights = axes
    cubes = np.full((len(heights), len(y), len(x)), air, np.float32)
    known = np.zeros(cubes.shape, bool)
    numbers = np.arange(len(depths), dtype=np.float64)
    directions = (normal, down / (down @ down), across / (across @ across))
    level_parts = [x[None, :] * d[0] + y[:, None] * d[1] for d in directions]
    starts = [positions @ d for d in directions]
    for level, z in enumerate(heights):
        depth, row, column = (part + z * d[2] for part, d in zip(level_parts, directions, strict=True))
        inside = (depth >= depths[0] - 0.6 * STEP_MM) & (depth <= depths[-1] + 0.6 * STEP_MM)
        number = np.interp(depth, depths, numbers)
        r = np.rint(row - np.interp(number, numbers, starts[1])).astype(np.intp)
        c = np.rint(column - np.interp(number, numbers, starts[2])).astype(np.intp)
        inside &= (r >= 0) & (r < values.shape[1]) & (c >= 0) & (c < values.shape[2])
        k = np.minimum(number.astype(np.intp), len(depths) - 2)[inside]
        part = (number[inside] - k).astype(np.float32)
        r, c = r[inside], c[inside]
        cubes[level][inside] = values[k, r, c] * (1 - part) + values[k + 1, r, c] * part
        known[level] = inside
    return cubes, known
