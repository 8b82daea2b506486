"""What becomes of a value that is neither kept as it is nor replaced by a constant."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from json import loads

from medgem_node.deid import dates, layout, table
from medgem_node.deid.actions import DUMMIES, IMAGE_TYPES, TEXTS, Deed, Kind, Place, Rule
from medgem_node.deid.layout import UNDEFINED, Broken, Element, read_head
from medgem_node.deid.options import Profile
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.deid.spans import past_sequence
from medgem_node.deid.states import Memory
from medgem_node.deid.text import TERMS, Charset, charset_of, decoded
from medgem_node.dictionary import vr_of
from medgem_node.errors import CannotDeidentify

PUBLIC_SCHEMES = frozenset(
    """
    DCM SCT SRT SNM3 LN UCUM RADLEX NCIt FMA MSH UMLS BI C4 I9 I9C I10 I10C I10P I11 ICDO3 ISO3166_1 ISO639_1 ISO639_2
    RFC3066 RFC5646 RXNORM UNS ITIS_TSN NEU PUBCHEM_CID MDC ACR BARI CADSR MAYOASRG TNM BIRADS
    """.split()  # noqa: SIM905
)
"""Coding Scheme Designators of PS3.16 Table 8-1 whose meanings a site cannot write itself."""
_SCHEMES = frozenset(scheme.encode() for scheme in PUBLIC_SCHEMES)
_TERMS = (
    TERMS
    | frozenset(
        """
    CONTAINER TEXT NUM CODE DATE TIME DATETIME UIDREF PNAME COMPOSITE IMAGE WAVEFORM SCOORD SCOORD3D TCOORD TABLE
    CONTAINS SEPARATE CONTINUOUS POINT POLYLINE CIRCLE ELLIPSE PIXEL DISPLAY
    """.split()  # noqa: SIM905
    )
    | {"HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES", "HAS ACQ CONTEXT", "INFERRED FROM", "SELECTED FROM"}
)
"""A report is none without its value and relationship types, whoever is called Table (PS3.3 C.17.3)."""
_UID = re.compile(r"[0-2](\.\d+)+")
_WORD = re.compile(rb"[^\W_]{4,}|[\x80-\xff]{2,}")
_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_KNOWN_VRS = frozenset(DUMMIES) | TEXTS | {"UI", "SQ"}


@dataclass(slots=True)
class Values:
    """Makes values for one object: `days` is by how much the patient's dates move."""

    pseudonyms: Pseudonyms
    profile: Profile
    days: int = 0
    known_vrs: frozenset[str] = field(default=_KNOWN_VRS)

    def uid(self, place: Place, rule: Rule, value: bytes) -> bytes | None:
        """Another UID, or several; a class's, if it is one, stays."""
        if not value.strip(b" \0"):
            return None if rule.vr == "UI" and not value else place.element(rule.tag, "UI", b"")
        uids = value.decode("latin-1").split("\\")
        if rule.deed is Deed.CLASS_UID and all(_UID.fullmatch(uid.strip("\0 ")) for uid in uids):
            return None
        return place.element(rule.tag, "UI", "\\".join(self.pseudonyms.uid(uid) for uid in uids).encode("ascii"))

    def person(
        self, place: Place, rule: Rule, value: bytes, found: Mapping[int, bytes], charset: Charset | None
    ) -> bytes | None:
        """A pseudonym for the patient's name or ID, or the accession number; `found` has the ID that stands beside."""
        if not value.strip(b" \0"):
            return None if not value else place.element(rule.tag, rule.vr, b"")
        if rule.tag == 0x00080050:
            made = self.pseudonyms.accession(_text(value, charset))
        else:
            make = self.pseudonyms.name if rule.tag == 0x00100010 else self.pseudonyms.patient_id
            made = make(_text(found.get(0x00100020, b""), charset), _text(found.get(0x00100021, b""), charset))
        if not made and rule.action == "D":
            return place.element(rule.tag, rule.vr, DUMMIES.get(rule.vr, b"REMOVED"))
        return place.element(rule.tag, rule.vr, made.encode("ascii"))

    def plain(self, place: Place, rule: Rule, value: bytes) -> bytes | None:
        """A date of the same patient's, an age that is no rare one, a document without its pages."""
        if not value:
            return None
        if rule.deed is Deed.AGE:
            new = dates.capped_age(value)
        elif rule.deed is Deed.SHIFT:
            new = dates.shifted(value, rule.vr, self.days)
        elif rule.deed is Deed.DOCUMENT:
            new = _document(place.actions.sop_class_uid)
        else:
            raise Broken("an attribute that nothing is known to do with")
        if not new.strip(b"\\") and place.is_required(rule.tag):
            new = DUMMIES[rule.vr]
        return place.element(rule.tag, rule.vr, new)

    def text(self, place: Place, rule: Rule, value: bytes, charset: Charset | None, memory: Memory) -> bytes | None:
        """A text that may name somebody: a CS without the terms that do; any other without those it names."""
        if rule.vr == "CS":
            return self._terms(place, rule, value, charset, memory)
        if memory.is_clean(value, charset):
            return None
        return place.element(rule.tag, rule.vr, memory.cleaned(value, charset, rule.vr))

    def number(self, place: Place, rule: Rule, value: bytes, memory: Memory) -> bytes | None:
        """Numbers of which one is an identifier, or that are none."""
        new = b"0" if place.is_required(rule.tag) else b""
        return None if memory.are_numbers(value) else place.element(rule.tag, rule.vr, new)

    def described(
        self, place: Place, rule: Rule, value: bytes, charset: Charset | None, memory: Memory
    ) -> bytes | None:
        """Only the words of a text that everybody may use."""
        if not value.strip(b" \0"):
            return None
        return place.element(rule.tag, rule.vr, memory.described(value, charset, rule.vr))

    def private_code(
        self, place: Place, rule: Rule, value: bytes, charset: Charset | None, memory: Memory
    ) -> bytes | None:
        """A local code's value or meaning is free text."""
        if place.kind is Kind.OPEN:
            return self.described(place, rule, value, charset, memory)
        return place.element(rule.tag, rule.vr, b"REMOVED")

    def raw(self, value: bytes, memory: Memory) -> bytes | None:
        """Bytes that hold texts among others, such as an ICC profile: all or nothing.

        Only what is named is searched for: bytes look like dates and numbers by chance.
        """
        folded = value.replace(b"\0", b"").lower()
        words = (word for _, vr, named, _ in memory.key if vr not in ("DA", "DT") for word in _WORD.findall(named))
        return b"" if any(word.lower() in folded for word in words) else None

    def charset(self, value: bytes, inherited: Charset | None) -> Charset | None:
        """The codecs of the data set from here on; None if they are unknown."""
        return charset_of([Element(0x00080005, "CS", value)], inherited)

    def is_public_scheme(self, value: bytes) -> bool:
        """Whether a Coding Scheme Designator is one of the standard's."""
        return value.strip(b" \0") in _SCHEMES

    def is_safe_creator(self, creator: str) -> bool:
        """Whether PS3.15 Table E.3.10-1 names a private creator."""
        return creator in _safe_creators()

    def safe_rule(self, place: Place, rule: Rule, creator: str) -> Rule | None:
        """What becomes of a private attribute that is safe; None for any other, and for sequences."""
        vr = table.is_safe_private(creator, rule.tag)
        if not vr or vr in ("SQ", "UN", "OB") or (rule.vr not in ("", "UN") and rule.vr != vr):
            return None
        safe = place.safe(rule.tag, vr)
        return safe if rule.vr in (vr, "") or safe.op == 0 else None

    def with_vr(self, data: bytes | mmap.mmap, at: int, end: int, place: Place) -> tuple[bytes, int]:
        """An element that lacks its VR with that of PS3.6, empty if there is none, and where it ended."""
        tag, _, length, start = read_head(data, at, place.syntax)
        known = vr_of(tag).split(" or ")
        stop = past_sequence(data, start, end, place, "") if length == UNDEFINED else start + length
        if stop > end:
            raise Broken("a value that is longer than what holds it")
        if not known[0]:
            return b"", stop
        vr = "OW" if "OW" in known else known[0]
        if length == UNDEFINED:
            return layout.element_head(tag, vr, UNDEFINED, place.syntax) + data[start:stop], stop
        return place.element(tag, vr, data[start:stop]), stop

    def _terms(self, place: Place, rule: Rule, value: bytes, charset: Charset | None, memory: Memory) -> bytes | None:
        """Standard terms stay whoever is called so; of an Image Type only what names somebody goes."""
        terms = value.rstrip(b"\0").split(b"\\")
        is_known = [t.strip().decode("latin-1") in _TERMS or memory.is_clean(t, charset) for t in terms]
        if all(is_known):
            return None
        kept = [term if known else b"OTHER" for term, known in zip(terms, is_known, strict=True)]
        stays = rule.tag in IMAGE_TYPES or place.is_required(rule.tag)
        return place.element(rule.tag, "CS", b"\\".join(kept) if stays else b"")


def _text(value: bytes, charset: Charset | None) -> str:
    text = decoded(value, charset)
    return value.decode("latin-1") if text is None else text


def _document(sop_class_uid: str) -> bytes:
    """A page without anything on it in place of a PDF. Raises CannotDeidentify for what has no such page."""
    if sop_class_uid != _PDF:
        raise CannotDeidentify("it is a document that nothing here can read; only a PDF is replaced by an empty page")
    return blank_page()


@cache
def blank_page() -> bytes:
    """The smallest PDF that every reader opens: one empty page (ISO 32000-1 Annex H.2)."""
    objects = (
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<<>>>>",
    )
    data, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj%s endobj\n" % (number, content)
    table_at = len(data)
    rows = b"".join(b"%010d 00000 n \n" % place for place in places)
    tail = b"trailer<</Size 4/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % table_at
    return data + b"xref\n0 4\n0000000000 65535 f \n" + rows + tail


@cache
def _safe_creators() -> frozenset[str]:
    content = loads(files(__package__).joinpath("safe_private.json").read_text(encoding="utf-8"))
    return frozenset(row[0] for row in content["rows"])
