"""Keys that are rotated while a study is under way, and what the crosswalk knows of what left."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydicom import Dataset

from medgem_node import part10, testing
from medgem_node.config import Config
from medgem_node.dimse import scu
from medgem_node.finding import Analysis
from medgem_node.job import JobState, Outcome, encode_outcome
from medgem_node.ledger.crosswalk import Access, Kind
from medgem_node.ledger.ledger import LedgerJob
from medgem_node.node import Node, PipelineRunner, now, open_node, start_acceptor
from medgem_node.peer import Peer
from medgem_node.pipeline import Pipeline

ASKING = Access("auditor", "a test", now())


class OneFilm:
    """A node with one film, whose copy lies in the exchange; `answer` does what a worker would."""

    def __init__(self, config: Config) -> None:
        self.node: Node = open_node(replace(config, engine=replace(config.engine, name="inline")))
        self.pipeline: Pipeline = PipelineRunner(self.node).pipeline
        self.film = testing.dx_instance(IssuerOfPatientID="OLDTOWN", AccessionNumber="ACC77")
        acceptor = start_acceptor(self.node)
        scu.store(Peer("MEDGEM", "127.0.0.1", acceptor.port), "MODALITY", [self.film])
        acceptor.stop()
        self.run(Pipeline.complete, Pipeline.route, Pipeline.prepare)

    def run(self, *steps: Callable[[Pipeline, object], int]) -> None:
        for step in steps:
            step(self.pipeline, now() + timedelta(minutes=5))

    @property
    def job(self) -> LedgerJob:
        return self.node.ledger.jobs()[0]

    @property
    def copy(self) -> Dataset:
        return part10.decode(self.node.exchange.get(self.job.job.inputs[0]))

    def answer(self) -> Dataset:
        job, copy = self.job, self.copy
        self.node.ledger.move_job(job, JobState.SUBMITTED, lease_until=now())
        analysis = Analysis(job.job.model, job.job.version, False, "lateral-view", images=(copy.SOPInstanceUID,))
        self.node.exchange.put(job.job.outcome_key, encode_outcome(Outcome(job.job.job_id, analysis)))
        self.run(Pipeline.collect, Pipeline.publish)
        return part10.decode(self.node.archive.get(self.node.ledger.results(job.job.job_id)[0].key))


@pytest.fixture
def us(config: Config) -> Iterator[OneFilm]:
    opened = OneFilm(config)
    yield opened
    opened.node.ledger.close()


def test_every_pseudonym_of_a_copy_leads_back_to_its_original(us: OneFilm) -> None:
    for keyword, kind in (
        ("PatientID", Kind.PATIENT),
        ("AccessionNumber", Kind.ACCESSION),
        ("StudyInstanceUID", Kind.STUDY),
        ("SeriesInstanceUID", Kind.SERIES),
        ("SOPInstanceUID", Kind.INSTANCE),
    ):
        found = us.node.crosswalk.original_of(us.copy[keyword].value, ASKING)

        assert found is not None, keyword
        assert (found.link.kind, found.link.original) == (kind, us.film[keyword].value)
    patient = us.node.crosswalk.original_of(us.copy.PatientID, ASKING)
    assert patient is not None
    assert patient.link.issuer == "OLDTOWN"
    assert patient.link.days == us.node.pseudonyms.days(us.film.PatientID, "OLDTOWN")


def test_the_crosswalk_knows_all_of_it_before_a_worker_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError("disk full")

    monkeypatch.setattr("medgem_node.ledger.crosswalk.Crosswalk.record", fails)

    us = OneFilm(config)

    assert us.node.ledger.jobs() == ()
    us.node.ledger.close()


def test_a_study_prepared_again_after_a_crash_is_recorded_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("medgem_node.ledger.ledger.Ledger.open_job", lambda *_: False)
        us = OneFilm(config)
    before = list(us.node.crosswalk.export(ASKING))

    us.run(Pipeline.prepare)

    assert us.job.job.inputs
    assert list(us.node.crosswalk.export(ASKING)) == before != []
    us.node.ledger.close()


def test_an_outcome_in_pseudonyms_of_an_older_epoch_is_published(us: OneFilm) -> None:
    job_id = us.job.job.job_id
    us.node.keys.rotate()

    report = us.answer()

    assert "lateral-view" in str(report)
    assert (report.PatientID, report.StudyInstanceUID) == (us.film.PatientID, us.film.StudyInstanceUID)
    assert (us.job.job.job_id, us.job.state) == (job_id, JobState.DONE)


def test_what_is_prepared_after_a_rotation_gets_other_pseudonyms(us: OneFilm) -> None:
    before = us.copy
    us.node.keys.rotate()

    acceptor = start_acceptor(us.node)
    late = testing.dx_instance(
        StudyInstanceUID=us.film.StudyInstanceUID, IssuerOfPatientID="OLDTOWN", PatientID=us.film.PatientID
    )
    scu.store(Peer("MEDGEM", "127.0.0.1", acceptor.port), "MODALITY", [late])
    acceptor.stop()
    us.run(Pipeline.complete, Pipeline.route, Pipeline.prepare)

    (_, second) = us.node.ledger.jobs()
    subject = f"{us.film.StudyInstanceUID}|2|{second.job.model}|{second.job.version}"
    assert second.job.job_id == us.node.pseudonyms.digest("job", subject)[:32]
    copies = [part10.decode(us.node.exchange.get(key)) for key in second.job.inputs]
    assert len(copies) == 2
    assert len({copy.StudyInstanceUID for copy in copies}) == 1
    assert copies[0].StudyInstanceUID != before.StudyInstanceUID
    assert copies[0].PatientID == copies[1].PatientID != before.PatientID
    found = us.node.crosswalk.pseudonyms_of(us.film.StudyInstanceUID, ASKING)
    assert [e.link.pseudonym for e in found] == [copies[0].StudyInstanceUID, before.StudyInstanceUID]
