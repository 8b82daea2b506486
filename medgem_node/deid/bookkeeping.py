"""What a copy says of its own de-identification: PS3.15 E.1.1, PS3.3 C.7.1.1, C.12.1 and C.7.6.1, CID 7050.

Only what was done to this instance is claimed. The original's own statements of this kind are replaced: they spoke of
another version of it. Nothing tells where or when it was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medgem_node import __version__
from medgem_node.deid import layout
from medgem_node.deid.layout import Syntax
from medgem_node.deid.options import BASIC_PROFILE, CONCEPTS, Concept, Option
from medgem_node.deid.table import EDITION

Made = tuple[int, str, bytes | list[bytes]]
"""Tag, VR and value or items, as `layout.element` takes them."""

PATIENT_IDENTITY_REMOVED, METHOD, METHOD_CODES = 0x00120062, 0x00120063, 0x00120064
CONTRIBUTING_EQUIPMENT, BURNED_IN, RECOGNIZABLE, TEMPORAL = 0x0018A001, 0x00280301, 0x00280302, 0x00280303
REPLACED = frozenset({PATIENT_IDENTITY_REMOVED, METHOD, METHOD_CODES, CONTRIBUTING_EQUIPMENT, TEMPORAL})
"""Attributes of an original that a copy always has from here; Burned In Annotation and the like only if made."""

DEIDENTIFYING_EQUIPMENT = Concept("109104", "De-identifying Equipment")
_READ = {"clean": "Pixels read: no text found", "masked": "Pixels read: text blanked"}


@dataclass(frozen=True, slots=True)
class Done:
    """What was really done to one instance.

    `options` are those asked for that ran on it. `pixels` says whether somebody looked for text in every frame, and
    what came of it; `faces_removed` that a face in it was found and taken off.
    """

    options: frozenset[Option] = frozenset()
    pixels: Literal["not examined", "clean", "masked"] = "not examined"
    faces_removed: bool = False
    version: str = __version__
    edition: str = EDITION

    @property
    def dates(self) -> Literal["REMOVED", "MODIFIED", "UNMODIFIED"]:
        """Longitudinal Temporal Information Modified."""
        if Option.RETAIN_MODIFIED_DATES in self.options:
            return "MODIFIED"
        return "UNMODIFIED" if Option.RETAIN_FULL_DATES in self.options else "REMOVED"

    @property
    def claimed(self) -> tuple[Option, ...]:
        """The options that a copy may name, in the order of the standard.

        To have asked for a pixel option is not enough: nobody may take an unread image for a clean one.
        """
        idle = {Option.CLEAN_PIXEL_DATA} if self.pixels == "not examined" else set()
        if not self.faces_removed:
            idle.add(Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES)
        return tuple(option for option in Option if option in self.options - idle)


def elements(done: Done, syntax: Syntax, earlier_equipment: Sequence[bytes] = ()) -> list[Made]:
    """What is written into the copy, by tag.

    Burned In Annotation and Recognizable Visual Features are among them only where they turn NO; otherwise the
    original's word, or its silence, stands.

    Parameters
    ----------
    earlier_equipment
        Items of the original's Contributing Equipment Sequence that stay (Retain Device Identity), as bytes.
    """
    made: list[Made] = [
        (PATIENT_IDENTITY_REMOVED, "CS", b"YES"),
        (METHOD, "LO", "\\".join(method(done)).encode("ascii")),
        (METHOD_CODES, "SQ", [_item(concept, syntax) for concept in method_codes(done)]),
        (CONTRIBUTING_EQUIPMENT, "SQ", [*earlier_equipment, _equipment(done, syntax)]),
    ]
    if done.pixels != "not examined":
        made.append((BURNED_IN, "CS", b"NO"))
    if done.faces_removed:
        made.append((RECOGNIZABLE, "CS", b"NO"))
    return [*made, (TEMPORAL, "CS", done.dates.encode("ascii"))]


def method(done: Done) -> tuple[str, ...]:
    """The values of De-identification Method (LO: 64 characters each)."""
    return (
        "Basic Application Level Confidentiality Profile",
        *done.claimed,
        *((_READ[done.pixels],) if done.pixels in _READ else ()),
        f"PS3.15 {done.edition} Table E.1-1",
        f"medgem-node {done.version}",
    )


def method_codes(done: Done) -> tuple[Concept, ...]:
    """The items of De-identification Method Code Sequence."""
    return (BASIC_PROFILE, *(CONCEPTS[option] for option in done.claimed))


def _equipment(done: Done, syntax: Syntax) -> bytes:
    """This program as contributing equipment (PS3.3 C.12.1): no station, no site, no time."""
    values: tuple[tuple[int, str, bytes | list[bytes]], ...] = (
        (0x00080070, "LO", b"medgem-node"),
        (0x00081090, "LO", b"medgem-node"),
        (0x00181020, "LO", done.version.encode("ascii")),
        (0x0040A170, "SQ", [_item(DEIDENTIFYING_EQUIPMENT, syntax)]),
    )
    return b"".join(layout.element(tag, vr, value, syntax) for tag, vr, value in values)


def _item(concept: Concept, syntax: Syntax) -> bytes:
    values = (
        (0x00080100, "SH", concept.value),
        (0x00080102, "SH", "DCM"),
        (0x00080104, "LO", concept.meaning),
    )
    return b"".join(layout.element(tag, vr, value.encode("ascii"), syntax) for tag, vr, value in values)
