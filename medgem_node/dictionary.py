"""The dictionary of PS3.6 as pydicom carries it, without pydicom's own start.

`import pydicom` loads every pixel decoder, 0.4 s of CPU; its tables of names alone load in 0.01 s. What a
command needs before its first file asks here.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any


def _carried(name: str) -> Any:
    """A module of pydicom that holds data only: a copy of ours, for pynetdicom adds to pydicom's."""
    package = find_spec("pydicom")  # of a package at the top: found, not imported
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pydicom is not installed")
    path = Path(package.submodule_search_locations[0]) / f"{name}.py"
    spec = spec_from_file_location(f"_medgem_{name}", path)
    if spec is None or spec.loader is None:
        return import_module(f"pydicom.{name}")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_ROWS: dict[int, tuple[str, str, str, str, str]] = _carried("_dicom_dict").DicomDictionary
_REPEATING: dict[str, tuple[str, str, str, str, str]] = _carried("_dicom_dict").RepeatersDictionary
_NEWER = {  # than pydicom 3.0.2; PS3.6 2024d
    "1.2.840.10008.1.2.4.110": ("JPEG XL Lossless", "Transfer Syntax", "", "", "JPEGXLLossless"),
    "1.2.840.10008.1.2.4.111": ("JPEG XL JPEG Recompression", "Transfer Syntax", "", "", "JPEGXLJPEGRecompression"),
    "1.2.840.10008.1.2.4.112": ("JPEG XL", "Transfer Syntax", "", "", "JPEGXL"),
    "1.2.840.10008.1.2.8.1": (
        "Deflated Image Frame Compression", "Transfer Syntax", "", "", "DeflatedImageFrameCompression"
    ),
}  # fmt: skip
UIDS: dict[str, tuple[str, str, str, str, str]] = {**_carried("_uid_dict").UID_dictionary, **_NEWER}
"""Registered UID to name, type (`Transfer Syntax`, `SOP Class` ...), info, `Retired` or nothing, keyword."""

_MASKS = tuple(
    (int("".join("0" if c == "x" else "F" for c in mask), 16), int(mask.replace("x", "0"), 16), row)
    for mask, row in _REPEATING.items()
)


@lru_cache(1 << 15)  # what a stranger's tags would fill without end
def vr_of(tag: int) -> str:
    """The VR of PS3.6, such as `US or SS`; empty for a tag that it does not name."""
    row = _row(tag)
    return row[0] if row else ""


@lru_cache(1 << 15)
def keyword_of(tag: int) -> str:
    """The keyword of PS3.6; empty for a tag that it does not name, and for what has been retired without one."""
    row = _row(tag)
    return row[4] if row else ""


def name_of(tag: int) -> str:
    """The keyword of PS3.6, else the tag."""
    return keyword_of(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def tag_of(keyword: str) -> int | None:
    """The tag of a keyword; of a repeating group none."""
    return _tags().get(keyword)


def _row(tag: int) -> tuple[str, str, str, str, str] | None:
    row = _ROWS.get(tag)
    if row is None and not tag >> 16 & 1:
        return next((row for mask, masked, row in _MASKS if tag & mask == masked), None)
    return row


@cache
def _tags() -> dict[str, int]:
    return {row[4]: tag for tag, row in _ROWS.items() if row[4]}
