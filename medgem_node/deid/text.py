"""Who is named in a header, and what is left of a text without them.

Names, numbers and days are compared in one spelling (`spelling`): whatever case, accents, width, order and separators
they were written with. Words that are also a body part or a protocol (`vocabulary`), and single letters, name somebody
only beside the rest of his name or behind a word that says so.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from medgem_node.deid import patterns
from medgem_node.deid.charset import Charset, charset, decoded, encoded
from medgem_node.deid.layout import Elements
from medgem_node.deid.needles import (
    ANYWHERE,
    BEHIND,
    NUMBER,
    STOPPED,
    WORD,
    days,
    identifier,
    is_common,
    person,
    persons,
)
from medgem_node.deid.spelling import Spelled, compact_ascii, folded, one_spelling
from medgem_node.deid.vocabulary import TERMS
from medgem_node.dictionary import vr_of

__all__ = ["IDENTIFIERS", "TERMS", "Charset", "Identity", "Named", "charset_of", "decoded", "encoded", "is_naming"]

IDENTIFIERS = frozenset(
    {
        0x00100020, 0x00100021, 0x00101000, 0x00101090, 0x00102154, 0x00102155, 0x00101040, 0x00101050, 0x00080050,
        0x00200010, 0x00380010, 0x00380014, 0x00380060, 0x00380064, 0x00380300, 0x00380400, 0x00401001, 0x00400009,
        0x00400253, 0x00402016, 0x00402017, 0x00402006, 0x00402007, 0x00402010, 0x00402008, 0x00402009, 0x00080092,
        0x00080094, 0x00080080, 0x00080081, 0x00081040, 0x00120010, 0x00120030, 0x00120031, 0x00120040, 0x00120042,
        0x00100011, 0x00100012, 0x00100013, 0x00100014, 0x00100015, 0x00181000, 0x0040A07A,
    }
)  # fmt: skip
"""IDs, numbers, addresses, telephones and places whose value must not turn up in another text."""

REMOVED = "[removed]"
_WIDEST_GAP = 3
_REMEMBERED = 4096


_CONTROL = re.compile(rb"[\x1b-\x1f]")


class Named(NamedTuple):
    """One value of a header that may name somebody: bytes as sent, and the codecs of its data set."""

    tag: int
    vr: str
    value: bytes
    charset: Charset | None


def is_naming(tag: int, vr: str) -> bool:
    """Whether an attribute's value names somebody or a day: what `Identity.of` looks at."""
    if vr in ("", "UN"):
        vr = vr_of(tag)
    return vr in ("PN", "DA", "DT") or tag in IDENTIFIERS


def charset_of(elements: Elements, inherited: Charset | None) -> Charset | None:
    """The codecs of a data set; None when its Specific Character Set is unknown."""
    for element in elements:
        if element.tag == 0x00080005 and isinstance(element.value, bytes):
            return charset(element.value)
        if element.tag > 0x00080005:
            break
    return inherited


def named(elements: Elements, inherited: Charset | None = ("latin_1",)) -> Iterator[Named]:
    """What names somebody in a data set, at every depth."""
    codecs = charset_of(elements, inherited)
    for element in elements:
        if isinstance(element.value, list):
            for item in element.value:
                yield from named(item, codecs)
        elif is_naming(element.tag, element.vr):
            yield Named(element.tag, element.vr, element.value, codecs)


