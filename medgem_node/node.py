"""The processes of a node: `receive`, `pipeline` (with its workers as children), and the supervisor of both.

A process that dies is started again; a worker that crashes never takes the acceptor down, and inference never slows
receiving.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import logging.config
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from medgem_node import plug
from medgem_node.audit import Audit
from medgem_node.config import Config
from medgem_node.deid.keyring import KeyRing, keys_of
from medgem_node.deid.options import Profile, profile_of
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.dimse.scp import Acceptor, Received
from medgem_node.errors import ConfigError
from medgem_node.inbox import Inbox
from medgem_node.job import JobState
from medgem_node.ledger.crosswalk import Crosswalk
from medgem_node.ledger.ledger import Ledger
from medgem_node.pipeline import STEPS, Pipeline
from medgem_node.publication import check_profile
from medgem_node.seams import Destination, Store

log = logging.getLogger(__name__)

ROLES = ("receive", "pipeline")


@dataclass(frozen=True)
class Node:
    """What every role of one node shares: the ledger, the stores, the keys, the profiles of de-identification."""

    config: Config
    ledger: Ledger
    audit: Audit
    archive: Store
    exchange: Store
    keys: KeyRing
    crosswalk: Crosswalk
    profiles: Mapping[str, Profile]

    @property
    def pseudonyms(self) -> Pseudonyms:
        """The node's own: for digests that stay, whatever the epoch of what leaves."""
        return self.keys.node


def open_node(config: Config) -> Node:
    """Open the data folder, made on first start. Raises ConfigError."""
    profiles = {name: profile_of(asked, name or config.node.deid) for name, asked in config.deid.items()}
    try:
        config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise ConfigError(
            f'{config.source}: node.data = "{config.node.data}" cannot be made ({exc.strerror}); choose another folder'
        ) from exc
    if not os.access(config.data, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(
            f'{config.source}: node.data = "{config.node.data}" cannot be read and written; change its owner or mode'
        )
    keys = keys_of(config)
    ledger = Ledger(config.database_url)
    audit = Audit(ledger.engine)
    return Node(
        config=config,
        ledger=ledger,
        audit=audit,
        archive=plug.open_store(config.archive_url),
        exchange=plug.open_store(config.exchange_url),
        keys=keys,
        crosswalk=Crosswalk(ledger.engine, keys, audit.record),
        profiles=profiles,
    )


def start_acceptor(node: Node) -> Acceptor:
    """Listen for studies. Raises ConfigError when the port cannot be had."""
    options = node.config.receive
    inbox = Inbox(
        archive=node.archive,
        ledger=node.ledger,
        pseudonyms=node.pseudonyms,
        free_bytes=lambda: shutil.disk_usage(node.config.data).free,
        minimum_free_bytes=options.minimum_free_mb * 2**20,
        maximum_instance_bytes=options.maximum_instance_mb * 2**20,
    )

    def receive(received: Received) -> None:
        inbox.receive(received, now())

    return Acceptor(node.config.node.ae_title, options, receive)


class PipelineRunner:
    """Calls the steps on a timer, and at once when there is reason to."""

    def __init__(self, node: Node) -> None:
        config = node.config
        for profile in config.used_profiles:  # not at the first study
            check_profile(profile)
        self._node = node
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(len(STEPS))},
            job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None},
        )
        self.engine = plug.load("engines", config.engine.name).create(config, lambda _: self.wake("collect"))
        self.pipeline = Pipeline(
            config=config,
            ledger=node.ledger,
            audit=node.audit,
            archive=node.archive,
            exchange=node.exchange,
            keys=node.keys,
            crosswalk=node.crosswalk,
            deid=node.profiles,
            engine=self.engine,
            destinations=open_destinations(config),
        )

    def start(self) -> None:
        """Begin; jobs whose engine died with an earlier process run again."""
        if not self.engine.outlives_node:
            self._node.ledger.release_leases(now())
        self._sweep_exchange()
        for n, step in enumerate(STEPS):
            follower = STEPS[n + 1].__name__ if n + 1 < len(STEPS) else ""
            self._scheduler.add_job(
                self._run,
                "interval",
                seconds=self._node.config.pipeline.tick_seconds,
                args=(step, follower),
                id=step.__name__,
                next_run_time=now(),
            )
        self._scheduler.start()

    def _sweep_exchange(self) -> None:
        """Copies and outcomes of jobs that need them no more: a crash came before they were deleted."""
        states = (JobState.QUEUED, JobState.SUBMITTED, JobState.ANALYSED)
        needed = {job.job.job_id for job in self._node.ledger.jobs(*states)}
        for prefix in ("inputs", "jobs"):
            for job_id in {key.split("/")[1] for key in self._node.exchange.keys(prefix)} - needed:
                self._node.exchange.delete(f"{prefix}/{job_id}")

    def wake(self, step: str) -> None:
        """Call `step` now rather than at its next tick."""
        if step and self._scheduler.running:
            self._scheduler.modify_job(step, next_run_time=now())

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Let running steps end, then the workers."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
        self.engine.stop(grace_seconds)

    def _run(self, step: Callable[[Pipeline, datetime], int], follower: str) -> None:
        try:
            moved = step(self.pipeline, now())
        except Exception as exc:  # an edge: the ledger is out of reach; the next tick tries again
            log.error("step %s: %s", step.__name__, type(exc).__name__)
            return
        if moved:
            self.wake(follower)
            if step is Pipeline.collect:
                self.wake("submit")  # a worker is free


