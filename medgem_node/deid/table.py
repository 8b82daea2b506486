"""PS3.15 Table E.1-1: what becomes of an attribute, its options applied and its combined actions decided.

D dummy, Z empty, X remove, K keep, C clean, U another UID. A combined action, such as X/Z/D, is decided by the
attribute's Type at its place in the IOD (Table E.1-1a). A plain X or Z that would make the copy invalid there, as X
does with the Type 1 Presentation Creation Date, becomes the empty value or the dummy that its Type asks for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from medgem_node import __version__
from medgem_node.deid import types
from medgem_node.deid.options import Option, Profile
from medgem_node.dictionary import UIDS

_TABLE = json.loads(files(__package__).joinpath("table_e1.json").read_text(encoding="utf-8"))
EDITION: str = _TABLE["edition"]
PRIVATE, CURVES = 0xFFFFFFFF, 0x50000000
"""Where `rows_for` keeps the rows of private attributes and of group 50xx; overlays stand under group 6000."""

_COLUMNS = {
    "RtnSafePriv": Option.RETAIN_SAFE_PRIVATE,
    "RtnUIDs": Option.RETAIN_UIDS,
    "RtnDevId": Option.RETAIN_DEVICE_IDENTITY,
    "RtnInstId": Option.RETAIN_INSTITUTION_IDENTITY,
    "RtnPatChars": Option.RETAIN_PATIENT_CHARACTERISTICS,
    "RtnLongFull": Option.RETAIN_FULL_DATES,
    "RtnLongModif": Option.RETAIN_MODIFIED_DATES,
    "CleanDesc": Option.CLEAN_DESCRIPTORS,
    "CleanStructCont": Option.CLEAN_STRUCTURED_CONTENT,
    "CleanGraph": Option.CLEAN_GRAPHICS,
}
_TAGS = {"PRIVATE": PRIVATE, "50xxxxxx": CURVES}
_ROWS: tuple[tuple[int, str, str, Mapping[Option, str]], ...] = tuple(
    (
        _TAGS.get(tag) or int(tag.replace("x", "0"), 16),
        vr,
        basic,
        {_COLUMNS[column]: said for column, said in (options or {}).items()},  # null: newer than the options' edition
    )
    for tag, _, _, vr, basic, options in _TABLE["rows"]
)
_COMPANIONS = {0x00102298: "X"}
"""Not in the table: Responsible Person Role may only stand beside the person, who goes (PS3.3 C.7.1.1)."""
_SEQUENCES = frozenset(tag for tag, vr, _, _ in _ROWS if vr == "SQ")


def resolve(tag: int, parents: tuple[int, ...], sop_class_uid: str, profile: Profile) -> str:
    """What becomes of an attribute: one of D Z X K C U, or an empty string for one without a row.

    Parameters
    ----------
    parents
        The tags of the enclosing sequences, outermost first.
    """
    action = rows_for(profile).get(row_tag(tag), "")
    return _decided(tag, action, parents, sop_class_uid)


def actions_at(parents: tuple[int, ...], sop_class_uid: str, profile: Profile) -> dict[int, str]:
    """The answers of `resolve` for every row, at one place; keys as in `rows_for`."""
    return {tag: _decided(tag, action, parents, sop_class_uid) for tag, action in rows_for(profile).items()}


def rows_for(profile: Profile) -> Mapping[int, str]:
    """The action of every row with the options applied, combined ones undecided; by `row_tag`."""
    return _rows(profile.options)


def row_tag(tag: int) -> int:
    """The tag under which an attribute's row is kept: its own unless it is private or of a repeating group."""
    group = tag >> 16
    if group & 1:
        return PRIVATE
    if group >> 8 == 0x50:
        return CURVES
    return tag & 0xFF00FFFF if group >> 8 == 0x60 else tag


def is_safe_private(creator: str, tag: int) -> str:
    """The VR of a private attribute that PS3.15 Table E.3.10-1 calls safe, whatever its block; empty for others."""
    return _safe_private().get((creator.strip(" \0"), tag >> 16, tag & 0xFF), "") if tag & 0xFF00 else ""


@cache
def _rows(options: frozenset[Option]) -> Mapping[int, str]:
    return MappingProxyType({tag: _chosen(basic, said, options) for tag, _, basic, said in _ROWS} | _COMPANIONS)


def _chosen(basic: str, said: Mapping[Option, str], options: frozenset[Option]) -> str:
    """The basic action unless an option says otherwise.

    To clean wins over to keep: the true date of a device's calibration beside shifted ones would tell the shift.
    """
    asked = {action for option, action in said.items() if option in options}
    return "C" if "C" in asked else "K" if "K" in asked else basic


