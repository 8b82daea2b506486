"""Real processes, killed with SIGKILL: nothing is lost, nothing comes twice."""

import os
import signal
from pathlib import Path

import pytest
from pydicom import Dataset

from medgem_node import testing
from medgem_node.dimse import scu
from medgem_node.job import JobState
from medgem_node.ledger.ledger import Ledger
from medgem_node.testing import FakePacs, RunningNode, wait_for

ONE_SET = ["OT", "SEG", "SR"]


@pytest.fixture(scope="module")
def film() -> Dataset:
    return testing.real_film()


def came(pacs: FakePacs, film: Dataset) -> list[str]:
    return sorted(r.Modality for r in pacs.of_study(str(film.StudyInstanceUID)))


def children_of(pid: int) -> list[int]:
    found = [int(c) for t in Path(f"/proc/{pid}/task").iterdir() for c in (t / "children").read_text().split()]
    return found + [g for c in found for g in children_of(c)]


def worker_of(node: RunningNode) -> int | None:
    for pid in children_of(node._process.pid):
        if b"medgem_node.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


def states(node: RunningNode) -> list[JobState]:
    ledger = Ledger(f"sqlite:///{node.folder / 'node' / 'ledger.sqlite'}")
    found = [job.state for job in ledger.jobs()]
    ledger.close()
    return found


def test_a_worker_killed_in_the_middle_of_a_job_loses_nothing(tmp_path: Path, film: Dataset) -> None:
    with FakePacs() as pacs, RunningNode(tmp_path, {"PACS": pacs.url}, ("engine.retry_seconds=0.2",)) as node:
        worker = wait_for(lambda: worker_of(node))
        os.kill(worker, signal.SIGSTOP)  # so that the job is certainly in its hands when it dies
        scu.store(node.peer, "MODALITY", [film])
        wait_for(lambda: states(node) == [JobState.SUBMITTED])

        os.kill(worker, signal.SIGKILL)

        wait_for(lambda: came(pacs, film) == ONE_SET, 120)
        wait_for(lambda: states(node) == [JobState.DONE])
        assert len(pacs.arrivals) == 3


def test_a_node_killed_after_success_and_before_completion_loses_nothing(tmp_path: Path, film: Dataset) -> None:
    with FakePacs() as pacs, RunningNode(tmp_path, {"PACS": pacs.url}) as node:
        scu.store(node.peer, "MODALITY", [film])

        node.kill()
        node.start()

        wait_for(lambda: came(pacs, film) == ONE_SET, 120)
        wait_for(lambda: states(node) == [JobState.DONE])
        assert len(pacs.arrivals) == 3


def test_a_node_killed_in_the_middle_of_a_job_loses_nothing(tmp_path: Path, film: Dataset) -> None:
    with FakePacs() as pacs, RunningNode(tmp_path, {"PACS": pacs.url}) as node:
        os.kill(wait_for(lambda: worker_of(node)), signal.SIGSTOP)
        scu.store(node.peer, "MODALITY", [film])
        wait_for(lambda: states(node) == [JobState.SUBMITTED])

        node.kill()
        node.start()

        wait_for(lambda: came(pacs, film) == ONE_SET, 120)
        assert len(pacs.instances) == 3


def test_a_killed_acceptor_comes_back(tmp_path: Path) -> None:
    with FakePacs() as pacs, RunningNode(tmp_path, {"PACS": pacs.url}) as node:
        for pid in children_of(node._process.pid):
            if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(b"receive"):
                os.kill(pid, signal.SIGKILL)

        wait_for(node._answers, 30)


def test_a_node_that_is_stopped_leaves_no_process(tmp_path: Path) -> None:
    with FakePacs() as pacs, RunningNode(tmp_path, {"PACS": pacs.url}) as node:
        wait_for(lambda: worker_of(node))
        before = children_of(node._process.pid)
        node.stop()

        assert len(before) >= 3
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before), 10)
