"""De-identification of folders, for people who want only that."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgem_node.commands.common import Command, configured, say
from medgem_node.errors import ConfigError, OutOfResources

if TYPE_CHECKING:
    from medgem_node.config import Config
    from medgem_node.deid.folder import Report
    from medgem_node.deid.keyring import KeyRing
    from medgem_node.deid.options import Profile
    from medgem_node.deid.pseudonym import Pseudonyms

_WHOSE = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate")
_LINKED = {
    "PatientID": "patient",
    "AccessionNumber": "accession",
    "StudyInstanceUID": "study",
    "SeriesInstanceUID": "series",
    "SOPInstanceUID": "instance",
    "FrameOfReferenceUID": "uid",
}
"""What the crosswalk knows of a copy, by its kinds; other UIDs are made again from the originals."""


def add(command: Command) -> None:
    """deidentify."""
    made = command("deidentify", _deidentify, "De-identify DICOM files (PS3.15 Annex E).")
    made.add_argument("input", type=Path, metavar="IN", help="a DICOM file, or a folder of them")
    made.add_argument("output", type=Path, metavar="OUT", help="folder of the copies; relative names are kept")
    made.add_argument("--profile", type=Path, metavar="FILE", help="a deid.toml; default: Basic Profile, no options")
    made.add_argument("--report", type=Path, metavar="FILE", help="write what became of every file there, as JSON")
    made.add_argument("--certificates", type=Path, metavar="DIR", help="write a certificate for each study there")
    made.add_argument("--k", type=int, metavar="N", help="report patients in groups of fewer than N alike")
    made.add_argument("--quasi", metavar="KEYWORDS", help="with --k: what makes patients alike, as PatientSex,Modality")
    made.add_argument("--processes", type=int, default=0, metavar="N", help="0: as many as there are cores")
    made.add_argument(
        "--crosswalk", action="store_true", help="keep what stands for what, encrypted, in the data folder"
    )


def _deidentify(options: argparse.Namespace) -> int:
    from medgem_node.deid import anonymity
    from medgem_node.deid.options import BASIC, read_profile

    quasi = anonymity.identifiers(options.quasi.split(",") if options.quasi else anonymity.USUAL)
    if options.k is not None and options.k < 2:
        raise ConfigError(f"--k {options.k}: a group of one is the smallest there is; write 2 or more")
    if options.processes < 0:
        raise ConfigError(f"--processes {options.processes}: write how many, or 0 for as many as there are cores")
    report = _run(options, read_profile(options.profile) if options.profile else BASIC)
    content = report.content()
    if options.k is not None:
        copies = [outcome.copy for outcome in report.outcomes if outcome.status == "written"]
        found = anonymity.groups(anonymity.patients(options.output, copies, quasi), quasi, options.k)
        content["k_anonymity"] = found
        say(anonymity.sentence(found))
    if options.report:
        _write(options.report, content)
    for uid, certificate in report.certificates.items() if options.certificates else ():
        _write(options.certificates / f"{uid}.json", certificate)
    return _told(report, options.output)


def _run(options: argparse.Namespace, profile: Profile) -> Report:
    from medgem_node.deid.deidentifier import Deidentifier
    from medgem_node.deid.folder import deidentify_folder
    from medgem_node.deid.keyring import keys_of
    from medgem_node.deid.options import Option

    config = configured(options)
    config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    ring, now = keys_of(config), datetime.now(UTC).astimezone()
    epoch, pseudonyms = ring.epoch, ring.current()
    has_shift = Option.RETAIN_MODIFIED_DATES in profile.options

    def note(original: str, copy: str) -> list[Any]:
        return _links(original, copy, pseudonyms, ring.node, has_shift)

    with _bar() as progress:
        report = deidentify_folder(
            options.input,
            options.output,
            Deidentifier(pseudonyms, profile),
            pseudonyms,
            profile,
            now=now,
            processes=options.processes or _cores(),
            certifies=bool(options.report or options.certificates),
            masks_of=_face_masks,
            note=note if options.crosswalk else None,
            progress=progress,
        )
    if options.crosswalk:
        _record(report.notes(), epoch, now, ring, config)
    return report


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _face_masks(instances: Sequence[bytes], seed: int) -> Mapping[str, Any]:
    from medgem_node.deid.faces import face_masks

    return face_masks(instances, seed)


def _links(original: str, copy: str, pseudonyms: Pseudonyms, node: Pseudonyms, has_shift: bool) -> list[Any]:
    """Whose an original is, as the ledger knows patients, and what stands for what in its copy."""
    from pydicom import dcmread

    from medgem_node.inbox import patient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote values
        wanted = [*_WHOSE, *_LINKED]
        before, after = (dcmread(path, stop_before_pixels=True, specific_tags=wanted) for path in (original, copy))
        whose = patient(before)
        said = {keyword: tuple(str(d.get(keyword) or "") for d in (after, before)) for keyword in wanted}
    patient_id, issuer = said["PatientID"][1], said["IssuerOfPatientID"][1]
    days = pseudonyms.days(patient_id, issuer, said["StudyInstanceUID"][1]) if has_shift else None
    links = [(kind, *said[k], issuer if kind == "patient" else "", days if kind == "patient" else None)
             for k, kind in _LINKED.items() if all(said[k]) and said[k][0] != said[k][1]]  # fmt: skip
    return [node.digest("patient", whose), links]


def _record(notes: Sequence[Any], epoch: int, now: datetime, ring: KeyRing, config: Config) -> None:
    """Put the links into the crosswalk, patient by patient. Safe to call twice."""
    from medgem_node.audit import Audit
    from medgem_node.ledger.crosswalk import Crosswalk, Kind, Link
    from medgem_node.ledger.ledger import Ledger

    links_of: dict[str, dict[Link, None]] = {}
    for patient_key, links in notes:
        links_of.setdefault(patient_key, {}).update((Link(Kind(kind), *rest), None) for kind, *rest in links)
    ledger = Ledger(config.database_url)
    try:
        crosswalk = Crosswalk(ledger.engine, ring, Audit(ledger.engine).record)
        for patient_key, known in links_of.items():
            crosswalk.record(patient_key, list(known), epoch, now)
    finally:
        ledger.close()


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Shows how many files of how many are done, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its thread would be there when a process is forked
    with tqdm(unit="file") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _told(report: Report, output: Path) -> int:
    """Say what became of the files; names are the user's own, so they may stand on his terminal."""
    for name, outcome in zip(report.names, report.outcomes, strict=True):
        if outcome.status == "held":
            say(f"{name}: held: {outcome.reason}", sys.stderr)
    for alert in report.alerts:
        say(f"medgem-node: LEAK FOUND: {alert}. Its copies were removed; please report this fault", sys.stderr)
    written, total = report.count("written"), len(report.names)
    rest = f"{report.count('held')} held, {report.count('not DICOM')} not DICOM"
    say(f"{written} of {total} files de-identified into {output}, {rest}")
    if report.is_full:
        raise OutOfResources(f"{output}: no more can be written there (full, or read-only); the run was broken off")
    return 0


def _write(path: Path, content: Any) -> None:
    """As JSON, for its owner only: replaces whole. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=".draft-", dir=path.parent)  # mode 0600
        with os.fdopen(handle, "w", encoding="ascii") as file:
            json.dump(content, file, indent=1)
        os.replace(draft, path)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written ({exc.strerror}); the copies are there") from exc
