"""The pixels of one instance on their way into its copy: cut to size, looked at for text, faces blanked."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from medgem_node.deid import burned_in, pixels
from medgem_node.deid.layout import Broken, Syntax
from medgem_node.deid.options import Profile
from medgem_node.deid.pixels import Pixels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
_ALLOCATED, _STORED, _HIGH = 0x00280100, 0x00280101, 0x00280102
_OVERLAYS = range(0x60000000, 0x60200000, 0x20000)
NOTED = (
    burned_in.WANTED
    | {_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _ALLOCATED, _STORED, _HIGH}
    | {group | number for group in _OVERLAYS for number in (0x0102, 0x3000)}
)
"""Attributes of the top whose raw values are needed here."""


@dataclass(frozen=True, slots=True)
class Image:
    """The pixel element of an instance, and the raw values of NOTED."""

    pixels: Pixels
    values: Mapping[int, bytes]
    syntax: Syntax
    has_no_face: bool = False

    @classmethod
    def of(cls, body: bytes | mmap.mmap, at: int, values: Mapping[int, bytes], syntax: Syntax) -> Image | None:
        """Without bytes behind the last pixel, comments of code streams and bits of overlays. Raises Broken."""
        taken = pixels.take(body, at, syntax)
        if taken is None:
            return None
        numbers = _numbers(values, syntax)
        photometric = values.get(_PHOTOMETRIC, b"").decode("latin-1").strip("\0 ")
        taken = pixels.cut(taken, pixels.expected_bytes(numbers, photometric))
        taken = pixels.without_bits(taken, _overlay_bits(values, numbers, syntax), numbers[_ALLOCATED], syntax.little)
        return cls(pixels.without_comments(taken, numbers[_ROWS] * numbers[_COLUMNS]), values, syntax)

    def cleaned(
        self, profile: Profile, face_mask: NDArray[np.bool_] | None
    ) -> tuple[Image, Literal["not examined", "clean", "masked"]]:
        """Without text as far as the profile asks, and without a face. Raises CannotDeidentify."""
        looked = burned_in.examined(self.pixels, self.values, self.syntax, profile)
        clean, has_no_face = looked.pixels, False
        if face_mask is not None and face_mask.any():
            from medgem_node.deid import masking

            clean = masking.blanked(clean, self.values, self.syntax, face_mask)
            has_no_face = True
        return replace(self, pixels=clean, has_no_face=has_no_face), looked.said


def _numbers(values: Mapping[int, bytes], syntax: Syntax) -> dict[int, int]:
    tags = (_SAMPLES, _ROWS, _COLUMNS, _ALLOCATED, _STORED, _HIGH)
    found = {tag: syntax.number(values[tag]) for tag in tags if values.get(tag)}
    found[_FRAMES] = int(values.get(_FRAMES, b"").split(b"\\")[0].strip(b" \0") or b"1")
    return found


def _overlay_bits(values: Mapping[int, bytes], numbers: Mapping[int, int], syntax: Syntax) -> int:
    """The bits beside the stored ones that an overlay without data of its own claims."""
    mask = 0
    for group in _OVERLAYS:
        position = values.get(group | 0x0102)
        if position is None or group | 0x3000 in values:
            continue
        if len(position) != 2:
            raise Broken("an overlay's bit position is no number")
        mask |= 1 << min(syntax.number(position), 63)
    if not mask:
        return 0
    high = numbers.get(_HIGH, numbers[_ALLOCATED] - 1)
    stored = numbers.get(_STORED, high + 1)
    return mask & ~(((1 << stored) - 1) << max(high + 1 - stored, 0))
