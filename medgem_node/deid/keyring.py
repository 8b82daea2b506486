"""The node's keys: one for each epoch of pseudonyms, all under one master key that comes from a file or elsewhere.

`pseudonym.key`, or what stands in its place, is the master key and the key of epoch 1. `rotate` adds a random key for
the next epoch, in `pseudonym.2.key` and so on, encrypted under the master key. Older keys stay: what left under them
comes back under them. Digests that the ledger knows (jobs, patients) are of epoch 1 for ever.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from medgem_node.config import Config
from medgem_node.deid.pseudonym import (
    KEY_BYTES,
    NotedPseudonyms,
    Pseudonyms,
    read_or_make_key,
    read_private,
    write_once,
)
from medgem_node.errors import ConfigError

Source = Callable[[], bytes]
"""Where a master key comes from that is no file of the node's. Raises ConfigError."""

COMMAND_SECONDS = 30.0
"""How long a key command may take."""
_NONCE_BYTES = 12
_FEWEST_BYTES_APART = 8  # of 32 random bytes, fewer than 8 different ones do not occur


def key_source(variable: str, command: Sequence[str], environment: Mapping[str, str]) -> Source | None:
    """What a configuration asks for; None, where it asks for neither, is the file. Raises ConfigError."""
    if variable and command:
        raise ConfigError("a key comes from an environment variable or from a command, not from both")
    if variable:
        return lambda: _from_variable(variable, environment)
    return (lambda: _from_command(command)) if command else None


def _from_variable(name: str, environment: Mapping[str, str]) -> bytes:
    if name not in environment:
        raise ConfigError(f"the environment variable {name}, which holds the pseudonym key, is not set")
    return _decoded(environment[name].encode(), f"the environment variable {name}")


def _from_command(arguments: Sequence[str]) -> bytes:
    """What a program writes to its standard output, without a shell; what it writes to stderr is thrown away."""
    where = f"the key command {arguments[0]}"
    wrong = ""
    try:
        program = subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its children end with it
        )
    except OSError as exc:
        raise ConfigError(f"{where} cannot be run ({exc.strerror})") from exc
    with program:
        try:
            output, _ = program.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            wrong = f"{where} gave no answer in {COMMAND_SECONDS:g} s"
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
    if wrong or program.returncode:  # not raised above: the timeout's exception holds what was read
        raise ConfigError(wrong or f"{where} failed (exit code {program.returncode})")
    return _decoded(output, where)


