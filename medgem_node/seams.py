"""The five places where a part may be exchanged, each with its contract in words.

A member is a file of the plural folder of its kind; the file's name is its name in the configuration
(`stores/local.py` is `local`). Each has one `create(...)`; `plug.load` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from pydicom import Dataset

from medgem_node.card import ModelCard
from medgem_node.finding import Analysis
from medgem_node.job import Job


class Store(Protocol):
    """Bytes under keys. Durable when `put` returns; `put` replaces whole; keys never leave the root.

    A key is a relative path of segments `[A-Za-z0-9._-]+` joined by `/`, none of them `.` or `..`.
    """

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`; a reader sees the old bytes or the new ones, never a part. Raises OutOfResources."""

    def get(self, key: str) -> bytes:
        """The bytes of `key`. Raises NotStored."""

    def exists(self, key: str) -> bool:
        """Whether `key` is stored."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key below `prefix`, a whole segment or more."""

    def delete(self, prefix: str) -> int:
        """Forget `prefix` and all below it; how many keys that were. Nothing there is no error."""


class Engine(Protocol):
    """Runs a job at least once, maybe twice, on any machine; returns before the work is done.

    It answers nothing: the worker writes an Outcome into the exchange, the node collects it.
    `outlives_node` tells whether a submitted job survives this process; if not, its leases end with it.
    """

    outlives_node: bool

    def submit(self, job: Job) -> None:
        """Take a job. Raises EngineUnavailable: the ledger retries."""

    def stop(self, grace_seconds: float) -> None:
        """End the workers; jobs that are still running are given up after `grace_seconds`."""


class Detector(Protocol):
    """Pure: same instances, same Analysis. Knows no network, ledger or identity."""

    card: ModelCard

    def detect(self, instances: Sequence[Dataset]) -> Analysis:
        """All that the model says of the de-identified instances of one study. Raises Unreadable, NotApplicable."""


class Writer(Protocol):
    """Makes result objects under the patient's own identity, copied from the originals.

    `originals` are the instances that were analysed (headers and pixels); `made` the objects that earlier writers made
    of the same analysis, so that a report can refer to its segmentation. `uid(role)` is stable for one study, revision
    and model, so a retry writes the same UIDs. `create(source, variant)` makes a writer: `source` says who writes and
    when, `variant` names one of the writer's `VARIANTS`, the first of which is the default.
    """

    def write(
        self,
        analysis: Analysis,
        originals: Sequence[Dataset],
        made: Sequence[Dataset],
        uid: Callable[[str], str],
    ) -> Sequence[Dataset]:
        """The objects; none where the analysis has nothing for this writer."""


class Destination(Protocol):
    """A place that results go to."""

    def send(self, results: Sequence[Dataset]) -> None:
        """Returns when the peer has every one. Raises DeliveryFailed (retry) or Refused (do not)."""
