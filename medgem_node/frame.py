"""One frame of pixel data, decoded by one named decoder for each transfer syntax.

Decoders parse what strangers wrote, in C. So a header is checked before anything is allocated, and a codestream that
speaks of another size than the header, or that has no end, is refused: half an image must not become "nothing found".
Why these decoders: docs/decisions/0002-permissive-decoders.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, uid
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from medgem_node.errors import NotAnalysable, NotApplicable, Unreadable

MAX_PIXELS = 100_000_000  # the largest flat panels and film scanners stay below 50 million

_DECODERS: dict[str, str] = {
    uid.RLELossless: "pydicom",
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "gdcm",
    uid.JPEGLossless: "gdcm",
    uid.JPEGLosslessSV1: "gdcm",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
}
_NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
TRANSFER_SYNTAXES: tuple[str, ...] = (*_NATIVE, *_DECODERS)
"""What can be decoded; the node may accept others, whose studies are answered with `transfer-syntax`."""

_PHOTOMETRIC = {
    1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"),
    3: ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"),
}
_JPEG_2000_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
_END = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_END_WITHIN = 16  # padding bytes after it that are forgiven


@contextmanager
def coded(reason: str, message: str) -> Iterator[None]:
    """Turns whatever a decoder or a malformed element raises into Unreadable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of excess bytes and odd values, which may quote a header
        try:
            yield
        except (NotAnalysable, MemoryError):
            raise
        except Exception as exc:  # C decoders, PIL and lazy value parsing share no base class
            raise Unreadable(reason, f"{message} ({type(exc).__name__})") from exc


def decoded(instance: Dataset) -> NDArray[Any]:
    """The only frame, as of `decoded_frame`. To be called within `coded`.

    Raises
    ------
    NotApplicable
        `multi-frame`.
    Unreadable
        `no-pixel-data`, `image-size`, `transfer-syntax`, `pixel-data-truncated`, `pixel-data`.
    """
    if instance.get("PixelData") and _number_of_frames(instance) > 1:
        raise NotApplicable("multi-frame", f"the image has {_number_of_frames(instance)} frames; one is expected")
    return decoded_frame(instance, 1)


def decoded_frame(instance: Dataset, number: int) -> NDArray[Any]:
    """Frame `number`, from 1: (rows, columns) of stored values, or (rows, columns, 3) RGB. To be called within `coded`.

    Only that frame is decoded. Raises Unreadable as `decoded`.
    """
    rows, columns, samples = _checked_size(instance)
    if not 1 <= number <= _number_of_frames(instance):
        raise Unreadable("pixel-data", f"frame {number} of {_number_of_frames(instance)} was asked for")
    syntax = _transfer_syntax(instance)
    if syntax in _NATIVE:
        values = _native(instance, number, rows * columns * samples)
    else:
        values = _compressed(instance, number, syntax, (rows, columns, samples))
    if instance.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, instance)
    if values.shape not in ((rows, columns), (rows, columns, 3)):
        raise Unreadable("pixel-data", f"{rows} x {columns} pixels announced, {values.shape} decoded")
    return values


def _number_of_frames(instance: Dataset) -> int:
    return max(1, int(instance.get("NumberOfFrames") or 1))


def _checked_size(instance: Dataset) -> tuple[int, int, int]:
    if not instance.get("PixelData"):
        raise Unreadable("no-pixel-data", "the instance holds no pixel data")
    rows, columns, samples = (int(instance.get(keyword) or 0) for keyword in ("Rows", "Columns", "SamplesPerPixel"))
    if min(rows, columns) < 1 or rows * columns > MAX_PIXELS:
        raise Unreadable("image-size", f"{rows} x {columns} pixels; an image has {MAX_PIXELS} at most")
    if instance.PhotometricInterpretation not in _PHOTOMETRIC.get(samples, ()):
        raise Unreadable("pixel-data", f"{samples} samples to a pixel, or an unknown photometric interpretation")
    if instance.BitsAllocated not in (8, 16, 32):
        raise Unreadable("pixel-data", f"{int(instance.BitsAllocated)} bits allocated to a sample")
    return rows, columns, samples


def _transfer_syntax(instance: Dataset) -> uid.UID:
    syntax = getattr(instance, "file_meta", Dataset()).get("TransferSyntaxUID", uid.UID(""))
    if syntax not in TRANSFER_SYNTAXES:
        name = "unknown" if syntax.name == str(syntax) else syntax.name
        raise Unreadable("transfer-syntax", f"there is no decoder for the transfer syntax ({name})")
    return uid.UID(syntax)


def _native(instance: Dataset, number: int, expected_values: int) -> NDArray[Any]:
    expected = expected_values * instance.BitsAllocated // 8
    if instance.PhotometricInterpretation == "YBR_FULL_422":
        expected = expected * 2 // 3
    expected *= number
    if len(instance.PixelData) < expected:
        raise Unreadable("pixel-data-truncated", f"{len(instance.PixelData)} bytes of pixel data, {expected} expected")
    values = _decode(instance, number, correct_unused_bits=False)
    return _stored_bits(values, instance) if values.ndim == 2 else values


