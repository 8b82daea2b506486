"""What was done to a study: keywords and counts, checkable, and no identity."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from medgem_node.deid import certificate
from medgem_node.deid.certificate import Deeds, Written
from medgem_node.deid.options import Option, Profile

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
PROFILE = Profile(frozenset({Option.CLEAN_DESCRIPTORS}))


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """The certificate of two files in `tmp_path`."""
    deeds = Deeds()
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / name).write_bytes(name.encode())
        deeds.add({0x00100030: "removed", 0x00081030: "cleaned", 0x00291001: "removed"}, "clean", PROFILE.options)
    written = [Written(f"2.25.{n[0]}", hashlib.sha256(n.encode()).hexdigest(), n) for n in ("b.dcm", "a.dcm")]
    return certificate.of_study("2.25.1", written, deeds, PROFILE, NOW)


def test_it_says_what_was_done_to_which_attribute_how_often(made: dict[str, Any]) -> None:
    assert made["attributes"] == {
        "cleaned": {"StudyDescription": 2},
        "removed": {"PatientBirthDate": 2, "(0029,1001)": 2},
    }
    assert made["options_that_ran"] == {"Clean Descriptors": 2}
    assert made["pixels"] == {"clean": 2}
    assert made["proof"] == {"instances": 2, "found": 0}
    assert [f["name"] for f in made["files"]] == ["a.dcm", "b.dcm"]


def test_it_bears_out_the_files_that_it_names(made: dict[str, Any], tmp_path: Path) -> None:
    assert certificate.check(made, tmp_path) == []
    assert certificate.check(json.loads(json.dumps(made)), tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "a.dcm").write_bytes(b"other"), ["a.dcm: was changed"]),
        (lambda folder: (folder / "b.dcm").unlink(), ["b.dcm: is missing or cannot be read"]),
    ],
)
def test_a_changed_or_missing_file_is_found(
    made: dict[str, Any], tmp_path: Path, damage: Callable[[Path], object], said: list[str]
) -> None:
    damage(tmp_path)

    assert certificate.check(made, tmp_path) == said


def test_a_changed_certificate_is_found(made: dict[str, Any], tmp_path: Path) -> None:
    made["attributes"]["removed"]["PatientName"] = 2

    assert certificate.check(made, tmp_path) == ["the certificate was changed after it was made"]
    assert certificate.check({}, tmp_path) == ["this is no certificate of a form that is known here"]


def test_its_digest_does_not_depend_on_the_order_of_its_keys(made: dict[str, Any]) -> None:
    assert certificate.digest(dict(reversed(made.items()))) == made["sha256"]


def test_deeds_of_two_parts_of_a_study_add_up() -> None:
    one, other = Deeds(), Deeds()
    one.add({0x00100030: "removed"}, "clean", ())
    other.add({0x00100030: "removed", 0x00100010: "replaced"}, "masked", ())

    one.join(Deeds.from_json(json.loads(json.dumps(other.to_json()))))

    assert one.changes == {(0x00100030, "removed"): 2, (0x00100010, "replaced"): 1}
    assert one.pixels == {"clean": 1, "masked": 1}
