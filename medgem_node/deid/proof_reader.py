"""The proof's own eyes: the elements of a Part 10 file, found in another way than the copier finds them.

Flat: sequences and items are stepped into and not counted through, so that no length that lies hides what stands
inside. A sequence of the same bytes as one before says nothing new, and is handed out once. What cannot be read on is
Illegible, and an unreadable file is not proved.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from mmap import mmap
from typing import NamedTuple

from medgem_node.dictionary import UIDS, vr_of

Buffer = bytes | bytearray | memoryview | mmap

PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
INFLATED_BYTES = 256 << 20
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")
_PIECE = 64 << 10
_OPEN = 0xFFFFFFFF  # an undefined length
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_SHORT = frozenset({"AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS",
                    "ST", "TM", "UI", "UL", "US"})  # fmt: skip
_UNREAD = frozenset({"AT", "CS", "DS", "FD", "FL", "IS", "OD", "OF", "OL", "OV", "SL", "SS", "SV", "TM", "UL", "US",
                     "UV"})  # fmt: skip
_SKIP, _TAKE, _SKIP_LONG, _TAKE_LONG, _ITEM, _STOP, _BARE, _BARE_SKIP = range(8)
_ITEM_TAG = b"\xfe\xff\x00\xe0"
_ITEM_TAGS = (b"", _ITEM_TAG, b"\xfe\xff\xdd\xe0")
_DEEPEST = 2000
_SHORT_SEQUENCE = 2048
_RUN, _KEPT_RUNS = 256, 2000


class Illegible(ValueError):
    """The bytes break PS3.5; the message holds no value of theirs."""


class Head(NamedTuple):
    """What the first bytes of an element say: how to go on, and what it is; the same object for the same bytes."""

    step: int
    tag: int
    vr: str
    sent: str = ""


Found = tuple[Head, int, int, int, int]
"""An element: head, where its value starts and stops, the outermost listed or private sequence around it, depth."""


@dataclass(frozen=True, slots=True)
class File:
    """A file taken apart: `data` holds its header, `size` counts all of it (inflated), `pixels_at` ends the header."""

    data: bytes
    preamble: bytes
    meta: list[Found]
    elements: list[Found]
    begin: int
    pixels_at: int
    size: int
    syntax: str
    little: bool
    implicit: bool
    packed: bytes
    """All of the file from the header's end on, where frames are encapsulated; empty for native ones."""


class Wanted:
    """Which elements to hand out: text, names, UIDs, days, private ones and those of `listed` (all, if `everything`).

    Remembers every head that it has seen, so that a known one costs one look-up.
    """

    def __init__(self, listed: frozenset[int], everything: bool = False) -> None:
        self.listed, self.everything = listed, everything
        self._heads: dict[tuple[bool, bool], _Heads] = {}

    def takes(self, tag: int, vr: str) -> bool:
        """Whether an element is handed out."""
        group = tag >> 16
        return (
            self.everything or group & 1 == 1 or vr not in _UNREAD or tag in self.listed or group >> 8 in (0x50, 0x60)
        )

    def heads(self, little: bool, implicit: bool) -> _Heads:
        """The heads of one way to write."""
        key = (little, implicit)
        if key not in self._heads:
            self._heads[key] = _Heads(self, little, implicit)
        return self._heads[key]


class _Heads(dict[bytes, Head]):
    def __init__(self, wanted: Wanted, little: bool, implicit: bool) -> None:
        super().__init__()
        self._wanted, self._implicit = wanted, implicit
        self._tag = struct.Struct("<HH" if little else ">HH")
        self.runs: dict[bytes, tuple[int, tuple[tuple[Head, int, int], ...]]] = {}
        self.first = struct.Struct(("<" if little else ">") + ("4sL" if implicit else "6sH")).unpack_from
        self.long = struct.Struct("<L" if little else ">L").unpack_from

    def __missing__(self, first: bytes) -> Head:
        if len(first) < (4 if self._implicit else 6):
            raise Illegible("ends inside an element")
        if len(self) > 50_000:
            self.clear()  # a stranger's file may hold any number
        group, number = self._tag.unpack_from(first)
        self[first] = head = self._judged(group << 16 | number, "" if self._implicit else first[4:6].decode("latin-1"))
        return head

    def _judged(self, tag: int, vr: str) -> Head:
        if tag in (0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD):
            return Head(_ITEM, tag, "")
        known = _known(tag, vr)
        if tag in PIXELS:
            return Head(_STOP, tag, known, vr)
        if vr not in _SHORT and vr not in _LONG:  # read as implicit: some writers mix both
            known = _known(tag, "")
            return Head(_BARE if known == "SQ" or self._wanted.takes(tag, known) else _BARE_SKIP, tag, known)
        taken = self._wanted.takes(tag, known)
        if vr in _LONG:
            return Head(_TAKE_LONG if taken else _SKIP_LONG, tag, known, vr)
        return Head(_TAKE if taken else _SKIP, tag, known, vr)


