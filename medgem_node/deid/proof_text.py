"""How the proof reads text: by no single character set, without case, accents, width and separators.

A copy's Specific Character Set is not believed: a value is read in every way that it may have been meant.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

CODECS = ("utf-8", "latin-1", *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 9, 15)), "tis-620", "shift_jis",
          "euc_jp", "euc_kr", "gb18030", "big5", "utf-16-le", "utf-16-be")  # fmt: skip
"""In which a text may stand somewhere."""
_DECLARED = {
    "ISO_IR 100": "latin-1", "ISO_IR 101": "iso8859-2", "ISO_IR 109": "iso8859-3", "ISO_IR 110": "iso8859-4",
    "ISO_IR 144": "iso8859-5", "ISO_IR 127": "iso8859-6", "ISO_IR 126": "iso8859-7", "ISO_IR 138": "iso8859-8",
    "ISO_IR 148": "iso8859-9", "ISO_IR 203": "iso8859-15", "ISO_IR 13": "shift_jis", "ISO_IR 166": "tis-620",
    "ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gb18030", "ISO_IR 149": "euc_kr", "ISO_IR 58": "gb18030",
}  # fmt: skip
_ESCAPE = re.compile(rb"\x1b[\x20-\x2f]+[\x30-\x7e]")
BETWEEN = bytes(range(32)) + b" -_'^,./;:()+=#*|\"\x7f"
"""What people, and UTF-16, put between letters that belong together; not the backslash, which divides values."""
_LETTERS = str.maketrans({"ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "ß": "ss"})


def folded(text: str) -> str:
    """Without case, accents and width."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    return "".join(c for c in plain if not unicodedata.combining(c))


def spellings(text: str) -> set[str]:
    """The text folded, and as those write it whose keyboard has no umlauts."""
    return {folded(text), folded(unicodedata.normalize("NFC", text).casefold().translate(_UMLAUTS))}


def compact(text: str) -> str:
    """Letters and digits alone."""
    return "".join(c for c in text if c.isalnum())


def compact_bytes(data: bytes) -> bytes:
    """Lower case, without what stands between letters."""
    return data.lower().translate(None, BETWEEN)


@cache
def declared(terms: bytes) -> tuple[str, ...]:
    """The codecs that a Specific Character Set names."""
    texts = [t.strip(" \0").replace("ISO 2022 IR ", "ISO_IR ") for t in terms.decode("latin-1").split("\\")]
    return tuple(_DECLARED[t] for t in texts if t in _DECLARED)


def readings(value: bytes, codecs: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A value in every way it may be meant; the first is the likeliest."""
    if value.isascii() and b"\x1b" not in value:
        text = value.decode("ascii")
        return (text.replace("\0", ""),) if "\0" in text else (text,)
    found = dict.fromkeys(_read(value, codecs))
    return tuple(found)


def _read(value: bytes, codecs: tuple[str, ...]) -> Iterator[str]:
    if b"\x1b" in value:
        for kind in ("iso2022_jp_2", "iso2022_kr"):
            text = value.decode(kind, "ignore")
            if not text.isascii():
                yield text
        value = _ESCAPE.sub(b"", value)
        codecs = (*codecs, "euc_kr", "gb18030")
    for codec in (*codecs, "utf-8", "latin-1"):
        yield value.decode(codec, "ignore")


def encoded(text: str) -> Iterator[bytes]:
    """A text that is not ASCII in every encoding, in lower case as far as ASCII goes."""
    for form in {text, text.upper(), text.lower(), text.title(), unicodedata.normalize("NFD", text)}:
        for codec in CODECS:
            data = form.encode(codec, "ignore")
            if len(data) >= 4 and not data.isascii():
                yield data.lower()
        for codec in ("iso2022_jp", "iso2022_kr"):
            data = _ESCAPE.sub(b"", form.encode(codec, "ignore")).strip(b"\x0e\x0f")
            if len(data) >= 4 and data.decode("ascii", "ignore") != form:
                yield data.lower()
