"""Deliveries inside a transaction of the ledger: what is open, what takes the place of what, and when a job ends."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, func, insert, select, update

from medgem_node.job import Delivery, DeliveryState, JobState
from medgem_node.ledger import tables as t
from medgem_node.viewer_profile import ViewerProfile


def move_delivery(connection: Connection, seen: Delivery, state: DeliveryState, due_at: datetime, reason: str) -> None:
    """Note how a delivery went."""
    statement = update(t.delivery).where(t.delivery.c.delivery_id == seen.delivery_id)
    connection.execute(statement.values(state=state, due_at=due_at, reason=reason, attempts=seen.attempts + 1))


def open_replacements(connection: Connection, refused: Delivery, now: datetime) -> tuple[str, ...]:
    """Open what a destination gets in place of a refused object; the kinds that were not open before.

    One refused object of a kind is enough: the replacement takes the place of all of them.
    """
    profile = connection.scalar(select(t.job.c.profile).where(t.job.c.job_id == refused.job_id))
    if not profile:
        return ()
    of_job = select(t.result.c.sop_instance_uid, t.result.c.kind).where(t.result.c.job_id == refused.job_id)
    kind_by_uid = {row.sop_instance_uid: row.kind for row in connection.execute(of_job)}
    here = select(t.delivery.c.sop_instance_uid, t.delivery.c.state).where(
        t.delivery.c.job_id == refused.job_id, t.delivery.c.destination == refused.destination
    )
    state_by_uid = {row.sop_instance_uid: row.state for row in connection.execute(here)}
    refused_kinds = {kind_by_uid[uid] for uid, state in state_by_uid.items() if state == DeliveryState.REFUSED}
    spares = ViewerProfile.from_json(profile).replacements(refused_kinds, set(kind_by_uid.values())).values()
    uids = [uid for uid, kind in kind_by_uid.items() if kind in spares and uid not in state_by_uid]
    open_deliveries(connection, refused.job_id, uids, refused.destination, now)
    return tuple(dict.fromkeys(kind_by_uid[uid] for uid in uids))


def open_deliveries(
    connection: Connection, job_id: str, sop_instance_uids: Collection[str], destination: str, now: datetime
) -> None:
    """Let a destination have these objects."""
    for sop_instance_uid in sop_instance_uids:
        connection.execute(
            insert(t.delivery).values(
                sop_instance_uid=sop_instance_uid,
                job_id=job_id,
                destination=destination,
                state=DeliveryState.PENDING,
                attempts=0,
                due_at=now,
            )
        )


def end_job(connection: Connection, job_id: str) -> None:
    """A published job is done when nothing of it waits."""
    pending = (t.delivery.c.job_id == job_id) & (t.delivery.c.state == DeliveryState.PENDING)
    if not connection.scalar(select(func.count()).select_from(t.delivery).where(pending)):
        published = (t.job.c.job_id == job_id) & (t.job.c.state == JobState.PUBLISHED)
        connection.execute(update(t.job).where(published).values(state=JobState.DONE))
