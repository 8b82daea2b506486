"""A frame as JPEG lossless, first-order prediction (ISO 10918-1 Annex H, selection value 1).

Written here because GDCM's encoder corrupts the heap for a frame of an odd number of bytes. One fixed Huffman table:
larger than an optimal one would make it, and the same values.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CATEGORIES = 17
_CODE_BITS = 5  # of each category; the code of all ones must not be used
_CHUNK = 1 << 18  # samples whose bits are laid out together


def encoded(samples: NDArray[Any], precision: int) -> bytes:
    """A code stream of (rows, columns) or (rows, columns, 3), unsigned, of `precision` bits."""
    values = samples.reshape(*samples.shape[:2], -1)
    rows, columns, count = values.shape
    components = b"".join(bytes((n + 1, 0x11, 0)) for n in range(count))
    frame = struct.pack(">BHHB", precision, rows, columns, count) + components
    huffman = bytes((0, *(0,) * (_CODE_BITS - 1), _CATEGORIES, *(0,) * (16 - _CODE_BITS), *range(_CATEGORIES)))
    scan = bytes((count, *(b for n in range(count) for b in (n + 1, 0)), 1, 0, 0))
    head = b"".join(_segment(m, p) for m, p in ((0xC3, frame), (0xC4, huffman), (0xDA, scan)))
    coded = np.packbits(np.concatenate(list(_bits(_differences(values, precision)))))
    return b"\xff\xd8" + head + coded.tobytes().replace(b"\xff", b"\xff\0") + b"\xff\xd9"


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _differences(values: NDArray[Any], precision: int) -> NDArray[np.int32]:
    """To the pixel on the left, in the first column to that above; modulo 2 to the 16th (H.1.2.1)."""
    wide = values.astype(np.int32)
    predicted = np.empty_like(wide)
    predicted[:, 1:] = wide[:, :-1]
    predicted[1:, 0] = wide[:-1, 0]
    predicted[0, 0] = 1 << precision - 1
    differences = (wide - predicted) & 0xFFFF
    return np.where(differences > 32768, differences - 65536, differences).reshape(-1)


def _bits(differences: NDArray[np.int32]) -> Iterator[NDArray[np.uint8]]:
    """Each difference as the code of its category and its own bits (H.1.2.2); ones to fill the last byte."""
    total = 0
    for at in range(0, differences.size, _CHUNK):
        part = differences[at : at + _CHUNK]
        category = np.frexp(np.abs(part).astype(np.float64))[1].astype(np.int64)
        more = np.where(category == 16, 0, category)  # 32768 is the only one of its category
        own = np.where(part < 0, part + (1 << category) - 1, part) & ((1 << more) - 1)
        length = _CODE_BITS + more
        last = np.repeat(np.cumsum(length), length)
        word = np.repeat(category << more | own, length)
        total += int(length.sum())
        yield (word >> (last - 1 - np.arange(last.size)) & 1).astype(np.uint8)
    yield np.ones(-total % 8, np.uint8)
