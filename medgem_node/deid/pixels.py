"""The pixel element, without decoding it: its extent, comments in its code streams, overlay bits.

Nothing here copies what it does not change: an element is a row of views into the file, with new bytes between them
where something had to be blanked.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from medgem_node.deid.code_stream import blanked as blanked_stream
from medgem_node.deid.code_stream import is_start
from medgem_node.deid.layout import ITEM, SEQUENCE_END, UNDEFINED, Broken, Syntax, element_head, read_head

Buffer = bytes | memoryview

_VR = {0x7FE00008: "OF", 0x7FE00009: "OD"}
_RLE = "1.2.840.10008.1.2.5"
_STREAMS = ("1.2.840.10008.1.2.4.5", "1.2.840.10008.1.2.4.6", "1.2.840.10008.1.2.4.7", "1.2.840.10008.1.2.4.8",
            "1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")  # fmt: skip
"""How the UIDs of JPEG, JPEG-LS, JPEG 2000 and HTJ2K begin: what `code_stream` can read."""
_PIECE = 1 << 24  # bytes of native pixels that are looked at together


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixel element of a data set.

    `chunks` of native pixels follow one another; of encapsulated ones each is a fragment. `firsts` are the numbers of
    the fragments that begin a frame, by the Basic Offset Table; empty if there is none that is true.
    `is_lossy_again` says that frames which were compressed with loss were decoded and compressed once more.
    """

    tag: int
    vr: str
    chunks: tuple[Buffer, ...]
    is_encapsulated: bool = False
    firsts: tuple[int, ...] = ()
    is_lossy_again: bool = False

    @property
    def size_bytes(self) -> int:
        """Of native pixels, all; of encapsulated ones, without item heads and offset table."""
        return sum(map(len, self.chunks))

    def parts(self, syntax: Syntax) -> list[Buffer]:
        """The element as bytes, in pieces; what was not changed is not copied."""
        if not self.is_encapsulated:
            size = self.size_bytes
            return [element_head(self.tag, self.vr, size + size % 2, syntax), *self.chunks, b"\0" * (size % 2)]
        table = self._offset_table()
        parts: list[Buffer] = [element_head(self.tag, self.vr, UNDEFINED, syntax), _item(len(table)), table]
        for chunk in self.chunks:
            parts += (_item(len(chunk) + len(chunk) % 2), chunk)
            if len(chunk) % 2:
                parts.append(b"\0")
        return [*parts, struct.pack("<HHL", SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0)]

    def frames(self, count: int) -> list[range]:
        """Which fragments hold each of `count` frames. Raises Broken if nothing tells."""
        if count == 1:
            return [range(len(self.chunks))]
        if len(self.chunks) == count:
            return [range(n, n + 1) for n in range(count)]
        firsts = self.firsts or tuple(n for n, chunk in enumerate(self.chunks) if is_start(chunk))
        if len(firsts) != count or firsts[0] != 0:
            raise Broken("fragments that nothing divides into frames")
        return [range(a, b) for a, b in zip(firsts, (*firsts[1:], len(self.chunks)), strict=True)]

    def between(self, begin: int, end: int) -> Buffer:
        """Native pixels from byte `begin` to `end`."""
        found = self._views(begin, end)
        return found[0] if len(found) == 1 else b"".join(found)

    def with_bytes(self, patches: Sequence[tuple[int, bytes]]) -> Pixels:
        """Native pixels with other bytes from each of these places on; ascending, none over another."""
        chunks: list[Buffer] = []
        at = 0
        for begin, new in patches:
            chunks += [*self._views(at, begin), new]
            at = begin + len(new)
        return replace(self, chunks=(*chunks, *self._views(at, self.size_bytes)))

    def _views(self, begin: int, end: int) -> list[Buffer]:
        found, at = [], 0
        for chunk in self.chunks:
            if at < end and at + len(chunk) > begin:
                found.append(chunk[max(begin - at, 0) : end - at])
            at += len(chunk)
        return found if end > begin else []

    def with_frames(self, count: int, new: Mapping[int, bytes], is_lossy_again: bool = False) -> Pixels:
        """Encapsulated pixels with other code streams for some frames, each in one fragment."""
        chunks: list[Buffer] = []
        firsts: list[int] = []
        for number, fragments in enumerate(self.frames(count)):
            firsts.append(len(chunks))
            chunks += [new[number]] if number in new else [self.chunks[n] for n in fragments]
        is_lossy_again = is_lossy_again or self.is_lossy_again
        return replace(self, chunks=tuple(chunks), firsts=tuple(firsts), is_lossy_again=is_lossy_again)

    def _offset_table(self) -> bytes:
        """Built anew, since it may hold anything; empty where it was, and where it could not be true (PS3.5 A.4)."""
        ends = np.cumsum([0, *(8 + len(chunk) + len(chunk) % 2 for chunk in self.chunks)])
        if not self.firsts or ends[-1] > 0xFFFFFFFF:
            return b""
        return ends[list(self.firsts)].astype("<u4").tobytes()


