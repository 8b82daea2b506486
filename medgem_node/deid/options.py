"""What a site asks of de-identification: a profile of PS3.15 Annex E and its options, by their names there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from medgem_node.errors import ConfigError

PIXELS = ("screen", "trust")


class Option(StrEnum):
    """The options of PS3.15 E.3, by the names of the standard."""

    CLEAN_PIXEL_DATA = "Clean Pixel Data"
    CLEAN_RECOGNIZABLE_VISUAL_FEATURES = "Clean Recognizable Visual Features"
    CLEAN_GRAPHICS = "Clean Graphics"
    CLEAN_STRUCTURED_CONTENT = "Clean Structured Content"
    CLEAN_DESCRIPTORS = "Clean Descriptors"
    RETAIN_FULL_DATES = "Retain Longitudinal Temporal Information With Full Dates"
    RETAIN_MODIFIED_DATES = "Retain Longitudinal Temporal Information With Modified Dates"
    RETAIN_PATIENT_CHARACTERISTICS = "Retain Patient Characteristics"
    RETAIN_DEVICE_IDENTITY = "Retain Device Identity"
    RETAIN_INSTITUTION_IDENTITY = "Retain Institution Identity"
    RETAIN_UIDS = "Retain UIDs"
    RETAIN_SAFE_PRIVATE = "Retain Safe Private"


class Concept(NamedTuple):
    """A code of DCM (PS3.16 Annex D)."""

    value: str
    meaning: str


BASIC_PROFILE = Concept("113100", "Basic Application Confidentiality Profile")
CONCEPTS: Mapping[Option, Concept] = {
    Option.CLEAN_PIXEL_DATA: Concept("113101", "Clean Pixel Data Option"),
    Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES: Concept("113102", "Clean Recognizable Visual Features Option"),
    Option.CLEAN_GRAPHICS: Concept("113103", "Clean Graphics Option"),
    Option.CLEAN_STRUCTURED_CONTENT: Concept("113104", "Clean Structured Content Option"),
    Option.CLEAN_DESCRIPTORS: Concept("113105", "Clean Descriptors Option"),
    Option.RETAIN_FULL_DATES: Concept("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    Option.RETAIN_MODIFIED_DATES: Concept("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    Option.RETAIN_PATIENT_CHARACTERISTICS: Concept("113108", "Retain Patient Characteristics Option"),
    Option.RETAIN_DEVICE_IDENTITY: Concept("113109", "Retain Device Identity Option"),
    Option.RETAIN_UIDS: Concept("113110", "Retain UIDs Option"),
    Option.RETAIN_SAFE_PRIVATE: Concept("113111", "Retain Safe Private Option"),
    Option.RETAIN_INSTITUTION_IDENTITY: Concept("113112", "Retain Institution Identity Option"),
}
"""CID 7050, here and not asked of pydicom, which takes 0.4 s to load; a test compares every one."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What is done to every instance of a study.

    `pixels` says what becomes of an image that may show text while Clean Pixel Data is not asked for: "screen" looks
    where a text reader is installed and holds what shows text, "trust" lets modality images pass unread. Neither lets
    an image pass that says of itself that it shows text, or a picture of a screen that nobody read.
    """

    options: frozenset[Option] = frozenset()
    pixels: str = "screen"


BASIC = Profile()
"""The Basic Application Level Confidentiality Profile, no options."""


def read_profile(path: Path) -> Profile:
    """The profile that a file such as conf/deid.toml asks for. Raises ConfigError."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); check the path") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: no valid TOML: {exc}") from exc
    return profile_of(content, str(path))


def profile_of(content: Mapping[str, object], source: str) -> Profile:
    """The profile that the keys of such a file ask for; `source` is its name, for messages. Raises ConfigError."""
    for key in content:
        if key not in ("profile", "options", "pixels"):
            raise ConfigError(f'{source}: unknown key "{key}"; {_meant(key, ("profile", "options", "pixels"))}')
    profile = content.get("profile", "basic")
    if profile != "basic":
        raise ConfigError(f'{source}: profile = "{profile}" is unknown; only "basic" is there, its options add to it')
    pixels = content.get("pixels", BASIC.pixels)
    if pixels not in PIXELS:
        raise ConfigError(f'{source}: pixels = "{pixels}" is unknown; write "screen" or "trust"')
    named = content.get("options", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ConfigError(f'{source}: options is a list of names, such as ["{Option.CLEAN_DESCRIPTORS}"]')
    options = frozenset(_option(name, source) for name in named)
    if {Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES} <= options:
        raise ConfigError(f"{source}: options asks for full dates and for modified dates; choose one")
    return Profile(options, str(pixels))


def _option(name: str, source: str) -> Option:
    """An option by its name, with or without `Option`, in any case and with any blanks, or by its code in CID 7050."""
    option = _by_name().get(_plain(name))
    if option is None:
        raise ConfigError(f'{source}: unknown option "{name}" in options; {_meant(name, tuple(Option))}')
    return option


@cache
def _by_name() -> Mapping[str, Option]:
    return {
        _plain(name): option for option, concept in CONCEPTS.items() for name in (option.value, option.name, *concept)
    }


def _plain(name: str) -> str:
    words = re.split(r"[\s_-]+", name.strip().casefold())
    return " ".join(word for word in words if word not in ("with", "option", "options"))


def _meant(name: str, valid: Sequence[str]) -> str:
    by_plain = {_plain(v): v for v in valid}
    near = [by_plain[match] for match in get_close_matches(_plain(name), by_plain, n=2)]
    return "did you mean " + " or ".join(f'"{n}"' for n in near) + "?" if near else "it knows " + ", ".join(valid)
