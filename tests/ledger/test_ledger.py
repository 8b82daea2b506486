from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from medgem_node.job import DeliveryState, Job, JobState
from medgem_node.ledger.ledger import Ledger, LedgerJob, Result
from medgem_node.ledger.tables import metadata
from medgem_node.study import Instance, StudyState, newest

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def an_instance(sop: str = "1.2.3", sha256: str = "a" * 64, at: datetime = NOON, **changes: str) -> Instance:
    fields = {
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.1",
        "series_instance_uid": "1.2.2",
        "study_instance_uid": "1.2.1",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "modality": "DX",
        "patient_key": "k",
        "key": f"studies/1.2.1/{sop}-{sha256[:16]}.dcm",
        "calling_ae": "A",
        "called_ae": "B",
        **changes,
    }
    return Instance(sop_instance_uid=sop, sha256=sha256, size_bytes=10, received_at=at, **fields)  # type: ignore[arg-type]


def a_job(state: JobState = JobState.QUEUED, send_to: tuple[str, ...] = ("PACS",)) -> LedgerJob:
    return LedgerJob(
        job=Job("j1", "m", "1.0.0", ("inputs/j1/2.25.1.dcm",)),
        study_instance_uid="1.2.1",
        study_revision=1,
        rule="r",
        originals=("studies/1.2.1/1.2.3-a.dcm",),
        send_to=send_to,
        state=state,
        created_at=NOON,
        due_at=NOON,
    )


def routed(ledger: Ledger) -> None:
    ledger.record(an_instance())
    for state in (StudyState.COMPLETE, StudyState.ROUTED):
        seen = ledger.study("1.2.1")
        assert seen is not None
        assert ledger.move(seen, state, rule="r")


def opened(ledger: Ledger, job: LedgerJob | None = None) -> LedgerJob:
    routed(ledger)
    study = ledger.study("1.2.1")
    assert study is not None
    assert ledger.open_job(study, job or a_job())
    return ledger.jobs()[0]


def test_the_migrations_make_the_tables_that_the_code_uses(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, metadata) == []


def test_a_duplicate_is_known_once(ledger: Ledger) -> None:
    assert ledger.record(an_instance())
    assert not ledger.record(an_instance(at=NOON + timedelta(hours=1)))

    study = ledger.study("1.2.1")
    assert study is not None
    assert len(study.instances) == 1
    assert study.received_at == NOON


def test_the_same_uid_with_other_bytes_is_a_new_revision(ledger: Ledger) -> None:
    ledger.record(an_instance(sha256="a" * 64))
    ledger.record(an_instance(sha256="b" * 64))

    study = ledger.study("1.2.1")
    assert study is not None
    assert [(i.sha256[0], i.revision) for i in study.instances] == [("a", 1), ("b", 2)]
    assert [i.sha256[0] for i in newest(study.instances)] == ["b"]


def test_a_late_image_takes_the_study_back_and_begins_a_revision(ledger: Ledger) -> None:
    routed(ledger)
    ledger.record(an_instance("1.2.4", at=NOON + timedelta(minutes=5)))

    study = ledger.study("1.2.1")
    assert study is not None
    assert (study.state, study.revision) == (StudyState.RECEIVING, 1)
    assert ledger.move(study, StudyState.COMPLETE)
    assert ledger.studies(StudyState.COMPLETE)[0].revision == 2


def test_a_step_cannot_move_a_study_that_changed_meanwhile(ledger: Ledger) -> None:
    routed(ledger)
    seen = ledger.study("1.2.1")
    assert seen is not None
    ledger.record(an_instance("1.2.4", at=NOON + timedelta(seconds=1)))

    assert not ledger.open_job(seen, a_job())
    assert ledger.jobs() == ()


def test_a_job_is_claimed_once(ledger: Ledger) -> None:
    job = opened(ledger)

    assert ledger.move_job(job, JobState.SUBMITTED, lease_until=NOON)
    assert not ledger.move_job(job, JobState.SUBMITTED, lease_until=NOON)


def test_results_and_deliveries_are_known_together_and_end_the_job(ledger: Ledger) -> None:
    job = opened(ledger, a_job(JobState.ANALYSED))

    assert ledger.publish(job, [Result("2.25.1", "1.2", "results/a"), Result("2.25.2", "1.2", "results/b")], NOON)
    assert not ledger.publish(job, [Result("2.25.3", "1.2", "results/c")], NOON)
    first, second = ledger.deliveries(DeliveryState.PENDING)
    ledger.move_delivery(first, DeliveryState.DELIVERED, due_at=NOON)

    assert ledger.jobs()[0].state is JobState.PUBLISHED
    ledger.move_delivery(second, DeliveryState.REFUSED, due_at=NOON, reason="no")
    assert ledger.jobs()[0].state is JobState.DONE


def test_a_job_without_destinations_is_done_when_published(ledger: Ledger) -> None:
    job = opened(ledger, a_job(JobState.ANALYSED, send_to=()))

    ledger.publish(job, [Result("2.25.1", "1.2", "results/a")], NOON)

    assert ledger.jobs()[0].state is JobState.DONE


def test_a_ledger_opened_again_knows_the_same(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    first = Ledger(url)
    first.record(an_instance())
    first.close()

    second = Ledger(url)

    assert [s.study_instance_uid for s in second.studies()] == ["1.2.1"]


def test_times_come_back_in_utc(ledger: Ledger) -> None:
    ledger.record(an_instance())

    study = ledger.study("1.2.1")
    assert study is not None
    assert study.received_at == NOON
    assert study.is_quiet(NOON + timedelta(seconds=60), 60)
    assert not study.is_quiet(NOON + timedelta(seconds=59), 60)


def test_two_patients_in_one_study_are_noticed(ledger: Ledger) -> None:
    ledger.record(an_instance("1.2.3"))
    ledger.record(replace(an_instance("1.2.4", sha256="c" * 64), patient_key="other"))

    study = ledger.study("1.2.1")
    assert study is not None
    assert study.mixes_patients()
