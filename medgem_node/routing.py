"""Which rule a study fulfils. Pure: knows headers and rules, no database."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue

from medgem_node.rule import Condition, Rule


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that decides for a study, and the SOP Instance UIDs of the instances that fulfil it."""

    rule: Rule
    sop_instance_uids: tuple[str, ...]


def match(headers: Mapping[str, Dataset], called_ae: str, rules: Sequence[Rule]) -> Match | None:
    """The first of `rules` that at least one instance fulfils; None means that nothing may leave.

    Parameters
    ----------
    headers
        The headers of a study's instances by SOP Instance UID.
    called_ae
        The AE title that the sender called.
    """
    for rule in rules:
        if rule.called_ae and called_ae not in rule.called_ae:
            continue
        fulfilling = tuple(uid for uid, header in headers.items() if all(_holds(c, header) for c in rule.match))
        if fulfilling:
            return Match(rule, fulfilling)
    return None


def keywords(rules: Sequence[Rule]) -> tuple[str, ...]:
    """Every attribute that `rules` look at."""
    return tuple(dict.fromkeys(c.keyword for rule in rules for c in rule.match))


def _holds(condition: Condition, header: Dataset) -> bool:
    values = _values(header.get(condition.keyword))
    wanted = condition.value
    match condition.operator:
        case "present":
            return bool(values)
        case "absent":
            return not values
        case "is":
            return any(_same(v, wanted) for v in values)
        case "is not":
            return not any(_same(v, wanted) for v in values)
        case "in":
            return any(_same(v, w) for v in values for w in wanted)
        case "not in":
            return not any(_same(v, w) for v in values for w in wanted)
        case "contains":
            return any(str(wanted).casefold() in str(v).casefold() for v in values)
        case "matches":
            return any(re.search(wanted, str(v), re.IGNORECASE) for v in values)
        case "at least":
            return any(n is not None and n >= wanted for n in map(_number, values))
        case _:  # "at most"; Condition knows no other
            return any(n is not None and n <= wanted for n in map(_number, values))


def _values(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [v for v in value if v not in (None, "")] if isinstance(value, MultiValue | list) else [value]


def _same(value: Any, wanted: Any) -> bool:
    number = _number(value)
    if isinstance(wanted, int | float) and number is not None:
        return number == wanted
    return str(value).strip().casefold() == str(wanted).strip().casefold()


def _number(value: Any) -> float | None:
    text = str(value).strip()
    if re.fullmatch(r"\d{3}[DWMY]", text):  # an age (PS3.5 6.2), in years
        return int(text[:3]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}[text[3]]
    try:
        return float(text)
    except ValueError:
        return None
