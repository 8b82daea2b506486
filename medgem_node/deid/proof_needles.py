"""What the proof searches a copy for: everything in an original that names, numbers, dates or places its patient.

Which attributes identify is said by PS3.15 Table E.1-1, read here as data from the file that holds it, and by the VR.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

from medgem_node.deid import proof_text
from medgem_node.deid.options import Option
from medgem_node.dictionary import UIDS, name_of

TEXTS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "AE", "CS"})
PRIVATE = "a private attribute"

_COLUMNS = {
    "RtnSafePriv": Option.RETAIN_SAFE_PRIVATE,
    "RtnUIDs": Option.RETAIN_UIDS,
    "RtnDevId": Option.RETAIN_DEVICE_IDENTITY,
    "RtnInstId": Option.RETAIN_INSTITUTION_IDENTITY,
    "RtnPatChars": Option.RETAIN_PATIENT_CHARACTERISTICS,
    "RtnLongFull": Option.RETAIN_FULL_DATES,
    "RtnLongModif": Option.RETAIN_MODIFIED_DATES,
    "CleanDesc": Option.CLEAN_DESCRIPTORS,
    "CleanStructCont": Option.CLEAN_STRUCTURED_CONTENT,
    "CleanGraph": Option.CLEAN_GRAPHICS,
}
_ROWS = [
    (int(row[0], 16), row[3], row[4], row[5] or {}, row[1])
    for row in json.loads(files(__package__).joinpath("table_e1.json").read_text("utf-8"))["rows"]
    if "x" not in row[0] and row[0] != "PRIVATE" and row[4] != "K"
]
LISTED = frozenset(tag for tag, _, action, _, _ in _ROWS if "U" not in action) - {
    0x00120063, 0x00120064, 0x0018A001, 0x00280303, 0x00080018, 0x0020000D, 0x0020000E
}  # fmt: skip
"""Rows that ask for more than another UID, but for what every copy says of itself."""
_WORDS = frozenset(
    word
    for text in (
        *(name for *_, name in _ROWS),
        *(row[0] for row in UIDS.values()),
        *Option,
        """
        original derived primary secondary other axial localizer volume none mixed monochrome1 monochrome2 yes no
        identity inverse unspecified linear sigmoid chest abdomen pelvis head skull neck brain heart lung liver breast
        spine cspine tspine lspine sspine shoulder arm elbow forearm wrist hand finger hip leg thigh knee calf ankle
        foot toe clavicle rib sternum jaw extremity wholebody portable cassette storage film bucky unmodified modified
        removed absolute percentage constant anon anonymous anonymized unknown medgem medgem_node node urn equipment
        deidentifying de-identifying basic application level confidentiality profile pixels read found blanked text
        table ultrasound general department hospital radiology mammo kidney prostate uterus aorta thorax right left
        bilateral female male prone supine decubitus standard routine contrast with without phase arterial venous
        perfusion diffusion angio velocity magnitude density projection reformatted
        series study image patient test phantom default system scanner doctor male female anonymous
        """,
    )
    for word in re.findall(r"[a-z]+[a-z0-9]*|\d+", text.lower())
)
"""Words of the standard: they prove nothing when they stand alone."""
_ORGANS = frozenset(
    re.findall(
        r"\w+",
        """
        adrenal appendix artery bladder bowel bronchus carotid cerebellum clivus colon duodenum esophagus
        eye femur fibula gallbladder humerus ileum intestine jejunum larynx mandible maxilla mediastinum
        nasopharynx nose orbit ovary pancreas parotid penis pharynx pituitary radius rectum sacrum
        scapula scrotum spleen sternum stomach testis thymus thyroid tibia tongue trachea ulna
        ureter urethra vagina vein vulva zygoma
        """,
    )
)
"""Parts of a body (PS3.16 Annex L): some are family names as well, but in an ID they tell of nobody."""
_CLASSES = re.compile(
    "SOPClass|TransferSyntax|ImplementationClass|CreatorUID|CodingSchemeUID|ContextUID|MappingResource|SpecializedSOP"
)
_REGISTERED = frozenset(uid.encode() for uid in UIDS)
_NUMBERS = re.compile(
    "PatientID|OtherPatientIDs$|AccessionNumber|StudyID|MedicalRecord|AdmissionID|ServiceEpisodeID|RequestedProcedureID"
    "|Telephone|Telecom|Address|Insurance|ClinicalTrialSubject|OrderNumber|IssuerOf|BirthName|ProcedureStepID"
)
"""Keywords whose values must stand nowhere, whatever the original says elsewhere."""


_DIVIDERS = (b"ds", b"us", b"lo", b"sh", b"cs", b"ui", b"sq", b"fd")  # VRs, as every header says them
_MONTHS = (("jan",), ("feb", "fev"), ("mar", "mae", "maer", "mrz"), ("apr", "avr"), ("mai", "may"), ("jun",), ("jul",),
           ("aug",), ("sep",), ("okt", "oct"), ("nov",), ("dec", "dez"))  # fmt: skip


class Needle(NamedTuple):
    """A text to search for: compact and folded, or bytes of another script; and the keyword to answer."""

    text: str
    keyword: str
    kind: str
    """name, number, day, text, bytes or code."""


@dataclass(frozen=True, slots=True)
class Needles:
    """What one identity is searched by; `quick` are the bytes that come first, each with what it stands for."""

    quick: tuple[tuple[bytes, Needle], ...]
    """In the compact header."""
    raw: tuple[tuple[bytes, Needle], ...]
    """In the header as it is, in lower case: scripts other than Latin."""
    escaped: tuple[tuple[bytes, Needle], ...]
    """As `raw`, but searched only where a text may be under ISO 2022."""
    months: tuple[tuple[bytes, bytes, re.Pattern[str], Needle], ...]
    """Month, year, and what to look for where both stand."""
    common: set[Needle] = field(default_factory=set)
    """Of kind text, found to be said by an original of this identity in attributes that stay: no secret of its own."""
    clean: set[bytes] = field(default_factory=set)
    """Stretches of copies that were searched before, and held nothing."""
    divider: bytes = b""
    """Two letters that end a stretch, and stand in nothing that is looked for."""


@cache
def left(options: frozenset[Option]) -> Mapping[int, str]:
    """What may become of a listed attribute's value: `K` stays, `C` may stay if it is clean, empty: must go."""
    found = {}
    for tag, _, _, said, _ in _ROWS:
        asked = {action for column, action in said.items() if _COLUMNS.get(column) in options}
        found[tag] = "C" if "C" in asked else "K" if "K" in asked else ""
    return found


