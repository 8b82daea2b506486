"""Sending: each destination gets what it does not have yet, and what became of each object is noted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from medgem_node import part10
from medgem_node.config import DeliverySection
from medgem_node.errors import DeliveryFailed, MedgemError, Refused
from medgem_node.job import Delivery, DeliveryState
from medgem_node.ledger.ledger import Ledger
from medgem_node.seams import Destination, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """How many objects arrived, and why the others did not; which kinds go out in place of the refused ones."""

    delivered: int
    reason: str = ""
    refused: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether the destination should be left in peace: one that refuses does answer."""
        return bool(self.reason) and not self.delivered and not self.refused


def send_batch(
    batch: Sequence[Delivery],
    destinations: Mapping[str, Destination],
    archive: Store,
    ledger: Ledger,
    options: DeliverySection,
    now: datetime,
) -> Sent:
    """Send the objects of one job to one destination; what it refuses is replaced as the job's profile says.

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
    refused: list[str] = []
    instead: list[str] = []
    for delivery in sorted(batch, key=lambda d: d.sop_instance_uid not in delivered):  # what arrived is noted first
        if delivery.sop_instance_uid in delivered:
            ledger.move_delivery(delivery, DeliveryState.DELIVERED, due_at=now)
        elif otherwise is DeliveryState.REFUSED:
            refused.append(delivery.kind or "object")
            instead += ledger.refuse(delivery, due_at=now, reason=reason)
        else:
            ledger.move_delivery(delivery, otherwise, due_at=now + back_off(delivery.attempts, options), reason=reason)
    return Sent(len(delivered), reason, tuple(dict.fromkeys(refused)), tuple(dict.fromkeys(instead)))


def back_off(attempts: int, options: DeliverySection) -> timedelta:
    """The pause before the next try: it doubles up to a cap."""
    seconds = options.first_retry_seconds * 2 ** min(attempts, 30)
    return timedelta(seconds=min(seconds, options.longest_retry_seconds))
