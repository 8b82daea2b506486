"""Where the parts of a Part 10 file lie, and its elements as bytes (PS3.10 section 7, PS3.5 section 7).

Stricter than pydicom on purpose: it answers every byte of the header or raises Broken, for what was skipped was
not looked at. Values stay as they were sent; nothing is decoded or encoded again.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from medgem_node import dictionary
from medgem_node.dictionary import UIDS

Value = bytes | list["Elements"]
Piece = bytes | bytearray | memoryview | mmap.mmap
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
UNDEFINED = 0xFFFFFFFF

LONG_VRS = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())  # noqa: SIM905
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_MOST_INFLATED_BYTES = 256 << 20  # as part10 has it
_PADDING = {"UI": b"\0", "OB": b"\0", "UN": b"\0"}


class Broken(ValueError):
    """The bytes break PS3.5; the message holds no value of theirs."""


class Element(NamedTuple):
    """One data element; the value is bytes as sent, or the items of a sequence. `vr` is empty when nothing tells it."""

    tag: int
    vr: str
    value: Value


Elements = list[Element]


@dataclass(frozen=True, slots=True)
class Syntax:
    """How a data set is written."""

    uid: str
    implicit: bool
    little: bool
    deflated: bool
    encapsulated: bool

    @classmethod
    def of(cls, uid: str) -> Syntax:
        """The transfer syntax of that UID. Raises Broken for one that PS3.6 does not name."""
        if UIDS.get(uid, ("", ""))[1] != "Transfer Syntax":
            raise Broken("an unknown transfer syntax")
        native = (_IMPLICIT, _EXPLICIT, _DEFLATED, _BIG_ENDIAN)
        return cls(uid, uid == _IMPLICIT, uid != _BIG_ENDIAN, uid == _DEFLATED, uid not in native)

    def number(self, value: bytes) -> int:
        """The first unsigned short or long of a value."""
        return int.from_bytes(value[: 4 if len(value) == 4 else 2], "little" if self.little else "big")


_META = Syntax("1.2.840.10008.1.2.1", implicit=False, little=True, deflated=False, encapsulated=False)
UNKNOWN_SYNTAX = Syntax("1.2.840.10008.1.2", implicit=True, little=True, deflated=False, encapsulated=False)


def split(data: bytes) -> tuple[Elements, Syntax, bytes]:
    """File meta information, transfer syntax and the data set's bytes, inflated. Raises Broken."""
    if data[128:132] != b"DICM":
        raise Broken("no Part 10 file")
    meta, start = _read(data, 132, len(data), _META, stop_group=2)
    uids = [e.value for e in meta if e.tag == 0x00020010 and isinstance(e.value, bytes)]
    if len(uids) != 1:
        raise Broken("no transfer syntax")
    syntax = Syntax.of(uids[0].decode("ascii").strip("\0 "))
    body = data[start:]
    return meta, syntax, _inflated(body) if syntax.deflated else body


@dataclass(frozen=True, slots=True)
class Opened:
    """A file whose data set begins at `at` of `body`: of the file itself, or of what was inflated."""

    syntax: Syntax
    body: bytes | mmap.mmap
    at: int


def opened(data: bytes | mmap.mmap) -> Opened:
    """Where the data set of a Part 10 file begins. Raises Broken."""
    if data[128:132] != b"DICM":
        raise Broken("no Part 10 file")
    at, uid, size = 132, b"", len(data)
    while at + 8 <= size and data[at : at + 2] == b"\2\0":
        tag, _, length, start = read_head(data, at, _META)
        at = start + length
        if tag == 0x00020010:
            if uid:
                raise Broken("two transfer syntaxes")
            uid = data[start:at]
    if not uid or at > size:
        raise Broken("no transfer syntax")
    syntax = _syntax(uid)
    return Opened(syntax, _inflated(data[at:]), 0) if syntax.deflated else Opened(syntax, data, at)


@cache
def _known_syntax(uid: str) -> Syntax:
    return Syntax.of(uid)


def _syntax(uid: bytes) -> Syntax:
    text = uid[:64].decode("ascii").strip("\0 ")
    return _known_syntax(text) if text in UIDS else Syntax.of(text)


def header(body: bytes, syntax: Syntax) -> tuple[Elements, int]:
    """The elements before the pixels, and where those begin. Raises Broken."""
    elements, end = _read(body, 0, len(body), syntax, stop_tags=PIXEL_TAGS)
    return elements, end


def items(value: bytes, syntax: Syntax) -> list[Elements]:
    """The items of a sequence of known length. Raises Broken."""
    found, end = _items(value, 0, len(value), syntax, undefined=False)
    if end != len(value):
        raise Broken("sequence of another length than it says")
    return found


def element(tag: int, vr: str, value: bytes | list[bytes], syntax: Syntax) -> bytes:
    """One element as bytes, padded to an even length; a list holds the items of a sequence."""
    if isinstance(value, list):
        value = b"".join(_tag(ITEM, syntax) + _length(len(i), syntax) + i for i in value)
    if len(value) & 1:
        value += _PADDING.get(vr, b" ")
    return element_head(tag, vr, len(value), syntax) + value


def element_head(tag: int, vr: str, length: int, syntax: Syntax) -> bytes:
    """Tag, VR and length. Raises Broken for a length that the VR cannot have."""
    if syntax.implicit:
        return _tag(tag, syntax) + _length(length, syntax)
    if vr in LONG_VRS:
        return _tag(tag, syntax) + vr.encode("ascii") + b"\0\0" + _length(length, syntax)
    if length > 0xFFFF or len(vr) != 2:
        raise Broken("a value that its VR cannot hold")
    return _tag(tag, syntax) + vr.encode("ascii") + struct.pack("<H" if syntax.little else ">H", length)