def needles(values: Iterable[tuple[int, str, bytes]], codecs: tuple[str, ...]) -> Needles:
    """From tag, VR and value of everything that identifies."""
    found: dict[tuple[str, str], Needle] = {}
    for tag, vr, value in values:
        keyword = PRIVATE if tag >> 16 & 1 else name_of(tag)
        for needle in _of(tag, vr, value, keyword, codecs):
            known = found.get((needle.text, needle.kind))
            if known is None or (known.kind == "text" and needle.kind != "text"):
                found[needle.text, needle.kind] = needle
    quick = [(n.text.encode(), n) for n in found.values() if n.text.isascii()]
    quick += [(code, n) for n in found.values() if n.text.isascii() for code in disguised(n)]
    raw: list[tuple[bytes, Needle]] = []
    escaped: list[tuple[bytes, Needle]] = []
    for needle in found.values():
        for data in proof_text.encoded(needle.text) if not needle.text.isascii() else ():
            (escaped if data.isascii() else raw).append((data, needle))
    days = [n for n in found.values() if n.kind == "day"]
    divider = next((d for d in _DIVIDERS if not any(d in data for data, _ in quick)), b"")
    return Needles(tuple(quick), tuple(raw), tuple(escaped), tuple(_months(days)), divider=divider)


def is_instance_uid(keyword: str, uid: bytes) -> bool:
    """Whether it names one thing of somebody's, and no class, scheme or registered thing."""
    return uid.count(b".") >= 2 and not _names_class(keyword) and uid not in _REGISTERED


@lru_cache(4096)
def _names_class(keyword: str) -> bool:
    return _CLASSES.search(keyword) is not None


def is_said(text: str) -> bool:
    """Whether a text has words of the standard and parts of a body only."""
    return all(w in _WORDS or w in _ORGANS or len(w) < 2 for w in re.findall(r"[^\W\d_]+|\d+", proof_text.folded(text)))


