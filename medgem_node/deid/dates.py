"""Dates moved by whole days, and ages capped (PS3.15 E.3.6).

Every date of a patient moves by the same number of days, so that each interval stays what it was, to the microsecond
where times are there. Only what PS3.5 6.2 lets stand in a DA, DT or TM is moved or kept; anything else may be a name
or a number, and becomes empty. Dates that are written as numbers (seconds since 1970, private) are not recognised.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import lru_cache

OLDEST_YEARS = 89
"""The highest age that is told; who is older is a few people in a town (45 CFR 164.514(b)(2)(i)(C))."""

_DAY = r"(\d{4})(?:(\d{2})(\d{2})?)?"
_CLOCK = r"(?:[01]\d|2[0-3])(?:[0-5]\d(?:(?:[0-5]\d|60)(?:\.\d{1,6})?)?)?"
_ZONE = r"[+-](?:0\d|1[0-4])[0-5]\d"  # narrow enough that `2019-2021` is a range
_DA = re.compile(_DAY)
_DOTTED = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})")  # as ACR-NEMA wrote them (PS3.5 6.2, Note to DA)
_DT = re.compile(rf"{_DAY}((?:(?<=\d{{8}}){_CLOCK})?(?:{_ZONE})?)")
_TM = re.compile(rf"{_CLOCK}|(?:[01]\d|2[0-3]):[0-5]\d(?::(?:[0-5]\d|60)(?:\.\d{{1,6}})?)?")
_AGE = re.compile(r"(\d{1,5})([DWMY])")
_A_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}


@lru_cache(8192)
def shifted(value: bytes, vr: str, days: int) -> bytes:
    """The value of a DA or DT, each of its dates `days` later; a TM as it is. Never padded.

    A date without its day or month (`2020`, `202007`; in a DA an old writer's fault) moves as the middle of that year
    or month would, and is told no finer: at most half a period from where it should be. A range keeps both ends. The
    value is empty where it is no date or time, or the day is before the year 1: an attribute of Type 1 then needs
    a dummy.
    """
    try:
        texts = value.decode("ascii").split("\\")
    except UnicodeDecodeError:
        return b""
    return "\\".join(_shifted(text.strip(" \0"), vr, days) for text in texts).encode("ascii")


def capped_age(value: bytes) -> bytes:
    """An age (AS) of at most 90 years, which stands for all above 89; empty where it is no age. Never padded.

    Ages that lack leading zeros or are in lower case are written as PS3.5 6.2 asks.
    """
    try:
        texts = value.decode("ascii").split("\\")
    except UnicodeDecodeError:
        return b""
    return "\\".join(_capped(text.strip(" \0")) for text in texts).encode("ascii")


def _shifted(text: str, vr: str, days: int) -> str:
    if vr == "TM":
        return text if all(not end or _TM.fullmatch(end) for end in text.split("-", 1)) else ""
    one = _one_shifted(text, vr, days)
    if one or "-" not in text:
        return one
    for at in (n for n, c in enumerate(text) if c == "-"):  # a DT may hold further ones, before its zones
        ends = [_one_shifted(end, vr, days) for end in (text[:at], text[at + 1 :]) if end]
        if ends and all(ends):
            return (ends[0] if at else "") + "-" + (ends[-1] if at + 1 < len(text) else "")
    return ""


def _one_shifted(text: str, vr: str, days: int) -> str:
    if dotted := _DOTTED.fullmatch(text):
        return _moved(dotted[1], dotted[2], dotted[3], days, ".")
    if not (found := (_DT if vr == "DT" else _DA).fullmatch(text)):
        return ""
    year, month, day, *rest = found.groups()
    moved = _moved(year, month, day, days)
    return moved and moved + "".join(rest)


def _moved(year: str, month: str | None, day: str | None, days: int, mark: str = "") -> str:
    """The shifted day, month or year, as exact as it was."""
    try:
        moved = date(int(year), int(month or 7), int(day or (15 if month else 2))) + timedelta(days)
    except (ValueError, OverflowError):
        return ""
    parts = [f"{moved.year:04d}", f"{moved.month:02d}", f"{moved.day:02d}"]  # strftime writes the year 987 as 987
    return mark.join(parts[: 1 + (month is not None) + (day is not None)])


def _capped(text: str) -> str:
    found = _AGE.fullmatch(text.upper())
    if not found:
        return ""
    number, unit = int(found[1]), found[2]
    if number / _A_YEAR[unit] >= OLDEST_YEARS + 1:
        return f"{OLDEST_YEARS + 1:03d}Y"
    return f"{number:03d}{unit}" if number < 1000 else ""
