from __future__ import annotations

from pathlib import Path

import pytest
from harness.toy_training import draw_films, write_recipe


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four films with contours, one with a lung mask."""
    draw_films(tmp_path)
    return tmp_path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Four steps of a tiny network."""
    return write_recipe(tmp_path / "model")