def _of(tag: int, vr: str, value: bytes, keyword: str, codecs: tuple[str, ...]) -> Iterator[Needle]:
    text = proof_text.readings(value.strip(b" \0"), codecs)[0] if value else ""
    for one in text.split("\\"):
        one = one.strip(" \0")
        if not one:
            continue
        if vr == "PN":
            yield from _names(one, keyword)
        elif vr in ("DA", "DT"):
            yield from _days(one, keyword)
        elif vr in TEXTS:
            yield from _texts(one, keyword, "number" if _NUMBERS.search(keyword) else "text")


def _names(text: str, keyword: str) -> Iterator[Needle]:
    """Each part that is long enough to stand alone, and family and given names together in both orders."""
    for group in text.split("="):
        parts = [c.strip() for c in group.split("^")]
        for part in re.split(r"[\W_]+", group):
            for spelt in {part, *proof_text.spellings(part)}:
                least = 4 if spelt.isascii() else 2
                if len(spelt) >= least and not spelt.isdigit() and spelt not in _WORDS and part.lower() not in _WORDS:
                    yield Needle(spelt.lower() if spelt.isascii() else spelt, keyword, "name")
            if len(part) >= 6 and part.isdigit():
                yield Needle(part, keyword, "number")
        if len(parts) > 1 and parts[0] and parts[1]:
            for a, b in ((0, 1), (1, 0)):
                both = proof_text.compact(proof_text.folded(parts[a] + parts[b]))
                if len(both) >= (5 if both.isascii() else 2):
                    yield Needle(both, keyword, "both")


def _days(text: str, keyword: str) -> Iterator[Needle]:
    digits = text.replace(".", "")[:8]
    if len(digits) == 8 and digits.isdigit() and "1850" < digits[:4] < "2150" and digits != "19000101":
        yield Needle(digits, keyword, "day")


def _texts(text: str, keyword: str, kind: str) -> Iterator[Needle]:
    for spelt in {proof_text.compact(s) for s in proof_text.spellings(text)}:
        least = 6 if kind == "text" or spelt.isdigit() else 5 if spelt.isascii() else 3
        if len(spelt) >= least and not is_said(text) and len(set(spelt)) > 1:
            yield Needle(spelt, keyword, kind)
    if not text.isascii() and (len(text) >= 3 and not is_said(text)):
        yield Needle(text, keyword, kind)


def disguised(needle: Needle) -> Iterator[bytes]:
    """Base64 at each of its three alignments, and hexadecimal digits (percent signs fall out of no text)."""
    if needle.kind == "day":
        year, month, day = needle.text[:4], needle.text[4:6], needle.text[6:]
        short = (month.lstrip("0"), day.lstrip("0"))
        forms = {f"{a}{b}{year}" for m, d in ((month, day), short) for a, b in ((d, m), (m, d))}
        yield from (form.encode() for form in sorted(forms))
        return
    if len(needle.text) < 8 or needle.kind not in ("name", "number"):
        return
    for form in (needle.text.upper(), needle.text, needle.text.title()) if needle.kind == "name" else (
        needle.text.upper(),):  # fmt: skip
        plain = form.encode()
        yield plain.hex().encode()
        for shift in range(3):
            code = base64.b64encode(b"\0" * shift + plain)
            yield proof_text.compact_bytes(code[4 if shift else 0 : (shift + len(plain)) // 3 * 4])


def _months(days: list[Needle]) -> Iterator[tuple[bytes, bytes, re.Pattern[str], Needle]]:
    """Days with their months in letters: 5 Jul 2020, July 5th, 2020, 5. Juli 2020."""
    for needle in days:
        month, day, year = int(needle.text[4:6]), int(needle.text[6:]), needle.text[:4]
        if 1 <= month <= 12:
            for name in _MONTHS[month - 1]:
                word = rf"{name}[^\W\d_]*"
                gap = r"[\W_]{0,3}(?:st|nd|rd|th)?[\W_]{0,3}"
                forms = (rf"(?<!\d)0?{day}{gap}{word}{gap}{year}", rf"{word}{gap}0?{day}{gap}{year}",
                         rf"{year}{gap}{word}{gap}0?{day}(?!\d)")  # fmt: skip
                yield name.encode(), year.encode(), re.compile("|".join(forms)), needle
