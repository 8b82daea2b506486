"""A folder of de-identified copies: nothing lost in silence, nothing half written, nothing left of a leaking study."""

import errno
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from stranger import INSTANCE, SERIES, STUDY

from medgem_node import part10
from medgem_node.deid import certificate, file_copy
from medgem_node.deid.deidentifier import Copy, Deidentifier
from medgem_node.deid.folder import LEAK, Report, deidentify_folder
from medgem_node.deid.options import Option, Profile
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import CannotDeidentify, ConfigError, LeakFound

NOW = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
UNREAD = Profile(pixels="trust")
"""As fast as it goes: what is read in pixels is another test's."""
FACES = Profile(frozenset({Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES}), "trust")


@dataclass(frozen=True)
class Faulty:
    """A de-identifier that does something else when an instance's number says so."""

    real: Deidentifier
    instead: dict[bytes, Callable[[], None]]

    def copy(self, data: Any, face_mask: Any = None) -> Copy:
        for marker, fault in self.instead.items():
            if marker in bytes(data):
                fault()
        return self.real.copy(data, face_mask)


@pytest.fixture
def films(film: Dataset, tmp_path: Path) -> Path:
    """Eight films of two studies, in two folders."""
    for number in range(8):
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"{INSTANCE}.{number}"
        film.StudyInstanceUID = f"{STUDY}.{number // 4}"
        film.InstanceNumber = number
        film.DetectorID = f"MARK{number}"
        save(film, tmp_path / "in" / f"series-{number // 4}" / f"IM{number:04d}.dcm")
    return tmp_path / "in"


def save(film: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(part10.encode(film))


def run(source: Path, target: Path, instead: dict[bytes, Callable[[], None]] | None = None, **more: Any) -> Report:
    pseudonyms = Pseudonyms(b"k" * 32)
    profile = more.pop("profile", UNREAD)
    real = Deidentifier(pseudonyms, UNREAD)
    engine: Any = Faulty(real, instead) if instead else real
    return deidentify_folder(source, target, engine, pseudonyms, profile, now=NOW, **more)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if not p.is_dir()}


def held(report: Report) -> dict[str, str]:
    return {n: o.reason for n, o in zip(report.names, report.outcomes, strict=True) if o.status == "held"}


def test_relative_names_are_kept_and_a_second_run_gives_the_same_bytes(films: Path, tmp_path: Path) -> None:
    first = run(films, tmp_path / "out")
    copies = files_in(tmp_path / "out")
    second = run(films, tmp_path / "out", processes=2)

    assert list(copies) == list(files_in(films)) == list(first.names)
    assert first.count("written") == second.count("written") == 8
    assert files_in(tmp_path / "out") == copies
    assert all(b"Quartermain" not in data for data in copies.values())


def test_several_processes_write_what_one_writes(films: Path, tmp_path: Path) -> None:
    run(films, tmp_path / "one", processes=1)
    run(films, tmp_path / "three", processes=3)

    assert files_in(tmp_path / "one") == files_in(tmp_path / "three")


def test_a_single_file_goes_into_the_folder_under_its_name(films: Path, tmp_path: Path) -> None:
    report = run(films / "series-0" / "IM0001.dcm", tmp_path / "out")

    assert report.names == ["IM0001.dcm"]
    assert dcmread(tmp_path / "out" / "IM0001.dcm").PatientIdentityRemoved == "YES"


def test_every_file_is_in_the_report_whatever_it_is(films: Path, tmp_path: Path) -> None:
    (films / "note.txt").write_text("no DICOM")
    (films / ".hidden").write_bytes(b"")
    (films / "broken.dcm").write_bytes(files_in(films)["series-0/IM0000.dcm"][:700])
    (films / "bare").write_bytes(files_in(films)["series-0/IM0000.dcm"][132:])
    (films / "dangling").symlink_to(films / "nowhere")

    report = run(films, tmp_path / "out", processes=2)

    statuses = {n: o.status for n, o in zip(report.names, report.outcomes, strict=True)}
    assert statuses["note.txt"] == statuses[".hidden"] == "not DICOM"
    assert statuses["broken.dcm"] == statuses["bare"] == statuses["dangling"] == "held"
    assert report.count("written") == 8
    assert all(held(report).values())
    assert len(files_in(tmp_path / "out")) == 8


def test_a_killed_worker_costs_one_file(films: Path, tmp_path: Path) -> None:
    die: dict[bytes, Callable[[], None]] = {b"MARK2": lambda: os.kill(os.getpid(), signal.SIGKILL)}

    report = run(films, tmp_path / "out", die, processes=1)

    assert held(report) == {"series-0/IM0002.dcm": "the worker died (signal 9)"}
    assert len(files_in(tmp_path / "out")) == 7


