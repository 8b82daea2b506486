"""`medgem-node analyze` on what people have on their disks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import wire
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from medgem_node import part10, publication, testing
from medgem_node.analyze import analyze, find_files
from medgem_node.card import find_card
from medgem_node.config import Config

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what it writes and reads here


def film(**attributes: object) -> Dataset:
    return testing.dx_instance(testing.chest_film(rows=128, columns=128), **attributes)


def without_meta(dataset: Dataset) -> bytes:
    return wire.encoded(dataset)


def under(syntax: str) -> bytes:
    """Explicit little endian in a file that says otherwise."""
    whole = part10.encode(film())
    meta = b"\2\0\x10\0UI" + len(ExplicitVRLittleEndian + "\0").to_bytes(2, "little")
    assert meta in whole
    at = whole.index(meta) + 8
    return whole[:at] + syntax.ljust(20, "\0").encode() + whole[at + 20 :]


def deep() -> bytes:
    """Three hundred levels, which pydicom would need hours to write again."""
    inner = b""
    for _ in range(300):
        inner = wire.element(0x00400275, "SQ", b"\xfe\xff\0\xe0" + len(inner).to_bytes(4, "little") + inner)
    whole = part10.encode(film())
    at = whole.index(b"\xe0\x7f\x10\0OW")
    return whole[:at] + inner + whole[at:]


BAD: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text.txt": lambda: b"Dear Sir or Madam,\n" * 99,
    "zeros": lambda: bytes(5000),
    "bitmap.png": lambda: b"\x89PNG\r\n\x1a\n" + os.urandom(500),
    "no-meta.dcm": lambda: without_meta(film()),
    "cut-header.dcm": lambda: part10.encode(film())[:600],
    "cut-pixels.dcm": lambda: part10.encode(film())[:-5000],
    "no-study.dcm": lambda: part10.encode(film(StudyInstanceUID=None)),
    "empty-study.dcm": lambda: part10.encode(film(StudyInstanceUID="")),
    "climbing-study.dcm": lambda: part10.encode(film(StudyInstanceUID="../../../etc/x")),
    "no-pixels.dcm": lambda: part10.encode(film(PixelData=None)),
    "no-rows.dcm": lambda: part10.encode(film(Rows=None)),
    "no-patient.dcm": lambda: part10.encode(film(PatientID=None, PatientName=None)),
    "no-series.dcm": lambda: part10.encode(film(SeriesInstanceUID=None)),
    "wrong-syntax.dcm": lambda: under("1.2.840.10008.1.2.2"),
    "unknown-syntax.dcm": lambda: under("1.2.3.4"),
    "ct.dcm": lambda: part10.encode(testing.ct_study(1)[0]),
    "deep.dcm": deep,
    "lateral.dcm": lambda: part10.encode(film(ViewPosition="LL")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n, (name, make) in enumerate(BAD.items()):
        (tmp_path / "in" / str(n)).mkdir(parents=True)
        (tmp_path / "in" / str(n) / name).write_bytes(make())
    return tmp_path / "in"


def test_bad_files_give_a_line_each_and_never_an_exception(folder: Path, tmp_path: Path, config: Config) -> None:
    files = list(find_files([folder]))
    card = find_card(config.models, "chest-xray")

    lines = list(analyze(files, card, tmp_path / "out", config))

    assert len(lines) == len(files) == len(BAD)
    assert all(json.loads(json.dumps(line))["model"] == "chest-xray" for line in lines)
    for line in lines:
        assert line["reason"] or line["applicable"]
        assert "Invented" not in json.dumps(line)
    assert {p.parent.parent for p in (tmp_path / "out").rglob("*.dcm")} == {tmp_path / "out"}  # nothing climbed out


def test_two_patients_in_one_study_are_no_result(tmp_path: Path, config: Config) -> None:
    one = film()
    other = film(StudyInstanceUID=one.StudyInstanceUID, PatientID="ANOTHER")
    for n, dataset in enumerate((one, other)):
        (tmp_path / f"{n}.dcm").write_bytes(part10.encode(dataset))

    (line,) = analyze(sorted(tmp_path.glob("*.dcm")), find_card(config.models, "chest-xray"), tmp_path / "out", config)

    assert not line["applicable"]
    assert "more than one patient" in line["reason"]
    assert not list((tmp_path).glob("out/**/*.dcm"))


def test_a_file_that_is_gone_or_closed_gives_a_line(tmp_path: Path, config: Config) -> None:
    (tmp_path / "folder").mkdir()

    lines = list(
        analyze([tmp_path / "gone", tmp_path / "folder"], find_card(config.models, "chest-xray"), None, config)
    )

    assert [line["reason"].split(":")[0] for line in lines] == ["not-dicom", "not-dicom"]


@pytest.mark.parametrize("times", [1, 2], ids=["a report can be written", "nothing can be written"])
def test_a_study_that_cannot_be_written_is_answered_and_so_are_the_others(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    for n in range(2):
        (tmp_path / f"{n}.dcm").write_bytes(part10.encode(film(ViewPosition="LL")))
    real, left = publication.write_objects, [times]

    def broken(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise KeyError("Invented^Ida")
        return real(*arguments)

    monkeypatch.setattr("medgem_node.analyze.write_objects", broken)
    files = sorted(tmp_path.glob("*.dcm"))
    first, second = analyze(files, find_card(config.models, "chest-xray"), tmp_path / "out", config)

    assert first["reason"].startswith("not-written: ")
    assert "Invented" not in str(first)
    assert second["reason"].startswith("lateral-view")
    assert len(list((tmp_path / "out").rglob("SR-*.dcm"))) == 3 - times