def open_destinations(config: Config) -> dict[str, Destination]:
    """Every configured destination by its name. Raises ConfigError."""
    opened: dict[str, Destination] = {}
    for name, url in config.destinations.items():
        try:
            opened[name] = plug.load("destinations", urlsplit(url).scheme).create(url, config)
        except ConfigError as exc:
            raise ConfigError(f"{config.source}: destinations.{name}: {exc}") from exc
    return opened


def now() -> datetime:
    """The clock of every process: UTC."""
    return datetime.now(UTC)


def run_role(config: Config, role: str) -> None:
    """Run one role until SIGTERM or SIGINT."""
    threading.excepthook = _log_dead_thread
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    node = open_node(config)
    if role == "receive":
        acceptor = start_acceptor(node)
        log.info("receiving as %s on port %d", config.node.ae_title, acceptor.port)
        stop.wait()
        acceptor.stop()
    else:
        with _only_leader(config, stop):
            if stop.is_set():
                return
            runner = PipelineRunner(node)
            runner.start()
            log.info("pipeline running, engine %s", config.engine.name)
            while not stop.wait(30):
                for step in STEPS:  # the scheduler sleeps by the wall clock, which may be set back
                    runner.wake(step.__name__)
            runner.stop()
    node.ledger.close()


class _only_leader:  # noqa: N801  (reads as a phrase: `with _only_leader(...)`)
    """One pipeline at a time; a second one waits until the first has ended, however it ended."""

    def __init__(self, config: Config, stop: threading.Event) -> None:
        self._path = config.data / "pipeline.lock"
        self._stop = stop

    def __enter__(self) -> None:
        self._file = open(self._path, "w")
        told = False
        while not self._stop.is_set():
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not told:
                    log.info("another pipeline leads; waiting")
                told = True
                self._stop.wait(1.0)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def supervise(config: Config, command: Sequence[str], roles: Sequence[str] = ROLES) -> int:
    """Keep one process for each role alive until SIGTERM or SIGINT; the exit code.

    `command` is what starts this program with the same configuration; `--role ROLE` is added.
    """
    check_port(config)
    open_node(config).ledger.close()  # migrations and the key, before two processes want them
    open_destinations(config)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    children = {role: _Child([*command, "--role", role]) for role in roles}
    while not stop.is_set():
        for role, child in children.items():
            code = child.keep_alive()
            if code == ConfigError.exit_code:  # it said why; another start would say the same
                log.error("role %s cannot run with this configuration", role)
                _end(list(children.values()))
                return code
        stop.wait(0.2)
    _end(list(children.values()))
    return 0


class _Child:
    """One role's process, started again when it dies, at most once a second at first and then more slowly."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self.process: subprocess.Popen[bytes] | None = None
        self._pause_seconds = 0.0
        self._not_before = 0.0
        self._started = 0.0

    def keep_alive(self) -> int | None:
        """Start it if it is not running; its exit code if it has just ended."""
        if self.process is not None and self.process.poll() is None:
            return None
        code = None if self.process is None else self.process.returncode
        if self.process is not None:
            self.process = None
            log.error("%s ended with %s; it is started again", " ".join(self._command[-2:]), code)
            ran_seconds = time.monotonic() - self._started
            self._pause_seconds = 0.2 if ran_seconds > 60 else min(max(0.2, 2 * self._pause_seconds), 30.0)
            self._not_before = time.monotonic() + self._pause_seconds
        elif time.monotonic() >= self._not_before:
            self._started = time.monotonic()
            self.process = subprocess.Popen(self._command, preexec_fn=die_with_parent)
        return code


def _end(children: Sequence[_Child], grace_seconds: float = 20.0) -> None:
    running = [c.process for c in children if c.process is not None and c.process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + grace_seconds
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent dies, so that a killed supervisor leaves nothing behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def check_port(config: Config) -> None:
    """Raise ConfigError when nothing can listen on the configured port."""
    options = config.receive
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as exc:
            raise ConfigError(
                f"{config.source}: receive.port = {options.port}: cannot listen on {options.host} ({exc.strerror}); "
                "stop the program that uses it, or choose another port"
            ) from exc


def set_up_logging(level: str, file: Path | None = None) -> None:
    """One line for one event, on stderr or in `file`; libraries only when they warn."""
    handler: dict[str, object] = {"class": "logging.StreamHandler", "formatter": "line"}
    if file is not None:
        handler = {"class": "logging.FileHandler", "filename": str(file), "formatter": "line"}
    line = "%(asctime)s %(levelname)-7s [%(process)d] %(name)s: %(message)s"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": line}},
            "handlers": {"out": handler},
            "root": {"level": "WARNING", "handlers": ["out"]},
            "loggers": {
                "medgem_node": {"level": level},
                # these say names and UIDs, or say too much; what matters of theirs we log ourselves
                **{name: {"level": "CRITICAL"} for name in ("pynetdicom", "pydicom", "highdicom", "apscheduler")},
            },
        }
    )


def _log_dead_thread(what: threading.ExceptHookArgs) -> None:
    # pynetdicom ends an association's thread so on bytes it cannot decode; a traceback would quote them
    log.error("a thread ended on %s", what.exc_type.__name__)
