"""What becomes of each attribute at each place of an object, decided once and then looked up by its raw head.

A `Place` is a data set within an object: the top, or the items of a sequence of that path. It maps the first bytes of
an element (tag and, where it is written, VR) to an opcode; what it has not met yet it decides by Table E.1-1 and, for
an attribute without a row, by its VR. Nothing here reads a value.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from enum import Enum

from medgem_node.deid import layout, table, types
from medgem_node.deid.bookkeeping import BURNED_IN, RECOGNIZABLE, REPLACED
from medgem_node.deid.layout import ITEM_END, PIXEL_TAGS, Syntax
from medgem_node.deid.options import Option, Profile
from medgem_node.deid.text import IDENTIFIERS
from medgem_node.dictionary import vr_of

KEEP, TEXT, NUMBER, DROP, CONSTANT, REMEMBERED, NAMED, SEQUENCE, OTHER = range(9)
"""What the loop of the copier does itself:
keep the bytes; keep a text that names nobody; keep numbers that are no identifier; drop; put a constant; put what the
value was given before; keep in mind who is named, then put a constant; go into items; ask the deed of the rule."""
LONG = 16
"""Added to an opcode whose element has a length of four bytes after two empty ones."""
MOST_ENTRIES = 20_000
OWN_WORDS = frozenset({BURNED_IN, RECOGNIZABLE})
DATES = frozenset({"DA", "DT", "TM"})
NUMERIC = frozenset("AT FD FL OD OF OL OV OW SL SS SV UL US UV".split())  # noqa: SIM905
TEXTS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC"})
IMAGE_TYPES = frozenset({0x00080008, 0x00089007})  # Image Type, Frame Type: Type 1, and free from the third value on
CLASS_UIDS = frozenset(
    {
        0x00041510, 0x00041512, 0x0004151A, 0x00080016, 0x0008001A, 0x0008001B, 0x00080062, 0x0008010C, 0x00080117,
        0x00080118, 0x0008040E, 0x00081150, 0x0008115A, 0x00083002, 0x00340003, 0x04000010, 0x30100052, 0x30100053,
    }
)  # fmt: skip
"""UIDs of classes, transfer syntaxes, coding schemes and context groups: no instance's."""

_BY_DICTIONARY = frozenset({"PN", "UI", "DA", "DT", "TM", "AE", "AS", "UR"})  # so judged, whatever VR was sent
_NARRATIVE = frozenset({"ST", "LT", "UT"})  # no image IOD needs one, and a third person may be named
_CODE_VALUES = frozenset({0x00080100, 0x00080103, 0x00080119, 0x00080120})
_SCHEME, _MEANING = 0x00080102, 0x00080104
_ALSO_REMOVED = frozenset({0x04000500, 0x04000561, 0x4FFE0001, 0x00880200})
"""Encrypted Attributes, Original Attributes, MAC Parameters (of signatures), Icon Image."""
_BYTES_KEPT = frozenset({0x54001010, 0x54000110, 0x54000112, 0x5400100A})
"""Values of OB that hold samples of waveforms."""
_PROFILES = frozenset({0x00282000})  # ICC Profile: kept if it names nobody
_PATIENT = frozenset({0x00100010, 0x00100020, 0x00080050})  # get pseudonyms
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."
DUMMIES = {
    "AE": b"REMOVED", "AS": b"000Y", "AT": bytes(4), "CS": b"OTHER", "DA": b"19000101", "DS": b"0",
    "DT": b"19000101000000", "FD": bytes(8), "FL": bytes(4), "IS": b"0", "OB": bytes(2), "OD": bytes(8),
    "OF": bytes(4), "OL": bytes(4), "OV": bytes(8), "OW": bytes(2), "PN": b"ANON", "SL": bytes(4), "SS": bytes(2),
    "SV": bytes(8), "TM": b"000000", "UL": bytes(4), "UN": bytes(2), "UR": b"urn:removed", "US": bytes(2),
    "UV": bytes(8),
}  # fmt: skip


class Deed(Enum):
    """What is done to an element by a function of its own, seldom."""

    UID = "another UID"
    CLASS_UID = "kept if it is a UID"
    PERSON = "pseudonym"
    SHIFT = "shifted"
    AGE = "capped"
    DESCRIBE = "known words only"
    CHARSET = "of all that follows"
    SCHEME = "of the code it stands in"
    CODE = "kept if its scheme is public"
    RETYPE = "written with the VR of PS3.6"
    MIXED = "implicit within explicit"
    NOTE = "kept in mind for the pixels"
    DOCUMENT = "encapsulated"
    PRIVATE = "kept if known to be safe"
    BYTES = "kept if nobody is named in it"
    END = "end of an item"
    PIXELS = "where the pixels begin"
    BROKEN = "no element"


