"""Viewer profiles through the whole node, with real sockets: what is refused is replaced, what is late is linked.

The worker's answer is made by hand, so that no test waits for a model.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import chest
from pydicom import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AllStoragePresentationContexts
from sqlalchemy import text
from test_path import MakeConfig, Whole, kinds, whole

from medgem_node import publication, status
from medgem_node.config import read_config
from medgem_node.job import DeliveryState, JobState, Outcome, encode_outcome
from medgem_node.ledger.ledger import Ledger
from medgem_node.node import now
from medgem_node.pipeline import STEPS
from medgem_node.testing import FakePacs

REPORTS = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)
OLDEST_REPORTS = (
    "measurement_report/comprehensive-3d",
    "measurement_report/comprehensive",
    "measurement_report/enhanced",
)


@pytest.fixture(scope="module")
def film() -> Dataset:
    return chest.film(128, 120)


@contextmanager
def node_of(make_config: MakeConfig, *pacs: FakePacs, profile: str = "generic") -> Iterator[Whole]:
    urls = {f"PACS{n}": p.url for n, p in enumerate(pacs, 1)}
    with whole(make_config(urls, (f"results.profile={profile}",))) as us:
        yield us


def prepared(us: Whole, *films: Dataset) -> None:
    us.receive(*films)
    for step in STEPS[:3]:
        step(us.pipeline, now() + timedelta(minutes=5))


def analysed(us: Whole, *films: Dataset) -> None:
    """Receive films, and let a worker say what `chest.analysis` says of them."""
    prepared(us, *films)
    answer(us, *films)


def answer(us: Whole, *films: Dataset, seconds: float = 0.0) -> None:
    (job,) = us.node.ledger.jobs(JobState.QUEUED)
    said = replace(chest.analysis(*films), model=job.job.model, version=job.job.version, seconds=seconds)
    pseudonyms = {str(f.SOPInstanceUID): us.node.pseudonyms.uid(str(f.SOPInstanceUID)) for f in films}
    outcome = Outcome(job.job.job_id, said.renamed(pseudonyms))
    us.node.exchange.put(job.job.outcome_key, encode_outcome(outcome))
    assert us.node.ledger.move_job(job, JobState.SUBMITTED, lease_until=now() + timedelta(hours=1))


def run(us: Whole, times: int = 4) -> None:
    """The steps as often as it takes to refuse, to replace, and to end."""
    for n in range(times):
        us.run(now() + timedelta(minutes=10 + n))


def classes(pacs: FakePacs) -> list[str]:
    return [str(a.dataset.SOPClassUID.name).removesuffix(" Storage") for a in pacs.arrivals]


def events(us: Whole, event: str) -> list[str]:
    with us.node.ledger.engine.connect() as connection:
        query = text("select detail from audit where event = :event order by sequence")
        return [row.detail for row in connection.execute(query, {"event": event})]


def test_a_pacs_that_refuses_segmentations_gets_the_outlines_as_a_presentation_state(
    make_config: MakeConfig, film: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "medgem_node")
    with FakePacs(refuse=[SegmentationStorage]) as pacs, node_of(make_config, pacs) as us:
        analysed(us, film)
        run(us)

        assert kinds([a.dataset for a in pacs.arrivals]) == ["OT", "PR", "SR"]
        assert us.node.ledger.jobs()[0].state is JobState.DONE
        (event,) = events(us, "refused")
        assert '"objects": "segmentation/binary"' in event
        assert '"instead": "presentation_state/grayscale"' in event
        assert "objects segmentation/binary, instead presentation_state/grayscale" in caplog.text
        said = "\n".join(status.lines(us.node.config, full=True))
        assert "segmentation/binary refused after 1 tries: " in said
        assert "got presentation_state/grayscale instead (delivered)" in said


def test_a_pacs_without_3d_reports_gets_the_same_report_in_an_older_class(
    make_config: MakeConfig, film: Dataset
) -> None:
    with FakePacs(refuse=[Comprehensive3DSRStorage]) as pacs, node_of(make_config, pacs) as us:
        analysed(us, film)
        run(us)

        assert sorted(classes(pacs)) == ["Comprehensive SR", "Secondary Capture Image", "Segmentation"]


def test_a_refusal_to_analyse_reaches_a_pacs_without_3d_reports_too(make_config: MakeConfig) -> None:
    with FakePacs(refuse=REPORTS[:2]) as pacs, node_of(make_config, pacs) as us:
        us.receive(chest.film(128, 120, ViewPosition="LL"))
        run(us)

        assert classes(pacs) == ["Enhanced SR"]
        assert "not analysed" in str(pacs.arrivals[0].dataset).lower()


def test_a_status_that_refuses_is_replaced_as_well(make_config: MakeConfig, film: Dataset) -> None:
    def no_segmentation(sent: Dataset) -> int:
        return 0xA900 if sent.Modality == "SEG" else 0x0000

    with FakePacs(status=no_segmentation) as pacs, node_of(make_config, pacs) as us:
        analysed(us, film)
        run(us)

        assert kinds([a.dataset for a in pacs.arrivals]) == ["OT", "PR", "SR"]


def test_a_job_ends_when_everything_that_could_stand_in_is_refused(make_config: MakeConfig, film: Dataset) -> None:
    with FakePacs(refuse=REPORTS) as pacs, node_of(make_config, pacs) as us:
        analysed(us, film)
        run(us)

        (job,) = us.node.ledger.jobs()
        assert job.state is JobState.DONE
        assert kinds([a.dataset for a in pacs.arrivals]) == ["OT", "SEG"]
        refused = us.node.ledger.deliveries(DeliveryState.REFUSED)
        assert {d.kind for d in refused} == set(OLDEST_REPORTS)
        assert '"instead": "nothing"' in events(us, "refused")[-1]


def test_what_one_destination_refuses_is_replaced_there_only(make_config: MakeConfig, film: Dataset) -> None:
    with (
        FakePacs(refuse=[SegmentationStorage]) as old,
        FakePacs() as new,
        node_of(make_config, old, new) as us,
    ):
        analysed(us, film)
        run(us)

        assert kinds([a.dataset for a in old.arrivals]) == ["OT", "PR", "SR"]
        assert kinds([a.dataset for a in new.arrivals]) == ["OT", "SEG", "SR"]


def test_what_nobody_refused_stays_in_the_archive(make_config: MakeConfig, film: Dataset) -> None:
    with FakePacs() as pacs, node_of(make_config, pacs) as us:
        analysed(us, film)
        run(us)

        results = us.node.ledger.results(us.node.ledger.jobs()[0].job.job_id)
        assert len(results) == 6
        assert all(us.node.archive.exists(r.key) for r in results)
        assert kinds([a.dataset for a in pacs.arrivals]) == ["OT", "SEG", "SR"]


def test_a_crash_between_the_refusal_and_what_stands_in_sends_nothing_twice(
    make_config: MakeConfig, film: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = Ledger.refuse, [2]

    def crashing(self: Ledger, *arguments: Any, **named: Any) -> tuple[str, ...]:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("power cut")
        return real(self, *arguments, **named)

    monkeypatch.setattr(Ledger, "refuse", crashing)
    with FakePacs(refuse=[SegmentationStorage]) as pacs, node_of(make_config, pacs) as us:
        analysed(us, film)
        run(us, 6)

        assert kinds([a.dataset for a in pacs.arrivals]) == ["OT", "PR", "SR"]
        assert us.node.ledger.jobs()[0].state is JobState.DONE


def test_results_of_a_corrected_patient_are_not_replaced_by_others(make_config: MakeConfig) -> None:
    wrong, right = (chest.film(128, 120, PatientID=p) for p in ("WRONG", "RIGHT"))
    with FakePacs(refuse=[SegmentationStorage]) as pacs, node_of(make_config, pacs) as us:
        analysed(us, wrong)
        for step in STEPS[:-1]:
            if step.__name__ != "deliver":
                step(us.pipeline, now() + timedelta(minutes=5))
        us.receive(right)
        run(us, 1)

        assert [a for a in pacs.arrivals if a.dataset.PatientID == "WRONG"] == []
        assert us.node.ledger.jobs()[0].state is JobState.DONE


def test_a_rule_names_another_profile_than_the_node(make_config: MakeConfig, film: Dataset, tmp_path: Path) -> None:
    with FakePacs() as pacs:
        source = Path(make_config({"PACS": pacs.url}).source)
        rules = (tmp_path / "rules.toml").read_text("utf-8").replace("[[rule]]", '[[rule]]\nprofile = "sc-only"')
        (tmp_path / "rules.toml").write_text(rules, "utf-8")
        with whole(read_config(source)) as us:
            analysed(us, film)
            run(us)

        assert kinds([a.dataset for a in pacs.arrivals]) == ["OT"]


def test_a_pacs_that_takes_pictures_only_gets_its_picture(make_config: MakeConfig, film: Dataset) -> None:
    others = [str(c.abstract_syntax) for c in AllStoragePresentationContexts]
    others.remove(str(SecondaryCaptureImageStorage))
    with FakePacs(refuse=others) as pacs, node_of(make_config, pacs, profile="sc-only") as us:
        analysed(us, film)
        run(us)

        assert classes(pacs) == ["Secondary Capture Image"]
        assert us.node.ledger.jobs()[0].state is JobState.DONE


def test_a_pacs_that_takes_pictures_only_is_told_why_nothing_was_analysed(make_config: MakeConfig) -> None:
    others = [str(c.abstract_syntax) for c in AllStoragePresentationContexts]
    others.remove(str(SecondaryCaptureImageStorage))
    with FakePacs(refuse=others) as pacs, node_of(make_config, pacs, profile="sc-only") as us:
        us.receive(chest.film(128, 120, ViewPosition="LL"))
        run(us)

        assert classes(pacs) == ["Secondary Capture Image"]


@pytest.mark.parametrize("profile", ["generic", "ohif", "sc-only", "weasis"])
def test_no_profile_leaves_a_study_without_an_answer(make_config: MakeConfig, profile: str) -> None:
    with FakePacs() as pacs, node_of(make_config, pacs, profile=profile) as us:
        us.receive(chest.film(128, 120, ViewPosition="LL"))
        run(us)

        assert len(pacs.arrivals) == 1


def test_a_profile_that_changes_after_the_job_was_prepared_does_not_change_its_results(
    make_config: MakeConfig, film: Dataset
) -> None:
    with FakePacs() as pacs:
        with node_of(make_config, pacs) as us:
            prepared(us, film)
        with node_of(make_config, pacs, profile="sc-only") as us:
            answer(us, film)
            run(us)

        assert kinds([a.dataset for a in pacs.arrivals]) == ["OT", "SEG", "SR"]


def test_the_content_time_is_when_the_analysis_began(make_config: MakeConfig, film: Dataset) -> None:
    with FakePacs() as pacs, node_of(make_config, pacs) as us:
        prepared(us, film)
        (job,) = us.node.ledger.jobs(JobState.QUEUED)
        answer(us, film, seconds=90.0)
        run(us)

        analysed_at = us.node.ledger.job(job.job.job_id).analysed_at
        report = next(a.dataset for a in pacs.arrivals if a.dataset.Modality == "SR")
        began = (analysed_at - timedelta(seconds=90)).astimezone()
        assert report.ContentDate + report.ContentTime == began.strftime("%Y%m%d%H%M%S")


def test_another_profile_gives_other_uids(make_config: MakeConfig, film: Dataset) -> None:
    with node_of(make_config) as us:
        prepared(us, film)
        (job,) = us.node.ledger.jobs()
        other = replace(job, profile=us.node.config.profile("ohif"))

        assert job.profile is not None
        of_job, of_other = (publication.job_uid(us.node.pseudonyms, j)("sr") for j in (job, other))
        assert of_job != of_other


def test_a_late_image_makes_objects_that_name_those_of_the_revision_before(make_config: MakeConfig) -> None:
    first, late = chest.film(128, 120), chest.film(128, 120, uid_seed="late")
    with FakePacs() as pacs, node_of(make_config, pacs) as us:
        analysed(us, first)
        run(us)
        (before,) = [a.dataset for a in pacs.arrivals if a.dataset.Modality == "SR"]
        analysed_again(us, first, late)
        run(us)

        *_, after = [a.dataset for a in pacs.arrivals if a.dataset.Modality == "SR"]
        assert predecessors(after) == [before.SOPInstanceUID]
        (study,) = after.PredecessorDocumentsSequence
        (series,) = study.ReferencedSeriesSequence
        assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (before.StudyInstanceUID, before.SeriesInstanceUID)


def test_what_stood_in_is_the_predecessor_of_what_stands_in(make_config: MakeConfig) -> None:
    first, late = chest.film(128, 120), chest.film(128, 120, uid_seed="late")
    with FakePacs(refuse=[Comprehensive3DSRStorage]) as pacs, node_of(make_config, pacs) as us:
        analysed(us, first)
        run(us)
        analysed_again(us, first, late)
        run(us)

        before, after = (a.dataset for a in pacs.arrivals if a.dataset.Modality == "SR")
        assert predecessors(after) == [before.SOPInstanceUID]


def test_results_that_were_never_delivered_are_nobodys_predecessor(make_config: MakeConfig) -> None:
    first, late = chest.film(128, 120), chest.film(128, 120, uid_seed="late")
    with FakePacs(status=lambda _: 0xA700) as full:
        with node_of(make_config, full) as us:
            analysed(us, first)
            us.run(now() + timedelta(minutes=10))
        full.status = lambda _: 0x0000
        with node_of(make_config, full) as us:
            prepared(us, late)
            answer(us, first, late)
            for step in STEPS[4:6]:
                step(us.pipeline, now() + timedelta(minutes=5))
            run(us)

        reports = [a.dataset for a in full.arrivals if a.dataset.Modality == "SR"]
        assert len(reports) == 2
        assert [predecessors(r) for r in reports] == [[], []]


def test_results_under_another_patients_name_are_not_named_as_predecessors(make_config: MakeConfig) -> None:
    wrong, right = (chest.film(128, 120, PatientID=p) for p in ("WRONG", "RIGHT"))
    with FakePacs() as pacs, node_of(make_config, pacs) as us:
        analysed(us, wrong)
        run(us)
        analysed_again(us, right)
        run(us)

        *_, report = [a.dataset for a in pacs.arrivals if a.dataset.Modality == "SR"]
        assert report.PatientID == "RIGHT"
        assert predecessors(report) == []


def analysed_again(us: Whole, *films: Dataset) -> None:
    """The last of `films` came late."""
    prepared(us, films[-1])
    answer(us, *films)


def predecessors(report: Dataset) -> list[str]:
    return [
        instance.ReferencedSOPInstanceUID
        for study in report.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
