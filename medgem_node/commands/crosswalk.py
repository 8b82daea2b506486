"""crosswalk: who stands behind a pseudonym. Each answer is in the audit trail first, with the user and the reason."""

from __future__ import annotations

import argparse
import csv
import json
import os
import pwd
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from medgem_node.commands.common import Command, configured, say
from medgem_node.errors import ConfigError

if TYPE_CHECKING:
    from medgem_node.deid.keyring import KeyRing
    from medgem_node.ledger.crosswalk import Access, Entry
    from medgem_node.node import Node

FIELDS = ("kind", "pseudonym", "original", "issuer", "days", "epoch", "recorded_at", "erased_at")
"""Of a line of an export; `days` is by how much the dates were shifted, where they were."""


def add(command: Command) -> None:
    """crosswalk."""
    made = command("crosswalk", _crosswalk, "Find, export or erase who stands behind a pseudonym; begin a new key.")
    made.add_argument("action", choices=sorted(_ACTIONS))
    made.add_argument(
        "--reason", required=True, metavar="TEXT", help="why; it goes into the audit trail, with your name"
    )
    made.add_argument("--pseudonym", default="", metavar="P", help="find, erase: a pseudonymous UID, ID or number")
    made.add_argument("--original", default="", metavar="V", help="find: a UID, accession number or patient ID")
    made.add_argument("--patient", default="", metavar="ID", help="erase: a patient ID")
    made.add_argument("--issuer", default="", metavar="NAME", help="of the patient ID, where it has one")
    made.add_argument(
        "--format", choices=("text", "json", "csv"), help="json: one object a line, exact; export's default"
    )
    made.add_argument("--out", type=Path, metavar="FILE", help="export: a new file, for its owner only")
    made.add_argument("--yes", action="store_true", help="erase: do it; there is no way back")
    made.epilog = "Write - for V or ID to have it read from standard input: then it stands in no history of commands."


def _crosswalk(options: argparse.Namespace) -> int:
    from medgem_node.ledger.crosswalk import Access
    from medgem_node.node import now

    _check(options)
    for name in ("original", "patient"):
        if getattr(options, name) == "-":
            setattr(options, name, sys.stdin.readline().rstrip("\r\n"))
    access = Access(who=_who(), reason=options.reason, now=now())
    with _opened(options) as node:
        return _ACTIONS[options.action](options, node, access)


def _check(options: argparse.Namespace) -> None:
    """Raises ConfigError for arguments that do not fit the action, before anything is asked."""
    given = {name for name in ("pseudonym", "original", "patient", "issuer", "out", "yes") if getattr(options, name)}
    wanted, allowed = _ARGUMENTS[options.action]
    if (wanted and len(given & wanted) != 1) or given - wanted - allowed:
        names = " or ".join(f"--{name}" for name in sorted(wanted)) or "no name"
        more = "".join(f" [--{name}]" for name in sorted(allowed))
        raise ConfigError(f"crosswalk {options.action} takes {names}{more}")
    if options.action == "erase" and not options.yes:
        raise ConfigError("nothing was erased; an erased patient cannot be brought back: add --yes to do it")


def _find(options: argparse.Namespace, node: Node, access: Access) -> int:
    if options.pseudonym:
        entry = node.crosswalk.original_of(options.pseudonym, access)
        found = [entry] if entry else []
    else:
        found = list(node.crosswalk.pseudonyms_of(options.original, access, options.issuer))
    _write(found, options.format or "text", sys.stdout)
    if not found:
        say("not in the crosswalk", sys.stderr)
    return 0 if any(entry.erased_at is None for entry in found) else 1


def _export(options: argparse.Namespace, node: Node, access: Access) -> int:
    form = options.format or "json"
    if options.out is None:
        _write(node.crosswalk.export(access), form, sys.stdout)
        return 0
    try:
        with _new_file(options.out) as file:
            count = _write(node.crosswalk.export(access), form, file)
    except OSError as exc:
        raise ConfigError(f"{options.out}: cannot be written ({exc.strerror}); name a new file") from exc
    say(f"{count} links in {options.out}: it names patients, protect it")
    return 0


