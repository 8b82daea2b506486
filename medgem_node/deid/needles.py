"""A name, a number and a day as each may be written: needles in one spelling, with how each must stand.

A word that is also a body part or a protocol names somebody only beside the rest of his name, behind a word that says
so, or within a word that is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import permutations

from medgem_node.deid import vocabulary
from medgem_node.deid.spelling import compact, folded, is_ideographic
from medgem_node.deid.vocabulary import TERMS

ANYWHERE, WORD, EDGES, NUMBER, STOPPED, BEHIND = range(6)
"""How a needle must stand: anywhere in a word; as one word; as words; as a number; as words with a full stop or comma;
from BEHIND on: as words, of which the first letters (how less BEHIND) only tell that the others are a name."""

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


def persons(text: str) -> Iterator[list[str]]:
    """The words of each group of each name (PS3.5 6.2.1): family, given and middle name."""
    for group in text.replace("\\", "=").split("="):
        words = [word for part in group.split("^")[:3] for word in _SEPARATORS.split(part) if word]
        if words:
            yield list(dict.fromkeys(words))[:8]


def person(words: list[str]) -> dict[str, int]:
    """A name as it may be written: its words, or those that say too little alone together with others."""
    needles: dict[str, int] = {}
    weak = {word for word in words if _is_weak(word)}
    for word in words:
        if word not in weak or (len(compact(word)) > 3 and folded(word) not in _PARTICLES):
            needles.update(_forms(word))  # a common one inside a word that is none
        if word in weak and len(word) > 1 and len(compact(word)) > 2 and folded(word) not in _PARTICLES:
            needles.update({compact(before) + compact(word): BEHIND + len(compact(before)) for before in _INTRODUCED})
    for one, other in permutations(words, 2):
        if one in weak or other in weak:
            needles.update(dict.fromkeys(_joined(one, other), _together(one, other)))
        if one in weak and len(one) > 2 and not is_ideographic(one + other):
            for joined in (*_joined(one, other[0]), *_joined(other[0], one)):
                needles.setdefault(joined, STOPPED)
    if weak and is_ideographic(words[0]):
        needles.update({compact(words[0] + honorific): ANYWHERE for honorific in _HONORIFICS})
    return needles


def _joined(one: str, other: str) -> set[str]:
    """Two words side by side, with and without anything between them (an e after an a may be an umlaut's)."""
    return {spelling for spelling in (compact(one) + compact(other), compact(one + other)) if len(spelling) > 2}


def _together(one: str, other: str) -> int:
    """How two names must stand side by side; a letter beside a common word needs a full stop or comma."""
    if is_ideographic(one + other):
        return ANYWHERE
    return STOPPED if min(len(one), len(other)) == 1 else EDGES


def _is_weak(word: str) -> bool:
    """Whether a word alone names nobody for sure."""
    small = folded(word)
    if is_ideographic(word):
        return len(word) == 1
    if small in _NAMES_FIRST:
        return False
    return len(small) < 2 or small in _PARTICLES or is_common(small)


def is_common(word: str) -> bool:
    """Whether a folded word means something else than somebody's name."""
    return word in vocabulary.words() or word.upper() in TERMS


def _forms(word: str) -> dict[str, int]:
    """A name in its spellings; short ones only as a word of their own."""
    spellings = {compact(word), compact(folded(word.replace("å", "aa").replace("Å", "aa")))}
    spellings |= {spelling.replace("aa", "a") for spelling in spellings}
    spellings |= {spelling[1:] for spelling in spellings if spelling[:1] == "e" and len(spelling) > 4}
    return {s: ANYWHERE if len(s) > 3 or is_ideographic(word) else WORD for s in spellings if len(s) > 1}


def identifier(value: str) -> dict[str, int]:
    """A number, an address or the name of a place, as it may be written."""
    needles: dict[str, int] = {}
    number = compact(value)
    digits = sum(c.isdigit() for c in number)
    if digits and len(number) > 4 and (len(number) > digits or len(number) < 25):
        needles.update(dict.fromkeys((number, compact(_together_written(value))), NUMBER))
        needles.update(dict.fromkeys(re.findall(r"[0-9]{5,}", folded(value)), NUMBER))
        needles.update({short: NUMBER for run in list(needles) if len(short := run.lstrip("0")) > 4})
    elif digits and len(number) == 4 and digits < 4:
        needles[number] = EDGES
    words = [word for word in re.split(r"[\W\d_]+", value) if len(word) > 1]
    strong = [word for word in words if not _is_weak(word) and folded(word) not in _PLACES and len(word) > 2]
    if digits and len(words) < 2:
        return needles
    for word in strong:
        needles.update(_forms(word))
    if len(words) > 1 and len(number) > 5:
        needles.update(dict.fromkeys((number, compact(_together_written(value))), EDGES))
    return needles


def _together_written(value: str) -> str:
    return re.sub(r"[\W_]+", "", value)


def days(text: str) -> dict[str, int]:
    """A day in digits, with any separators; what names its month is found without knowing it."""
    digits = text.replace(".", "")[:8]
    if len(digits) != 8 or not digits.isdecimal() or digits[:4] == "0000":
        return {}
    y, m, d = digits[:4], digits[4:6], digits[6:]
    written = {y + m + d, d + m + y, m + d + y, y[2:] + m + d, d + m + y[2:], m + d + y[2:]}
    short_month, short_day = m.lstrip("0"), d.lstrip("0")
    written |= {short_day + short_month + year for year in (y, y[2:])} | {short_month + short_day + y}
    written |= {short_month + short_day + y[2:], y + short_month + short_day}
    return {number: NUMBER for number in written if len(number) > 4}
