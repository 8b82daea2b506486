"""Every code that the product can write is one that others know, or is ours and says so."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from harness import chest, volume
from pydicom import Dataset
from pydicom.sr._concepts_dict import concepts

from medgem_node import answer
from medgem_node.finding import not_analysed
from medgem_node.writers import measurement_report

ROOT = Path(__file__).parents[2]
CARDS = sorted(ROOT.glob("models/*/*/model.toml"))

# In no context group of DICOM, so not in pydicom's dictionaries; found in public repositories with that meaning.
ELSEWHERE = {
    ("8186001", "SCT"): "Cardiomegaly",
    ("427359005", "SCT"): "Solitary nodule of lung",
    ("445512009", "SCT"): "Calcification of coronary artery",
    ("C0034375", "UMLS"): "Qualitative Evaluations",  # TID 1500 row 12
    ("en-US", "RFC5646"): "English (United States)",  # CID 5000 is open: RFC 5646
    ("{-1:1}", "UCUM"): "{-1:1}",  # units of UCUM need no list
    ("{pixels}", "UCUM"): "Pixels",
}
PRIVATE = {
    *("CTR", "CARDIACWIDTH", "THORACICWIDTH"),  # docs/decisions/0004
    *("REASON", "CONFIDENCETIER", "REVIEW"),  # docs/decisions/0006
    *(answer.reason(not_analysed("", "", reason, "")).value for reason in answer.REASONS),
}
KNOWN = {
    (value, scheme): meaning
    for scheme, of_keyword in concepts.items()
    for of_value in of_keyword.values()
    for value, (meaning, *_) in of_value.items()
}


def _unknown(codes: Iterator[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    return {
        (value, scheme, meaning)
        for value, scheme, meaning in codes
        if not (value in PRIVATE if scheme == answer.PRIVATE else (value, scheme) in KNOWN | ELSEWHERE)
    }


def _of_card(fields: object) -> Iterator[tuple[str, str, str]]:
    if isinstance(fields, Mapping):
        if {"value", "scheme", "meaning"} == fields.keys():
            yield fields["value"], fields["scheme"], fields["meaning"]
        for inner in fields.values():
            yield from _of_card(inner)
    elif isinstance(fields, list):
        for inner in fields:
            yield from _of_card(inner)


def _of_object(thing: Dataset) -> Iterator[tuple[str, str, str]]:
    for element in thing:
        for item in element.value if element.VR == "SQ" else ():
            if "CodeMeaning" in item:
                value = str(item.get("CodeValue") or item.get("LongCodeValue"))
                yield value, str(item.CodingSchemeDesignator), str(item.CodeMeaning)
            yield from _of_object(item)


@pytest.mark.parametrize("path", CARDS, ids=lambda p: f"{p.parent.parent.name} {p.parent.name}")
def test_a_model_card_names_only_codes_that_others_know(path: Path) -> None:
    codes = list(_of_card(tomllib.loads(path.read_text("utf-8"))))

    assert codes
    assert _unknown(iter(codes)) == set()


def test_the_package_names_only_codes_that_others_know() -> None:
    """Codes come from pydicom by keyword; those that are typed are looked up here."""
    typed = set()
    for path in (ROOT / "medgem_node").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = getattr(getattr(call, "func", None), "attr", getattr(getattr(call, "func", None), "id", ""))
            args = call.args if isinstance(call, ast.Call) and name in ("Code", "CodedConcept") else []
            if len(args) == 3 and all(isinstance(a, ast.Constant) for a in args):
                typed.add(tuple(str(a.value) for a in args))

    assert ("C0034375", "UMLS", "Qualitative Evaluations") in typed
    assert _unknown(iter(typed)) == set()


def _written() -> dict[str, tuple]:
    film, slices = chest.film(64, 48), volume.study(4, 32, 40)
    return {
        "film": ([film], chest.analysis(film)),
        "CT": (slices, volume.analysis(*slices)),
        "MR": ((series := volume.study(4, 32, 40, modality="MR")), volume.analysis(*series)),
        "refused": ([film], not_analysed(chest.CARD.name, chest.CARD.version, "pixel-data-truncated", "too short")),
    }


@pytest.mark.parametrize("name", ["film", "CT", "MR", "refused"])
def test_the_results_name_only_codes_that_others_know(write, name: str) -> None:
    originals, analysis = _written()[name]

    for label, result in write(analysis, originals).items():
        assert _unknown(_of_object(result)) == set(), label


def _reasons(path: Path) -> Iterator[str]:
    """The literal reasons of all calls that give one, in one file."""
    position = {"NotApplicable": 0, "Unreadable": 0, "coded": 0, "Failure": 0, "not_analysed": 2, "_refused_file": 2}
    for call in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(call, ast.Call):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in position and len(call.args) > position[name]:
                for part in ast.walk(call.args[position[name]]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def test_every_reason_that_the_product_gives_has_its_meaning() -> None:
    given = {reason for path in (ROOT / "medgem_node").rglob("*.py") for reason in _reasons(path)}
    for path in CARDS:
        refusals = tomllib.loads(path.read_text("utf-8")).get("gate", {}).get("refusals", {})
        given |= {{"other": "not-a-frontal-chest", "inverted": "inverted-polarity"}.get(r, r) for r in refusals}

    assert {"lateral-view", "worker-died", "not-written", "upside-down"} <= given
    assert given <= answer.REASONS.keys()
    assert all(len(meaning) <= 64 for meaning in answer.REASONS.values())


def test_every_reason_has_a_code_of_its_own() -> None:
    values = [answer.reason(not_analysed("", "", reason, "")).value for reason in answer.REASONS]

    assert len(set(values)) == len(values)
    assert all(len(value) <= 16 for value in values)


def test_a_method_is_a_code_where_it_has_one() -> None:
    assert measurement_report._METHODS["Agatston scoring method"].value == "112055"
