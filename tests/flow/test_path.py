"""A study through the whole node, in one process, with a real model and real sockets."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import SegmentationStorage, generate_uid

from medgem_node import cli, testing
from medgem_node.config import Config, read_config
from medgem_node.dimse import scu
from medgem_node.job import DeliveryState, JobState
from medgem_node.node import Node, PipelineRunner, now, open_node, start_acceptor
from medgem_node.peer import Peer
from medgem_node.pipeline import STEPS, Pipeline
from medgem_node.study import StudyState
from medgem_node.testing import FakePacs

MakeConfig = Callable[..., Config]


class Whole:
    """A node whose steps a test calls itself, at times that it chooses."""

    def __init__(self, config: Config) -> None:
        self.node: Node = open_node(replace(config, engine=replace(config.engine, name="inline")))
        self.acceptor = start_acceptor(self.node)
        self.runner = PipelineRunner(self.node)
        self.pipeline: Pipeline = self.runner.pipeline

    def receive(self, *instances: Dataset) -> None:
        scu.store(Peer("MEDGEM", "127.0.0.1", self.acceptor.port), "MODALITY", instances)

    def run(self, at: datetime | None = None) -> None:
        for step in STEPS:
            step(self.pipeline, at or now() + timedelta(minutes=5))

    def close(self) -> None:
        self.acceptor.stop()
        self.runner.stop(1)
        self.node.ledger.close()


@contextmanager
def whole(config: Config) -> Iterator[Whole]:
    opened = Whole(config)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="module")
def film() -> Dataset:
    return testing.real_film()


def kinds(results: list[Dataset]) -> list[str]:
    return sorted(r.Modality for r in results)


def test_a_film_goes_in_and_report_mask_and_heatmap_come_back_as_the_same_patient(
    make_config: MakeConfig, film: Dataset
) -> None:
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(film)
        us.run()

        results = pacs.of_study(str(film.StudyInstanceUID))
        assert kinds(results) == ["OT", "SEG", "SR"]
        for result in results:
            assert (result.PatientID, result.PatientName) == (film.PatientID, film.PatientName)
            assert result.AccessionNumber == film.AccessionNumber
            assert "research use only" in result.SeriesDescription.lower()
        assert us.node.ledger.jobs()[0].state is JobState.DONE
        assert us.node.audit.broken_at() is None


def test_running_every_step_again_sends_nothing_twice(make_config: MakeConfig, film: Dataset) -> None:
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(film)
        us.run()
        us.run()

        assert len(pacs.arrivals) == 3


def test_a_study_waits_until_it_was_quiet_for_as_long_as_its_rule_asks(make_config: MakeConfig) -> None:
    with whole(make_config(settings=("pipeline.quiet_seconds=60",))) as us:
        us.receive(testing.dx_instance())
        began = us.node.ledger.studies()[0].received_at

        us.run(began + timedelta(seconds=59))
        assert us.node.ledger.studies()[0].state is StudyState.RECEIVING
        us.run(began + timedelta(seconds=61))
        assert us.node.ledger.studies()[0].state is StudyState.PREPARED


def test_without_a_rule_nothing_leaves_and_the_ledger_says_so(make_config: MakeConfig) -> None:
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(*testing.ct_study(2))
        us.run()

        (study,) = us.node.ledger.studies()
        assert (study.state, study.reason) == (StudyState.UNMATCHED, "no rule matches; nothing left the node")
        assert pacs.arrivals == []
        assert list(us.node.exchange.keys("")) == []


def test_a_study_without_a_rule_goes_through_when_there_is_one_and_it_is_retried(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    film = testing.dx_instance(Modality="RG", ViewPosition="LL")
    with FakePacs() as pacs:
        with whole(make_config({"PACS": pacs.url})) as us:
            us.receive(film)
            us.run()
        config = make_config({"PACS": pacs.url})
        rules = (tmp_path / "rules.toml").read_text("utf-8").replace('"CR", "DX"', '"CR", "DX", "RG"')
        (tmp_path / "rules.toml").write_text(rules, "utf-8")

        assert cli.main(["retry", "--config", config.source]) == 0
        with whole(read_config(Path(config.source))) as us:
            us.run()

        assert kinds([a.dataset for a in pacs.arrivals]) == ["SR"]


def test_two_patients_under_one_study_uid_are_held(make_config: MakeConfig) -> None:
    study = generate_uid()
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(testing.dx_instance(StudyInstanceUID=study))
        us.receive(testing.dx_instance(StudyInstanceUID=study, PatientID="ANOTHER"))
        us.run()

        assert us.node.ledger.studies()[0].state is StudyState.HELD
        assert pacs.arrivals == []


def test_a_lateral_view_is_answered_not_analysed_with_the_reason(make_config: MakeConfig) -> None:
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(testing.dx_instance(ViewPosition="LL"))
        us.run()

        (report,) = [a.dataset for a in pacs.arrivals]
        assert report.Modality == "SR"
        assert "not analysed" in str(report).lower()
        assert us.node.ledger.jobs()[0].reason == "lateral-view"


def test_a_late_image_makes_another_revision_with_objects_of_its_own(make_config: MakeConfig, film: Dataset) -> None:
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(film)
        us.run()
        first = set(pacs.instances)
        us.receive(testing.dx_instance(StudyInstanceUID=film.StudyInstanceUID, ViewPosition="LL"))
        us.run()

        assert us.node.ledger.studies()[0].revision == 2
        assert len(set(pacs.instances) - first) == 3


def test_results_that_a_pacs_routes_back_to_us_are_not_answered_again(make_config: MakeConfig) -> None:
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(testing.dx_instance(ViewPosition="LL"))
        us.run()
        us.receive(*pacs.instances.values())
        us.run()

        assert len(pacs.arrivals) == 1
        assert us.node.ledger.studies()[0].revision == 1


def test_a_late_object_that_the_model_does_not_look_at_changes_nothing(make_config: MakeConfig) -> None:
    film = testing.dx_instance(ViewPosition="LL")
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(film)
        us.run()
        us.receive(testing.ct_study(1, StudyInstanceUID=film.StudyInstanceUID, PatientID=film.PatientID)[0])
        us.run()

        assert len(pacs.arrivals) == 1
        (study,) = us.node.ledger.studies()
        assert (study.revision, study.reason) == (2, "the same images as in revision 1")


def test_results_of_a_patient_who_was_corrected_meanwhile_are_not_sent(make_config: MakeConfig) -> None:
    film = testing.dx_instance(ViewPosition="LL", PatientID="WRONG")
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(film)
        at = now() + timedelta(minutes=5)
        for step in STEPS[:5]:
            step(us.pipeline, at)
        film.PatientID = "RIGHT"
        us.receive(film)
        us.run(at + timedelta(minutes=5))

        assert [a.dataset.PatientID for a in pacs.arrivals] == ["RIGHT"]
        first, _ = us.node.ledger.jobs()
        assert (first.state, first.reason) == (JobState.FAILED, "patient-changed")


def test_results_that_wait_for_a_pacs_are_not_sent_once_the_patient_was_corrected(make_config: MakeConfig) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    film = testing.dx_instance(ViewPosition="LL", PatientID="WRONG")
    with whole(make_config({"PACS": f"dimse://DEMOPACS@127.0.0.1:{port}"})) as us:
        us.receive(film)
        us.run()
        film.PatientID = "RIGHT"
        us.receive(film)
        with FakePacs(port=port) as pacs:
            us.run(now() + timedelta(hours=2))

        assert [a.dataset.PatientID for a in pacs.arrivals] == ["RIGHT"]


def test_what_an_earlier_crash_left_in_the_exchange_is_swept(make_config: MakeConfig) -> None:
    with whole(make_config()) as us:
        us.node.exchange.put("inputs/0123/2.25.1.dcm", b"a copy that nobody needs")
        us.node.exchange.put("jobs/0123/outcome-1", b"an outcome that nobody needs")

        us.runner.start()

        assert list(us.node.exchange.keys("")) == []


def test_a_host_name_that_nobody_knows_is_a_failure_to_retry(make_config: MakeConfig) -> None:
    with whole(make_config({"PACS": "dimse://PACS@no-such-host.invalid:104"})) as us:
        us.receive(testing.dx_instance(ViewPosition="LL"))
        us.run()

        (waiting,) = us.node.ledger.deliveries(DeliveryState.PENDING)
        assert "not reachable" in waiting.reason


def test_a_damaged_outcome_never_raises_anything_else() -> None:
    from medgem_node.finding import Analysis
    from medgem_node.job import BadOutcome, Outcome, decode_outcome, encode_outcome

    blob = bytearray(encode_outcome(Outcome("j", Analysis("m", "1.0.0"))))
    for at in range(len(blob)):
        damaged = bytes(blob[:at]) + bytes([blob[at] ^ 0x10]) + bytes(blob[at + 1 :])
        try:
            decode_outcome(damaged)
        except BadOutcome:
            continue


def test_a_corrected_patient_releases_a_study(make_config: MakeConfig) -> None:
    film = testing.dx_instance(ViewPosition="LL", PatientID="WRONG")
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(film)
        us.run()
        film.PatientID = "RIGHT"
        us.receive(film)
        us.run()

        assert [a.dataset.PatientID for a in pacs.arrivals] == ["WRONG", "RIGHT"]


def test_a_pacs_that_is_down_gets_everything_once_when_it_is_back(make_config: MakeConfig, film: Dataset) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with whole(make_config({"PACS": f"dimse://DEMOPACS@127.0.0.1:{port}"})) as us:
        us.receive(film)
        later = now() + timedelta(minutes=5)
        us.run(later)
        waiting = us.node.ledger.deliveries(DeliveryState.PENDING)
        assert len(waiting) == 3
        assert all("not reachable" in d.reason and d.due_at > later for d in waiting)

        with FakePacs(port=port) as pacs:
            us.run(later + timedelta(seconds=1))
            assert pacs.arrivals == []
            us.run(later + timedelta(hours=1))

        assert kinds([a.dataset for a in pacs.arrivals]) == ["OT", "SEG", "SR"]
        assert us.node.ledger.jobs()[0].state is JobState.DONE


def test_a_pacs_that_refuses_segmentations_gets_the_rest(make_config: MakeConfig, film: Dataset) -> None:
    with FakePacs(refuse=[SegmentationStorage]) as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(film)
        us.run()

        assert kinds([a.dataset for a in pacs.arrivals]) == ["OT", "SR"]
        (refused,) = us.node.ledger.deliveries(DeliveryState.REFUSED)
        assert "Segmentation Storage is not accepted" in refused.reason


def test_a_worker_that_always_fails_ends_in_an_answer_that_says_so(make_config: MakeConfig) -> None:
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        us.receive(testing.dx_instance())
        at = now() + timedelta(minutes=5)
        for step in STEPS[:3]:
            step(us.pipeline, at)
        (job,) = us.node.ledger.jobs()
        us.node.exchange.delete(f"inputs/{job.job.job_id}")
        for minutes in range(6):
            us.run(at + timedelta(minutes=minutes))

        (report,) = [a.dataset for a in pacs.arrivals]
        assert report.Modality == "SR"
        assert "not analysed" in str(report).lower()
        assert us.node.ledger.jobs()[0].job.attempt == 3


def test_an_outcome_that_is_no_outcome_is_not_believed(make_config: MakeConfig) -> None:
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url}, ("engine.attempts=1",))) as us:
        us.receive(testing.dx_instance())
        at = now() + timedelta(minutes=5)
        for step in STEPS[:4]:
            step(us.pipeline, at)
        (job,) = us.node.ledger.jobs()
        us.node.exchange.put(job.job.outcome_key, b"PK garbage")
        us.run(at)

        assert us.node.ledger.jobs()[0].reason == "bad-outcome"
        assert kinds([a.dataset for a in pacs.arrivals]) == ["SR"]


def test_one_study_in_trouble_does_not_hold_up_the_others(make_config: MakeConfig) -> None:
    with FakePacs() as pacs, whole(make_config({"PACS": pacs.url})) as us:
        broken, fine = testing.dx_instance(ViewPosition="LL"), testing.dx_instance(ViewPosition="LL")
        us.receive(broken)
        us.receive(fine)
        for study in us.node.ledger.studies():
            if study.study_instance_uid == broken.StudyInstanceUID:
                us.node.archive.delete(study.instances[0].key)  # as if a disk had lost it
        us.run()

        assert pacs.of_study(str(fine.StudyInstanceUID))
        assert not pacs.of_study(str(broken.StudyInstanceUID))
        (held,) = us.node.ledger.studies(StudyState.HELD)
        assert held.reason == "its images are missing in the archive"
