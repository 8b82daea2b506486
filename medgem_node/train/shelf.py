"""Pictures of a large source: read when they are shown, the last ones kept in memory, all of them on disk if wanted.

A picture on disk is the same bytes as one that was read again; a file there that was torn is made anew.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medgem_node.errors import ConfigError

Made = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Shelf:
    """At most `memory_bytes` of pictures in memory; `folder`: where they are kept on disk, None for nowhere."""

    memory_bytes: int = 1 << 30
    folder: Path | None = None
    _kept: OrderedDict[str, Made] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def held_bytes(self) -> int:
        """What is in memory now."""
        return sum(picture.nbytes for picture in self._kept.values())

    def picture(self, path: Path, wanted: str, make: Callable[[], Made]) -> Made:
        """What `make` gives for the file at `path`; `wanted` tells apart what is made of one file."""
        key = _key(path, wanted)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = self._stored(key)
        if made is None:
            made = make()
            self._store(key, made)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > 1 and self.held_bytes > self.memory_bytes:
                self._kept.popitem(last=False)
        return made

    def _stored(self, key: str) -> Made | None:
        path = None if self.folder is None else self.folder / f"{key}.npy"
        if path is None or not path.is_file():
            return None
        try:
            found: Made = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found if found.ndim == 2 and found.dtype == np.uint8 else None

    def _store(self, key: str, made: Made) -> None:
        """Replaces whole: a reader finds all of it, or nothing."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part = self.folder / f"{key}.{os.getpid()}.part"
            with part.open("wb") as file:
                np.save(file, made, allow_pickle=False)
            os.replace(part, self.folder / f"{key}.npy")
        except OSError as exc:
            raise ConfigError(f"{self.folder}: films cannot be kept there ({exc.strerror}); change `cache`") from exc


def _key(path: Path, wanted: str) -> str:
    """Other when the file is another; says nothing of whose film it is."""
    about = path.stat()
    return hashlib.sha256(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\0{wanted}".encode()).hexdigest()
