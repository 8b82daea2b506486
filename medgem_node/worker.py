"""The whole of a worker: inputs from the exchange, one model, one outcome back into the exchange.

It knows pseudonymous copies only: no ledger, no identity, no network peer. Run as
`python -m medgem_node.worker --exchange URL --models DIR`, it reads one job a line from stdin, answers one line for
each on stdout, and ends with its stdin. It imports torch when it has set what torch reads once, at its start.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from pydicom import Dataset, dcmread

from medgem_node import plug
from medgem_node.card import ModelCard, find_card, read_card
from medgem_node.config import BACKENDS
from medgem_node.errors import ModelRejected, NotAnalysable
from medgem_node.finding import Analysis, not_analysed
from medgem_node.frame import coded
from medgem_node.job import Failure, Job, Outcome, encode_outcome
from medgem_node.seams import Detector, Store
from medgem_node.site import SiteCalibration, overlaid

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # prctl(2), Linux
_LOADED_MODELS = 4


def work(job: Job, store: Store, models: Path, backend: str = "auto") -> Outcome:
    """Run `job` and put its outcome at `job.outcome_key`. Safe to run twice: the outcome is replaced whole."""
    outcome = _outcome(job, store, models, backend)
    store.put(job.outcome_key, encode_outcome(outcome))
    return outcome


def _outcome(job: Job, store: Store, models: Path, backend: str) -> Outcome:
    try:
        card = overlaid(find_card(models, job.model, job.version), job.site)
        if job.site is not None and not card.site_calibration:
            log.warning("job %s: the site's calibration was made with another manifest, and is not used", job.job_id)
        return Outcome(job.job_id, analysis=_analysis(job, store, card, backend))
    except ModelRejected as exc:
        log.error("job %s: %s", job.job_id, exc)
        return Outcome(job.job_id, failure=Failure("model-rejected", str(exc), retryable=False))
    except MemoryError:
        log.error("job %s: out of memory", job.job_id)
        return Outcome(job.job_id, failure=Failure("out-of-memory", "the worker has not enough memory"))
    except Exception as exc:  # an edge: whatever it is, the job is answered and the message stays here
        name = type(exc).__name__
        log.error("job %s: %s", job.job_id, name)
        return Outcome(job.job_id, failure=Failure("worker-error", f"an unexpected error in the worker ({name})"))


def _analysis(job: Job, store: Store, card: ModelCard, backend: str) -> Analysis:
    try:
        detector = _detector(card.folder, card.manifest_sha256, job.site, backend)
        return detector.detect([_instance(store.get(key)) for key in job.inputs])
    except NotAnalysable as exc:
        return not_analysed(card.name, card.version, exc.reason, str(exc))


def _instance(data: bytes) -> Dataset:
    with coded("not-dicom", "an instance cannot be parsed"):
        return dcmread(io.BytesIO(data))


@lru_cache(maxsize=_LOADED_MODELS)
def _detector(folder: Path, manifest_sha256: str, site: SiteCalibration | None, backend: str) -> Detector:
    """Loaded once for each manifest, which names weights and graph by digest, and each calibration."""
    from medgem_node.detector.detector import create  # torch

    return create(overlaid(read_card(folder), site), backend)


def main(arguments: Sequence[str] | None = None) -> int:
    """Jobs from stdin until it ends; returns the exit code."""
    options = _options(arguments)
    answers = _take_stdout()
    _prepare_process(options.threads)
    store = plug.open_store(options.exchange)
    import medgem_node.detector.detector  # noqa: F401  # torch takes seconds: before the first job, not within it

    log.info("worker ready")
    for line in sys.stdin:
        if not _answer(line, store, options, answers):
            return 1
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="medgem_node.worker", description="Runs jobs from stdin; one JSON a line.")
    parser.add_argument("--exchange", required=True, help="URL of the exchange store")
    parser.add_argument("--models", required=True, type=Path, help="folder of models")
    parser.add_argument("--backend", default="auto", choices=BACKENDS, help="what computes the network")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the network; 0: as torch sees fit")
    return parser.parse_args(arguments)


def _take_stdout() -> TextIO:
    """The real stdout for answers alone; what C libraries print there goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _prepare_process(threads: int) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # quotes header values in its messages
    warnings.simplefilter("ignore")  # so do its warnings
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the supervisor decides
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # die with the parent, even in a computation
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads cost a busy host ten times the work
    if threads > 0:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def _answer(line: str, store: Store, options: argparse.Namespace, answers: TextIO) -> bool:
    """Run one job; False if this process had better be replaced by a fresh one."""
    job_id = "unknown"
    try:
        began = time.monotonic()
        job = Job.from_json(line)
        job_id = job.job_id
        outcome = work(job, store, options.models, options.backend)
        if outcome.failure is not None and outcome.failure.retryable:
            return False  # a broken CUDA context stays broken; no answer line, or the next job would come to a process
            # that is ending. The engine finds the outcome.
        seconds = round(time.monotonic() - began, 3)
        answers.write(json.dumps({"job_id": job_id, "seconds": seconds}) + "\n")
        answers.flush()
    except Exception as exc:  # nothing could be answered: the engine sees the process end and asks again
        log.error("job %s: cannot be answered (%s)", job_id, type(exc).__name__)
        return False
    log.info("job %s done in %.1f s", job_id, seconds)
    return True


if __name__ == "__main__":
    sys.exit(main())
