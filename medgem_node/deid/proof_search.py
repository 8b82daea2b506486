"""The slow look at a copy, at what the quick one has come upon: which value is it, and is it the patient's?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from medgem_node.deid import proof_text
from medgem_node.deid.proof_needles import LISTED, Needle
from medgem_node.deid.proof_reader import Buffer, File, Wanted, opened

_ALL = Wanted(LISTED, everything=True)
_BINARY = frozenset({"AT", "FD", "FL", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV", "UL", "US", "UV"})
_FIGURES = frozenset({"DS", "IS", "TM"})
_CODES = frozenset({0x00080100, 0x00080102, 0x00080103, 0x00080104, 0x00080105, 0x00080106, 0x0008010B, 0x0008010F})
_PUBLIC = frozenset(
    {"DCM", "SCT", "SRT", "SNM3", "99SDM", "LN", "UCUM", "RADLEX", "NCIT", "FMA", "MSH", "UMLS", "BI", "I9", "I9C",
     "I10", "I10P", "ICDO3", "RXNORM", "NEU", "MDC", "C4", "CPT4", "RFC5646", "RFC3066", "ISO639_1",
     "ISO639_2", "ISO3166_1"}
)  # fmt: skip


class Leaf(NamedTuple):
    """A value: where it stands, its bytes and its readings; `is_public` if it belongs to a published code."""

    tag: int
    vr: str
    raw: bytes
    texts: tuple[str, ...]
    is_listed: bool
    is_public: bool


@dataclass(slots=False)
class Look:
    """Both files in full, read when first asked for."""

    original: Buffer
    copy: tuple[Buffer, ...]
    is_shifted: bool

    @cached_property
    def leaves(self) -> list[Leaf]:
        """Every value of the copy."""
        return list(_leaves(opened(self.copy, _ALL)))

    @cached_property
    def told_elsewhere(self) -> str:
        """What the original says in attributes that may stay."""
        stays = (leaf for leaf in _leaves(opened((self.original,), _ALL)) if not leaf.is_listed and leaf.tag >> 16 > 2)
        return "\\".join(
            proof_text.compact(text)
            for leaf in stays
            if leaf.vr != "AE" and not leaf.tag >> 16 & 1
            for text in leaf.texts
        )

    def confirmed(self, candidates: Iterable[Needle], common: set[Needle]) -> Iterator[Needle]:
        """Those that stand in a value; what the original says elsewhere goes to `common`."""
        for needle in candidates:
            if needle.kind == "text" and needle.text in self.told_elsewhere:
                common.add(needle)
            elif any(self._stands(needle, leaf) for leaf in self.leaves):
                yield needle

    def holds_bytes(self, data: bytes) -> bool:
        """Whether bytes stand in a value that is no row of numbers."""
        return any(data in leaf.raw for leaf in self.leaves if leaf.vr not in _BINARY or len(data) >= 8)

    def says(self, pattern: re.Pattern[str]) -> bool:
        """Whether a text matches."""
        return any(pattern.search(t) for leaf in self.leaves for t in leaf.texts if leaf.vr not in _BINARY | {"UI"})

    def _stands(self, needle: Needle, leaf: Leaf) -> bool:
        if needle.kind == "day":
            if leaf.vr == "UI" or (self.is_shifted and leaf.vr in ("DA", "DT")):
                return False
            pattern = _day(needle.text, leaf.vr in _FIGURES)
        elif (leaf.vr in _BINARY and len(needle.text) < 6) or (needle.kind == "text" and leaf.is_public):
            return False
        else:
            pattern = _pattern(needle.text, needle.kind, leaf.vr in _FIGURES or leaf.vr in ("UI", "DA", "DT"))
        return any(pattern.search(text) for text in leaf.texts) or (
            needle.kind in ("name", "number") and len(needle.text) >= 8 and _is_disguised(needle, leaf)
        )


def may_stand(needle: Needle, text: str) -> bool:
    """Whether to look slowly: its characters stand there together, whatever is around them."""
    if needle.kind in ("name", "number") and len(needle.text) >= 8:
        return True  # it may be disguised
    return _loose(needle.text, needle.kind).search(text) is not None


@lru_cache(4096)
def _loose(text: str, kind: str) -> re.Pattern[str]:
    if kind == "day":
        year, month, day = text[:4], "0?" + text[4:6].lstrip("0"), "0?" + text[6:].lstrip("0")
        orders = ((year, month, day), (day, month, year), (month, day, year))
        return re.compile("|".join(r"[\W_]{0,2}".join(order) for order in orders))
    return re.compile(r"[^\w\\]{0,2}_?".join(map(re.escape, text)))


def _leaves(file: File) -> Iterator[Leaf]:
    codecs: tuple[str, ...] = ()
    is_public = False
    for head, start, stop, inside, _ in (*file.meta, *file.elements):
        if head.vr == "SQ" or stop <= start:
            continue
        raw = file.data[start:stop]
        if head.tag == 0x00080005:
            codecs = proof_text.declared(raw)
        if head.tag == 0x00080100:
            is_public = _scheme(file, stop) in _PUBLIC
        if head.vr in _BINARY:
            texts: tuple[str, ...] = (raw.replace(b"\0", b"").lower().decode("latin-1"),)
        else:
            texts = tuple(proof_text.folded(text) for text in proof_text.readings(raw, codecs))
        listed = head.tag in LISTED or inside in LISTED
        yield Leaf(head.tag, head.vr, raw.lower(), texts, listed, is_public and head.tag in _CODES)


def _scheme(file: File, at: int) -> str:
    """The Coding Scheme Designator that follows a Code Value at once."""
    found = re.match(rb"\x08\x00\x02\x01(?:SH..|....)|\x00\x08\x01\x02SH..", file.data[at : at + 8], re.DOTALL)
    value = re.match(rb"[A-Za-z0-9_]+", file.data[at + 8 : at + 24]) if found else None
    return value[0].decode("ascii").upper() if value else ""


@lru_cache(4096)
def _pattern(text: str, kind: str, is_figure: bool) -> re.Pattern[str]:
    """A needle with what may stand between its characters, and around it."""
    if text.isdigit():
        gap = r"[\W_]?" if len(text) >= 8 and not is_figure else ""
        return re.compile(r"(?<!\d)(?<!\d\.)" + gap.join(text) + r"(?!\d)(?!\.\d)")
    if is_figure and kind != "number":
        return re.compile(r"(?!)")
    body = r"[^\w\\]{0,2}_?".join(map(re.escape, text))
    if len(text) < 6 or (kind in ("both", "text") and len(text) < 8):
        return re.compile(rf"(?<![^\W_]){body}(?![^\W_])")
    return re.compile(body)


@lru_cache(4096)
def _day(digits: str, is_figure: bool) -> re.Pattern[str]:
    year, month, day = digits[:4], digits[4:6], digits[6:]
    if is_figure:
        return re.compile(rf"(?<!\d)(?<!\d\.){digits}")
    gap = r"[-./ _:,年月]{0,2}"
    m, d = (part if part[0] != "0" else "0?" + part[1] for part in (month, day))
    sure = r"[-./ _:,年月]{1,2}"
    orders = [(year, m, d), (d, m, year), (m, d, year)]
    forms = [
        f"{year}{gap}{month}{gap}{day}",
        f"{day}{gap}{month}{gap}{year}(?!\\d)",
        f"{month}{gap}{day}{gap}{year}(?!\\d)",
    ]
    forms += [sure.join(order) + r"(?!\d)" for order in orders]
    return re.compile(r"(?<!\d)(?<!\d\.)(?:" + "|".join(forms) + ")")


def _is_disguised(needle: Needle, leaf: Leaf) -> bool:
    tight = proof_text.compact_bytes(leaf.raw)
    return any(code in tight for code in _codes(needle))


@lru_cache(1024)
def _codes(needle: Needle) -> tuple[bytes, ...]:
    from medgem_node.deid.proof_needles import disguised

    return tuple(disguised(needle))
