"""Pseudonyms: the same for the same original and key, and not to be undone without both.

An unkeyed digest of a patient ID is found by trying all of them; HMAC-SHA256 under a secret is not. Each kind of
value has a domain of its own, so that equal strings of two kinds show no relation.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydicom._uid_dict import UID_dictionary

from medgem_node.errors import ConfigError

KEY_BYTES = 32


class Pseudonyms:
    """What stands in a copy for what stood in the original. Pure; keeps nothing but the key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ConfigError(f"the pseudonym key has {len(key)} bytes; it needs {KEY_BYTES}")
        self._key = key

    def uid(self, original: str) -> str:
        """A UID below 2.25 (PS3.5 B.2); those that PS3.6 registers mean the same everywhere and stay."""
        original = original.strip("\0 ")
        if not original or original in UID_dictionary:
            return original
        return f"2.25.{int.from_bytes(self._mac('uid', original)[:16], 'big')}"

    def uid_map(self, originals: Iterable[str]) -> dict[str, str]:
        """Pseudonymous UID to original, recomputed from the originals; no crosswalk is kept."""
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

    def digest(self, domain: str, value: str) -> str:
        """64 hexadecimal digits, for keys that are never shown."""
        return self._mac(f"digest:{domain}", value).hex()

    def _digits(self, domain: str, size_bytes: int, width: int, original: str, *more: str) -> str:
        original = original.strip("\0 ")
        if not original:
            return ""
        return str(int.from_bytes(self._mac(domain, original, *more)[:size_bytes], "big")).zfill(width)

    def _mac(self, domain: str, *values: str) -> bytes:
        fields = [field.strip("\0 ").encode("utf-8", "surrogateescape") for field in (domain, *values)]
        message = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        return hmac.digest(self._key, message, "sha256")


def read_or_make_key(path: Path) -> bytes:
    """The node's secret; made on the first start, whole or not at all, so that two first starts agree.

    Raises
    ------
    ConfigError
        If the file is short, can be read by others, or can neither be read nor made.
    """
    try:
        if not path.exists():
            _make_key(path)
        mode = path.stat().st_mode
        key = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: pseudonym key cannot be read or made ({exc.strerror}); check the folder") from exc
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{path}: others may read the pseudonym key; run `chmod 600 {path}`")
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"{path}: {len(key)} bytes are no pseudonym key ({KEY_BYTES}); restore it from the backup, "
            "or delete it to begin anew: studies under way then get new pseudonyms"
        )
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".key-", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
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
