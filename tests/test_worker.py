from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from pydicom import Dataset, dcmwrite

from medgem_node import plug, worker
from medgem_node.card import ModelCard
from medgem_node.config import shipped
from medgem_node.errors import ModelRejected, NotApplicable
from medgem_node.finding import Analysis
from medgem_node.job import Job, decode_outcome
from medgem_node.seams import Store
from medgem_node.testing import dx_instance
from medgem_node.worker import work

MANIFEST = """
[model]
name = "test-model"
version = "1.0.0"
title = "A test"
manufacturer = "nobody"
status = "test"
licence = "none"
[weights]
file = "weights.safetensors"
sha256 = "{sha256}"
[network]
[preprocessing]
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "exchange").as_uri()


@pytest.fixture
def store(url: str) -> Store:
    return plug.open_store(url)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_manifest(tmp_path / "models", "0" * 64)
    return tmp_path / "models"


def write_manifest(models: Path, sha256: str) -> None:
    folder = models / "test-model" / "1.0.0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(MANIFEST.format(sha256=sha256))


@pytest.fixture
def job(store: Store) -> Job:
    buffer = io.BytesIO()
    dcmwrite(buffer, dx_instance(SOPInstanceUID="2.25.5"), enforce_file_format=True)
    store.put("studies/a/1.dcm", buffer.getvalue())
    return Job("job-1", "test-model", "1.0.0", ("studies/a/1.dcm",))


class Counting:
    """A detector that says which images it was given."""

    def __init__(self, card: ModelCard, backend: str = "auto") -> None:
        self.card = card

    def detect(self, instances: Sequence[Dataset]) -> Analysis:
        return Analysis(self.card.name, self.card.version, images=tuple(i.SOPInstanceUID for i in instances))


def load_as(monkeypatch: pytest.MonkeyPatch, create: Callable[[ModelCard, str], object]) -> None:
    from medgem_node.detector import detector

    worker._detector.cache_clear()
    monkeypatch.setattr(detector, "create", create)


def failing(error: Exception) -> Callable[[ModelCard, str], object]:
    def create(card: ModelCard, backend: str) -> object:
        raise error

    return create


def test_the_outcome_lies_in_the_exchange(
    store: Store, models: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_as(monkeypatch, Counting)

    work(job, store, models)

    outcome = decode_outcome(store.get(job.outcome_key))
    assert outcome.job_id == "job-1"
    assert outcome.analysis is not None
    assert outcome.analysis.images == ("2.25.5",)
    assert (outcome.analysis.model, outcome.analysis.version) == ("test-model", "1.0.0")


def test_a_job_may_run_twice(store: Store, models: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    load_as(monkeypatch, Counting)

    work(job, store, models)
    first = store.get(job.outcome_key)
    work(job, store, models)

    assert decode_outcome(store.get(job.outcome_key)).analysis is not None
    assert decode_outcome(first).job_id == decode_outcome(store.get(job.outcome_key)).job_id
    assert list(store.keys("jobs")) == [job.outcome_key]


def test_a_model_is_loaded_once_and_again_when_it_changes(
    store: Store, models: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def create(card: ModelCard, backend: str) -> Counting:
        loaded.append(card.weights_sha256)
        return Counting(card)

    load_as(monkeypatch, create)

    work(job, store, models)
    work(job, store, models)
    write_manifest(models, "1" * 64)
    work(job, store, models)

    assert loaded == ["0" * 64, "1" * 64]


def test_an_edited_manifest_is_not_taken_for_the_one_before(
    store: Store, models: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def create(card: ModelCard, backend: str) -> Counting:
        titles.append(card.title)
        return Counting(card)

    load_as(monkeypatch, create)
    work(job, store, models)
    path = models / "test-model/1.0.0/model.toml"
    path.write_text(path.read_text("utf-8").replace('title = "', 'title = "another '), "utf-8")

    work(job, store, models)

    assert len(titles) == 2
    assert titles[1] == f"another {titles[0]}"


def test_a_study_that_is_not_applicable_is_answered_with_its_reason(
    store: Store, models: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_as(monkeypatch, failing(NotApplicable("lateral-view", "the view is LL")))

    outcome = work(job, store, models)

    assert outcome.failure is None
    assert outcome.analysis is not None
    assert not outcome.analysis.applicable
    assert (outcome.analysis.reason, outcome.analysis.detail) == ("lateral-view", "the view is LL")


def test_an_input_that_is_no_dicom_is_answered_with_its_reason(
    store: Store, models: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_as(monkeypatch, Counting)
    store.put("studies/a/1.dcm", b"no DICOM at all")

    outcome = work(job, store, models)

    assert outcome.analysis is not None
    assert outcome.analysis.reason == "not-dicom"


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        (ModelRejected("the weights were altered"), "model-rejected", False),
        (MemoryError(), "out-of-memory", True),
        (RuntimeError("CUDA error, Invented^Ida"), "worker-error", True),
        (KeyError("Invented^Ida"), "worker-error", True),
    ],
)
def test_an_error_is_answered_without_its_text(
    store: Store,
    models: Path,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    reason: str,
    retryable: bool,
) -> None:
    load_as(monkeypatch, failing(error))

    work(job, store, models)

    failure = decode_outcome(store.get(job.outcome_key)).failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert "Ida" not in failure.detail + caplog.text
    assert "job-1" in caplog.text


@pytest.mark.parametrize(("model", "version"), [("other", ""), ("test-model", "9.9.9"), ("../x", "")])
def test_a_model_that_is_not_there_is_rejected(store: Store, models: Path, model: str, version: str) -> None:
    outcome = work(Job("job-1", model, version, ()), store, models)

    assert outcome.failure is not None
    assert (outcome.failure.reason, outcome.failure.retryable) == ("model-rejected", False)


def test_an_input_that_is_not_there_yet_is_tried_again(
    store: Store, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_as(monkeypatch, Counting)

    outcome = work(Job("job-1", "test-model", "", ("studies/b/1.dcm",)), store, models)

    assert outcome.failure is not None
    assert outcome.failure.retryable


# As a process


def start(url: str, models: Path, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "medgem_node.worker", "--exchange", url, "--models", str(models), "--threads", "1"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, **pipes, **options)


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert any("worker ready" in line for line in process.stderr)


def test_a_worker_answers_each_line_and_ends_with_its_stdin(url: str, store: Store, models: Path, job: Job) -> None:
    rejected = Job("job-2", "no-model", "", ())

    with start(url, models) as process:
        out, err = process.communicate(f"{job.to_json()}\n{rejected.to_json()}\n", timeout=100)

    answers = [json.loads(line) for line in out.splitlines()]
    assert [a["job_id"] for a in answers] == ["job-1", "job-2"]  # the test's manifest is rejected, not retried
    assert all(a["seconds"] >= 0 for a in answers)
    assert process.returncode == 0
    assert store.exists(job.outcome_key)
    assert store.exists(rejected.outcome_key)
    assert "2.25." not in err


def test_a_line_that_is_no_job_ends_the_worker(url: str, store: Store, models: Path) -> None:
    with start(url, models) as process:
        out, _ = process.communicate("no job\n", timeout=100)

    assert out == ""
    assert process.returncode == 1


def test_a_worker_that_is_about_to_end_does_not_ask_for_another_job(url: str, store: Store) -> None:
    lost = Job("job1", "chest-xray", "1.0.0", ("inputs/job1/not-there.dcm",))

    with start(url, shipped("models")) as process:
        out, _ = process.communicate(lost.to_json() + "\n", timeout=100)

    failure = decode_outcome(store.get(lost.outcome_key)).failure
    assert failure is not None
    assert failure.retryable
    assert out == ""
    assert process.returncode == 1


def test_ctrl_c_leaves_a_worker_running_and_sigterm_ends_it(url: str, store: Store, models: Path) -> None:
    with start(url, models) as process:
        wait_until_ready(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None

        process.terminate()

        assert process.wait(10) == -signal.SIGTERM


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is of Linux")
def test_a_worker_dies_with_its_parent(url: str, store: Store, models: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-m', 'medgem_node.worker', *sys.argv[1:]], stderr=subprocess.PIPE)\n"
        "next(line for line in p.stderr if b'worker ready' in line)\n"
        "print(p.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    reader, writer = os.pipe()  # a stdin of the worker that stays open when its parent dies
    command = [sys.executable, "-c", script, "--exchange", url, "--models", str(models)]
    with subprocess.Popen(command, stdin=reader, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())

        parent.kill()
        parent.wait()

        ended = any(time.sleep(0.1) or not is_running(pid) for _ in range(100))
    os.close(reader)
    os.close(writer)
    assert ended


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_imports_neither_network_nor_ledger() -> None:
    script = (
        "import sys, medgem_node.worker\n"
        "assert 'torch' not in sys.modules\n"
        "import medgem_node.detector.detector\n"
        "bad = {'pynetdicom', 'sqlalchemy', 'medgem_node.dimse', 'medgem_node.ledger', 'medgem_node.deid'}\n"
        "sys.exit(str(bad & sys.modules.keys()) if bad & sys.modules.keys() else 0)\n"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
