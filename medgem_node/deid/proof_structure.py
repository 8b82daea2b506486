"""What a copy must not hold whatever its values are, and whether its references lead where the original's led."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files

from medgem_node.deid.options import Option
from medgem_node.deid.proof_needles import PRIVATE, is_instance_uid
from medgem_node.deid.proof_reader import File, Illegible
from medgem_node.dictionary import name_of

PREAMBLE, BEHIND, COMMENT, REFERENCES = "preamble", "bytes after the data set", "a comment in a frame", "references"

_ENCODER = re.compile(
    rb"[\0\1\s]*(?:created by |encoded by )?(?:kakadu|openjpeg|jasper|aware|grok|libjpeg|lead)[-\w.() ]{0,24}\0*",
    re.IGNORECASE,
)
"""A comment that names the software that compressed the frame, and nobody."""
_META = frozenset({0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013})
_FORBIDDEN = frozenset({0x00880200, 0x04000500, 0x04000550, 0x04000561, 0x4FFE0001, 0xFFFAFFFA, 0xFFFCFFFC})
"""Icons, encrypted, modified and original attributes, MACs, signatures and padding: nobody can look into them."""


def faults(copy: File, options: frozenset[Option]) -> set[str]:
    """What a copy holds that it may not, by keyword or a fixed word."""
    found = {name_of(head.tag) for head, start, stop, _, _ in copy.meta if head.tag not in _META and start < stop}
    if copy.preamble.strip(b"\0"):
        found.add(PREAMBLE)
    groups = (0x50,) if Option.CLEAN_GRAPHICS in options else (0x50, 0x60)
    removed = b""
    creators: dict[tuple[int, int], str] = {}
    for head, start, stop, _, depth in copy.elements:
        tag = head.tag
        if tag == 0x00120062 and not depth:
            removed = copy.data[start:stop].strip(b" \0")
        elif tag >> 16 & 1:
            if Option.RETAIN_SAFE_PRIVATE not in options or not _is_safe(copy, tag, start, stop, creators):
                found.add(PRIVATE)
        elif tag >> 24 in groups or (tag in _FORBIDDEN and stop > start):
            found.add(name_of(tag))
    if removed != b"YES":
        found.add("PatientIdentityRemoved")
    if _bytes_behind(copy):
        found.add(BEHIND)
    return found | ({COMMENT} if copy.packed and _has_comment(copy.packed) else set())


def dangling(before: File, after: File) -> set[str]:
    """Whether one UID became two or two became one: then a reference leads nowhere, or to something else."""
    own = {after.data[a:b].strip(b"\0 ") for head, a, b, _, _ in after.meta if head.tag == 0x00020003}
    places, copies = _uids(before), _uids(after)
    if own != set(copies.get((0x00080018, 0, 0), ())):
        return {REFERENCES}
    mapped: dict[bytes, bytes] = {}
    origin: dict[bytes, bytes] = {}
    for place, uids in places.items():
        made = copies.get(place, [])
        if len(made) != len(uids):
            continue  # some went: which is not to be told
        for uid, new in zip(uids, made, strict=True):
            if mapped.setdefault(uid, new) != new or origin.setdefault(new, uid) != uid:
                return {REFERENCES}
    return set()


def _uids(file: File) -> dict[tuple[int, int, int], list[bytes]]:
    found: dict[tuple[int, int, int], list[bytes]] = {}
    data = file.data
    for head, start, stop, inside, depth in file.elements:
        _, tag, vr, _ = head
        if vr == "UI" and start < stop and not (inside | tag) >> 16 & 1:
            value = data[start:stop].strip(b"\0 ")
            if is_instance_uid(name_of(tag), value):
                found.setdefault((tag, inside, depth), []).append(value)
    return found


def _is_safe(copy: File, tag: int, start: int, stop: int, creators: dict[tuple[int, int], str]) -> bool:
    """Whether a private attribute is one of PS3.15 Table E.3.10-1, by its creator; creators of such may stand too."""
    number = tag & 0xFFFF
    if number < 0x100:
        creator = copy.data[start:stop].decode("latin-1").strip(" \0")
        creators[tag >> 16, number] = creator
        return creator in {name for name, _, _ in _safe()}
    creator = creators.get((tag >> 16, number >> 8), "")
    return (creator, tag >> 16, number & 0xFF) in _safe()


@cache
def _safe() -> frozenset[tuple[str, int, int]]:
    rows = json.loads(files(__package__).joinpath("safe_private.json").read_text("utf-8"))["rows"]
    return frozenset((creator, int(tag[:4], 16), int(tag[-2:], 16)) for creator, tag, *_ in rows)


def _bytes_behind(copy: File) -> bool:
    """Whether anything but a pad byte follows the pixels."""
    at, data = copy.pixels_at, copy.data
    if at >= copy.size:
        return False
    end = "little" if copy.little else "big"
    if copy.packed:
        return bool(_frames(copy.packed)[1])
    start = at + (8 if copy.implicit else 12)
    length = int.from_bytes(data[start - 4 : start], end)  # type: ignore[arg-type]
    if start + length > copy.size:
        raise Illegible("fewer pixels than their length says")
    return start + length < copy.size


def _frames(packed: bytes) -> tuple[list[tuple[int, int]], bytes]:
    """Where the fragments lie, and what follows the last."""
    at, found = 12, []
    while packed[at : at + 4] == b"\xfe\xff\x00\xe0":
        length = int.from_bytes(packed[at + 4 : at + 8], "little")
        found.append((at + 8, at + 8 + length))
        at += 8 + length
    return found, packed[at + 8 :] if packed[at : at + 4] == b"\xfe\xff\xdd\xe0" else packed[at:] or b"?"


def _has_comment(packed: bytes) -> bool:
    """Whether a JPEG or JPEG 2000 stream carries a comment, or an application's segment of no colour (JFIF, Adobe)."""
    return any(_comments(packed, *span) for span in _frames(packed)[0][1:])


def _comments(packed: bytes, at: int, stop: int) -> bool:
    first = packed[at : at + 2]
    if first not in (b"\xff\xd8", b"\xff\x4f"):
        return False
    at += 2
    while at + 4 <= stop and packed[at] == 0xFF:
        marker = packed[at + 1]
        if marker in (0xDA, 0x90):  # pixels from here on
            return False
        length = int.from_bytes(packed[at + 2 : at + 4], "big")
        value = packed[at + 4 : at + 2 + length]
        if (
            marker in ((0xFE,) if first == b"\xff\xd8" else (0x64,))
            and value.strip(b"\0 \1")
            and not _ENCODER.fullmatch(value)
        ):
            return True
        at += 2 + length
    return False
