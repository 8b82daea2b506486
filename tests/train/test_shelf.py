"""Films that do not fit into memory: kept as far as they may be, and read again as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medgem_node.train.shelf import Shelf


@pytest.mark.parametrize("cache", ["", "kept"])
def test_a_shelf_holds_no_more_than_it_may_and_gives_what_was_read(tmp_path: Path, cache: str) -> None:
    shelf = Shelf(memory_bytes=2 * 64 * 64, folder=tmp_path / cache if cache else None)
    paths = [tmp_path / f"{n}.file" for n in range(4)]
    for path in paths:
        path.write_bytes(path.name.encode())
    made = {p: np.full((64, 64), n, np.uint8) for n, p in enumerate(paths)}
    asked: list[Path] = []

    def get(path: Path) -> np.ndarray:
        return shelf.picture(path, "x", lambda: (asked.append(path), made[path])[1])

    for path in (*paths, *paths):
        assert np.array_equal(get(path), made[path])
        assert shelf.held_bytes <= 2 * 64 * 64

    assert asked == (paths if cache else [*paths, *paths])  # from disk, it is not made again


def test_a_torn_or_changed_file_is_made_again(tmp_path: Path) -> None:
    source_file, folder = tmp_path / "a.file", tmp_path / "kept"
    source_file.write_bytes(b"1")
    Shelf(1, folder).picture(source_file, "x", lambda: np.zeros((2, 2), np.uint8))
    next(folder.glob("*.npy")).write_bytes(b"torn")

    again = Shelf(1, folder).picture(source_file, "x", lambda: np.ones((2, 2), np.uint8))
    source_file.write_bytes(b"22")
    changed = Shelf(1, folder).picture(source_file, "x", lambda: np.full((2, 2), 2, np.uint8))

    assert again.tolist() == [[1, 1], [1, 1]]
    assert changed.tolist() == [[2, 2], [2, 2]]
