"""Runs each job at once, in the caller's process: for tests and for `analyze`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from medgem_node import plug
from medgem_node.config import Config
from medgem_node.job import Job


class InlineEngine:
    """`submit` returns when the work is done; a job never outlives it."""

    outlives_node = False

    def __init__(self, exchange_url: str, models: Path, done: Callable[[str], None], backend: str = "auto") -> None:
        self._exchange = plug.open_store(exchange_url)
        self._models = models
        self._done = done
        self._backend = backend

    def submit(self, job: Job) -> None:
        """Run `job` now."""
        # by name, as the other engines know it: torch comes with the worker, and only who runs models pays for that
        import_module("medgem_node.worker").work(job, self._exchange, self._models, self._backend)
        self._done(job.job_id)

    def stop(self, grace_seconds: float) -> None:
        """Nothing runs between two submits."""


def create(config: Config, done: Callable[[str], None]) -> InlineEngine:
    """The engine of `config`; `done` is told a job's id as soon as its outcome is stored."""
    return InlineEngine(config.exchange_url, config.models, done, config.engine.backend)
