"""Where a head, its brain and its face lie in a volume of cubes, by geometry alone: no atlas, no registration.

Arrays are (z, y, x): foot to head, front to back, right to left of the *patient* (LPS), whatever way he lay. So the
face is at low y. Lengths are voxels of `STEP_MM`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medgem_node.deid.surface import Mask, connected, distance, otsu, within

STEP_MM = 2.0
GUARD_MM = 10.0  # around the brain, never touched

_ABOVE_MM = 90.0  # below the top of the head the neurocranium is no wider than here
_RADIUS_MM = (52.0, 108.0)  # of the largest section, as a circle: a newborn's, and more than any head's
_SKIN_MM = 22.0  # how deep the face is taken off, at least
_ROUGH_MM = 8.0  # and by how much more, cell by cell
_CELL_MM = 8.0
_EAR_MM = 10.0
_GAP_MM = 5.0  # what is narrower, such as a nostril, counts as inside


class NoHead(ValueError):
    """The volume shows something, but no head that can be told; the message holds no identity."""


class TooLarge(NoHead):
    """What it shows at its top is a trunk."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A head in a volume.

    `centre` is the middle of the neurocranium and `radii` its half axes with the skin, both (z, y, x); `outside` is
    the air around, `inside` the head without headrest and noise, `brain` what is taken for brain, never too little.
    """

    outside: Mask
    inside: Mask
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    brain: Mask

    @classmethod
    def of(cls, volume: NDArray[np.float32], known: Mask, is_ct: bool) -> Head:
        """The head at the top of a volume, of which the part that was imaged is `known`. Raises NoHead."""
        outside = _outside(volume > air_below(volume, is_ct))
        inside = _largest(outside)
        centre, radii = _neurocranium(inside & known, known)
        return cls(outside, inside, centre, radii, _brain(volume, inside, centre, radii, is_ct))

    def guard(self) -> Mask:
        """The brain and its margin."""
        return within(self.brain, GUARD_MM / STEP_MM)

    def face(self, rng: np.random.Generator) -> Mask:
        """What is to be blanked: the skin of face and ears with all that lies before it, but nothing of the guard."""
        depth = distance(self.outside, int((_SKIN_MM + _ROUGH_MM) / STEP_MM))
        skin = depth <= _depths(self.outside.shape, rng)[:, None, :]
        ears = (depth <= _EAR_MM / STEP_MM) & _ears(self)
        mask: Mask = ((skin & _window(self)) | ears) & ~self.guard()
        return mask

    def background(self) -> Mask:
        """Air well away from the head, where ghosts and folded parts of it may lie."""
        background: Mask = self.outside & ~within(self.inside, 6.0 / STEP_MM)
        return background & ~self.guard()


def skull_share(volume: NDArray[np.float32], head: Head) -> float:
    """How much of the upper neurocranium bone covers, seen from above (CT)."""
    z, y, x = (_along(volume.shape, n) - head.centre[n] for n in range(3))
    bone = np.max(volume[z > 0], axis=0, initial=-1024.0) > 250
    roof = ((y / head.radii[1]) ** 2)[:, None] + ((x / head.radii[2]) ** 2)[None, :] < 0.8
    return float(bone[roof].mean())


def is_capped(head: Head) -> bool:
    """Whether it closes at its top as a head does, not a limb or a neck."""
    areas = head.inside.sum(axis=(1, 2))
    return float(areas[-1]) < 0.35 * float(areas.max())


def air_below(volume: NDArray[np.float32], is_ct: bool) -> float:
    """The value under which a voxel is air: -300 HU, and in MR half of what parts signal from none."""
    return -300.0 if is_ct else 0.5 * otsu(volume.ravel()[::7])


def depth_map(volume: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """How far from the front a ray runs to the first 4 mm of tissue, (z, x); infinite where it meets none."""
    tissue = volume > threshold
    tissue = tissue[:, :-1] & tissue[:, 1:]
    first: NDArray[np.float32] = np.where(tissue.any(axis=1), tissue.argmax(axis=1), np.inf).astype(np.float32)
    return first


def hull(depths: NDArray[np.float32]) -> NDArray[np.float32]:
    """A depth map without its pits: the nearest within 8 mm, so that no nostril or orbit counts as deep."""
    reach = int(8.0 / STEP_MM)
    for axis in (0, 1):
        padded = np.pad(depths, [(reach, reach) if n == axis else (0, 0) for n in (0, 1)], constant_values=np.inf)
        depths = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=axis).min(axis=-1)
    return depths


def facial_rays(head: Head) -> Mask:
    """The rays from the front, (z, x), that meet orbits, nose, mouth or chin if the head is not tilted."""
    z, x = _along(head.outside.shape, 0), _along(head.outside.shape, 2)
    r = _radius(head)
    rays: Mask = ((z > head.centre[0] - 1.5 * r) & (z < head.centre[0] - 0.45 * r))[:, None] & (
        np.abs(x - head.centre[2]) < 0.6 * r
    )[None, :]
    return rays


def _outside(tissue: Mask) -> Mask:
    """The air that reaches the sides of the volume without passing a gap of a nostril's width."""
    tissue = np.pad(tissue, ((0, 0), (4, 4), (4, 4)))
    reach = _GAP_MM / STEP_MM
    wide = ~within(tissue, reach)
    border = np.ones(tissue.shape, bool)
    border[:, 1:-1, 1:-1] = False
    outside = within(connected(border & wide, wide), reach) & ~tissue
    return np.ascontiguousarray(outside[:, 4:-4, 4:-4])


