"""Writing results: an analysis in pseudonymous UIDs becomes objects under the patient's own identity.

Nothing is re-identified: the writers get the originals as evidence and copy patient and study from there. Before an
object may leave, its patient and study are compared with the originals' once more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydicom import Dataset

from medgem_node import part10, plug
from medgem_node.card import find_card
from medgem_node.config import Config
from medgem_node.deid.keyring import KeyRing
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import ConfigError, MedgemError, NotUnderstood
from medgem_node.evidence import Earlier, Source, Station
from medgem_node.finding import Analysis, not_analysed
from medgem_node.job import DeliveryState, Outcome
from medgem_node.ledger.ledger import Ledger, LedgerJob, Result
from medgem_node.seams import Store
from medgem_node.viewer_profile import ViewerProfile

log = logging.getLogger(__name__)

ANSWER = "measurement_report"
"""Written where a profile would leave a study without any object."""


_LONGEST_SECONDS = 86_400.0  # of an analysis; what says more is not believed


class CannotPublish(MedgemError):
    """Not even the answer "not analysed" can be written."""


class WrongPatient(MedgemError):
    """A result names another patient or study than the images it was made from."""


@dataclass(frozen=True, slots=True)
class Written:
    """One result object, of the kind that its profile calls it."""

    kind: str
    instance: Dataset


def station(config: Config, pseudonyms: Pseudonyms) -> Station:
    """How this node names itself in the objects that it writes; the serial number tells installations apart."""
    title = config.node.ae_title
    return Station(serial_number=pseudonyms.digest("station", title)[:16], ae_title=title)


def result_uid(pseudonyms: Pseudonyms, *of: object) -> Callable[[str], str]:
    """`uid(role)`: the same for the same study, revision, model and role, and for no other (PS3.5 B.2)."""
    subject = "|".join(map(str, of))
    return lambda role: f"2.25.{int(pseudonyms.digest('result', f'{subject}|{role}')[:32], 16)}"


def job_uid(pseudonyms: Pseudonyms, job: LedgerJob) -> Callable[[str], str]:
    """The `result_uid` of a job. Another profile gives other UIDs, as what it writes differs."""
    of = (job.study_instance_uid, job.study_revision, job.job.model, job.job.version)
    return result_uid(pseudonyms, *of, *([job.profile.to_json()] if job.profile else []))


def check_profile(profile: ViewerProfile) -> None:
    """Raises ConfigError if a profile names a writer or a variant that is not there."""
    for kind in (*profile.objects, *profile.spares):
        try:
            full_kind(kind)
        except ConfigError as exc:
            raise ConfigError(f'viewer profile "{profile.name}": {exc}') from exc


def full_kind(kind: str) -> str:
    """`writer/variant`, also where only the writer is named. Raises ConfigError if there is no such variant."""
    name, _, variant = kind.partition("/")
    variants: Sequence[str] = getattr(plug.load("writers", name), "VARIANTS", ())
    if variant and variant not in variants:
        raise ConfigError(f'{name} has no variant "{variant}"; known are {", ".join(variants) or "none"}')
    return "/".join((name, variant or "".join(variants[:1])))


def earlier_results(jobs: Sequence[LedgerJob], ledger: Ledger, pseudonyms: Pseudonyms) -> Earlier | None:
    """What was delivered of the first of `jobs` of which anything was; a role leads to what stood in its place."""
    for job in jobs:
        delivered = ledger.deliveries(DeliveryState.DELIVERED, job_id=job.job.job_id)
        if delivered:
            sop_class_uid = {d.sop_instance_uid: d.sop_class_uid for d in delivered}
            return Earlier(_delivered_uid(job, frozenset(sop_class_uid), job_uid(pseudonyms, job)), sop_class_uid)
    return None


def _delivered_uid(job: LedgerJob, delivered: frozenset[str], uid: Callable[[str], str]) -> Callable[[str], str]:
    spares = job.profile.spares if job.profile else ()

    def delivered_uid(role: str) -> str:
        forms = (uid(role), *(_spare_uid(uid, kind, uid(role)) for kind in spares))
        return next((form for form in forms if form in delivered), uid(role))

    return delivered_uid


def _spare_uid(uid: Callable[[str], str], kind: str, sop_instance_uid: str) -> str:
    """A writer knows one UID for a role; what is sent in its place is another object, and gets one of its own."""
    return uid(f"{kind} in place of {sop_instance_uid}")


def publish_job(
    job: LedgerJob,
    outcome: Outcome | None,
    earlier: Earlier | None,
    archive: Store,
    ring: KeyRing,
    config: Config,
) -> tuple[Result, ...]:
    """Write the objects of a job into the archive; the same job gives the same objects. Raises CannotPublish.

    When the analysis cannot be written, the answer is that it could not: no study goes without one. The outcome may
    speak in the pseudonyms of an older epoch: keys were rotated while the job was under way.
    """
    originals = [_original(archive.get(key)) for key in job.originals]
    card = find_card(config.models, job.job.model, job.job.version)
    uid = job_uid(ring.node, job)
    analysis = _analysis(job, outcome, _uid_map(ring, originals))
    at = _began(job, analysis)
    profile = job.profile or replace(config.profile(), instead={})
    source = Source(card, station(config, ring.node), at, profile.region, earlier)

    def write(analysis: Analysis, profile: ViewerProfile) -> tuple[tuple[Written, bytes], ...]:
        made = write_objects(analysis, originals, source, uid, profile)
        return tuple((thing, part10.encode(thing.instance)) for thing in made)

    try:
        objects = write(analysis, profile)
    except MedgemError as exc:
        if exc.retryable:
            raise
        objects = _apology(job, analysis, exc, profile, write)
    except Exception as exc:  # an edge: a writer met what nobody foresaw; the study is answered all the same
        objects = _apology(job, analysis, exc, profile, write)
    results = []
    for thing, data in objects:
        key = f"results/{job.job.job_id}/{thing.instance.SOPInstanceUID}.dcm"
        archive.put(key, data)
        results.append(Result(str(thing.instance.SOPInstanceUID), str(thing.instance.SOPClassUID), key, thing.kind))
    return tuple(results)


def _uid_map(ring: KeyRing, originals: Sequence[Dataset]) -> dict[str, str]:
    """What a worker may call an original: its pseudonym of any epoch, or itself where UIDs are retained."""
    uids = [str(original.SOPInstanceUID) for original in originals]
    return {**{uid: uid for uid in uids}, **ring.uid_map(uids)}


def write_objects(
    analysis: Analysis,
    originals: Sequence[Dataset],
    source: Source,
    uid: Callable[[str], str],
    profile: ViewerProfile,
) -> tuple[Written, ...]:
    """Every object of a profile, in order, each followed by what could take its place. Raises WrongPatient.

    A profile that has nothing to say of the analysis leaves it to the report: no study goes without an answer.
    """
    analysed = [o for o in originals if str(o.SOPInstanceUID) in analysis.images] or list(originals)
    made: list[Dataset] = []
    written: list[Written] = []

    def write(kind: str) -> list[Dataset]:
        name, _, variant = kind.partition("/")
        writer = plug.load("writers", name).create(source, *([variant] if variant else []))
        things = list(writer.write(analysis, analysed, tuple(made), uid))
        for thing in things:
            _check_patient(thing, analysed[0])
        return things

    for kind in profile.objects:
        objects = write(kind)
        written += [Written(kind, thing) for thing in objects]
        known = {thing.kind for thing in written}
        for spare in (s for s in profile.instead.get(kind, ()) if objects and s not in known):
            written += [Written(spare, thing) for thing in _spare(spare, write, uid)]
        made += objects
    return tuple(written) or tuple(Written(ANSWER, thing) for thing in write(ANSWER))


def _spare(kind: str, write: Callable[[str], list[Dataset]], uid: Callable[[str], str]) -> list[Dataset]:
    """Objects that are sent only in place of others; the study has its answer without them."""
    try:
        things = write(kind)
    except Exception as exc:  # an edge: what may never be needed must not cost what is
        log.warning("%s, which would be sent in place of another, could not be written: %s", kind, type(exc).__name__)
        return []
    for thing in things:
        thing.SOPInstanceUID = _spare_uid(uid, kind, str(thing.SOPInstanceUID))
        thing.file_meta.MediaStorageSOPInstanceUID = thing.SOPInstanceUID
    return things


def _began(job: LedgerJob, analysis: Analysis) -> datetime:
    """When the analysis began (IHE AIR); local, with offset: dates in DICOM are the site's."""
    seconds = analysis.seconds if isinstance(analysis.seconds, int | float) else 0.0  # a worker is not trusted
    lasted = timedelta(seconds=min(max(0.0, seconds), _LONGEST_SECONDS))
    return ((job.analysed_at or job.created_at) - lasted).astimezone()


