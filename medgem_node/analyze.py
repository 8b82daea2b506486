"""The whole path without a network: DICOM files in, result objects in a folder.

The same steps as in the node: copies are de-identified, the worker sees nothing else, results are written against the
originals.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydicom import Dataset

from medgem_node import part10, plug
from medgem_node.card import ModelCard
from medgem_node.config import Config
from medgem_node.copies import Original, make_copies
from medgem_node.deid.deidentifier import Deidentifier
from medgem_node.deid.options import profile_of
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import ModelRejected, NotUnderstood
from medgem_node.evidence import Source
from medgem_node.finding import Analysis, Finding, not_analysed
from medgem_node.inbox import patient
from medgem_node.job import Job, decode_outcome
from medgem_node.publication import check_profile, result_uid, station, write_objects
from medgem_node.seams import Store
from medgem_node.site import read_site

log = logging.getLogger(__name__)

_UIDS = ("StudyInstanceUID", "SOPInstanceUID", "SOPClassUID")


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Every file that `paths` name, or that lies below them, in the order of their names."""
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        else:
            yield path


def analyze(
    files: Sequence[Path], card: ModelCard, out: Path | None, config: Config, candidates: bool = False
) -> Iterator[dict[str, Any]]:
    """One answer for each study in `files`, and one for each file that is no DICOM image; objects go to `out`.

    The pseudonym key lives only as long as the call, so two runs give two sets of objects.
    """
    check_profile(config.profile())
    studies: dict[str, list[Dataset]] = {}
    for path in files:
        try:
            instance = part10.decode(path.read_bytes())
            part10.check(instance, _UIDS)
            patient(instance)
            uids = [str(instance.get(k) or "") for k in _UIDS]
        except (NotUnderstood, OSError) as exc:
            yield _refused_file(path, card, "not-dicom", str(exc))
            continue
        if not all(uids):
            yield _refused_file(
                path, card, "no-uid", "Study Instance UID, SOP Instance UID or SOP Class UID is missing"
            )
            continue
        studies.setdefault(uids[0], []).append(instance)
    with TemporaryDirectory(prefix="medgem-") as folder:
        exchange = plug.open_store(Path(folder).as_uri())
        for study_instance_uid, instances in studies.items():
            yield _analyze_study(study_instance_uid, instances, card, exchange, out, config, candidates)


def _analyze_study(
    study_instance_uid: str,
    originals: Sequence[Dataset],
    card: ModelCard,
    exchange: Store,
    out: Path | None,
    config: Config,
    candidates: bool,
) -> dict[str, Any]:
    pseudonyms = Pseudonyms(secrets.token_bytes(32))
    if len({patient(o) for o in originals}) > 1:  # as the node: held, and nothing is written
        mixed = not_analysed(card.name, card.version, "mixed-patients", "its instances name more than one patient")
        return answer(study_instance_uid, mixed)
    analysis = _detect(originals, card, exchange, pseudonyms, config)
    if out is not None:
        uid = result_uid(pseudonyms, study_instance_uid, 1, card.name, card.version)

        def write(analysis: Analysis) -> dict[str, bytes]:
            profile = replace(config.profile(), instead={})  # nobody is there to refuse anything
            source = Source(card, station(config, pseudonyms), datetime.now(UTC).astimezone(), profile.region)
            made = write_objects(analysis, originals, source, uid, profile)
            instances = [thing.instance for thing in made]
            return {f"{i.Modality}-{i.SOPInstanceUID}.dcm": part10.encode(i) for i in instances}

        analysis, data_by_name = _written(analysis, write)
        for name, data in data_by_name.items():
            folder = out / _file_name(study_instance_uid)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return answer(study_instance_uid, analysis, candidates)


def _written(analysis: Analysis, write: Callable[[Analysis], dict[str, bytes]]) -> tuple[Analysis, dict[str, bytes]]:
    """The objects and what they say: when they cannot be written, that they could not, and perhaps a report of it."""
    try:
        return analysis, write(analysis)
    except Exception as exc:  # an edge: the other studies of the folder have their answers all the same
        log.warning("results could not be written: %s", type(exc).__name__)
        detail = f"The analysis was made, but its results could not be written ({type(exc).__name__})"
        apology = not_analysed(analysis.model, analysis.version, "not-written", detail)
    try:
        return apology, write(apology)
    except Exception:  # not even a report can be written of these headers
        return apology, {}


def _detect(
    originals: Sequence[Dataset], card: ModelCard, exchange: Store, pseudonyms: Pseudonyms, config: Config
) -> Analysis:
    asked = Deidentifier(pseudonyms, profile_of(config.deid.get("", {}), config.node.deid))
    seen = [
        Original(str(o.SOPInstanceUID), str(o.get("SeriesInstanceUID")), partial(part10.encode, o)) for o in originals
    ]
    copies = make_copies(seen, asked, exchange, "inputs", datetime.now(UTC))
    if not copies.keys:
        detail = f"No image could be de-identified with certainty: {copies.reason}"
        return not_analysed(card.name, card.version, "not-deidentified", detail)
    try:
        site = read_site(config.data, card.name, card.version)
    except ModelRejected as exc:
        return not_analysed(card.name, card.version, "model-rejected", str(exc))
    job = Job(secrets.token_hex(16), card.name, card.version, copies.keys, site=site)
    import_module("medgem_node.worker").work(job, exchange, config.models, config.engine.backend)
    outcome = decode_outcome(exchange.get(job.outcome_key))
    exchange.delete("inputs")
    if outcome.failure is not None or outcome.analysis is None:
        why = outcome.failure
        reason, detail = (why.reason, why.detail) if why else ("failed", "")
        return not_analysed(card.name, card.version, reason, detail)
    uids = [original.sop_instance_uid for original in seen]
    return outcome.analysis.renamed({uid: uid for uid in uids} | pseudonyms.uid_map(uids))


def answer(study_instance_uid: str, analysis: Analysis, candidates: bool = False) -> dict[str, Any]:
    """One line of `--json`: boxes in pixel coordinates of the image that they name."""
    line = {
        "study": study_instance_uid,
        "model": analysis.model,
        "version": analysis.version,
        "applicable": analysis.applicable,
        "reason": ": ".join(filter(None, (analysis.reason, analysis.detail))),
        "findings": [_finding(f) for f in analysis.findings if f.present],
        "measurements": [
            {
                "code": m.code.value,
                "scheme": m.code.scheme,
                "meaning": m.label or m.code.meaning,
                "value": m.value,
                "unit": m.unit.value,
            }
            for m in dict.fromkeys((*analysis.measurements, *(m for f in analysis.findings for m in f.measurements)))
        ],
        "seconds": round(analysis.seconds, 3),
    }
    if candidates:
        line["candidates"] = [_finding(f) for f in analysis.candidates]
    return line


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code.value,
        "scheme": finding.code.scheme,
        "meaning": finding.code.meaning,
        "probability": round(finding.probability, 4) if finding.calibrated else None,
        "score": round(finding.probability, 4),
        "tier": finding.tier,
        "explanation": finding.explanation,
        "box_xyxy": [round(v, 1) for v in finding.box.xyxy] if finding.box else None,
        "image": finding.image,
    }


def _refused_file(path: Path, card: ModelCard, reason: str, detail: str) -> dict[str, Any]:
    return {**answer("", not_analysed(card.name, card.version, reason, detail)), "file": os.fspath(path)}


def _file_name(uid: str) -> str:
    return "".join(c for c in uid if c.isalnum() or c == ".")[:64].strip(".") or "study"
