"""What a compressed frame carries beside its pixels: comments, application data, bytes behind its end.

JPEG and JPEG-LS (ISO 10918-1, 14495-1), JPEG 2000 and HTJ2K (ISO 15444-1 and -15), run lengths (PS3.5 Annex G). All is
blanked in place, so that no offset changes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import pairwise

from medgem_node.deid.layout import Broken

Buffer = bytes | memoryview
Span = tuple[int, int]

_JPEG, _JPEG_2000 = b"\xff\xd8\xff", b"\xff\x4f\xff\x51"
_ENCODER = re.compile(
    rb"(Kakadu-|Kakadu Software |Created by OpenJPEG version |JasPer Version |LEADTOOLS |Aware )?"
    rb"v?[0-9.]{1,12}(dev)?\s*\0?"
)
_IN_JPEG = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # what ends coded data: no stuffed zero, no restart
_IN_JPEG_LS = re.compile(rb"\xff+[\x80-\xcf\xd8-\xfe]")  # there a bit is stuffed, not a byte
_KEPT = ((b"JFIF\0", 12), (b"Adobe", 12), (b"mrfx", 5))
"""Of application segments, what decoders need: JFIF without its thumbnail, Adobe's transform, JPEG-LS colour."""


def is_start(stream: Buffer) -> bool:
    """Whether a fragment begins a code stream of JPEG or JPEG 2000."""
    return bytes(stream[:3]) == _JPEG or bytes(stream[:4]) == _JPEG_2000


def blanked(stream: Buffer, plane_bytes: int = 0) -> Buffer:
    """A whole frame with zeros for what is no pixel; the same object if there was nothing. Raises Broken."""
    head = bytes(stream[:8])
    if head == b"\0\0\0\x0cjP  ":
        raise Broken("a JP2 file with boxes, where a bare code stream should be")
    if head.startswith(_JPEG_2000):
        spans = list(_in_jpeg_2000(stream))
    elif head.startswith(_JPEG):
        spans = list(_in_jpeg(stream))
    else:
        spans = list(_in_run_lengths(stream, plane_bytes))
    spans = [span for span in spans if bytes(stream[slice(*span)]).strip(b"\0")]
    if not spans:
        return stream
    new = bytearray(stream)
    for begin, end in spans:
        new[begin:end] = bytes(end - begin)
    return bytes(new)


def _in_jpeg(stream: Buffer) -> Iterator[Span]:
    """Segments between SOI and EOI, also those between scans, and what follows EOI."""
    at, coded = 2, _IN_JPEG
    while at + 2 <= len(stream):
        marker = _marker(stream, at)
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xD9:
            yield at + 2, len(stream)
            return
        begin, end = _payload(stream, at)
        yield from _application(stream, marker, begin, end)
        if marker == 0xF7:
            coded = _IN_JPEG_LS
        at = end
        if marker == 0xDA:
            found = coded.search(stream, end)
            if found is None:
                return
            at = found.end() - 2


def _in_jpeg_2000(stream: Buffer) -> Iterator[Span]:
    """Comments of the main header and of tile-parts (A.4, A.9.2), and what follows EOC."""
    at, end_of_part = 2, 0
    while at + 2 <= len(stream):
        marker = _marker(stream, at)
        if marker == 0xD9:
            yield at + 2, len(stream)
            return
        if marker == 0x93:  # start of data: to the end of the tile-part
            at = end_of_part or _end_of_data(stream, at)
            continue
        begin, end = _payload(stream, at)
        if marker == 0x64 and not _is_encoder(stream, begin, end):
            yield begin, end
        if marker == 0x90:
            size = int.from_bytes(stream[begin + 2 : begin + 6], "big")
            end_of_part = at + size if size else 0
            if size and not end <= end_of_part <= len(stream):
                return  # cut off: a decoder finds as much
        at = end


def _end_of_data(stream: Buffer, at: int) -> int:
    """A tile-part of length 0 is the last, and goes to the end of the code stream (A.4.2)."""
    tail = bytes(stream[at:])
    return at + found if (found := tail.find(b"\xff\xd9")) >= 0 else len(stream)


def _in_run_lengths(stream: Buffer, plane_bytes: int) -> Iterator[Span]:
    """Offsets of no segment, and in each segment what lies behind its last pixel."""
    if not plane_bytes:
        return
    if len(stream) < 64:
        raise Broken("run lengths without their header")
    count, *offsets = struct.unpack("<16L", stream[:64])
    starts = [*offsets[:count], len(stream)]
    if not 1 <= count <= 15 or starts[0] != 64 or any(a > b for a, b in pairwise(starts)):
        raise Broken("segments of run lengths that are not where they should be")
    yield 4 + 4 * count, 64
    for begin, end in pairwise(starts):
        yield _end_of_runs(bytes(stream[begin:end]), plane_bytes) + begin, end


def _end_of_runs(segment: bytes, size: int) -> int:
    at, made, length = 0, 0, len(segment)
    while made < size and at < length:
        n = segment[at]
        if n < 128:
            at += n + 2
            made += n + 1
        elif n > 128:
            at += 2
            made += 257 - n
        else:
            at += 1
    return min(at, length)


def _marker(stream: Buffer, at: int) -> int:
    if stream[at] != 0xFF:
        raise Broken("a broken code stream")
    return stream[at + 1]


def _payload(stream: Buffer, at: int) -> Span:
    length = int.from_bytes(stream[at + 2 : at + 4], "big")
    if length < 2 or at + 2 + length > len(stream):
        raise Broken("a broken code stream")
    return at + 4, at + 2 + length


def _application(stream: Buffer, marker: int, begin: int, end: int) -> Iterator[Span]:
    """COM, and APPn but for what decoders need."""
    if marker != 0xFE and not 0xE0 <= marker <= 0xEF:
        return
    text = bytes(stream[begin:end])
    keep = max((size for name, size in _KEPT if text.startswith(name)), default=0)
    if not (marker == 0xFE and _is_encoder(stream, begin, end)):
        yield min(begin + keep, end), end


def _is_encoder(stream: Buffer, begin: int, end: int) -> bool:
    """Whether a comment only names the software."""
    text = bytes(stream[begin:end])
    text = text[2:] if text[:2] in (b"\0\0", b"\0\1") else text  # JPEG 2000: registration, then text
    return _ENCODER.fullmatch(text) is not None
