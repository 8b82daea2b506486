"""Text of a data set and its bytes, in the character sets of PS3.5 section 6.1 and PS3.3 C.12.1.1.2."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

from pydicom.charset import decode_bytes, encode_string, python_encoding

Charset = tuple[str, ...]
"""Names of codecs: the first is in force where a value begins, the others are escaped to."""

DEFAULT: Charset = ("latin_1",)

_CODECS = {**python_encoding, "ISO_IR 203": "iso8859_15", "ISO 2022 IR 203": "iso8859_15"}  # in PS3.3 since 2020
_DELIMITERS = {ord(c) for c in "\\^=\r\n\t\f"}
_PIECES = re.compile(r"([\\^=\r\n\t\f])")


def charset(value: bytes) -> Charset | None:
    """The codecs that a Specific Character Set names; None when one of them is unknown."""
    terms = [term.strip(" \0") for term in value.decode("latin-1").split("\\")]
    known = tuple(_CODECS[term] for term in terms if term in _CODECS)
    return known if len(known) == len(terms) else None


def decoded(value: bytes, charset: Charset | None) -> str | None:
    """A value as text; None when it cannot be told what it says."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if not charset:
        return None
    try:
        if b"\x1b" not in value:
            return value.decode(charset[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = str(decode_bytes(value, list(charset), _DELIMITERS))
    except (UnicodeError, LookupError):
        return None
    return None if "\x1b" in text or "\ufffd" in text else text  # pydicom had to guess


def encoded(text: str, charset: Charset | None) -> bytes | None:
    """A text in a data set's own character set; None when that cannot say it, or would be read back otherwise."""
    if text.isascii() and "\x1b" not in text:
        return text.encode("ascii")
    if not charset:
        return None
    try:
        value = text.encode(charset[0]) if len(charset) == 1 else _escaped(text, charset)
    except (UnicodeError, LookupError, ValueError):
        return None
    return value if decoded(value, charset) == text else None


def _escaped(text: str, charset: Sequence[str]) -> bytes:
    """With escapes; each value, component and line begins in the first character set again."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom warns where it writes question marks
        try:
            pieces = [encode_string(piece, list(charset)) for piece in _PIECES.split(text)]
        except UserWarning as exc:
            raise ValueError("not in these character sets") from exc
    return b"".join(pieces)
