"""The gate before a copy leaves: do the original's identifiers stand anywhere in its bytes?

Independent of what made the copy: it reads both with pydicom, knows no table and no VR rules, and searches raw bytes.
It answers keywords, never values.
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterator
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom._uid_dict import UID_dictionary
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medgem_node.deid.table import METHOD
from medgem_node.deid.text import TERMS

IDENTIFIERS = frozenset(
    {
        "PatientID", "OtherPatientIDs", "AccessionNumber", "MedicalRecordLocator", "AdmissionID", "ServiceEpisodeID",
        "RequestedProcedureID", "PatientTelephoneNumbers", "PatientTelecomInformation", "PatientAddress",
        "InsurancePlanIdentification", "ReferringPhysicianTelephoneNumbers", "ClinicalTrialSubjectID",
        "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
    }
)  # fmt: skip
DATES = frozenset({"PatientBirthDate", "StudyDate"})
_TAGS = frozenset(tag_for_keyword(keyword) for keyword in IDENTIFIERS | DATES)
_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_CLASSES = re.compile("SOPClass|TransferSyntax|CodingSchemeUID|ContextUID|MappingResourceUID")
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+){3,}")
_WRITTEN = " ".join((*METHOD, *TERMS, "ANON REMOVED OTHER MEDGEM_NODE urn:removed")).lower()
_CODECS = ("utf-8", "latin-1", *(f"iso8859-{part}" for part in range(2, 10)), "tis-620", "shift_jis", "euc_jp",
           "iso2022_jp", "euc_kr", "iso2022_kr", "gb18030", "big5", "utf-16-le", "utf-16-be")  # fmt: skip


def leaks(original: Dataset, copy: bytes) -> list[str]:
    """Keywords of the original's identifiers whose values stand in the copy, outside its pixels; none is the aim."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings quote values
        header, coded = _searched(copy)
        needles, dates, uids = _needles(original)
    found = {keyword for needle, keyword in needles.items() if _stands(needle, header)}
    found |= {keyword for needle, keyword in needles.items() if len(needle) > 5 and _stands(needle, coded)}
    found |= {keyword for date, keyword in dates.items() if re.search(rb"(?<!\d)" + date, header)}
    found |= {uids[uid] for uid in set(_UID.findall(header)) & uids.keys()}
    return sorted(found)


def _searched(copy: bytes) -> tuple[bytes, bytes]:
    """Everything but native pixels, and encapsulated ones, both in lower case."""
    file = BytesIO(copy)
    meta = dcmread(file, stop_before_pixels=True).file_meta
    at = file.tell()
    if meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        copy = copy[:128] + zlib.decompress(copy[144 + meta.FileMetaInformationGroupLength :], -zlib.MAX_WBITS)
        file = BytesIO(copy)
        file.seek(128)
        read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag in _PIXELS)
        at = file.tell()
    coded = copy[at:] if meta.TransferSyntaxUID.is_encapsulated else b""
    return copy[:at].lower(), coded.lower()


def _needles(original: Dataset) -> tuple[dict[bytes, str], dict[bytes, str], dict[bytes, str]]:
    """Bytes to search for, each with the keyword to answer: names and identifiers, days, UIDs."""
    needles: dict[bytes, str] = {}
    dates: dict[bytes, str] = {}
    uids: dict[bytes, str] = {}
    for vr, keyword, text in _identifying(original):
        if vr == "PN":
            needles.update((n, keyword) for n in _names(text))
            continue
        for value in (v.strip("\0 ") for v in text.split("\\")):
            if vr == "UI":
                if value not in UID_dictionary and value.count(".") >= 3 and not _CLASSES.search(keyword):
                    uids[value.encode("ascii", "ignore")] = keyword
            elif vr == "DA":
                if re.fullmatch(r"\d{8}", value) and value != "19000101":
                    dates[value.encode()] = keyword
            else:
                needles.update((n, keyword) for n in _encoded(value, shortest=6 if value.isdigit() else 5))
    return needles, dates, uids


def _identifying(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    """VR, keyword and text of what may identify, at every depth but inside private elements."""
    for tag in list(dataset.keys()):
        item = dataset.get_item(tag)
        vr = _vr(tag, item)
        if vr == "SQ" and not tag.is_private:
            for nested in dataset[tag].value or ():
                yield from _identifying(nested)
        elif vr in ("PN", "UI") or tag in _TAGS:
            yield vr, keyword_for_tag(tag) or "a private attribute", _text(dataset, item)


def _text(dataset: Dataset, item: DataElement | RawDataElement | None) -> str:
    if item is None:
        return ""
    if isinstance(item.value, bytes) and item.value.isascii() and b"\x1b" not in item.value:
        return item.value.decode("ascii")
    value = dataset[item.tag].value
    return "\\".join(map(str, value)) if isinstance(value, MultiValue | list) else str(value or "")


def _vr(tag: int, item: DataElement | RawDataElement | None) -> str:
    vr = item.VR if item is not None else None
    if vr and vr != "UN":
        return str(vr)
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


def _names(text: str) -> Iterator[bytes]:
    for part in re.split(r"[\W_]+", text):
        yield from _encoded(part, shortest=4)


def _encoded(text: str, shortest: int) -> Iterator[bytes]:
    """A text in lower case, in every encoding that may have been used; short or standard words are none."""
    if text.isascii():
        hexadecimal = len(text) < 6 and set(text.lower()) <= set("0123456789abcdef")  # stand in pseudonyms by chance
        if len(text) >= shortest and text.lower() not in _WRITTEN and not hexadecimal:
            yield text.lower().encode("ascii")
        return
    for form in {text, text.upper(), text.lower(), text.title()}:
        for codec in _CODECS:
            encoded = form.encode(codec, "ignore")
            if (len(encoded) >= 4 and not encoded.isascii()) or b"\x1b" in encoded:
                yield encoded.removesuffix(b"\x1b(B").lower()


def _stands(needle: bytes, text: bytes) -> bool:
    """Whether it is there; digits only as a number of their own."""
    if needle not in text:
        return False
    return not needle.isdigit() or re.search(rb"(?<![\d.])" + needle + rb"(?![\d.])", text) is not None
