"""How many patients of an exported folder are alike: k-anonymity over chosen attributes.

Who knows a patient's age, sex and the month of his examination finds him in an export where nobody else has the same.
This counts; it changes nothing.

References
----------
Sweeney 2002, doi:10.1142/S0218488502001648.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medgem_node.dictionary import tag_of, vr_of
from medgem_node.errors import ConfigError

USUAL = (
    *("PatientAge", "PatientSex", "Modality", "BodyPartExamined", "StudyDate"),
    *("Manufacturer", "ManufacturerModelName", "InstitutionName"),
)
"""What others may know of a patient, as far as an image tells it."""

Patient = Mapping[str, frozenset[str]]
"""Keyword to every value that the images of one patient have."""

_STEPS: dict[str, tuple[str, ...]] = {
    "AS": ("bands of 5 years", "bands of 10 years", "bands of 20 years", "left out"),
    "DA": ("the month", "the year", "left out"),
    "DT": ("the month", "the year", "left out"),
}
_OTHER_STEPS = ("as it is", "left out")
_LEFT_OUT = "left out"
_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def identifiers(keywords: Iterable[str]) -> tuple[str, ...]:
    """The keywords, if PS3.6 has them all. Raises ConfigError."""
    named = tuple(keyword.strip() for keyword in keywords)
    for keyword in named:
        tag = tag_of(keyword)
        if tag is None or vr_of(tag) == "SQ":
            raise ConfigError(f'--quasi: "{keyword}" is no DICOM attribute with a value of its own; see PS3.6')
    return named


def patients(folder: Path, names: Iterable[str], keywords: Sequence[str]) -> list[Patient]:
    """The patients of these files, by the Patient ID; images without one are a patient for each study."""
    from pydicom import dcmread  # half a second, for the few who ask

    values: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: {keyword: set() for keyword in keywords})
    wanted = ["PatientID", "IssuerOfPatientID", "StudyInstanceUID", *keywords]
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a stranger's header breaks, its copy may break too
            header = dcmread(folder / name, stop_before_pixels=True, specific_tags=wanted)
        patient_id = str(header.get("PatientID") or "")
        issuer = str(header.get("IssuerOfPatientID") or "")
        key = (patient_id, issuer) if patient_id else (str(header.get("StudyInstanceUID") or ""),)
        for keyword in keywords:
            value = header.get(keyword)
            values[key][keyword].add("" if value is None else str(value).strip())
    return [{keyword: frozenset(each - {""}) for keyword, each in one.items()} for one in values.values()]


def groups(found: Sequence[Patient], keywords: Sequence[str], k: int) -> dict[str, Any]:
    """What stands in the report: sizes, the groups of fewer than `k` patients, and what would make them larger."""
    steps = dict.fromkeys(keywords, 0)
    sizes = _sizes(found, steps)
    small = sorted((size, row) for row, size in sizes.items() if size < k)
    below = sum(size for size, _ in small)
    return {
        "k": k,
        "quasi_identifiers": {keyword: _steps(keyword)[0] for keyword in keywords},
        "patients": len(found),
        "groups": len(sizes),
        "smallest_group": min(sizes.values(), default=0),
        "patients_below_k": below,
        "share_below_k": round(below / len(found), 4) if found else 0.0,
        "small_groups": [{"patients": size, **dict(zip(keywords, row, strict=True))} for size, row in small],
        "generalise": _remedies(found, steps, k, below),
    }


def sentence(said: Mapping[str, Any]) -> str:
    """The report in one line."""
    if not said["patients_below_k"]:
        return f"k-anonymity: each of {said['patients']} patients is in a group of {said['k']} or more"
    return (
        f"k-anonymity: {said['patients_below_k']} of {said['patients']} patients are in groups of fewer than "
        f"{said['k']}; the smallest has {said['smallest_group']}"
    )


def _remedies(found: Sequence[Patient], steps: Mapping[str, int], k: int, below: int) -> list[dict[str, Any]]:
    """Each single coarser step that helps, the best first."""
    remedies = []
    for keyword in steps:
        for step, name in enumerate(_steps(keyword)[1:], 1):
            left = sum(size for size in _sizes(found, {**steps, keyword: step}).values() if size < k)
            if left < below:
                remedies.append({"keyword": keyword, "to": name, "patients_below_k": left})
    return sorted(remedies, key=lambda remedy: remedy["patients_below_k"])


def _sizes(found: Sequence[Patient], steps: Mapping[str, int]) -> Counter[tuple[str, ...]]:
    """Row to how many patients have it."""
    return Counter(tuple(_coarse(keyword, one[keyword], step) for keyword, step in steps.items()) for one in found)


def _steps(keyword: str) -> tuple[str, ...]:
    return _STEPS.get(vr_of(tag_of(keyword) or 0), _OTHER_STEPS)


def _coarse(keyword: str, values: frozenset[str], step: int) -> str:
    """All of a patient's values as one text, as coarse as the step says."""
    name = _steps(keyword)[step]
    if name == _LEFT_OUT:
        return ""
    if name.startswith("bands of "):
        width = int(name.split(" ")[2])
        return " / ".join(sorted({_band(value, width) for value in values}))
    length = {"the month": 6, "the year": 4}.get(name)
    return " / ".join(sorted({value[:length] for value in values}))


def _band(age: str, width: int) -> str:
    """`045Y` as `45-49`; what is no age stays."""
    digits, unit = age[:-1], age[-1:]
    if not digits.isdigit() or unit not in _YEARS:
        return age
    first = int(int(digits) * _YEARS[unit]) // width * width
    return f"{first}-{first + width - 1}"