def _largest(outside: Mask) -> Mask:
    """The one thing of a head's thickness nearest to the middle, without headrest, table and noise."""
    core = ~within(_framed(outside), 8.0 / STEP_MM)[:, 1:-1, 1:-1]
    if not core.any():
        raise NoHead("nothing as thick as a head")
    top = np.flatnonzero(core.any(axis=(1, 2)))[-1]
    upper = core.copy()
    upper[: max(0, int(top - _ABOVE_MM / STEP_MM))] = False
    points = np.argwhere(upper)
    seed = np.zeros(core.shape, bool)
    seed[tuple(points[np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1))])] = True
    return within(connected(seed, core), 10.0 / STEP_MM) & ~outside


def _framed(outside: Mask) -> Mask:
    return np.pad(outside, ((0, 0), (1, 1), (1, 1)), constant_values=True)


def _neurocranium(inside: Mask, known: Mask) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Centre and half axes. The top may be cut off: how large the cut is tells how far below the centre lies."""
    areas = inside.sum(axis=(1, 2)).astype(np.float64)
    full = np.flatnonzero(areas > 12)
    if not len(full):
        raise NoHead("nothing as large as a head")
    top = int(full[-1])
    bottom = max(int(full[0]), int(top - _ABOVE_MM / STEP_MM))
    largest = float(np.convolve(np.pad(areas[bottom : top + 1], 2, mode="edge"), np.ones(5) / 5, "valid").max())
    radius = float(np.sqrt(largest / np.pi))
    if radius * STEP_MM > _RADIUS_MM[1]:
        raise TooLarge("its largest section is larger than a head's")
    if radius * STEP_MM < _RADIUS_MM[0]:
        raise NoHead("its largest section is smaller than a head's")
    height = 0.93 * radius
    cut = inside[bottom:] & ~np.pad(known, ((0, 1), (0, 0), (0, 0)))[bottom + 1 :]
    share = min(1.0, cut.sum() / largest)
    level = float((np.argwhere(cut)[:, 0] + bottom).mean()) if share > 0.02 else float(top)
    z = level - height * float(np.sqrt(1.0 - share))
    y, x, long, wide = _section(inside, z, radius)
    return (z, y, x), (height, long, wide)


def _section(inside: Mask, z: float, radius: float) -> tuple[float, float, float, float]:
    """Middle (y, x) and half lengths of the neurocranium around its widest level."""
    low, high = int(max(0, z - 0.05 * radius)), int(z + 0.35 * radius) + 1
    share = inside[low:high].mean(axis=0)
    rows, columns = (
        np.flatnonzero((share > 0.5).sum(axis=1) > 0.5 * radius),
        np.flatnonzero((share > 0.5).sum(axis=0) > 0.5 * radius),
    )
    if len(rows) < radius or len(columns) < radius:
        raise NoHead("its sections are not a head's")
    long, wide = (rows[-1] - rows[0] + 1) / 2, (columns[-1] - columns[0] + 1) / 2
    return float(rows.mean()), float(columns.mean()), float(long), float(wide)


def _brain(
    volume: NDArray[np.float32],
    inside: Mask,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    is_ct: bool,
) -> Mask:
    """The ellipsoid that a brain of this head fills, with what hangs together with its core behind bone or CSF."""
    core = _ellipsoid(inside.shape, centre, radii, -12.0)
    prior = _ellipsoid(inside.shape, centre, radii, 0.0)
    limit = _ellipsoid(inside.shape, centre, radii, 10.0 if is_ct else 8.0)
    if is_ct:
        soft = (volume > -60) & (volume < 180)
    else:
        usual = float(np.median(volume[core])) if core.any() else 0.0
        soft = (volume > 0.5 * usual) & (volume < 1.6 * usual)  # fat, as in the orbits, is brighter in most
    reach = 4.0 / STEP_MM
    deep = ~within(~(soft & inside), reach) & limit
    grown = within(connected(core & deep, deep), reach + 1) & limit
    brain: Mask = (prior | grown) & inside
    return brain


def _ellipsoid(
    shape: tuple[int, ...], centre: tuple[float, float, float], radii: tuple[float, float, float], more_mm: float
) -> Mask:
    """What the brain fills of the neurocranium, widened: below the centre it reaches less far in front than behind."""
    z, y, x = (_along(shape, n) - centre[n] for n in range(3))
    more = more_mm / STEP_MM
    up = radii[0] - 11.0 / STEP_MM + more
    down = 0.78 * radii[0] + more
    long = radii[1] - 13.0 / STEP_MM + more
    wide = radii[2] - 10.0 / STEP_MM + more
    above = np.where(z > 0, z / up, z / down)
    body: Mask = (above**2)[:, None, None] + ((y / long) ** 2)[None, :, None] + ((x / wide) ** 2)[None, None, :] <= 1
    return body


def _window(head: Head) -> Mask:
    """The part of space before the face: from above the brows to below the chin, before the ears."""
    shape = head.outside.shape
    z, y = _along(shape, 0) - head.centre[0], _along(shape, 1) - head.centre[1]
    r = _radius(head)
    front = -y - 0.15 * r
    below = z[:, None] < 0.45 * np.maximum(front, 0)[None, :]
    window = below & (front > 0)[None, :] & (z > -2.2 * r)[:, None]
    return np.broadcast_to(window[:, :, None], shape)


def _ears(head: Head) -> Mask:
    shape = head.outside.shape
    z, y, x = (_along(shape, n) - head.centre[n] for n in range(3))
    r = _radius(head)
    sides = np.abs(x) > 0.75 * head.radii[2]
    level = (z < 0.1 * r) & (z > -1.3 * r)
    along = (y > -0.2 * r) & (y < 0.55 * r)
    ears: Mask = level[:, None, None] & along[None, :, None] & sides[None, None, :]
    return ears


def _depths(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """How deep the face is taken off at (z, x), voxels: cell by cell another depth, so that nothing smooths it back."""
    cell = int(_CELL_MM / STEP_MM)
    cells = rng.uniform(_SKIN_MM, _SKIN_MM + _ROUGH_MM, (shape[0] // cell + 1, shape[2] // cell + 1)) / STEP_MM
    depths: NDArray[np.float32] = cells.astype(np.float32).repeat(cell, 0).repeat(cell, 1)[: shape[0], : shape[2]]
    return depths


def _radius(head: Head) -> float:
    return float(np.sqrt(head.radii[1] * head.radii[2]))


def _along(shape: tuple[int, ...], axis: int) -> NDArray[np.float32]:
    return np.arange(shape[axis], dtype=np.float32)
