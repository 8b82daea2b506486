"""Durable, then known, then acknowledged: whatever fails in between, nothing is lost and nothing is taken twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from harness import wire
from pydicom import Dataset

from medgem_node import part10, testing
from medgem_node.dimse.scp import Received
from medgem_node.errors import NotUnderstood, OutOfResources
from medgem_node.inbox import Inbox, Mismatch
from medgem_node.ledger.ledger import Ledger
from medgem_node.node import Node
from medgem_node.study import Instance, StudyState

AT = datetime(2026, 3, 1, 10, 15, tzinfo=UTC)


def film(**attributes: Any) -> Dataset:
    return testing.dx_instance(testing.chest_film(rows=64, columns=64), **attributes)


def received(dataset: Dataset, data: bytes | None = None) -> Received:
    """The request that carries `dataset`, or other bytes in its name."""
    whole, body = part10.encode(dataset), wire.encoded(dataset)
    return Received(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        calling_ae="MODALITY",
        called_ae="MEDGEM",
        header=whole[: len(whole) - len(body)],
        dataset=body if data is None else data,
    )


@pytest.fixture
def inbox(node: Node) -> Inbox:
    return Inbox(node.archive, node.ledger, node.pseudonyms, free_bytes=lambda: 2**40)


def files(inbox: Inbox) -> list[str]:
    return sorted(inbox.archive.keys("studies"))


def known(inbox: Inbox) -> list[Instance]:
    return [instance for study in inbox.ledger.studies() for instance in study.instances]


@dataclass
class Failing:
    """A part of the inbox whose `method` raises the first `times`."""

    part: Any
    method: str
    error: Exception
    times: int = 1
    before: bool = True  # else after it did its work, as a crash between two lines would

    def __getattr__(self, name: str) -> Any:
        real: Callable[..., Any] = getattr(self.part, name)
        return self._fail if name == self.method else real

    def _fail(self, *arguments: Any) -> Any:
        failing, self.times = self.times > 0, self.times - 1
        if failing and self.before:
            raise self.error
        answer = getattr(self.part, self.method)(*arguments)
        if failing:
            raise self.error
        return answer


def test_what_is_acknowledged_is_durable_and_known(inbox: Inbox) -> None:
    sent = received(film())

    instance = inbox.receive(sent, AT)

    assert inbox.archive.get(instance.key) == sent.header + sent.dataset
    assert known(inbox) == [instance]
    assert inbox.ledger.studies()[0].state is StudyState.RECEIVING


def test_it_is_durable_before_it_is_known(inbox: Inbox) -> None:
    order: list[str] = []

    class Watched:
        def __init__(self, part: Any) -> None:
            self.part = part

        def __getattr__(self, name: str) -> Any:
            order.append(name)
            return getattr(self.part, name)

    replace(inbox, archive=Watched(inbox.archive), ledger=Watched(inbox.ledger)).receive(received(film()), AT)

    assert order[-2:] == ["put", "record"]


@pytest.mark.parametrize("before", [True, False], ids=["the ledger fails", "killed after the ledger"])
def test_a_ledger_that_fails_is_not_acknowledged_and_a_resend_leaves_one_file(inbox: Inbox, before: bool) -> None:
    sent = received(film())
    failing: Any = Failing(inbox.ledger, "record", RuntimeError("database is gone"), before=before)

    with pytest.raises(RuntimeError):
        replace(inbox, ledger=failing).receive(sent, AT)
    assert len(files(inbox)) == 1
    assert len(known(inbox)) == (0 if before else 1)
    instance = inbox.receive(sent, AT)

    assert files(inbox) == [instance.key]
    assert [i.key for i in known(inbox)] == [instance.key]


def test_a_kill_before_the_store_leaves_nothing(inbox: Inbox) -> None:
    sent = received(film())
    failing: Any = Failing(inbox.archive, "put", OutOfResources())

    with pytest.raises(OutOfResources):
        replace(inbox, archive=failing).receive(sent, AT)
    assert (files(inbox), known(inbox)) == ([], [])

    assert inbox.receive(sent, AT).key in files(inbox)


def test_an_orphan_of_a_crash_is_adopted_when_it_is_sent_again(inbox: Inbox) -> None:
    sent = received(film())
    orphan = inbox._understood(sent, AT)
    inbox.archive.put(orphan.key, b"half of it, as a store that is not durable would leave it")

    instance = inbox.receive(sent, AT)

    assert files(inbox) == [orphan.key]
    assert inbox.archive.get(instance.key) == sent.header + sent.dataset


@pytest.mark.parametrize(
    "limits", [{"free_bytes": lambda: 10_000}, {"minimum_free_bytes": 2**50}, {"maximum_instance_bytes": 100}]
)
def test_without_room_nothing_is_kept_and_the_sender_may_try_again(inbox: Inbox, limits: dict[str, Any]) -> None:
    sent = received(film())

    with pytest.raises(OutOfResources) as caught:
        replace(inbox, **{"minimum_free_bytes": 5_000, **limits}).receive(sent, AT)

    assert (caught.value.dimse_status, caught.value.retryable) == (0xA700, True)
    assert (files(inbox), known(inbox)) == ([], [])


def test_a_duplicate_is_acknowledged_and_changes_nothing(inbox: Inbox) -> None:
    sent = received(film())
    first = inbox.receive(sent, AT)

    inbox.receive(sent, AT.replace(hour=12))

    assert files(inbox) == [first.key]
    assert known(inbox) == [first]
    assert inbox.ledger.studies()[0].received_at == AT  # a resend does not make the study wait again


def test_the_same_uid_with_other_bytes_overwrites_nothing(inbox: Inbox) -> None:
    one = film()
    first = inbox.receive(received(one), AT)
    kept = inbox.archive.get(first.key)
    one.BodyPartExamined = "THORAX"

    second = inbox.receive(received(one), AT)

    assert inbox.archive.get(first.key) == kept
    assert first.key != second.key
    assert [i.revision for i in known(inbox)] == [1, 2]


def test_the_same_bytes_in_another_syntax_are_another_content(inbox: Inbox) -> None:
    sent = received(film())

    inbox.receive(sent, AT)
    inbox.receive(replace(sent, transfer_syntax_uid="1.2.840.10008.1.2"), AT)

    assert len(known(inbox)) == 2


@pytest.mark.parametrize("padding", [b"\0", b"\0\0\0", b" ", b" \0"])
def test_uids_with_padding_are_the_same_uids(inbox: Inbox, padding: bytes) -> None:
    one = film(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4", SOPInstanceUID="1.2.5")
    plain = inbox.receive(received(one), AT)
    data = wire.encoded(one)
    for uid in (b"1.2.3\0", b"1.2.4\0", b"1.2.5\0"):
        data = data.replace(b"\6\0" + uid, (len(uid) - 1 + len(padding)).to_bytes(2, "little") + uid[:-1] + padding)

    padded = inbox.receive(replace(received(one, data), sop_instance_uid="1.2.5" + padding.decode()), AT)

    assert len(inbox.ledger.studies()) == 1
    for name in ("study_instance_uid", "series_instance_uid", "sop_instance_uid", "patient_key"):
        assert getattr(padded, name) == getattr(plain, name)


def patient_key(inbox: Inbox, **attributes: Any) -> str:
    return inbox._understood(received(film(**attributes)), AT).patient_key


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_equal_patients_have_equal_keys(inbox: Inbox) -> None:
    key = patient_key(inbox, PatientID="4711")

    assert patient_key(inbox, PatientID="4711 ") == key
    assert patient_key(inbox, PatientID="4711\0") == key
    assert patient_key(inbox, PatientID="4711", PatientName="Doe^Jane") == key
    assert patient_key(inbox, PatientID="4711", IssuerOfPatientID="") == key


def test_other_patients_have_other_keys(inbox: Inbox) -> None:
    whole = {
        patient_key(inbox, PatientID="4711"),
        patient_key(inbox, PatientID="4712"),
        patient_key(inbox, PatientID="04711"),
        patient_key(inbox, PatientID="4711", IssuerOfPatientID="A"),
        patient_key(inbox, PatientID="4711", IssuerOfPatientID="B"),
        patient_key(inbox, PatientID="", PatientName="Doe^Jane"),
        patient_key(inbox, PatientID="", PatientName="Doe^John"),
        patient_key(inbox, PatientID="", PatientName="Doe^John", PatientBirthDate="19700101"),
    }

    assert len(whole) == 8
    assert not any("4711" in key for key in whole)


def test_the_ledger_knows_no_identity(inbox: Inbox) -> None:
    inbox.receive(received(film(PatientID="SECRET-4711", PatientName="Secret^Ida")), AT)

    inbox.ledger.close()
    database = b"".join(p.read_bytes() for p in inbox.archive.root.parent.glob("ledger.sqlite*"))
    assert len(database) > 1000
    for identity in (b"SECRET-4711", b"Secret^Ida", b"19600229", b"ACC-0815"):  # whole: digits alone are in any UID
        assert identity not in database


@pytest.mark.parametrize(
    ("request_says", "error"),
    [
        ({"sop_instance_uid": "1.2.3"}, Mismatch),
        ({"sop_class_uid": "1.2.3"}, Mismatch),
        ({"dataset": b""}, NotUnderstood),
        ({"dataset": b"no DICOM at all"}, NotUnderstood),
    ],
)
def test_what_is_refused_leaves_no_trace(
    inbox: Inbox, request_says: dict[str, Any], error: type[NotUnderstood]
) -> None:
    with pytest.raises(error) as caught:
        inbox.receive(replace(received(film()), **request_says), AT)

    assert "Invented" not in str(caught.value)
    assert (files(inbox), known(inbox)) == ([], [])


def test_two_ledgers_on_one_database_take_an_instance_once(inbox: Inbox, node: Node) -> None:
    other = Ledger(node.config.database_url)
    sent = received(film())

    inbox.receive(sent, AT)
    replace(inbox, ledger=other).receive(sent, AT)

    other.close()
    assert len(known(inbox)) == 1
