"""The documents that came, and what they say of our results. A document waits from the moment it is recorded.

Nothing is scanned: the waiting ones are found by an index. What a document says is written with its state in one
transaction, once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, distinct, func, insert, select, update
from sqlalchemy.engine import Engine

from medgem_node.feedback import is_document
from medgem_node.job import DeliveryState
from medgem_node.ledger import tables as t
from medgem_node.study import Instance
from medgem_node.verdict import Opinion, Verdict

_MANY = 500


class DocumentState(StrEnum):
    """What became of a document."""

    WAITING = "waiting"  # not read yet
    LINKED = "linked"  # it speaks of results of ours
    UNRELATED = "unrelated"  # it names no result of ours
    NOT_LINKED = "not linked"  # it should not be counted, or cannot be read; the reason says why


@dataclass(frozen=True, slots=True)
class Waiting:
    """A document to be read."""

    key: str
    sop_instance_uid: str
    study_instance_uid: str
    patient_key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What was read of a document: `reader` is a keyed digest or empty, `opinions` stand by job."""

    state: DocumentState
    reason: str = ""
    reader: str = ""
    complete: bool = False
    verified: bool = False
    content_at: datetime | None = None
    replaces: tuple[str, ...] = ()
    opinions: Mapping[str, tuple[Opinion, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One opinion with its document and the model that it is about."""

    document: str
    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    job_id: str
    model: str
    version: str
    reader: str
    at: datetime
    replaces: tuple[str, ...]
    verdict: Verdict
    finding: str


def note_document(connection: Connection, instance: Instance) -> None:
    """Let a document wait to be read; other instances are no documents."""
    if is_document(instance.sop_class_uid):
        fields = {name: getattr(instance, name) for name in _COPIED}
        connection.execute(insert(t.document).values(**fields, state=DocumentState.WAITING))


class Feedback:
    """Documents and opinions in the ledger's database. `engine` is the ledger's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def waiting(self) -> tuple[Waiting, ...]:
        """The documents not read yet, longest waiting first."""
        query = (
            select(t.document)
            .where(t.document.c.state == DocumentState.WAITING)
            .order_by(t.document.c.received_at, t.document.c.key)
            .limit(_MANY)
        )
        names = ("key", "sop_instance_uid", "study_instance_uid", "patient_key", "size_bytes")
        with self._engine.connect() as connection:
            return tuple(Waiting(**{n: getattr(row, n) for n in names}) for row in connection.execute(query))

    def answering(self, study_instance_uid: str) -> dict[str, frozenset[str]]:
        """The documents of a study that are linked, each with the jobs that it speaks of."""
        query = (
            select(t.document.c.sop_instance_uid, t.feedback.c.job_id)
            .join(t.feedback, t.feedback.c.key == t.document.c.key)
            .where(t.document.c.study_instance_uid == study_instance_uid)
        )
        with self._engine.connect() as connection:
            found: dict[str, frozenset[str]] = {}
            for row in connection.execute(query):
                found[row.sop_instance_uid] = found.get(row.sop_instance_uid, frozenset()) | {row.job_id}
            return found

    def jobs_of(self, sop_instance_uids: Sequence[str]) -> dict[str, str]:
        """Of these objects those that this node made, each with its job."""
        found: dict[str, str] = {}
        with self._engine.connect() as connection:
            for n in range(0, len(sop_instance_uids), _MANY):
                some = t.result.c.sop_instance_uid.in_(sop_instance_uids[n : n + _MANY])
                rows = connection.execute(select(t.result.c.sop_instance_uid, t.result.c.job_id).where(some))
                found.update({row.sop_instance_uid: row.job_id for row in rows})
        return found

    def conclude(self, waiting: Waiting, heard: Heard, now: datetime) -> bool:
        """Write what was heard, all or nothing; False when it was written before.

        A document that is linked lets those of its study wait again that named nothing of ours: one may name it.
        """
        names = ("state", "reason", "reader", "complete", "verified", "content_at")
        values = {**{n: getattr(heard, n) for n in names}, "replaces": json.dumps(heard.replaces)}
        seen = (t.document.c.key == waiting.key) & (t.document.c.state == DocumentState.WAITING)
        with self._engine.begin() as connection:
            if connection.execute(update(t.document).where(seen).values(**values)).rowcount != 1:
                return False
            connection.execute(delete(t.feedback).where(t.feedback.c.key == waiting.key))
            for job_id, opinions in (heard.opinions or {}).items():
                for opinion in opinions:
                    connection.execute(insert(t.feedback).values(**_fields(waiting.key, job_id, opinion, now)))
            if heard.state is DocumentState.LINKED:
                _wait_again(connection, waiting.study_instance_uid)
        return True

    def answers(self, model: str = "") -> tuple[Answer, ...]:
        """Every opinion that was ever heard, the oldest first."""
        document, feedback, job = t.document.c, t.feedback.c, t.job.c
        query = (
            select(t.document, feedback.job_id, feedback.verdict, feedback.finding, job.model, job.version)
            .join(t.feedback, feedback.key == document.key)
            .join(t.job, job.job_id == feedback.job_id)
            .order_by(func.coalesce(document.content_at, document.received_at), document.received_at, document.key)
        )
        if model:
            query = query.where(job.model == model)
        with self._engine.connect() as connection:
            return tuple(map(_answer, connection.execute(query)))

    def delivered(self, model: str = "") -> dict[tuple[str, str], int]:
        """How many studies have a result at some destination, by model and version."""
        query = (
            select(t.job.c.model, t.job.c.version, func.count(distinct(t.job.c.study_instance_uid)).label("studies"))
            .join(t.delivery, t.delivery.c.job_id == t.job.c.job_id)
            .where(t.delivery.c.state == DeliveryState.DELIVERED)
            .group_by(t.job.c.model, t.job.c.version)
        )
        if model:
            query = query.where(t.job.c.model == model)
        with self._engine.connect() as connection:
            return {(row.model, row.version): row.studies for row in connection.execute(query)}

    def states(self) -> dict[str, int]:
        """How many documents stand in each state."""
        query = select(t.document.c.state, func.count().label("documents")).group_by(t.document.c.state)
        with self._engine.connect() as connection:
            return {row.state: row.documents for row in connection.execute(query)}

    def documents(self, study_instance_uid: str) -> tuple[tuple[str, str], ...]:
        """State and reason of each document of a study, in the order of arrival."""
        query = (
            select(t.document.c.state, t.document.c.reason)
            .where(t.document.c.study_instance_uid == study_instance_uid)
            .order_by(t.document.c.received_at, t.document.c.key)
        )
        with self._engine.connect() as connection:
            return tuple((row.state, row.reason) for row in connection.execute(query))


_COPIED = (
    *("key", "sop_instance_uid", "study_instance_uid", "sop_class_uid", "patient_key", "size_bytes", "received_at"),
)


def _wait_again(connection: Connection, study_instance_uid: str) -> None:
    same = t.document.c.study_instance_uid == study_instance_uid
    unrelated = t.document.c.state == DocumentState.UNRELATED
    connection.execute(update(t.document).where(same & unrelated).values(state=DocumentState.WAITING))


def _fields(key: str, job_id: str, opinion: Opinion, now: datetime) -> dict[str, Any]:
    return {
        "key": key,
        "job_id": job_id,
        "verdict": opinion.verdict,
        "finding": opinion.finding[:200],
        "subject": opinion.subject[:64],
        "detail": json.dumps(dict(opinion.detail), sort_keys=True),
        "at": now,
    }


def _answer(row: Any) -> Answer:
    return Answer(
        document=row.key,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        study_instance_uid=row.study_instance_uid,
        job_id=row.job_id,
        model=row.model,
        version=row.version,
        reader=row.reader,
        at=row.content_at or row.received_at,
        replaces=tuple(json.loads(row.replaces)),
        verdict=Verdict(row.verdict),
        finding=row.finding,
    )
