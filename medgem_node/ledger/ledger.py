"""The one place that knows the state of every study, job and delivery.

Each method is one transaction. A state moves only from the state that the caller saw (compare and set), so two
pipelines, or a late image between two steps, cannot undo each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, create_engine, event, func, insert, select, update
from sqlalchemy.engine import Engine

from medgem_node.job import TRANSITIONS, Delivery, DeliveryState, Job, JobState
from medgem_node.ledger import delivery
from medgem_node.ledger import tables as t
from medgem_node.ledger.feedback import note_document
from medgem_node.ledger.migrations import upgrade
from medgem_node.study import TRANSITIONS as STUDY_TRANSITIONS
from medgem_node.study import Instance, Study, StudyState
from medgem_node.viewer_profile import ViewerProfile


@dataclass(frozen=True, slots=True)
class LedgerJob:
    """A job with what only the node knows of it: whose it is, and how far it came.

    `originals` are the archive keys of the instances that the model is to see, as they were then; so is `profile` what
    is to be written of it. None: opened by a version that knew no profiles.
    """

    job: Job
    study_instance_uid: str
    study_revision: int
    rule: str
    originals: tuple[str, ...]
    send_to: tuple[str, ...]
    state: JobState
    created_at: datetime
    due_at: datetime
    lease_until: datetime | None = None
    analysed_at: datetime | None = None
    reason: str = ""
    detail: str = ""
    profile: ViewerProfile | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One result object in the archive; `kind` is what the job's profile calls it."""

    sop_instance_uid: str
    sop_class_uid: str
    key: str
    kind: str = ""


