"""What names somebody, or leads to him, in any text: dates, telephones, addresses of all kinds, titles before a name.

Every pattern is linear in the text: no unbounded part begins within another match of itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from medgem_node.deid import vocabulary
from medgem_node.deid.spelling import folded
from medgem_node.dictionary import UIDS

Span = tuple[int, int]
_Check = Callable[["_Shape"], bool]
"""Whether a pattern can be in an ASCII text; fast, and never wrongly no."""

_YEAR = r"(?:18|19|20)\d\d"
_DAY = r"(?:3[01]|[12]\d|0?[1-9])"
_MONTH = r"(?:1[0-2]|0?[1-9])"
_BETWEEN = r"[./\-\s,]{1,3}"
_NAME = (
    r"(?:january|januar|janvier|january|janv|jan|enero|ene|gennaio|janeiro|february|februar|fevrier|febrero|febbraio|"
    r"fevereiro|fevr|feb|fev|march|marzo|maerz|marz|mars|marco|mrz|mar|april|aprile|avril|abril|apr|avr|abr|may|mayo|"
    r"mai|maggio|maio|june|juni|juin|junio|giugno|junho|jun|july|juli|juillet|julio|luglio|julho|juil|jul|august|"
    r"aout|agosto|aug|ago|september|septembre|septiembre|settembre|setembro|sept|sep|set|october|oktober|octobre|"
    r"octubre|ottobre|outubro|oct|okt|ott|november|novembre|noviembre|novembro|nov|december|dezember|decembre|"
    r"diciembre|dicembre|dezembro|dec|dez|dic)"
)
_LONG_NAME = r"(?:january?|janvier|enero|february?|fevrier|febrero|march|maerz|marz|mars|marzo|april|avril|abril|" \
    r"june|juni|juin|junio|july|juli|juillet|julio|august|aout|agosto|septemb\w+|septiembre|o[ck]tob\w+|octubre|" \
    r"novemb\w+|noviembre|de[cz]emb\w+|diciembre)"  # fmt: skip
_SPACE = r"[\s.,/\-_]{0,3}(?:(?:de|of)\s)?"
_DATES = (
    rf"(?<!\d)(?<!\d\.)(?:{_YEAR}{_BETWEEN}{_MONTH}{_BETWEEN}{_DAY}|{_DAY}{_BETWEEN}{_MONTH}{_BETWEEN}{_YEAR}"
    rf"|{_MONTH}{_BETWEEN}{_DAY}{_BETWEEN}{_YEAR}|{_YEAR}[/-](?:0[1-9]|1[0-2])|(?:0[1-9]|1[0-2])[./-]{_YEAR})(?!\d)",
    r"(?<![\w.])(?:\d\d\.\d\d\.\d\d|\d\d-\d\d-\d\d|\d{1,2}/\d{1,2}/\d\d)(?![\w])(?!\.\d)",
    rf"(?<![a-z\d])(?:{_DAY}(?:st|nd|rd|th|er)?{_SPACE}{_NAME}{_SPACE}(?:{_YEAR}|'?\d\d)"
    rf"|{_NAME}{_SPACE}{_DAY}(?:st|nd|rd|th)?{_SPACE}(?:{_YEAR}|'?\d\d)|{_YEAR}{_SPACE}{_NAME}{_SPACE}{_DAY}"
    rf"|{_NAME}{_SPACE}{_YEAR}|{_DAY}(?:st|nd|rd|th)?\.?\s(?:of\s)?{_LONG_NAME}"
    rf"|{_LONG_NAME}\s{_DAY}(?:st|nd|rd|th)?)(?![a-z\d])",
    rf"(?<!\d){_YEAR}\s?\u5e74\s?{_MONTH}\s?\u6708(?:\s?{_DAY}\s?\u65e5)?|(?<!\d){_MONTH}\s?\u6708\s?{_DAY}\s?\u65e5",
    r"(?<![a-z])(?:born|geboren|geb|dob|nacid[oa]|nee?|yob)(?![a-z])[\W_]{0,4}(?:in\s|le\s|am\s|el\s)?\d[\d./-]{1,9}",
    r"(?<![\d:])\d{1,2}:\d\d:\d\d(?!\d)",
)
_NUMBERS = (
    r"(?<!\d)(?<!\d\.)\d{6,}",
    r"(?<![\d.])\d{3}[-.]\d{3}[-.]\d{4}(?!\d)|(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)",
    r"\+\d(?:[\s()./-]{0,2}\d){6,14}|\(\d{2,5}\)\s?\d(?:[\s./-]{0,2}\d){3,12}",
    r"(?<![\d.,])0\d{1,4}[ /-]{1,3}\d{3}(?:[ /-]?\d){1,10}(?!\d)",
    r"(?<![a-z])(?:tel|phone|telephone|telefon\w{0,2}|fax|mobile?|handy|call)(?![a-z])[\W_]{0,4}"
    r"\d(?:[\s()./-]{0,2}\d){3,14}",
    r"(?<![a-z])(?:mrn|ssn|pid|patid|pat|patient\s?id|patient|id|case|fall|fallnr|acc|accession|order)(?![a-z])"
    r"(?:\s?(?:nr|no|number|id|#))?[\W_]{0,4}(?=[a-z0-9/-]{0,12}\d{4})[a-z0-9/-]{1,30}",
)
_ADDRESSES = (
    r"(?<![\w.+\-])[\w.+\-]++@[\w.\-]{1,255}",
    r"(?:https?|ftps?|file|smb|dicom|urn)://\S+|www\.\S+",
    r"(?<![\w.\-])(?:[\w\-]++\.)++(?:com|org|net|edu|gov|int|info|local|lan|intern|de|fr|es|it|uk|ch|at|eu|us|io)"
    r"(?![\w.])",
    r"(?<![a-z\d])[a-z]:[\\/]\S*|\\\\[\w.$\-]+\\\S*",
    r"(?<!\w)(?:~\w+)?/(?:home|users?|mnt|media|data|var|tmp|opt|srv|export|volumes|root|net)/\S*",
    r"(?<![\w:])(?:[0-9a-f]{1,4}:){4,7}[0-9a-f]{1,4}(?!\w)",
)
_UID = re.compile(r"(?<!\d)(?<!\d\.)\d++(?:\.\d++){3,}+")
_REGISTERED = "1.2.840.10008."

_SURE = r"(?i:dr|dres|prof|mrs|miss|mme|mlle|herrn?|frau|sra|srta|dra|dott|doctor|doktor|docteur|do[nñ]a|se[nñ]ora?|" \
    r"signora?|monsieur|madame)"  # fmt: skip
_UNSURE = r"(?:Mr|Ms|Hr|Fr|Sr|Sig|MR(?=\.)|MS(?=\.)|HR(?=\.)|FR(?=\.)|SR(?=\.)|mr(?=\.)|ms(?=\.)|hr(?=\.))"
_TITLE = re.compile(
    rf"(?<![^\W_])(?P<title>{_SURE}|{_UNSURE})(?![^\W_])(?P<end>\.?\s{{0,3}})(?:(?i:med|dent|dr|prof|h\.c|univ)\b\.?\s{{0,2}}){{0,3}}"
)
_WORD = re.compile(r"[\s,]{0,3}(?:([^\W\d_])\.|([^\W\d_][^\W\d_'\u2019\-]{1,40}(?:['\u2019\-][^\W\d_]{1,40}){0,3})\.?)")
_TITLES = frozenset(
    b"dr dres prof mrs miss mme mlle herr herrn frau sra srta dra dott doctor doktor docteur dona senor senora signor "
    b"signora monsieur madame mr ms hr fr sr sig".split()
)
_OF_DAYS = (b"", b"st", b"nd", b"rd", b"th", b"er")
_MONTHS = frozenset(day + part.encode() for part in re.findall(r"[a-z]{3,}", _NAME + _LONG_NAME) for day in _OF_DAYS)
_SHAPES = bytes(
    48 if 48 <= c <= 57 else 45 if c in b"./-:" else 32 if c in b" ,\t\r\n\v\f_()" else c for c in range(256)
)
_OTHERS = bytes(c for c in range(256) if _SHAPES[c] not in b"0- ")


@dataclass(frozen=True, slots=True)
class _Shape:
    """What tells quickly that a pattern cannot be in an ASCII text: it, its words, and its digits and separators."""

    small: bytes
    words: frozenset[bytes]
    digits: bytes

    @classmethod
    def of(cls, small: bytes) -> _Shape:
        """Of a text in small letters."""
        return cls(small, frozenset(_LETTERS.findall(small)), small.translate(_SHAPES, _OTHERS))


_LETTERS = re.compile(rb"[a-z]+")
_ZERO = re.compile(rb"0\d{1,4}[ /-]")
_DOMAIN = re.compile(rb"\.(?:com|org|net|edu|gov|int|info|local|lan|intern|de|fr|es|it|uk|ch|at|eu|us|io)")
_FOLDERS = re.compile(rb"/(?:home|user|mnt|media|data|var|tmp|opt|srv|export|volumes|root|net)")


def _has(*needles: bytes) -> _Check:
    return lambda shape: any(needle in shape.small for needle in needles)


def _says(*words: bytes) -> _Check:
    return lambda shape: not shape.words.isdisjoint(words)


def _runs(*runs: bytes) -> _Check:
    return lambda shape: any(run in shape.digits for run in runs)


def _month(shape: _Shape) -> bool:
    return b"0" in shape.digits and (
        not _MONTHS.isdisjoint(shape.words) or any(word.startswith(_MONTH_STARTS) for word in shape.words)
    )


_MONTH_STARTS = tuple(
    day + part for day in _OF_DAYS for part in (b"septemb", b"octob", b"oktob", b"novemb", b"decemb", b"dezemb")
)
_PATTERNS: tuple[tuple[re.Pattern[str], re.Pattern[bytes] | None, _Check], ...] = tuple(
    (re.compile(p), re.compile(p.encode("ascii")) if p.isascii() else None, check)
    for p, check in (
        (_DATES[0], _runs(b"0000")),
        (_DATES[1], _runs(b"-0-00", b"-00-00")),
        (_DATES[2], _month),
        (_DATES[4], _says(b"born", b"geboren", b"geb", b"dob", b"nacido", b"nacida", b"ne", b"nee", b"yob")),
        (_DATES[5], _runs(b"-00-00")),
        (_NUMBERS[0], _runs(b"000000")),
        (_NUMBERS[1], _runs(b"0000")),
        (_NUMBERS[2], _has(b"+", b"(")),
        (_NUMBERS[3], lambda shape: _ZERO.search(shape.small) is not None),
        (_NUMBERS[4], _has(b"tel", b"phone", b"fax", b"mobil", b"handy", b"call")),
        (_NUMBERS[5], _runs(b"0000")),
        (_ADDRESSES[0], _has(b"@")),
        (_ADDRESSES[1], _has(b"://", b"www.")),
        (_ADDRESSES[2], lambda shape: _DOMAIN.search(shape.small) is not None),
        (_ADDRESSES[3], _has(b":\\", b":/", b"\\\\")),
        (_ADDRESSES[4], lambda shape: _FOLDERS.search(shape.small) is not None),
        (_ADDRESSES[5], lambda shape: shape.small.count(b":") > 3),
    )
)
_may_be_uid = _runs(b"-0-0", b"-00-0", b"-000-0", b"-0000-0", b"-00000-0", b"000000")
_ONLY_WIDE = re.compile(_DATES[3].encode("ascii", "backslashreplace").decode("ascii"))


def spans(text: str, spelled: str, is_ascii: bool) -> Iterator[tuple[Span, bool]]:
    """Where a text names somebody: start and end, and whether in the text itself or in its folded spelling."""
    shape = _Shape.of(spelled.encode("ascii")) if is_ascii else None
    for pattern, _, may_be in _PATTERNS:
        if shape is None or may_be(shape):
            yield from ((match.span(), False) for match in pattern.finditer(spelled))
    if shape is None:
        yield from ((match.span(), False) for match in _ONLY_WIDE.finditer(spelled))
    for match in _UID.finditer(spelled):
        if match[0] not in UIDS and not match[0].startswith(_REGISTERED):
            yield match.span(), False
    yield from ((span, True) for span in _named(text))


def may_be_in(raw: bytes, small: bytes) -> bool:
    """Whether `spans` finds something in an ASCII text, also given in small letters; False is sure."""
    shape = _Shape.of(small)
    for _, pattern, may_be in _PATTERNS:
        if may_be(shape) and pattern is not None and pattern.search(small):
            return True
    if _may_be_uid(shape) and _UID.search(small.decode("ascii")):
        return True
    return not _TITLES.isdisjoint(shape.words) and any(_named(raw.decode("ascii")))


def _named(text: str) -> Iterator[Span]:
    """Names after a title, without the title."""
    for title in _TITLE.finditer(text):
        is_sure = "." in title["end"] or (title["title"][-1:].islower() and title["title"][:1].isupper())
        span = _name(text, title.end(), is_sure and title["end"] != ".")
        if span:
            yield span


def _name(text: str, at: int, is_sure: bool) -> Span | None:
    """Up to three words at a place that are a name; a word of the vocabulary only if capital and surely one."""
    start = end = -1
    for _ in range(3):
        word = _WORD.match(text, at)
        if not word or ("," in text[at : word.start(1) if word[1] else word.start(2)] and start >= 0):
            break
        name = word[1] or word[2]
        is_known = folded(name) in vocabulary.words()
        is_first = start < 0
        if is_known and not word[1] and not (is_first and is_sure and name[0].isupper()):
            break
        if not is_first and not name[0].isupper():
            break
        start = word.start(1) if start < 0 and word[1] else word.start(2) if start < 0 else start
        at = end = word.end(1) + 1 if word[1] else word.end(2)
    return (start, end) if end - start > 1 else None