def _stored_bits(values: NDArray[Any], instance: Dataset) -> NDArray[Any]:
    """Without what lies beside the stored bits: overlay planes (PS3.5 8.1.2, retired), garbage, left alignment."""
    allocated, stored = int(instance.BitsAllocated), int(instance.BitsStored)
    high = int(instance.get("HighBit", stored - 1))
    if not 0 < stored <= high + 1 <= allocated:
        raise Unreadable("pixel-data", f"{stored} bits stored up to bit {high} of {allocated}")
    if stored == allocated or (high + 1 == stored and _fits(values, stored, instance.PixelRepresentation)):
        return values
    bits = values << (allocated - 1 - high)
    return bits >> (allocated - stored)  # a signed shift carries the sign along


def _fits(values: NDArray[Any], bits: int, is_signed: int) -> bool:
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    return bool(least <= values.min() and values.max() <= most)


def _compressed(instance: Dataset, number: int, syntax: uid.UID, expected: tuple[int, int, int]) -> NDArray[Any]:
    stream = _stream(instance, number)
    if syntax == uid.RLELossless:
        if len(stream) > 64 + 2 * np.prod(expected) * instance.BitsAllocated // 8:  # runs cost at most 1 in 128
            raise Unreadable("pixel-data", f"{len(stream)} bytes of run lengths for {expected[0]} x {expected[1]}")
        return _decode(instance, number, decoding_plugin="pydicom")
    found = _codestream_size(stream)
    if found != expected:
        raise Unreadable(
            "pixel-data", f"rows, columns, samples: the header says {expected}, the compressed data {found}"
        )
    if _END not in stream.rstrip(b"\x00")[-_END_WITHIN:]:
        raise Unreadable("pixel-data-truncated", "the compressed pixel data has no end")
    if syntax == uid.JPEGExtended12Bit:
        return _jpeg_extended(stream, instance, number)
    return _decode(instance, number, decoding_plugin=_DECODERS[syntax])


def _stream(instance: Dataset, number: int) -> bytes:
    """The codestream of a frame, found as the decoders find it."""
    offsets = None
    if instance.get("ExtendedOffsetTable") and instance.get("ExtendedOffsetTableLengths"):
        offsets = (instance.ExtendedOffsetTable, instance.ExtendedOffsetTableLengths)
    count = _number_of_frames(instance)
    return get_frame(instance.PixelData, number - 1, number_of_frames=count, extended_offsets=offsets)


def _decode(instance: Dataset, number: int, **options: Any) -> NDArray[Any]:
    return pixel_array(instance, index=number - 1, **options)


def _codestream_size(stream: bytes) -> tuple[int, int, int]:
    """(rows, columns, samples) that a JPEG, JPEG-LS or JPEG 2000 codestream announces; zeros if it does not."""
    at = stream.find(_JPEG_2000_START)
    if at >= 0 and not stream.startswith(b"\xff\xd8"):
        x1, y1, x0, y0 = (_number(stream, at + k, 4) for k in (8, 12, 16, 20))
        return y1 - y0, x1 - x0, _number(stream, at + 40, 2)
    at = _frame_header(stream)
    return _number(stream, at + 5, 2), _number(stream, at + 7, 2), _number(stream, at + 9, 1)


def _frame_header(stream: bytes) -> int:
    """Where the start-of-frame marker of a JPEG or JPEG-LS stream lies; its end if there is none."""
    at = 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return at
        at += 1 if marker == 0xFF else 2 + _number(stream, at + 2, 2)  # fill bytes may precede a marker
    return len(stream)


def _number(stream: bytes, at: int, size: int) -> int:
    return int.from_bytes(stream[at : at + size], "big")


def _jpeg_extended(stream: bytes, instance: Dataset, number: int) -> NDArray[Any]:
    """Of 8 bits by Pillow; of 12, the only other depth there is, by GDCM itself, since pydicom's plugin declines it."""
    precision = _number(stream, _frame_header(stream) + 4, 1)
    if precision == 8:
        return _decode(instance, number, decoding_plugin="pillow")
    if instance.SamplesPerPixel != 1 or instance.BitsAllocated != 16 or precision != 12:
        raise Unreadable("pixel-data", f"JPEG of {precision} bits, {instance.BitsAllocated} allocated")
    import gdcm  # type: ignore[import-untyped]  # here, so that all else works without it

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((instance.Columns, instance.Rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, instance.PixelRepresentation))
    buffer = image.GetBuffer()
    if buffer is None:
        raise Unreadable("pixel-data", "the compressed pixel data cannot be decoded")
    kind = "<i2" if instance.PixelRepresentation else "<u2"
    values = np.frombuffer(buffer.encode("utf-8", "surrogateescape"), kind)
    top = 2 ** (int(instance.BitsStored) - int(instance.PixelRepresentation)) - 1
    # a lossy codec may overshoot the stored bits; masking would turn the overshoot from white to black
    return np.asarray(np.minimum(values, top).reshape(instance.Rows, instance.Columns))
