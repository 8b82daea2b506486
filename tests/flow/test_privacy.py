"""A planted patient, followed through the whole path: nothing of him leaves the node but in his own results."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import wire
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEG2000Lossless
from test_path import MakeConfig, Whole, whole

from medgem_node import part10, status, testing
from medgem_node.dimse import scu
from medgem_node.node import now
from medgem_node.peer import Peer
from medgem_node.pipeline import STEPS
from medgem_node.stores.local import LocalStore
from medgem_node.study import StudyState
from medgem_node.testing import FakePacs, RunningNode

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what it writes and reads here

NAMES = {
    "ISO_IR 100": "Müllerstein^Jürgen",
    "ISO_IR 192": "Øvergårdsen^Åsmund",
    "ISO_IR 144": "Люксембург^Роза",
    "ISO 2022 IR 6\\ISO 2022 IR 87": "Yamadano^Taroh=山田野^太郎衛門",
    "GB18030": "Wangfeihong^Xiaodong=王飞鸿^小东升",
}
CODECS = ("latin-1", "utf-8", "utf-16-le", "utf-16-be", "iso8859-5", "shift_jis", "iso2022_jp", "euc_jp", "gb18030")
ROOT = "1.2.826.0.1.3680043.8.498.4711"


@dataclass
class Planted:
    """One study of one patient, and every text that may not leave."""

    charset: str
    number: int
    secrets: dict[str, str] = field(default_factory=dict)

    def film(self, **attributes: Any) -> Dataset:
        """The patient in top attributes, in sequences, in private attributes and in references."""
        s = self.secrets = self._secrets()
        film = testing.dx_instance(testing.chest_film(rows=256, columns=256))
        film.SpecificCharacterSet = self.charset.split("\\")
        film.PatientName = film.OtherPatientNames = s["name"]
        film.PatientID, film.AccessionNumber = s["patient ID"], s["accession"]
        film.PatientBirthDate, film.StudyDate, film.ContentDate = s["birth date"], s["study date"], s["study date"]
        film.PatientTelephoneNumbers, film.InstitutionName = s["phone"], s["institution"]
        film.ReferringPhysicianName = film.OperatorsName = film.PerformingPhysicianName = s["physician"]
        film.StudyInstanceUID, film.SeriesInstanceUID = s["study UID"], s["series UID"]
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = s["SOP UID"]
        film.FrameOfReferenceUID, film.StudyID = s["frame of reference"], s["accession"]
        film.StudyDescription = film.SeriesDescription = f"Thorax {s['patient ID']}"
        film.ImageComments = f"{s['name']} born {s['birth date']}, call {s['phone']}"
        film.DetectorID, film.ProtocolName = s["patient ID"], f"PA {s['name']}"
        request, scheduled, reference, other = Dataset(), Dataset(), Dataset(), Dataset()
        request.RequestedProcedureID, request.AccessionNumber = s["accession"], s["accession"]
        request.RequestedProcedureDescription = f"Chest of {s['name']}"
        scheduled.CodeValue, scheduled.CodingSchemeDesignator = "T1", "99LOCAL"
        scheduled.CodeMeaning = f"for {s['physician']}"
        request.ScheduledProtocolCodeSequence = [scheduled]
        film.RequestAttributesSequence = [request]
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = film.SOPClassUID, s["referenced"]
        film.ReferencedImageSequence = [reference]
        other.PatientID, other.TypeOfPatientID = s["patient ID"], "TEXT"
        film.OtherPatientIDsSequence = [other]
        block = film.private_block(0x0029, "ACME 1.1", create=True)
        block.add_new(1, "LO", s["name"])
        block.add_new(2, "UN", s["name"].encode("utf-16-le"))
        block.add_new(3, "OB", f"{s['patient ID']} {s['birth date']} ".encode())
        for keyword, value in attributes.items():
            setattr(film, keyword, value)
        return film

    def _secrets(self) -> dict[str, str]:
        n = self.number
        return {
            "name": NAMES[self.charset],
            "patient ID": f"GEHEIM-{7000 + n}-X",
            "accession": f"ACN{98000 + n}",
            "birth date": f"1953{1 + n % 12:02d}24",
            "study date": f"2025{1 + n % 12:02d}17",
            "phone": f"+49 30 5550{100 + n}",
            "physician": "Quacksalber^Quirin",
            "institution": "Klinikum Nirgendwohin",
            **{
                f"{what}": f"{ROOT}.{k}.{n}.{10**12 + n}"
                for k, what in enumerate(("study UID", "series UID", "SOP UID", "frame of reference", "referenced"))
            },
        }


def needles(planted: list[Planted]) -> dict[bytes, str]:
    """Every secret, each part of a name, in every encoding that it may stand in, and in hexadecimal."""
    found: dict[bytes, str] = {}
    for each in planted:
        for what, text in each.secrets.items():
            parts = [text] if what not in ("name", "physician") else [p for g in text.split("=") for p in g.split("^")]
            for part in parts:
                for codec in CODECS:
                    coded = part.encode(codec, "ignore")
                    if len(coded) >= 4:
                        found[coded.lower()] = what
                        found[coded.hex().encode()] = what
    found[ROOT.encode()] = "an original UID"
    return found


def leaks(data: bytes, needles: dict[bytes, str]) -> set[str]:
    data = data.lower()
    return {what for needle, what in needles.items() if needle in data}


class Watch:
    """Everything that is put into the exchange, compressed or not, with its key."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, bytes]] = []
        real = LocalStore.put

        def put(store: LocalStore, key: str, data: bytes) -> None:
            if store.root.name == "exchange":
                self.seen.append((key, data))
            real(store, key, data)

        monkeypatch.setattr(LocalStore, "put", put)

    def everything(self) -> bytes:
        return b"\n".join(key.encode() + b"\n" + data + unzipped(data) for key, data in self.seen)