class Kind(Enum):
    """How the items of a sequence are taken."""

    PLAIN = "by their rows"
    DUMMY = "inside a sequence that gets dummies"
    OPEN = "inside a sequence that an option keeps or has cleaned"
    GONE = "only who is named there is of interest"


@dataclass(frozen=True, slots=True)
class Rule:
    """The decision on one attribute at one place.

    `op` and `vr` as the copier needs them, `constant` the whole new element, `place` where the items of a sequence
    lie, `action` what the table said; `then` is the decision on what was noted or got its VR, `is_kept` that it stays.
    """

    tag: int
    vr: str
    op: int
    action: str = ""
    constant: bytes = b""
    deed: Deed | None = None
    place: Place | None = None
    then: Rule | None = None
    is_first_enough: bool = False
    is_kept: bool = False


Entry = tuple[int, int, Rule]
_NUMBERS = itertools.count()


class Actions:
    """All places of the objects of one SOP Class under one profile."""

    def __init__(self, profile: Profile, sop_class_uid: str, wanted: frozenset[int] = frozenset()) -> None:
        self.profile, self.sop_class_uid, self.wanted = profile, sop_class_uid, wanted
        self._tops: dict[tuple[bool, bool], Place] = {}

    def top(self, syntax: Syntax) -> Place:
        """The top of an object that is written so."""
        key = (syntax.implicit, syntax.little)
        if key not in self._tops:
            self._tops[key] = Place(self, syntax, (), Kind.PLAIN)
        return self._tops[key]


