"""Who is named in a header, and what is left of a text without them.

Names, numbers and days are compared in one spelling (`spelling`): whatever case, accents, width, order and separators
they were written with. Words that are also a body part or a protocol (`vocabulary`), and single letters, name somebody
only beside the rest of his name or behind a word that says so.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import NamedTuple, TypeVar

from medgem_node.deid import patterns, vocabulary
from medgem_node.deid.charset import Charset, charset, decoded, encoded
from medgem_node.deid.layout import Elements
from medgem_node.deid.spelling import Spelled, compact, compact_ascii, folded, is_ideographic
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

TERMS = frozenset(
    """
    ORIGINAL DERIVED PRIMARY SECONDARY OTHER AXIAL LOCALIZER VOLUME NONE MIXED MONOCHROME1 MONOCHROME2 RGB YES NO
    YBR_FULL YBR_FULL_422 YBR_ICT YBR_RCT YBR_PARTIAL_420 IDENTITY INVERSE LIN LOG DISP FOR PRESENTATION PROCESSING
    HU US UNSPECIFIED LINEAR LINEAR_EXACT SIGMOID CR DX MG IO CT MR PT NM XA RF L R B U A P H F M AP PA LL RL LLD RLD
    LLO RLO LAT HFS FFS HFP FFP HFDR HFDL FFDR FFDL CHEST ABDOMEN PELVIS HEAD SKULL NECK BRAIN HEART LUNG LIVER BREAST
    SPINE CSPINE TSPINE LSPINE SSPINE SHOULDER ARM ELBOW FOREARM WRIST HAND FINGER HIP LEG THIGH KNEE CALF ANKLE FOOT
    TOE CLAVICLE RIB STERNUM JAW EXTREMITY WHOLEBODY PORTABLE CASSETTE STORAGE FILM BUCKY ISO_2022_IR_6
    ISO_2022_IR_87 ISO_IR_100 ISO_IR_192 UNMODIFIED MODIFIED REMOVED ABSOLUTE PERCENTAGE CONSTANT
    """.split()  # noqa: SIM905
)
"""Standard terms of CS attributes that a detector reads; they stay even when a patient is called Hand or Foot."""

REMOVED = "[removed]"
_PARTICLES = frozenset(
    """
    van von der den de del della di da dos das do du la le el al bin ibn ben abu st saint san zu zum zur ten ter mac mc
    dr dres prof med mr mrs ms herr frau jr sr phd md ii iii unknown anonymous anonym none null patient test phantom
    """.split()  # noqa: SIM905
)
_NAMES_FIRST = frozenset({"li", "kim"})  # though German writes its left side and contrast medium so
_PLACES = frozenset(
    """
    hospital hospitals hopital ospedale klinik klinikum kliniken clinic clinica clinique krankenhaus university
    universitat universitatsklinikum universite universitaire universidad centre center centrum centro health
    healthcare institute institut instituto praxis department dept abteilung service street strasse road avenue
    platz rue calle via group general regional national memorial community county city saint sankt
    """.split()  # noqa: SIM905
)
_INTRODUCED = ("patient", "patientname", "name", "pat", "paciente", "surname")
_HONORIFICS = ("先生", "女士", "小姐", "医生", "様", "さん", "氏", "殿", "씨", "님")
_SEPARATORS = re.compile(r"[\s^=,.;:/\\_\-'’()\0]+")
_WIDEST_GAP = 3
_REMEMBERED = 4096

_ANYWHERE, _EDGES, _NUMBER, _STOPPED = range(4)  # how a needle must stand; from 4 on: behind so many letters less 4


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
    _short: re.Pattern[bytes] | None = field(repr=False)
    _long: tuple[bytes, ...] = field(repr=False)
    _named: OrderedDict[bytes, bool] = field(default_factory=OrderedDict, compare=False, repr=False)
    _cleaned: OrderedDict[str, list[patterns.Span]] = field(default_factory=OrderedDict, compare=False, repr=False)

    @classmethod
    def of(cls, named: Iterable[Named]) -> Identity:
        """Names, identifiers and days of a header; made once for the same ones."""
        values = tuple(
            (tag, kind, value[:8] if kind == "D" else value, codecs)
            for tag, vr, value, codecs in named
            if (kind := _kind(tag, vr))
        )
        known = _IDENTITIES.get(values)
        if known is None:
            known = _IDENTITIES[values] = cls._made(values)
            if len(_IDENTITIES) > 64:
                _IDENTITIES.popitem(last=False)
        return known

    @classmethod
    def _made(cls, values: tuple[_Value, ...]) -> Identity:
        needles: dict[str, int] = {}
        initials: set[str] = set()
        for _, kind, value, codecs in dict.fromkeys(values):
            text = (decoded(value, codecs) or value.decode("latin-1")).strip(" \0")
            if kind == "D":
                needles.update(_days(text))
            elif kind == "N":
                for words in _persons(text):
                    needles.update(_person(words))
                    initials.update(folded(word[0])[:1] for word in words)
            else:
                for each in text.split("\\"):
                    needles.update(_identifier(each))
        needles.pop("", None)
        plain = [n for n in needles if n.isascii()]
        short = [n for n in plain if len(n) < 4]
        pattern = "|".join(rf"{n}(?<![a-z]{n})" for n in sorted(short))
        return cls(
            needles,
            frozenset(initials),
            re.compile(f"(?:{pattern})(?![a-z])".encode()) if short else None,
            tuple(n.encode() for n in plain if len(n) > 3 and not n.isdigit()),
        )

    def may_name(self, raw: bytes) -> bool:
        """Whether `cleaned` would change a value, or one of many values joined by any character that is no letter.

        False is sure. True for anything but plain ASCII.
        """
        known = self._named.get(raw)
        if known is not None:
            return known
        if not raw.isascii() or b"\x1b" in raw:
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

    def is_number(self, value: bytes) -> bool:
        """Whether one of the numbers of a DS or IS is an identifier of six digits or more."""
        numbers = (n.strip(b" \0") for n in value.split(b"\\"))
        return any(len(n) > 5 and self.needles.get(n.decode("ascii", "replace")) == _NUMBER for n in numbers)

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
            known = _merged(found, text)
            if len(text) <= _REMEMBERED:
                _remember(self._cleaned, text, known)
        return known

    def _suspects(self, raw: bytes) -> bool:
        small = raw.lower()
        letters = compact_ascii(raw)
        if any(needle in letters for needle in self._long):
            return True
        if self._short and (self._short.search(small) or b"ae" in small or b"oe" in small or b"ue" in small):
            return True
        return b"00000" in letters.translate(_DIGITS) or patterns.may_be_in(small)

    def _identified(self, spelled: Spelled) -> Iterator[patterns.Span]:
        """Spans of the folded text that this identity claims."""
        for needle, how in self.needles.items():
            at = spelled.compact.find(needle)
            while at >= 0:
                span = _span(spelled, at, len(needle), how)
                if span:
                    yield span if how == _NUMBER else self._with_initials(spelled, span)
                at = spelled.compact.find(needle, at + 1)

    def _with_initials(self, spelled: Spelled, span: patterns.Span) -> patterns.Span:
        """With the first letters of other names on both sides, and the s of a genitive."""
        start, end = span
        text = spelled.folded
        while (after := _AFTER.match(text, end)) and (after[1] in self.initials or after[0] in ("'s", "’s")):
            end = after.end()
        while (before := _BEFORE.search(text, max(start - 5, 0), start)) and before[1] in self.initials:
            start = before.start(1)
        return start, end


_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")
_Value = tuple[int, str, bytes, Charset | None]
_IDENTITIES: OrderedDict[tuple[_Value, ...], Identity] = OrderedDict()
_DIGITS = bytes(48 if 48 <= c <= 57 else c for c in range(256))
_AFTER = re.compile(r"[\s^,.'’]{1,3}([^\W\d_])(?![^\W_])\.?")
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


def _persons(text: str) -> Iterator[list[str]]:
    """The words of each group of each name (PS3.5 6.2.1): family, given and middle name."""
    for group in text.replace("\\", "=").split("="):
        words = [word for part in group.split("^")[:3] for word in _SEPARATORS.split(part) if word]
        if words:
            yield list(dict.fromkeys(words))[:8]


def _person(words: list[str]) -> dict[str, int]:
    """A name as it may be written: its words, or those that say too little alone together with others."""
    needles: dict[str, int] = {}
    weak = {word for word in words if _is_weak(word)}
    for word in words:
        if word not in weak or (len(compact(word)) > 3 and folded(word) not in _PARTICLES):
            needles.update(_forms(word))  # a common one inside a word that is none
        if word in weak and len(word) > 1 and len(compact(word)) > 2 and folded(word) not in _PARTICLES:
            needles.update({compact(before) + compact(word): 4 + len(compact(before)) for before in _INTRODUCED})
    for one, other in permutations(words, 2):
        if one in weak or other in weak:
            needles[compact(one) + compact(other)] = _together(one, other)
        if one in weak and len(one) > 2 and not is_ideographic(one + other):
            needles.setdefault(compact(one) + compact(other[0]), _STOPPED)
            needles.setdefault(compact(other[0]) + compact(one), _STOPPED)
    if weak and is_ideographic(words[0]):
        needles.update({compact(words[0] + honorific): _ANYWHERE for honorific in _HONORIFICS})
    return needles


def _together(one: str, other: str) -> int:
    """How two names must stand side by side; a letter beside a common word needs a full stop or comma."""
    if is_ideographic(one + other):
        return _ANYWHERE
    return _STOPPED if min(len(one), len(other)) == 1 else _EDGES


def _is_weak(word: str) -> bool:
    """Whether a word alone names nobody for sure."""
    small = folded(word)
    if is_ideographic(word):
        return len(word) == 1
    if small in _NAMES_FIRST:
        return False
    return len(small) < 2 or small in _PARTICLES or _is_common(small)


def _is_common(word: str) -> bool:
    return word in vocabulary.words() or word.upper() in TERMS


def _forms(word: str) -> dict[str, int]:
    """A name in its spellings; short ones only as a word of their own."""
    spellings = {compact(word), compact(folded(word.replace("å", "aa").replace("Å", "aa")))}
    spellings |= {spelling.replace("aa", "a") for spelling in spellings}
    return {s: _ANYWHERE if len(s) > 3 or is_ideographic(word) else _EDGES for s in spellings if len(s) > 1}


def _identifier(value: str) -> dict[str, int]:
    """A number, an address or the name of a place, as it may be written."""
    needles: dict[str, int] = {}
    number = compact(value)
    digits = sum(c.isdigit() for c in number)
    if digits and len(number) > 4 and (len(number) > digits or len(number) < 25):
        needles[number] = _NUMBER
        needles.update(dict.fromkeys(re.findall(r"\d{5,}", number), _NUMBER))
        needles.update({short: _NUMBER for run in list(needles) if len(short := run.lstrip("0")) > 4})
    elif digits and len(number) == 4 and digits < 4:
        needles[number] = _EDGES
    words = [word for word in re.split(r"[\W\d_]+", value) if len(word) > 1]
    strong = [word for word in words if not _is_weak(word) and folded(word) not in _PLACES and len(word) > 2]
    if digits and len(words) < 2:
        return needles
    for word in strong:
        needles.update(_forms(word))
    if len(words) > 1 and len(number) > 5:
        needles[number] = _EDGES
    return needles


def _days(text: str) -> dict[str, int]:
    """A day in digits, with any separators; what names its month is found without knowing it."""
    digits = text.replace(".", "")[:8]
    if len(digits) != 8 or not digits.isdecimal() or digits[:4] == "0000":
        return {}
    y, m, d = digits[:4], digits[4:6], digits[6:]
    written = {y + m + d, d + m + y, m + d + y, y[2:] + m + d, d + m + y[2:], m + d + y[2:]}
    short_month, short_day = m.lstrip("0"), d.lstrip("0")
    written |= {short_day + short_month + year for year in (y, y[2:])} | {short_month + short_day + y}
    written |= {short_month + short_day + y[2:], y + short_month + short_day}
    return {number: _NUMBER for number in written if len(number) > 4}


def _span(spelled: Spelled, at: int, length: int, how: int) -> patterns.Span | None:
    """Where a needle found at `compact[at]` stands in the folded text, if it stands as it must."""
    behind = how - 4 if how > 3 else 0
    first, last = at + behind, at + length - 1
    start, end = spelled.starts[first], spelled.ends[last]
    gaps = [spelled.starts[k + 1] - spelled.ends[k] for k in range(at, last)]
    if max(gaps, default=0) > _WIDEST_GAP:
        return None
    are_edges = spelled.is_edge(spelled.starts[at]) and spelled.is_edge(end)
    if how == _ANYWHERE and not any(gaps):
        start, end = spelled.word(start, end)
        return None if _is_common(spelled.folded[start:end]) else (start, end)
    if how == _NUMBER:
        return (start, end) if _is_number_apart(spelled.folded, start, end) else None
    if not are_edges or (how == _ANYWHERE and length < 6):
        return None
    if how == _STOPPED and not re.search(r"[.,]", spelled.folded[start : end + 1]):
        return None
    return start, end


def _is_number_apart(text: str, start: int, end: int) -> bool:
    """Whether no digit stands directly before or after digits."""
    before = start > 0 and text[start - 1].isdigit() and text[start].isdigit()
    return not before and not (end < len(text) and text[end].isdigit() and text[end - 1].isdigit())


def _merged(found: Iterable[patterns.Span], text: str) -> list[patterns.Span]:
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
