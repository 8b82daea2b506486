"""One battery for every engine, with the worker that ships."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from medgem_node import plug
from medgem_node.config import Config
from medgem_node.engines.local import LocalEngine
from medgem_node.errors import EngineUnavailable
from medgem_node.job import Job, decode_outcome
from medgem_node.seams import Engine, Store
from medgem_node.testing import wait_for

MEMBERS = ("inline", "local")


@dataclass
class Running:
    engine: Engine
    exchange: Store
    finished: list[str] = field(default_factory=list)

    def submit(self, job: Job) -> None:
        def taken() -> bool:
            try:
                self.engine.submit(job)
            except EngineUnavailable:
                return False
            return True

        wait_for(taken, 60)

    def outcome_reason(self, job: Job) -> str:
        wait_for(lambda: self.exchange.exists(job.outcome_key), 60)
        outcome = decode_outcome(self.exchange.get(job.outcome_key))
        assert outcome.failure is not None
        return outcome.failure.reason


@pytest.fixture(params=MEMBERS)
def running(request: pytest.FixtureRequest, config: Config) -> Iterator[Running]:
    config = replace(config, engine=replace(config.engine, name=request.param, threads=1))
    finished: list[str] = []
    engine = plug.load("engines", request.param).create(config, finished.append)
    yield Running(engine, plug.open_store(config.exchange_url), finished)
    engine.stop(grace_seconds=5)


def a_job(number: int = 1) -> Job:
    return Job(f"job{number}", "no-such-model", "1.0.0", ())


def test_a_job_is_answered_by_an_outcome(running: Running) -> None:
    running.submit(a_job())

    assert running.outcome_reason(a_job()) == "model-rejected"
    wait_for(lambda: running.finished == ["job1"])


def test_jobs_follow_one_another(running: Running) -> None:
    jobs = [a_job(n) for n in range(3)]
    for job in jobs:
        running.submit(job)

    assert [running.outcome_reason(job) for job in jobs] == ["model-rejected"] * 3


def test_a_job_may_run_twice(running: Running) -> None:
    running.submit(a_job())
    running.outcome_reason(a_job())
    running.submit(a_job())

    wait_for(lambda: running.finished == ["job1", "job1"])


SLEEPER = """
import sys, time
for line in sys.stdin:
    time.sleep(600)
"""


@pytest.fixture
def stuck(config: Config) -> Iterator[tuple[Engine, Store, Callable[[], list[int]]]]:
    exchange = plug.open_store(config.exchange_url)
    engine = LocalEngine([sys.executable, "-c", SLEEPER], exchange, 1, lambda _: None)

    def pids() -> list[int]:
        return [c._process.pid for c in engine._children if c._process is not None and c._process.poll() is None]

    yield engine, exchange, pids
    for pid in pids():
        os.kill(pid, signal.SIGKILL)
    engine.stop(grace_seconds=1)


def test_a_worker_killed_in_the_middle_of_a_job_is_answered_for_and_started_again(
    stuck: tuple[Engine, Store, Callable[[], list[int]]],
) -> None:
    engine, exchange, pids = stuck
    (first,) = wait_for(pids)
    wait_for(lambda: _takes(engine, a_job()))

    os.kill(first, signal.SIGKILL)

    wait_for(lambda: exchange.exists(a_job().outcome_key), 10)
    failure = decode_outcome(exchange.get(a_job().outcome_key)).failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == ("worker-died", True)
    assert wait_for(lambda: [p for p in pids() if p != first], 10)


def test_a_worker_that_hangs_longer_than_a_lease_is_killed_and_started_again(config: Config) -> None:
    exchange = plug.open_store(config.exchange_url)
    engine = LocalEngine([sys.executable, "-c", SLEEPER], exchange, 1, lambda _: None, longest_job_seconds=0.3)
    wait_for(lambda: _takes(engine, a_job()), 10)
    time.sleep(0.5)

    assert not _takes(engine, a_job(2))
    wait_for(lambda: exchange.exists(a_job().outcome_key), 10)
    wait_for(lambda: _takes(engine, a_job(2)), 10)
    for child in engine._children:
        child.kill()
    engine.stop(grace_seconds=1)


def test_a_full_disk_does_not_end_the_engine(config: Config) -> None:
    import sys

    from medgem_node.engines.local import LocalEngine
    from medgem_node.errors import OutOfResources

    class Full:
        def exists(self, key: str) -> bool:
            raise OutOfResources

    engine = LocalEngine([sys.executable, "-c", "input()"], Full(), 1, lambda _: None)  # type: ignore[arg-type]
    wait_for(lambda: _takes(engine, a_job()), 10)

    assert wait_for(lambda: _takes(engine, a_job(2)), 10)
    for child in engine._children:
        child.kill()
    engine.stop(grace_seconds=1)


def test_a_busy_engine_says_so(stuck: tuple[Engine, Store, Callable[[], list[int]]]) -> None:
    engine, _, pids = stuck
    wait_for(pids)
    wait_for(lambda: _takes(engine, a_job()))

    time.sleep(0.1)
    with pytest.raises(EngineUnavailable):
        engine.submit(a_job(2))


def _takes(engine: Engine, job: Job) -> bool:
    try:
        engine.submit(job)
    except EngineUnavailable:
        return False
    return True


def test_a_worker_inherits_everything_but_the_key(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_KEY", "c2VjcmV0")
    monkeypatch.setenv("SITE_OTHER", "told")
    said = tmp_path / "environment.json"
    show = f"import json, os; open({str(said)!r}, 'w').write(json.dumps(dict(os.environ))); input()"

    exchange = plug.open_store(config.exchange_url)
    engine = LocalEngine([sys.executable, "-c", show], exchange, 1, lambda _: None, key_variable="SITE_KEY")

    wait_for(said.is_file)
    inherited = json.loads(wait_for(said.read_text))
    engine.stop(1)
    assert "SITE_KEY" not in inherited
    assert inherited["SITE_OTHER"] == "told"
