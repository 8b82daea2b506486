"""Text of a data set and its bytes, in the character sets of PS3.5 section 6.1 and PS3.3 C.12.1.1.2."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

Charset = tuple[str, ...]
"""Names of codecs: the first is in force where a value begins, the others are escaped to."""

DEFAULT: Charset = ("latin_1",)

_CODECS = {  # as pydicom has them, whose import takes half a second; and 203, in PS3.3 since 2020
    "": "iso8859", "ISO_IR 6": "iso8859", "ISO 2022 IR 6": "iso8859",
    **{f"{how} {part}": codec for how in ("ISO_IR", "ISO 2022 IR") for part, codec in {
        13: "shift_jis", 100: "latin_1", 101: "iso8859_2", 109: "iso8859_3", 110: "iso8859_4", 126: "iso_ir_126",
        127: "iso_ir_127", 138: "iso_ir_138", 144: "iso_ir_144", 148: "iso_ir_148", 166: "iso_ir_166",
        203: "iso8859_15"}.items()},
    "ISO 2022 IR 87": "iso2022_jp", "ISO 2022 IR 149": "euc_kr", "ISO 2022 IR 159": "iso2022_jp_2",
    "ISO 2022 IR 58": "iso_ir_58", "ISO 2022 58": "GB2312", "ISO 2022 GBK": "GBK", "GBK": "GBK", "GB18030": "GB18030",
    "ISO_IR 192": "UTF8",
}  # fmt: skip
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
        from pydicom.charset import decode_bytes

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = str(decode_bytes(value, list(charset), _DELIMITERS))
        if "iso_ir_58" in charset:
            text = text.replace("\x1b$)A", "")  # pydicom decodes behind it, and leaves it
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
            pieces = [_piece(piece, charset) for piece in _PIECES.split(text)]
        except UserWarning as exc:
            raise ValueError("not in these character sets") from exc
    return b"".join(pieces)


def _piece(text: str, charset: Sequence[str]) -> bytes:
    from pydicom.charset import encode_string

    value = bytes(encode_string(text, list(charset)))
    is_unescaped = "iso_ir_58" in charset[1:] and not value.isascii() and b"\x1b" not in value
    if is_unescaped and value == text.encode("gb2312", "replace"):
        return b"\x1b$)A" + value  # which pydicom forgets
    return value
