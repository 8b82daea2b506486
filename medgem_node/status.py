"""What the node has and does, in words; pseudonymous, so that it can be shown and pasted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from medgem_node.config import Config
from medgem_node.job import Delivery, DeliveryState
from medgem_node.ledger.ledger import Ledger, LedgerJob
from medgem_node.node import open_node
from medgem_node.study import Study, StudyState

_ON_ITS_WAY = (StudyState.RECEIVING, StudyState.COMPLETE, StudyState.ROUTED)


def lines(config: Config, full: bool = False) -> Iterator[str]:
    """Counts by state, then each study with its jobs: those that need somebody, or with `full` all."""
    node = open_node(config)
    try:
        studies = node.ledger.studies()
        jobs = node.ledger.jobs()
        jobs_by_study: dict[str, list[LedgerJob]] = defaultdict(list)
        for job in jobs:
            jobs_by_study[job.study_instance_uid].append(job)
        yield f"{config.node.ae_title}, data in {config.data}"
        yield f"studies: {_counts(s.state for s in studies)}"
        yield f"jobs: {_counts(j.state for j in jobs)}"
        yield f"deliveries: {_counts(d.state for d in node.ledger.deliveries())}"
        for study in studies:
            of_study = jobs_by_study[study.study_instance_uid]
            if (
                full
                or study.reason
                or study.state in _ON_ITS_WAY
                or any(j.reason or j.state != "done" for j in of_study)
            ):
                yield from _study(node.pseudonyms.uid(study.study_instance_uid), study, of_study, node.ledger)
    finally:
        node.ledger.close()


def _study(name: str, study: Study, jobs: list[LedgerJob], ledger: Ledger) -> Iterator[str]:
    yield f"{name}  {study.state}, revision {study.revision}, {len(study.instances)} images  {study.reason}".rstrip()
    for job in jobs:
        why = ": ".join(filter(None, (job.reason, job.detail)))
        yield f"    {job.job.model} {job.job.version}  {job.state}, attempt {job.job.attempt}  {why}".rstrip()
        yield from _deliveries(job, ledger.deliveries(job_id=job.job.job_id))


def _deliveries(job: LedgerJob, deliveries: Sequence[Delivery]) -> Iterator[str]:
    """What is not there yet, and what will never be, with what was sent in its place."""
    for delivery in deliveries:
        if delivery.state is DeliveryState.DELIVERED:
            continue
        kind = f"{delivery.kind} " if delivery.kind else ""
        tries = f"{kind}{delivery.state} after {delivery.attempts} tries"
        yield f"        to {delivery.destination}: {tries}: {delivery.reason}{_instead(job, delivery, deliveries)}"


def _instead(job: LedgerJob, refused: Delivery, deliveries: Sequence[Delivery]) -> str:
    if job.profile is None or refused.state is not DeliveryState.REFUSED:
        return ""
    here = {d.kind: d for d in deliveries if d.destination == refused.destination}
    got = next((here[kind] for kind in job.profile.instead.get(refused.kind, ()) if kind in here), None)
    return f"; got {got.kind} instead ({got.state})" if got else ""


def _counts(states: Iterable[str]) -> str:
    counted = Counter(str(s) for s in states)
    return ", ".join(f"{n} {state}" for state, n in sorted(counted.items())) or "none"
