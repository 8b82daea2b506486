"""PS3.15 Table E.1-1, and how its combined actions are decided without a table of IODs.

D dummy, Z empty, X remove, K keep, C clean, U another UID. A combination leaves the choice to the attribute's Type in
its IOD. What is valid for every Type is taken where that costs nothing: inside sequences a dummy or an empty value;
on top, where the Types of the image IODs are few, X unless listed below (from PS3.3 2024e).
"""

from __future__ import annotations

import json
from importlib.resources import files

from pydicom import uid as sop

from medgem_node import __version__

_TABLE = json.loads(files(__package__).joinpath("table_e1.json").read_text(encoding="utf-8"))

METHOD = (
    "Basic Application Confidentiality Profile",
    f"PS3.15 {_TABLE['edition']} Table E.1-1",
    f"medgem-node {__version__}",
)
"""De-identification Method, one value each (VR LO: 64 characters)."""
ACTIONS: dict[int, str] = {
    int(row[0], 16): row[4] for row in _TABLE["rows"] if "x" not in row[0] and row[0] != "PRIVATE"
}

_ENHANCED = frozenset(
    {
        sop.EnhancedCTImageStorage, sop.EnhancedMRImageStorage, sop.EnhancedMRColorImageStorage,
        sop.EnhancedPETImageStorage, sop.EnhancedXAImageStorage, sop.EnhancedXRFImageStorage,
        sop.LegacyConvertedEnhancedCTImageStorage, sop.LegacyConvertedEnhancedMRImageStorage,
        sop.LegacyConvertedEnhancedPETImageStorage, sop.BreastTomosynthesisImageStorage,
        sop.BreastProjectionXRayImageStorageForPresentation, sop.BreastProjectionXRayImageStorageForProcessing,
        sop.XRay3DAngiographicImageStorage, sop.XRay3DCraniofacialImageStorage,
    }
)  # fmt: skip
_SINGLE = frozenset(
    {
        sop.ComputedRadiographyImageStorage,
        sop.DigitalXRayImageStorageForPresentation, sop.DigitalXRayImageStorageForProcessing,
        sop.DigitalMammographyXRayImageStorageForPresentation, sop.DigitalMammographyXRayImageStorageForProcessing,
        sop.DigitalIntraOralXRayImageStorageForPresentation, sop.DigitalIntraOralXRayImageStorageForProcessing,
        sop.CTImageStorage, sop.MRImageStorage, sop.PositronEmissionTomographyImageStorage,
        sop.NuclearMedicineImageStorage, sop.XRayAngiographicImageStorage, sop.XRayRadiofluoroscopicImageStorage,
    }
)  # fmt: skip
IMAGES = _SINGLE | _ENHANCED
"""The SOP Classes that may leave: a modality's own frames, without screens, documents, labels or photographs."""

_TYPE_1: dict[str, frozenset[int]] = {
    sop.PositronEmissionTomographyImageStorage: frozenset({0x00080021, 0x00080031}),  # Series Date, Time
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
