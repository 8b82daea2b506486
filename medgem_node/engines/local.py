"""Child processes on this machine. A child that dies takes its job with it, nothing else.

A job goes down a child's stdin as one line; the child writes the outcome into the exchange and answers one line.
When a child dies, the jobs it had are answered with a retryable Failure, so the ledger runs them again at once
instead of waiting for their leases.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from medgem_node import plug
from medgem_node.config import Config
from medgem_node.errors import EngineUnavailable
from medgem_node.job import Failure, Job, Outcome, encode_outcome
from medgem_node.seams import Store

log = logging.getLogger(__name__)


class LocalEngine:
    """Keeps `workers` child processes alive and gives each one job at a time."""

    outlives_node = False

    def __init__(
        self,
        command: list[str],
        exchange: Store,
        workers: int,
        done: Callable[[str], None],
        longest_job_seconds: float = 900.0,
        key_variable: str = "",
    ) -> None:
        self._exchange = exchange
        self._done = done
        self._stopped = threading.Event()
        self._children = [_Child(command, n, longest_job_seconds, key_variable) for n in range(workers)]
        self._threads = [threading.Thread(target=self._watch, args=(c,), daemon=True) for c in self._children]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Hand `job` to an idle child."""
        for child in self._children:
            if child.take(job):
                return
        raise EngineUnavailable("every worker is busy")

    def stop(self, grace_seconds: float) -> None:
        """Let each child end its job, then end it."""
        self._stopped.set()
        for child in self._children:
            child.close()
        for thread in self._threads:
            thread.join(grace_seconds)
        for child in self._children:
            child.kill()

    def _watch(self, child: _Child) -> None:
        pause_seconds = 0.1
        while not self._stopped.is_set():
            try:
                for finished in child.run():
                    pause_seconds = 0.1
                    self._done(finished.job_id)
                lost = child.give_back()
                if lost is not None and not self._stopped.is_set():
                    log.error("worker %d ended in job %s", child.number, lost.job_id)
                    self._answer_for(lost)
            except Exception as exc:  # an edge: no room, no process to be had; this thread must outlive it
                log.error("worker %d: %s", child.number, type(exc).__name__)
                child.kill()
                child.give_back()  # it runs again when its lease ends
            self._stopped.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, 10.0)  # a worker that cannot even start must not spin

    def _answer_for(self, lost: Job) -> None:
        if not self._exchange.exists(lost.outcome_key):
            failure = Failure("worker-died", "the worker process ended in the middle of the job")
            self._exchange.put(lost.outcome_key, encode_outcome(Outcome(lost.job_id, failure=failure)))
        self._done(lost.job_id)


class _Child:
    """One worker process and the job that it has; a job that takes too long costs the process its life."""

    def __init__(self, command: list[str], number: int, longest_job_seconds: float, key_variable: str) -> None:
        self.number = number
        self._key_variable = key_variable
        self._longest_job_seconds = longest_job_seconds
        self._job_began = 0.0
        self._command = command
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._process: subprocess.Popen[str] | None = None

    def take(self, job: Job) -> bool:
        """Give it `job`; False when it is busy or down."""
        with self._lock:
            process = self._process
            if self._job is not None and process is not None and self._overdue():
                log.error("worker %d hangs in job %s; it is killed", self.number, self._job.job_id)
                process.kill()
                return False
            if self._job is not None or process is None or process.poll() is not None or process.stdin is None:
                return False
            try:
                process.stdin.write(job.to_json() + "\n")
                process.stdin.flush()
            except OSError:
                return False
            self._job, self._job_began = job, time.monotonic()
            return True

    def _overdue(self) -> bool:
        return time.monotonic() - self._job_began > self._longest_job_seconds

    def run(self) -> _Finished:
        """Start the process; an iterator over the jobs that it finishes until it ends."""
        environment = _environment(self._key_variable)
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        with self._lock:
            self._process = process
        return _Finished(self, process)

    def give_back(self) -> Job | None:
        """The job that it had, if any; it has none from now on."""
        with self._lock:
            job, self._job = self._job, None
            return job

    def close(self) -> None:
        """No more jobs: it ends after the one it has."""
        with self._lock:
            if self._process and self._process.stdin:
                try:
                    self._process.stdin.close()
                except OSError:
                    log.debug("worker %d had gone already", self.number)

    def kill(self) -> None:
        """End it now."""
        with self._lock:
            if self._process and self._process.poll() is None:
                self._process.kill()
                self._process.wait()


class _Finished:
    """Each job that a child answers for, in order."""

    def __init__(self, child: _Child, process: subprocess.Popen[str]) -> None:
        self._child = child
        self._process = process

    def __iter__(self) -> _Finished:
        return self

    def __next__(self) -> Job:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            job = self._child.give_back() if line.startswith("{") else None
            if job is not None:
                return job
        self._process.wait()
        self._process.stdout.close()
        self._child.close()
        raise StopIteration


def _environment(key_variable: str) -> dict[str, str]:
    """What a worker inherits: everything but the key, which no worker may have."""
    # OpenMP threads that wait by spinning cost a busy host ten times the work; must be set before torch is loaded
    return {k: v for k, v in os.environ.items() if k != key_variable} | {"OMP_WAIT_POLICY": "PASSIVE"}


def create(config: Config, done: Callable[[str], None]) -> LocalEngine:
    """The engine of `config`; `done` is told a job's id as soon as its outcome is stored."""
    options = config.engine
    command = [sys.executable, "-m", "medgem_node.worker", "--exchange", config.exchange_url]
    command += ["--models", str(config.models), "--backend", options.backend]
    if options.threads:
        command += ["--threads", str(options.threads)]
    exchange, hidden = plug.open_store(config.exchange_url), config.node.key_variable
    return LocalEngine(command, exchange, options.workers, done, options.lease_seconds, hidden)