def test_a_worker_that_dies_after_it_wrote_leaves_no_copy_of_a_held_file(films: Path, tmp_path: Path) -> None:
    def die(_: str, copy: str) -> None:
        if "IM0006" in copy and os.path.exists(copy):
            os.kill(os.getpid(), signal.SIGKILL)

    report = run(films, tmp_path / "out", note=die)

    assert list(held(report)) == ["series-1/IM0006.dcm"]
    assert len(files_in(tmp_path / "out")) == 7


def test_workers_that_always_die_end_the_run(films: Path, tmp_path: Path) -> None:
    report = run(films, tmp_path / "out", {b"DICM": lambda: os._exit(3)}, processes=2)

    assert set(held(report).values()) == {"the worker died (exit code 3)"}
    assert report.count("held") == 8
    assert files_in(tmp_path / "out") == {}


def test_a_leak_takes_back_every_copy_of_its_study_and_no_other(films: Path, tmp_path: Path) -> None:
    def leak() -> None:
        raise LeakFound("values of these attributes are still in the copy: PatientName")

    report = run(films, tmp_path / "out", {b"MARK3": leak})

    assert list(files_in(tmp_path / "out")) == [f"series-1/IM{n:04d}.dcm" for n in range(4, 8)]
    assert sorted(held(report)) == [f"series-0/IM{n:04d}.dcm" for n in range(4)]
    assert [reason == LEAK for reason in held(report).values()] == [True, True, True, False]
    (alert,) = report.alerts
    assert "PatientName" in alert
    assert "Quartermain" not in alert
    assert STUDY not in alert


def test_a_leak_in_the_first_file_holds_those_that_come_after_it(films: Path, tmp_path: Path) -> None:
    def leak() -> None:
        raise LeakFound("values of these attributes are still in the copy: PatientName")

    report = run(films, tmp_path / "out", {b"MARK4": leak}, processes=2, certifies=True)

    assert report.count("held") == 4
    assert list(report.certificates) == [Pseudonyms(b"k" * 32).uid(f"{STUDY}.0")]


def test_a_component_that_names_the_patient_is_replaced_for_every_file(film: Dataset, tmp_path: Path) -> None:
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"{INSTANCE}.9"
    save(film, tmp_path / "in" / "zebulon_2020" / f"CT.{INSTANCE}.dcm")
    film.PatientName, film.PatientID = "Other^Person", "OP-1111111"
    save(film, tmp_path / "in" / "zebulon_2020" / "a.dcm")
    save(film, tmp_path / "in" / "clean" / "b.dcm")

    report = run(tmp_path / "in", tmp_path / "out")

    names = sorted(files_in(tmp_path / "out"))
    folder = next(n.split("/")[0] for n in names if not n.startswith("clean"))
    pseudonym = Pseudonyms(b"k" * 32).uid(INSTANCE)
    assert names == sorted([f"{folder}/CT.{pseudonym}.dcm", f"{folder}/a.dcm", "clean/b.dcm"])
    assert len(folder) == 16
    assert "zebulon" not in folder
    assert sorted(line.get("renamed", False) for line in report.content()["files"]) == [False, True, True]
    assert not (tmp_path / "out" / "zebulon_2020").exists()


def test_numbers_and_dates_of_others_do_not_change_a_name(film: Dataset, tmp_path: Path) -> None:
    film.AccessionNumber, film.StudyID = "1", "12"
    names = ["PA000001/IM000001", "20230405/1.dcm", "12/001-555-1234.dcm"]
    for number, name in enumerate(names):
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"{INSTANCE}.{number}"
        save(film, tmp_path / "in" / name)

    run(tmp_path / "in", tmp_path / "out")

    assert sorted(files_in(tmp_path / "out")) == sorted(names)


def test_a_file_of_others_is_never_replaced(films: Path, tmp_path: Path) -> None:
    strange = tmp_path / "out" / "series-0" / "IM0000.dcm"
    strange.parent.mkdir(parents=True)
    strange.write_bytes(b"something of theirs")
    (tmp_path / "out" / "series-0" / "IM0001.dcm").write_bytes((films / "series-0" / "IM0001.dcm").read_bytes())

    report = run(films, tmp_path / "out")

    assert strange.read_bytes() == b"something of theirs"
    assert sorted(held(report)) == ["series-0/IM0000.dcm", "series-0/IM0001.dcm"]
    assert b"Quartermain" in (tmp_path / "out" / "series-0" / "IM0001.dcm").read_bytes()


def test_the_copy_of_an_earlier_run_goes_when_its_file_is_held_now(films: Path, tmp_path: Path) -> None:
    def hold() -> None:
        raise CannotDeidentify("it may show text")

    (films / "series-1").rename(films / "Quartermain")
    run(films, tmp_path / "out")
    report = run(films, tmp_path / "out", {b"MARK5": hold})

    assert held(report) == {"Quartermain/IM0005.dcm": "it may show text"}
    assert len(files_in(tmp_path / "out")) == 7


@pytest.mark.parametrize("target", ["in", "in/copies", "."])
def test_copies_never_mix_with_originals(films: Path, tmp_path: Path, target: str) -> None:
    before = files_in(films)

    with pytest.raises(ConfigError, match="neither may lie within the other"):
        run(films, tmp_path / target)

    assert files_in(films) == before


