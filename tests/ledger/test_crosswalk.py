import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from medgem_node.audit import Audit
from medgem_node.deid.keyring import KeyRing
from medgem_node.errors import ConfigError
from medgem_node.ledger import tables as t
from medgem_node.ledger.crosswalk import Access, AlteredRow, Crosswalk, Kind, Link
from medgem_node.ledger.ledger import Ledger

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ASKING = Access("radiologist", "the referring physician called", NOON)
PATIENT = Link(Kind.PATIENT, "29digits", "ZQ-448812", "OLDTOWN", days=-400)
ACCESSION = Link(Kind.ACCESSION, "16digits", "ACC9917733")
STUDY = Link(Kind.STUDY, "2.25.1", "1.2.826.1", days=-400)
INSTANCE = Link(Kind.INSTANCE, "2.25.2", "1.2.826.1.2")
STUDY_LINKS = (PATIENT, ACCESSION, STUDY, INSTANCE)
OTHERS = (Link(Kind.PATIENT, "other29", "AB-1"), Link(Kind.STUDY, "2.25.9", "1.2.826.9"))


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.open(tmp_path / "pseudonym.key")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
def audit(ledger: Ledger) -> Audit:
    return Audit(ledger.engine)


@pytest.fixture
def crosswalk(ledger: Ledger, ring: KeyRing, audit: Audit) -> Crosswalk:
    return Crosswalk(ledger.engine, ring, audit.record)


def stored(folder: Path) -> bytes:
    """All that the database has on the disk."""
    return b"".join(path.read_bytes() for path in sorted(folder.glob("ledger.sqlite*")))


def test_what_was_recorded_is_found_from_both_sides(crosswalk: Crosswalk) -> None:
    assert crosswalk.record("key of Z", STUDY_LINKS, 1, NOON) == 4

    for link in STUDY_LINKS:
        found = crosswalk.original_of(link.pseudonym, ASKING)
        assert found is not None
        assert (found.link, found.epoch, found.recorded_at, found.erased_at) == (link, 1, NOON, None)
        assert [e.link for e in crosswalk.pseudonyms_of(link.original, ASKING, link.issuer)] == [link]


def test_what_was_never_recorded_is_not_found(crosswalk: Crosswalk) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)

    assert crosswalk.original_of("2.25.77", ASKING) is None
    assert crosswalk.pseudonyms_of("ZQ-448812", ASKING) == ()  # of another issuer
    assert crosswalk.pseudonyms_of("1.2.826", ASKING) == ()


def test_recording_twice_is_recording_once(crosswalk: Crosswalk) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    more = Link(Kind.INSTANCE, "2.25.3", "1.2.826.1.3")

    assert crosswalk.record("key of Z", (*STUDY_LINKS, more, more), 1, NOON + timedelta(hours=1)) == 1
    assert len(list(crosswalk.export(ASKING))) == 5


def test_a_shift_that_comes_later_is_entered_and_none_takes_it_away(crosswalk: Crosswalk) -> None:
    for link in (replace(PATIENT, days=None), PATIENT, replace(PATIENT, days=None)):
        crosswalk.record("key of Z", (link,), 1, NOON)

    found = crosswalk.original_of(PATIENT.pseudonym, ASKING)

    assert found is not None
    assert found.link == PATIENT


def test_a_patient_without_an_id_leaves_no_empty_pseudonym(crosswalk: Crosswalk) -> None:
    assert crosswalk.record("key of X", (Link(Kind.PATIENT, "", ""), STUDY), 1, NOON) == 1


def test_each_epoch_has_its_pseudonyms_and_the_newest_comes_first(crosswalk: Crosswalk, ring: KeyRing) -> None:
    crosswalk.record("key of Z", (STUDY,), 1, NOON)
    ring.rotate()
    crosswalk.record("key of Z", (replace(STUDY, pseudonym="2.25.5"),), 2, NOON)

    found = crosswalk.pseudonyms_of(STUDY.original, ASKING)

    assert [(e.epoch, e.link.pseudonym) for e in found] == [(2, "2.25.5"), (1, "2.25.1")]


