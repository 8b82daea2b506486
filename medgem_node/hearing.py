"""Hearing what radiologists answer: which of our results a received document speaks of, and what it says of them.

A document is linked when it names an object of ours, or a document that does so already among its predecessors, or has
a group with a tracking UID of ours, and only to results of its own study and patient. What it says is `verdict`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from medgem_node import part10
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import NotStored, NotUnderstood
from medgem_node.feedback import MAXIMUM_BYTES, Document, is_document, read_document
from medgem_node.ledger.feedback import DocumentState, Feedback, Heard, Waiting
from medgem_node.ledger.ledger import Ledger, LedgerJob
from medgem_node.seams import Store
from medgem_node.verdict import Opinion, judge_key_objects, judge_report

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Ours:
    """The results of one job of the document's study: their SOP Instance UIDs, and the report if one was written."""

    job: LedgerJob
    objects: frozenset[str]
    report: Document | None


def hear_document(
    waiting: Waiting, ledger: Ledger, feedback: Feedback, archive: Store, pseudonyms: Pseudonyms
) -> Heard:
    """What a document says of our results; the same document gives the same. Changes nothing."""
    try:
        document = _read(waiting, archive)
    except (NotStored, NotUnderstood) as exc:
        return Heard(DocumentState.NOT_LINKED, reason=str(exc))
    named = document.references | document.predecessors
    answering = feedback.answering(waiting.study_instance_uid)
    ours = _results(waiting.study_instance_uid, ledger, archive)
    spoken_of = {o.job.job.job_id: o for o in ours if _speaks_of(document, o, answering)}
    elsewhere = set(feedback.jobs_of(sorted(named)).values()) - {o.job.job.job_id for o in ours}
    if not spoken_of and not elsewhere:
        return Heard(DocumentState.UNRELATED, reason="it names no result of this node")
    if not spoken_of:
        return Heard(DocumentState.NOT_LINKED, reason="it names results of another study only")
    same = {job_id: o for job_id, o in spoken_of.items() if _is_of_patient(o.job, waiting.patient_key, ledger)}
    if not same:
        return Heard(DocumentState.NOT_LINKED, reason="it names another patient than the results do")
    try:
        opinions = {job_id: _opinions(document, o, answering) for job_id, o in same.items()}
    except (ArithmeticError, *part10.UNPARSABLE) as exc:  # an edge: the shapes and codes are a stranger's
        return Heard(DocumentState.NOT_LINKED, reason=f"it cannot be compared with ours ({type(exc).__name__})")
    return Heard(
        state=DocumentState.LINKED,
        reader=pseudonyms.digest("reader", document.reader)[:32] if document.reader else "",
        complete=document.complete,
        verified=document.verified,
        content_at=document.content_at,
        replaces=tuple(sorted(document.predecessors & answering.keys())),
        opinions=opinions,
    )


def _read(waiting: Waiting, archive: Store) -> Document:
    if waiting.size_bytes > MAXIMUM_BYTES:
        raise NotUnderstood(f"the document is larger than {MAXIMUM_BYTES >> 20} MB")
    return read_document(part10.decode(archive.get(waiting.key)))


def _results(study_instance_uid: str, ledger: Ledger, archive: Store) -> list[_Ours]:
    found = []
    for job in ledger.jobs(study=study_instance_uid):
        results = ledger.results(job.job.job_id)
        if not results:
            continue
        reports = [read_document(part10.decode(archive.get(r.key))) for r in results if is_document(r.sop_class_uid)]
        report = next((r for r in reports if not r.is_key_objects), None)
        found.append(_Ours(job, frozenset(r.sop_instance_uid for r in results), report))
    return found


def _speaks_of(document: Document, ours: _Ours, answering: Mapping[str, frozenset[str]]) -> bool:
    tracked = {group.tracking_uid for group in ours.report.groups if group.tracking_uid} if ours.report else set()
    return bool(
        ours.objects & (document.references | document.predecessors)
        or tracked & {group.tracking_uid for group in document.groups}
        or _succeeds(document, ours, answering)
    )


def _succeeds(document: Document, ours: _Ours, answering: Mapping[str, frozenset[str]]) -> bool:
    if ours.objects & document.predecessors:
        return True
    return any(ours.job.job.job_id in answering.get(uid, ()) for uid in document.predecessors)


def _is_of_patient(job: LedgerJob, patient_key: str, ledger: Ledger) -> bool:
    study = ledger.study(job.study_instance_uid)
    return study is not None and {i.patient_key for i in study.instances if i.key in job.originals} == {patient_key}


def _opinions(document: Document, ours: _Ours, answering: Mapping[str, frozenset[str]]) -> tuple[Opinion, ...]:
    if document.is_key_objects or ours.report is None:
        return judge_key_objects(document)
    return judge_report(document, ours.report, successor=_succeeds(document, ours, answering))
