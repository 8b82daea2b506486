"""One way to turn data sets into Part 10 files and back (PS3.10 section 7)."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterable
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from medgem_node.errors import NotUnderstood

_UNPARSABLE = (
    InvalidDicomError, AttributeError, EOFError, IndexError, KeyError, LookupError, NotImplementedError, OSError,
    OverflowError, RecursionError, TypeError, UnicodeError, ValueError, struct.error, MemoryError,
    zlib.error,
)  # fmt: skip
"""What pydicom 3.0.2 raises for bytes that are no DICOM; it has no base class of its own for them."""


def encode(dataset: Dataset) -> bytes:
    """The data set as a Part 10 file with preamble and file meta information."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def decode(data: bytes, *, headers_only: bool = False, tags: Iterable[Any] | None = None) -> Dataset:
    """The data set of a Part 10 file; `headers_only` stops before the pixels. Raises NotUnderstood."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # strangers' values break rules; what matters is checked where it is used
            return dcmread(BytesIO(data), stop_before_pixels=headers_only, specific_tags=list(tags) if tags else None)
    except _UNPARSABLE as exc:
        # `from None`: the cause may quote a value of the header
        raise NotUnderstood(f"the data set cannot be parsed ({type(exc).__name__})") from None
