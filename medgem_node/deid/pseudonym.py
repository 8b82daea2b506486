"""Pseudonyms: the same for the same original and key, and not to be undone without both.

An unkeyed digest of a patient ID is found by trying all of them; HMAC-SHA256 under a secret is not. Each kind of
value has a domain of its own, so that equal strings of two kinds show no relation.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from medgem_node.dictionary import UIDS
from medgem_node.errors import ConfigError

KEY_BYTES = 32
KEPT_UIDS = 32_768
"""How many UIDs are remembered; then all are forgotten and made again, the same."""
SHIFT_DAYS = (31, 3650)
"""Least and most days by which dates go back: never none, never within the month."""

_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


class Pseudonyms:
    """What stands in a copy for what stood in the original; keeps the key, and the UIDs that it made lately."""

    __slots__ = ("_key", "_outer", "_uid_inner", "_uids")

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ConfigError(f"the pseudonym key has {len(key)} bytes; it needs {KEY_BYTES}")
        self._key = key
        block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        # HMAC (RFC 2104) of a UID begins alike every time: both hashes are begun once, at half the cost of hmac.digest
        self._uid_inner = hashlib.sha256(block.translate(_INNER) + _field("uid"))
        self._outer = hashlib.sha256(block.translate(_OUTER))
        self._uids: dict[str, str] = {}

    def __reduce__(self) -> tuple[type[Pseudonyms], tuple[bytes]]:
        return type(self), (self._key,)  # for processes that share the work

    def uid(self, original: str) -> str:
        """A UID below 2.25 (PS3.5 B.2); those that PS3.6 registers mean the same everywhere and stay."""
        made = self._uids.get(original)
        if made is None:
            made = self._new_uid(original.strip("\0 "))
            if len(self._uids) >= KEPT_UIDS:
                self._uids.clear()
            self._uids[original] = made
        return made

    def uid_map(self, originals: Iterable[str]) -> dict[str, str]:
        """Pseudonymous UID to original, recomputed from the originals."""
        return {self.uid(original): original for original in originals}

    def patient_id(self, original: str, issuer: str = "") -> str:
        """29 digits; empty for an empty ID, for patients without one are not all the same patient."""
        return self._digits("patient", 12, 29, original, issuer)

    def accession(self, original: str) -> str:
        """16 digits, as long as VR SH may be."""
        return self._digits("accession", 6, 16, original)

    def name(self, patient_id: str, issuer: str = "") -> str:
        """`ANON^` and 10 hexadecimal digits of the patient's ID; empty for an empty ID."""
        patient_id = patient_id.strip("\0 ")
        return f"ANON^{self._mac('name', patient_id, issuer)[:5].hex()}" if patient_id else ""

    def days(self, patient_id: str, issuer: str = "", study_instance_uid: str = "") -> int:
        """By how many days the dates of a patient are shifted: -3650 to -31, the same in all of his studies.

        Into the past, so that no copy is of tomorrow. Without a patient ID the study takes the patient's place: its
        own intervals are kept, those to other studies are not. Who knows one true date of a patient knows the others.
        """
        patient_id = patient_id.strip("\0 ")
        mac = self._mac("days", patient_id, issuer) if patient_id else self._mac("days of study", study_instance_uid)
        least, most = SHIFT_DAYS
        return -(least + int.from_bytes(mac[:8], "big") % (most - least + 1))

    def digest(self, domain: str, value: str) -> str:
        """64 hexadecimal digits, for keys that are never shown."""
        return self._mac(f"digest:{domain}", value).hex()

    def _new_uid(self, original: str) -> str:
        if not original or original in UIDS:
            return original
        inner, outer = self._uid_inner.copy(), self._outer.copy()
        inner.update(_field(original))
        outer.update(inner.digest())
        return f"2.25.{int.from_bytes(outer.digest()[:16], 'big')}"

    def _digits(self, domain: str, size_bytes: int, width: int, original: str, *more: str) -> str:
        original = original.strip("\0 ")
        if not original:
            return ""
        return str(int.from_bytes(self._mac(domain, original, *more)[:size_bytes], "big")).zfill(width)

    def _mac(self, domain: str, *values: str) -> bytes:
        return hmac.digest(self._key, b"".join(map(_field, (domain, *values))), "sha256")


class NotedPseudonyms(Pseudonyms):
    """Pseudonyms that note what they stood for, as it was asked: what a crosswalk is written from.

    One for each job, with a copier of its own: a UID that a copier remembers from before is not asked for again.
    `patients` stand by ID and issuer.
    """

    __slots__ = ("accessions", "patients", "uids")

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.uids: dict[str, str] = {}
        self.patients: dict[tuple[str, str], str] = {}
        self.accessions: dict[str, str] = {}

    def uid(self, original: str) -> str:
        """`Pseudonyms.uid`, noted."""
        made = super().uid(original)
        self.uids[original.strip("\0 ")] = made
        return made

    def patient_id(self, original: str, issuer: str = "") -> str:
        """`Pseudonyms.patient_id`, noted."""
        made = super().patient_id(original, issuer)
        self.patients[original.strip("\0 "), issuer.strip("\0 ")] = made
        return made

    def accession(self, original: str) -> str:
        """`Pseudonyms.accession`, noted."""
        made = super().accession(original)
        self.accessions[original.strip("\0 ")] = made
        return made


def _field(text: str) -> bytes:
    """A field of a message, with its length, so that no two lists of fields look alike."""
    field = text.strip("\0 ").encode("utf-8", "surrogateescape")
    return len(field).to_bytes(4, "big") + field


def read_or_make_key(path: Path) -> bytes:
    """The node's secret; made on the first start, whole or not at all, so that two first starts agree.

    Raises
    ------
    ConfigError
        If the file is short, can be read by others, or can neither be read nor made.
    """
    try:
        if not path.exists():
            write_once(path, secrets.token_bytes(KEY_BYTES))
        key = read_private(path)
    except OSError as exc:
        raise ConfigError(f"{path}: pseudonym key cannot be read or made ({exc.strerror}); check the folder") from exc
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path}: {len(key)} bytes are no pseudonym key ({KEY_BYTES}); restore it from the backup, "
            "or delete it to begin anew: studies under way then get new pseudonyms"
        )
    return key


def write_once(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all; one that is there already stays as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".key-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first: its key is ours
            os.link(draft, path)
    finally:
        os.unlink(draft)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_private(path: Path) -> bytes:
    """A file that only its owner may read. Raises ConfigError; OSError is the caller's."""
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"{path}: others may read the pseudonym key; run `chmod 600 {path}`")
    return path.read_bytes()
