"""PS3.15 Annex E, Basic Application Level Confidentiality Profile, at every depth.

An attribute with a row in Table E.1-1 gets that row's action. One without a row, which the standard would keep, is
judged by its VR: names, dates, addresses and unknown values go, UIDs become others, text stays only if it names
nobody of this header. What cannot be judged is not forwarded: CannotDeidentify.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes

from medgem_node import part10
from medgem_node.deid import layout, pixels, table
from medgem_node.deid.layout import Broken, Element, Elements, Syntax
from medgem_node.deid.options import profile_of
from medgem_node.deid.proof import leaks
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.deid.text import TERMS, Charset, Identity, charset_of, decoded, named
from medgem_node.errors import CannotDeidentify, ConfigError, NotUnderstood

IMPLEMENTATION_CLASS_UID = "2.25.249230188930712416325046143270291047683"

_UNPARSABLE = (
    ArithmeticError, AttributeError, EOFError, InvalidDicomError, LookupError, MemoryError, NotImplementedError,
    OSError, RecursionError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
"""What strangers' bytes raise here and in pydicom, which has no base class for it; each means held."""
_PUBLIC_SCHEMES = frozenset(
    """
    DCM SCT SRT SNM3 LN UCUM RADLEX NCIt FMA MSH UMLS BI C4 I9 I9C I10 I10C I10P I11 ICDO3 ISO3166_1 ISO639_1 ISO639_2
    RFC3066 RFC5646 RXNORM UNS ITIS_TSN NEU PUBCHEM_CID MDC ACR BARI CADSR MAYOASRG TNM BIRADS
    """.split()  # noqa: SIM905
)
"""Coding Scheme Designators of PS3.16 Table 8-1 whose meanings a site cannot write itself."""
_CLASS_UIDS = frozenset(
    {
        0x00041510, 0x00041512, 0x0004151A, 0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x0008010C, 0x00080117,
        0x00080118, 0x0008040E, 0x00081150, 0x0008115A, 0x00083002, 0x00340003, 0x04000010, 0x30100052, 0x30100053,
    }
)  # fmt: skip
"""UIDs of classes, transfer syntaxes, coding schemes and context groups: no instance's."""
_NUMERIC = frozenset("AT FD FL OD OF OL OV OW SL SS SV UL US UV".split())  # noqa: SIM905
_TEXTS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
_BY_DICTIONARY = frozenset({"PN", "UI", "DA", "DT", "TM", "AE", "AS", "UR"})  # so judged, whatever VR was sent
_NARRATIVE = frozenset({"ST", "LT", "UT"})  # no image IOD needs one, and a third person may be named
_CODE_VALUES = frozenset({0x00080100, 0x00080102, 0x00080103, 0x00080104, 0x00080119})
_ALSO_REMOVED = frozenset({0x04000500, 0x4FFE0001})  # Encrypted Attributes, MAC Parameters (of signatures)
_TYPES = frozenset({0x00080008, 0x00089007})  # Image Type, Frame Type: Type 1, and free from the third value on
_OURS = frozenset({0x00120062, 0x00120063, 0x00120064, 0x00280303})
_UID = re.compile(r"[0-2](\.\d+)+")
_NUMBERS = re.compile(rb"[0-9+\-.eE \\\0]*")
_SCREEN = re.compile(r"SCREEN|DOSE|REPORT|LABEL|PROT\b")
_DUMMIES = {
    "AE": b"REMOVED", "AS": b"000Y", "AT": bytes(4), "CS": b"OTHER", "DA": b"19000101", "DS": b"0",
    "DT": b"19000101000000", "FD": bytes(8), "FL": bytes(4), "IS": b"0", "OB": bytes(2), "OD": bytes(8),
    "OF": bytes(4), "OL": bytes(4), "OV": bytes(8), "OW": bytes(2), "PN": b"ANON", "SL": bytes(4), "SS": bytes(2),
    "SV": bytes(8), "TM": b"000000", "UL": bytes(4), "UN": bytes(2), "UR": b"urn:removed", "US": bytes(2),
    "UV": bytes(8),
}  # fmt: skip


