"""A folder of files in, a folder of de-identified copies out, and a report of every file.

Nothing is lost in silence: whatever lies in the folder is written, held with a reason, or said to be no DICOM. A copy
is there whole or not at all, under the name of its original unless that tells whom it shows. A second run gives the
same bytes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from medgem_node.deid import certificate, file_name
from medgem_node.deid.certificate import Deeds, Written
from medgem_node.deid.copyist import Copyist, MasksOf, Note, Outcome, is_copy_of, original_uids
from medgem_node.deid.crew import Died, Message, Task, shared_out
from medgem_node.deid.deidentifier import Deidentifier
from medgem_node.deid.file_name import FileNames
from medgem_node.deid.options import Option, Profile
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import ConfigError

LEAK = "the proof found something of the patient in a copy of this study, so all of the study is held"
_NO_ROOM = "not tried: there is no room for copies, or they may not be written"
_DRAFTS = ".partial-"
_CLOCK_SECONDS = 2.0  # by which the clock of a file server may lag
_MOST_AT_ONCE = 32  # files of a task: few enough that all end together, enough that a series stays with one process


@dataclass(slots=True)
class Report:
    """What became of every file; `outcomes[n]` is that of `names[n]`."""

    profile: Profile
    made_at: datetime
    names: Sequence[str]
    outcomes: list[Outcome] = field(default_factory=list)
    certificates: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By pseudonymous Study Instance UID."""
    alerts: list[str] = field(default_factory=list)
    is_full: bool = False

    def notes(self) -> list[Any]:
        """What was noted of the originals that have a copy."""
        return [outcome.note for outcome in self.outcomes if outcome.status == "written"]

    def count(self, status: str) -> int:
        """How many files have this status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    def content(self) -> dict[str, Any]:
        """As JSON. It names files as they came, so it stays where the originals are."""
        return {
            "report": 1,
            "software": certificate.SOFTWARE,
            "profile": certificate.PROFILE,
            "table": certificate.TABLE,
            "date": self.made_at.isoformat(timespec="seconds"),
            "pixels": self.profile.pixels,
            "options": sorted(map(str, self.profile.options)),
            "alerts": self.alerts,
            "counts": {status: self.count(status) for status in ("written", "held", "not DICOM")},
            "files": [_line(name, outcome) for name, outcome in zip(self.names, self.outcomes, strict=True)],
            "certificates": list(self.certificates.values()),
        }


def deidentify_folder(
    source: Path,
    target: Path,
    deidentifier: Deidentifier,
    pseudonyms: Pseudonyms,
    profile: Profile,
    *,
    now: datetime,
    processes: int = 1,
    certifies: bool = False,
    masks_of: MasksOf | None = None,
    note: Note | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Report:
    """De-identified copies of every DICOM file of `source` (a file or a folder) below `target`.

    Safe to run twice: replaces its own copies with the same bytes, never another file.

    Parameters
    ----------
    certifies
        Hash the copies and make a certificate for each study; it costs as much as writing them.
    masks_of
        What is blanked in the images of a series; asked if the profile cleans recognizable features.
    note
        Asked of each original and its copy; the answers are in the report, for a crosswalk.
    progress
        Told how many files are done, and how many there are.

    Raises
    ------
    ConfigError
        If `source` is not there, or one folder lies within the other.
    """
    root, names = _found(source, target)
    inside = os.path.realpath(target)
    by_series = Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES in profile.options and masks_of is not None
    tasks = _series(root, names) if by_series else _chunks(len(names), processes)
    file_names = FileNames(pseudonyms, Option.RETAIN_UIDS in profile.options)
    run = _Run(inside, names, file_names, time.time())
    with _drafts(inside) as drafts:
        copyist = Copyist(root, inside, drafts, names, deidentifier, pseudonyms, file_names, certifies, masks_of, note)
        try:
            with closing(shared_out(tasks, lambda: copyist, processes)) as answers:
                for said in answers:
                    run.hear(said)
                    progress(len(run.outcomes), len(names))
                    if run.is_full:
                        break
        finally:
            run.settle()
    return run.report(profile, now, certifies)


@dataclass(slots=True)
class _Run:
    """What is known so far of a run, and what has to be taken back."""

    target: str
    names: Sequence[str]
    file_names: FileNames
    began: float
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    deeds: dict[str, Deeds] = field(default_factory=lambda: defaultdict(Deeds))
    instead: dict[str, str] = field(default_factory=dict)
    stopped: dict[str, str] = field(default_factory=dict)
    is_full: bool = False

    def hear(self, said: Message | Died) -> None:
        """Take in what a member said."""
        if isinstance(said, Died):
            for number in said.numbers:
                self.outcomes[number] = Outcome(number, "held", said.how)
                for name in self.file_names.possible(self.names[number]):
                    with suppress(OSError):
                        if self._is_of_this_run(f"{self.target}/{name}"):
                            os.unlink(f"{self.target}/{name}")
            return
        answers, deeds = said
        for answer in answers:
            self._take(Outcome(*answer))
        for study, done in deeds.items():
            self.deeds[study].join(Deeds.from_json(done))

    def settle(self) -> None:
        """Take another name for every component that was found to name somebody, in whichever file."""
        for number, outcome in self.outcomes.items():
            name = file_name.renamed(outcome.copy, self.instead)
            if outcome.status == "written" and name != outcome.copy:
                self.outcomes[number] = self._moved(outcome, name)

    def report(self, profile: Profile, now: datetime, certifies: bool) -> Report:
        """Of all files."""
        outcomes = [self.outcomes.get(n) or Outcome(n, "held", _NO_ROOM) for n in range(len(self.names))]
        written: dict[str, list[Written]] = defaultdict(list)
        for each in outcomes:
            if each.status == "written":
                written[each.study_instance_uid].append(Written(each.sop_instance_uid, each.sha256, each.copy))
        certificates = {
            uid: certificate.of_study(uid, files, self.deeds[uid], profile, now)
            for uid, files in sorted(written.items())
            if certifies
        }
        return Report(profile, now, self.names, outcomes, certificates, [*self.stopped.values()], self.is_full)

    def _take(self, outcome: Outcome) -> None:
        self.instead.update(outcome.instead)
        self.is_full |= outcome.alarm == "full"
        study = outcome.study_instance_uid
        if outcome.alarm == "leak" and study not in self.stopped:
            self.stopped[study] = f"study {study or 'without a UID'}: {outcome.reason}"
            for number, other in self.outcomes.items():
                if other.status == "written" and study in ("", other.study_instance_uid):
                    self.outcomes[number] = self._taken_back(other)
        if outcome.status == "written" and (study in self.stopped or "" in self.stopped):
            outcome = self._taken_back(outcome)
        self.outcomes[outcome.number] = outcome

    def _is_of_this_run(self, path: str) -> bool:
        """Whether a process that died may have written it: its last word on the file was lost."""
        return os.stat(path).st_mtime >= self.began - _CLOCK_SECONDS and is_copy_of(path)

    def _taken_back(self, outcome: Outcome) -> Outcome:
        with suppress(FileNotFoundError):
            os.unlink(f"{self.target}/{outcome.copy}")
        return Outcome(outcome.number, "held", LEAK, study_instance_uid=outcome.study_instance_uid)

    def _moved(self, outcome: Outcome, name: str) -> Outcome:
        old, new = f"{self.target}/{outcome.copy}", f"{self.target}/{name}"
        if os.path.exists(new) and not is_copy_of(new, (outcome.sop_instance_uid,)):
            os.unlink(old)
            return Outcome(outcome.number, "held", "its name names somebody, and another file has the name instead")
        os.makedirs(os.path.dirname(new), exist_ok=True)
        os.rename(old, new)
        with suppress(OSError):  # not empty yet
            os.removedirs(os.path.dirname(old))
        return outcome._replace(copy=name)


def names_in(folder: str) -> Iterator[str]:
    """The names of all files below a folder, relative to it, in order; hidden ones and other things too."""
    yield from _walk(folder, "", frozenset())


def _walk(root: str, inside: str, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """Links to folders are followed, but not into a folder that we are in."""
    here = os.stat(os.path.join(root, inside))
    above |= {(here.st_dev, here.st_ino)}
    for entry in sorted(os.scandir(os.path.join(root, inside)), key=lambda e: e.name):
        name = f"{inside}/{entry.name}" if inside else entry.name
        if not entry.is_dir():
            yield name
        elif not entry.is_symlink() or not above & {(entry.stat().st_dev, entry.stat().st_ino)}:
            yield from _walk(root, name, above)


def _found(source: Path, target: Path) -> tuple[str, list[str]]:
    """The folder of the originals and the relative names in it. Raises ConfigError."""
    if not source.exists():
        raise ConfigError(f"{source}: there is no such file or folder")
    came, goes = os.path.realpath(source), os.path.realpath(target)
    if came == goes or f"{came}/".startswith(f"{goes}/") or f"{goes}/".startswith(f"{came}/"):
        raise ConfigError(f"{source} and {target}: neither may lie within the other, else copies mix with originals")
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target}: is no folder; copies go into a folder")
    if not source.is_dir():
        return os.path.dirname(came), [os.path.basename(came)]
    try:
        return came, list(names_in(came))
    except OSError as exc:
        raise ConfigError(f"{source}: a folder in it cannot be read ({exc.strerror}); check its permissions") from exc


@contextmanager
def _drafts(target: str) -> Iterator[str]:
    """A folder for copies that are not whole yet, beside them; those of runs that were killed are removed."""
    folder = os.path.join(target, f"{_DRAFTS}{os.getpid()}")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"{target}: no copies can be written there ({exc.strerror})") from exc
    for entry in os.listdir(target):
        if entry.startswith(_DRAFTS) and not _is_alive(entry.removeprefix(_DRAFTS)):
            shutil.rmtree(os.path.join(target, entry), ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _chunks(count: int, processes: int) -> Iterator[Task]:
    size = max(1, min(_MOST_AT_ONCE, count // (4 * max(processes, 1))))
    for first in range(0, count, size):
        yield Task(tuple(range(first, min(first + size, count))))


def _series(root: str, names: Sequence[str]) -> list[Task]:
    """A task for each series, by a first look at the headers; what is no image of a series is a task of its own."""
    numbers: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        uid = original_uids(os.path.join(root, name))[1]
        numbers[(uid, -1) if uid else ("", number)].append(number)
    return [Task(tuple(each), is_whole=True) for each in numbers.values()]


def _line(name: str, outcome: Outcome) -> dict[str, Any]:
    """A file in the report; what it has nothing to say of is left out."""
    said = {
        "name": name,
        "status": outcome.status,
        "reason": outcome.reason,
        "copy": outcome.copy,
        "renamed": bool(outcome.copy) and outcome.copy != name,
        "study_instance_uid": outcome.study_instance_uid,
        "pixels": outcome.pixels,
        "sha256": outcome.sha256,
    }
    return {key: value for key, value in said.items() if value}
