"""What was done to a study before it left, as one object that can be checked and holds no identity.

Counts and keywords, never values; UIDs are pseudonyms. The certificate carries its own digest, so that a changed one
shows. It is a statement, not a signature: who wants proof of its origin signs the digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medgem_node import __version__
from medgem_node.deid import table
from medgem_node.deid.options import Profile
from medgem_node.dictionary import name_of

if TYPE_CHECKING:
    pass

PROFILE = "Basic Application Level Confidentiality Profile"
TABLE = f"PS3.15 {table.EDITION} Table E.1-1"
SOFTWARE = f"medgem-node {__version__}"
_FORM = 1
_PIECE_BYTES = 1 << 20


@dataclass(slots=True)
class Deeds:
    """What was done to some instances of a study: how often, to which attribute."""

    changes: Counter[tuple[int, str]] = field(default_factory=Counter)
    pixels: Counter[str] = field(default_factory=Counter)
    options: Counter[str] = field(default_factory=Counter)

    def add(self, changes: Mapping[int, str], pixels: str, options: Iterable[str]) -> None:
        """One more instance: tag to what became of it, what was said of its pixels, the options that ran."""
        self.changes.update(changes.items())
        self.pixels[pixels] += 1
        self.options.update(map(str, options))

    def join(self, other: Deeds) -> None:
        """Those of another part of the study."""
        for mine, theirs in ((self.changes, other.changes), (self.pixels, other.pixels), (self.options, other.options)):
            mine.update(theirs)  # type: ignore[arg-type]

    def to_json(self) -> list[Any]:
        """As JSON holds it."""
        return [[[*key, n] for key, n in self.changes.items()], self.pixels, self.options]

    @classmethod
    def from_json(cls, content: list[Any]) -> Deeds:
        """What `to_json` gave."""
        changes, pixels, options = content
        return cls(Counter({(tag, deed): n for tag, deed, n in changes}), Counter(pixels), Counter(options))


@dataclass(frozen=True, slots=True, order=True)
class Written:
    """A copy that was written; `name` is relative to the folder of the copies, empty outside of one."""

    sop_instance_uid: str
    sha256: str
    name: str = ""


def of_study(
    study_instance_uid: str, written: Iterable[Written], deeds: Deeds, profile: Profile, now: datetime
) -> dict[str, Any]:
    """The certificate of a study's copies, each of which passed the proof.

    Parameters
    ----------
    study_instance_uid
        Of the copies: the pseudonym.
    """
    files = sorted(written)
    content: dict[str, Any] = {
        "certificate": _FORM,
        "study_instance_uid": study_instance_uid,
        "date": now.isoformat(timespec="seconds"),
        "software": SOFTWARE,
        "profile": PROFILE,
        "table": TABLE,
        "options": sorted(map(str, profile.options)),
        "options_that_ran": dict(sorted(deeds.options.items())),
        "instances": len(files),
        "attributes": _attributes(deeds.changes),
        "pixels": dict(sorted(deeds.pixels.items())),
        "proof": {"instances": len(files), "found": 0},
        "files": [_file(each) for each in files],
    }
    return {**content, "sha256": digest(content)}


def digest(certificate: Mapping[str, Any]) -> str:
    """SHA-256 of a certificate without its own: of its canonical JSON (keys sorted, no blanks, ASCII)."""
    content = {key: value for key, value in certificate.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def check(certificate: Mapping[str, Any], folder: Path) -> list[str]:
    """What is wrong with a certificate and the copies in `folder`, a sentence each; none if all is as it says."""
    if certificate.get("certificate") != _FORM:
        return ["this is no certificate of a form that is known here"]
    if certificate.get("sha256") != digest(certificate):
        return ["the certificate was changed after it was made"]
    problems = []
    for entry in certificate["files"]:
        name = entry.get("name") or f"{entry['sop_instance_uid']}.dcm"
        if (found := _file_sha256(os.path.join(folder, name))) is None:
            problems.append(f"{name}: is missing or cannot be read")
        elif found != entry["sha256"]:
            problems.append(f"{name}: was changed")
    return problems


def _file(written: Written) -> dict[str, str]:
    entry = {"sop_instance_uid": written.sop_instance_uid, "sha256": written.sha256}
    return {**entry, "name": written.name} if written.name else entry


def _attributes(changes: Counter[tuple[int, str]]) -> dict[str, dict[str, int]]:
    """What was done -> keyword -> in how many instances."""
    found: dict[str, dict[str, int]] = {}
    for (tag, deed), count in sorted(changes.items()):
        found.setdefault(deed, {})[name_of(tag)] = count
    return found


def _file_sha256(path: str) -> str | None:
    sha256 = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                sha256.update(piece)
    except OSError:
        return None
    return sha256.hexdigest()