class _Place(NamedTuple):
    """Where a walk stands."""

    limit: int
    inside: int
    heads: _Heads
    implicit: bool
    begun: bytes = b""
    """Of the sequence that was stepped into here, if it may come again: its bytes."""
    handed_out: int = 0


@cache
def _known(tag: int, vr: str) -> str:
    """The VR as sent, or that of PS3.6 where none or UN was sent."""
    return vr if vr not in ("", "UN") else vr_of(tag).split(" or ")[0] or "UN"


def opened(parts: Sequence[Buffer], wanted: Wanted) -> File:
    """Read the header of a file that lies in these parts. Raises Illegible."""
    size = sum(map(len, parts))
    likely = _PIECE if len(parts) == 1 else min(len(parts[0]) + 4096, 16 * _PIECE)  # a copy's header comes in one part
    for limit in (likely, 16 * _PIECE, size):
        data = _first(parts, limit)
        try:
            return _opened(data, size, parts, wanted)
        except _Further:
            if limit >= size:
                raise Illegible("a value that is longer than what holds it") from None
    raise Illegible("a value that is longer than what holds it")


class _Further(Exception):
    """The header goes on beyond what was loaded."""


def _first(parts: Sequence[Buffer], size: int) -> bytes:
    if len(parts) == 1 and isinstance(parts[0], bytes):
        return parts[0]
    taken = []
    for part in parts:
        if size <= 0:
            break
        taken.append(part if len(part) <= size else memoryview(part)[:size])
        size -= len(part)
    return b"".join(taken)


def _opened(data: bytes, size: int, parts: Sequence[Buffer], wanted: Wanted) -> File:
    if data[128:132] != b"DICM":
        raise Illegible("no Part 10 file")
    meta, begin = _meta(data)
    uids = [data[start:stop] for head, start, stop, _, _ in meta if head.tag == 0x00020010]
    syntax = uids[0].decode("latin-1").strip("\0 ") if len(uids) == 1 else ""
    if UIDS.get(syntax, ("", ""))[1] != "Transfer Syntax":
        raise Illegible("no transfer syntax that is known")
    preamble, front = data[:128], data[:begin]
    if syntax in _DEFLATED:
        data = front + _inflated(_first(parts, size)[begin:])
        size = len(data)
    little, implicit = syntax != "1.2.840.10008.1.2.2", syntax == "1.2.840.10008.1.2"
    elements: list[Found] = []
    at = _walk(data, begin, size, wanted, little, implicit, elements)
    native = syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
    packed = b"" if native or at >= size else b"".join(parts)[at:]
    return File(data, preamble, meta, elements, begin, at, size, syntax, little, implicit, packed)


def _meta(data: bytes) -> tuple[list[Found], int]:
    """The elements of group 2, always explicit and little endian (PS3.10 7.1), and where they end."""
    found, at = [], 132
    while data[at : at + 2] == b"\x02\0":
        vr = data[at + 4 : at + 6].decode("latin-1")
        start = at + (12 if vr in _LONG else 8)
        if start > len(data) or not (vr in _LONG or vr in _SHORT):
            raise Illegible("the file meta information")
        length = struct.unpack_from("<L" if vr in _LONG else "<H", data, start - (4 if vr in _LONG else 2))[0]
        if start + length > len(data):
            raise _Further
        tag = 0x00020000 | int.from_bytes(data[at + 2 : at + 4], "little")
        at = start + length
        found.append((Head(_TAKE, tag, vr), start, at, 0, 0))
    return found, at


def _inflated(data: bytes) -> bytes:
    packer = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = packer.decompress(data, INFLATED_BYTES)
    except zlib.error:
        raise Illegible("a deflated data set that is broken") from None
    if not packer.eof:
        raise Illegible("a deflated data set without end")
    return body


