"""What a site asks of de-identification: a profile of PS3.15 Annex E and its options, by their names there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
