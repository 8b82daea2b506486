"""De-identified copies of instances under one key and profile (PS3.15 Annex E), proved before they leave.

What is found out once is kept for the next instance: the actions of a SOP Class, who is named in a series, which texts
name nobody. An object of this class belongs to one thread.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medgem_node.deid import bookkeeping, layout
from medgem_node.deid.actions import Actions, Place
from medgem_node.deid.bookkeeping import Done
from medgem_node.deid.copier import SLOTS, Copier, Parts
from medgem_node.deid.image import NOTED, Image
from medgem_node.deid.layout import PIXEL_TAGS, Broken, Syntax
from medgem_node.deid.options import BASIC, Option, Profile
from medgem_node.deid.proof import leaks
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.deid.spans import spans
from medgem_node.deid.states import Memory, NamedKey, Remade
from medgem_node.deid.text import Identity
from medgem_node.deid.values import Values
from medgem_node.dictionary import UIDS
from medgem_node.errors import CannotDeidentify, LeakFound, NotUnderstood

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Buffer = bytes | bytearray | memoryview | mmap.mmap

IMPLEMENTATION_CLASS_UID = "2.25.249230188930712416325046143270291047683"
UNPARSABLE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError, RecursionError,
    TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
"""What strangers' bytes raise; each means held."""
_DIRECTORY = "1.2.840.10008.1.3.10"
_SOP_CLASS, _INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_WANTED = NOTED | {_INSTANCE, _STUDY, _SERIES}
_MOST_CLASSES, _MOST_IDENTITIES = 32, 64
_NOBODY: frozenset[NamedKey] = frozenset()


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy in pieces, which may be views into the original.

    UIDs are pseudonyms. `changes` says by tag what became of an attribute, `pixels` whether they were looked at, and
    `identity` who is named in the original.
    """

    parts: tuple[Buffer, ...]
    sop_instance_uid: str
    study_instance_uid: str
    identity: Identity
    changes: Mapping[int, str] = field(default_factory=dict)
    done: Done = field(default_factory=Done)
    pixels: str = "not examined"

    def data(self) -> bytes:
        """The whole file."""
        return b"".join(self.parts)


class Deidentifier:
    """Makes copies under one key and profile."""

    def __init__(self, pseudonyms: Pseudonyms, profile: Profile = BASIC) -> None:
        self.pseudonyms, self.profile = pseudonyms, profile
        self._actions: OrderedDict[str, Actions] = OrderedDict()
        self._memories: OrderedDict[frozenset[NamedKey], Memory] = OrderedDict()
        self._memory = Memory.of(_NOBODY)
        self._own: dict[tuple[Done, Syntax], dict[int, bytes]] = {}

    def __reduce__(self) -> tuple[type[Deidentifier], tuple[Pseudonyms, Profile]]:
        return type(self), (self.pseudonyms, self.profile)  # for processes that share the work

    def copy(self, data: Buffer, face_mask: NDArray[np.bool_] | None = None) -> Copy:
        """A copy of a Part 10 file in its transfer syntax. Same file and key, same copy.

        Parameters
        ----------
        face_mask
            (rows, columns) or (frames, rows, columns), True where a face is blanked.

        Raises
        ------
        CannotDeidentify
            If it cannot be judged what the object tells. The message and its causes hold no identity.
        LeakFound
            If the proof found something of the original in the copy.
        """
        try:
            copy = self._copied(data if isinstance(data, bytes | mmap.mmap) else bytes(data), face_mask)
            found = leaks(data, copy.parts, self.profile.options)
        except Broken as exc:
            raise CannotDeidentify(f"the data set breaks the encoding rules: {exc}") from None
        except (*UNPARSABLE, NotUnderstood) as exc:
            raise CannotDeidentify(f"the data set cannot be parsed ({type(exc).__name__})") from None
        if found:
            raise LeakFound(f"values of these attributes are still in the copy: {', '.join(found)}")
        return copy

    def _copied(self, data: bytes | mmap.mmap, face_mask: NDArray[np.bool_] | None) -> Copy:
        file = layout.opened(data)
        syntax, body, at = file.syntax, file.body, file.at
        sop_class_uid = _sop_class_uid(body, at, syntax)
        place = self._actions_for(sop_class_uid).top(syntax)
        copier, parts, end = self._passed(body, at, place)
        noted = copier.noted
        uids = [noted.get(tag, b"").decode("latin-1").strip("\0 ") for tag in (_INSTANCE, _STUDY, _SERIES)]
        if not all(uids):
            raise CannotDeidentify("it lacks a Study, Series or SOP Instance UID")
        image = Image.of(body, end, noted, syntax) if _has_pixels(body, end, syntax) else None
        said = "not examined"
        if image is not None:
            image, said = image.cleaned(self.profile, face_mask)
        done = Done(self.profile.options, said, faces_removed=image is not None and image.has_no_face)  # type: ignore[arg-type]
        self._sign(parts, copier, done, place)
        instance, study = self._uid(uids[0]), self._uid(uids[1])
        header = b"".join(parts)
        pieces = image.pixels.parts(syntax) if image is not None else []
        whole = layout.pieces(_meta(sop_class_uid, instance, syntax), syntax, [header, *pieces])
        return Copy(tuple(whole), instance, study, self._memory.identity, _changes(copier.made), done, said)

    def _passed(self, body: bytes | mmap.mmap, at: int, place: Place) -> tuple[Copier, Parts, int]:
        """A pass that supposes the people of the instance before, and others if that was not so."""
        values = Values(self.pseudonyms, self.profile, self._days(body, at, place))
        for _ in range(4):
            copier = Copier(values, self._memory)
            parts, end = copier.top(body, at, place)
            named = frozenset(copier.made.named)
            is_other = named != self._memory.key
            if is_other:
                self._memory = self._memory_of(named)
            has_new = self._memory.learn(copier.made)
            if not has_new and not (is_other and (copier.made.depends or self._names_any(copier.made))):
                return copier, parts, end
        raise Broken("who is named in it does not come to an end")

    def _names_any(self, made: Remade) -> bool:
        """Whether a text that was kept under other people's names holds one of these."""
        dirty, numbers = self._memory.dirty, self._memory.dirty_numbers
        return not made.numbers.isdisjoint(numbers) or any(not t.isdisjoint(dirty) for t in made.texts.values())

    def _memory_of(self, named: frozenset[NamedKey]) -> Memory:
        memory = self._memories.get(named)
        if memory is None:
            memory = self._memories[named] = Memory.of(named)
            if len(self._memories) > _MOST_IDENTITIES:
                self._memories.popitem(last=False)
        return memory

    def _actions_for(self, sop_class_uid: str) -> Actions:
        actions = self._actions.get(sop_class_uid)
        if actions is None:
            if sop_class_uid == _DIRECTORY:
                raise CannotDeidentify("it is a DICOMDIR: the index of a folder, and no instance")
            if UIDS.get(sop_class_uid, ("", ""))[1] != "SOP Class":
                raise CannotDeidentify("its SOP Class is none that PS3.6 names")
            actions = self._actions[sop_class_uid] = Actions(self.profile, sop_class_uid, _WANTED)
            if len(self._actions) > _MOST_CLASSES:
                self._actions.popitem(last=False)
        return actions

    def _days(self, body: bytes | mmap.mmap, at: int, place: Place) -> int:
        if Option.RETAIN_MODIFIED_DATES not in self.profile.options:
            return 0
        tags = (0x00100020, 0x00100021, _STUDY)
        found: dict[int, bytes] = {}
        for tag, begin, stop in spans(body, at, len(body), place, last=_STUDY):
            if tag in tags:
                found[tag] = body[begin:stop]
            elif tag > 0x00100021 and found.get(0x00100020, b"").strip(b" \0"):
                break
        texts = [found.get(tag, b"").decode("latin-1") for tag in tags]
        return self.pseudonyms.days(*texts)

    def _uid(self, original: str) -> str:
        return original if Option.RETAIN_UIDS in self.profile.options else self.pseudonyms.uid(original)

    def _written(self, done: Done, place: Place) -> dict[int, bytes]:
        key = (done, place.syntax)
        if key not in self._own:
            self._own[key] = _elements_of(done, place)
        return self._own[key]

    def _sign(self, parts: Parts, copier: Copier, done: Done, place: Place) -> None:
        """Put what was done where those attributes stand in the order of tags."""
        written = dict(self._written(done, place))
        for tag in (bookkeeping.BURNED_IN, bookkeeping.RECOGNIZABLE):
            word = copier.noted.get(tag, b"").strip(b" \0")
            if tag not in written and word in (b"YES", b"NO"):
                written[tag] = place.element(tag, "CS", word)
        for at, first, after in zip(copier.slots, SLOTS, (*SLOTS[1:], 1 << 32), strict=True):
            parts[at] = b"".join(value for tag, value in sorted(written.items()) if first <= tag < after)


def _elements_of(done: Done, place: Place) -> dict[int, bytes]:
    return {tag: place.element(tag, vr, value) for tag, vr, value in bookkeeping.elements(done, place.syntax)}


def _sop_class_uid(body: bytes | mmap.mmap, at: int, syntax: Syntax) -> str:
    for _ in range(64):
        if at + 8 > len(body):
            break
        tag, _, length, start = layout.read_head(body, at, syntax)
        if tag == _SOP_CLASS:
            return body[start : start + length].decode("latin-1").strip("\0 ")
        if tag > _SOP_CLASS or length == layout.UNDEFINED:
            break
        at = start + length
    raise CannotDeidentify("its SOP Class is not where it should be")


def _has_pixels(body: bytes | mmap.mmap, at: int, syntax: Syntax) -> bool:
    return at + 8 <= len(body) and layout.read_head(body, at, syntax)[0] in PIXEL_TAGS


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


def _changes(made: Remade) -> dict[int, str]:
    changes = dict.fromkeys(made.cleaned, "cleaned")
    changes.update(dict.fromkeys(made.put, "replaced"))
    changes.update(dict.fromkeys(made.gone, "removed"))
    return changes