def _decided(tag: int, action: str, parents: tuple[int, ...], sop_class_uid: str) -> str:
    if action in ("", "K", "C", "U", "D") or tag >> 24 in (0x50, 0x60, 0xFF):
        return action  # private blocks and repeating groups go as a whole, whatever their attributes need
    if action == "X/Z/U*":
        return "U"  # references stay, and lead to the other copies
    kind = types.type_of(sop_class_uid, parents, tag)
    if "/" not in action:
        return _kept_valid(action, kind, tag in _SEQUENCES)
    if not kind and (parents or not types.is_known(sop_class_uid)):
        kind = types.strictest_type(parents, tag)
    return _by_type(action, kind, tag in _SEQUENCES)


def _by_type(action: str, kind: str, is_sequence: bool) -> str:
    """Table E.1-1a. A conditional attribute that is there is taken to be required: nobody can ask its condition."""
    if kind in ("1", "1C"):
        return "D"
    if kind in ("2", "2C"):
        return "Z"
    return "X" if "X" in action or is_sequence else "Z"


def _kept_valid(action: str, kind: str, is_sequence: bool) -> str:
    """A plain X or Z, unless the IOD asks for more; an optional sequence may be absent, but not empty."""
    if kind == "1":
        return "D"
    if action == "X":
        return "Z" if kind in ("2", "2C") else "X"
    return "X" if is_sequence and kind in ("3", "") else "Z"


@cache
def _safe_private() -> Mapping[tuple[str, int, int], str]:
    content = json.loads(files(__package__).joinpath("safe_private.json").read_text(encoding="utf-8"))
    return {(creator, int(tag[:4], 16), int(tag[6:], 16)): vr for creator, tag, vr, _, _ in content["rows"]}


METHOD = (
    "Basic Application Confidentiality Profile",
    f"PS3.15 {EDITION} Table E.1-1",
    f"medgem-node {__version__}",
)
"""De-identification Method, one value each (VR LO: 64 characters)."""
ACTIONS: dict[int, str] = {
    int(row[0], 16): row[4] for row in _TABLE["rows"] if "x" not in row[0] and row[0] != "PRIVATE"
}

_SOP_CLASSES = {row[4]: uid for uid, row in UIDS.items() if row[1] == "SOP Class"}  # by keyword
_ENHANCED = frozenset(
    _SOP_CLASSES[keyword]
    for keyword in """
    EnhancedCTImageStorage EnhancedMRImageStorage EnhancedMRColorImageStorage EnhancedPETImageStorage
    EnhancedXAImageStorage EnhancedXRFImageStorage LegacyConvertedEnhancedCTImageStorage
    LegacyConvertedEnhancedMRImageStorage LegacyConvertedEnhancedPETImageStorage BreastTomosynthesisImageStorage
    BreastProjectionXRayImageStorageForPresentation BreastProjectionXRayImageStorageForProcessing
    XRay3DAngiographicImageStorage XRay3DCraniofacialImageStorage
    """.split()  # noqa: SIM905
)
_SINGLE = frozenset(
    _SOP_CLASSES[keyword]
    for keyword in """
    ComputedRadiographyImageStorage DigitalXRayImageStorageForPresentation DigitalXRayImageStorageForProcessing
    DigitalMammographyXRayImageStorageForPresentation DigitalMammographyXRayImageStorageForProcessing
    DigitalIntraOralXRayImageStorageForPresentation DigitalIntraOralXRayImageStorageForProcessing CTImageStorage
    MRImageStorage PositronEmissionTomographyImageStorage NuclearMedicineImageStorage XRayAngiographicImageStorage
    XRayRadiofluoroscopicImageStorage
    """.split()  # noqa: SIM905
)
IMAGES = _SINGLE | _ENHANCED
"""The SOP Classes that may leave: a modality's own frames, without screens, documents, labels or photographs."""

_TYPE_1: dict[str, frozenset[int]] = {
    _SOP_CLASSES["PositronEmissionTomographyImageStorage"]: frozenset({0x00080021, 0x00080031}),  # Series Date, Time
    **{
        uid: frozenset({0x00080023, 0x00080033, 0x0008002A, 0x00181000})  # Content Date, Time, Acquisition DateTime,
        for uid in _ENHANCED  # Device Serial Number
    },
}
_TYPE_2_SEQUENCES = frozenset({0x00400555})  # Acquisition Context Sequence; any other may be absent


def type_1(sop_class_uid: str) -> frozenset[int]:
    """The top attributes of a class that must have a value and whose row says `X/D` or the like."""
    return _TYPE_1.get(sop_class_uid, frozenset())


def action(tag: int, is_sequence: bool, must_have_value: bool) -> str:
    """One of D Z X U, or an empty string for an attribute without a row. C is never asked for without its option."""
    said = ACTIONS.get(tag, "")
    if "/" not in said:
        return said
    if said == "X/Z/U*":
        return "U"  # references stay, and lead to the other copies
    if is_sequence:
        return "Z" if tag in _TYPE_2_SEQUENCES else "X"  # an empty sequence of Type 3 is not valid
    if said == "X/Z":
        return "Z"
    if must_have_value:
        return "D"
    return "Z" if said == "Z/D" else "X"
