"""What the text reader finds of planted text, what it takes for text, and what that costs.

    python tests/bench/bench_ocr.py planted US           # recall by size and contrast; US, CR or XA
    python tests/bench/bench_ocr.py planted CR FOLDER    # the CR frames made of images (*.jpg) of that folder
    python tests/bench/bench_ocr.py clean FOLDER [N]     # what it finds in N images of each folder given

A planted string counts as found if boxes cover 80 % of its area. CPU seconds are of one thread. Prints Markdown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medgem_node.deid.burned_in import Box
from medgem_node.deid.reader import Reader, installed

SIZES, CONTRASTS = (8, 10, 12, 16, 24, 40), (0.12, 0.25, 0.5, 1.0)
STRINGS = ("QUARTERMAIN ZEBULON", "ID 4488123", "14.03.1951", "St. Marien", "DOE J", "BROMBEER, H.")
_SEED = 20261123

Frame = NDArray[np.float32]


def main() -> None:
    """One table for each question."""
    what, *rest = sys.argv[1:]
    reader = installed()
    if reader is None:
        sys.exit("no text reader is installed: pip install medgem-node[pixels]")
    if what == "planted":
        planted(reader, rest[0], [p for name in rest[1:] for p in _images(Path(name))])
    else:
        count = int(rest[-1]) if rest[-1].isdigit() else 25
        for folder in (Path(name) for name in rest if not name.isdigit()):
            clean(reader, folder, count)


def planted(reader: Reader, only: str, films: Sequence[Path]) -> None:
    """Recall by size and contrast, for the kinds of frames whose names begin with `only`."""
    made = np.random.default_rng(_SEED)
    kinds: dict[str, Callable[[], Frame]] = {
        "US 600 x 800, on speckle": lambda: ultrasound(made),
        "US 600 x 800, beside the sector": lambda: ultrasound(made),
        "CR 1024 x 1024": lambda: film(made, films),
        "XA 512 x 512": lambda: angiogram(made),
    }
    for kind, frame in kinds.items():
        if not kind.startswith(only):
            continue
        found: dict[tuple[int, float], list[bool]] = {}
        began = time.process_time()
        for size in SIZES:
            for contrast in CONTRASTS:
                picture, boxes = with_text(frame(), size, contrast, made, _where(kind))
                seen = _covered(picture.shape, [t.box for t in reader.read(picture)])
                found[size, contrast] = [bool(seen[_slice(b)].mean() >= 0.8) for b in boxes]
        seconds = (time.process_time() - began) / len(found)
        _table(f"{kind}, {seconds:.1f} s a frame", found)


def clean(reader: Reader, folder: Path, count: int) -> None:
    """What is found in images that nobody planted anything in: look at it, for real films carry real text."""
    paths = _images(folder)
    chosen = np.random.default_rng(_SEED).permutation(np.array(paths, dtype=object))[:count]
    began, hits = time.process_time(), 0
    for path in chosen:
        texts = reader.read(np.asarray(Image.open(path).convert("L")))
        hits += bool(texts)
        for text in texts:
            print(f"{path.name} {tuple(text.box)} {text.said!r} {text.confidence:.2f}", flush=True)
    seconds = (time.process_time() - began) / max(len(chosen), 1)
    print(f"| {folder.name} | {len(chosen)} images | {hits} with a box | {seconds:.2f} s |", flush=True)


def _images(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.jpg")) if "mask" not in p.stem]


def ultrasound(made: np.random.Generator) -> Frame:
    """Speckle in a sector on black."""
    y, x = np.mgrid[:600, :800]
    radius, angle = np.hypot(x - 400, y + 40), np.abs(np.arctan2(x - 400, y + 40))
    speckle = 60 + 160 * _smooth(made.normal(0, 1, (600, 800)), 1)
    return np.where((angle < 0.7) & (radius > 90) & (radius < 560), np.clip(speckle, 0, 220), 0).astype(np.float32)


def film(made: np.random.Generator, films: Sequence[Path]) -> Frame:
    """A real film, or slow shades with noise."""
    if films:
        path = films[int(made.integers(len(films)))]
        return np.asarray(Image.open(path).convert("L").resize((1024, 1024), Image.Resampling.BICUBIC), np.float32)
    shades = np.kron(made.uniform(30, 220, (8, 8)), np.ones((128, 128)))
    return (_smooth(shades, 60) + made.normal(0, 3, (1024, 1024))).clip(0, 255).astype(np.float32)


def angiogram(made: np.random.Generator) -> Frame:
    """Slow shades in a round shutter."""
    y, x = np.mgrid[:512, :512]
    shades = _smooth(np.kron(made.uniform(50, 200, (8, 8)), np.ones((64, 64))), 30) + made.normal(0, 4, (512, 512))
    return np.where(np.hypot(x - 256, y - 256) < 250, shades.clip(40, 210), 0).astype(np.float32)


def with_text(
    frame: Frame, size: int, contrast: float, made: np.random.Generator, grounds: tuple[float, float] = (0, 255)
) -> tuple[NDArray[np.uint8], list[Box]]:
    """The frame with each string once, `contrast` (of the whole range) away from the shade it stands on.

    `grounds` is the range that this shade must be in.
    """
    font = ImageFont.load_default(size)
    boxes: list[Box] = []
    for text in STRINGS:
        left, top, right, bottom = (int(v) for v in font.getbbox(text))
        width, height = min(right - left, frame.shape[1] - 12), bottom - top
        for _ in range(2000):
            x, y = int(made.integers(4, frame.shape[1] - width - 4)), int(made.integers(4, frame.shape[0] - height - 4))
            box = Box(y, x, y + height, x + width)
            ground = float(np.median(frame[_slice(box)]))
            if grounds[0] <= ground <= grounds[1] and not any(_near(box, other) for other in boxes):
                break
        else:
            continue
        letters = Image.new("L", frame.shape[::-1])
        ImageDraw.Draw(letters).text((x - left, y - top), text, font=font, fill=255)
        ink = np.asarray(letters, np.float32) / 255
        shade = ground + 255 * contrast if ground < 128 else ground - 255 * contrast
        frame = frame * (1 - ink) + ink * np.clip(shade, 0, 255)
        boxes.append(box)
    return frame.clip(0, 255).astype(np.uint8), boxes


def _where(kind: str) -> tuple[float, float]:
    return (20, 255) if "speckle" in kind else (0, 5) if "beside" in kind else (0, 255)


def _smooth(values: NDArray[np.float64], by: int) -> NDArray[np.float64]:
    """The mean of `by` pixels to each side."""
    for axis in (0, 1):
        padded = np.pad(values, [(by + 1, by) if a == axis else (0, 0) for a in (0, 1)], "edge").cumsum(axis=axis)
        size = values.shape[axis]
        far = np.take(padded, range(2 * by + 1, 2 * by + 1 + size), axis)
        values = (far - np.take(padded, range(size), axis)) / (2 * by + 1)
    return values


def _near(one: Box, other: Box) -> bool:
    return (
        one.left < other.right + 10 and other.left < one.right + 10
        and one.top < other.bottom + 10 and other.top < one.bottom + 10
    )  # fmt: skip


def _slice(box: Box) -> tuple[slice, slice]:
    return slice(box.top, box.bottom), slice(box.left, box.right)


def _covered(shape: tuple[int, ...], boxes: Sequence[Box]) -> NDArray[np.bool_]:
    seen = np.zeros(shape, bool)
    for box in boxes:
        seen[_slice(box)] = True
    return seen


def _table(title: str, found: dict[tuple[int, float], list[bool]]) -> None:
    print(f"\n**{title}**\n\n| size | " + " | ".join(f"{c:.0%}" for c in CONTRASTS) + " |\n|---" * 1 + "|---" * 4 + "|")
    for size in SIZES:
        cells = (found[size, c] for c in CONTRASTS)
        print(f"| {size} px | " + " | ".join(f"{sum(c)}/{len(c)}" for c in cells) + " |")
    total = [hit for cell in found.values() for hit in cell]
    good = [hit for (size, c), cell in found.items() if size >= 10 and c >= 0.25 for hit in cell]
    print(f"\nall {np.mean(total):.2f}, from 10 px and 25 % on {np.mean(good):.2f}", flush=True)


if __name__ == "__main__":
    main()