def unzipped(data: bytes) -> bytes:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return b""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return b"\n".join(archive.read(name) for name in archive.namelist())


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], bytes]:
    """What the node logs at DEBUG; `node.set_up_logging` turns the libraries that speak of patients off."""
    caplog.set_level(logging.DEBUG, "medgem_node")
    line = logging.Formatter("%(message)s")

    def text() -> bytes:
        return "\n".join(line.format(r) for r in caplog.records if r.name.startswith("medgem_node")).encode()

    return text


def step_by_step(us: Whole) -> Iterator[bytes]:
    """What stands in the exchange's folder after each step of the pipeline."""
    for minutes in (5, 6):
        for step in STEPS:
            step(us.pipeline, now() + timedelta(minutes=minutes))
            for key in us.node.exchange.keys(""):
                data = us.node.exchange.get(key)
                yield key.encode() + b"\n" + data + unzipped(data)


def jobs_of(us: Whole) -> bytes:
    return "\n".join(job.job.to_json() + job.reason + job.detail for job in us.node.ledger.jobs()).encode()


def shown(us: Whole) -> bytes:
    return "\n".join(status.lines(us.node.config, full=True)).encode()


def is_the_same_patient(result: Dataset, film: Dataset) -> bool:
    keywords = ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyDate", "StudyInstanceUID")
    return all(result[keyword].value == film[keyword].value for keyword in keywords)


def test_nothing_of_a_patient_leaves_but_in_his_own_results(
    make_config: MakeConfig, watch: Watch, logged: Callable[[], bytes]
) -> None:
    planted = [Planted(charset, n) for n, charset in enumerate(NAMES)]
    films = [p.film() for p in planted]
    secrets = needles(planted)
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(*films)
        after_each_step = [leaks(data, secrets) for data in step_by_step(us)]

        assert len(after_each_step) >= 2 * len(films)  # copies and outcomes were there to be looked at
        assert set().union(*after_each_step) == set()
        assert leaks(watch.everything(), secrets) == set()
        assert leaks(jobs_of(us), secrets) == set()
        assert leaks(logged(), secrets) == set()
        assert leaks(shown(us), secrets) == set()
        for film in films:
            results = pacs.of_study(str(film.StudyInstanceUID))
            assert results
            assert all(is_the_same_patient(result, film) for result in results)
    assert {key.split("/")[0] for key, _ in watch.seen} == {"inputs", "jobs"}


def test_the_search_would_find_what_it_looks_for() -> None:
    for n, charset in enumerate(NAMES):
        planted = Planted(charset, n)
        film = planted.film()

        assert leaks(part10.encode(film), needles([planted])) >= planted.secrets.keys()


def truncated(film: Dataset) -> Dataset:
    film.PixelData = encapsulate([b"\xff\x4f\xff\x51" + b"Invented" * 20])
    film["PixelData"].VR = "OB"
    film.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return film


def test_nothing_leaves_when_things_go_wrong(
    make_config: MakeConfig, watch: Watch, logged: Callable[[], bytes]
) -> None:
    planted = [Planted("ISO_IR 100", n) for n in range(20, 26)]
    undecodable = truncated(planted[0].film())
    lateral = planted[1].film(ViewPosition="LL")
    burned_in = planted[2].film(BurnedInAnnotation="YES")
    mixed = [planted[3].film(), planted[4].film(StudyInstanceUID=planted[3].secrets["study UID"])]
    unmatched = planted[5].film(Modality="GEHEIM")
    secrets = needles(planted)
    refused = {lateral.StudyInstanceUID}
    with (
        FakePacs(status=lambda d: 0xA900 if d.StudyInstanceUID in refused else 0) as pacs,
        whole(make_config({"PACS": pacs.url})) as us,
    ):
        us.receive(undecodable, lateral, burned_in, *mixed, unmatched)
        after_each_step = [leaks(data, secrets) for data in step_by_step(us)]

        assert set().union(*after_each_step) == set()
        assert leaks(watch.everything(), secrets) == set()
        assert leaks(jobs_of(us) + logged() + shown(us), secrets) == set()
        states = {study.study_instance_uid: study.state for study in us.node.ledger.studies()}
        assert states[mixed[0].StudyInstanceUID] is StudyState.HELD
        assert states[unmatched.StudyInstanceUID] is StudyState.UNMATCHED
        reasons = {job.reason for job in us.node.ledger.jobs()}
        assert {"not-deidentified", "lateral-view"} <= reasons
        for film in (undecodable, burned_in):
            (report,) = pacs.of_study(film.StudyInstanceUID)
            assert is_the_same_patient(report, film)
        assert {r.StudyInstanceUID for r in pacs.instances.values()} == {
            undecodable.StudyInstanceUID,
            burned_in.StudyInstanceUID,
        }


