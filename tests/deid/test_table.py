"""Every row of Table E.1-1: alone, and on top and inside a sequence of a copy."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from pydicom import Dataset, uid
from pydicom.datadict import tag_for_keyword
from stranger import raw_file, raw_film, raw_item

from medgem_node import part10
from medgem_node.deid import table, types
from medgem_node.deid.options import BASIC, Option, Profile
from medgem_node.deid.profile import deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms

TABLE = json.loads(files("medgem_node.deid").joinpath("table_e1.json").read_text(encoding="utf-8"))
SAFE_PRIVATE = json.loads(files("medgem_node.deid").joinpath("safe_private.json").read_text(encoding="utf-8"))
COLUMNS = {
    "RtnSafePriv": "Retain Safe Private", "RtnUIDs": "Retain UIDs", "RtnDevId": "Retain Device Identity",
    "RtnInstId": "Retain Institution Identity", "RtnPatChars": "Retain Patient Characteristics",
    "RtnLongFull": "Retain Longitudinal Temporal Information With Full Dates",
    "RtnLongModif": "Retain Longitudinal Temporal Information With Modified Dates",
    "CleanDesc": "Clean Descriptors", "CleanStructCont": "Clean Structured Content", "CleanGraph": "Clean Graphics",
}  # fmt: skip
HOLDER = 0x00409096  # Real World Value Mapping Sequence: without a row, so its items are looked into
PLANTED = {
    "AS": b"041Y", "DA": b"19410203", "DS": b"41.414243", "DT": b"19410203040506.77", "IS": b"414243",
    "OB": b"XYLOPHON", "TM": b"040506.778899", "UI": b"1.3.999.19410203.7.7", "UN": b"XYLOPHON", "US": b"XY",
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE["rows"], ids=lambda row: f"{row[0]}-{row[4]}")
def test_a_row_does_what_it_says_at_every_depth(row: list, pseudonyms: Pseudonyms) -> None:
    tag, vr, action = _tag(row[0]), _vr(row[3]), row[4]
    value = _value(vr)
    film = [e for e in raw_film() if e[0] != tag]
    if tag in (0x00080018, 0x0020000D, 0x0020000E):  # the instance needs them on top
        film = raw_film()
        value = next(e[2] for e in film if e[0] == tag)
    else:
        film.append((tag, vr, value))
    film.append((HOLDER, "SQ", raw_item([(0x00280010, "US", b"\1\0"), (tag, vr, value)])))

    copy = deidentify_bytes(raw_file(film), pseudonyms)

    ds = part10.decode(copy)
    assert value not in copy
    for place in (ds, ds[HOLDER].value[0]):
        _judge(place, tag, vr, action)


@pytest.mark.parametrize("option", Option)
def test_an_option_does_what_its_column_says_and_nothing_else(option: Option) -> None:
    columns = [column for column, name in COLUMNS.items() if name == option]

    found = table.rows_for(Profile(frozenset({option})))

    expected = {0x00102298: "X"}  # Responsible Person Role goes with the person
    for row in TABLE["rows"]:
        said = [row[5][column] for column in columns if row[5] and column in row[5]]
        expected[table.row_tag(_tag(row[0]))] = said[0] if said else row[4]
    assert dict(found) == expected
    assert (set(found.values()) != set(table.rows_for(BASIC).values())) == bool(columns)


def test_the_pixel_options_alone_have_no_column() -> None:
    assert set(COLUMNS.values()) == set(Option) - {
        Option.CLEAN_PIXEL_DATA,
        Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES,
    }
    assert set(COLUMNS) == set(TABLE["option_names"])


def test_to_clean_wins_over_to_keep() -> None:
    """The true date of a calibration beside shifted dates would tell the shift."""
    calibrated = tag_for_keyword("DateOfLastCalibration") or 0
    kept, cleaned = Option.RETAIN_DEVICE_IDENTITY, Option.RETAIN_MODIFIED_DATES

    assert table.resolve(calibrated, (), uid.CTImageStorage, Profile(frozenset({kept}))) == "K"
    assert table.resolve(calibrated, (), uid.CTImageStorage, Profile(frozenset({kept, cleaned}))) == "C"


def test_a_row_newer_than_the_options_keeps_its_basic_action() -> None:
    newer = {row[0]: row[4] for row in TABLE["rows"] if row[5] is None}

    assert len(newer) == 9
    assert "No option is applied" in TABLE["no_options"]
    every = table.rows_for(Profile(frozenset(Option)))
    assert {tag: every[int(tag, 16)] for tag in newer} == newer


@pytest.mark.parametrize(
    ("sop_class_uid", "path", "expected"),
    [
        (uid.CTImageStorage, "SeriesDate", "X"),  # X/D, Type 3
        (uid.PositronEmissionTomographyImageStorage, "SeriesDate", "D"),  # X/D, Type 1
        (uid.PositronEmissionTomographyImageStorage, "AcquisitionDate", "Z"),  # X/Z, Type 2
        (uid.CTImageStorage, "AcquisitionDate", "X"),  # X/Z, Type 3
        (uid.CTImageStorage, "ContentDate", "Z"),  # Z/D, Type 2C
        (uid.EnhancedMRImageStorage, "ContentDate", "D"),  # Z/D, Type 1
        (uid.EnhancedMRImageStorage, "AcquisitionDateTime", "D"),  # X/Z/D, Type 1C
        (uid.EncapsulatedPDFStorage, "AcquisitionDateTime", "Z"),  # X/Z/D, Type 2
        (uid.EnhancedMRImageStorage, "DeviceSerialNumber", "D"),  # X/Z/D, Type 1
        (uid.RTStructureSetStorage, "OperatorsName", "Z"),  # X/Z/D, Type 2
        (uid.RTPlanStorage, "RTPlanDate", "Z"),  # X/D, Type 2
        (uid.RTPlanStorage, "BeamSequence.TreatmentMachineName", "Z"),  # X/Z, Type 2
        (uid.DigitalXRayImageStorageForPresentation, "AcquisitionContextSequence", "Z"),  # X/Z, Type 2
        (uid.CTImageStorage, "ReferencedStudySequence", "X"),  # X/Z, Type 3: absent, not empty
        (uid.CTImageStorage, "ReferencedImageSequence", "U"),  # X/Z/U*: references stay
        (uid.ComprehensiveSRStorage, "VerifyingObserverSequence.VerifyingObserverIdentificationCodeSequence", "Z"),
        (uid.CTImageStorage, "VerifyingObserverSequence.VerifyingObserverIdentificationCodeSequence", "X"),
        (uid.GrayscaleSoftcopyPresentationStateStorage, "PresentationCreationDate", "D"),  # X, yet Type 1
        (uid.CTImageStorage, "PresentationCreationDate", "X"),
        (uid.CTImageStorage, "ResponsiblePerson", "Z"),  # X, yet Type 2C: an animal has one
        (uid.CTImageStorage, "ResponsiblePersonRole", "X"),  # no row, and not valid without the person
        (uid.EnhancedMRImageStorage, "RequestAttributesSequence.RequestedProcedureID", "X"),  # X, Type 1C
        ("1.2.3", "SeriesDate", "D"),  # an unknown class: valid for every Type
        ("1.2.3", "AcquisitionContextSequence", "Z"),
        ("1.2.3", "StudyDescription", "X"),
        (uid.CTImageStorage, "Rows", ""),
    ],
)
def test_a_combined_action_is_decided_by_the_type(sop_class_uid: str, path: str, expected: str) -> None:
    *parents, tag = (tag_for_keyword(keyword) or 0 for keyword in path.split("."))

    assert table.resolve(tag, tuple(parents), sop_class_uid, BASIC) == expected


@pytest.mark.parametrize(
    ("tag", "basic", "with_option", "option"),
    [
        (0x50021004, "X", "C", Option.CLEAN_GRAPHICS),
        (0x50FE0010, "X", "C", Option.CLEAN_GRAPHICS),
        (0x60003000, "X", "C", Option.CLEAN_GRAPHICS),
        (0x60FE4000, "X", "C", Option.CLEAN_GRAPHICS),
        (0x60020010, "", "", Option.CLEAN_GRAPHICS),
        (0x00111010, "X", "C", Option.RETAIN_SAFE_PRIVATE),
        (0x60013000, "X", "C", Option.RETAIN_SAFE_PRIVATE),  # an odd group is private
        (0x50010010, "X", "C", Option.RETAIN_SAFE_PRIVATE),
        (0x00280010, "", "", Option.RETAIN_SAFE_PRIVATE),
    ],
)
def test_repeating_groups_and_private_ones_have_one_row(tag: int, basic: str, with_option: str, option: Option) -> None:
    assert table.resolve(tag, (), uid.CTImageStorage, BASIC) == basic
    assert table.resolve(tag, (HOLDER,), "1.2.3", BASIC) == basic
    assert table.resolve(tag, (), uid.CTImageStorage, Profile(frozenset({option}))) == with_option


@pytest.mark.parametrize("profile", [BASIC, Profile(frozenset(Option))], ids=["basic", "all"])
def test_no_answer_makes_an_iod_invalid(profile: Profile) -> None:
    by_modules = {modules: sop_class_uid for sop_class_uid, modules in types._tables().classes.items()}
    for sop_class_uid in by_modules.values():
        for tag, action in table.actions_at((), sop_class_uid, profile).items():
            kind = types.type_of(sop_class_uid, (), tag)

            assert action in {"D", "Z", "X", "K", "C", "U"}
            assert action not in {"X", "Z"} or kind != "1" or tag >> 24 == 0x60
            assert action != "X" or kind not in ("2", "2C")


def test_one_answer_is_that_of_all_together() -> None:
    for parents in ((), (HOLDER,), (tag_for_keyword("ReferencedRequestSequence") or 0,)):
        for tag, action in table.actions_at(parents, uid.ComprehensiveSRStorage, BASIC).items():
            assert tag == table.PRIVATE or table.resolve(tag, parents, uid.ComprehensiveSRStorage, BASIC) == action


@pytest.mark.parametrize("row", SAFE_PRIVATE["rows"], ids=lambda row: row[1])
def test_a_safe_private_attribute_is_safe_in_any_block_of_its_creator_only(row: list) -> None:
    creator, tag = row[0], int(row[1].replace("xx", "10"), 16)

    assert table.is_safe_private(creator, tag) == row[2]
    assert table.is_safe_private(creator + " ", tag | 0xFF00) == row[2]
    assert table.is_safe_private("SOMEBODY ELSE", tag) == ""
    assert table.is_safe_private(creator, tag + 0x20000) == ""
    assert table.is_safe_private(creator, tag & 0xFFFF00FF) == ""


def test_the_safe_private_table_is_the_whole_of_its_edition() -> None:
    assert (SAFE_PRIVATE["edition"], len(SAFE_PRIVATE["rows"])) == ("2025b", 87)


def test_the_table_is_the_whole_of_its_edition() -> None:
    actions = [row[4] for row in TABLE["rows"]]

    assert TABLE["edition"] == "2026c"
    assert len(actions) == 656
    assert {a: actions.count(a) for a in sorted(set(actions))} == {
        "D": 93, "U": 55, "X": 416, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "X/Z/U*": 2, "Z": 42, "Z/D": 6
    }  # fmt: skip


def test_the_generator_makes_the_table_from_its_source_again(tmp_path: Path) -> None:
    rows = [dict(zip(("tag", "name", "keyword", "VR", "basic", "options"), row, strict=True)) for row in TABLE["rows"]]
    (tmp_path / "source.json").write_text(json.dumps({"source": TABLE["source"], "rows": rows}))
    script = Path(__file__).parents[2] / "scripts" / "generate_table_e1.py"

    subprocess.run([sys.executable, script, tmp_path / "source.json", tmp_path / "table.json"], check=True)

    assert json.loads((tmp_path / "table.json").read_text(encoding="utf-8")) == TABLE


def _tag(text: str) -> int:
    return 0x00111010 if text == "PRIVATE" else int(text.replace("xxxxxx", "021004").replace("60xx", "6002"), 16)


def _vr(text: str) -> str:
    return {"": "LO", "any": "LO", "OB or OW": "OB"}.get(text, text)


def _value(vr: str) -> bytes:
    if vr == "SQ":
        return raw_item([(0x00081090, "LO", b"XYLOPHON"), (0x0040A160, "UT", b"XYLOPHON"), (0x00280011, "US", b"XY")])
    return PLANTED.get(vr, b"XYLOPHON")


def _judge(place: Dataset, tag: int, vr: str, action: str) -> None:
    found = place.get(tag)
    if action == "X" and table.resolve(tag, (), uid.ComputedRadiographyImageStorage, BASIC) == "Z":
        assert found is None or found.is_empty  # the owner of an animal: Type 2C
    elif action == "X" or tag >> 16 in (0, 2):
        assert found is None
    elif action == "U":
        assert found.value.startswith("2.25.")
    elif tag == 0x00420011:
        assert found is None  # no document in a film
    elif action == "D":
        assert not found.is_empty
    elif action == "Z":
        assert (vr == "SQ" and found is None) or found.is_empty or tag in (0x00100010, 0x00080050)
    else:
        assert found is not None or "X" in action
