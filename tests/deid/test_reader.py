"""The reader of text, as far as a few pictures tell; docs/deid-pixels.md has the tables."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from medgem_node.deid import reader
from medgem_node.deid.reader import Box, Reader
from medgem_node.errors import ConfigError


@pytest.fixture(scope="module")
def eyes() -> Reader:
    pytest.importorskip("rapidocr_onnxruntime", reason="the text reader is not installed: pip install .[pixels]")
    found = reader.installed()
    assert found is not None
    return found


def written(text: str, shape: tuple[int, int], at: tuple[int, int], size: int, ink: int, ground: int) -> np.ndarray:
    """`text` on a shade, its upper left corner `at` (row, column)."""
    picture = Image.new("L", shape[::-1], ground)
    ImageDraw.Draw(picture).text(at[::-1], text, font=ImageFont.load_default(size), fill=ink)
    return np.array(picture)


def covered(picture: np.ndarray, ground: int, boxes: list[Box]) -> float:
    """Part of the ink that lies in boxes."""
    ink = picture != ground
    inside = np.zeros(picture.shape, bool)
    for box in boxes:
        inside[box.top : box.bottom, box.left : box.right] = True
    return float((ink & inside).sum() / ink.sum())


@pytest.mark.parametrize(
    ("size", "ink", "ground"), [(12, 255, 0), (10, 0, 255), (16, 130, 100), (40, 220, 60)], ids=lambda v: str(v)
)
def test_a_line_of_text_is_found_in_either_polarity_and_with_little_contrast(
    eyes: Reader, size: int, ink: int, ground: int
) -> None:
    picture = written("DOE^JANE 14.03.1951", (180, 520), (60, 40), size, ink, ground)

    texts = eyes.read(picture)

    assert covered(picture, ground, [t.box for t in texts]) > 0.95


def test_text_is_found_where_tiles_meet_and_at_the_edge_of_a_large_picture(eyes: Reader) -> None:
    picture = written("QUARTERMAIN", (96, 1900), (30, 900), 24, 255, 20)
    picture[:, 1760:] = written("ID 448", (96, 140), (60, 30), 24, 255, 20)

    texts = eyes.read(picture)

    assert covered(picture, 20, [t.box for t in texts]) > 0.95


def test_what_is_written_is_read_for_the_sake_of_side_markers(eyes: Reader) -> None:
    (text,) = eyes.read(written("R", (240, 320), (40, 260), 32, 250, 60))

    assert text.said == "R"
    assert text.confidence > reader.SURELY


def test_an_empty_picture_holds_no_text(eyes: Reader) -> None:
    assert eyes.read(np.zeros((64, 96), np.uint8)) == []


def test_the_edge_of_a_round_collimator_is_no_text(eyes: Reader) -> None:
    y, x = np.mgrid[:384, :384]
    shutter = np.where(np.hypot(x - 192, y - 192) < 180, 150, 0).astype(np.uint8)

    assert eyes.read(shutter) == []


def test_a_picture_of_a_few_pixels_is_read_without_complaint(eyes: Reader) -> None:
    assert eyes.read(np.eye(3, dtype=np.uint8) * 255) == []


def test_without_the_reader_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)

    assert reader.installed.__wrapped__() is None


def test_a_missing_system_library_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("broken")
    (folder / "rapidocr_onnxruntime.py").write_text('raise ImportError("libGL.so.1: cannot open shared object file")')
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "rapidocr_onnxruntime", raising=False)

    with pytest.raises(ConfigError, match="apt-get install libgl1"):
        reader.installed.__wrapped__()