def deidentify(instance: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    """A de-identified copy of an instance, which stays as it is. Raises CannotDeidentify."""
    try:
        data = part10.encode(instance)
    except _UNPARSABLE as exc:
        raise CannotDeidentify(f"the instance cannot be written ({type(exc).__name__})") from None
    return part10.decode(deidentify_bytes(data, pseudonyms))


def deidentify_bytes(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """A de-identified copy of a Part 10 file, in its transfer syntax, pixels as they are; proved before it leaves.

    Pure: same file and key, same copy.

    Raises
    ------
    CannotDeidentify
        If the instance is no plain image, breaks the encoding rules, or the copy fails the proof. The message and
        its causes hold no identity.
    """
    try:
        copy = _copied(data, pseudonyms)
        found = leaks(data, [copy])
    except Broken as exc:
        raise CannotDeidentify(f"the data set breaks the encoding rules: {exc}") from None
    except (*_UNPARSABLE, NotUnderstood) as exc:
        raise CannotDeidentify(f"the data set cannot be parsed ({type(exc).__name__})") from None
    if found:
        raise CannotDeidentify(f"values of these attributes are still in the copy: {', '.join(found)}")
    return copy


def check_config(config: Mapping[str, object]) -> None:
    """Refuse a `deid.toml` that asks for more than runs. Raises ConfigError."""
    if profile_of(config, "deid.toml").options:
        raise ConfigError('deid.toml: only profile = "basic" without options is there; nothing else may be claimed')


def _copied(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    _, syntax, body = layout.split(data)
    header, at = layout.header(body, syntax)
    if len({e.tag for e in header}) != len(header):
        raise Broken("an attribute stands there twice")
    texts = _Texts.of(header)
    _refuse(texts)
    image = pixels.take(body, at, syntax)
    parts: list[bytes] = []
    if image is not None:
        numbers = _numbers(header, syntax)
        image = pixels.cut(image, pixels.expected_bytes(numbers, texts.photometric_interpretation))
        image = pixels.without_bits(image, _overlay_bits(header, syntax), numbers[0x00280100], syntax.little)
        parts = [b"".join(pixels.without_comments(image).parts(syntax))]
    copier = _Copier(pseudonyms, syntax, Identity.of(named(header)), table.type_1(texts.sop_class_uid))
    sop_instance_uid = pseudonyms.uid(texts.sop_instance_uid)
    return layout.join(_meta(texts.sop_class_uid, sop_instance_uid, syntax), syntax, [copier.top(header), *parts])


@dataclass(frozen=True, slots=True)
class _Texts:
    """What the decision to copy at all depends on."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    image_type: str
    burned_in_annotation: str
    photometric_interpretation: str

    @classmethod
    def of(cls, header: Elements) -> _Texts:
        tags = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00080008, 0x00280301, 0x00280004)
        values = {e.tag: e.value for e in header if e.tag in tags and isinstance(e.value, bytes)}
        return cls(*(values.get(tag, b"").decode("latin-1").strip("\0 ") for tag in tags))


def _refuse(texts: _Texts) -> None:
    """Hold what may show a name in its pixels, or is no image: nothing here reads pixels yet."""
    if texts.sop_class_uid not in table.IMAGES:
        raise CannotDeidentify("its SOP Class is none of the images that may leave")
    if texts.burned_in_annotation.upper() != "NO" and texts.burned_in_annotation:
        raise CannotDeidentify("Burned In Annotation says that its pixels hold text")
    if _SCREEN.search(texts.image_type.upper()):
        raise CannotDeidentify("Image Type says that it is a picture of a screen or a page")
    if not (texts.sop_instance_uid and texts.study_instance_uid and texts.series_instance_uid):
        raise CannotDeidentify("it lacks a Study, Series or SOP Instance UID")


def _numbers(header: Elements, syntax: Syntax) -> dict[int, int]:
    tags = (0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102)
    found = {e.tag: syntax.number(e.value) for e in header if e.tag in tags and isinstance(e.value, bytes)}
    frames = [e.value for e in header if e.tag == 0x00280008 and isinstance(e.value, bytes)]
    found[0x00280008] = int(frames[0].split(b"\\")[0].strip(b" \0") or b"1") if frames else 1
    return found


def _overlay_bits(header: Elements, syntax: Syntax) -> int:
    """The bits beside the stored ones that an overlay without data of its own claims."""
    numbers = _numbers(header, syntax)
    high = numbers.get(0x00280102, numbers[0x00280100] - 1)
    stored = ((1 << numbers.get(0x00280101, high + 1)) - 1) << max(high + 1 - numbers.get(0x00280101, high + 1), 0)
    with_data = {e.tag >> 16 for e in header if e.tag & 0xFF00FFFF == 0x60003000}
    mask = 0
    for element in header:
        if element.tag & 0xFF00FFFF == 0x60000102 and element.tag >> 16 not in with_data:
            if not isinstance(element.value, bytes):
                raise Broken("an overlay's bit position is a sequence")
            mask |= 1 << min(syntax.number(element.value), 63)
    return mask & ~stored


def _meta(sop_class_uid: str, sop_instance_uid: str, syntax: Syntax) -> list[tuple[int, str, bytes]]:
    """File Meta Information that tells of us only (PS3.10 7.1)."""
    return [
        (0x00020001, "OB", b"\0\1"),
        (0x00020002, "UI", sop_class_uid.encode()),
        (0x00020003, "UI", sop_instance_uid.encode()),
        (0x00020010, "UI", syntax.uid.encode()),
        (0x00020012, "UI", IMPLEMENTATION_CLASS_UID.encode()),
        (0x00020013, "SH", b"MEDGEM_NODE"),
    ]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an element stands: its data set's codecs, patient and coding scheme."""

    charset: Charset | None
    is_nested: bool = False
    is_dummy: bool = False  # inside a sequence whose action is D
    patient_id: str = ""
    issuer: str = ""
    is_public_code: bool = False


_Made = tuple[str, bytes | list[bytes]] | None


@dataclass(frozen=True, slots=True)
class _Copier:
    """Copies the elements of one instance, each as its row or its VR says."""

    pseudonyms: Pseudonyms
    syntax: Syntax
    identity: Identity
    type_1: frozenset[int]

    def top(self, header: Elements) -> bytes:
        """The data set before its pixels, with what was done to it (PS3.15 E.1.1, PS3.3 C.7.1.1 and C.12.1)."""
        parts = self._parts(header, _Place(("latin_1",)))
        code = codes.DCM.BasicApplicationConfidentialityProfile
        item = b"".join(
            layout.element(tag, vr, text.encode(), self.syntax)
            for tag, vr, text in (
                (0x00080100, "SH", code.value),
                (0x00080102, "SH", code.scheme_designator),
                (0x00080104, "LO", code.meaning),
            )
        )
        ours: list[tuple[int, str, bytes | list[bytes]]] = [
            (0x00120062, "CS", b"YES"),
            (0x00120063, "LO", "\\".join(table.METHOD).encode()),
            (0x00120064, "SQ", [item]),
            (0x00280303, "CS", b"REMOVED"),
        ]
        parts += [(tag, layout.element(tag, vr, value, self.syntax)) for tag, vr, value in ours]
        return b"".join(part for _, part in sorted(parts))

    def _parts(self, elements: Elements, place: _Place) -> list[tuple[int, bytes]]:
        charset = charset_of(elements, place.charset)
        told = {e.tag: decoded(e.value, charset) or e.value.decode("latin-1") for e in elements
                if e.tag in (0x00100020, 0x00100021, 0x00080102) and isinstance(e.value, bytes)}  # fmt: skip
        place = _Place(
            charset,
            place.is_nested,
            place.is_dummy,
            told.get(0x00100020, ""),
            told.get(0x00100021, ""),
            told.get(0x00080102, "").strip("\0 ") in _PUBLIC_SCHEMES,
        )
        parts = []
        for element in sorted(elements, key=lambda e: e.tag):
            made = self._made(element, place)
            if made is not None:
                parts.append((element.tag, layout.element(element.tag, *made, self.syntax)))
        return parts

    def _made(self, element: Element, place: _Place) -> _Made:
        """VR and value in the copy; None if the attribute goes."""
        tag, group = element.tag, element.tag >> 16
        repeating = 0x5000 <= group <= 0x50FF or 0x6000 <= group <= 0x60FF
        if group & 1 or repeating or group < 4 or not tag & 0xFFFF or tag in _ALSO_REMOVED or tag in _OURS:
            return None
        is_sequence = isinstance(element.value, list)
        action = table.action(tag, is_sequence, place.is_nested or tag in self.type_1)
        vr = "" if action == "X" else _vr(element)
        if not vr:
            return None
        if isinstance(element.value, list):
            return self._sequence(element.value, action, place)
        if not (element.value if vr in _NUMERIC else element.value.strip(b" \0")):
            return vr, b""
        if action:
            return self._acted(tag, vr, element.value, action, place)
        return self._judged(tag, vr, element.value, place)

    def _sequence(self, items: list[Elements], action: str, place: _Place) -> _Made:
        if action == "Z" or not items:
            return "SQ", []
        inside = _Place(place.charset, True, place.is_dummy or action == "D")
        copies = [b"".join(part for _, part in self._parts(item, inside)) for item in items]
        return ("SQ", copies) if any(copies) else None

    def _acted(self, tag: int, vr: str, value: bytes, action: str, place: _Place) -> _Made:
        """What the attribute's row says, with pseudonyms where Z and D allow a value."""
        if tag == 0x00100020:
            return vr, self.pseudonyms.patient_id(place.patient_id, place.issuer).encode()
        if tag == 0x00100010:
            return vr, self.pseudonyms.name(place.patient_id, place.issuer).encode()
        if tag == 0x00080050:
            return vr, self.pseudonyms.accession(decoded(value, place.charset) or value.decode("latin-1")).encode()
        if action == "Z" and not place.is_dummy:
            return vr, b""
        return self._dummy(vr if action != "U" else "UI", value)

    def _judged(self, tag: int, vr: str, value: bytes, place: _Place) -> _Made:
        """An attribute without a row, by its VR."""
        if vr == "UI":
            return self._dummy(vr, value) if tag not in _CLASS_UIDS or not _is_uids(value) else (vr, value)
        if vr == "CS":
            return self._terms(tag, value, place)
        if place.is_dummy and not (tag in _CODE_VALUES and place.is_public_code):
            return self._dummy(vr, value)
        if vr in ("DS", "IS"):
            return vr, b"" if not _NUMBERS.fullmatch(value) or self.identity.is_number(value) else value
        if vr in _NUMERIC:
            return vr, value
        if vr in ("DA", "DT", "TM", "AS"):
            return vr, b""
        if vr in ("AE", "UR", "OB", "UN"):
            return None
        if vr == "PN" or vr in _NARRATIVE or (tag == 0x00080104 and not place.is_public_code):
            return self._dummy(vr, value)
        return (vr, value) if self._is_clean(value, place) else self._dummy(vr, value)

    def _terms(self, tag: int, value: bytes, place: _Place) -> _Made:
        """A CS: standard terms stay whoever is called so; of an Image Type only what names somebody goes."""
        if tag == 0x00080005:
            return ("CS", value) if place.charset is not None else None
        terms = value.rstrip(b"\0").split(b"\\")
        kept = [t if t.strip().decode("latin-1") in TERMS or self._is_clean(t, place) else b"OTHER" for t in terms]
        if kept == terms:
            return "CS", value
        return "CS", b"\\".join(kept) if tag in _TYPES else b""

    def _is_clean(self, value: bytes, place: _Place) -> bool:
        text = decoded(value, place.charset)
        return text is not None and "\0" not in text.rstrip("\0 ") and not self.identity.is_named_in(text)

    def _dummy(self, vr: str, value: bytes) -> _Made:
        if vr == "UI":
            uids = value.decode("latin-1").split("\\")
            return vr, "\\".join(self.pseudonyms.uid(uid) for uid in uids).encode("ascii")
        return vr, _DUMMIES.get(vr, b"REMOVED")


def _vr(element: Element) -> str:
    """The VR to judge and write an element by; empty for one that is not what PS3.6 says, or that it does not know."""
    known = layout.vr_of(element.tag)
    if not known or (known == "SQ") != isinstance(element.value, list):
        return ""
    if known in _BY_DICTIONARY or known == "SQ":
        return known
    choices = known.split(" or ")
    if element.vr in ("", "UN"):
        return "OW" if "OW" in choices else choices[0]  # US for SS: same bytes, and told by Pixel Representation
    if element.vr in _NUMERIC and not _NUMERIC.intersection(choices):
        return ""
    return element.vr if element.vr in _DUMMIES or element.vr in _TEXTS else ""


def _is_uids(value: bytes) -> bool:
    return all(_UID.fullmatch(uid.strip("\0 ")) for uid in value.decode("latin-1").split("\\"))
