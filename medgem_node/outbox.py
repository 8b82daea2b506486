"""Sending: each destination gets what it does not have yet, and what became of each object is noted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from medgem_node import part10
from medgem_node.config import DeliverySection
from medgem_node.errors import DeliveryFailed, MedgemError, Refused
from medgem_node.job import Delivery, DeliveryState
from medgem_node.ledger.ledger import Ledger
from medgem_node.seams import Destination, Store

log = logging.getLogger(__name__)


def send_batch(
    batch: Sequence[Delivery],
    destinations: Mapping[str, Destination],
    archive: Store,
    ledger: Ledger,
    options: DeliverySection,
    now: datetime,
) -> tuple[int, str]:
    """Send the objects of one job to one destination; how many arrived, and why the others did not.

    A crash after the peer's success and before the ledger sends the same bytes under the same UIDs once more.
    """
    name = batch[0].destination
    delivered = frozenset(d.sop_instance_uid for d in batch)
    reason, otherwise = "", DeliveryState.PENDING
    try:
        if name not in destinations:
            raise DeliveryFailed(f'destination "{name}" is no longer configured')
        destinations[name].send([part10.decode(archive.get(d.key)) for d in batch])
    except Refused as exc:
        delivered, reason, otherwise = exc.delivered, str(exc), DeliveryState.REFUSED
    except DeliveryFailed as exc:
        delivered, reason = exc.delivered, str(exc)
    except MedgemError as exc:
        delivered, reason = frozenset(), str(exc)
    except Exception as exc:  # an edge: one batch in trouble backs off and lets the others by
        delivered, reason = frozenset(), f"unexpected {type(exc).__name__}"
    if reason:
        log.warning("job %s: %s: %s", batch[0].job_id, name, reason)
    for delivery in batch:
        if delivery.sop_instance_uid in delivered:
            ledger.move_delivery(delivery, DeliveryState.DELIVERED, due_at=now)
        else:
            due_at = now + back_off(delivery.attempts, options)
            ledger.move_delivery(delivery, otherwise, due_at=due_at, reason=reason)
    return len(delivered), reason


def back_off(attempts: int, options: DeliverySection) -> timedelta:
    """The pause before the next try: it doubles up to a cap."""
    seconds = options.first_retry_seconds * 2 ** min(attempts, 30)
    return timedelta(seconds=min(seconds, options.longest_retry_seconds))