class Ledger:
    """Studies, instances, jobs, results and deliveries in one database."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._write = self._engine.execution_options(writes=True)
        with self._write.begin() as connection:
            upgrade(connection)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """The database, for the audit trail, which has tables of its own."""
        return self._write

    # -- instances and studies -----------------------------------------------------------------------------------

    def record(self, instance: Instance) -> bool:
        """Know a received instance; False when these very bytes were known already.

        The same UID with other content becomes a further revision. A new content takes its study back to RECEIVING.
        """
        with self._write.begin() as connection:
            _touch_study(connection, instance.study_instance_uid, instance.received_at)
            same_uid = (t.instance.c.sop_instance_uid == instance.sop_instance_uid) & (
                t.instance.c.study_instance_uid == instance.study_instance_uid
            )
            digests = connection.scalars(select(t.instance.c.sha256).where(same_uid)).all()
            if instance.sha256 in digests:
                return False
            fields = {name: getattr(instance, name) for name in _INSTANCE_FIELDS}
            connection.execute(insert(t.instance).values(**{**fields, "revision": len(digests) + 1}))
            note_document(connection, instance)
            connection.execute(
                update(t.study)
                .where(t.study.c.study_instance_uid == instance.study_instance_uid)
                .values(state=StudyState.RECEIVING, received_at=instance.received_at, reason="")
            )
        return True

    def knows(self, study_instance_uid: str, sop_instance_uid: str, sha256: str) -> bool:
        """Whether these very bytes were recorded."""
        query = select(t.instance.c.instance_id).where(
            t.instance.c.sop_instance_uid == sop_instance_uid,
            t.instance.c.study_instance_uid == study_instance_uid,
            t.instance.c.sha256 == sha256,
        )
        with self._engine.connect() as connection:
            return connection.scalar(query) is not None

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether this node made that object."""
        query = select(t.result.c.job_id).where(t.result.c.sop_instance_uid == sop_instance_uid)
        with self._engine.connect() as connection:
            return connection.scalar(query) is not None

    def studies(self, *states: StudyState) -> tuple[Study, ...]:
        """The studies in one of `states` (none: all), longest waiting first, each with its instances."""
        query = select(t.study).order_by(t.study.c.received_at, t.study.c.study_instance_uid)
        if states:
            query = query.where(t.study.c.state.in_(states))
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
            return tuple(_study(row, _instances(connection, row.study_instance_uid)) for row in rows)

    def latest_arrival(self) -> datetime | None:
        """When the last image came."""
        with self._engine.connect() as connection:
            latest: datetime | None = connection.scalar(select(func.max(t.study.c.received_at)))
            return latest

    def keys(self) -> frozenset[str]:
        """The archive keys of every known instance."""
        with self._engine.connect() as connection:
            return frozenset(connection.scalars(select(t.instance.c.key)))

    def study(self, study_instance_uid: str) -> Study | None:
        """One study with its instances."""
        query = select(t.study).where(t.study.c.study_instance_uid == study_instance_uid)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
            return _study(row, _instances(connection, study_instance_uid)) if row else None

    def move(self, seen: Study, state: StudyState, *, rule: str = "", reason: str = "") -> bool:
        """Move a study on; False when it is no longer as it was `seen`. Becoming complete begins a revision."""
        with self._write.begin() as connection:
            return _move(connection, seen, state, rule=rule or seen.rule, reason=reason)

    # -- jobs ----------------------------------------------------------------------------------------------------

    def open_job(self, seen: Study, job: LedgerJob) -> bool:
        """Move a routed study to PREPARED and open its job, both or neither."""
        with self._write.begin() as connection:
            if not _move(connection, seen, StudyState.PREPARED, rule=seen.rule, reason=""):
                return False
            connection.execute(insert(t.job).values(**_job_fields(job)))
        return True

    def job(self, job_id: str) -> LedgerJob | None:
        """One job."""
        with self._engine.connect() as connection:
            row = connection.execute(select(t.job).where(t.job.c.job_id == job_id)).one_or_none()
            return _job(row) if row else None

    def jobs(self, *states: JobState, due: datetime | None = None, study: str = "") -> tuple[LedgerJob, ...]:
        """The jobs in one of `states` (none: all), oldest first; with `due`, only those due by then."""
        query = select(t.job).order_by(t.job.c.created_at, t.job.c.job_id)
        if states:
            query = query.where(t.job.c.state.in_(states))
        if due is not None:
            query = query.where(t.job.c.due_at <= due)
        if study:
            query = query.where(t.job.c.study_instance_uid == study)
        with self._engine.connect() as connection:
            return tuple(_job(row) for row in connection.execute(query))

    def earlier_jobs(self, job: LedgerJob) -> tuple[LedgerJob, ...]:
        """The published jobs of the same model on earlier revisions of the same study, the newest first."""
        query = (
            select(t.job)
            .where(
                t.job.c.study_instance_uid == job.study_instance_uid,
                t.job.c.model == job.job.model,
                t.job.c.study_revision < job.study_revision,
                t.job.c.state.in_((JobState.PUBLISHED, JobState.DONE)),
            )
            .order_by(t.job.c.study_revision.desc())
        )
        with self._engine.connect() as connection:
            return tuple(_job(row) for row in connection.execute(query))

    def move_job(self, seen: LedgerJob, state: JobState, **changes: Any) -> bool:
        """Move a job on, with `changes` of its columns; False when it is no longer as it was `seen`."""
        assert state in TRANSITIONS[seen.state], f"a job that is {seen.state} cannot become {state}"
        statement = (
            update(t.job)
            .where(
                t.job.c.job_id == seen.job.job_id,
                t.job.c.state == seen.state,
                t.job.c.attempt == seen.job.attempt,
            )
            .values(state=state, **changes)
        )
        with self._write.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def release_leases(self, now: datetime) -> int:
        """Let every submitted job's lease end now: for engines whose jobs died with an earlier process."""
        statement = update(t.job).where(t.job.c.state == JobState.SUBMITTED).values(lease_until=now)
        with self._write.begin() as connection:
            return connection.execute(statement).rowcount

    # -- results and deliveries ----------------------------------------------------------------------------------

    def publish(self, seen: LedgerJob, results: Sequence[Result], now: datetime) -> bool:
        """Know the results of a job and open their deliveries; a job that nobody wants is done at once."""
        job_id = seen.job.job_id
        state = JobState.PUBLISHED if seen.send_to and results else JobState.DONE
        assert state in TRANSITIONS[seen.state], f"a job that is {seen.state} cannot become {state}"
        with self._write.begin() as connection:
            moved = connection.execute(
                update(t.job).where(t.job.c.job_id == job_id, t.job.c.state == seen.state).values(state=state)
            )
            if moved.rowcount != 1:
                return False
            for result in results:
                fields = {name: getattr(result, name) for name in ("sop_instance_uid", "sop_class_uid", "key", "kind")}
                connection.execute(insert(t.result).values(job_id=job_id, **fields))
            spares = seen.profile.spares if seen.profile else ()
            wanted = [result.sop_instance_uid for result in results if result.kind not in spares]
            for destination in seen.send_to:
                delivery.open_deliveries(connection, job_id, wanted, destination, now)
        return True

    def results(self, job_id: str) -> tuple[Result, ...]:
        """The result objects of a job."""
        query = select(t.result).where(t.result.c.job_id == job_id).order_by(t.result.c.key)
        with self._engine.connect() as connection:
            rows = connection.execute(query)
            return tuple(Result(r.sop_instance_uid, r.sop_class_uid, r.key, r.kind) for r in rows)

    def deliveries(self, *states: DeliveryState, due: datetime | None = None, job_id: str = "") -> tuple[Delivery, ...]:
        """The deliveries in one of `states` (none: all), longest due first."""
        query = (
            select(t.delivery, t.result.c.sop_class_uid, t.result.c.key, t.result.c.kind)
            .join(t.result, t.result.c.sop_instance_uid == t.delivery.c.sop_instance_uid)
            .order_by(t.delivery.c.due_at, t.delivery.c.delivery_id)
        )
        if states:
            query = query.where(t.delivery.c.state.in_(states))
        if due is not None:
            query = query.where(t.delivery.c.due_at <= due)
        if job_id:
            query = query.where(t.delivery.c.job_id == job_id)
        with self._engine.connect() as connection:
            return tuple(_delivery(row) for row in connection.execute(query))

    def move_delivery(self, seen: Delivery, state: DeliveryState, *, due_at: datetime, reason: str = "") -> None:
        """Note how a delivery went; the last one to end ends its job."""
        with self._write.begin() as connection:
            delivery.move_delivery(connection, seen, state, due_at, reason)
            delivery.end_job(connection, seen.job_id)

    def refuse(self, seen: Delivery, *, due_at: datetime, reason: str) -> tuple[str, ...]:
        """Note that a peer will never take an object, and open what it gets in its place, both or neither.

        Answers the kinds that were opened; what was opened before is not opened again.
        """
        with self._write.begin() as connection:
            delivery.move_delivery(connection, seen, DeliveryState.REFUSED, due_at, reason)
            opened = delivery.open_replacements(connection, seen, due_at)
            delivery.end_job(connection, seen.job_id)
        return opened


