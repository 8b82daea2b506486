"""The pixel element, without decoding it: its extent, comments in its code streams, overlay bits.

Later issues add what is painted into the frames themselves.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from medgem_node.deid.layout import ITEM, SEQUENCE_END, UNDEFINED, Broken, Syntax, element_head, read_head

_VR = {0x7FE00008: "OF", 0x7FE00009: "OD"}
_ENCODER = re.compile(
    rb"(Kakadu-|Kakadu Software |Created by OpenJPEG version |JasPer Version |LEADTOOLS |Aware )?"
    rb"v?[0-9.]{1,12}(dev)?\s*\0?"
)


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixel element of a data set; `fragments` are (begin, end) in `value`, without the offset table."""

    tag: int
    vr: str
    value: bytes
    fragments: tuple[tuple[int, int], ...] | None

    def parts(self, syntax: Syntax) -> list[bytes]:
        """The element as bytes; the value itself is not copied."""
        if self.fragments is None:
            odd = len(self.value) & 1
            return [element_head(self.tag, self.vr, len(self.value) + odd, syntax), self.value, b"\0" * odd]
        end = struct.pack("<HHL", SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0)
        return [element_head(self.tag, self.vr, UNDEFINED, syntax), self.value, end]


def take(body: bytes, at: int, syntax: Syntax) -> Pixels | None:
    """The pixel element at `at`; what follows it is no part of an image. Raises Broken."""
    if at == len(body):
        return None
    tag, vr, length, start = read_head(body, at, syntax)
    vr = _VR.get(tag, vr if vr in ("OB", "OW") else "OW")
    if length == UNDEFINED:
        if not syntax.encapsulated:
            raise Broken("encapsulated pixels in a native transfer syntax")
        fragments, end = _fragments(body, start, syntax)
        return Pixels(tag, "OB", body[start:end], fragments)
    if syntax.encapsulated:
        raise Broken("native pixels in an encapsulated transfer syntax")
    if start + length > len(body):
        raise Broken("pixels are cut off")
    return Pixels(tag, vr, body[start : start + length], None)


def cut(pixels: Pixels, expected_bytes: int) -> Pixels:
    """Native pixels without what lies behind the last one. Raises Broken if some are missing."""
    if pixels.fragments is not None or len(pixels.value) == expected_bytes:
        return pixels
    if len(pixels.value) < expected_bytes:
        raise Broken("fewer pixels than the header says")
    return Pixels(pixels.tag, pixels.vr, pixels.value[:expected_bytes], None)


def expected_bytes(numbers: Mapping[int, int], photometric: str) -> int:
    """How long native pixels are, from Rows, Columns, Samples, Frames and Bits Allocated (PS3.5 8.1)."""
    samples = numbers[0x00280010] * numbers[0x00280011] * max(numbers.get(0x00280008, 1), 1)
    samples *= 2 if photometric == "YBR_FULL_422" else numbers.get(0x00280002, 1)
    return (samples * numbers[0x00280100] + 7) // 8


def without_bits(pixels: Pixels, mask: int, bits_allocated: int, little: bool) -> Pixels:
    """Native pixels with the bits of `mask`, where overlays of old lie (PS3.5 8.1.2), cleared."""
    if not mask:
        return pixels
    if pixels.fragments is not None or bits_allocated not in (8, 16, 32):
        raise Broken("overlays inside compressed pixels")
    kind = np.dtype(f"{'<' if little or bits_allocated == 8 else '>'}u{bits_allocated // 8}")
    values = np.frombuffer(pixels.value, kind)
    kept = values & kind.type(~mask & (1 << bits_allocated) - 1)
    return Pixels(pixels.tag, pixels.vr, kept.astype(kind, copy=False).tobytes(), None)


def without_comments(pixels: Pixels) -> Pixels:
    """Compressed frames whose comments, application segments and tails are blanked in place.

    No length changes, so offsets stay true; a frame that has none of them stays as it is, byte for byte.
    """
    fragments = pixels.fragments or ()
    blanks: list[tuple[int, int]] = []
    for n, (begin, end) in enumerate(fragments):
        following = fragments[n + 1][0] if n + 1 < len(fragments) else len(pixels.value)
        is_whole = pixels.value[following : following + 2] in (b"", pixels.value[begin : begin + 2])
        blanks += _blanks(pixels.value, begin, end, is_whole)
    if not blanks:
        return pixels
    value = bytearray(pixels.value)
    for begin, end in blanks:
        value[begin:end] = bytes(end - begin)
    return Pixels(pixels.tag, pixels.vr, bytes(value), pixels.fragments)


def _fragments(body: bytes, at: int, syntax: Syntax) -> tuple[tuple[tuple[int, int], ...], int]:
    found: list[tuple[int, int]] = []
    begin = at
    while True:
        tag, _, length, start = read_head(body, at, syntax)
        if tag == SEQUENCE_END and found:
            return tuple(found[1:]), at  # the first is the Basic Offset Table
        if tag != ITEM or length == UNDEFINED or start + length > len(body):
            raise Broken("broken fragments")
        found.append((start - begin, start + length - begin))
        at = start + length


def _blanks(value: bytes, begin: int, end: int, is_whole: bool) -> Iterator[tuple[int, int]]:
    """What to blank in a fragment: segments of a JPEG or JPEG 2000 head; of a whole frame, what follows its end."""
    if value.startswith(b"\0\0\0\x0cjP  ", begin, end):
        raise Broken("a JP2 file with boxes, where a bare code stream should be")
    if value.startswith(b"\xff\x4f\xff\x51", begin, end):
        segments, at = _segments(value, begin + 2, end, stop=0x90)
        yield from (s for marker, s in segments if marker == 0x64 and not _is_encoder(value, *s))
    elif value.startswith(b"\xff\xd8\xff", begin, end):
        segments, at = _segments(value, begin + 2, end, stop=0xDA)
        yield from (s for marker, payload in segments for s in _jpeg_blanks(value, marker, *payload))
    else:
        return
    last = value.rfind(b"\xff\xd9", at, end)
    if is_whole and last >= 0 and value[last + 2 : end].strip(b"\0"):
        yield last + 2, end


def _segments(value: bytes, at: int, end: int, stop: int) -> tuple[list[tuple[int, tuple[int, int]]], int]:
    """(marker, (begin, end) of its payload) up to the marker that begins the coded data, and where that is."""
    found: list[tuple[int, tuple[int, int]]] = []
    while at + 4 <= end and value[at] == 0xFF and value[at + 1] != stop:
        if value[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        length = int.from_bytes(value[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > end:
            raise Broken("a broken code stream")
        found.append((value[at + 1], (at + 4, at + 2 + length)))
        at += 2 + length
    return found, at


def _jpeg_blanks(value: bytes, marker: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """COM, and APPn but for what decoders need: JFIF (without thumbnail), Adobe's transform, JPEG-LS colour."""
    if marker == 0xFE or 0xE0 <= marker <= 0xEF:
        keep = 0
        for name, size in ((b"JFIF\0", 12), (b"Adobe", 12), (b"mrfx", 5)):
            if value.startswith(name, begin, end):
                keep = size
        begin = min(begin + keep, end)
        if value[begin:end].strip(b"\0") and not (marker == 0xFE and _is_encoder(value, begin, end)):
            yield begin, end


def _is_encoder(value: bytes, begin: int, end: int) -> bool:
    """Whether a comment only names the software, or is blank already."""
    text = value[begin:end]
    text = text[2:] if text[:2] in (b"\0\0", b"\0\1") else text  # JPEG 2000: registration, then text
    return not text.strip(b"\0") or _ENCODER.fullmatch(text) is not None