@pytest.mark.parametrize("step", ["prepare", "publish"])
def test_an_error_that_quotes_a_patient_is_logged_without_the_quotation(
    make_config: MakeConfig, logged: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    planted = Planted("ISO_IR 100", 30)
    film = planted.film()

    def broken(*_: object, **__: object) -> None:
        raise ValueError(f"{planted.secrets['name']}, {planted.secrets['patient ID']}")

    with whole(make_config()) as us:
        us.receive(film)
        monkeypatch.setattr(f"medgem_node.pipeline.{step}_job", broken)
        us.run()

        assert f"{step}: ValueError at test_privacy.py".encode() in logged()
        assert leaks(logged() + shown(us), needles([planted])) == set()


def test_a_writer_that_quotes_a_patient_is_answered_without_the_quotation(
    make_config: MakeConfig, logged: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted("ISO_IR 100", 31)
    film = planted.film()
    from medgem_node import publication

    real = publication.write_objects

    def broken(analysis: Any, *rest: Any) -> Any:
        if analysis.reason != "not-written":
            raise KeyError(planted.secrets["name"])
        return real(analysis, *rest)

    monkeypatch.setattr(publication, "write_objects", broken)
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(film)
        us.run()

        (report,) = pacs.of_study(film.StudyInstanceUID)
        assert b"could not be written (KeyError)" in part10.encode(report)
        assert is_the_same_patient(report, film)
        assert leaks(logged() + shown(us) + jobs_of(us), needles([planted])) == set()


@pytest.mark.parametrize(
    ("keyword", "tag", "vr"),
    [("SOPInstanceUID", 0x00080018, "UI"), ("StudyInstanceUID", 0x0020000D, "UI"), ("PatientID", 0x00100020, "UL")],
)
def test_an_error_comment_names_nobody(
    make_config: MakeConfig, logged: Callable[[], bytes], keyword: str, tag: int, vr: str
) -> None:
    planted = Planted("ISO_IR 100", 40)
    film = planted.film()
    sop_instance_uid = film.SOPInstanceUID
    head, tail = Dataset(), Dataset()
    for each in film:
        if each.tag != Tag(tag):
            (head if each.tag < tag else tail).add(each)
    head.set_original_encoding(False, True, film._character_set)
    secret = planted.secrets["patient ID"].encode() + b"!"
    data = wire.encoded(head) + wire.element(tag, vr, secret, len(secret)) + wire.encoded(tail)
    with whole(make_config()) as us:
        peer = Peer("MEDGEM", "127.0.0.1", us.acceptor.port)
        with wire.sender(peer, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian) as send:
            answer = send(data, sop_instance_uid)

        assert answer.Status in (0xC000, 0xA900)
        assert keyword in answer.ErrorComment or "UID" in answer.ErrorComment
        assert leaks(answer.ErrorComment.encode() + logged(), needles([planted])) == set()


def test_the_real_processes_name_nobody_in_log_and_status(tmp_path: Path) -> None:
    planted = [Planted(charset, n) for n, charset in enumerate(NAMES, 50)]
    films = [p.film() for p in planted]
    films[1].ViewPosition = "LL"
    films[2] = truncated(films[2])
    secrets = needles(planted)
    settings = ("node.log_level=DEBUG", "engine.threads=1")
    with FakePacs() as pacs, RunningNode(tmp_path, {"PACS": pacs.url}, settings) as node:
        scu.store(node.peer, "MODALITY", films)
        with wire.sender(node.peer, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian) as send:
            refused = send(planted[0].secrets["patient ID"].encode() * 9, planted[0].secrets["SOP UID"])
        answered = [str(film.StudyInstanceUID) for film in films]
        testing.wait_for(lambda: all(any(r.Modality == "SR" for r in pacs.of_study(uid)) for uid in answered), 150)
        command = [sys.executable, "-m", "medgem_node.cli", "status", "--all", "--config", str(node.config_file)]
        said = subprocess.run(command, capture_output=True, timeout=60, check=True)

    assert refused.Status == 0xC000
    assert said.stdout.count(b"chest-xray") == len(films)
    log = node.log_file.read_bytes()
    assert log.count(b" DEBUG ") + log.count(b" INFO ") > 10
    assert leaks(log + said.stdout + said.stderr, secrets) == set()
    assert not list((tmp_path / "node" / "exchange").rglob("*.dcm"))  # nothing is left lying about
    for film in films:
        assert all(is_the_same_patient(result, film) for result in pacs.of_study(str(film.StudyInstanceUID)))