def join(meta: Iterable[tuple[int, str, bytes]], syntax: Syntax, parts: Iterable[bytes]) -> bytes:
    """A Part 10 file with an empty preamble."""
    return b"".join(pieces(meta, syntax, parts))


def pieces(meta: Iterable[tuple[int, str, bytes]], syntax: Syntax, parts: Iterable[Piece]) -> list[Piece]:
    """A Part 10 file with an empty preamble, in pieces; a deflated one is put together."""
    group_2 = b"".join(element(tag, vr, value, _META) for tag, vr, value in meta)
    length = element(0x00020000, "UL", struct.pack("<L", len(group_2)), _META)
    head = b"".join((b"\0" * 128, b"DICM", length, group_2))
    if not syntax.deflated:
        first, *rest = parts
        return [head + bytes(first), *rest]
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = packer.compress(b"".join(parts)) + packer.flush()
    return [head, body, b"\0" * (len(body) & 1)]


def vr_of(tag: int) -> str:
    """The VR of PS3.6, such as `US or SS`; empty for a tag that it does not name."""
    return dictionary.vr_of(tag)


def name_of(tag: int) -> str:
    """The keyword of PS3.6, else the tag."""
    return dictionary.name_of(tag)


def read_head(data: bytes | mmap.mmap, at: int, syntax: Syntax) -> tuple[int, str, int, int]:
    """Tag, VR (empty if none is written), length and where the value begins. Raises Broken."""
    if at + 8 > len(data):
        raise Broken("ends inside an element")
    end = "<" if syntax.little else ">"
    group, number = struct.unpack_from(end + "HH", data, at)
    tag = group << 16 | number
    vr = data[at + 4 : at + 6]
    if syntax.implicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
        return tag, "", struct.unpack_from(end + "L", data, at + 4)[0], at + 8  # some writers mix both in sequences
    if vr.decode("ascii") not in LONG_VRS:
        return tag, vr.decode("ascii"), struct.unpack_from(end + "H", data, at + 6)[0], at + 8
    if at + 12 > len(data):
        raise Broken("ends inside an element")
    return tag, vr.decode("ascii"), struct.unpack_from(end + "L", data, at + 8)[0], at + 12


def _read(
    data: bytes,
    at: int,
    end: int,
    syntax: Syntax,
    stop_tags: tuple[int, ...] = (),
    stop_group: int | None = None,
    undefined: bool = False,
) -> tuple[Elements, int]:
    """The elements from `at` to `end`, to a stop, or (`undefined`) to an item's delimiter."""
    elements: Elements = []
    while at < end:
        tag, vr, length, start = read_head(data, at, syntax)
        if tag in stop_tags or (stop_group is not None and tag >> 16 != stop_group):
            return elements, at
        if tag == ITEM_END and undefined:
            return elements, start
        if tag >> 16 == 0xFFFE:
            raise Broken("an item where an element should be")
        if length == UNDEFINED:
            if vr not in ("", "SQ", "UN"):
                raise Broken("an undefined length where none may be")
            found, at = _items(data, start, end, _nested(vr, syntax), undefined=True)
            elements.append(Element(tag, "SQ", found) if syntax.little or vr != "UN" else Element(tag, "UN", b""))
            continue
        at = start + length
        if at > end:
            raise Broken("a value that is longer than what holds it")
        elements.append(_parsed(tag, vr, data[start:at], syntax))
    if undefined:
        raise Broken("an item without its end")
    return elements, at


def _parsed(tag: int, vr: str, value: bytes, syntax: Syntax) -> Element:
    if tag >> 16 & 1 or (vr not in ("SQ", "", "UN")):
        return Element(tag, vr, value)  # private: leaves unread
    if vr == "UN" and not syntax.little:
        return Element(tag, vr, b"")  # other byte order inside (PS3.5 6.2.2): not worth a second reader
    if vr == "SQ" or vr_of(tag) == "SQ":
        return Element(tag, "SQ", items(value, _nested(vr, syntax)))
    return Element(tag, vr, value)


def _nested(vr: str, syntax: Syntax) -> Syntax:
    """The items of a sequence under UN are implicit, little endian (PS3.5 6.2.2)."""
    return UNKNOWN_SYNTAX if vr == "UN" else syntax


def _items(data: bytes, at: int, end: int, syntax: Syntax, undefined: bool) -> tuple[list[Elements], int]:
    found: list[Elements] = []
    while undefined or at < end:
        tag, _, length, start = read_head(data, at, syntax)
        if tag == SEQUENCE_END:
            if not undefined:
                raise Broken("a sequence that ends twice")
            return found, start
        if tag != ITEM or (length != UNDEFINED and start + length > end):
            raise Broken("a sequence of other things than items")
        inside = end if length == UNDEFINED else start + length
        item, at = _read(data, start, inside, syntax, undefined=length == UNDEFINED)
        found.append(item)
    return found, at


def _inflated(data: bytes) -> bytes:
    packer = zlib.decompressobj(-zlib.MAX_WBITS)
    body = packer.decompress(data, _MOST_INFLATED_BYTES)
    if not packer.eof:
        raise Broken("a deflated data set without end")
    return body


def _tag(tag: int, syntax: Syntax) -> bytes:
    return struct.pack("<HH" if syntax.little else ">HH", tag >> 16, tag & 0xFFFF)


def _length(length: int, syntax: Syntax) -> bytes:
    return struct.pack("<L" if syntax.little else ">L", length)
