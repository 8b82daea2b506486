"""One way to turn data sets into Part 10 files and back (PS3.10 section 7)."""

from __future__ import annotations

import gc
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medgem_node.errors import NotUnderstood

UNPARSABLE = (
    BytesLengthException, InvalidDicomError, AttributeError, EOFError, IndexError, KeyError, LookupError,
    NotImplementedError, OSError, OverflowError, RecursionError, TypeError, UnicodeError, ValueError, struct.error,
    MemoryError, zlib.error,
)  # fmt: skip
"""What pydicom 3.0.2 raises for bytes that are no DICOM, when they are read or when a value is first looked at; it has
no base class of its own for them."""

MAXIMUM_INFLATED_BYTES = 256 << 20
"""Of a deflated data set: one megabyte on the wire can hold a gigabyte of zeros."""

_CHUNK_BYTES = 4 << 20
_DEEPEST = 64  # levels of sequences; PS3.5 sets no limit, and a report has about ten


def encode(dataset: Dataset) -> bytes:
    """The data set as a Part 10 file with preamble and file meta information. Raises NotUnderstood."""
    check_depth(dataset)
    buffer = BytesIO()
    with without_collection():
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@contextmanager
def without_collection() -> Iterator[None]:
    """While thousands of data sets are made or written: each collection walks them all, a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def decode(data: bytes, *, headers_only: bool = False, tags: Iterable[Any] | None = None) -> Dataset:
    """The data set of a Part 10 file; `headers_only` stops before the pixels. Raises NotUnderstood."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # strangers' values break rules; what matters is checked where it is used
            _check_inflated(data)
            found = dcmread(BytesIO(data), stop_before_pixels=headers_only, specific_tags=list(tags) if tags else None)
    except UNPARSABLE as exc:
        # `from None`: the cause may quote a value of the header
        raise NotUnderstood(f"the data set cannot be parsed ({type(exc).__name__})") from None
    if not found and not tags:  # so answers pydicom 3.0.2 a data set that ends too early, whatever stood before
        raise NotUnderstood("the data set is empty or ends too early")
    return found


def check(dataset: Dataset, keywords: Iterable[str]) -> None:
    """Parse these values, which pydicom does when one is first looked at. Raises NotUnderstood."""
    for keyword in keywords:
        try:
            dataset.get(keyword)
        except UNPARSABLE as exc:
            raise NotUnderstood(f"{keyword} cannot be read ({type(exc).__name__})") from None


def check_depth(dataset: Dataset) -> None:
    """Stop before pydicom 3.0.2 writes hundreds of levels: each repeats the traceback of the next, for hours.

    Raises NotUnderstood.
    """
    level = [dataset]
    for _ in range(_DEEPEST):
        level = [item for each in level for item in _items(each)]
        if not level:
            return
    raise NotUnderstood(f"its sequences are nested more than {_DEEPEST} levels deep")


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """The items of its sequences; values that are still bytes stay so."""
    for tag in list(dataset.keys()):
        with suppress(*UNPARSABLE):  # then it holds no level that could be written
            element: Any = dataset.get_item(tag)
            if element.VR == "SQ" or (element.VR is None and _is_sequence(tag)):
                yield from dataset[tag].value or ()


def _is_sequence(tag: int) -> bool:
    return dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"


def _check_inflated(data: bytes) -> None:
    """Count what a deflated data set holds, piece by piece, before pydicom inflates it in one."""
    file = BytesIO(data)
    read_preamble(file, False)
    if _read_file_meta_info(file).get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    packer = zlib.decompressobj(-zlib.MAX_WBITS)
    rest, size = data[file.tell() :], 0
    while rest and not packer.eof:
        size += len(packer.decompress(rest, _CHUNK_BYTES))
        rest = packer.unconsumed_tail
        if size > MAXIMUM_INFLATED_BYTES:
            raise NotUnderstood(f"the deflated data set holds more than {MAXIMUM_INFLATED_BYTES >> 20} MB")
