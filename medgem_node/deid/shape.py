"""How an image lies in its pixel element (PS3.3 C.7.6.3, PS3.5 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from medgem_node.deid.layout import Broken, Syntax

UNFIT = (ValueError, TypeError, IndexError, OverflowError, MemoryError, ArithmeticError)
"""What numpy raises for pixels that do not fit their header."""

_NUMBERS = (0x00280002, 0x00280006, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)
TAGS = frozenset({*_NUMBERS, 0x00280004, 0x00280008})


@dataclass(frozen=True, slots=True)
class Shape:
    """Size, kind and meaning of the samples of every frame."""

    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    stored: int
    is_signed: bool
    photometric: str
    is_planar: bool

    @classmethod
    def of(cls, values: Mapping[int, bytes], syntax: Syntax) -> Shape:
        """From raw values. Raises Broken for an image that does not say."""
        samples, planar, rows, columns, allocated, stored, _, signed = (
            syntax.number(values.get(tag, b"")) for tag in _NUMBERS
        )
        frames = bytes(values.get(0x00280008, b"")).split(b"\\")[0].strip(b" \0") or b"1"
        if not (rows and columns and allocated and frames.isdigit() and len(frames) <= 12):
            raise Broken("an image without a size")
        photometric = bytes(values.get(0x00280004, b"")).decode("latin-1").strip(" \0")
        samples, stored = samples or 1, stored or allocated
        is_planar = bool(planar) and samples > 1
        return cls(rows, columns, samples, max(int(frames), 1), allocated, stored, bool(signed), photometric, is_planar)

    @property
    def is_halved(self) -> bool:
        """Native pixels of which two share their colour: Y Y Cb Cr."""
        return self.photometric == "YBR_FULL_422"

    def frame_bytes(self) -> int:
        """Of a native frame that begins at a whole byte."""
        return self.rows * self.columns * (2 if self.is_halved else self.samples) * self.allocated // 8

    def kind(self, tag: int, little: bool) -> np.dtype[Any]:
        """Of a native sample. Raises Broken for one that is no number of bytes."""
        if self.allocated not in (8, 16, 32, 64):
            raise Broken("samples that are no whole number of bytes")
        letter = "f" if tag != 0x7FE00010 else "i" if self.is_signed else "u"
        return np.dtype(f"{'<' if little else '>'}{letter}{self.allocated // 8}")
