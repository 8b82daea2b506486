"""A site's own operating points: from a file to the worker, and never with another manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset

from medgem_node import cli, doctor, part10, plug, testing, worker
from medgem_node.card import ModelCard, find_card
from medgem_node.config import Config
from medgem_node.dimse import scu
from medgem_node.errors import ModelRejected
from medgem_node.finding import Analysis
from medgem_node.job import Job, JobState
from medgem_node.node import PipelineRunner, now, open_node, start_acceptor
from medgem_node.peer import Peer
from medgem_node.site import Point, SiteCalibration, file_of, overlaid, read_site, to_toml, write_site
from medgem_node.study import StudyState

OUTPUT = "nodule-or-mass"
KIND = {"label": "Nodule or mass", "output": OUTPUT, "operating_point": 0.5}


@pytest.fixture
def card(config: Config) -> ModelCard:
    """The newest shipped one."""
    return find_card(config.models, "chest-xray")


def of(card: ModelCard, **changes: object) -> SiteCalibration:
    points = (Point(OUTPUT, 0.31, 0.45, 0.2, 0.7),)
    made = SiteCalibration(card.name, card.version, card.manifest_sha256, "2026-11-23", 40, 38, 0.5, points)
    return replace(made, **changes)


def test_what_is_written_is_read(card: ModelCard, tmp_path: Path) -> None:
    write_site(tmp_path, of(card, films=20))

    path = write_site(tmp_path, of(card))

    assert path == tmp_path / "site" / f"{card.name}-{card.version}.toml"
    assert read_site(tmp_path, card.name, card.version) == of(card)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_site_without_a_file_has_no_calibration(tmp_path: Path) -> None:
    assert read_site(tmp_path, "chest-xray", "1.0.0") is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("operating_point = 0.31", "operating_point = 1.31", "not from 0 to 1"),
        ("operating_point = 0.31", "operating_point = nan", "not from 0 to 1"),
        ("operating_point = 0.31", 'operating_point = "0.31"', "operating_point is no float"),
        ("operating_point = 0.31", "operating_point = true", "operating_point is no float"),
        ("high = 0.7", "high = 0.1", "make no interval"),
        ("films = 40", "films = -1", "films is no int"),
        ("films = 40", "", 'key "films" is missing'),
        ("films = 40", "films = 40\ncommand = 1", 'key "command" is unknown'),
        ("[[points]]", "[points]", "points"),
        ('date = "2026-11-23"', 'date = "yesterday"', "malformed"),
        ("films = 40", "films = ", "no valid TOML"),
    ],
)
def test_a_malformed_file_is_refused_with_what_to_do(
    card: ModelCard, tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = to_toml(of(card))
    assert old in text
    path = file_of(tmp_path, card.name, card.version)
    path.parent.mkdir()
    path.write_text(text.replace(old, new), "utf-8")

    with pytest.raises(ModelRejected, match=says) as refused:
        read_site(tmp_path, card.name, card.version)

    assert str(path) in str(refused.value)
    assert "calibrate again" in str(refused.value)


def test_the_card_takes_over_the_points_of_its_own_manifest_only(card: ModelCard) -> None:
    card = replace(card, findings=(*(f for f in card.findings if "output" not in f), KIND))

    site = overlaid(card, of(card))

    assert site.findings[-1]["operating_point"] == 0.31
    assert site.findings[:-1] == card.findings[:-1]
    assert site.site_calibration == "2026-11-23, 40 films"
    for other in (of(card, manifest_sha256="0" * 64), of(card, version="0.0.1"), None):
        assert overlaid(card, other) is card


def test_a_calibration_travels_with_its_job(card: ModelCard) -> None:
    job = Job("job-1", card.name, card.version, ("a",), site=of(card))

    assert Job.from_json(job.to_json()) == job
    assert Job.from_json(replace(job, site=None).to_json()).site is None


def test_a_job_with_an_impossible_calibration_is_no_job(card: ModelCard) -> None:
    job = Job("job-1", card.name, card.version, ("a",), site=of(card))

    with pytest.raises(ModelRejected):
        Job.from_json(job.to_json().replace("0.31", "31"))


class Telling:
    """A detector that answers with the calibration of the card that it was given."""

    def __init__(self, card: ModelCard, *_: object) -> None:
        self.card = card

    def detect(self, instances: Sequence[Dataset]) -> Analysis:
        return Analysis(self.card.name, self.card.version, reason=self.card.site_calibration)


@pytest.mark.parametrize(("digest", "told"), [("", "2026-11-23, 40 films"), ("0" * 64, "")])
def test_the_worker_uses_it_with_its_own_weights_and_not_with_others(
    card: ModelCard, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digest: str, told: str
) -> None:
    from medgem_node.detector import detector

    worker._detector.cache_clear()
    monkeypatch.setattr(detector, "create", Telling)
    store = plug.open_store(tmp_path.as_uri())
    store.put("a", part10.encode(testing.dx_instance()))
    site = of(card, manifest_sha256=digest or card.manifest_sha256)

    outcome = worker.work(Job("job-1", card.name, card.version, ("a",), site=site), store, config.models)
    worker._detector.cache_clear()  # no other test may be given this detector

    assert outcome.analysis is not None
    assert outcome.analysis.reason == told


class Recording:
    """An engine that keeps what it is given."""

    outlives_node = False

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        self.jobs.append(job)

    def stop(self, grace_seconds: float) -> None: ...


def test_a_job_is_submitted_with_the_sites_points_and_never_past_a_malformed_file(
    card: ModelCard, make_config: Callable[..., Config]
) -> None:
    node = open_node(make_config(settings=('engine.name="inline"',)))
    acceptor, runner, engine = start_acceptor(node), PipelineRunner(node), Recording()
    pipeline, later = replace(runner.pipeline, engine=engine), now() + timedelta(minutes=5)
    path = write_site(node.config.data, of(card))

    def prepare() -> None:
        scu.store(Peer("MEDGEM", "127.0.0.1", acceptor.port), "MODALITY", [testing.dx_instance()])
        for step in (pipeline.complete, pipeline.route, pipeline.prepare):
            step(later)

    try:
        prepare()
        pipeline.submit(later)
        prepare()
        path.write_text("films = ", "utf-8")
        pipeline.submit(later)
        prepare()
        (held,) = node.ledger.studies(StudyState.HELD)
        (answered,) = node.ledger.jobs(JobState.ANALYSED)
    finally:
        acceptor.stop()
        runner.stop(1)
        node.ledger.close()

    assert [job.site for job in engine.jobs] == [of(card)]
    assert answered.reason == "model-rejected"
    assert "no valid TOML" in answered.detail
    assert "no valid TOML" in held.reason


def test_the_doctor_says_whether_it_is_used(card: ModelCard, config: Config) -> None:
    def said() -> list[tuple[str, str]]:
        return [(c.state, c.says) for c in doctor.check_site(card, config)]

    assert said() == []
    path = write_site(config.data, of(card))
    assert said() == [("ok", "of 2026-11-23, 40 films: nodule-or-mass from 0.31")]
    write_site(config.data, of(card, manifest_sha256="0" * 64))
    assert said()[0][0] == "warning"
    assert "another manifest" in said()[0][1]
    path.rename(path.with_name(f"{card.name}-0.0.1.toml"))
    assert said() == [("warning", f"{card.name}-0.0.1.toml is of another version, and is not used")]
    path.write_text("films = ", "utf-8")
    assert said()[0][0] == "wrong"


def test_the_list_of_models_tells_which_are_calibrated_for_the_site(
    card: ModelCard, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    write_site(config.data, of(card))

    assert cli.main(["models", "--config", config.source]) == 0

    told = capsys.readouterr().out.splitlines()
    line = next(n for n, text in enumerate(told) if text.startswith(f"{card.name} {card.version}"))
    assert told[line + 1] == "  calibrated for this site 2026-11-23, 40 films: nodule-or-mass from 0.31"
