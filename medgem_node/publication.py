"""Writing results: an analysis in pseudonymous UIDs becomes objects under the patient's own identity.

Nothing is re-identified: the writers get the originals as evidence and copy patient and study from there. Before an
object may leave, its patient and study are compared with the originals' once more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pydicom import Dataset

from medgem_node import part10, plug
from medgem_node.card import find_card
from medgem_node.config import Config
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import MedgemError, NotUnderstood
from medgem_node.evidence import Source, Station
from medgem_node.finding import Analysis, not_analysed
from medgem_node.job import Outcome
from medgem_node.ledger.ledger import LedgerJob, Result
from medgem_node.seams import Store
from medgem_node.viewer_profile import find_profile

log = logging.getLogger(__name__)


class CannotPublish(MedgemError):
    """Not even the answer "not analysed" can be written."""


class WrongPatient(MedgemError):
    """A result names another patient or study than the images it was made from."""


def station(config: Config, pseudonyms: Pseudonyms) -> Station:
    """How this node names itself in the objects that it writes; the serial number tells installations apart."""
    title = config.node.ae_title
    return Station(serial_number=pseudonyms.digest("station", title)[:16], ae_title=title)


def result_uid(pseudonyms: Pseudonyms, *of: object) -> Callable[[str], str]:
    """`uid(role)`: the same for the same study, revision, model and role, and for no other (PS3.5 B.2)."""
    subject = "|".join(map(str, of))
    return lambda role: f"2.25.{int(pseudonyms.digest('result', f'{subject}|{role}')[:32], 16)}"


def publish_job(
    job: LedgerJob, outcome: Outcome | None, archive: Store, pseudonyms: Pseudonyms, config: Config
) -> tuple[Result, ...]:
    """Write the objects of a job into the archive; the same job gives the same objects. Raises CannotPublish.

    When the analysis cannot be written, the answer is that it could not: no study goes without one.
    """
    originals = [_original(archive.get(key)) for key in job.originals]
    card = find_card(config.models, job.job.model, job.job.version)
    uid = result_uid(pseudonyms, job.study_instance_uid, job.study_revision, job.job.model, job.job.version)
    at = (job.analysed_at or job.created_at).astimezone()  # local, with offset: dates in DICOM are the site's
    us, profile = station(config, pseudonyms), find_profile(config.profiles, config.results.profile)

    def write(analysis: Analysis) -> tuple[tuple[Dataset, bytes], ...]:
        made = write_objects(analysis, originals, Source(card, us, at, profile.region), uid, profile.objects)
        return tuple((thing, part10.encode(thing)) for thing in made)

    analysis = _analysis(job, outcome, pseudonyms.uid_map(str(o.SOPInstanceUID) for o in originals))
    try:
        objects = write(analysis)
    except MedgemError as exc:
        if exc.retryable:
            raise
        objects = _apology(job, analysis, exc, write)
    except Exception as exc:  # an edge: a writer met what nobody foresaw; the study is answered all the same
        objects = _apology(job, analysis, exc, write)
    results = []
    for thing, data in objects:
        key = f"results/{job.job.job_id}/{thing.SOPInstanceUID}.dcm"
        archive.put(key, data)
        results.append(Result(str(thing.SOPInstanceUID), str(thing.SOPClassUID), key))
    return tuple(results)


def write_objects(
    analysis: Analysis,
    originals: Sequence[Dataset],
    source: Source,
    uid: Callable[[str], str],
    objects: Sequence[str],
) -> tuple[Dataset, ...]:
    """Every object of the kinds `objects`, each written `writer` or `writer/variant`, in order. Raises WrongPatient."""
    analysed = [o for o in originals if str(o.SOPInstanceUID) in analysis.images] or list(originals)
    made: list[Dataset] = []
    for kind in objects:
        name, _, variant = kind.partition("/")
        writer = plug.load("writers", name).create(source, *([variant] if variant else []))
        for thing in writer.write(analysis, analysed, tuple(made), uid):
            _check_patient(thing, analysed[0])
            made.append(thing)
    return tuple(made)


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
    job: LedgerJob, analysis: Analysis, exc: Exception, write: Callable[[Analysis], tuple[tuple[Dataset, bytes], ...]]
) -> tuple[tuple[Dataset, bytes], ...]:
    log.error("job %s: results could not be written: %s", job.job.job_id, type(exc).__name__)
    detail = f"The analysis was made, but its results could not be written ({type(exc).__name__})"
    try:
        return write(not_analysed(analysis.model, analysis.version, "not-written", detail))
    except Exception as second:
        raise CannotPublish(f"no report could be written: {type(exc).__name__}, {type(second).__name__}") from second


def _check_patient(thing: Dataset, original: Dataset) -> None:
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID"):
        if str(thing.get(keyword) or "") != str(original.get(keyword) or ""):
            raise WrongPatient(f"{keyword} of a result differs from its source; it was not written")
