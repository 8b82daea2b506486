"""A folder on this machine: fsync, then rename, then fsync of the folder."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from medgem_node.errors import ConfigError, NotStored, OutOfResources

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_PARTIAL = ".part"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG}


class LocalStore:
    """Durable when `put` returns: data and directory entry are flushed to the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise ConfigError(f"{root}: folder cannot be made ({exc.strerror}); choose one that can") from exc

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, whole or not at all."""
        path = self._path(key)
        partial = path.with_name(f"{secrets.token_hex(8)}{_PARTIAL}")
        try:
            self._make_folder(path.parent)
            with open(partial, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync_folder(path.parent)
        except OSError as exc:
            partial.unlink(missing_ok=True)
            if exc.errno in _NO_ROOM:
                raise OutOfResources(f"the store has no room for {len(data)} bytes: {exc.strerror}") from exc
            raise

    def get(self, key: str) -> bytes:
        """The bytes of `key`."""
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError) as exc:
            raise NotStored("the store has no such key") from exc

    def exists(self, key: str) -> bool:
        """Whether `key` is stored."""
        return self._path(key).is_file()

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key below `prefix`; `""` means all."""
        top = self._path(prefix) if prefix else self.root
        for folder, _, names in os.walk(top):
            for name in names:
                if not name.endswith(_PARTIAL):
                    yield str((Path(folder) / name).relative_to(self.root))

    def delete(self, prefix: str) -> int:
        """Forget `prefix` and all below it."""
        path = self._path(prefix)
        if path.is_file():
            path.unlink(missing_ok=True)
            return 1
        count = sum(1 for _ in self.keys(prefix))
        shutil.rmtree(path, ignore_errors=True)
        return count

    def _path(self, key: str) -> Path:
        segments = key.split("/")
        if not all(_SEGMENT.fullmatch(s) for s in segments) or segments[-1].endswith(_PARTIAL):
            raise ValueError(f"malformed key of {len(key)} characters")
        return self.root.joinpath(*segments)

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        _sync_folder(folder.parent)  # else a power cut could take the new folder with all that is in it


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(url: str) -> LocalStore:
    """The store of `file:///absolute/path`."""
    parts = urlsplit(url)
    if parts.netloc or not parts.path.startswith("/"):
        raise ConfigError(f'"{url}": a local store is written file:///absolute/path')
    return LocalStore(Path(unquote(parts.path)))