@dataclass(frozen=True, slots=True)
class Identity:
    """What names the patient and the staff of an instance: needles in one spelling, with how each must stand.

    Answers are remembered: a series asks the same of every slice.
    """

    needles: dict[str, int]
    initials: frozenset[str]
    _words: frozenset[bytes] = field(repr=False)
    _parts: tuple[bytes, ...] = field(repr=False)
    _named: OrderedDict[bytes, bool] = field(default_factory=OrderedDict, compare=False, repr=False)
    _cleaned: OrderedDict[str, list[patterns.Span]] = field(default_factory=OrderedDict, compare=False, repr=False)

    @classmethod
    def of(cls, named: Iterable[Named]) -> Identity:
        """Names, identifiers and days of a header; made once for the same ones."""
        values = (
            (kind, value[:8] if kind == "D" else value, codecs)
            for tag, vr, value, codecs in named
            if (kind := _kind(tag, vr))
        )
        key = frozenset(values)
        known = _IDENTITIES.get(key)
        if known is None:
            known = _IDENTITIES[key] = cls._made(key)
            if len(_IDENTITIES) > 64:
                _IDENTITIES.popitem(last=False)
        return known

    @classmethod
    def _made(cls, values: frozenset[_Value]) -> Identity:
        needles: dict[str, int] = {}
        initials: set[str] = set()
        for kind, value, codecs in values:
            text = (decoded(value, codecs) or value.decode("latin-1")).strip(" \0")
            if kind == "D":
                needles.update(days(text))
            elif kind == "N":
                for words in persons(text):
                    needles.update(person(words))
                    initials.update(folded(word[0])[:1] for word in words)
            else:
                for each in text.split("\\"):
                    needles.update(identifier(each))
        needles.pop("", None)
        plain = {needle: how for needle, how in needles.items() if needle.isascii()}
        return cls(
            needles,
            frozenset(initials),
            frozenset(needle.encode() for needle, how in plain.items() if how == WORD),
            tuple(n.encode() for n, how in plain.items() if how != WORD and not n.isdigit()),
        )

    def may_name(self, raw: bytes) -> bool:
        """Whether `cleaned` would change a value, or one of many values joined by any character that is no letter.

        False is sure. True for anything but plain ASCII: separators of files and records are blanks to some, and no
        blanks to others.
        """
        known = self._named.get(raw)
        if known is not None:
            return known
        if not raw.isascii() or _CONTROL.search(raw):
            return True
        answer = self._suspects(raw) and bool(self.spans(raw.decode("ascii")))
        _remember(self._named, raw, answer)
        return answer

    def cleaned(self, text: str, limit: int = 0) -> str:
        """A text with `[removed]` for what names somebody; the rest stays.

        With a `limit` (the characters that the VR allows each value) a value that would be too long goes without
        the mark.
        """
        found = self.spans(text)
        return without(text, found, limit) if found else text

    def is_named_in(self, text: str) -> bool:
        """Whether a text names somebody of this header, or anybody."""
        return bool(self.spans(text))

    def is_own_in(self, text: str) -> bool:
        """Whether a text names somebody of this header; no other date, number or address counts."""
        return any(True for _ in self._identified(Spelled.of(text)))

    def is_number(self, value: bytes) -> bool:
        """Whether one of the numbers of a DS or IS is an identifier of six digits or more."""
        numbers = (n.strip(b" \0") for n in value.split(b"\\"))
        return any(len(n) > 5 and self.needles.get(n.decode("ascii", "replace")) == NUMBER for n in numbers)

    def spans(self, text: str) -> list[patterns.Span]:
        """Where a text names somebody: sorted, apart."""
        if text.isascii() and not self._suspects(text.encode("ascii")):
            return []
        known = self._cleaned.get(text)
        if known is None:
            spelled = Spelled.of(text)
            found = [spelled.span(*span) for span in self._identified(spelled)]
            for span, is_original in patterns.spans(text, spelled.folded, text.isascii()):
                found.append(span if is_original else spelled.span(*span))
            known = merged(found, text)
            if len(text) <= _REMEMBERED:
                _remember(self._cleaned, text, known)
        return known

    def _suspects(self, raw: bytes) -> bool:
        small = raw.lower()
        spelled = one_spelling(small)
        letters = compact_ascii(spelled)
        if any(part in letters for part in self._parts) or not self._words.isdisjoint(_WORDS.findall(spelled)):
            return True
        return b"00000" in letters.translate(_DIGITS) or patterns.may_be_in(raw, small)

    def _identified(self, spelled: Spelled) -> Iterator[patterns.Span]:
        """Spans of the folded text that this identity claims."""
        for needle, how in self.needles.items():
            at = spelled.compact.find(needle)
            while at >= 0:
                span, past = _span(spelled, at, len(needle), how)
                if span:
                    yield span if how == NUMBER else self._with_initials(spelled, span)
                at = spelled.compact.find(needle, past)

    def _with_initials(self, spelled: Spelled, span: patterns.Span) -> patterns.Span:
        """With the first letters of other names on both sides, and the s of a genitive."""
        start, end = span
        text = spelled.folded
        while (after := _AFTER.match(text, end)) and (
            after[1] in self.initials or after[0].rstrip(".") in ("'s", "’s")
        ):
            end = after.end()
        while (before := _BEFORE.search(text, max(start - 5, 0), start)) and before[1] in self.initials:
            start = before.start(1)
        return start, end


