"""Whether a model is meant for an image, as far as its header tells.

Headers were de-identified before (PS3.15 Basic Profile), so nothing here reads a description, a protocol name or an
age; what is read here, the profile leaves. An attribute that is empty does not speak against an image: what a header
does not tell, the model's own gate has to see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pydicom import Dataset, uid
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medgem_node.errors import ModelRejected, NotApplicable
from medgem_node.frame import coded

_CHEST = (
    codes.SCT.Chest,
    codes.SCT.Lung,
    Code("51185008", "SCT", "Thoracic structure"),  # what PS3.16 called Chest before, and SRT T-D3000 maps to
)
_FRONTAL = (codes.cid4010.AnteroPosterior, codes.cid4010.PosteroAnterior, codes.cid4010.Frontal)
_SIDEWAYS = (
    codes.cid4010.LateralProjection,
    codes.cid4010.LeftLateral,
    codes.cid4010.RightLateral,
    codes.cid4010.LateralOblique,
)
_PARTS = frozenset(getattr(codes.cid4031, keyword).meaning.upper() for keyword in codes.cid4031.dir())
_OLD_SNOMED = ("SNM3", "99SDM")  # codes of SRT under earlier designators (PS3.16 8)
_LATERAL = re.compile(r"[LR]?LAT(ERAL\w*)?|[LR]LD?|DECUB\w*|SWIMMERS?")  # PS3.3 C.8.1.1 and C.8.11.5, and habits
_OBLIQUE = re.compile(r"[LR][LAP]O|OBL\w*|TANGENTIAL|LORDOTIC")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a model may see: a manifest's `[selection]`."""

    modalities: tuple[str, ...] = ("CR", "DX", "RG")
    body_parts: tuple[str, ...] = ("CHEST", "THORAX", "LUNG", "LUNGS")
    orientations: tuple[str, ...] = ("L\\F",)  # a mirrored film would swap left and right in every finding

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Selection:
        """The manifest's table. Raises ModelRejected for a key that is not known."""
        if unknown := sorted(table.keys() - {f.name for f in fields(cls)}):
            raise ModelRejected(
                f'model.toml: unknown key "{unknown[0]}" in [selection]; '
                f"known are {', '.join(f.name for f in fields(cls))}"
            )
        return cls(**{key: tuple(value) for key, value in table.items()})


def applicable(instance: Dataset, selection: Selection) -> None:
    """Returns if the header does not speak against the image.

    Raises
    ------
    NotApplicable
        `modality`, `for-processing`, `localizer`, `body-part`, `lateral-view`, `oblique-view`, `orientation`.
    Unreadable
        `header`.
    """
    with coded("header", "the header cannot be read"):
        _check_kind(instance, selection)
        _check_body_part(instance, selection)
        _check_view(instance)
        _check_orientation(instance, selection)


def text(instance: Dataset, keyword: str) -> str:
    """An element's value in upper case, several joined as in the file."""
    value = instance.get(keyword)
    parts = [value] if value is None or isinstance(value, str) else value
    return "\\".join("" if part is None else str(part).strip().upper() for part in parts)


def _check_kind(instance: Dataset, selection: Selection) -> None:
    modality = text(instance, "Modality")
    if modality not in selection.modalities:
        meant = ", ".join(selection.modalities)
        told = modality if re.fullmatch(r"[A-Z]{2,4}", modality) else "not known"
        raise NotApplicable("modality", f"the modality is {told}; the model is meant for {meant}")
    for_processing = uid.DigitalXRayImageStorageForProcessing
    if "FOR PROCESSING" in text(instance, "PresentationIntentType") or instance.SOPClassUID == for_processing:
        raise NotApplicable("for-processing", "the image is raw data, meant for further processing")
    if "LOCALIZER" in text(instance, "ImageType").split("\\"):
        raise NotApplicable("localizer", "the image is a localizer")


def _check_body_part(instance: Dataset, selection: Selection) -> None:
    meant = f"the model is meant for {', '.join(selection.body_parts)}"
    named = text(instance, "BodyPartExamined")
    if named and not _names(named, selection):
        told = named if named in _PARTS else "another"  # free text could be anything, so it is not repeated
        raise NotApplicable("body-part", f"the body part is {told}; {meant}")
    if not all(_is_chest(code, selection) for code in _codes(instance, "AnatomicRegionSequence")):
        raise NotApplicable("body-part", f"the anatomic region is another; {meant}")


def _names(text: str, selection: Selection) -> bool:
    return not set(_words(text)).isdisjoint(selection.body_parts)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.upper())


def _is_chest(code: Code, selection: Selection) -> bool:
    if code.scheme_designator in ("SCT", "SRT"):
        return code in _CHEST
    return _names(code.meaning, selection)  # a private code says what it means, if anything


def _check_view(instance: Dataset) -> None:
    words = _words(text(instance, "ViewPosition"))
    for code in _codes(instance, "ViewCodeSequence"):
        if code in _SIDEWAYS:
            raise NotApplicable("lateral-view", "the view is lateral; the model is meant for frontal films")
        words += [] if code in _FRONTAL else _words(code.meaning)
    for word in words:
        if _LATERAL.fullmatch(word):
            raise NotApplicable("lateral-view", f"the view is {word}; the model is meant for frontal films")
        if _OBLIQUE.fullmatch(word):
            raise NotApplicable("oblique-view", f"the view is {word}; the model is meant for frontal films")


def _check_orientation(instance: Dataset, selection: Selection) -> None:
    """Patient Orientation (PS3.3 C.7.6.1.1.1): where a row and a column lead to."""
    found = text(instance, "PatientOrientation")
    if not found.strip("\\"):
        return
    if any(part[:1] in ("A", "P") for part in found.split("\\")):
        raise NotApplicable("lateral-view", "the patient orientation is that of a lateral film")
    if found not in selection.orientations:
        meant = " or ".join(selection.orientations)
        raise NotApplicable("orientation", f"the film is mirrored or turned: its patient orientation is not {meant}")


def _codes(instance: Dataset, keyword: str) -> Iterator[Code]:
    for item in instance.get(keyword) or ():
        value = item.get("CodeValue") or item.get("LongCodeValue") or ""
        scheme = str(item.get("CodingSchemeDesignator") or "")
        yield Code(str(value), "SRT" if scheme in _OLD_SNOMED else scheme, str(item.get("CodeMeaning") or ""))
