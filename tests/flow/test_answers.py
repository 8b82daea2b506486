"""What radiologists send back, through a real C-STORE into a node with a real model."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import reader
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage, generate_uid
from sqlalchemy import text

from medgem_node import agreement, cli, part10, testing
from medgem_node.config import Config, read_config
from medgem_node.dimse import scu
from medgem_node.ledger.feedback import Feedback
from medgem_node.node import Node, PipelineRunner, now, open_node, start_acceptor
from medgem_node.peer import Peer
from medgem_node.pipeline import STEPS
from medgem_node.study import StudyState
from medgem_node.testing import FakePacs

MakeConfig = Callable[..., Config]


class Hospital:
    """A PACS and a node whose steps a test calls itself."""

    def __init__(self, config: Config, pacs: FakePacs) -> None:
        self.pacs, self.config = pacs, config
        self.node: Node = open_node(replace(config, engine=replace(config.engine, name="inline")))
        self.acceptor = start_acceptor(self.node)
        self.runner = PipelineRunner(self.node)
        self.feedback = Feedback(self.node.ledger.engine)

    def receive(self, *instances: Dataset, called_ae: str = "MEDGEM") -> None:
        scu.store(Peer(called_ae, "127.0.0.1", self.acceptor.port), "WORKSTATION", instances)

    def run(self) -> None:
        for step in STEPS:
            step(self.runner.pipeline, now() + timedelta(minutes=5))

    def answer(self, *documents: Dataset) -> None:
        """Store documents and let the node do all that it would."""
        self.receive(*documents)
        self.run()

    def report_of(self, film: Dataset) -> Dataset:
        (report,) = [r for r in self.pacs.of_study(str(film.StudyInstanceUID)) if r.Modality == "SR"]
        return report

    def documents(self, film: Dataset) -> list[tuple[str, str]]:
        return list(self.feedback.documents(str(film.StudyInstanceUID)))

    def verdicts(self) -> dict[str, dict[str, int]]:
        """What stands, by finding."""
        found: dict[str, dict[str, int]] = {}
        for answer in agreement.standing(self.feedback.answers()):
            counts = found.setdefault(answer.finding, {})
            counts[str(answer.verdict)] = counts.get(str(answer.verdict), 0) + 1
        return found

    def events(self, film: Dataset) -> list[tuple[str, dict[str, Any]]]:
        entries = self.node.audit.entries(str(film.StudyInstanceUID))
        return [(e.event, json.loads(e.detail)) for e in entries if e.event in ("heard", "not linked")]

    def close(self) -> None:
        self.acceptor.stop()
        self.runner.stop(1)
        self.node.ledger.close()


@contextmanager
def open_hospital(make_config: MakeConfig) -> Iterator[Hospital]:
    with FakePacs() as pacs:
        made = Hospital(make_config({"PACS": pacs.url}), pacs)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def hospital(make_config: MakeConfig) -> Iterator[Hospital]:
    with open_hospital(make_config) as opened:
        yield opened


@pytest.fixture
def film(hospital: Hospital) -> Dataset:
    """A lateral film: answered "not analysed" at once, with a report that can be spoken of."""
    made = testing.dx_instance(ViewPosition="LL")
    hospital.receive(made)
    hospital.run()
    return made


def test_an_edit_in_ohif_is_linked_counted_and_audited_and_starts_no_new_analysis(
    hospital: Hospital, make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    film = testing.real_film()
    hospital.receive(film)
    hospital.run()
    report = hospital.report_of(film)
    shapes = reader.shapes_of(report)
    sent, jobs = len(hospital.pacs.arrivals), len(hospital.node.ledger.jobs())

    kept = shapes[1:]
    hospital.answer(reader.ohif_report(report, kept, predecessor=report))

    assert hospital.documents(film) == [("linked", "")]
    verdicts = hospital.verdicts()
    assert sum(v.get("rejected", 0) for v in verdicts.values()) == 1
    assert sum(v.get("accepted", 0) for v in verdicts.values()) == len(kept)
    ((event, detail),) = hospital.events(film)
    assert (event, detail["verdicts"]) == ("heard", {"accepted": len(kept), "rejected": 1})
    assert hospital.node.audit.broken_at() is None
    study = hospital.node.ledger.study(str(film.StudyInstanceUID))
    assert study is not None
    assert (study.state, study.reason) == (StudyState.PREPARED, "the same images as in revision 1")
    assert (len(hospital.pacs.arrivals), len(hospital.node.ledger.jobs())) == (sent, jobs)

    # the reader restores it and stores once more: the second document names the first, not ours
    again = reader.ohif_report(report, shapes, predecessor=report, at="20261122130000")
    reference = again.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    (first,) = [a.sop_instance_uid for a in hospital.feedback.answers() if str(a.verdict) == "rejected"]
    reference.ReferencedSOPInstanceUID = first
    hospital.answer(again)

    assert all(set(v) == {"accepted"} for v in hospital.verdicts().values())
    assert cli.main(["agreement", "--config", hospital.config.source, "--json", "--model", "chest-xray"]) == 0
    (model,) = json.loads(capsys.readouterr().out)
    assert (model["studies_delivered"], model["studies_answered"]) == (1, 1)
    assert all(f["agreement"] == 1 and f["interval_95"][0] < 1 for f in model["findings"])
    assert cli.main(["agreement", "--config", hospital.config.source]) == 0
    assert "1 of 1 delivered studies answered" in capsys.readouterr().out


def test_key_objects_of_our_report_are_heard_and_name_nobody(
    hospital: Hospital, film: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    report = hospital.report_of(film)

    hospital.answer(reader.key_objects(codes.DCM.RejectedForQualityReasons, [report]))

    assert hospital.verdicts() == {"": {"rejected": 1}}
    said = str(hospital.node.audit.entries()) + caplog.text
    assert not any(str(film[keyword].value) in said for keyword in ("PatientName", "PatientID", "AccessionNumber"))
    assert str(report.SOPInstanceUID) not in str(hospital.events(film))


def test_a_reader_stands_as_a_keyed_digest_only(hospital: Hospital, film: Dataset) -> None:
    report = hospital.report_of(film)
    hospital.answer(reader.tracked_report(report, predecessor=True, reader="Reader^Rita"))
    hospital.answer(reader.text_report(report))

    assert hospital.documents(film) == [("linked", ""), ("linked", "")]
    readers = {detail["reader"] for _, detail in hospital.events(film)}
    assert len(readers) == 1
    assert len(readers.pop()) == 32
    with hospital.node.ledger.engine.connect() as connection:
        kept = str(connection.execute(text("select * from document")).all())
        kept += str(connection.execute(text("select * from feedback")).all())
    assert "rita" not in kept.lower()


def test_the_same_document_twice_counts_once_and_so_does_a_crash(hospital: Hospital, film: Dataset) -> None:
    document = reader.key_objects(codes.DCM.OfInterest, [hospital.report_of(film)])
    hospital.answer(document)
    hospital.answer(document)
    waiting = Feedback(hospital.node.ledger.engine)
    (answer,) = waiting.answers()
    with hospital.node.ledger.engine.begin() as connection:  # as if a crash had come before the end
        connection.execute(text("update document set state = 'waiting'"))
    hospital.run()

    assert [a.document for a in waiting.answers()] == [answer.document]
    assert waiting.states() == {"linked": 1}


def test_our_own_objects_coming_back_are_no_answer(hospital: Hospital, film: Dataset) -> None:
    hospital.answer(*hospital.pacs.instances.values())

    assert hospital.documents(film) == []


def test_a_report_that_names_nothing_of_ours_is_unrelated(hospital: Hospital, film: Dataset) -> None:
    report = hospital.report_of(film)

    hospital.answer(reader.ohif_report(report, reader.shapes_of(report)))

    assert hospital.documents(film) == [("unrelated", "it names no result of this node")]
    assert hospital.events(film) == []


def test_a_successor_that_comes_before_its_predecessor_is_linked_when_that_has_come(
    hospital: Hospital, film: Dataset
) -> None:
    report = hospital.report_of(film)
    first = reader.ohif_report(report, reader.shapes_of(report), predecessor=report)
    second = reader.ohif_report(first, reader.shapes_of(report), predecessor=first, at="20261122130000")

    hospital.answer(second)
    assert hospital.documents(film)[0][0] == "unrelated"
    hospital.answer(first)
    hospital.run()

    assert [state for state, _ in hospital.documents(film)] == ["linked", "linked"]
    assert len(agreement.standing(hospital.feedback.answers())) == 1


def test_a_document_of_another_patient_is_kept_but_not_linked(hospital: Hospital, film: Dataset) -> None:
    document = reader.tracked_report(hospital.report_of(film), predecessor=True)
    document.PatientID = "ANOTHER"

    hospital.answer(document)

    assert hospital.documents(film) == [("not linked", "it names another patient than the results do")]
    assert hospital.feedback.answers() == ()
    ((event, detail),) = hospital.events(film)
    assert (event, detail["reason"]) == ("not linked", "it names another patient than the results do")


def test_a_document_in_another_study_is_kept_but_not_linked(hospital: Hospital, film: Dataset) -> None:
    document = reader.tracked_report(hospital.report_of(film), predecessor=True)
    document.StudyInstanceUID = generate_uid()

    hospital.answer(document)

    assert hospital.documents(document) == [("not linked", "it names results of another study only")]
    assert hospital.documents(film) == []


def test_a_document_that_cannot_be_read_says_why_and_holds_up_nothing(hospital: Hospital, film: Dataset) -> None:
    report = hospital.report_of(film)
    broken = reader.tracked_report(report, predecessor=True)
    hospital.receive(broken)
    (waiting,) = hospital.feedback.waiting()
    hospital.node.archive.put(waiting.key, b"no DICOM any more")
    hospital.answer(reader.key_objects(codes.DCM.OfInterest, [report]))

    (state, reason), other = hospital.documents(film)
    assert (state, other) == ("not linked", ("linked", ""))
    assert "cannot be parsed" in reason


def test_a_report_chooses_no_model_whatever_its_header_says_and_whomever_it_called(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    rules = """
[[rule]]
name = "films to one title"
model = "chest-xray"
called_ae = ["MEDGEM"]
match = [{ keyword = "Modality", operator = "in", value = ["DX"] }]
[[rule]]
name = "whatever the readers' title gets"
model = "chest-xray"
called_ae = ["READERS"]
match = [{ keyword = "PatientSex", operator = "present" }]
"""
    make_config()
    (tmp_path / "rules.toml").write_text(rules, "utf-8")
    config = read_config(tmp_path / "node.toml", ('receive.called_ae=["READERS"]',))
    with FakePacs() as pacs:
        us = Hospital(config, pacs)
        film = testing.dx_instance(ViewPosition="LL")
        us.receive(film)
        us.run()
        results = us.node.ledger.results(us.node.ledger.jobs()[0].job.job_id)
        (key,) = [r.key for r in results if r.sop_class_uid == Comprehensive3DSRStorage]
        report = part10.decode(us.node.archive.get(key))
        us.receive(reader.key_objects(codes.DCM.OfInterest, [report]), called_ae="READERS")
        us.run()
        us.receive(reader.key_objects(codes.DCM.OfInterest, [testing.dx_instance()]), called_ae="READERS")
        us.run()

        first, alone = us.node.ledger.studies()
        us.close()
    assert (first.rule, first.reason) == ("films to one title", "the same images as in revision 1")
    assert alone.state is StudyState.UNMATCHED
    assert len(us.node.ledger.jobs()) == 1


def test_documents_that_came_before_this_version_are_heard(tmp_path: Path, hospital: Hospital, film: Dataset) -> None:
    from medgem_node.ledger import migrations

    document = reader.key_objects(codes.DCM.OfInterest, [hospital.report_of(film)])
    hospital.receive(document)
    with hospital.node.ledger.engine.begin() as connection:  # as the database was before
        for statement in (
            "drop table crosswalk",
            "drop table crosswalk_patient",
            "drop table feedback",
            "drop table document",
            "update alembic_version set version_num='0002'",
        ):
            connection.execute(text(statement))
    with hospital.node.ledger.engine.begin() as connection:
        migrations.upgrade(connection)
    hospital.run()

    assert hospital.verdicts() == {"": {"accepted": 1}}


def test_a_document_without_the_issuer_of_its_patient_id_is_of_the_patient_of_its_study(hospital: Hospital) -> None:
    film = testing.dx_instance(ViewPosition="LL", IssuerOfPatientID="HOSPITAL")
    hospital.receive(film)
    hospital.run()
    report = hospital.report_of(film)
    document = reader.ohif_report(report, reader.shapes_of(report), predecessor=report)
    assert "IssuerOfPatientID" not in document  # dcmjs copies none

    hospital.answer(document)

    assert hospital.documents(film) == [("linked", "")]
    study = hospital.node.ledger.study(str(film.StudyInstanceUID))
    assert study is not None
    assert not study.mixes_patients()


@pytest.mark.slow
def test_a_running_node_hears_an_answer_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = testing.dx_instance(ViewPosition="LL")
    with FakePacs() as pacs, testing.RunningNode(tmp_path, {"PACS": pacs.url}) as node:
        scu.store(node.peer, "MODALITY", [film])
        report = testing.wait_for(lambda: [r for r in pacs.instances.values() if r.Modality == "SR"])[0]
        scu.store(node.peer, "WORKSTATION", [reader.key_objects(codes.DCM.OfInterest, [report])])

        def accepted() -> bool:
            assert cli.main(["agreement", "--config", str(node.config_file), "--json"]) == 0
            models = json.loads(capsys.readouterr().out)
            return any(f["accepted"] == 1 for m in models for f in m["findings"])

        assert testing.wait_for(accepted, 60)
    assert "Traceback" not in node.log_file.read_text("utf-8")
