"""One spelling for many: text without case, accents, width and separators, and where each letter of it stood."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_LETTERS = str.maketrans(
    {"ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "ħ": "h", "ŧ": "t"}
)  # letters that Unicode does not take apart
_NO_LETTERS = bytes(c for c in range(256) if not (c < 128 and chr(c).isalnum()))
IDEOGRAPHIC = 0x1100
"""From here on scripts set no spaces between words: Hangul, Kana, Han."""


@lru_cache(maxsize=4096)
def _folded_letter(letter: str) -> str:
    if unicodedata.category(letter) == "Cf":  # invisible: joiners, direction marks, soft hyphens
        return ""
    apart = "".join(c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c))
    text = apart.casefold().translate(_LETTERS)
    return "".join(chr(ord(c) + 0x60) if "\u3041" <= c <= "\u3096" else c for c in text)  # Hiragana as Katakana


def folded(text: str) -> str:
    """Without case, accents and width."""
    return text.lower() if text.isascii() else "".join(map(_folded_letter, text))


def compact(text: str) -> str:
    """Letters and digits of a text in one spelling: folded, and without an e after a, o and u (ue for ü)."""
    return Spelled.of(text).compact


def compact_ascii(raw: bytes) -> bytes:
    """What `compact` answers for ASCII, without the way there."""
    return one_spelling(raw.lower()).translate(None, _NO_LETTERS)


def one_spelling(small: bytes) -> bytes:
    """Small letters without an e directly after a, o and u."""
    return small.replace(b"ae", b"a").replace(b"oe", b"o").replace(b"ue", b"u")


def is_ideographic(text: str) -> bool:
    """Whether it is written without spaces between words, so that a part of a word is a word."""
    return any(ord(c) >= IDEOGRAPHIC and c.isalpha() for c in text)


@dataclass(frozen=True, slots=True)
class Spelled:
    """A text in its one spelling.

    `folded[i]` comes from `text[places[i]]`; `compact[k]` is `folded[starts[k] : ends[k]]`.
    """

    text: str
    folded: str
    places: range | list[int]
    compact: str
    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, text: str) -> Spelled:
        """Every spelling of a text; linear in its length."""
        spelled, places = _folded(text)
        letters: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        before = ""
        for at, letter in enumerate(spelled):
            if not letter.isalnum():
                before = ""
                continue
            if letter == "e" and before in ("a", "o", "u"):
                ends[-1] = at + 1
            else:
                letters.append(letter)
                starts.append(at)
                ends.append(at + 1)
            before = letter
        return cls(text, spelled, places, "".join(letters), starts, ends)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where `folded[start:end]` stands in the text."""
        return self.places[start], self.places[end - 1] + 1

    def word(self, start: int, end: int) -> tuple[int, int]:
        """`folded[start:end]` and the letters of the same words on both sides."""
        while start and _is_spaced(self.folded[start - 1]) and _is_spaced(self.folded[start]):
            start -= 1
        while end < len(self.folded) and _is_spaced(self.folded[end]) and _is_spaced(self.folded[end - 1]):
            end += 1
        return start, end

    def is_edge(self, at: int) -> bool:
        """Whether a word or a number ends before `folded[at]`."""
        if not 0 < at < len(self.folded):
            return True
        before, after = self.folded[at - 1], self.folded[at]
        return not (before.isalpha() and after.isalpha()) and not (before.isdigit() and after.isdigit())


def _folded(text: str) -> tuple[str, range | list[int]]:
    if text.isascii():
        return text.lower(), range(len(text))
    letters: list[str] = []
    places: list[int] = []
    for at, letter in enumerate(text):
        for part in _folded_letter(letter):
            letters.append(part)
            places.append(at)
    return "".join(letters), places


def _is_spaced(letter: str) -> bool:
    return letter.isalpha() and ord(letter) < IDEOGRAPHIC
