"""`medgem-node deidentify`: what a person who wants only that sees."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread

from medgem_node import cli, testing
from medgem_node.deid import certificate

PATIENTS = (("Doe^John", "41"), ("Roe^Jane", "42"), ("Poe^Jim", "43"))


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A film of each of three patients, one in a folder of his name, and a text."""
    for number, (name, patient_id) in enumerate(PATIENTS):
        film = testing.real_film()
        film.PatientName, film.PatientID, film.PatientAge = name, f"HOSP-{patient_id}0099", f"0{patient_id}Y"
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.77.1.{number}"
        film.StudyInstanceUID = f"1.2.826.0.1.77.2.{number}"
        path = tmp_path / "in" / ("Doe_John" if number == 0 else f"case-{number}") / "film.dcm"
        path.parent.mkdir(parents=True)
        film.save_as(path, enforce_file_format=True)
    (tmp_path / "in" / "note.txt").write_text("no DICOM")
    return tmp_path / "in"


def deidentify(films: Path, *more: str, options: str = "") -> int:
    """With pixels trusted: what is read in them is another test's, and slow."""
    out, data, profile = (films.parent / name for name in ("out", "data", "deid.toml"))
    profile.write_text(f'pixels = "trust"\noptions = [{options}]\n')
    more = more if "--profile" in more else ("--profile", str(profile), *more)
    return cli.main(["deidentify", str(films), str(out), "--data", str(data), "--processes", "1", *more])


def test_a_folder_becomes_copies_and_a_report(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deidentify(films, "--report", str(tmp_path / "report.json")) == 0

    copies = sorted((tmp_path / "out").rglob("*.dcm"))
    assert len(copies) == 3
    assert {p.parent.name for p in copies} > {"case-1", "case-2"}
    assert not any(b"Doe" in p.read_bytes() or "Doe" in str(p) for p in copies)
    assert "3 of 4 files de-identified" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["counts"] == {"written": 3, "held": 0, "not DICOM": 1}
    assert {f["name"] for f in report["files"]} == {
        "Doe_John/film.dcm", "case-1/film.dcm", "case-2/film.dcm", "note.txt",
    }  # fmt: skip
    assert (tmp_path / "report.json").stat().st_mode & 0o077 == 0


def test_a_held_file_is_not_written_and_the_exit_code_is_0(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = films / "case-1" / "film.dcm"
    path.write_bytes(path.read_bytes()[:900])

    assert deidentify(films, "--report", str(tmp_path / "report.json")) == 0

    said = capsys.readouterr()
    assert "case-1/film.dcm: held: " in said.err
    assert "1 held, 1 not DICOM" in said.out
    (line,) = [f for f in json.loads((tmp_path / "report.json").read_text())["files"] if f["status"] == "held"]
    assert line["reason"]
    assert not (tmp_path / "out" / "case-1").exists()


def test_a_multi_frame_takes_less_than_a_third_of_its_size_in_memory(tmp_path: Path) -> None:
    film = testing.real_film()
    film.Rows = film.Columns = 1024
    film.NumberOfFrames, film.PixelData = 128, b""
    del film[0xFFFCFFFC]  # so that the pixels are last
    size = 1024 * 1024 * 2 * 128
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "frames.dcm"
    film.save_as(path, enforce_file_format=True)
    with open(path, "r+b") as file:  # the length of the pixels, and pixels that no disk holds
        file.seek(-4, os.SEEK_END)
        file.write(size.to_bytes(4, "little"))
        file.truncate(path.stat().st_size + size)
    (tmp_path / "deid.toml").write_text('pixels = "trust"\n')
    command = ["deidentify", str(path), str(tmp_path / "out"), "--data", str(tmp_path / "data"), "--processes", "1"]
    code = (
        "import resource, sys; from medgem_node.cli import main; assert main(sys.argv[1:]) == 0; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )

    more = ["--profile", str(tmp_path / "deid.toml"), "--report", str(tmp_path / "r.json")]
    said = subprocess.run([sys.executable, "-c", code, *command, *more], capture_output=True, text=True, check=True)

    assert (tmp_path / "out" / "frames.dcm").stat().st_size > size
    assert int(said.stdout.splitlines()[-1]) * 1024 < size / 3


def test_certificates_hold_no_identity_and_fit_the_copies(films: Path, tmp_path: Path) -> None:
    assert deidentify(films, "--certificates", str(tmp_path / "certificates")) == 0

    paths = list((tmp_path / "certificates").iterdir())
    assert len(paths) == 3
    for path in paths:
        text = path.read_text()
        assert not any(word in text for word in ("Doe", "HOSP", "1.2.826.0.1.77"))
        assert certificate.check(json.loads(text), tmp_path / "out") == []


def test_patients_in_small_groups_are_counted(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--k", "2", "--quasi", "PatientAge,Modality", "--report", str(tmp_path / "r.json"))
    assert deidentify(films, *more, options='"Retain Patient Characteristics"') == 0

    assert "k-anonymity: " in capsys.readouterr().out
    found = json.loads((tmp_path / "r.json").read_text())["k_anonymity"]
    assert found["patients"] == 3
    assert list(found["quasi_identifiers"]) == ["PatientAge", "Modality"]


@pytest.mark.parametrize(
    "more", [("--k", "1"), ("--quasi", "PatientsAge"), ("--processes", "-1"), ("--profile", "nowhere.toml")]
)
def test_wrong_use_is_refused_before_anything_is_written(films: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    assert deidentify(films, *more) == 2

    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deidentify(tmp_path / "nowhere") == 2

    assert "there is no such file or folder" in capsys.readouterr().err


def test_a_crosswalk_knows_every_patient_and_instance(films: Path, tmp_path: Path) -> None:
    assert deidentify(films, "--crosswalk") == 0

    from medgem_node.audit import Audit
    from medgem_node.config import read_config
    from medgem_node.deid.keyring import KeyRing
    from medgem_node.ledger.crosswalk import Access, Crosswalk, Kind
    from medgem_node.ledger.ledger import Ledger
    from medgem_node.node import now

    config = read_config(None, [f"node.data={json.dumps(str(tmp_path / 'data'))}"])
    ledger = Ledger(config.database_url)
    crosswalk = Crosswalk(ledger.engine, KeyRing.open(config.key_file), Audit(ledger.engine).record)
    copy = dcmread(next((tmp_path / "out").rglob("case-1/*.dcm")))
    who = Access("tester", "test", now())
    whose = {
        str(copy[k].value): crosswalk.original_of(str(copy[k].value), who) for k in ("PatientID", "SOPInstanceUID")
    }
    ledger.close()

    assert [e.link.original for e in whose.values() if e] == ["HOSP-420099", "1.2.826.0.1.77.1.1"]
    assert [e.link.kind for e in whose.values() if e] == [Kind.PATIENT, Kind.INSTANCE]
