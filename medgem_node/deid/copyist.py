"""What becomes of one file of a folder: a copy of the same relative name, or a reason why there is none."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from medgem_node.deid import file_copy
from medgem_node.deid.certificate import Deeds
from medgem_node.deid.crew import Member, Task
from medgem_node.deid.deidentifier import IMPLEMENTATION_CLASS_UID, Copy, Deidentifier
from medgem_node.deid.file_copy import Original
from medgem_node.deid.file_name import FileNames, IsNamed
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.deid.text import Identity
from medgem_node.errors import CannotDeidentify, LeakFound, MedgemError

Status = Literal["written", "held", "not DICOM"]
MasksOf = Callable[[Sequence[bytes], int], Mapping[str, Any]]
"""The files of a series and a seed -> original SOP Instance UID -> what is blanked in it; raises CannotDeidentify."""
Note = Callable[[str, str], Any]
"""Asked with the paths of each original and its copy; what a crosswalk is to know of it, as JSON holds it."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_BARE = re.compile(rb"[\2\x08]\0[\0-\xff]\0(?:[A-Z]{2}|[\0-\xff]{2}\0\0)|\0[\2\x08]\0[\0-\xff][A-Z]{2}")
_MOST_ANSWERS = 10_000
_HEAD_BYTES = 1024  # holds the file meta information that we write
_META_INSTANCE = re.compile(rb"\x02\0\x03\0UI[\0-\x40]\0([0-9.]+)")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


class Outcome(NamedTuple):
    """What became of the file with this number in the list of names."""

    number: int
    status: Status
    reason: str = ""
    copy: str = ""
    study_instance_uid: str = ""
    sop_instance_uid: str = ""
    sha256: str = ""
    pixels: str = ""
    instead: Mapping[str, str] = {}
    note: Any = None
    alarm: Literal["", "leak", "full"] = ""
    """A leak stops its study; a full disk stops the run."""