def _walk(data: bytes, at: int, size: int, wanted: Wanted, little: bool, implicit: bool, found: list[Found]) -> int:
    """Hand out the wanted elements up to the pixels, and answer where those begin."""
    here = _Place(size, 0, wanted.heads(little, implicit), implicit)
    outer: list[_Place] = []
    limit, inside, heads, depth = here.limit, here.inside, here.heads, 0
    first, long = heads.first, heads.long
    loaded = len(data) - 8
    bound = min(limit, loaded + 1)
    seen: set[tuple[bytes, int, bool]] = set()
    while True:
        if at >= bound:
            while at == limit and outer:
                within, was_implicit = inside, implicit
                limit, inside, heads, implicit, begun, count = outer.pop()
                if begun and _may_repeat(found, count):
                    seen.add((begun, within, was_implicit))
                first, long, depth = heads.first, heads.long, depth - 1
            bound = min(limit, loaded + 1)
            if at == limit:
                return at
            if at > limit or (at > loaded and len(data) == size):
                raise Illegible("a value that is longer than what holds it")
            if at > loaded:
                raise _Further
        if not outer and at + _RUN < bound:
            after = _passed(data, at, heads, found)
            if after > at:
                at = after
                continue
        begin, length = first(data, at)
        head = heads[begin]
        step = head[0]
        if step == _SKIP:
            at += 8 + length
            continue
        if step == _TAKE:
            start = at + 8
            at = start + length
            found.append((head, start, at, inside, depth))
            continue
        _, tag, vr, sent = head
        if step == _ITEM:
            if not outer:
                raise Illegible("an item outside of sequences")
            at += 8
            if tag == 0xFFFEE0DD:
                limit, inside, heads, implicit, _, _ = outer.pop()
                first, long, depth = heads.first, heads.long, depth - 1
                bound = min(limit, loaded + 1)
            continue
        if step == _STOP and not outer:
            return at
        start = at + (8 if implicit or step >= _BARE else 12)
        if start > len(data):
            raise _Further if len(data) < size else Illegible("ends inside an element")
        length = long(data, start - 4)[0]
        if vr == "SQ" or (length == _OPEN and vr == "UN"):
            if sent in ("", "UN") and length not in (0, _OPEN) and data[start : start + 4] not in _ITEM_TAGS:
                at = start + length  # a value where PS3.6 has a sequence: its bytes are looked at
                found.append((head._replace(vr="UN"), start, at, inside, depth))
                continue
            if len(outer) > _DEEPEST:
                raise Illegible("sequences without end")
            is_own = tag in wanted.listed or tag >> 16 & 1
            if is_own:
                found.append((head, start, start if length == _OPEN else start + length, tag, depth))
            within = inside or (tag if is_own else 0)
            begun = b""
            if length <= _SHORT_SEQUENCE and start + length <= bound and sent != "UN":
                begun = data[start : start + length]
                if (begun, within, implicit) in seen:
                    at = start + length
                    continue
            outer.append(_Place(limit, inside, heads, implicit, begun, len(found)))
            inside = within
            depth += 1
            at = start
            if length != _OPEN:
                if start + length > limit:
                    raise Illegible("a sequence that is longer than what holds it")
                limit = start + length
                bound = min(limit, loaded + 1)
            if sent == "UN":  # PS3.5 6.2.2
                implicit, heads = True, wanted.heads(True, True)
                first, long = heads.first, heads.long
            continue
        if length == _OPEN:
            at = _after_fragments(data, start, size, long)
            continue
        at = start + length
        if step not in (_SKIP_LONG, _BARE_SKIP):
            found.append((head, start, at, inside, depth))


def _passed(data: bytes, at: int, heads: _Heads, found: list[Found]) -> int:
    """Where the plain elements end that begin here, and whether these bytes are known: a series repeats them."""
    key = data[at : at + _RUN]
    run = heads.runs.get(key)
    if run is not None:
        far, elements = run
        if elements:
            found.extend([(head, at + start, at + stop, 0, 0) for head, start, stop in elements])
        return at + far
    begun, count, end = at, len(found), at + _RUN
    while at + 8 <= end:
        begin, length = heads.first(data, at)
        head = heads[begin]
        after = at + 8 + length
        if head[0] > _TAKE or after > end:
            break
        if head[0] == _TAKE:
            found.append((head, at + 8, after, 0, 0))
        at = after
    if at > begun:
        if len(heads.runs) > _KEPT_RUNS:
            heads.runs.clear()
        heads.runs[key] = at - begun, tuple((head, a - begun, b - begun) for head, a, b, _, _ in found[count:])
    return at


def _may_repeat(found: list[Found], count: int) -> bool:
    """Whether of what a sequence handed out it matters only that it stands there, not how often and where."""
    return not any(head.vr == "UI" or head.tag >> 16 & 1 or head.tag == 0x00080005 for head, *_ in found[count:])


def _after_fragments(data: bytes, at: int, size: int, long: Callable[[bytes, int], tuple[int, ...]]) -> int:
    """Behind the frames of an icon."""
    while at + 8 <= len(data):
        tag, length = data[at : at + 4], long(data, at + 4)[0]
        if tag == b"\xfe\xff\xdd\xe0":
            return at + 8
        if tag != _ITEM_TAG:
            raise Illegible("an undefined length where none may be")
        at += 8 + length
    raise _Further if len(data) < size else Illegible("ends inside an element")
