"""Making a job: which model, which images, and their de-identified copies in the exchange."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from medgem_node.card import ModelCard
from medgem_node.deid.profile import deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import CannotDeidentify
from medgem_node.job import Job, JobState
from medgem_node.ledger.ledger import LedgerJob
from medgem_node.rule import Rule
from medgem_node.seams import Store
from medgem_node.study import Instance, Study
from medgem_node.viewer_profile import ViewerProfile


def prepare_job(
    study: Study,
    rule: Rule,
    card: ModelCard,
    profile: ViewerProfile,
    chosen: Sequence[Instance],
    archive: Store,
    exchange: Store,
    pseudonyms: Pseudonyms,
    now: datetime,
) -> LedgerJob:
    """Copy the `chosen` instances, de-identified, and describe the job; the same study gives the same keys.

    The profile is kept with the job, so that what is written does not change with the configuration meanwhile. An image
    that cannot be de-identified with certainty is not copied; when none can, the job is answered at once.
    """
    subject = f"{study.study_instance_uid}|{study.revision}|{card.name}|{card.version}"
    job_id = pseudonyms.digest("job", subject)[:32]
    keys: list[str] = []
    reason = ""
    for instance in chosen:
        original = archive.get(instance.key)
        try:
            copy = deidentify_bytes(original, pseudonyms)
        except Exception as exc:  # an edge: whatever a stranger's header leads to, the image stays and is answered for
            reason = reason or (str(exc) if isinstance(exc, CannotDeidentify) else type(exc).__name__)
            continue
        keys.append(f"inputs/{job_id}/{pseudonyms.uid(instance.sop_instance_uid)}.dcm")
        exchange.put(keys[-1], copy)
    return LedgerJob(
        job=Job(job_id, card.name, card.version, tuple(keys)),
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
        detail="" if keys else f"No image could be de-identified with certainty: {reason}",
        profile=profile,
    )
