"""What an evaluation is of: the code's commit and the data's digest, so that a figure can be made again."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medgem_node.train.data import Film

_PACKAGE = Path(__file__).parents[1]


def commit() -> str:
    """Of the code that runs, with `+ changes` if a file of it was changed since; empty outside a checkout."""
    if not _git("ls-files", str(Path(__file__))):
        return ""  # installed, perhaps below a checkout of something else
    head = _git("rev-parse", "HEAD")
    return f"{head} + changes" if head and _git("status", "--porcelain", "--", str(_PACKAGE)) else head


def data_sha256(films: Sequence[Film]) -> str:
    """Over names, pixels and truths, in the order in which the films are read; of films not loaded, over the files."""
    digest = hashlib.sha256()
    for film in films:
        digest.update(film.reading.path.read_bytes() if film.reading else b"")
        digest.update(f"{film.source}\0{film.name}\0{film.pixels.shape}{film.lesions}".encode())
        digest.update(np.ascontiguousarray(film.pixels).tobytes())
        digest.update(b"" if film.truth is None else np.ascontiguousarray(film.truth > 0.5).tobytes())
    return digest.hexdigest()


def _git(*words: str) -> str:
    try:
        found = subprocess.run(["git", "-C", str(_PACKAGE), *words], capture_output=True, text=True, check=False)
    except OSError:
        return ""  # no git on this machine
    return found.stdout.strip() if found.returncode == 0 else ""
