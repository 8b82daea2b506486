"""Who is named in a header, and whether a text names them."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydicom.charset import decode_bytes, python_encoding

from medgem_node.deid.layout import Element, Elements, vr_of

Charset = tuple[str, ...]

IDENTIFIERS = frozenset(
    {
        0x00100020, 0x00101000, 0x00101090, 0x00102154, 0x00080050, 0x00200010, 0x00380010, 0x00380060,
        0x00401001, 0x00400009, 0x00400253, 0x00402016, 0x00402017, 0x00402006, 0x00402007, 0x00102155,
        0x00101040, 0x00101050, 0x00080092, 0x00080094, 0x00080080, 0x00080081, 0x00120040, 0x00120042,
        0x00100011, 0x00100012, 0x00100013, 0x00100014, 0x00100015, 0x00181000,
    }
)  # fmt: skip
"""IDs, numbers, addresses and telephones whose value must not turn up in another text."""

TERMS = frozenset(
    """
    ORIGINAL DERIVED PRIMARY SECONDARY OTHER AXIAL LOCALIZER VOLUME NONE MIXED MONOCHROME1 MONOCHROME2 RGB YES NO
    YBR_FULL YBR_FULL_422 YBR_ICT YBR_RCT YBR_PARTIAL_420 IDENTITY INVERSE LIN LOG DISP FOR PRESENTATION PROCESSING
    HU US UNSPECIFIED LINEAR LINEAR_EXACT SIGMOID CR DX MG IO CT MR PT NM XA RF L R B U A P H F M AP PA LL RL LLD RLD
    LLO RLO LAT HFS FFS HFP FFP HFDR HFDL FFDR FFDL CHEST ABDOMEN PELVIS HEAD SKULL NECK BRAIN HEART LUNG LIVER BREAST
    SPINE CSPINE TSPINE LSPINE SSPINE SHOULDER ARM ELBOW FOREARM WRIST HAND FINGER HIP LEG THIGH KNEE CALF ANKLE FOOT
    TOE CLAVICLE RIB STERNUM JAW EXTREMITY WHOLEBODY PORTABLE CASSETTE STORAGE FILM BUCKY ISO_2022_IR_6
    ISO_2022_IR_87 ISO_IR_100 ISO_IR_192 UNMODIFIED MODIFIED REMOVED ABSOLUTE PERCENTAGE CONSTANT
    """.split()  # noqa: SIM905
)
"""Standard terms of CS attributes that a detector reads; they stay even when a patient is called Hand or Foot."""

_DELIMITERS = {ord(c) for c in "\\^=\r\n\t\f"}
_UID = re.compile(r"\d+(?:\.\d+){4,}")
_BETWEEN = re.compile(r"[\s^=,.;:/\\_\-'’\0]+")
_WORD = re.compile(r"[a-z]+|\d+")


def charset_of(elements: Elements, inherited: Charset | None) -> Charset | None:
    """The codecs of a data set (PS3.5 6.1); None when its Specific Character Set is unknown."""
    for element in elements:
        if element.tag == 0x00080005 and isinstance(element.value, bytes):
            terms = [t.strip(" \0") for t in element.value.decode("latin-1").split("\\")]
            known = tuple(python_encoding[t] for t in terms if t in python_encoding)
            return known if len(known) == len(terms) else None
        if element.tag > 0x00080005:
            break
    return inherited


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


def folded(text: str) -> str:
    """Without case, accents and width."""
    if text.isascii():
        return text.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).casefold()


def walk(elements: Elements, charset: Charset | None = ("latin_1",)) -> Iterator[tuple[Element, Charset | None]]:
    """Every element that is no sequence, at every depth, with its codecs."""
    charset = charset_of(elements, charset)
    for element in elements:
        if isinstance(element.value, list):
            for item in element.value:
                yield from walk(item, charset)
        else:
            yield element, charset


@dataclass(frozen=True, slots=True)
class Identity:
    """What names the patient and the staff of one instance, folded.

    `parts` must not occur at all, `words` (short ones) not as a word, `numbers` not among digits and letters alone.
    """

    parts: frozenset[str]
    words: frozenset[str]
    numbers: frozenset[str]

    @classmethod
    def of(cls, header: Elements) -> Identity:
        """Names, identifiers and dates of a header, at every depth."""
        parts: set[str] = set()
        numbers: set[str] = set()
        for element, charset in walk(header):
            vr = element.vr if element.vr not in ("", "UN") else vr_of(element.tag)
            if vr not in ("PN", "DA", "DT") and element.tag not in IDENTIFIERS:
                continue
            if not isinstance(element.value, bytes):  # sent as a sequence: its items are walked on their own
                continue
            text = folded(decoded(element.value, charset) or element.value.decode("latin-1")).strip(" \0")
            if vr == "PN":
                parts.update(_names(text))
            elif vr in ("DA", "DT"):
                parts.update(_dates(text))
            else:
                values = [v.strip(" \0") for v in text.split("\\")]
                parts.update(v for v in values if len(v) > 2)
                numbers.update(c for v in values if len(c := _compact(v)) > 4)
        words = frozenset(p for p in parts if p.isascii() and len(p) < 4)
        return cls(frozenset(parts) - words, words, frozenset(numbers))

    def is_named_in(self, text: str) -> bool:
        """Whether a text holds a name, an identifier, a date or any UID of the header."""
        if not text or text.isspace():
            return False
        text = folded(text)
        if any(part in text for part in self.parts) or _UID.search(text):
            return True
        if self.words and not self.words.isdisjoint(_WORD.findall(text)):
            return True
        compact = _compact(text)
        return any(number in compact for number in self.numbers)

    def is_number(self, value: bytes) -> bool:
        """Whether one of the numbers of a DS or IS is an identifier of six digits or more."""
        numbers = value.decode("ascii").split("\\")
        return any(len(n) > 5 and n in self.numbers for n in (number.strip(" \0") for number in numbers))


def _names(text: str) -> Iterable[str]:
    """The parts of a person's name in all three groups (PS3.5 6.2.1), without prefix, suffix and initials."""
    for group in text.replace("\\", "=").split("="):
        for component in group.split("^")[:3]:
            for part in _BETWEEN.split(component):
                if len(part) > 1 or (part and not part.isascii()):
                    yield part


def _dates(text: str) -> Iterable[str]:
    """The days of a DA or DT as people write them."""
    for value in text.split("\\"):
        digits = value.strip(" \0").replace(".", "")[:8]
        if len(digits) == 8 and digits.isdigit() and digits != "00000000":
            y, m, d = digits[:4], digits[4:6], digits[6:]
            yield digits
            for a, b, c in ((y, m, d), (d, m, y), (m, d, y)):
                yield from (f"{a}{mark}{b}{mark}{c}" for mark in "-./ ")


def _compact(text: str) -> str:
    return "".join(c for c in text if c.isalnum())
