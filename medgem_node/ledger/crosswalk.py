"""Who stands behind a pseudonym, for whoever may know: encrypted at rest, every question in the audit trail.

Each patient has a random data key, which is kept encrypted under a key of the ring. Originals are encrypted under the
data key (AES-256-GCM, bound to their row) and found by a keyed digest; pseudonyms are in clear. To erase a patient is
to destroy the data key, the digests and the ciphertexts. That does not reach backups, the archive, or whoever has the
node's key and the originals: pseudonyms are made from those two, and can be made again.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, Row, Select, func, insert, select, update
from sqlalchemy.engine import Engine

from medgem_node.errors import ConfigError, MedgemError
from medgem_node.ledger.tables import crosswalk as table
from medgem_node.ledger.tables import crosswalk_patient as patients

log = logging.getLogger(__name__)

_NONCE_BYTES = 12
_MANY = 500
_NOBODY = "crosswalk"  # subject of an event about nobody in particular


class AlteredRow(MedgemError):
    """A row of the crosswalk is not as it was written."""


class Kind(StrEnum):
    """What a pseudonym stands for."""

    PATIENT = "patient"
    ACCESSION = "accession"
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"
    UID = "uid"  # any other: frames of reference, objects that are referred to


class Keys(Protocol):
    """Secrets by purpose and epoch; `epoch` is the newest."""

    @property
    def epoch(self) -> int:
        """The epoch of what is written now."""

    def secret(self, purpose: str, epoch: int) -> bytes:
        """32 bytes, the same each time."""


class RecordEvent(Protocol):
    """Writes an entry into the audit trail."""

    def __call__(self, event: str, subject: str, now: datetime, **detail: object) -> None:
        """Durable when it returns."""


@dataclass(frozen=True, slots=True)
class Link:
    """A pseudonym and its original; `days` by which dates are shifted, where a profile lets them stay."""

    kind: Kind
    pseudonym: str
    original: str = field(repr=False)
    issuer: str = field(default="", repr=False)
    days: int | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """A link as it was recorded; one that was erased has no original."""

    link: Link
    epoch: int
    recorded_at: datetime
    erased_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """Who asks, why and when; both are written into the trail. Raises ConfigError without a reason or a name."""

    who: str
    reason: str
    now: datetime

    def __post_init__(self) -> None:
        if not (self.who.strip() and self.reason.strip()):
            raise ConfigError("the crosswalk answers only to somebody with a name and a reason")


class Crosswalk:
    """The crosswalk in the ledger's database. `engine` is the ledger's, `record_event` writes the audit trail."""

    def __init__(self, engine: Engine, keys: Keys, record_event: RecordEvent) -> None:
        self._write = engine.execution_options(writes=True)
        self._read = engine.execution_options(writes=False)
        self._keys = keys
        self._masters: dict[int, bytes] = {}
        self._index = keys.secret("crosswalk digests", 1)
        self._record_event = record_event

    def record(self, patient_key: str, links: Sequence[Link], epoch: int, now: datetime) -> int:
        """Know what left of a patient in an epoch, all or nothing; how many links are new. Safe to call twice.

        Of a link that is known, what is new are its `days`: an earlier profile may have removed all dates.
        `patient_key` is the ledger's digest of the patient: whom `erase` erases. Raises ConfigError if the patient's
        data key is of another ring.
        """
        with self._write.begin() as connection:
            number, data_key = self._patient(connection, patient_key)
            given = {(link.kind, link.pseudonym): link for link in links if link.pseudonym}
            known = _known(connection, number, epoch, [pseudonym for _, pseudonym in given])
            new = [link for name, link in given.items() if name not in known]
            rows = [self._row(link, number, epoch, data_key, now) for link in new]
            for n in range(0, len(rows), _MANY):
                connection.execute(insert(table), rows[n : n + _MANY])
            for name in (name for name in known & given.keys() if given[name].days is not None):
                row = self._row(given[name], number, epoch, data_key, now)
                same = [table.c[key] == row[key] for key in ("patient_number", "kind", "epoch", "pseudonym")]
                connection.execute(update(table).where(*same).values(original=row["original"]))
        return len(new)

    def original_of(self, pseudonym: str, access: Access) -> Entry | None:
        """What a pseudonym stands for, of any kind and epoch; None if it is not known. Audited."""
        with self._read.connect() as connection:
            rows = connection.execute(_entries().where(table.c.pseudonym == pseudonym)).all()
        self._note("crosswalk asked for an original", access, pseudonym if rows else "", found=len(rows))
        # who was erased and came again has two rows; one that is referred to may be an object of its own
        return max(map(self._entry, rows), key=_worth, default=None)

    def pseudonyms_of(self, original: str, access: Access, issuer: str = "") -> tuple[Entry, ...]:
        """What stands for a patient ID (with its issuer), accession number or UID, the newest epoch first. Audited."""
        digests = [
            self._digest(domain, original, issuer if domain == Kind.PATIENT else "")
            for domain in (Kind.PATIENT, Kind.ACCESSION, Kind.UID)
        ]
        query = _entries().where(table.c.digest.in_(digests)).order_by(table.c.epoch.desc(), table.c.crosswalk_id)
        with self._read.connect() as connection:
            rows = connection.execute(query).all()
        self._note("crosswalk asked for a pseudonym", access, rows[0].pseudonym if rows else "", found=len(rows))
        return tuple(map(self._entry, rows))

    def export(self, access: Access) -> Iterator[Entry]:
        """Every link, oldest first; those that were erased without their originals. Audited before the first."""
        with self._read.connect() as connection:
            last: int = connection.scalar(select(func.max(table.c.crosswalk_id))) or 0
            count = connection.scalar(select(func.count()).select_from(table))
        self._note("crosswalk exported", access, "", rows=count)
        return self._exported(last)

    def erase(self, access: Access, patient_key: str = "", pseudonym: str = "") -> int | None:
        """Make everything of a patient unreadable for ever; how many links, or None for an unknown patient. Audited.

        The patient is whose key, or else whose pseudonym it is. The trail comes first: after a crash between the two,
        call it again. Raises ConfigError for a pseudonym of two patients.
        """
        with self._read.connect() as connection:
            number = self._number(connection, patient_key, pseudonym)
            count = connection.scalar(select(func.count()).where(table.c.patient_number == number))
        self._note("crosswalk erased a patient", access, f"patient {number}" if number else "", rows=count or 0)
        if number is None:
            return None
        links = update(table).where(table.c.patient_number == number)
        whose = update(patients).where(patients.c.patient_number == number)
        with self._write.begin() as connection:
            connection.execute(links.values(digest=None, original=None))
            connection.execute(whose.values(digest=None, wrapped_key=None, erased_at=access.now))
        self._wipe()
        return count

    def rewrap(self, access: Access) -> int:
        """Encrypt every data key under the newest epoch's key; how many were not. Audited, safe to interrupt."""
        self._note("crosswalk keys renewed", access, "", epoch=self._keys.epoch)
        older = (patients.c.key_epoch < self._keys.epoch) & patients.c.wrapped_key.is_not(None)
        renewed = 0
        while True:
            with self._write.begin() as connection:
                rows = connection.execute(select(patients).where(older).limit(_MANY).with_for_update()).all()
                for row in rows:
                    same = patients.c.patient_number == row.patient_number
                    data_key = self._data_key(row.wrapped_key, row.key_epoch, row.digest)
                    connection.execute(update(patients).where(same).values(**self._wrapped(data_key, row.digest)))
            renewed += len(rows)
            if not rows:
                return renewed

    def _patient(self, connection: Connection, patient_key: str) -> tuple[int, bytes]:
        """Number and data key of a patient, who is entered when he is not known."""
        digest = self._digest("whose", patient_key)
        query = select(patients).where(patients.c.digest == digest).with_for_update()
        if row := connection.execute(query).one_or_none():
            return row.patient_number, self._data_key(row.wrapped_key, row.key_epoch, digest)
        data_key = secrets.token_bytes(32)
        made = connection.execute(insert(patients).values(digest=digest, **self._wrapped(data_key, digest)))
        assert made.inserted_primary_key is not None
        return made.inserted_primary_key.patient_number, data_key

    def _number(self, connection: Connection, patient_key: str, pseudonym: str) -> int | None:
        if patient_key:
            whose = patients.c.digest == self._digest("whose", patient_key)
            number: int | None = connection.scalar(select(patients.c.patient_number).where(whose))
            return number
        of = (table.c.pseudonym == pseudonym) & table.c.original.is_not(None)
        rows = connection.execute(select(table.c.patient_number, table.c.kind).where(of)).all()
        numbers = {r.patient_number for r in rows if r.kind != Kind.UID} or {r.patient_number for r in rows}
        if len(numbers) > 1:
            raise ConfigError("that pseudonym is of more than one patient; name the patient by his identifier")
        return numbers.pop() if numbers else None

    def _exported(self, last: int) -> Iterator[Entry]:
        at = 0
        while at < last:  # in portions: no transaction stays open while somebody reads
            some = (table.c.crosswalk_id > at) & (table.c.crosswalk_id <= last)
            with self._read.connect() as connection:
                rows = connection.execute(_entries().where(some).order_by(table.c.crosswalk_id).limit(_MANY)).all()
            yield from map(self._entry, rows)
            at = rows[-1].crosswalk_id if rows else last

    def _row(self, link: Link, number: int, epoch: int, data_key: bytes, now: datetime) -> dict[str, Any]:
        text = json.dumps([link.original, link.issuer, link.days]).encode()
        return {
            "patient_number": number,
            "kind": link.kind,
            "epoch": epoch,
            "pseudonym": link.pseudonym,
            "digest": self._digest(_DOMAINS.get(link.kind, Kind.UID), link.original, link.issuer),
            "original": _sealed(data_key, text, _place(number, link.kind, epoch, link.pseudonym)),
            "recorded_at": now,
        }

    def _entry(self, row: Row[Any]) -> Entry:
        link = Link(Kind(row.kind), row.pseudonym, "")
        if row.wrapped_key is not None and row.original is not None:
            place = _place(row.patient_number, row.kind, row.epoch, row.pseudonym)
            try:
                text = _opened(self._data_key(row.wrapped_key, row.key_epoch, row.whose), row.original, place)
            except InvalidTag:
                raise AlteredRow(f"row {row.crosswalk_id} of the crosswalk is not as it was written") from None
            link = Link(link.kind, link.pseudonym, *json.loads(text))
        return Entry(link, row.epoch, row.recorded_at, row.erased_at)

    def _data_key(self, wrapped_key: bytes, epoch: int, whose: str) -> bytes:
        try:
            return _opened(self._master(epoch), wrapped_key, f"data key|{whose}|{epoch}")
        except InvalidTag:
            raise ConfigError(
                "the crosswalk was written under another key than the node has; restore its key from the backup"
            ) from None

    def _wrapped(self, data_key: bytes, digest: str) -> dict[str, Any]:
        epoch = self._keys.epoch
        sealed = _sealed(self._master(epoch), data_key, f"data key|{digest}|{epoch}")
        return {"wrapped_key": sealed, "key_epoch": epoch}

    def _master(self, epoch: int) -> bytes:
        if epoch not in self._masters:
            self._masters[epoch] = self._keys.secret("crosswalk", epoch)
        return self._masters[epoch]

    def _digest(self, domain: str, *values: str) -> str:
        fields = [value.encode("utf-8", "surrogateescape") for value in (domain, *values)]
        message = b"".join(len(f).to_bytes(4, "big") + f for f in fields)
        return hmac.digest(self._index, message, "sha256")[:16].hex()

    def _note(self, event: str, access: Access, subject: str, **detail: object) -> None:
        """What was asked for in vain is not written: it may be an identifier that somebody mistook for a pseudonym."""
        self._record_event(event, subject or _NOBODY, access.now, who=access.who, reason=access.reason, **detail)

    def _wipe(self) -> None:
        """Let SQLite's log, where older pages still hold what was erased, be written back and cut off."""
        if self._write.dialect.name == "sqlite":
            connection = self._write.raw_connection()
            try:
                is_busy, *_ = connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.close()
            if is_busy:
                log.warning("somebody reads the ledger: what was erased stands in its -wal file until the node stops")