_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")
_Value = tuple[str, bytes, Charset | None]
_IDENTITIES: OrderedDict[frozenset[_Value], Identity] = OrderedDict()
_WORDS = re.compile(rb"[a-z]+")
_DIGITS = bytes(48 if 48 <= c <= 57 else c for c in range(256))
_AFTER = re.compile(r"[\s^,.'’]{1,3}([^\W\d_])(?![^\W_])\.?")
_GENITIVES = ("'s", "’s")
_BEFORE = re.compile(r"(?<![^\W_])([^\W\d_])[\s^,.]{1,3}$")


def without(text: str, found: Sequence[patterns.Span], limit: int = 0) -> str:
    """A text without these spans, marked; values between backslashes stay apart."""
    for mark in (REMOVED, ""):
        parts, at = [], 0
        for start, end in found:
            parts += [text[at:start], *_marks(text[start:end], mark)]
            at = end
        result = "".join([*parts, text[at:]])
        if not limit or all(len(value) <= limit for value in result.split("\\")):
            break
    return result


def _marks(removed: str, mark: str) -> list[str]:
    return ["\\".join(mark if part.strip() else part for part in removed.split("\\"))]


def _kind(tag: int, vr: str) -> str:
    """N for a name, D for a day, I for an identifier, else nothing."""
    if vr in ("", "UN"):
        vr = vr_of(tag)
    if tag in IDENTIFIERS:
        return "I"
    return {"PN": "N", "DA": "D", "DT": "D"}.get(vr, "")


def _span(spelled: Spelled, at: int, length: int, how: int) -> tuple[patterns.Span | None, int]:
    """Where a needle found at `compact[at]` stands in the folded text, if as it must, and where to search on."""
    last = at + length - 1
    start, end = spelled.starts[at + max(how - BEHIND, 0)], spelled.ends[last]
    gaps = [spelled.starts[k + 1] - spelled.ends[k] for k in range(at, last)]
    if how == ANYWHERE and not any(gaps):
        start, end = spelled.word(start, end)
        return (None if is_common(spelled.folded[start:end]) else (start, end)), bisect_left(spelled.starts, end)
    return ((start, end) if _stands(spelled, at, start, end, gaps, how) else None), at + 1


def _stands(spelled: Spelled, at: int, start: int, end: int, gaps: list[int], how: int) -> bool:
    widest = max(gaps, default=0)
    if widest > (0 if how == WORD else _WIDEST_GAP):
        return False
    if how == NUMBER:
        return _is_number_apart(spelled.folded, start, end)
    if not (spelled.is_edge(spelled.starts[at]) and spelled.is_edge(end)) or (how == ANYWHERE and len(gaps) < 5):
        return False
    return how != STOPPED or re.search(r"[.,]", spelled.folded[start : end + 1]) is not None


def _is_number_apart(text: str, start: int, end: int) -> bool:
    """Whether no digit stands directly before or after digits."""
    before = start > 0 and text[start - 1].isdigit() and text[start].isdigit()
    return not before and not (end < len(text) and text[end].isdigit() and text[end - 1].isdigit())


def merged(found: Iterable[patterns.Span], text: str) -> list[patterns.Span]:
    """Sorted, without overlaps; neighbours with nothing but separators between become one."""
    spans: list[patterns.Span] = []
    for start, end in sorted(found):
        if spans and (start <= spans[-1][1] or not text[spans[-1][1] : start].strip(" ^,.-_'=/")):
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return spans


def _remember(memory: OrderedDict[_Key, _Answer], key: _Key, answer: _Answer) -> None:
    memory[key] = answer
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)
