"""The commands, as somebody types them."""

import json
from pathlib import Path

import pytest
from pydicom import dcmread

from medgem_node import cli, testing
from medgem_node.testing import FakePacs


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    return ["--data", str(tmp_path / "data")]


def saved(folder: Path, name: str = "film.dcm", **attributes: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    testing.dx_instance(**attributes).save_as(folder / name, enforce_file_format=True)
    return folder / name


def test_echo_says_that_a_peer_answers(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with FakePacs() as pacs:
        assert cli.main(["echo", pacs.url, *data]) == 0

    assert "DEMOPACS at 127.0.0.1" in capsys.readouterr().out


def test_echo_says_that_a_peer_does_not_answer(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["echo", "dimse://PACS@127.0.0.1:1", *data]) == 1

    assert "not reachable" in capsys.readouterr().err


def test_send_takes_folders_and_leaves_out_what_is_no_dicom(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.dcm", "b.dcm"):
        saved(tmp_path / "films", name)
    (tmp_path / "films" / "note.txt").write_text("no DICOM")

    with FakePacs() as pacs:
        assert cli.main(["send", str(tmp_path / "films"), "--to", pacs.url, *data]) == 0

    assert len(pacs.instances) == 2
    assert "2 of 3 files sent" in capsys.readouterr().out


def test_send_without_files_says_what_to_do(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["send", str(tmp_path), "--to", "dimse://P@127.0.0.1:1", *data]) == 2

    assert "name DICOM files or folders" in capsys.readouterr().err


def test_init_writes_a_configuration_that_is_valid_and_keeps_an_edited_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["init", str(tmp_path / "conf")]) == 0
    (tmp_path / "conf" / "node.toml").write_text('[destinations]\nPACS = "dimse://EDITED@h:1"\n')
    assert cli.main(["init", str(tmp_path / "conf")]) == 0

    assert "EDITED" in (tmp_path / "conf" / "node.toml").read_text()
    assert cli.main(["models", "--config", str(tmp_path / "conf" / "node.toml")]) == 0
    assert "chest-xray 1.0.0" in capsys.readouterr().out


def test_deidentify_writes_copies_without_the_name(data: list[str], tmp_path: Path) -> None:
    saved(tmp_path / "in", "Doe_John.dcm", PatientName="Doe^John")

    assert cli.main(["deidentify", str(tmp_path / "in"), str(tmp_path / "out"), *data]) == 0

    (copy,) = (tmp_path / "out").iterdir()
    assert "Doe" not in copy.name
    assert b"Doe" not in copy.read_bytes()
    assert dcmread(copy).PatientIdentityRemoved == "YES"


def test_status_of_an_empty_node(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", *data]) == 0

    assert "studies: none" in capsys.readouterr().out


def test_analyze_answers_one_line_for_each_study_and_writes_its_objects(data: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    film = testing.real_film()
    film.save_as(folder / "film.dcm", enforce_file_format=True)
    saved(folder, "lateral.dcm", ViewPosition="LL")
    (folder / "note.txt").write_text("no DICOM")
    out, lines_file = tmp_path / "out", tmp_path / "lines.json"

    command = ["analyze", str(folder), "--model", "chest-xray", "--out", str(out), "--json", str(lines_file)]
    assert cli.main([*command, "--candidates", *data]) == 0

    lines = [json.loads(line) for line in lines_file.read_text().splitlines()]
    by_study = {line["study"]: line for line in lines}
    answered = by_study.pop(str(film.StudyInstanceUID))
    assert answered["applicable"] is True
    assert {"study", "model", "version", "applicable", "reason", "findings", "measurements", "seconds"} <= set(answered)
    assert "Cardiothoracic ratio" in [m["meaning"] for m in answered["measurements"]]
    assert all(c["image"] == str(film.SOPInstanceUID) for c in answered["candidates"])
    assert sorted(line["reason"].split(":")[0] for line in by_study.values()) == ["lateral-view", "not-dicom"]
    written = [dcmread(p) for p in (out / str(film.StudyInstanceUID)).iterdir()]
    assert sorted(d.Modality for d in written) == ["OT", "SEG", "SR"]
    assert {d.PatientID for d in written} == {film.PatientID}


def test_analyze_names_an_unknown_model(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path)

    assert cli.main(["analyze", str(path), "--model", "chest-xrai", *data]) == 2

    assert 'no model "chest-xrai"' in capsys.readouterr().err


def test_the_demo_shows_what_came_back_under_whose_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["demo", "--data", str(tmp_path / "demo")])

    said = capsys.readouterr().out
    assert code == 0, said
    for name in ("structured report", "segmentation", "heatmap"):
        assert name in said
    assert said.count("Invented^Ida DEMO-4711") >= 4
    assert "last C-STORE to last object in the PACS" in said
