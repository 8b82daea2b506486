"""Which frames of the analysed images lie over one another, so that one object can speak of them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.valuerep import DSfloat

from medgem_node import evidence as ev
from medgem_node.geometry import Plane, frames, functional_group, plane, size, spacing_mm
from medgem_node.header import text_of

_ALIKE = 1e-3  # of direction cosines and mm: what formatting in a header leaves open
_NEAR_MM = 1e-2  # slices that are closer are the same place at another time


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """One frame of one image, and where it lies."""

    image: Dataset
    frame: int
    place: Plane

    @property
    def name(self) -> tuple[str, int]:
        """How masks and heatmaps name it."""
        return str(self.image.SOPInstanceUID), self.frame


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """Parallel slices of one series and one size, no two at one place, in their order in space.

    `first` is the one that came first in the analysis: it numbers the volume. `is_placed` is False for a radiograph,
    whose place in space is invented: x runs along the rows, y along the columns, from the first pixel, and 1 mm a
    pixel where the spacing is unknown. Without one, neither OHIF nor dcmqi nor highdicom shows a segmentation of it.
    """

    slices: tuple[Slice, ...]
    first: Slice
    is_placed: bool

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return size(self.first.image)

    def role(self, analysed: Sequence[str]) -> str:
        """What tells the volume from the others in the roles of UIDs: its first image's number, from 1."""
        n = analysed.index(str(self.first.image.SOPInstanceUID)) + 1
        return str(n) if self.first.frame == 1 else f"{n}-{self.first.frame}"

    @property
    def step_mm(self) -> float | None:
        """Between slices; None if they are not evenly spaced, or there is one only."""
        steps = np.diff(_depths(self.slices))
        even = len(steps) > 0 and np.allclose(steps, steps.mean(), rtol=0.01, atol=0)
        return float(steps.mean()) if even else None

    def header(self, frame_of_reference_uid: str) -> Dataset:
        """A stand-in for its first slice in space, as a single-frame image; the UID is used where it has none."""
        image, place = self.slices[0].image, self.slices[0].place
        header = ev.stand_in(image)
        own = text_of(image, "FrameOfReferenceUID") if self.is_placed else ""
        header.FrameOfReferenceUID = own or frame_of_reference_uid
        header.PositionReferenceIndicator = ""
        header.PixelSpacing = [decimal(v) for v in place.spacing_mm]
        header.ImageOrientationPatient = [decimal(v) for v in (*place.across, *place.down)]
        header.ImagePositionPatient = [decimal(v) for v in place.position_mm]
        header.SliceThickness = decimal(self._thickness_mm())
        return header

    def _thickness_mm(self) -> float:
        measures = functional_group(self.first.image, "PixelMeasuresSequence", self.first.frame)
        for holder in (measures, self.first.image) if self.is_placed else ():
            try:
                found = float(text_of(holder, "SliceThickness"))
            except ValueError:
                continue
            if 0 < found < 1000:
                return found
        return self.step_mm or 1.0


def volumes(images: Iterable[Dataset]) -> tuple[Volume, ...]:
    """Every frame of the images, each in one volume; in the order in which they come first."""
    groups: list[tuple[str, list[Slice], bool]] = []
    for image in images:
        found, is_placed = _slices(image)
        series = f"{image.SeriesInstanceUID} {text_of(image, 'FrameOfReferenceUID')} {size(image)}"
        key = f"{series} {'' if is_placed else image.SOPInstanceUID}"
        for one in found:
            group = next((g for k, g, _ in groups if k == key and _fits(one, g[0])), None)
            if group is None:
                groups.append((key, [one], is_placed))
            else:
                group.append(one)
    return tuple(volume for _, group, is_placed in groups for volume in _volumes(group, is_placed))


def decimal(value: float) -> DSfloat:
    """A number in the 16 characters of a Decimal String."""
    return DSfloat(value + 0.0, auto_format=True)  # -0.0 is 0.0


def _slices(image: Dataset) -> tuple[list[Slice], bool]:
    numbers = range(1, frames(image) + 1)
    places = [plane(image, n) for n in numbers]
    found = [Slice(image, n, place) for n, place in zip(numbers, places, strict=True) if place is not None]
    if len(found) == len(places):
        return found, True
    invented = Plane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), spacing_mm(image) or (1.0, 1.0))
    return [Slice(image, n, replace(invented, position_mm=(0.0, 0.0, n - 1.0))) for n in numbers], False


def _fits(one: Slice, other: Slice) -> bool:
    a, b = ((*s.place.across, *s.place.down, *s.place.spacing_mm) for s in (one, other))
    return bool(np.allclose(a, b, rtol=0, atol=_ALIKE))


def _depths(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """How far each lies along the normal of the first, mm."""
    positions = np.array([s.place.position_mm for s in slices])
    depths: NDArray[np.float64] = positions @ slices[0].place.normal
    return depths


def _volumes(group: list[Slice], is_placed: bool) -> Iterator[Volume]:
    """The n-th slice at a place goes into the n-th volume: phases and echoes are volumes of their own."""
    depths = _depths(group)
    phases: list[list[int]] = []
    times, last = 0, -np.inf
    for n in np.argsort(depths, kind="stable").tolist():  # at one place in the analysis' order
        times = times + 1 if depths[n] - last < _NEAR_MM else 0
        last = depths[n]
        if times == len(phases):
            phases.append([])
        phases[times].append(n)
    for phase in phases:
        yield Volume(tuple(group[n] for n in phase), group[min(phase)], is_placed)