def test_a_link_among_the_copies_does_not_lead_to_the_originals(films: Path, tmp_path: Path) -> None:
    before = files_in(films)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "series-0").symlink_to(films / "series-0")

    report = run(films, tmp_path / "out")

    assert files_in(films) == before
    assert report.count("held") == 4


def test_links_among_the_originals_are_followed_once(films: Path, tmp_path: Path) -> None:
    (films / "series-1" / "round").symlink_to(films)
    (films / "again").symlink_to(films / "series-0")

    report = run(films, tmp_path / "out")

    assert len(report.names) == 12
    assert report.count("written") == 12


def test_a_full_disk_ends_the_run_and_says_so(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, *_: object) -> None:
        if "IM0002" in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(path, *_)  # type: ignore[arg-type]

    whole = file_copy.write
    monkeypatch.setattr(file_copy, "write", full)

    report = run(films, tmp_path / "out")

    assert report.is_full
    assert len(report.outcomes) == 8
    assert "No space left on device" in held(report)["series-0/IM0002.dcm"]
    assert not [name for name in files_in(tmp_path / "out") if "partial" in name]


def test_what_a_killed_run_left_is_removed(films: Path, tmp_path: Path) -> None:
    left = tmp_path / "out" / ".partial-4194304999"
    left.mkdir(parents=True)
    (left / "1").write_bytes(b"half a copy")

    run(films, tmp_path / "out")

    assert len(files_in(tmp_path / "out")) == 8


def test_a_series_is_masked_or_held_as_a_whole(films: Path, tmp_path: Path, film: Dataset) -> None:
    film.SeriesInstanceUID = f"{SERIES}.2"
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"{INSTANCE}.99"
    save(film, films / "other.dcm")
    asked = []

    def masks(instances: Sequence[bytes], seed: int) -> dict[str, Any]:
        if len(instances) == 8:
            raise CannotDeidentify("the face of this head cannot be told")
        asked.append(seed)
        return {}

    report = run(films, tmp_path / "out", profile=FACES, masks_of=masks)

    assert list(files_in(tmp_path / "out")) == ["other.dcm"]
    assert set(held(report).values()) == {"the face of this head cannot be told"}


def test_a_mask_reaches_its_image(films: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    @dataclass(frozen=True)
    class Watched:
        real: Deidentifier

        def copy(self, data: Any, face_mask: Any = None) -> Copy:
            if face_mask:
                seen.write_text(f"{face_mask} {b'MARK6' in data}")
            return self.real.copy(data)

    pseudonyms = Pseudonyms(b"k" * 32)
    engine: Any = Watched(Deidentifier(pseudonyms, UNREAD))
    masks_of = lambda instances, seed: {f"{INSTANCE}.6": "mask"}  # noqa: E731
    deidentify_folder(films, tmp_path / "out", engine, pseudonyms, FACES, now=NOW, masks_of=masks_of)

    assert seen.read_text() == "mask True"


def test_each_study_has_a_certificate_that_its_copies_bear_out(films: Path, tmp_path: Path) -> None:
    report = run(films, tmp_path / "out", certifies=True, processes=2)

    assert len(report.certificates) == 2
    for made in report.certificates.values():
        assert made["instances"] == 4
        assert made["attributes"]["replaced"]["PatientName"] == 4
        assert made["attributes"]["removed"]["IssuerOfPatientID"] == 4
        assert certificate.check(made, tmp_path / "out") == []


def test_a_large_file_passes_by_the_memory(film: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_copy, "MAPPED_BYTES", 4096)
    monkeypatch.setattr(file_copy, "_PIECE_BYTES", 1024)
    film.Rows = film.Columns = 256
    film.PixelData = bytes(range(256)) * 512
    save(film, tmp_path / "in" / "large.dcm")

    report = run(tmp_path / "in", tmp_path / "mapped", certifies=True)
    monkeypatch.undo()
    again = run(tmp_path / "in", tmp_path / "read", certifies=True)

    assert files_in(tmp_path / "mapped") == files_in(tmp_path / "read")
    assert [o.sha256 for o in report.outcomes] == [o.sha256 for o in again.outcomes]
    assert dcmread(tmp_path / "mapped" / "large.dcm").PixelData == film.PixelData


def test_what_was_noted_of_the_originals_is_in_the_report(films: Path, tmp_path: Path) -> None:
    report = run(films, tmp_path / "out", processes=2, note=lambda *paths: [Path(p).name for p in paths])

    assert sorted(report.notes()) == [[f"IM{n:04d}.dcm"] * 2 for n in range(8)]


def test_an_interrupted_run_leaves_whole_copies_only(films: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(films, tmp_path / "out", progress=interrupt)

    whole = files_in(tmp_path / "whole") if run(films, tmp_path / "whole") else {}
    assert files_in(tmp_path / "out").items() <= whole.items()
