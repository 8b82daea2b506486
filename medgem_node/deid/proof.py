"""The gate before a copy leaves: does anything of the original's patient stand anywhere in its bytes?

It distrusts what made the copy and shares no code with it: it has its own reader of elements (`proof_reader`), its
own idea of what identifies (`proof_needles`: Table E.1-1 as data, and the VR), its own way to read text
(`proof_text`). First a quick look for every needle in the header's bytes; what it comes upon is looked at slowly
(`proof_search`). It answers keywords and fixed words, never values.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medgem_node.deid import proof_needles, proof_structure, proof_text
from medgem_node.deid.options import Option
from medgem_node.deid.proof_needles import LISTED, TEXTS, Needle, Needles
from medgem_node.deid.proof_reader import Buffer, File, Illegible, Wanted, opened
from medgem_node.deid.proof_search import Look, may_stand
from medgem_node.dictionary import name_of

UNREADABLE = "unreadable"

_WANTED = Wanted(LISTED | {0x00080005, 0x00120062})
_KEPT_IDENTITIES = 64
_KEPT_STRETCHES, _LONG_STRETCH = 2000, 4096
_PIECE, _OVERLAP = 8 << 20, 256
_SCHEMES = frozenset({0x00080102, 0x00080103, 0x00080105, 0x0008010F})  # of codes: said by everybody
_FEW = 60
_LONG_UID = 10  # shorter ones are versions of something as well
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+){3,}")
_NOTHING = re.compile(
    rb"[0\s.:\\+-]*|anon.*|removed|other|0+y|19000101(?:0*)|urn:removed|medgem.*|none|no|yes|unknown"
    rb"|(?:remove|anonymi[sz]e|deidentifie)d?"
)
"""What a copier puts where something must stand, in lower case: equal to the original only if that said nothing."""


def leaks(original: Buffer, copy: Sequence[Buffer], options: frozenset[Option] = frozenset()) -> list[str]:
    """Keywords of what of the original stands in the copy, or is wrong with it; none is the aim.

    Parameters
    ----------
    copy
        The copy's bytes, in pieces.
    options
        Those that the copy was made with: what they retain is no leak, and nothing else is waived.
    """
    try:
        return sorted(_found(original, tuple(copy), options))
    except Illegible:
        return [UNREADABLE]


def _found(original: Buffer, parts: tuple[Buffer, ...], options: frozenset[Option]) -> set[str]:
    before, after = opened((original,), _WANTED), opened(parts, _WANTED)
    identity = _Identity.of(before, options)
    found = proof_structure.faults(after, options)
    found |= _unchanged(identity, after, options)
    found |= _searched(original, parts, after, identity, options)
    if Option.RETAIN_UIDS not in options:
        found |= proof_structure.dangling(before, after)
    return found


@dataclass(frozen=True, slots=True)
class _Identity:
    """What an original says of its patient: to search for, to compare attribute by attribute, and UIDs."""

    needles: Needles
    values: dict[int, set[bytes]]
    uids: dict[bytes, str]

    @classmethod
    def of(cls, file: File, options: frozenset[Option]) -> _Identity:
        left = proof_needles.left(options)
        days_stay = Option.RETAIN_FULL_DATES in options
        data, codecs = file.data, b""
        named: dict[tuple[int, str, bytes], None] = {}
        values: dict[int, set[bytes]] = {}
        uids: dict[bytes, str] = {}
        staying: set[bytes] = set()
        for head, start, stop, inside, _ in (*file.elements, *file.meta):
            tag, vr = head.tag, head.vr
            if start == stop or vr == "SQ":
                continue
            if vr == "UI":
                if left.get(tag) != "K":
                    uids.setdefault(data[start:stop], name_of(tag))
                continue
            if tag in LISTED:
                state = left[tag]
                if state == "K":
                    if vr in ("DA", "DT"):
                        staying.add(data[start : start + 8])
                    continue
                value = data[start:stop]
                if state != "C" or vr in ("DA", "DT"):
                    values.setdefault(tag, set()).add(value.strip(b" \0"))
                if state == "C" and vr in TEXTS and vr != "PN":
                    continue
                if vr in ("DA", "DT"):
                    named[tag, vr, value[:10]] = None
                elif vr in TEXTS:
                    named[tag, vr, value] = None
            elif vr in ("PN", "AE") or (
                inside in LISTED and vr in TEXTS and left[inside] == "" and tag not in _SCHEMES
            ):
                named[tag, vr, data[start:stop]] = None
            elif vr in ("DA", "DT") and not tag >> 16 & 1:
                if days_stay:
                    staying.add(data[start : start + 8])
                else:
                    named[tag, vr, data[start : start + 10]] = None
            elif tag == 0x00080005 and not codecs:
                codecs = data[start:stop]
        instances = {} if Option.RETAIN_UIDS in options else _instance_uids(uids)
        if staying:  # born on the day of the study: that day is looked for in the birth date alone
            named = {key: None for key in named if key[1] not in ("DA", "DT") or key[2][:8] not in staying}
        return cls(_needles(tuple(named), codecs), values, instances)


_known: OrderedDict[object, Needles] = OrderedDict()


def _needles(named: tuple[tuple[int, str, bytes], ...], codecs: bytes) -> Needles:
    """Made once for a series: its instances say the same of their patient."""
    key = (named, codecs)
    needles = _known.get(key)
    if needles is None:
        needles = _known[key] = proof_needles.needles(named, proof_text.declared(codecs))
        while len(_known) > _KEPT_IDENTITIES:
            _known.popitem(last=False)
    return needles


def _instance_uids(values: dict[bytes, str]) -> dict[bytes, str]:
    found = {}
    for value, keyword in values.items():
        for uid in value.split(b"\\"):
            uid = uid.strip(b" \0")
            if len(uid) >= _LONG_UID and proof_needles.is_instance_uid(keyword, uid):
                found[uid] = keyword
    return found


def _unchanged(identity: _Identity, after: File, options: frozenset[Option]) -> set[str]:
    """Listed attributes that say in the copy what they said in the original, however short it is."""
    found = set()
    for head, start, stop, _, _ in after.elements:
        before = identity.values.get(head.tag)
        if before and start != stop:
            value = after.data[start:stop].strip(b" \0")
            if value in before and value.strip(b"\0") and not _NOTHING.fullmatch(value.lower()):
                found.add(name_of(head.tag))
    return found


def _searched(
    original: Buffer, parts: tuple[Buffer, ...], after: File, identity: _Identity, options: frozenset[Option]
) -> set[str]:
    header = after.data[132 : after.pixels_at].lower()
    look = Look(original, parts, Option.RETAIN_MODIFIED_DATES in options)
    needles = identity.needles
    found = _uids_left(identity.uids, header)
    accented = _unaccented(after)
    tight = header.translate(None, proof_text.BETWEEN) + accented
    new, stretches = _not_searched(tight, needles)
    candidates = dict.fromkeys(
        [needle for data, needle in needles.quick if data in new and needle not in needles.common] if new else ()
    )
    if not candidates:
        _remember(stretches, needles)
    else:
        texts = (header.decode("latin-1"), header.replace(b"\0", b"").decode("latin-1"), accented.decode())
        candidates = dict.fromkeys(needle for needle in candidates if any(may_stand(needle, text) for text in texts))
    if candidates:
        found |= {needle.keyword for needle in look.confirmed(candidates, needles.common)}
    raw = needles.raw + (needles.escaped if b"\x1b" in header else ())
    found |= {needle.keyword for data, needle in raw if data in header and look.holds_bytes(data)}
    found |= {
        n.keyword for name, year, pattern, n in needles.months if year in tight and name in tight and look.says(pattern)
    }
    if after.packed:
        found |= set(_in_frames(after.packed, needles))
    return found


def _not_searched(tight: bytes, needles: Needles) -> tuple[bytes, set[bytes]]:
    """What this identity's copies have not said before, divided where nothing that is looked for can reach over."""
    divider = needles.divider
    if not divider:
        return tight, set()
    stretches = set(tight.split(divider)) - needles.clean
    return divider + divider.join(stretches) + divider if stretches else b"", stretches


