"""Shapes in a volume of cubes: what lies how near, what hangs together. By numpy alone, in bounded time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def within(shape: Mask, voxels: float) -> Mask:
    """Everything no farther from `shape` than so many voxels, itself included; Euclidean, at most 100 voxels."""
    reach = int(voxels)
    assert 0 <= reach <= 100, "squares are held in 16 bits"
    far = np.int16(20_000)
    squared = np.where(shape, np.int16(0), far)
    for axis in range(shape.ndim):
        squared = _nearest_along(squared, axis, reach)
    near: Mask = squared <= voxels * voxels
    return near


def distance(shape: Mask, most: int) -> NDArray[np.float32]:
    """How far each voxel lies from `shape`, in voxels; farther than `most` is infinite."""
    squared = np.where(shape, np.int16(0), np.int16(20_000))
    for axis in range(shape.ndim):
        squared = _nearest_along(squared, axis, most)
    length: NDArray[np.float32] = np.sqrt(squared.astype(np.float32))
    length[length > most] = np.inf
    return length


def connected(seed: Mask, allowed: Mask) -> Mask:
    """What of `allowed` is reached from `seed` through faces of voxels.

    Whole runs are filled along one axis after the other, so a few rounds are enough where no labyrinth is.
    """
    runs = [_runs(allowed, axis) for axis in range(allowed.ndim)]
    reached = seed & allowed
    before = -1
    while (count := int(reached.sum())) != before:
        before = count
        for axis, numbers in enumerate(runs):
            turned = np.moveaxis(reached, axis, -1)
            hit = np.zeros(int(numbers.max(initial=0)) + 1, bool)
            hit[numbers[turned]] = True
            hit[0] = False  # what is not allowed
            reached = np.moveaxis(hit[numbers], -1, axis)
    return np.ascontiguousarray(reached)


def otsu(values: NDArray[np.float32]) -> float:
    """The threshold that parts the values best into two classes (Otsu 1979, doi:10.1109/TSMC.1979.4310076)."""
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.0)))
    if not high > low:
        return high
    counts, edges = np.histogram(values, 128, (low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts, dtype=np.float64)
    sums = np.cumsum(counts * middles)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(middles[int(np.nanargmax(between[:-1]))])


def _runs(allowed: Mask, axis: int) -> NDArray[np.int32]:
    """Each run of True along the axis (moved to the end) by its number from 1; 0 elsewhere."""
    turned = np.ascontiguousarray(np.moveaxis(allowed, axis, -1))
    starts = turned.copy()
    starts[..., 1:] &= ~turned[..., :-1]
    numbers = np.cumsum(starts, dtype=np.int32).reshape(turned.shape)
    numbers *= turned
    return numbers


def _nearest_along(squared: NDArray[np.int16], axis: int, reach: int) -> NDArray[np.int16]:
    turned = np.moveaxis(squared, axis, 0)
    nearest = squared.copy()
    aim, buffer = np.moveaxis(nearest, axis, 0), np.moveaxis(np.empty_like(squared), axis, 0)
    for step in range(1, min(reach, len(turned) - 1) + 1):
        farther = np.add(turned, np.int16(step * step), out=buffer)
        np.minimum(aim[step:], farther[:-step], out=aim[step:])
        np.minimum(aim[:-step], farther[step:], out=aim[:-step])
    return nearest
