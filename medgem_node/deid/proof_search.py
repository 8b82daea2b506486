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
_VRS = ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UN", "UT", "US")
_SIGNS = bytes(n for n in range(128) if not chr(n).isalnum() and chr(n) != "\\")
_CODES = frozenset({0x00080100, 0x00080102, 0x00080103, 0x00080104, 0x00080105, 0x00080106, 0x0008010B, 0x0008010F})
_PUBLIC = frozenset(
    {"DCM", "SCT", "SRT", "SNM3", "99SDM", "LN", "UCUM", "RADLEX", "NCIT", "FMA", "MSH", "UMLS", "BI", "I9", "I9C",
     "I10", "I10P", "ICDO3", "RXNORM", "NEU", "MDC", "C4", "CPT4", "RFC5646", "RFC3066", "ISO639_1",
     "ISO639_2", "ISO3166_1"}
)  # fmt: skip


_FAR = "\\" * 8
"""Between values that are searched together: no pattern reaches over it."""


class Kind(NamedTuple):
    """What matters of where a value stands; `is_public` if it belongs to a published code."""

    vr: str
    is_public: bool


@dataclass(slots=False)
class Look:
    """Both files in full, read when first asked for."""

    original: Buffer
    copy: tuple[Buffer, ...]
    is_shifted: bool

    @cached_property
    def values(self) -> dict[Kind, dict[bytes, None]]:
        """Every value of the copy, each once."""
        found: dict[Kind, dict[bytes, None]] = {}
        for kind, raw, _ in _values(self._file):
            found.setdefault(kind, {})[raw] = None
        return found

    @cached_property
    def texts(self) -> dict[Kind, str]:
        """What the copy says, by kind."""
        codecs = self._codecs
        return {kind: _FAR.join(_readings(values, kind.vr, codecs)) for kind, values in self.values.items()}

    @cached_property
    def told_elsewhere(self) -> str:
        """What the original says in attributes that may stay."""
        file = opened((self.original,), _ALL)
        stays: dict[bytes, None] = {}
        for kind, raw, (tag, is_listed) in _values(file):
            if not is_listed and tag >> 16 > 2 and kind.vr != "AE" and not tag >> 16 & 1 and kind.vr not in _BINARY:
                stays[raw] = None
        return "\\".join(map(_compact, _readings(stays, "LO", _declared(file))))

    def confirmed(self, candidates: Iterable[Needle], common: set[Needle]) -> Iterator[Needle]:
        """Those that stand in a value; what the original says elsewhere goes to `common`."""
        for needle in candidates:
            if any(self._stands(needle, kind, text) for kind, text in self.texts.items()):
                if needle.kind == "text" and needle.text in self.told_elsewhere:
                    common.add(needle)
                else:
                    yield needle

    def holds_bytes(self, data: bytes) -> bool:
        """Whether bytes stand in a value that is no row of numbers."""
        return any(
            data in raw.lower()
            for kind, values in self.values.items()
            if kind.vr not in _BINARY or len(data) >= 8
            for raw in values
        )

    def says(self, pattern: re.Pattern[str]) -> bool:
        """Whether a text matches."""
        return any(pattern.search(text) for kind, text in self.texts.items() if kind.vr not in _BINARY | {"UI"})

    @cached_property
    def _file(self) -> File:
        return opened(self.copy, _ALL)

    @cached_property
    def _codecs(self) -> tuple[str, ...]:
        return _declared(self._file)

    def _stands(self, needle: Needle, kind: Kind, text: str) -> bool:
        vr = kind.vr
        if needle.kind == "day":
            if vr == "UI" or (self.is_shifted and vr in ("DA", "DT")):
                return False
            pattern = _day(needle.text, vr in _FIGURES)
        elif (vr in _BINARY and len(needle.text) < 6) or (needle.kind == "text" and kind.is_public):
            return False
        else:
            pattern = _pattern(needle.text, needle.kind, vr in _FIGURES or vr in ("UI", "DA", "DT"))
        return pattern.search(text) is not None or (
            needle.kind in ("name", "number")
            and len(needle.text) >= 8
            and any(_is_disguised(needle, raw) for raw in self.values[kind])
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


def _values(file: File) -> Iterator[tuple[Kind, bytes, tuple[int, bool]]]:
    """Kind, bytes, tag and whether it is listed or inside of what is."""
    is_public = False
    data = file.data
    kinds = {(vr, public): Kind(vr, public) for vr in _VRS for public in (False, True)}
    for head, start, stop, inside, _ in (*file.meta, *file.elements):
        _, tag, vr, _ = head
        if vr == "SQ" or stop <= start:
            continue
        if tag == 0x00080100:
            is_public = _scheme(file, stop) in _PUBLIC
        kind = kinds.get((vr, is_public and tag in _CODES)) or Kind(vr, is_public and tag in _CODES)
        yield kind, data[start:stop], (tag, tag in LISTED or inside in LISTED)


def _declared(file: File) -> tuple[str, ...]:
    return tuple(
        codec
        for head, start, stop, _, _ in file.elements
        if head.tag == 0x00080005
        for codec in proof_text.declared(file.data[start:stop])
    )


def _readings(values: Iterable[bytes], vr: str, codecs: tuple[str, ...]) -> Iterator[str]:
    """Every reading of every value, folded; what is plain at once."""
    if vr in _BINARY:
        yield _FAR.join(raw.decode("latin-1") for raw in values).replace("\0", "").lower()
        return
    plain = []
    for raw in values:
        if raw.isascii() and b"\x1b" not in raw:
            plain.append(raw)
        else:
            yield from map(proof_text.folded, proof_text.readings(raw, codecs))
    yield _FAR.encode().join(plain).replace(b"\0", b"").decode("ascii").lower()


def _compact(text: str) -> str:
    """Letters and digits, and what divides values."""
    if text.isascii():
        return text.encode().translate(None, _SIGNS).decode()
    return proof_text.compact(text)


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


def _is_disguised(needle: Needle, raw: bytes) -> bool:
    tight = proof_text.compact_bytes(raw)
    return any(code in tight for code in _codes(needle))


@lru_cache(1024)
def _codes(needle: Needle) -> tuple[bytes, ...]:
    from medgem_node.deid.proof_needles import disguised

    return tuple(disguised(needle))