def _original(data: bytes) -> Dataset:
    """An original, or its header when there is no parsing its pixels: enough to say that it was not analysed."""
    try:
        return part10.decode(data)
    except NotUnderstood:
        return part10.decode(data, headers_only=True)


def _analysis(job: LedgerJob, outcome: Outcome | None, original_uid: dict[str, str]) -> Analysis:
    if outcome is None or outcome.analysis is None:
        return not_analysed(job.job.model, job.job.version, job.reason or "failed", job.detail)
    try:
        return outcome.analysis.renamed(original_uid)
    except KeyError:
        detail = "the outcome speaks of an image that is not of this study"
        return not_analysed(job.job.model, job.job.version, "bad-outcome", detail)


def _apology(
    job: LedgerJob,
    analysis: Analysis,
    exc: Exception,
    profile: ViewerProfile,
    write: Callable[[Analysis, ViewerProfile], tuple[tuple[Written, bytes], ...]],
) -> tuple[tuple[Written, bytes], ...]:
    log.error("job %s: results could not be written: %s", job.job.job_id, type(exc).__name__)
    detail = f"The analysis was made, but its results could not be written ({type(exc).__name__})"
    apology = not_analysed(analysis.model, analysis.version, "not-written", detail)
    last = exc
    for attempt in (profile, replace(profile, objects=(ANSWER,), instead={})):
        try:
            return write(apology, attempt)
        except Exception as another:  # an edge: a writer may stumble over the same header again
            last = another
    raise CannotPublish(f"no report could be written: {type(exc).__name__}, {type(last).__name__}") from last


def _check_patient(thing: Dataset, original: Dataset) -> None:
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID"):
        if str(thing.get(keyword) or "") != str(original.get(keyword) or ""):
            raise WrongPatient(f"{keyword} of a result differs from its source; it was not written")
