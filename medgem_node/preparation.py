"""Making a job: which model, which images, and their de-identified copies in the exchange."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from medgem_node.card import ModelCard
from medgem_node.copies import Copies, Original, make_copies
from medgem_node.deid.deidentifier import Deidentifier
from medgem_node.deid.keyring import KeyRing
from medgem_node.deid.options import Profile
from medgem_node.deid.pseudonym import NotedPseudonyms
from medgem_node.job import Job, JobState
from medgem_node.ledger.crosswalk import Crosswalk, Kind, Link
from medgem_node.ledger.ledger import LedgerJob
from medgem_node.rule import Rule
from medgem_node.seams import Store
from medgem_node.study import Instance, Study
from medgem_node.viewer_profile import ViewerProfile


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job, and what became of the copies that it needs."""

    job: LedgerJob
    copies: Copies


def prepare_job(
    study: Study,
    rule: Rule,
    card: ModelCard,
    profile: ViewerProfile,
    chosen: Sequence[Instance],
    archive: Store,
    exchange: Store,
    ring: KeyRing,
    crosswalk: Crosswalk,
    asked: Profile,
    now: datetime,
) -> Prepared:
    """Copy the `chosen` instances, de-identified as `asked`, and describe the job; the same study gives the same keys.

    The profile is kept with the job, so that what is written does not change with the configuration meanwhile. An image
    that cannot be de-identified with certainty is not copied; when none can, the job is answered at once. The crosswalk
    knows every pseudonym before a worker is told of the copies.
    """
    epoch, pseudonyms = ring.noted()  # one epoch for all of a job
    subject = f"{study.study_instance_uid}|{study.revision}|{card.name}|{card.version}"
    job_id = ring.node.digest("job", subject)[:32]
    originals = [Original(i.sop_instance_uid, i.series_instance_uid, partial(archive.get, i.key)) for i in chosen]
    copies = make_copies(originals, Deidentifier(pseudonyms, asked), exchange, f"inputs/{job_id}", now)
    keys = copies.keys
    if keys:
        crosswalk.record(chosen[0].patient_key, list(_links(pseudonyms, chosen)), epoch, now)
        archive.put(f"certificates/{job_id}.json", json.dumps(copies.certificate, indent=1).encode())
    job = LedgerJob(
        job=Job(job_id, card.name, card.version, keys),
        study_instance_uid=study.study_instance_uid,
        study_revision=study.revision,
        rule=rule.name,
        originals=tuple(i.key for i in chosen),
        send_to=rule.send_to,
        state=JobState.QUEUED if keys else JobState.ANALYSED,
        created_at=now,
        due_at=now,
        analysed_at=None if keys else now,
        reason="" if keys else "not-deidentified",
        detail="" if keys else f"No image could be de-identified with certainty: {copies.reason}",
        profile=profile,
    )
    return Prepared(job, copies)


def _links(noted: NotedPseudonyms, instances: Sequence[Instance]) -> Iterator[Link]:
    """Whatever was replaced, each with what it was; a UID that stays as it is needs no crosswalk."""
    kinds = {i.study_instance_uid: Kind.STUDY for i in instances}
    kinds |= {i.series_instance_uid: Kind.SERIES for i in instances}
    kinds |= {i.sop_instance_uid: Kind.INSTANCE for i in instances}
    for uid, pseudonym in noted.uids.items():
        kind = kinds.get(uid, Kind.UID)
        by_study = kind is Kind.STUDY and not any(noted.patients.values())  # nobody has an ID: the study's own shift
        if uid != pseudonym:
            yield Link(kind, pseudonym, uid, days=noted.days("", "", uid) if by_study else None)
    for (patient_id, issuer), pseudonym in noted.patients.items():
        yield Link(Kind.PATIENT, pseudonym, patient_id, issuer, noted.days(patient_id, issuer))
    for accession, pseudonym in noted.accessions.items():
        yield Link(Kind.ACCESSION, pseudonym, accession)