def test_an_object_that_was_referred_to_and_came_later_is_an_object(crosswalk: Crosswalk) -> None:
    crosswalk.record("key of Z", (replace(INSTANCE, kind=Kind.UID),), 1, NOON)
    crosswalk.record("key of Z", (INSTANCE,), 1, NOON)
    crosswalk.record("key of Y", (replace(INSTANCE, kind=Kind.UID),), 1, NOON)

    found = crosswalk.original_of(INSTANCE.pseudonym, ASKING)

    assert found is not None
    assert found.link == INSTANCE


def test_no_original_stands_on_the_disk_in_clear(crosswalk: Crosswalk, ledger: Ledger, tmp_path: Path) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    ledger.close()

    written = stored(tmp_path)

    assert b"29digits" in written
    for original in (b"ZQ-448812", b"OLDTOWN", b"ACC9917733", b"1.2.826.1", b"key of Z"):
        assert original not in written
    for link in STUDY_LINKS:
        assert link.original not in repr(link)


def test_another_key_reads_nothing_and_says_what_to_restore(crosswalk: Crosswalk, ledger: Ledger) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    other = KeyRing(Path("/nowhere/pseudonym.key"), bytes(range(32)))
    stranger = Crosswalk(ledger.engine, other, Audit(ledger.engine).record)

    with pytest.raises(ConfigError, match="another key than the node has"):
        stranger.original_of(STUDY.pseudonym, ASKING)


def test_an_original_that_was_moved_to_another_row_is_not_read(crosswalk: Crosswalk, ledger: Ledger) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    rows = t.crosswalk.c
    with ledger.engine.begin() as connection:
        moved = connection.scalar(select(rows.original).where(rows.pseudonym == STUDY.pseudonym))
        connection.execute(update(t.crosswalk).where(rows.pseudonym == INSTANCE.pseudonym).values(original=moved))

    with pytest.raises(AlteredRow, match="not as it was written"):
        crosswalk.original_of(INSTANCE.pseudonym, ASKING)


def test_a_data_key_that_was_moved_to_another_patient_opens_nothing(crosswalk: Crosswalk, ledger: Ledger) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    crosswalk.record("key of Y", OTHERS, 1, NOON)
    of = t.crosswalk_patient.c
    with ledger.engine.begin() as connection:
        moved = connection.scalar(select(of.wrapped_key).where(of.patient_number == 1))
        connection.execute(update(t.crosswalk_patient).where(of.patient_number == 2).values(wrapped_key=moved))

    with pytest.raises(ConfigError):
        crosswalk.original_of("other29", ASKING)


def test_every_question_is_in_the_trail_with_who_and_why(crosswalk: Crosswalk, audit: Audit) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)

    crosswalk.original_of("2.25.1", ASKING)
    crosswalk.original_of("ZQ-448812", ASKING)  # a patient's ID where a pseudonym was asked for
    crosswalk.pseudonyms_of("1.2.826.1", ASKING)
    crosswalk.export(ASKING)  # before its first row is read
    crosswalk.rewrap(ASKING)
    crosswalk.erase(ASKING, "key of Z")

    entries = audit.entries()
    assert [(e.event, e.subject) for e in entries] == [
        ("crosswalk asked for an original", "2.25.1"),
        ("crosswalk asked for an original", "crosswalk"),
        ("crosswalk asked for a pseudonym", "2.25.1"),
        ("crosswalk exported", "crosswalk"),
        ("crosswalk keys renewed", "crosswalk"),
        ("crosswalk erased a patient", "patient 1"),
    ]
    for entry in entries:
        detail = json.loads(entry.detail)
        assert (detail["who"], detail["reason"]) == ("radiologist", "the referring physician called")
        assert "ZQ-448812" not in entry.detail + entry.subject
    assert audit.broken_at() is None