_DOMAINS = {Kind.PATIENT: Kind.PATIENT, Kind.ACCESSION: Kind.ACCESSION}  # every other kind is a UID, and sought as one


def _entries() -> Select[Any]:
    whose = (patients.c.wrapped_key, patients.c.key_epoch, patients.c.digest.label("whose"), patients.c.erased_at)
    return select(table, *whose).join(patients, patients.c.patient_number == table.c.patient_number)


def _known(connection: Connection, number: int, epoch: int, pseudonyms: Sequence[str]) -> set[tuple[Kind, str]]:
    of_patient = (table.c.patient_number == number) & (table.c.epoch == epoch)
    known: set[tuple[Kind, str]] = set()
    for n in range(0, len(pseudonyms), _MANY):
        some = table.c.pseudonym.in_(pseudonyms[n : n + _MANY])
        rows = connection.execute(select(table.c.kind, table.c.pseudonym).where(of_patient & some))
        known.update((Kind(row.kind), row.pseudonym) for row in rows)
    return known


def _worth(entry: Entry) -> tuple[bool, bool, int]:
    return entry.erased_at is None, entry.link.kind is not Kind.UID, entry.epoch


def _place(patient_number: int, kind: str, epoch: int, pseudonym: str) -> str:
    """What an original is bound to, so that it is not read in another row."""
    return f"original|{patient_number}|{kind}|{epoch}|{pseudonym}"


def _sealed(key: bytes, content: bytes, place: str) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, place.encode())


def _opened(key: bytes, sealed: bytes, place: str) -> bytes:
    return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
