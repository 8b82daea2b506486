"""Files in, copies out: read in bounded memory, written whole or not at all."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview | mmap.mmap

MAPPED_BYTES = 16 << 20
"""From this size on a file is mapped instead of read: a film takes 531 KB, a multi-frame a gigabyte."""
_PIECE_BYTES = 4 << 20
_MOST_PARTS = 1000  # of one writev; Linux takes 1024


@dataclass(frozen=True, slots=True)
class Original:
    """An open file; `data` is a map of it if it is large."""

    handle: int
    data: bytes | mmap.mmap


@contextmanager
def opened(path: str) -> Iterator[Original]:
    """The bytes of a file, for as long as its copy is made. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(handle).st_size
        if size < MAPPED_BYTES:
            yield Original(handle, _read(handle, size))
        else:
            yield Original(handle, mmap.mmap(handle, size, access=mmap.ACCESS_READ))  # unmapped with its last slice
    finally:
        os.close(handle)


def write(path: str, draft: str, parts: Sequence[Buffer], original: Original) -> None:
    """Write the parts in order to `draft`, then give it its name: replaces whole. Raises OSError.

    What is a large slice of a mapped original goes from file to file without passing through memory.
    """
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        if isinstance(original.data, mmap.mmap):
            _write_large(handle, parts, original)
        else:
            _write(handle, parts)
    except BaseException:
        os.close(handle)
        with suppress(OSError):
            os.unlink(draft)
        raise
    os.close(handle)
    os.rename(draft, path)


def sha256(parts: Sequence[Buffer], original: Original) -> str:
    """The digest of the parts as one file; slices of a mapped original are read again, in small pieces."""
    digest = hashlib.sha256()
    for part, at in _placed(parts, original):
        if at < 0:
            digest.update(part)
            continue
        for begin in range(at, at + len(part), _PIECE_BYTES):
            digest.update(os.pread(original.handle, min(_PIECE_BYTES, at + len(part) - begin), begin))
    return digest.hexdigest()


def _read(handle: int, size: int) -> bytes:
    data = os.read(handle, size)
    if len(data) == size:
        return data
    pieces = [data]
    while piece := os.read(handle, _PIECE_BYTES):
        pieces.append(piece)
    return b"".join(pieces)


def _write(handle: int, parts: Sequence[Buffer]) -> None:
    for first in range(0, len(parts), _MOST_PARTS):
        some = parts[first : first + _MOST_PARTS]
        written, expected = os.writev(handle, some), sum(map(len, some))
        while written < expected:  # a signal, or more than two gigabytes
            some = _after(some, written)
            expected -= written
            written = os.writev(handle, some)


def _after(parts: Sequence[Buffer], count: int) -> list[Buffer]:
    """The parts without their first `count` bytes."""
    for n, part in enumerate(parts):
        if count < len(part):
            return [memoryview(part)[count:], *parts[n + 1 :]]
        count -= len(part)
    return []


def _write_large(handle: int, parts: Sequence[Buffer], original: Original) -> None:
    for part, at in _placed(parts, original):
        if at < 0:
            _write(handle, [part])
            continue
        done = _copied_range(original.handle, handle, at, len(part))
        view = memoryview(part)
        for begin in range(done, len(part), _PIECE_BYTES):
            _write(handle, [view[begin : begin + _PIECE_BYTES]])


def _copied_range(source: int, target: int, at: int, count: int) -> int:
    """How many bytes the kernel copied from file to file; some file systems cannot."""
    done = 0
    if hasattr(os, "copy_file_range"):
        with suppress(OSError):  # a full disk is found again by the write that follows
            while done < count and (copied := os.copy_file_range(source, target, count - done, at + done)):
                done += copied
    return done


def _placed(parts: Sequence[Buffer], original: Original) -> Iterator[tuple[Buffer, int]]:
    """Each part with its offset in a mapped original; -1 for what is small or elsewhere."""
    if not isinstance(original.data, mmap.mmap):
        yield from ((part, -1) for part in parts)
        return
    start, size = _address(original.data), len(original.data)
    for part in parts:
        at = _address(part) - start if len(part) >= _PIECE_BYTES else -1
        yield part, at if 0 <= at <= size - len(part) else -1


def _address(buffer: Buffer) -> int:
    import numpy as np  # a tenth of a second, for large files only

    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])