@pytest.mark.parametrize(("who", "reason"), [("radiologist", " "), ("", "why not")])
def test_nobody_is_answered_without_a_name_and_a_reason(who: str, reason: str) -> None:
    with pytest.raises(ConfigError, match="a name and a reason"):
        Access(who, reason, NOON)


def test_nothing_is_told_when_the_trail_cannot_be_written(ledger: Ledger, ring: KeyRing) -> None:
    def full(event: str, subject: str, now: datetime, **detail: object) -> None:
        raise OSError("disk full")

    crosswalk = Crosswalk(ledger.engine, ring, full)
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)

    for ask in (
        lambda: crosswalk.original_of("2.25.1", ASKING),
        lambda: crosswalk.pseudonyms_of("1.2.826.1", ASKING),
        lambda: crosswalk.export(ASKING),
        lambda: crosswalk.erase(ASKING, "key of Z"),
    ):
        with pytest.raises(OSError, match="disk full"):
            ask()
    told = Crosswalk(ledger.engine, ring, lambda *_, **__: None).original_of("2.25.1", ASKING)
    assert told is not None
    assert told.link == STUDY


def test_an_erased_patient_is_unreadable_and_said_to_be_erased(crosswalk: Crosswalk) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    crosswalk.record("key of Y", OTHERS, 1, NOON)

    assert crosswalk.erase(ASKING, "key of Z") == 4

    found = crosswalk.original_of("29digits", ASKING)
    assert found is not None
    assert (found.link, found.erased_at) == (Link(Kind.PATIENT, "29digits", ""), NOON)
    assert crosswalk.pseudonyms_of("ZQ-448812", ASKING, "OLDTOWN") == ()
    assert [(e.link.original, e.erased_at is None) for e in crosswalk.export(ASKING)] == [
        *[("", False)] * 4,
        ("AB-1", True),
        ("1.2.826.9", True),
    ]


def test_erasing_leaves_neither_data_key_nor_digest_nor_ciphertext_on_the_disk(
    crosswalk: Crosswalk, ledger: Ledger, tmp_path: Path
) -> None:
    """Of 120 patients, so that pages were split and cells moved about."""
    for n in range(120):
        links = tuple(Link(Kind.INSTANCE, f"2.25.{n}.{i}", f"1.2.826.{n}.{i}") for i in range(n % 9 + 1))
        crosswalk.record(f"patient {n}", links, 1, NOON)
    of, rows = t.crosswalk_patient.c, t.crosswalk.c
    erased = (8, 17, 60, 119)
    with ledger.engine.connect() as connection:
        secrets = [
            secret.encode() if isinstance(secret, str) else secret
            for n in erased
            for found in (
                connection.execute(select(of.wrapped_key, of.digest).where(of.patient_number == n + 1)),
                connection.execute(select(rows.original, rows.digest).where(rows.patient_number == n + 1)),
            )
            for row in found
            for secret in row
        ]
    assert all(secret in stored(tmp_path) for secret in secrets)

    for n in erased:
        crosswalk.erase(ASKING, f"patient {n}")

    left = [secret for secret in secrets if secret in stored(tmp_path)]
    assert left == []


def test_whoever_reads_during_an_erasure_delays_it_and_the_log_says_so(
    tmp_path: Path, ring: KeyRing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("medgem_node.ledger.ledger._PRAGMAS", ("journal_mode=WAL", "busy_timeout=50"))
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    crosswalk = Crosswalk(ledger.engine, ring, Audit(ledger.engine).record)
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)

    with sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM crosswalk").fetchone()
        assert crosswalk.erase(ASKING, "key of Z") == 4
    reader.close()

    assert "-wal file" in caplog.text
    ledger.close()


def test_ciphertexts_of_a_backup_are_of_no_use_without_the_erased_key(crosswalk: Crosswalk, ledger: Ledger) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    rows = t.crosswalk.c
    with ledger.engine.connect() as connection:
        kept = connection.scalar(select(rows.original).where(rows.pseudonym == "2.25.1"))
    crosswalk.erase(ASKING, "key of Z")
    crosswalk.record("key of Z", (INSTANCE,), 1, NOON)  # who comes again gets another key

    with ledger.engine.begin() as connection:
        connection.execute(
            update(t.crosswalk).where(rows.pseudonym == "2.25.1").values(original=kept, patient_number=2)
        )

    with pytest.raises(AlteredRow):
        crosswalk.original_of("2.25.1", ASKING)