_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000", "secure_delete=ON")
_ANSWER = ("analysed_at", "reason", "detail")  # of a job that is answered as soon as it is opened
_INSTANCE_FIELDS = [c.name for c in t.instance.columns if c.name != "instance_id"]


def _engine(url: str) -> Engine:
    engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"), hide_parameters=True)  # they name studies
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            connection.isolation_level = None  # we begin transactions ourselves, below
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # a reader that turns writer would meet "database is locked"; a writer takes its lock at once
            writes = connection.get_execution_options().get("writes")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _touch_study(connection: Connection, study_instance_uid: str, now: datetime) -> None:
    known = select(t.study.c.study_instance_uid).where(t.study.c.study_instance_uid == study_instance_uid)
    if connection.scalar(known) is None:
        fields = {"state": StudyState.RECEIVING, "revision": 0, "received_at": now}
        connection.execute(insert(t.study).values(study_instance_uid=study_instance_uid, **fields))


def _move(connection: Connection, seen: Study, state: StudyState, *, rule: str, reason: str) -> bool:
    assert state in STUDY_TRANSITIONS[seen.state], f"a study that is {seen.state} cannot become {state}"
    revision = seen.revision + 1 if state is StudyState.COMPLETE else seen.revision
    statement = (
        update(t.study)
        .where(
            t.study.c.study_instance_uid == seen.study_instance_uid,
            t.study.c.state == seen.state,
            t.study.c.revision == seen.revision,
            t.study.c.received_at == seen.received_at,
        )
        .values(state=state, revision=revision, rule=rule, reason=reason)
    )
    return connection.execute(statement).rowcount == 1


def _instances(connection: Connection, study_instance_uid: str) -> tuple[Instance, ...]:
    query = (
        select(t.instance)
        .where(t.instance.c.study_instance_uid == study_instance_uid)
        .order_by(t.instance.c.instance_id)
    )
    return tuple(Instance(**{n: getattr(row, n) for n in _INSTANCE_FIELDS}) for row in connection.execute(query))


def _study(row: Row[Any], instances: tuple[Instance, ...]) -> Study:
    return Study(
        study_instance_uid=row.study_instance_uid,
        state=StudyState(row.state),
        revision=row.revision,
        received_at=row.received_at,
        instances=instances,
        rule=row.rule,
        reason=row.reason,
    )


def _job_fields(job: LedgerJob) -> dict[str, Any]:
    return {
        "job_id": job.job.job_id,
        "model": job.job.model,
        "version": job.job.version,
        "attempt": job.job.attempt,
        "inputs": json.dumps(job.job.inputs),
        "originals": json.dumps(job.originals),
        "send_to": json.dumps(job.send_to),
        "profile": job.profile.to_json() if job.profile else "",
        **{
            name: getattr(job, name)
            for name in ("study_instance_uid", "study_revision", "rule", "state", "created_at", "due_at", *_ANSWER)
        },
    }


def _job(row: Row[Any]) -> LedgerJob:
    return LedgerJob(
        job=Job(row.job_id, row.model, row.version, tuple(json.loads(row.inputs)), row.attempt),
        study_instance_uid=row.study_instance_uid,
        study_revision=row.study_revision,
        rule=row.rule,
        originals=tuple(json.loads(row.originals)),
        send_to=tuple(json.loads(row.send_to)),
        state=JobState(row.state),
        created_at=row.created_at,
        due_at=row.due_at,
        lease_until=row.lease_until,
        analysed_at=row.analysed_at,
        reason=row.reason,
        detail=row.detail,
        profile=ViewerProfile.from_json(row.profile) if row.profile else None,
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        delivery_id=row.delivery_id,
        job_id=row.job_id,
        destination=row.destination,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        key=row.key,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        due_at=row.due_at,
        reason=row.reason,
        kind=row.kind,
    )
