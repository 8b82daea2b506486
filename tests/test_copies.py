"""The copies of a study: all that may leave, or a reason; and nothing at all after a leak."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from medgem_node import part10, plug, testing
from medgem_node.config import Config
from medgem_node.copies import Original, make_copies
from medgem_node.deid import certificate, deidentifier
from medgem_node.deid.deidentifier import Deidentifier
from medgem_node.deid.options import Option, Profile
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.dimse import scu
from medgem_node.job import JobState
from medgem_node.node import PipelineRunner, now, open_node, start_acceptor
from medgem_node.peer import Peer
from medgem_node.pipeline import STEPS
from medgem_node.seams import Store

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def exchange(tmp_path: Path) -> Store:
    return plug.open_store((tmp_path / "exchange").as_uri())


@pytest.fixture
def slices() -> list[Original]:
    files = [(str(i.SOPInstanceUID), str(i.SeriesInstanceUID), part10.encode(i)) for i in testing.ct_study(3)]
    return [Original(uid, series, lambda data=data: data) for uid, series, data in files]  # type: ignore[misc]


def maker(profile: Profile | None = None) -> Deidentifier:
    return Deidentifier(Pseudonyms(b"k" * 32), profile or Profile())


def test_every_instance_has_a_copy_and_the_study_a_certificate(slices: list[Original], exchange: Store) -> None:
    made = make_copies(slices, maker(), exchange, "inputs/1", NOON)

    assert len(made.keys) == 3
    assert all(exchange.exists(key) for key in made.keys)
    assert made.certificate is not None
    assert made.certificate["instances"] == 3
    assert made.certificate["sha256"] == certificate.digest(made.certificate)
    assert not any(s.sop_instance_uid in json.dumps(made.certificate) for s in slices)


def test_after_a_leak_no_copy_of_the_study_is_left(
    slices: list[Original], exchange: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = deidentifier.leaks, iter([[], ["PatientName"], []])
    monkeypatch.setattr(deidentifier, "leaks", lambda *a: real(*a) + next(answers))

    made = make_copies(slices, maker(), exchange, "inputs/1", NOON)

    assert made.is_leak
    assert made.keys == ()
    assert "PatientName" in made.reason
    assert list(exchange.keys("inputs")) == []


def test_a_series_whose_face_cannot_be_judged_is_held_with_a_reason(exchange: Store) -> None:
    head = testing.ct_study(3, BodyPartExamined="HEAD")
    for instance in head:
        del instance.ImagePositionPatient
    series = [Original(str(i.SOPInstanceUID), "1.2.3", lambda i=i: part10.encode(i)) for i in head]  # type: ignore[misc]

    made = make_copies(
        series, maker(Profile(frozenset({Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES}))), exchange, "inputs/1", NOON
    )

    assert made.keys == ()
    assert made.reason
    assert not made.is_leak


def test_a_leak_stops_the_study_raises_an_alert_and_stands_in_the_audit_trail(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(deidentifier, "leaks", lambda *_: ["PatientName"])
    config = make_config(settings=("engine.name=inline",))
    node = open_node(config)
    acceptor, runner = start_acceptor(node), PipelineRunner(node)
    film = testing.real_film()
    scu.store(Peer("MEDGEM", "127.0.0.1", acceptor.port), "MODALITY", [film])
    acceptor.stop()

    with caplog.at_level(logging.CRITICAL):
        for step in STEPS[:3]:
            step(runner.pipeline, now().replace(year=2100))

    (job,) = node.ledger.jobs(JobState.ANALYSED)
    (event,) = [e for e in node.audit.entries() if e.event == "identity found"]
    assert job.reason == "not-deidentified"
    assert job.job.inputs == ()
    assert "PatientName" in event.detail
    assert "no copy left the node" in caplog.text
    assert str(film.PatientName) not in caplog.text + event.detail
    assert list(node.exchange.keys("inputs")) == []
    runner.stop(1)
    node.ledger.close()