def _decoded(text: bytes, where: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES or len(set(key)) < _FEWEST_BYTES_APART:
        raise ConfigError(f"{where} gives no pseudonym key: {KEY_BYTES} random bytes in base64 are needed")
    return key


def keys_of(config: Config) -> KeyRing:
    """The keys of a node; the first is made on first start. Raises ConfigError."""
    return KeyRing.open(config.key_file, key_source(config.node.key_variable, config.node.key_command, os.environ))


class KeyRing:
    """The keys of every epoch. What another process adds is seen at the next question."""

    def __init__(self, file: Path, master: bytes) -> None:
        self._file = file
        self._wrap = AESGCM(_derived(master, "epoch keys"))
        self._keys = [master]
        self._pseudonyms = [Pseudonyms(master)]
        self._lock = Lock()  # steps of the pipeline run in threads
        self._refresh()

    @classmethod
    def open(cls, file: Path, source: Source | None = None) -> KeyRing:
        """The ring beside `file`, which is made on the first start unless `source` gives the master key.

        Raises
        ------
        ConfigError
            If the master key cannot be had, is not the one that this ring began with, or an epoch's key is missing.
        """
        has_begun = _check_file(file).exists() or bool(_epoch_files(file))
        if source is None and has_begun and not file.exists():
            raise ConfigError(f"{file} is missing, and pseudonyms were made with it; restore it from the backup")
        master = source() if source else read_or_make_key(file)
        try:
            _check(file, master, is_from_elsewhere=source is not None)
            return cls(file, master)
        except OSError as exc:
            raise ConfigError(f"{file.parent}: keys cannot be read ({exc.strerror}); check the folder") from exc

    @property
    def epoch(self) -> int:
        """The epoch of what leaves now; the first is 1."""
        self._refresh()
        return len(self._keys)

    def of(self, epoch: int) -> Pseudonyms:
        """The pseudonyms of an epoch."""
        return self._pseudonyms[epoch - 1]

    @property
    def node(self) -> Pseudonyms:
        """Those of epoch 1: for digests that stay the same as long as the node lives."""
        return self.of(1)

    def current(self) -> Pseudonyms:
        """What leaves now gets these."""
        return self.of(self.epoch)

    def noted(self) -> tuple[int, NotedPseudonyms]:
        """The current epoch and its pseudonyms, which note what they stood for; new ones with every call."""
        epoch = self.epoch
        return epoch, NotedPseudonyms(self._keys[epoch - 1])

    def uid_map(self, originals: Iterable[str]) -> dict[str, str]:
        """Pseudonymous UID of any epoch to original."""
        known = list(originals)
        return {uid: original for n in range(self.epoch) for uid, original in self.of(n + 1).uid_map(known).items()}

    def secret(self, purpose: str, epoch: int) -> bytes:
        """32 bytes for another use of an epoch's key; from them nothing is learnt of the key."""
        if not 1 <= epoch <= self.epoch:
            raise ConfigError(f"{self._file.parent}: there is no key of epoch {epoch}; restore it from the backup")
        return _derived(self._keys[epoch - 1], purpose)

    def rotate(self) -> int:
        """Begin a new epoch; its number. Its key is durable before anything is made with it. Raises ConfigError.

        Two rotations at once begin one epoch, and both answer it.
        """
        epoch = self.epoch + 1
        nonce = secrets.token_bytes(_NONCE_BYTES)
        wrapped = self._wrap.encrypt(nonce, secrets.token_bytes(KEY_BYTES), _purpose(epoch))
        try:
            write_once(_epoch_file(self._file, epoch), nonce + wrapped)
        except OSError as exc:
            raise ConfigError(f"{self._file.parent}: a key cannot be written ({exc.strerror})") from exc
        return self.epoch

    def _refresh(self) -> None:
        with self._lock:
            while (path := _epoch_file(self._file, len(self._keys) + 1)).exists():
                self._keys.append(self._unwrapped(path, len(self._keys) + 1))
                self._pseudonyms.append(Pseudonyms(self._keys[-1]))

    def _unwrapped(self, path: Path, epoch: int) -> bytes:
        content = read_private(path)
        try:
            return self._wrap.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], _purpose(epoch))
        except (InvalidTag, ValueError):
            raise ConfigError(f"{path}: was made under another key than the node has; restore both") from None


def _check(file: Path, master: bytes, *, is_from_elsewhere: bool) -> None:
    """Refuse another master key than the one that the ring began with: nobody's pseudonym would be known again."""
    check, expected = _check_file(file), _derived(master, "check")[:16].hex().encode()
    if is_from_elsewhere:
        if file.exists() and read_private(file) != master:
            raise ConfigError(f"{file} holds another key than the one that is configured; move one of the two away")
        write_once(check, expected)
    if check.exists() and read_private(check) != expected:
        raise ConfigError(f"{check}: the node began with another key than it is given now; give it that one")
    if missing := set(range(2, max(_epoch_files(file), default=1))) - _epoch_files(file):
        raise ConfigError(f"{_epoch_file(file, min(missing))} is missing; restore it from the backup")


def _check_file(file: Path) -> Path:
    return file.with_suffix(".check")


def _epoch_file(file: Path, epoch: int) -> Path:
    return file.with_name(f"{file.stem}.{epoch}{file.suffix}")


def _epoch_files(file: Path) -> set[int]:
    """The epochs beside the first that have a file."""
    paths = file.parent.glob(f"{file.stem}.*{file.suffix}")
    numbers = (path.name[len(file.stem) + 1 : -len(file.suffix)] for path in paths)
    return {int(number) for number in numbers if number.isdecimal()}


def _purpose(epoch: int) -> bytes:
    return f"medgem-node epoch {epoch}".encode()


def _derived(key: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, salt=b"medgem-node", info=purpose.encode()).derive(key)
