"""`medgem-node crosswalk`, as somebody types it."""

import csv
import io
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import Dataset

from medgem_node import cli
from medgem_node.commands import crosswalk
from medgem_node.config import read_config
from medgem_node.inbox import patient
from medgem_node.ledger.crosswalk import Kind, Link
from medgem_node.node import Node, open_node

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
WHY = ("--reason", "study 7 of the registry")
STUDY = Link(Kind.STUDY, "2.25.1", "1.2.826.1", days=-400)
PATIENT = Link(Kind.PATIENT, "29digits", "ZQ-448812", "OLDTOWN", days=-400)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    if crosswalk not in cli._COMMANDS:
        monkeypatch.setattr(cli, "_COMMANDS", (*cli._COMMANDS, crosswalk))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Knows two patients."""
    opened = open_node(read_config(None, [f"node.data={tmp_path / 'data'}"]))
    header = Dataset()
    header.PatientID, header.IssuerOfPatientID = "ZQ-448812", "OLDTOWN"
    opened.crosswalk.record(opened.pseudonyms.digest("patient", patient(header)), (PATIENT, STUDY), 1, NOON)
    opened.crosswalk.record("key of Y", (Link(Kind.PATIENT, "other29", "AB-1\x1b[2J"),), 1, NOON)
    yield opened
    opened.ledger.close()


@pytest.fixture
def data(node: Node) -> tuple[str, str]:
    return "--data", str(node.config.data)


def test_find_tells_the_original_and_writes_who_asked_and_why(
    node: Node, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["crosswalk", "find", "--pseudonym", "29digits", *WHY, *data]) == 0

    assert capsys.readouterr().out == "patient 29digits: ZQ-448812 of OLDTOWN, dates -400 days (epoch 1)\n"
    (entry,) = node.audit.entries()
    assert entry.event == "crosswalk asked for an original"
    assert json.loads(entry.detail) == {"found": 1, "reason": "study 7 of the registry", "who": crosswalk._who()}


def test_find_takes_an_original_from_standard_input(
    data: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("ZQ-448812\n"))

    assert (
        cli.main(["crosswalk", "find", "--original", "-", "--issuer", "OLDTOWN", "--format", "json", *WHY, *data]) == 0
    )

    found = json.loads(capsys.readouterr().out)
    assert (found["pseudonym"], found["kind"], found["days"]) == ("29digits", "patient", -400)


def test_find_says_that_there_is_nothing(data: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["crosswalk", "find", "--pseudonym", "2.25.77", *WHY, *data]) == 1

    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "not in the crosswalk\n")


def test_an_identifier_cannot_command_the_terminal(data: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["crosswalk", "find", "--pseudonym", "other29", *WHY, *data]) == 0

    assert "\x1b" not in capsys.readouterr().out


def test_export_writes_a_new_file_for_its_owner_only(
    node: Node, data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "links.jsonl"

    assert cli.main(["crosswalk", "export", "--out", str(out), *WHY, *data]) == 0

    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["original"] for row in rows] == ["ZQ-448812", "1.2.826.1", "AB-1\x1b[2J"]
    assert list(rows[0]) == list(crosswalk.FIELDS)
    assert out.stat().st_mode & 0o777 == 0o600
    assert "3 links" in capsys.readouterr().out
    assert [e.event for e in node.audit.entries()] == ["crosswalk exported"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "links.jsonl"]


def test_export_overwrites_nothing(
    node: Node, data: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "links.jsonl"
    out.write_text("mine")

    assert cli.main(["crosswalk", "export", "--out", str(out), *WHY, *data]) == 2

    assert out.read_text() == "mine"
    assert "name a new file" in capsys.readouterr().err
    assert node.audit.entries() == ()


def test_export_as_csv_has_a_head_and_a_row_for_each_link(
    data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["crosswalk", "export", "--format", "csv", *WHY, *data]) == 0

    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["pseudonym"], row["original"], row["days"]) for row in rows[:2]] == [
        ("29digits", "ZQ-448812", "-400"),
        ("2.25.1", "1.2.826.1", "-400"),
    ]


def test_erase_by_patient_id_and_issuer_finds_whom_the_inbox_knew(
    data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    erase = ["crosswalk", "erase", "--patient", "ZQ-448812", "--yes", *WHY, *data]
    assert cli.main(erase) == 1
    assert "with its issuer only" in capsys.readouterr().err

    assert cli.main([*erase, "--issuer", "OLDTOWN"]) == 0

    assert "2 links erased" in capsys.readouterr().out
    assert cli.main(["crosswalk", "find", "--pseudonym", "2.25.1", *WHY, *data]) == 1
    assert capsys.readouterr().out.startswith("study 2.25.1: erased on 20")


def test_erase_by_a_pseudonym_erases_its_patient_only(
    data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["crosswalk", "erase", "--pseudonym", "2.25.1", "--yes", *WHY, *data]) == 0

    assert cli.main(["crosswalk", "find", "--pseudonym", "29digits", *WHY, *data]) == 1
    assert cli.main(["crosswalk", "find", "--pseudonym", "other29", *WHY, *data]) == 0


def test_rotate_begins_an_epoch_and_everything_is_found_still(
    node: Node, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["crosswalk", "rotate", *WHY, *data]) == 0

    assert node.keys.epoch == 2
    assert "2 patients of the crosswalk are under the new key" in capsys.readouterr().out
    assert cli.main(["crosswalk", "find", "--pseudonym", "29digits", *WHY, *data]) == 0
    assert [e.event for e in node.audit.entries()][:2] == ["keys rotated", "crosswalk keys renewed"]
    assert node.audit.broken_at() is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["find"], "takes --original or --pseudonym"),
        (["find", "--pseudonym", "a", "--original", "b"], "takes --original or --pseudonym"),
        (["find", "--patient", "a"], "takes --original or --pseudonym"),
        (["export", "--pseudonym", "a"], "takes no name [--out]"),
        (["rotate", "--yes"], "takes no name"),
        (["erase", "--yes"], "takes --patient or --pseudonym"),
        (["erase", "--patient", "a"], "add --yes"),
    ],
)
def test_wrong_use_asks_nothing(
    arguments: list[str], says: str, node: Node, data: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["crosswalk", *arguments, *WHY, *data]) == 2

    assert says in capsys.readouterr().err
    assert node.audit.entries() == ()


def test_without_a_reason_there_is_no_answer(data: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["crosswalk", "find", "--pseudonym", "29digits", *data])

    assert ended.value.code == 2
    assert cli.main(["crosswalk", "find", "--pseudonym", "29digits", "--reason", " ", *data]) == 2
    assert "ZQ" not in "".join(capsys.readouterr())


def test_a_folder_where_no_node_ran_gets_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["crosswalk", "export", *WHY, "--data", str(tmp_path / "nowhere")]) == 2

    assert "no node has run" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
