"""The audit trail: append-only, each entry chained to the one before by its hash (events of PS3.15 A.5).

Unlike the log it may name a study, so it stays in the database, behind the same protection as the images.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.engine import Engine

from medgem_node.ledger.tables import audit as table

FIRST = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One event: what, to which study or job, how."""

    sequence: int
    at: datetime
    event: str
    subject: str
    detail: str
    previous: str
    digest: str


class Audit:
    """Writes and checks the trail. `engine` begins writing transactions at once, so two writers take turns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, event: str, subject: str, now: datetime, **detail: object) -> None:
        """Append one event."""
        text = json.dumps(detail, sort_keys=True, default=str)
        with self._engine.begin() as connection:
            last = connection.execute(
                select(table.c.sequence, table.c.digest).order_by(table.c.sequence.desc()).limit(1)
            ).one_or_none()
            sequence, previous = (last.sequence + 1, last.digest) if last else (1, FIRST)
            digest = _digest(sequence, now, event, subject, text, previous)
            fields = {"sequence": sequence, "at": now, "event": event, "subject": subject}
            connection.execute(insert(table).values(**fields, detail=text, previous=previous, digest=digest))

    def entries(self, subject: str = "") -> tuple[Entry, ...]:
        """The events, of one subject or all, oldest first."""
        query = select(table).order_by(table.c.sequence)
        if subject:
            query = query.where(table.c.subject == subject)
        with self._engine.connect() as connection:
            return tuple(Entry(**row._mapping) for row in connection.execute(query))

    def broken_at(self) -> int | None:
        """The sequence number of the first entry that was altered, taken out or put in; None when all is whole."""
        previous = FIRST
        for expected, e in enumerate(self.entries(), 1):
            digest = _digest(e.sequence, e.at, e.event, e.subject, e.detail, e.previous)
            if (e.sequence, e.previous, e.digest) != (expected, previous, digest):
                return expected
            previous = e.digest
        return None


def _digest(sequence: int, at: datetime, event: str, subject: str, detail: str, previous: str) -> str:
    text = "\x1f".join((str(sequence), at.isoformat(), event, subject, detail, previous))
    return hashlib.sha256(text.encode()).hexdigest()
