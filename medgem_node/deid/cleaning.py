"""Texts that stay in part: without whom they name, or with nothing but words that everybody uses.

The first keeps what it does not know to name somebody, the second (Clean Descriptors Option, PS3.15 E.3.6) drops what
it does not know to name nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from medgem_node.deid import vocabulary
from medgem_node.deid.charset import Charset, decoded, encoded
from medgem_node.deid.patterns import Span
from medgem_node.deid.spelling import folded
from medgem_node.deid.text import Identity, merged, without
from medgem_node.deid.vocabulary import TERMS

LIMITS = {"SH": 16, "CS": 16, "AE": 16, "LO": 64, "ST": 1024, "LT": 10240}
"""The characters of one value (PS3.5 Table 6.2-1)."""

_TOKEN = re.compile(r"[^\W_]+")
_RUN = re.compile(r"\d+|[^\W\d_]+")
_HUMP = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_UNITS = frozenset(
    """
    mm cm um ml cc mg kg g s ms us ns sec min h hr hrs hz khz mhz ghz kv kvp kev ma mas mgy gy mgycm sv msv bq mbq hu
    ppm pct t d st nd rd th x deg phase phases ch ph w y yr yrs m wk
    """.split()  # noqa: SIM905
)
"""What stands directly after a number."""
_CODES = re.compile(
    r"b(?:0|50|\d{1,2}[05]0)|[bhiuqtd][rvpsnfc]?\d\d[a-z]?|fc\d\d|[0-4]d|(?:c|t|th|l|s|d|hw|bw|lw|hwk|bwk|lwk)\d{1,2}|"
    r"\d{1,3}x\d{1,3}(?:x\d{1,3})?|[tr][12](?:w|c|fs|star|rho)?|r2star|m0|g[12]|mp?2?rage|dis[23]d|xyz|f[0-9]{2}"
)
"""Diffusion weights, reconstruction kernels, vertebrae, matrices, weightings."""
_LONGEST_NUMBER = 3
_CHAIN = re.compile(r"(?<![\d.])\d{1,3}(?:[ \-/]\d{1,3}){2,}(?![\d.])")
_CHAIN_DIGITS = 8


def cleaned(value: bytes, charset: Charset | None, vr: str, identity: Identity) -> bytes | None:
    """A value without whom it names; None if it cannot be read or written, or nothing is left."""
    return _remade(value, charset, vr, lambda text, limit: identity.cleaned(text, limit))


def described_value(value: bytes, charset: Charset | None, vr: str, identity: Identity) -> bytes | None:
    """A value with the words of the vocabulary only; None if it cannot be read or written, or nothing is left."""
    return _remade(value, charset, vr, lambda text, limit: described(text, identity, limit))


def described(text: str, identity: Identity, limit: int = 0) -> str:
    """A text with `[removed]` for all but words of the vocabulary, numbers of three digits, units and kernels.

    What names the patient or his staff goes although it is such a word, where it stands as a name (`Identity`).
    """
    found = [*identity.spans(text), *_unknown(text), *_chains(text)]
    return without(text, merged(found, text), limit) if found else text


def is_vocabulary(word: str) -> bool:
    """Whether a word, a number or a mixture of both names nobody."""
    small = folded(word)
    if small in vocabulary.words() or (len(small) > 5 and small.removesuffix("s") in vocabulary.words()):
        return True
    if _CODES.fullmatch(small) or small.upper() in TERMS:
        return True
    runs = _RUN.findall(small)
    if len(runs) > 3 or any(run.isdigit() and len(run) > _LONGEST_NUMBER for run in runs):
        return False
    if len(runs) > 1:
        return all(_is_part(run, at) for at, run in enumerate(runs))
    return small.isdigit() or small in _UNITS or (len(word) == 1 and word.isascii()) or _is_of_humps(word)


def _is_part(run: str, at: int) -> bool:
    """Whether a run of digits or letters within a word is a number, a unit behind one or a word."""
    return run.isdigit() or run in vocabulary.words() or (at > 0 and run in _UNITS)


def _is_of_humps(word: str) -> bool:
    """ThoraxAbdomen, but not Whitehead: capitals tell where words begin."""
    humps = _HUMP.findall(word)
    known = vocabulary.words()
    return len(humps) > 1 and "".join(humps) == word and all(len(h) > 3 and h.lower() in known for h in humps)


def _unknown(text: str) -> Iterator[Span]:
    for token in _TOKEN.finditer(text):
        if not is_vocabulary(token[0]):
            yield token.span()


def _chains(text: str) -> Iterator[Span]:
    """Numbers that are long only together, as telephones are written."""
    for chain in _CHAIN.finditer(text):
        if sum(c.isdigit() for c in chain[0]) >= _CHAIN_DIGITS:
            yield chain.span()


def _remade(value: bytes, charset: Charset | None, vr: str, make: Callable[[str, int], str]) -> bytes | None:
    text = decoded(value, charset)
    if text is None:
        return None
    made = make(text.partition("\0")[0].rstrip(" "), LIMITS.get(vr, 0))
    return encoded(made, charset) if made.strip(" \\") else None
