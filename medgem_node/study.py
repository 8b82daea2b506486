"""What a PACS sends: instances, grouped into series and studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class StudyState(StrEnum):
    """Where a study stands on its path; see `TRANSITIONS` for what may follow what."""

    RECEIVING = "receiving"  # instances still arrive, or the quiet time is not over
    COMPLETE = "complete"  # quiet for as long as its rule asks
    ROUTED = "routed"  # a rule chose a model
    PREPARED = "prepared"  # de-identified copies lie in the exchange, jobs are open
    UNMATCHED = "unmatched"  # no rule matched: nothing leaves
    HELD = "held"  # something forbids to go on; the reason says what


TRANSITIONS: dict[StudyState, frozenset[StudyState]] = {
    StudyState.RECEIVING: frozenset({StudyState.COMPLETE}),
    StudyState.COMPLETE: frozenset({StudyState.ROUTED, StudyState.UNMATCHED, StudyState.HELD, StudyState.RECEIVING}),
    StudyState.ROUTED: frozenset({StudyState.PREPARED, StudyState.HELD, StudyState.RECEIVING}),
    StudyState.PREPARED: frozenset({StudyState.RECEIVING}),
    StudyState.UNMATCHED: frozenset({StudyState.RECEIVING}),
    StudyState.HELD: frozenset({StudyState.RECEIVING}),
}
"""A late or changed instance takes a study back to RECEIVING, and its next revision begins."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One composite SOP instance, as it was received and kept.

    `revision` counts the different contents that were received under one SOP Instance UID, from 1.
    `patient_key` is a keyed digest of the patient's identifier: equal for equal patients, and no identity.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    modality: str
    patient_key: str
    key: str
    sha256: str
    size_bytes: int
    calling_ae: str
    called_ae: str
    received_at: datetime
    revision: int = 1


@dataclass(frozen=True, slots=True)
class Series:
    """The instances of one Series Instance UID."""

    series_instance_uid: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """One study as the ledger knows it; `revision` counts how often it became complete."""

    study_instance_uid: str
    state: StudyState
    revision: int
    received_at: datetime
    instances: tuple[Instance, ...] = ()
    rule: str = ""
    reason: str = ""

    @property
    def called_ae(self) -> str:
        """The AE title that the sender called, of the instance that came last."""
        return max(self.instances, key=lambda i: i.received_at).called_ae if self.instances else ""

    @property
    def series(self) -> tuple[Series, ...]:
        """The instances by series, in the order of their arrival."""
        by_uid: dict[str, list[Instance]] = {}
        for instance in self.instances:
            by_uid.setdefault(instance.series_instance_uid, []).append(instance)
        return tuple(Series(uid, tuple(found)) for uid, found in by_uid.items())

    def is_quiet(self, now: datetime, quiet_seconds: float) -> bool:
        """Whether nothing came for `quiet_seconds`."""
        elapsed_seconds = (now - self.received_at).total_seconds()
        return elapsed_seconds >= quiet_seconds or elapsed_seconds < -60  # a clock that was set back must not hold it

    def mixes_patients(self) -> bool:
        """Whether its instances, as they are now, name more than one patient: then no result may be written."""
        return len({i.patient_key for i in newest(self.instances)}) > 1


def newest(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Of each SOP Instance UID the latest revision only, in the order of arrival."""
    latest: dict[str, Instance] = {}
    for instance in sorted(instances, key=lambda i: i.revision):
        latest[instance.sop_instance_uid] = instance
    return tuple(sorted(latest.values(), key=lambda i: (i.received_at, i.sop_instance_uid)))
