from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from medgem_node.job import DeliveryState, Job, JobState
from medgem_node.ledger.ledger import Ledger, LedgerJob, Result
from medgem_node.ledger.migrations import upgrade
from medgem_node.ledger.tables import metadata
from medgem_node.study import Instance, StudyState, newest
from medgem_node.viewer_profile import ViewerProfile

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


PROFILE = ViewerProfile("p", "p", ("seg", "sr"), "scoord", {"seg": ("seg/old", "pr"), "sr": ("sr/old",)})
RESULTS = [
    Result("2.25.1", "1.2", "results/1", "seg"),
    Result("2.25.2", "1.2", "results/2", "seg"),
    Result("2.25.3", "1.3", "results/3", "pr"),
    Result("2.25.4", "1.4", "results/4", "sr"),
    Result("2.25.5", "1.5", "results/5", "sr/old"),
]


def published(ledger: Ledger, send_to: tuple[str, ...] = ("PACS",)) -> None:
    job = opened(ledger, replace(a_job(JobState.ANALYSED, send_to), profile=PROFILE))
    assert job.profile == PROFILE
    assert ledger.publish(job, RESULTS, NOON)


def pending(ledger: Ledger, destination: str = "PACS") -> list[str]:
    return [d.kind for d in ledger.deliveries(DeliveryState.PENDING) if d.destination == destination]


def test_what_only_stands_in_is_known_and_not_sent(ledger: Ledger) -> None:
    published(ledger)

    assert pending(ledger) == ["seg", "seg", "sr"]
    assert [r.kind for r in ledger.results("j1")] == ["seg", "seg", "pr", "sr", "sr/old"]


def test_a_refused_object_opens_the_first_that_was_written_once_and_for_that_destination(ledger: Ledger) -> None:
    published(ledger, ("PACS", "OTHER"))
    first, second = (d for d in ledger.deliveries() if d.kind == "seg" and d.destination == "PACS")

    assert ledger.refuse(first, due_at=NOON, reason="no") == ("pr",)
    assert ledger.refuse(second, due_at=NOON, reason="no") == ()
    assert sorted(pending(ledger)) == ["pr", "sr"]
    assert pending(ledger, "OTHER") == ["seg", "seg", "sr"]


def test_a_job_whose_last_object_is_refused_goes_on_with_what_stands_in_and_then_ends(ledger: Ledger) -> None:
    published(ledger)
    while waiting := ledger.deliveries(DeliveryState.PENDING):
        assert ledger.jobs()[0].state is JobState.PUBLISHED
        ledger.refuse(waiting[0], due_at=NOON, reason="no")

    assert ledger.jobs()[0].state is JobState.DONE
    assert {d.kind for d in ledger.deliveries(DeliveryState.REFUSED)} == {"seg", "pr", "sr", "sr/old"}


def test_a_refusal_and_what_stands_in_are_known_together_or_not_at_all(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(ledger)
    seen = ledger.deliveries()[0]
    with monkeypatch.context() as broken:
        broken.setattr("medgem_node.ledger.delivery.open_deliveries", power_cut)
        with pytest.raises(OSError, match="power cut"):
            ledger.refuse(seen, due_at=NOON, reason="no")

    assert ledger.deliveries()[0] == seen
    assert ledger.refuse(seen, due_at=NOON, reason="no") == ("pr",)


def power_cut(*_: object) -> None:
    raise OSError("power cut")


def test_earlier_jobs_are_those_of_the_same_study_and_model_that_were_published(ledger: Ledger) -> None:
    published(ledger)
    (job,) = ledger.jobs()

    later = replace(job, study_revision=2)
    assert ledger.earlier_jobs(job) == ()
    assert ledger.earlier_jobs(later) == (job,)
    assert ledger.earlier_jobs(replace(later, job=replace(job.job, version="2.0.0"))) == (job,)
    assert ledger.earlier_jobs(replace(later, job=replace(job.job, model="other"))) == ()


def test_a_database_of_the_first_version_is_brought_up_to_date_with_what_it_holds(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    first = create_engine(url)
    with first.begin() as connection:
        upgrade(connection, "0001")
        for statement in ROWS_OF_THE_FIRST_VERSION:
            connection.execute(text(statement))
    first.dispose()

    ledger = Ledger(url)

    (job,) = ledger.jobs()
    assert (job.state, job.profile) == (JobState.PUBLISHED, None)
    assert ledger.results("j1") == (Result("2.25.1", "1.2", "results/a", ""),)
    (waiting,) = ledger.deliveries(DeliveryState.PENDING)
    assert ledger.refuse(waiting, due_at=NOON, reason="no") == ()
    assert ledger.jobs()[0].state is JobState.DONE


AT = "'2026-11-22 12:00:00'"
ROWS_OF_THE_FIRST_VERSION = (
    f"insert into study values ('1.2.1', 'prepared', 1, {AT}, 'r', '')",
    "insert into job values ('j1', '1.2.1', 1, 'r', 'm', '1.0.0', 'published', 1, '[]', '[]', '[\"PACS\"]', "
    f"{AT}, {AT}, null, {AT}, '', '')",
    "insert into result values ('2.25.1', 'j1', '1.2', 'results/a')",
    f"insert into delivery values (1, '2.25.1', 'j1', 'PACS', 'pending', 0, {AT}, '')",
)


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