def take(body: Buffer | mmap.mmap, at: int, syntax: Syntax) -> Pixels | None:
    """The pixel element at `at`; what follows it is no part of an image. Raises Broken."""
    if at == len(body):
        return None
    tag, vr, length, start = _head(body, at, syntax)
    vr = _VR.get(tag, vr if vr in ("OB", "OW") else "OW")
    view = memoryview(body)
    if length == UNDEFINED:
        if not syntax.encapsulated:
            raise Broken("encapsulated pixels in a native transfer syntax")
        if syntax.uid != _RLE and not syntax.uid.startswith(_STREAMS):
            raise Broken("a code stream that cannot be searched for what is no pixel, such as of a video")
        return _fragments(view, start, syntax)
    if syntax.encapsulated:
        raise Broken("native pixels in an encapsulated transfer syntax")
    if start + length > len(body):
        raise Broken("pixels are cut off")
    return Pixels(tag, vr, (view[start : start + length],))


def cut(pixels: Pixels, expected_bytes: int) -> Pixels:
    """Native pixels without what lies behind the last one. Raises Broken if some are missing."""
    if pixels.is_encapsulated or pixels.size_bytes == expected_bytes:
        return pixels
    if pixels.size_bytes < expected_bytes:
        raise Broken("fewer pixels than the header says")
    return replace(pixels, chunks=(pixels.between(0, expected_bytes),))


def expected_bytes(numbers: Mapping[int, int], photometric: str) -> int:
    """How long native pixels are, from Rows, Columns, Samples, Frames and Bits Allocated (PS3.5 8.1)."""
    samples = numbers[0x00280010] * numbers[0x00280011] * max(numbers.get(0x00280008, 1), 1)
    samples *= 2 if photometric == "YBR_FULL_422" else numbers.get(0x00280002, 1)
    return (samples * numbers[0x00280100] + 7) // 8


def without_bits(pixels: Pixels, mask: int, bits_allocated: int, little: bool) -> Pixels:
    """Native pixels with the bits of `mask`, where overlays of old lie (PS3.5 8.1.2), cleared."""
    if not mask:
        return pixels
    if pixels.is_encapsulated or bits_allocated not in (8, 16, 32):
        raise Broken("overlays inside compressed pixels")
    kind = np.dtype(f"{'<' if little or bits_allocated == 8 else '>'}u{bits_allocated // 8}")
    bits = kind.type(mask & (1 << bits_allocated) - 1)
    patches = []
    for begin in range(0, pixels.size_bytes, _PIECE):
        values = np.frombuffer(pixels.between(begin, min(begin + _PIECE, pixels.size_bytes)), kind)
        if (values & bits).any():
            patches.append((begin, (values & ~bits).astype(kind, copy=False).tobytes()))
    return pixels.with_bytes(patches) if patches else pixels


def without_comments(pixels: Pixels, plane_bytes: int = 0) -> Pixels:
    """Compressed frames whose comments, application segments and tails are blanked in place.

    No length changes; a frame that has none of them stays as it is, byte for byte. `plane_bytes`, Rows times Columns,
    tells where run lengths end.
    """
    if not pixels.is_encapsulated:
        return pixels
    chunks = list(pixels.chunks)
    firsts = pixels.firsts or tuple(n for n, chunk in enumerate(chunks) if n == 0 or is_start(chunk))
    if not is_start(chunks[0]):
        firsts = tuple(range(len(chunks)))  # run lengths: a fragment is a frame (PS3.5 A.4.2)
    for first, after in zip(firsts, (*firsts[1:], len(chunks)), strict=True):
        whole = chunks[first] if after == first + 1 else b"".join(chunks[first:after])
        clean = blanked_stream(whole, plane_bytes)
        if clean is not whole:
            for n in range(first, after):
                chunks[n], clean = clean[: len(chunks[n])], clean[len(chunks[n]) :]
    return replace(pixels, chunks=tuple(chunks))


def _head(body: Buffer | mmap.mmap, at: int, syntax: Syntax) -> tuple[int, str, int, int]:
    tag, vr, length, start = read_head(bytes(body[at : at + 12]), 0, syntax)
    return tag, vr, length, at + start


def _item(length: int) -> bytes:
    return struct.pack("<HHL", ITEM >> 16, ITEM & 0xFFFF, length)


def _fragments(body: memoryview, at: int, syntax: Syntax) -> Pixels:
    found: list[memoryview] = []
    starts: list[int] = []
    while True:
        tag, _, length, start = _head(body, at, syntax)
        if tag == SEQUENCE_END and len(found) > 1:
            table, *chunks = found  # the first is the Basic Offset Table
            return Pixels(0x7FE00010, "OB", tuple(chunks), True, _firsts(table, starts[1:]))
        if tag != ITEM or length == UNDEFINED or start + length > len(body):
            raise Broken("broken fragments")
        found.append(body[start : start + length])
        starts.append(at)
        at = start + length


def _firsts(table: memoryview, starts: Sequence[int]) -> tuple[int, ...]:
    """The fragments that the Basic Offset Table points at; none if it points elsewhere."""
    number_at = {start - starts[0]: n for n, start in enumerate(starts)}
    if len(table) % 4:
        return ()
    firsts = [number_at.get(int(offset), -1) for offset in np.frombuffer(table, "<u4")]
    is_true = firsts[:1] == [0] and all(a < b for a, b in pairwise(firsts))
    return tuple(firsts) if is_true else ()