def _remember(stretches: set[bytes], needles: Needles) -> None:
    if len(needles.clean) > _KEPT_STRETCHES:
        needles.clean.clear()
    if len(stretches) <= _KEPT_STRETCHES:
        needles.clean.update(s for s in stretches if len(s) <= _LONG_STRETCH)


def _unaccented(after: File) -> bytes:
    """The copy's texts that are not plain ASCII, folded."""
    texts: list[str] = []
    codecs: tuple[str, ...] = ()
    for head, start, stop, _, _ in after.elements:
        if head.vr in TEXTS and stop > start:
            value = after.data[start:stop]
            if head.tag == 0x00080005:
                codecs = proof_text.declared(value)
            elif not value.isascii() or b"\x1b" in value:
                texts += proof_text.readings(value, codecs)
    return "\0".join(proof_text.compact(proof_text.folded(t)) for t in ("", *texts)).encode() if texts else b""


def _uids_left(uids: dict[bytes, str], header: bytes) -> set[str]:
    if len(uids) > _FEW:
        return {uids[uid] for uid in set(_UID.findall(header)) & uids.keys()}
    return {
        keyword
        for uid, keyword in uids.items()
        if uid in header and re.search(rb"(?<!\d)(?<!\d\.)" + re.escape(uid) + rb"(?!\d|\.\d)", header)
    }


def _in_frames(packed: bytes, needles: Needles) -> Iterator[str]:
    """Needles in code streams and what lies between and behind them; short ones would turn up by chance."""
    for at in range(0, len(packed), _PIECE):
        piece = packed[at : at + _PIECE + _OVERLAP].lower()
        tight = piece.translate(None, proof_text.BETWEEN)
        for data, needle in needles.quick:
            if len(data) >= 6 and data in tight and _stands_in_bytes(data, needle, piece):
                yield needle.keyword
        for data, needle in needles.raw:
            if len(data) >= 6 and data in piece:
                yield needle.keyword


def _stands_in_bytes(data: bytes, needle: Needle, piece: bytes) -> bool:
    gap = rb"[\0 _.,:;/^=-]{0,2}"
    around = (rb"(?<![0-9])", rb"(?![0-9])") if data.isdigit() else (b"", b"")
    pattern = around[0] + gap.join(re.escape(data[n : n + 1]) for n in range(len(data))) + around[1]
    return re.search(pattern, piece) is not None
