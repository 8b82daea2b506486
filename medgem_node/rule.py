"""Routing rules as data: which studies a model sees, and where its results go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from medgem_node.dictionary import tag_of
from medgem_node.errors import ConfigError

OPERATORS = ("is", "is not", "in", "not in", "contains", "matches", "at least", "at most", "present", "absent")


@dataclass(frozen=True, slots=True)
class Condition:
    """One header attribute compared with a value; text is compared without regard to case."""

    keyword: str
    operator: str
    value: Any = ""

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            raise ConfigError(f'operator "{self.operator}" is unknown; use one of {", ".join(OPERATORS)}')
        if tag_of(self.keyword) is None:
            raise ConfigError(f'keyword "{self.keyword}" is no DICOM attribute; see PS3.6')
        if self.operator in ("in", "not in") and not isinstance(self.value, list):
            raise ConfigError(f'"{self.keyword}" {self.operator}: value must be a list')
        if self.operator in ("at least", "at most") and not isinstance(self.value, int | float):
            raise ConfigError(f'"{self.keyword}" {self.operator}: value must be a number')
        if self.operator == "matches":
            try:
                re.compile(self.value)
            except (re.error, TypeError) as exc:
                raise ConfigError(f'"{self.keyword}" matches {self.value!r}: no regular expression: {exc}') from exc


@dataclass(frozen=True, slots=True)
class Rule:
    """The first rule that an instance of the study fulfils decides for the whole study.

    `called_ae` empty means any. `version` empty means the newest. `quiet_seconds` below 0, `profile` and
    `deid` empty mean the node's default.
    """

    name: str
    model: str
    match: tuple[Condition, ...] = ()
    called_ae: tuple[str, ...] = ()
    version: str = ""
    send_to: tuple[str, ...] = ()
    quiet_seconds: float = -1.0
    profile: str = ""
    deid: str = ""