def test_who_comes_again_after_an_erasure_is_recorded_anew(crosswalk: Crosswalk) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    crosswalk.erase(ASKING, "key of Z")

    assert crosswalk.record("key of Z", (STUDY,), 1, NOON) == 1

    found = crosswalk.original_of(STUDY.pseudonym, ASKING)
    assert found is not None
    assert found.link == STUDY
    assert crosswalk.erase(ASKING, pseudonym=STUDY.pseudonym) == 1


def test_a_patient_is_erased_by_a_pseudonym_too(crosswalk: Crosswalk) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    crosswalk.record("key of Y", (replace(STUDY, kind=Kind.UID),), 1, NOON)  # only refers to it

    assert crosswalk.erase(ASKING, pseudonym=STUDY.pseudonym) == 4
    assert crosswalk.erase(ASKING, pseudonym="2.25.77") is None
    assert crosswalk.erase(ASKING, "key of nobody") is None
    assert crosswalk.erase(ASKING) is None


def test_a_pseudonym_of_two_patients_erases_neither(crosswalk: Crosswalk) -> None:
    crosswalk.record("key of Z", (STUDY,), 1, NOON)
    crosswalk.record("key of Y", (STUDY,), 1, NOON)

    with pytest.raises(ConfigError, match="more than one patient"):
        crosswalk.erase(ASKING, pseudonym=STUDY.pseudonym)


def test_after_a_rotation_the_data_keys_are_under_the_new_key(
    crosswalk: Crosswalk, ledger: Ledger, ring: KeyRing
) -> None:
    crosswalk.record("key of Z", STUDY_LINKS, 1, NOON)
    crosswalk.record("key of Y", OTHERS, 1, NOON)
    crosswalk.erase(ASKING, "key of Y")
    ring.rotate()

    assert crosswalk.rewrap(ASKING) == 1
    assert crosswalk.rewrap(ASKING) == 0

    found = crosswalk.original_of("29digits", ASKING)
    assert found is not None
    assert found.link == PATIENT
    with ledger.engine.connect() as connection:
        epochs = connection.execute(
            select(t.crosswalk_patient.c.key_epoch).order_by(t.crosswalk_patient.c.patient_number)
        )
        assert [row.key_epoch for row in epochs] == [2, 1]
    assert crosswalk.record("key of Z", (Link(Kind.SERIES, "2.25.8", "1.2.826.1.1"),), 2, NOON) == 1


def test_an_export_of_many_rows_is_whole(crosswalk: Crosswalk, ledger: Ledger) -> None:
    links = [Link(Kind.INSTANCE, f"2.25.{n}", f"1.2.826.{n}") for n in range(1203)]
    crosswalk.record("key of Z", links, 1, NOON)

    exported = crosswalk.export(ASKING)
    crosswalk.record("key of Z", (STUDY,), 1, NOON)  # after the question

    assert [e.link for e in exported] == links
    with ledger.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(t.crosswalk)) == 1204


def test_text_that_is_no_unicode_comes_back_as_it_was(crosswalk: Crosswalk) -> None:
    link = Link(Kind.PATIENT, "29digits", 'M\udcffller|"\\\x1b王', "小")

    crosswalk.record("key of Z", (link,), 1, NOON)

    found = crosswalk.original_of("29digits", ASKING)
    assert found is not None
    assert found.link == link
    assert [e.link for e in crosswalk.pseudonyms_of(link.original, ASKING, link.issuer)] == [link]


def test_postgresql_has_types_for_every_column() -> None:
    for table in (t.crosswalk, t.crosswalk_patient):
        made = str(CreateTable(table).compile(dialect=postgresql.dialect()))

        assert "BYTEA" in made
        assert "SERIAL" in made