@dataclass(slots=True)
class Copyist(Member):
    """Makes the copies of the files whose numbers it is given.

    Running it again gives the same bytes: replaces a copy of the same instance, and nothing else that stands there.

    Parameters
    ----------
    drafts
        A folder on the same file system as `target`, for copies that are not whole yet.
    masks_of
        Asked for tasks that are whole: the files of a series.
    """

    source: str
    target: str
    drafts: str
    names: Sequence[str]
    deidentifier: Deidentifier
    pseudonyms: Pseudonyms
    file_names: FileNames
    certifies: bool = False
    masks_of: MasksOf | None = None
    note: Note | None = None
    _identity: Identity | None = None
    _answers: dict[str, bool] = field(default_factory=dict)
    _deeds: dict[str, Deeds] = field(default_factory=dict)
    _folders: dict[str, set[str]] = field(default_factory=dict)

    def work(self, task: Task, begins: Callable[[int], None]) -> Iterator[Outcome]:
        """An outcome for each file, in order."""
        masks: Mapping[str, Any] = {}
        reason = ""
        if task.is_whole:
            begins(task.numbers[0])
            try:
                masks = self._masks(task.numbers)
            except MedgemError as exc:
                reason = str(exc)
            except Exception as exc:  # an edge: whatever a stranger's pixels lead to
                reason = f"its series could not be looked at for a face ({type(exc).__name__})"
        for number in task.numbers:
            begins(number)
            outcome = Outcome(number, "held", reason) if reason else self._outcome(number, masks)
            if outcome.status != "written":
                self._withdraw(outcome)
            yield outcome

    def gathered(self) -> dict[str, list[Any]]:
        """What was done to which study since the last call."""
        deeds = {uid: each.to_json() for uid, each in self._deeds.items()}
        self._deeds.clear()
        return deeds

    def _outcome(self, number: int, masks: Mapping[str, Any]) -> Outcome:
        name = self.names[number]
        try:
            with file_copy.opened(f"{self.source}/{name}" if name else self.source) as original:
                if original.data[128:132] != b"DICM":
                    return _no_part_10(number, original.data[:16])
                return self._copied(number, name, original, masks)
        except LeakFound as exc:
            return Outcome(number, "held", str(exc), study_instance_uid=self._study(name), alarm="leak")
        except MedgemError as exc:
            return Outcome(number, "held", str(exc))
        except OSError as exc:
            alarm: Literal["", "full"] = "full" if exc.errno in _FULL else ""
            return Outcome(number, "held", f"a file cannot be read or written ({exc.strerror})", alarm=alarm)
        except Exception as exc:  # an edge: the other files have their copies all the same
            return Outcome(number, "held", f"internal error: {type(exc).__name__}")

    def _copied(self, number: int, name: str, original: Original, masks: Mapping[str, Any]) -> Outcome:
        mask = masks.get(original_uids(f"{self.source}/{name}")[2]) if masks else None
        copy = self.deidentifier.copy(original.data, mask)
        uids = (copy.sop_instance_uid, copy.study_instance_uid)
        written, instead = self.file_names.written(name, self._is_named(copy.identity), uids)
        self._place(written, copy, original)
        note = self.note(f"{self.source}/{name}", f"{self.target}/{written}") if self.note is not None else None
        sha256 = ""
        if self.certifies:
            sha256 = file_copy.sha256(copy.parts, original)
            deeds = self._deeds.setdefault(copy.study_instance_uid, Deeds())
            deeds.add(copy.changes, copy.pixels, copy.done.claimed)
        study, instance = copy.study_instance_uid, copy.sop_instance_uid
        return Outcome(number, "written", "", written, study, instance, sha256, copy.pixels, instead, note)

    def _is_named(self, identity: Identity) -> IsNamed:
        """Asks an identity, and remembers what it said of folders."""
        if identity is not self._identity or len(self._answers) > _MOST_ANSWERS:
            self._identity, self._answers = identity, {}
        answers = self._answers

        def is_named(text: str) -> bool:
            if text not in answers:
                answers[text] = identity.is_own_in(text)
            return answers[text]

        return is_named

    def _place(self, name: str, copy: Copy, original: Original) -> None:
        folder, _, last = f"/{name}".rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = self._entries(self.target + folder)
        path = f"{self.target}{folder}/{last}"
        if last in self._folders[folder] and not is_copy_of(path, (copy.sop_instance_uid,)):
            raise CannotDeidentify("another file stands where its copy would; choose another folder for the copies")
        file_copy.write(path, f"{self.drafts}/{os.getpid()}", copy.parts, original)
        self._folders[folder].add(last)

    def _entries(self, folder: str) -> set[str]:
        """What stands in a folder of the copies before our first is written there; made if it is not there."""
        os.makedirs(folder, exist_ok=True)
        inside = os.path.realpath(folder)
        if inside != self.target and not inside.startswith(f"{self.target}/"):
            raise CannotDeidentify("a link leads out of the folder of the copies")
        return set(os.listdir(folder))

    def _withdraw(self, outcome: Outcome) -> None:
        """Remove the copy that an earlier run made of a file that is held now, whichever name it got."""
        name = self.names[outcome.number]
        for path in (f"{self.target}/{possible}" for possible in self.file_names.possible(name)):
            if os.path.exists(path):
                uid = original_uids(f"{self.source}/{name}")[2]
                with suppress(OSError):
                    if uid and is_copy_of(path, (uid, self.pseudonyms.uid(uid))):
                        os.unlink(path)

    def _masks(self, numbers: Sequence[int]) -> Mapping[str, Any]:
        """What is blanked in the images of a series. Raises CannotDeidentify, OSError."""
        if self.masks_of is None:
            return {}
        paths = [f"{self.source}/{self.names[n]}" for n in numbers]
        seed = int(self.pseudonyms.digest("face", original_uids(paths[0])[1])[:8], 16)  # nobody else can subtract it
        files = []
        for path in paths:
            with file_copy.opened(path) as file:
                files.append(bytes(file.data))
        return self.masks_of(files, seed)

    def _study(self, name: str) -> str:
        """The pseudonymous Study Instance UID of a file; empty if it cannot be told."""
        uid = original_uids(f"{self.source}/{name}")[0]
        return uid if self.file_names.keeps_uids else self.pseudonyms.uid(uid)


def is_copy_of(path: str, sop_instance_uids: Sequence[str] | None = None) -> bool:
    """Whether a file is a copy that this software made, of one of these instances if they are named. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        head = file.read(_HEAD_BYTES)
    found = _META_INSTANCE.search(head)
    if found is None or IMPLEMENTATION_CLASS_UID.encode() not in head:
        return False
    return sop_instance_uids is None or found[1].decode() in sop_instance_uids


def original_uids(path: str) -> tuple[str, str, str]:
    """Study, Series and SOP Instance UID of a file as it came; empty where they cannot be told."""
    from pydicom import dcmread  # half a second, for the few who ask

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values
            header = dcmread(path, stop_before_pixels=True, specific_tags=list(_UIDS))
            study, series, instance = (str(header.get(keyword) or "").strip("\0 ") for keyword in _UIDS)
    except Exception:  # an edge: a stranger's header
        return "", "", ""
    return study, series, instance


def _no_part_10(number: int, head: bytes) -> Outcome:
    if _BARE.match(head):
        return Outcome(number, "held", "a data set without the preamble and prefix of a DICOM file (PS3.10 7.1)")
    return Outcome(number, "not DICOM")
