"""Whether a copy's pixels still say who the patient is: text is read from them, and compared as it may be misread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medgem_node.deid.proof_text import compact, spellings

PIXELS = "pixels"
_SHORTEST = 4
_FAULTS_PER = 5  # characters: of so many one may be misread

Grey = NDArray[np.uint8]


class TextReader(Protocol):
    """Reads the lines of text in a picture."""

    def __call__(self, grey: Grey) -> Iterable[str]:
        """Every line of a picture (rows, columns), 0 black to 255 white."""
        ...


def pixel_leaks(frames: Iterable[Grey], needles: Mapping[str, Sequence[str]], reader: TextReader) -> list[str]:
    """Keywords of the needles that can be read in a frame, and `pixels` with them; none is the aim.

    Parameters
    ----------
    frames
        Pictures (rows, columns) of the finished copy.
    needles
        Keyword to values: names, identifiers, days. Those of less than four letters or digits are not looked for.
    """
    sought = [(form, keyword) for keyword, values in needles.items() for value in values for form in _forms(value)]
    found: set[str] = set()
    for grey in frames:
        lines = [compact(form) for line in reader(grey) for form in spellings(line)]
        read = "\n".join((*lines, "".join(lines)))
        found |= {keyword for form, keyword in sought if is_read(form, read)}
    return [PIXELS, *sorted(found)] if found else []


def is_read(needle: str, text: str) -> bool:
    """Whether a needle stands in a text with at most one character of five wrong, missing or too many."""
    allowed = len(needle) // _FAULTS_PER
    if needle in text or not allowed:
        return needle in text
    above = [0] * (len(text) + 1)  # Sellers 1980: an edit distance that may begin anywhere
    for row, wanted in enumerate(needle, 1):
        here = [row]
        for column, letter in enumerate(text, 1):
            here.append(min(above[column] + 1, here[-1] + 1, above[column - 1] + (letter != wanted)))
        above = here
    return min(above) <= allowed


def rapid_reader() -> TextReader:
    """RapidOCR, loaded at once. Raises ModuleNotFoundError without it."""
    from rapidocr_onnxruntime import RapidOCR

    engine = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)

    def read(grey: Grey) -> list[str]:
        lines, _ = engine(np.repeat(grey[:, :, np.newaxis], 3, axis=2))
        return [str(line[1]) for line in lines or ()]

    return read


def _forms(value: str) -> set[str]:
    """A value as it may stand on a screen; of a name each part."""
    if len(value) == 8 and value.isdigit():
        year, month, day = value[:4], value[4:6], value[6:]
        return {value, day + month + year, month + day + year}
    parts = value.replace("=", "^").split("^") if "^" in value or "=" in value else [value]
    return {compact(form) for part in parts for form in spellings(part) if len(compact(form)) >= _SHORTEST}
