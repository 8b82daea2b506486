"""The path of a study, one step after the other.

receive -> complete -> route -> prepare -> submit -> (worker) -> collect -> publish -> deliver -> hear

Each step takes what stands in one state and leaves it in the next. Every step may be interrupted anywhere and run
again: what it makes has stable keys and UIDs, and the move in the ledger comes last. `now` is an argument; the
scheduler in `node.py` only calls the steps, and a step that moved something wakes the next.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby, takewhile
from pathlib import Path
from typing import TypeVar

from medgem_node import part10, routing
from medgem_node.audit import Audit
from medgem_node.card import ModelCard, find_card
from medgem_node.config import Config
from medgem_node.deid.keyring import KeyRing
from medgem_node.deid.options import Profile
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import EngineUnavailable, MedgemError, ModelRejected, NotStored, NotUnderstood
from medgem_node.feedback import is_document
from medgem_node.hearing import hear_document
from medgem_node.job import BadOutcome, Delivery, DeliveryState, Failure, JobState, Outcome, decode_outcome
from medgem_node.ledger.crosswalk import Crosswalk
from medgem_node.ledger.feedback import DocumentState, Feedback, Waiting
from medgem_node.ledger.ledger import Ledger, LedgerJob
from medgem_node.outbox import back_off, send_batch
from medgem_node.preparation import prepare_job
from medgem_node.publication import CannotPublish, earlier_results, publish_job
from medgem_node.rule import Rule
from medgem_node.seams import Destination, Engine, Store
from medgem_node.site import read_site
from medgem_node.study import Instance, Study, StudyState, newest

log = logging.getLogger(__name__)

Thing = TypeVar("Thing")
_TROUBLES = 1000


@dataclass(frozen=True)
class Pipeline:
    """The steps, and what they work on. Each step answers how many things it moved."""

    config: Config
    ledger: Ledger
    audit: Audit
    archive: Store
    exchange: Store
    keys: KeyRing
    crosswalk: Crosswalk
    deid: Mapping[str, Profile]
    engine: Engine
    destinations: Mapping[str, Destination]
    not_before: dict[str, datetime] = field(default_factory=dict)  # of destinations that do not answer
    troubles: set[str] = field(default_factory=set)  # said already

    @property
    def pseudonyms(self) -> Pseudonyms:
        """The node's own, for what stays the same in every epoch."""
        return self.keys.node

    def complete(self, now: datetime) -> int:
        """Studies that were quiet for as long as their rule asks are complete; their next revision begins."""
        return self._each(self._complete, self.ledger.studies(StudyState.RECEIVING), now)

    def route(self, now: datetime) -> int:
        """The first rule that matches chooses the model; without one nothing leaves."""
        return self._each(self._route, self.ledger.studies(StudyState.COMPLETE), now)

    def prepare(self, now: datetime) -> int:
        """De-identified copies into the exchange, then the job: the worker never sees an original."""
        return self._each(self._prepare, self.ledger.studies(StudyState.ROUTED), now)

    def submit(self, now: datetime) -> int:
        """Each due job is claimed by a lease, then handed to the engine, until the engine has no hand free."""
        waiting = self.ledger.jobs(JobState.QUEUED, due=now)
        return sum(1 for _ in takewhile(lambda job: self._each(self._submit, [job], now), waiting))

    def collect(self, now: datetime) -> int:
        """Outcomes become states; a failure worth another try, and a lease that ran out, go back to the queue."""
        return self._each(self._collect, self.ledger.jobs(JobState.SUBMITTED), now)

    def publish(self, now: datetime) -> int:
        """The analysis becomes objects under the patient's own identity, written against the originals."""
        return self._each(self._publish, self.ledger.jobs(JobState.ANALYSED), now)

    def deliver(self, now: datetime) -> int:
        """Each destination gets what it does not have yet; one that fails is left in peace until its back-off ends."""
        due = self.ledger.deliveries(DeliveryState.PENDING, due=now)
        awake = [d for d in due if self.not_before.get(d.destination, now) <= now]
        awake.sort(key=lambda d: (d.destination, d.delivery_id))  # the earlier revision first
        by_destination = [list(batch) for _, batch in groupby(awake, key=lambda d: d.destination)]
        return self._each(self._deliver, by_destination, now)

    def hear(self, now: datetime) -> int:
        """What radiologists sent back is read, linked to the results that it speaks of, and counted."""
        return self._each(self._hear, Feedback(self.ledger.engine).waiting(), now)

    # -- one study, job or destination at a time -----------------------------------------------------------------

    def _each(self, step: Callable[[Thing, datetime], int], things: Sequence[Thing], now: datetime) -> int:
        moved = 0
        for thing in things:
            try:
                moved += step(thing, now)
            except Exception as exc:  # an edge: one study in trouble must not hold up the others; it is tried again
                # no traceback: its last line is what the exception says, and that may be a name
                what = str(exc) if isinstance(exc, MedgemError) else f"at {_place(exc)}"
                trouble = f"{step.__name__[1:]}: {type(exc).__name__} {what}"
                if trouble not in self.troubles:
                    log.error("%s", trouble)
                    self.troubles.add(trouble)
                if len(self.troubles) > _TROUBLES:
                    self.troubles.clear()
        return moved

    def _complete(self, study: Study, now: datetime) -> int:
        if not study.is_quiet(now, self._shortest_quiet()) or not study.is_quiet(now, self._quiet_seconds(study)):
            return 0
        return self._move(study, StudyState.COMPLETE, now)

    def _route(self, study: Study, now: datetime) -> int:
        if study.mixes_patients():
            return self._move(study, StudyState.HELD, now, reason="its instances name more than one patient")
        match = self._match(study, self.config.rules)
        if match is None and not any(self.archive.exists(instance.key) for instance in study.instances):
            return self._move(study, StudyState.HELD, now, reason="its images are missing in the archive")
        if match is None:
            return self._move(study, StudyState.UNMATCHED, now, reason="no rule matches; nothing left the node")
        return self._move(study, StudyState.ROUTED, now, rule=match.rule.name)

    def _prepare(self, study: Study, now: datetime) -> int:
        match = self._match(study, [r for r in self.config.rules if r.name == study.rule])
        if match is None:
            return self._move(study, StudyState.HELD, now, reason="its rule is no longer configured")
        try:
            card = find_card(self.config.models, match.rule.model, match.rule.version)
            read_site(self.config.data, card.name, card.version)
        except ModelRejected as exc:
            return self._move(study, StudyState.HELD, now, reason=f"its model cannot be used: {exc}")
        chosen = [i for i in newest(study.instances) if i.sop_instance_uid in match.sop_instance_uids]
        if earlier := self._job_of_same_images(study, card, chosen):
            return self._move(study, StudyState.PREPARED, now, reason=f"the same images as in {earlier}")
        profile = self.config.profile(match.rule.profile)
        stores, asked = (self.archive, self.exchange), self.deid[match.rule.deid]
        made = prepare_job(study, match.rule, card, profile, chosen, *stores, self.keys, self.crosswalk, asked, now)
        job = made.job
        if made.copies.is_leak:
            log.critical("job %s: %s; no copy left the node", job.job.job_id, made.copies.reason)
            self._note("identity found", job, now, reason=made.copies.reason)
        if not self.ledger.open_job(study, job):  # a late image came between: the study is receiving again
            self.exchange.delete(f"inputs/{job.job.job_id}")
            return 0
        certificate = (made.copies.certificate or {}).get("sha256", "")
        self._note("prepared", job, now, copies=len(job.job.inputs), of=len(chosen), certificate=certificate)
        return 1

    def _submit(self, waiting: LedgerJob, now: datetime) -> int:
        lease_until = now + timedelta(seconds=self.config.engine.lease_seconds)
        if not self.ledger.move_job(waiting, JobState.SUBMITTED, lease_until=lease_until):
            return 0
        submitted = replace(waiting, state=JobState.SUBMITTED)
        try:
            site = read_site(self.config.data, waiting.job.model, waiting.job.version)
            self.engine.submit(replace(waiting.job, site=site))
        except ModelRejected as exc:  # the file was in order when the job was made
            return self._failed(submitted, Failure("model-rejected", str(exc), retryable=False), now)
        except EngineUnavailable:
            self.ledger.move_job(submitted, JobState.QUEUED, lease_until=None)
            return 0
        return 1

    def _collect(self, running: LedgerJob, now: datetime) -> int:
        outcome = self._outcome(running)
        if outcome is None and running.lease_until is not None and running.lease_until > now:
            return 0
        if outcome is not None and outcome.analysis is not None:
            return self._analysed(running, outcome.analysis.reason, outcome.analysis.detail, now)
        failure = outcome.failure if outcome else None
        return self._failed(running, failure or Failure("lease-expired", "the worker gave no answer in time"), now)

    def _publish(self, analysed: LedgerJob, now: datetime) -> int:
        if not self._is_still_of_its_patient(analysed):
            return self._give_up(analysed, "patient-changed", "the study is another patient's meanwhile", now)
        outcome = self._outcome(analysed)
        if outcome and outcome.analysis and outcome.analysis.reason != analysed.reason:
            outcome = None  # it came after the job had been answered for
        replaced = [job for job in self.ledger.earlier_jobs(analysed) if self._is_still_of_its_patient(job)]
        earlier = earlier_results(replaced, self.ledger, self.pseudonyms)
        try:
            results = publish_job(analysed, outcome, earlier, self.archive, self.keys, self.config)
        except (CannotPublish, NotStored) as exc:
            return self._give_up(analysed, "not-written", str(exc), now)
        moved = self.ledger.publish(analysed, results, now)
        self._note("published", analysed, now, objects=len(results))
        for prefix in ("jobs", "inputs"):
            self.exchange.delete(f"{prefix}/{analysed.job.job_id}")
        return moved

    def _deliver(self, due: Sequence[Delivery], now: datetime) -> int:
        moved = 0
        for job_id, batch in groupby(due, key=lambda d: d.job_id):
            options, job = self.config.delivery, self.ledger.job(job_id)
            if job is None or not self._is_still_of_its_patient(job):
                for delivery in batch:
                    reason = "not sent: the study is another patient's meanwhile"
                    self.ledger.move_delivery(delivery, DeliveryState.REFUSED, due_at=now, reason=reason)
                continue
            sending = list(batch)
            sent = send_batch(sending, self.destinations, self.archive, self.ledger, options, now)
            moved += sent.delivered
            to = due[0].destination
            self._note("sent", job, now, to=to, objects=sent.delivered, reason=sent.reason)
            if sent.refused:
                instead = ", ".join(sent.instead) or "nothing"
                self._note("refused", job, now, to=to, objects=", ".join(sent.refused), instead=instead)
            if sent.has_failed:
                self.not_before[to] = now + back_off(sending[0].attempts, options)
                break
        return moved

    def _hear(self, waiting: Waiting, now: datetime) -> int:
        feedback = Feedback(self.ledger.engine)
        heard = hear_document(waiting, self.ledger, feedback, self.archive, self.pseudonyms)
        study, document = waiting.study_instance_uid, self.pseudonyms.digest("document", waiting.key)[:32]
        # the trail first: after a crash between the two an answer stands in it twice rather than never
        if heard.state is DocumentState.NOT_LINKED:
            self.audit.record("not linked", study, now, document=document, reason=heard.reason)
            log.warning("a document of %d bytes is not linked: %s", waiting.size_bytes, heard.reason)
        for job_id, opinions in (heard.opinions or {}).items():
            said = {str(v): n for v, n in Counter(opinion.verdict for opinion in opinions).items()}
            who = {"reader": heard.reader, "complete": heard.complete, "verified": heard.verified}
            self.audit.record("heard", study, now, job=job_id, document=document, verdicts=said, **who)
            log.info("job %s heard: %s", job_id, ", ".join(f"{n} {verdict}" for verdict, n in said.items()))
        return feedback.conclude(waiting, heard, now)

    def _is_still_of_its_patient(self, job: LedgerJob) -> bool:
        """Whether the study names nobody but who it named when the job was made: patients are corrected and merged."""
        study = self.ledger.study(job.study_instance_uid)
        if study is None:
            return False
        then = {i.patient_key for i in study.instances if i.key in job.originals}
        return {i.patient_key for i in newest(study.instances)} == then

    def _give_up(self, job: LedgerJob, reason: str, detail: str, now: datetime) -> int:
        self._note("failed", job, now, reason=reason)
        for prefix in ("jobs", "inputs"):
            self.exchange.delete(f"{prefix}/{job.job.job_id}")
        return self.ledger.move_job(job, JobState.FAILED, reason=reason, detail=detail)

    def _move(self, study: Study, state: StudyState, now: datetime, *, rule: str = "", reason: str = "") -> int:
        if not self.ledger.move(study, state, rule=rule, reason=reason):
            return 0  # a late image came between: the study is receiving again
        images = len(study.instances)
        self.audit.record(state, study.study_instance_uid, now, rule=rule, reason=reason, images=images)
        log.info("study %s %s, %d images %s", self.pseudonyms.uid(study.study_instance_uid), state, images, reason)
        return 1

    def _note(self, event: str, job: LedgerJob, now: datetime, **detail: object) -> None:
        self.audit.record(event, job.study_instance_uid, now, job=job.job.job_id, **detail)
        log.info("job %s %s: %s", job.job.job_id, event, ", ".join(f"{k} {v}" for k, v in detail.items() if v != ""))

    def _match(self, study: Study, rules: Sequence[Rule]) -> routing.Match | None:
        headers = {}
        images = tuple(i for i in study.instances if not is_document(i.sop_class_uid))  # a report chooses no model
        for instance in newest(images):
            try:
                header = part10.decode(self.archive.get(instance.key), headers_only=True)
                part10.check(header, routing.keywords(rules))
                headers[instance.sop_instance_uid] = header
            except (NotStored, NotUnderstood) as exc:
                log.warning("an instance of %d bytes cannot be read: %s; left out", instance.size_bytes, exc)
        return routing.match(headers, replace(study, instances=images).called_ae, rules)

    def _shortest_quiet(self) -> float:
        of_rules = (rule.quiet_seconds for rule in self.config.rules if rule.quiet_seconds >= 0)
        return min([self.config.pipeline.quiet_seconds, *of_rules])

    def _quiet_seconds(self, study: Study) -> float:
        match = self._match(study, self.config.rules)
        own = match.rule.quiet_seconds if match else -1.0
        return own if own >= 0 else self.config.pipeline.quiet_seconds

    def _job_of_same_images(self, study: Study, card: ModelCard, chosen: Sequence[Instance]) -> str:
        """What else came (a report, another series) is nothing new for the model: it would say the same again."""
        keys = tuple(instance.key for instance in chosen)
        for job in self.ledger.jobs(study=study.study_instance_uid):
            same = (job.job.model, job.job.version, job.originals) == (card.name, card.version, keys)
            if same and job.state is not JobState.FAILED:
                return f"revision {job.study_revision}"
        return ""

    def _outcome(self, job: LedgerJob) -> Outcome | None:
        if not self.exchange.exists(job.job.outcome_key):
            return None
        try:
            outcome = decode_outcome(self.exchange.get(job.job.outcome_key))
        except BadOutcome as exc:
            return Outcome(job.job.job_id, failure=Failure("bad-outcome", str(exc)))
        if outcome.job_id != job.job.job_id:
            return Outcome(job.job.job_id, failure=Failure("bad-outcome", "the outcome is of another job"))
        return outcome

    def _analysed(self, job: LedgerJob, reason: str, detail: str, now: datetime) -> int:
        self._note("analysed", job, now, attempt=job.job.attempt, reason=reason)
        return self.ledger.move_job(job, JobState.ANALYSED, analysed_at=now, reason=reason, detail=detail)

    def _failed(self, job: LedgerJob, failure: Failure, now: datetime) -> int:
        if not failure.retryable or job.job.attempt >= self.config.engine.attempts:
            return self._analysed(job, failure.reason, failure.detail, now)
        log.warning("job %s attempt %d: %s; it runs again", job.job.job_id, job.job.attempt, failure.reason)
        due_at = now + timedelta(seconds=self.config.engine.retry_seconds)
        changes = {"attempt": job.job.attempt + 1, "due_at": due_at, "lease_until": None, "reason": failure.reason}
        return self.ledger.move_job(job, JobState.QUEUED, **changes)


def _place(exc: Exception) -> str:
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


STEPS: tuple[Callable[[Pipeline, datetime], int], ...] = (
    Pipeline.complete,
    Pipeline.route,
    Pipeline.prepare,
    Pipeline.submit,
    Pipeline.collect,
    Pipeline.publish,
    Pipeline.deliver,
    Pipeline.hear,
)
"""In the order in which a study meets them; what is heard comes after what was delivered."""