def _erase(options: argparse.Namespace, node: Node, access: Access) -> int:
    patient_key = _patient_key(options.patient, options.issuer, node.keys) if options.patient else ""
    erased = node.crosswalk.erase(access, patient_key, options.pseudonym)
    if erased is None:
        say("not in the crosswalk, or erased before; a patient ID is found with its issuer only", sys.stderr)
        return 1
    say(f"{erased} links erased; they cannot be read again")
    say("Not erased: backups, exports, and the images in archive/. Who has the node's key and the original values can")
    say("make the same pseudonyms again.")
    return 0


def _rotate(options: argparse.Namespace, node: Node, access: Access) -> int:
    epoch = node.keys.epoch + 1
    node.audit.record("keys rotated", "crosswalk", access.now, who=access.who, reason=access.reason, epoch=epoch)
    epoch = node.keys.rotate()
    renewed = node.crosswalk.rewrap(access)
    say(f"epoch {epoch}: studies that are prepared from now on get other pseudonyms; a restart is not needed")
    say(
        f"{renewed} patients of the crosswalk are under the new key. Older keys stay, for what left before; back up all"
    )
    return 0


_ACTIONS: dict[str, Callable[[argparse.Namespace, Node, Access], int]] = {
    "find": _find,
    "export": _export,
    "erase": _erase,
    "rotate": _rotate,
}
_ARGUMENTS: dict[str, tuple[set[str], set[str]]] = {  # one of the first is needed, the second may be there
    "find": ({"pseudonym", "original"}, {"issuer"}),
    "export": (set(), {"out"}),
    "erase": ({"pseudonym", "patient"}, {"issuer", "yes"}),
    "rotate": (set(), set()),
}


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Node]:
    from medgem_node.node import open_node

    config = configured(options)
    if not config.data.is_dir():  # it would be made, with a key
        raise ConfigError(f"{config.data} is not there: no node has run with this configuration")
    node = open_node(config)
    try:
        yield node
    finally:
        node.ledger.close()


def _who() -> str:
    """The user of the operating system, and who became that user by sudo, if it says so."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container has no such user
        name = f"uid {os.getuid()}"
    sudo = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo by {sudo})" if sudo else name


def _patient_key(patient_id: str, issuer: str, keys: KeyRing) -> str:
    """The ledger's digest of a patient, made as the inbox makes it."""
    from pydicom import Dataset

    from medgem_node.inbox import patient

    header = Dataset()
    header.PatientID, header.IssuerOfPatientID = patient_id, issuer
    return keys.node.digest("patient", patient(header))


def _write(entries: Iterable[Entry], form: str, file: TextIO) -> int:
    """Write entries as `form`; how many."""
    count = 0
    rows = csv.DictWriter(file, FIELDS)
    if form == "csv":
        rows.writeheader()
    for count, entry in enumerate(entries, 1):  # noqa: B007
        fields = _fields(entry)
        if form == "csv":
            rows.writerow({k: _shown(v) if isinstance(v, str) else v for k, v in fields.items()})
        else:
            print(json.dumps(fields) if form == "json" else _line(entry), file=file)
    return count


def _fields(entry: Entry) -> dict[str, Any]:
    link = entry.link
    erased_at = entry.erased_at.isoformat() if entry.erased_at else None
    days, recorded_at = link.days, entry.recorded_at.isoformat()
    values = (link.kind.value, link.pseudonym, link.original, link.issuer, days, entry.epoch, recorded_at, erased_at)
    return dict(zip(FIELDS, values, strict=True))


def _line(entry: Entry) -> str:
    link = entry.link
    if entry.erased_at:
        return f"{link.kind} {link.pseudonym}: erased on {entry.erased_at:%Y-%m-%d %H:%M} UTC"
    issuer = f" of {_shown(link.issuer)}" if link.issuer else ""
    shift = f", dates {link.days:+d} days" if link.days is not None else ""
    return f"{link.kind} {link.pseudonym}: {_shown(link.original)}{issuer}{shift} (epoch {entry.epoch})"


def _shown(text: str) -> str:
    """Without what a terminal would obey, or no file can hold: identifiers come from strangers."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """A file of mode 0600 that is there when all of it is written; one that is there already is not touched."""
    if path.exists():
        raise FileExistsError(17, "it is there already", str(path))
    handle, draft = tempfile.mkstemp(prefix=".crosswalk-", dir=path.absolute().parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        os.unlink(draft)