class Place(dict[bytes, Entry]):
    """Raw head of an element to opcode, tag and rule; filled as elements are met."""

    def __init__(self, actions: Actions, syntax: Syntax, parents: tuple[int, ...], kind: Kind) -> None:
        super().__init__()
        self.actions, self.syntax, self.parents, self.kind = actions, syntax, parents, kind
        self.made: dict[bytes, bytes | None] = {}
        self.hits = self.misses = 0  # of items that were the same as some before
        self.number = next(_NUMBERS)
        self.head = struct.Struct(("<" if syntax.little else ">") + ("4sL" if syntax.implicit else "6sH")).unpack_from
        self.long = struct.Struct("<L" if syntax.little else ">L").unpack_from
        self.item = struct.Struct("<4sL" if syntax.little else ">4sL")
        self._tag = struct.Struct("<HH" if syntax.little else ">HH")
        self._places: dict[tuple[int, Kind, bool], Place] = {}
        self._options = actions.profile.options

    def __missing__(self, key: bytes) -> Entry:
        group, number = self._tag.unpack_from(key)
        vr = ""
        if not self.syntax.implicit and group != 0xFFFE:
            sent = key[4:]
            if not (sent.isalpha() and sent.isupper()):
                tag = group << 16 | number
                return OTHER, tag, Rule(tag, "", OTHER, deed=Deed.MIXED)
            vr = sent.decode("ascii")
        rule = self.rule(group << 16 | number, vr)
        op = rule.op + LONG if vr in layout.LONG_VRS and rule.deed not in (Deed.END, Deed.PIXELS) else rule.op
        entry = op, rule.tag, rule
        if len(self) < MOST_ENTRIES:
            self[key] = entry
        return entry

    def rule(self, tag: int, sent: str) -> Rule:
        """The decision on an attribute that was sent with this VR; empty if none was written."""
        group = tag >> 16
        if group == 0xFFFE:
            return Rule(tag, "", OTHER, deed=Deed.END if tag == ITEM_END else Deed.BROKEN)
        if tag in PIXEL_TAGS and not self.parents:
            return Rule(tag, "", OTHER, deed=Deed.PIXELS)
        if group & 1:
            is_asked = Option.RETAIN_SAFE_PRIVATE in self._options and self.kind is not Kind.GONE
            return Rule(tag, sent, OTHER, deed=Deed.PRIVATE) if is_asked else _dropped(tag, sent)
        rule = self._public(tag, sent)
        if tag in self.actions.wanted and not self.parents and rule.deed is not Deed.NOTE:
            return Rule(tag, rule.vr, OTHER, deed=Deed.NOTE, then=rule, is_kept=rule.op == KEEP)
        return rule

    def within(self, tag: int, kind: Kind, as_unknown: bool = False) -> Place:
        """The items of a sequence here; those of one within its own kind are the same place."""
        kind = self.kind if self.kind in (Kind.GONE, Kind.DUMMY) and kind is not Kind.GONE else kind
        is_same = self.parents[-1:] == (tag,) and kind is self.kind and not as_unknown
        if is_same:
            return self
        key = (tag, kind, as_unknown)
        if key not in self._places:
            syntax = layout.UNKNOWN_SYNTAX if as_unknown else self.syntax
            self._places[key] = Place(self.actions, syntax, (*self.parents, tag), kind)
        return self._places[key]

    def element(self, tag: int, vr: str, value: bytes | list[bytes]) -> bytes:
        """An element as it is written here."""
        return layout.element(tag, vr, value, self.syntax)

    def is_required(self, tag: int) -> bool:
        """Whether the IOD wants a value here."""
        return self._type(tag) == "1"

    def safe(self, tag: int, vr: str) -> Rule:
        """The decision on a private attribute that is safe."""
        return self._without_row(tag, vr)

    def _public(self, tag: int, sent: str) -> Rule:
        group = tag >> 16
        repeating = group >> 8 in (0x50, 0x60) and not group & 1
        if repeating or group < 4 or group == 0x7FE0 or not tag & 0xFFFF or tag in _ALSO_REMOVED:
            return self._gone(tag, sent)
        if not self.parents and tag in REPLACED:
            return _dropped(tag, sent)
        if not self.parents and tag in OWN_WORDS:  # written again beside ours, if it still holds
            return Rule(tag, sent or "CS", OTHER, deed=Deed.NOTE, then=_dropped(tag, sent))
        action = table.resolve(tag, self.parents, self.actions.sop_class_uid, self.actions.profile)
        known = vr_of(tag)
        if known == "SQ" or sent == "SQ":
            return self._sequence(tag, sent, known, action)
        vr = _judged_vr(tag, sent, known, action)
        if self.kind is Kind.GONE or not vr:
            return self._gone(tag, sent, vr)
        if action == "X":
            return self._gone(tag, sent, vr)
        rule = self._acted(tag, vr, action) if action else self._without_row(tag, vr)
        if sent not in ("", vr):
            return Rule(tag, vr, OTHER, action, deed=Deed.RETYPE, then=rule)
        return rule

    def _sequence(self, tag: int, sent: str, known: str, action: str) -> Rule:
        if known != "SQ" or sent not in ("", "SQ", "UN") or (sent == "UN" and not self.syntax.little):
            return _dropped(tag, sent)
        constant = b""
        if action in ("X", "Z") or self.kind is Kind.GONE:
            kind = Kind.GONE
            constant = self.element(tag, "SQ", b"") if action == "Z" else b""
        else:
            kinds = {"D": Kind.DUMMY, "K": Kind.OPEN, "C": Kind.OPEN}
            kind = kinds.get(action, Kind.OPEN if self.kind is Kind.OPEN else Kind.PLAIN)
        place = self.within(tag, kind, as_unknown=sent == "UN")
        return Rule(tag, sent or "SQ", SEQUENCE, action, constant, place=place)

    def _gone(self, tag: int, sent: str, vr: str = "") -> Rule:
        """Dropped; who is named in it is kept in mind."""
        vr = vr or sent or vr_of(tag)
        if _names(tag, vr):
            return Rule(tag, vr, NAMED, "X", is_first_enough=vr in ("DA", "DT"))
        return _dropped(tag, sent)

    def _acted(self, tag: int, vr: str, action: str) -> Rule:
        """What the attribute's row says."""
        if action == "K":
            return self._kept(tag, vr)
        if action == "C":
            return self._cleaned(tag, vr)
        if action == "U" or (vr == "UI" and action == "D"):
            return self._uid(tag, vr, is_listed=True)
        if tag in _PATIENT:
            return Rule(tag, vr, OTHER, action, deed=Deed.PERSON)
        if tag == 0x00420011:
            is_document = not self.parents and self.actions.sop_class_uid.startswith(_DOCUMENTS)
            if not is_document:
                return self._by_type(tag, vr)
            return Rule(tag, vr, OTHER, action, deed=Deed.DOCUMENT)
        dummy = b"" if action == "Z" and self.kind is not Kind.DUMMY else DUMMIES.get(vr, b"REMOVED")
        return self._put(tag, vr, action, dummy)

    def _kept(self, tag: int, vr: str) -> Rule:
        if vr == "AS":
            return Rule(tag, vr, OTHER, "K", deed=Deed.AGE)
        if vr in ("DS", "IS"):
            return Rule(tag, vr, NUMBER, "K")
        if vr in TEXTS or vr in ("CS", "AE", "PN"):
            return Rule(tag, vr, TEXT, "K")
        return Rule(tag, vr, KEEP, "K")

    def _cleaned(self, tag: int, vr: str) -> Rule:
        if vr in DATES:
            return Rule(tag, vr, OTHER, "C", deed=Deed.SHIFT)
        if vr in TEXTS or vr == "AE":
            is_zone = tag == 0x00080201  # Timezone Offset From UTC: no word of it is in a vocabulary
            return Rule(tag, vr, TEXT, "C") if is_zone else Rule(tag, vr, OTHER, "C", deed=Deed.DESCRIBE)
        if vr in NUMERIC and vr != "OW":
            return Rule(tag, vr, KEEP, "C")
        return self._by_type(tag, vr)

    def _without_row(self, tag: int, vr: str) -> Rule:
        """An attribute that the table would keep, by its VR."""
        if vr == "UI":
            return self._uid(tag, vr)
        if vr == "CS":
            return Rule(tag, vr, OTHER, deed=Deed.CHARSET) if tag == 0x00080005 else Rule(tag, vr, TEXT)
        if tag == _SCHEME:
            return Rule(tag, vr, OTHER, deed=Deed.SCHEME)
        if tag == _MEANING or tag in _CODE_VALUES:
            return Rule(tag, vr, OTHER, deed=Deed.CODE)
        if vr in NUMERIC:
            return Rule(tag, vr, KEEP)
        if vr in DATES or vr == "AS":
            return self._time(tag, vr)
        if vr == "IS" or (vr == "DS" and self.kind is not Kind.DUMMY):
            return Rule(tag, vr, NUMBER)
        if self.kind is Kind.DUMMY:
            return self._put(tag, vr, "", DUMMIES.get(vr, b"REMOVED"))
        if vr in ("AE", "UR", "OB", "UN"):
            return self._unjudged(tag, vr)
        if vr in _NARRATIVE and (Option.CLEAN_DESCRIPTORS in self._options or self.kind is Kind.OPEN):
            return Rule(tag, vr, OTHER, deed=Deed.DESCRIBE)
        if vr == "PN" or vr in _NARRATIVE:
            return self._put(tag, vr, "", DUMMIES.get(vr, b"REMOVED"))
        return Rule(tag, vr, TEXT)

    def _uid(self, tag: int, vr: str, is_listed: bool = False) -> Rule:
        if tag in CLASS_UIDS:
            return Rule(tag, vr, REMEMBERED, deed=Deed.CLASS_UID)
        if Option.RETAIN_UIDS in self._options and vr == "UI" and not is_listed:
            return Rule(tag, vr, REMEMBERED, deed=Deed.CLASS_UID)
        return Rule(tag, "UI", REMEMBERED, "U", deed=Deed.UID)

    def _time(self, tag: int, vr: str) -> Rule:
        if vr == "AS":
            is_kept = Option.RETAIN_PATIENT_CHARACTERISTICS in self._options
            return Rule(tag, vr, OTHER, deed=Deed.AGE) if is_kept else self._by_type(tag, vr)
        if Option.RETAIN_FULL_DATES in self._options:
            return Rule(tag, vr, KEEP)
        if Option.RETAIN_MODIFIED_DATES in self._options:
            return Rule(tag, vr, OTHER, deed=Deed.SHIFT)
        if self.kind is Kind.DUMMY or self._type(tag) == "1":
            return self._put(tag, vr, "", DUMMIES[vr])
        return self._put(tag, vr, "", b"")

    def _unjudged(self, tag: int, vr: str) -> Rule:
        if tag in _BYTES_KEPT:
            return Rule(tag, vr, KEEP)
        if tag in _PROFILES:
            return Rule(tag, vr, OTHER, deed=Deed.BYTES)
        return self._by_type(tag, vr)

    def _by_type(self, tag: int, vr: str) -> Rule:
        """What its IOD needs instead of a value that may not stay."""
        kind = self._type(tag)
        if kind == "1":
            return self._put(tag, vr, "D", DUMMIES.get(vr, b"REMOVED"))
        return self._put(tag, vr, "Z", b"") if kind in ("2", "2C") or vr == "AS" else self._gone(tag, vr)

    def _type(self, tag: int) -> str:
        return types.type_of(self.actions.sop_class_uid, self.parents, tag)

    def _put(self, tag: int, vr: str, action: str, value: bytes) -> Rule:
        constant = self.element(tag, vr, value)
        if _names(tag, vr):
            return Rule(tag, vr, NAMED, action, constant, is_first_enough=vr in ("DA", "DT"))
        return Rule(tag, vr, CONSTANT, action, constant)


def _dropped(tag: int, vr: str) -> Rule:
    return Rule(tag, vr, DROP, "X")


def _names(tag: int, vr: str) -> bool:
    """Whether the value tells who somebody is."""
    return vr in ("PN", "DA", "DT") or tag in IDENTIFIERS


def _judged_vr(tag: int, sent: str, known: str, action: str) -> str:
    """The VR to judge and write by; empty for one that is not what PS3.6 says, or that it does not know."""
    if not known:
        return sent if action and sent not in ("", "UN") else ""  # newer than the dictionary
    if known in _BY_DICTIONARY:
        return known
    choices = known.split(" or ")
    if sent in ("", "UN"):
        return "OW" if "OW" in choices else choices[0]  # US for SS: same bytes, and told by Pixel Representation
    if sent in NUMERIC and not NUMERIC.intersection(choices):
        return ""
    return sent if sent in DUMMIES or sent in TEXTS else ""
