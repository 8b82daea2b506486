"""Copies a data set as bytes: what stays is passed on in whole runs, what changes is put between them.

One pass. Who is named in an object is only known at its end, so the texts that were kept are looked up then; an image
of the same series names the same people, and nearly always the pass before has asked already. Where a text does name
somebody, a second pass leaves it out.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field

from medgem_node.deid.actions import (
    CONSTANT,
    DROP,
    KEEP,
    LONG,
    NAMED,
    NUMBER,
    REMEMBERED,
    SEQUENCE,
    TEXT,
    Deed,
    Kind,
    Place,
    Rule,
)  # fmt: skip
from medgem_node.deid.layout import UNDEFINED, Broken
from medgem_node.deid.spans import past_sequence, span_end, spans
from medgem_node.deid.states import Memory, Remade
from medgem_node.deid.text import Charset
from medgem_node.deid.values import Values

Data = bytes | mmap.mmap
Parts = list[bytes]

DEEPEST = 64
"""Levels of sequences; PS3.5 sets no limit, and a report has about ten."""
SLOTS = (0x00120062, 0x0018A001, 0x00280301)
"""Where our own attributes stand among those of the top."""
ACCESSION = 0x00080050
_NEVER = 1 << 40
_MOST_REMEMBERED = 2048  # bytes of a sequence: a code, a reference, a content item
_MOST_MADE = 20_000
_ITEM, _SEQUENCE_END = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"), (b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\xdd")


class _Unsorted(Exception):
    """An attribute stands behind one with a higher tag."""


@dataclass(slots=True)
class Copier:
    """One pass over one data set.

    Parameters
    ----------
    values
        What the seldom deeds make of a value.
    memory
        What was found out about texts and small sequences under the same identity.
    """

    values: Values
    memory: Memory
    slots: list[int] = field(default_factory=list)
    noted: dict[int, bytes] = field(default_factory=dict)
    pixels_at: int = -1
    made: Remade = field(default_factory=Remade)
    _creators: dict[int, str] = field(default_factory=dict)

    def top(self, data: Data, at: int, place: Place) -> tuple[Parts, int]:
        """The pieces of the copy before the pixels, and where those begin. Raises Broken.

        `slots` then says which of the pieces are empty and ours.
        """
        end = len(data)
        try:
            parts, stop = self._elements(data, at, end, place, ("latin_1",), 0, limits=SLOTS)
        except _Unsorted:
            whole, stop = self._sorted(data, at, end, place, is_top=True)
            self.slots.clear()
            parts, _ = self._elements(whole, 0, len(whole), place, ("latin_1",), 0, limits=SLOTS)
            parts = [whole] if parts is None else parts
        return parts or [], stop

    def _data_set(
        self, data: Data, at: int, end: int, place: Place, charset: Charset | None, depth: int, undefined: bool
    ) -> tuple[Parts | None, int]:
        """The pieces of an item, None if it stays as it is, and where it ends, its delimiter included."""
        if depth > DEEPEST:
            raise Broken("sequences nested deeper than 64 levels")
        try:
            return self._elements(data, at, end, place, charset, depth, undefined)
        except _Unsorted:
            whole, stop = self._sorted(data, at, end, place, undefined=undefined)
            parts, _ = self._elements(whole, 0, len(whole), place, charset, depth)
            return [whole] if parts is None else parts, stop

    def _elements(
        self,
        data: Data,
        at: int,
        end: int,
        place: Place,
        charset: Charset | None,
        depth: int,
        undefined: bool = False,
        limits: tuple[int, ...] = (),
    ) -> tuple[Parts | None, int]:
        memory, made = self.memory, self.made
        head, long, cache = place.head, place.long, place.made
        dirty, dirty_numbers = memory.dirty, memory.dirty_numbers
        see, see_number, name = made.texts_of(charset).add, made.numbers.add, made.named.append
        gone, put = made.gone, made.put
        out: Parts = []
        run = at
        last = -1
        limit = limits[0] if limits else _NEVER
        scheme = False
        while at < end:
            key, length = head(data, at)
            op, tag, rule = place[key]
            if not last < tag < limit:
                if tag <= last:
                    if limits and tag >> 16 == 0:
                        break  # no data set any more
                    raise Broken("an attribute stands there twice") if tag == last else _Unsorted
                while tag >= limit and rule.deed is not Deed.END:
                    out += (data[run:at], b"")
                    run = at
                    self.slots.append(len(out) - 1)
                    limits = limits[1:]
                    limit = limits[0] if limits else _NEVER
            last = tag
            start = at + 8
            if op >= LONG:
                (length,) = long(data, start)
                start += 4
                op -= LONG
            stop = start + length
            if length & 1 and length != UNDEFINED and op != DROP:
                new = self._padded(data, at, start, stop, end, place, rule, charset, depth)
            elif op == KEEP:
                at = stop
                continue
            elif stop > end and (length != UNDEFINED or op not in (DROP, SEQUENCE)) and rule.deed is None:
                raise Broken("a value that is longer than what holds it")
            elif op == TEXT:
                value = data[start:stop]
                see(value)
                if value not in dirty:
                    at = stop
                    continue
                new = self._text(place, rule, value, charset)
            elif op == NUMBER:
                value = data[start:stop]
                see_number(value)
                if value not in dirty_numbers:
                    at = stop
                    continue
                made.depends = True
                new = self.values.number(place, rule, value, memory)
            elif op == DROP:
                if length == UNDEFINED:
                    stop = past_sequence(data, start, end, place, rule.vr)
                gone.append(tag)
                new = b""
            elif op == CONSTANT:
                if not length:
                    at = stop
                    continue
                put.append(tag)
                new = rule.constant
            elif op == REMEMBERED:
                whole = data[at:stop]
                new = cache.get(whole, b"?")
                if new == b"?":
                    new = self.values.uid(place, rule, data[start:stop])
                    if len(cache) < _MOST_MADE:
                        cache[whole] = new
                if new is not None:
                    put.append(tag)
            elif op == NAMED:
                is_one = rule.is_first_enough and length <= 26
                name((tag, rule.vr, data[start : start + 8 if is_one else stop], charset))
                (put if rule.constant else gone).append(tag)
                new = rule.constant
            elif op == SEQUENCE:
                new, stop = self._sequence(data, start, length, end, rule, place, charset, depth)
                if rule.constant or rule.action in ("X", "Z"):
                    gone.append(tag)
                    new = rule.constant
            elif rule.deed is Deed.NOTE and rule.is_kept and stop <= end:
                self.noted[tag] = data[start:stop]
                at = stop
                continue
            elif rule.deed is Deed.END:
                if not undefined:
                    raise Broken("an item where an element should be")
                if not out:
                    return None, start
                out.append(data[run:at])
                return out, start
            elif rule.deed is Deed.PIXELS:
                break
            elif rule.deed is Deed.CHARSET:
                new = None
                charset = self.values.charset(data[start:stop], charset)
                see = made.texts_of(charset).add
                if charset is None:
                    new = b""
            elif rule.deed is Deed.SCHEME:
                value = data[start:stop]
                scheme = self.values.is_public_scheme(value)
                see(value)
                new = self._text(place, rule, value, charset) if value in dirty else None
            elif rule.deed is Deed.CODE:
                is_public = scheme or self._has_public_scheme(data, stop, end, place)
                new = self._code(place, rule, data[start:stop], charset, is_public)
            else:
                new, stop = self._other(data, at, start, stop, end, length, place, rule, charset, depth)
            if new is None:
                at = stop
                continue
            out.append(data[run:at])  # even when empty: what is not in `out` is unchanged
            if new:
                out.append(new)
            run = at = stop
        if undefined:
            raise Broken("an item without its end")
        if at > end:
            raise Broken("a value that is longer than what holds it")
        for _ in limits:
            out += (data[run:at], b"")
            run = at
            self.slots.append(len(out) - 1)
        if not out:
            return None, at
        out.append(data[run:at])
        return out, at

    def _sequence(
        self,
        data: Data,
        at: int,
        length: int,
        end: int,
        rule: Rule,
        outer: Place,
        charset: Charset | None,
        depth: int,
    ) -> tuple[bytes | None, int]:
        """A sequence as a new element, None if it stays as it is, and where it ends."""
        place = rule.place
        assert place is not None
        if not length:
            return None, at
        if length > _MOST_REMEMBERED or place.misses > 4 * place.hits + 64:
            return self._items(data, at, length, end, rule, outer, place, charset, depth)
        stop = at + length
        if stop > end:
            raise Broken("a value that is longer than what holds it")
        key = (place.number, charset, self.values.days, data[at:stop])
        known = self.memory.sequences.get(key)
        place.hits += 1
        if known is None:
            place.hits -= 1
            place.misses += 1
            before, self.made = self.made, Remade()
            try:
                new, _ = self._items(data, at, length, end, rule, outer, place, charset, depth)
            finally:
                mine, self.made = self.made, before
            known = new, mine
            self.memory.remember(key, known)
        if id(known) not in self.made.joined:
            self.made.joined[id(known)] = known
            self.made.join(known[1])
        return known[0], stop

    def _items(
        self,
        data: Data,
        at: int,
        length: int,
        end: int,
        rule: Rule,
        outer: Place,
        place: Place,
        charset: Charset | None,
        depth: int,
    ) -> tuple[bytes | None, int]:
        undefined = length == UNDEFINED
        stop = end if undefined else at + length
        if stop > end:
            raise Broken("a value that is longer than what holds it")
        head, pack = place.item.unpack_from, place.item.pack
        little = not place.syntax.little
        item_tag, end_tag = _ITEM[little], _SEQUENCE_END[little]
        out: Parts = []
        run = at
        has_content = False
        creators = self._creators
        while at < stop:
            tag, size = head(data, at)
            if tag != item_tag:
                if not undefined and at == stop - length:
                    return b"", stop  # no sequence, whatever PS3.6 says of its tag
                if tag != end_tag or not undefined:
                    raise Broken("a sequence of other things than items")
                break
            inside = at + 8
            after = stop if size == UNDEFINED else inside + size
            if after > stop:
                raise Broken("a value that is longer than what holds it")
            self._creators = {}
            parts, after = self._data_set(data, inside, after, place, charset, depth + 1, size == UNDEFINED)
            if parts is None:
                has_content = has_content or size > 0
                at = after
                continue
            body = b"".join(parts)
            has_content = has_content or bool(body)
            out += (data[run:at], pack(item_tag, len(body)), body)
            run = at = after
        else:
            if undefined:
                raise Broken("a sequence without its end")
        self._creators = creators
        stop = at + 8 if undefined else at
        if not out:
            return None, stop
        if not has_content:
            return b"", stop
        out.append(data[run:at])
        return outer.element(rule.tag, rule.vr, b"".join(out)), stop

    def _text(self, place: Place, rule: Rule, value: bytes, charset: Charset | None) -> bytes | None:
        self.made.depends = True
        new = self.values.text(place, rule, value, charset, self.memory)
        if new is not None:
            self.made.cleaned.append(rule.tag)
        return new

    def _code(self, place: Place, rule: Rule, value: bytes, charset: Charset | None, is_public: bool) -> bytes | None:
        """A code's value or meaning: another's free text unless its scheme is one of the standard's."""
        if is_public or not value.strip(b" \0"):
            self.made.texts_of(charset).add(value)
            return self._text(place, rule, value, charset) if value in self.memory.dirty else None
        self.made.depends = self.made.depends or place.kind is Kind.OPEN
        self.made.put.append(rule.tag)
        return self.values.private_code(place, rule, value, charset, self.memory)

    def _has_public_scheme(self, data: Data, at: int, end: int, place: Place) -> bool:
        """Whether a Coding Scheme Designator that follows names a public one."""
        for tag, begin, stop in spans(data, at, end, place, last=0x00080102):
            if tag == 0x00080102:
                return self.values.is_public_scheme(data[begin:stop])
        return False

    def _other(
        self,
        data: Data,
        at: int,
        start: int,
        stop: int,
        end: int,
        length: int,
        place: Place,
        rule: Rule,
        charset: Charset | None,
        depth: int,
    ) -> tuple[bytes | None, int]:
        """What is done seldom: the new element, None if it stays as it is, and where it ended."""
        deed = rule.deed
        if deed is Deed.BROKEN:
            raise Broken("an item where an element should be")
        if deed is Deed.MIXED:
            return self._mixed(data, at, end, place, charset, depth)
        if length == UNDEFINED or stop > end:
            stop = span_end(data, at, end, place)
        if deed is Deed.NOTE:
            assert rule.then is not None
            self.noted[rule.tag] = data[start : stop - 8 * (length == UNDEFINED)]
            return self._ruled(data, at, start, stop, length, place, rule.then, charset, depth), stop
        if deed is Deed.RETYPE:
            return self._retyped(data[start:stop], place, rule, charset, depth), stop
        if deed is Deed.PRIVATE:
            return self._private(data[start:stop], place, rule, charset), stop
        return self._deed(data, at, start, stop, end, place, rule, charset), stop

    def _ruled(
        self,
        data: Data,
        at: int,
        start: int,
        stop: int,
        length: int,
        place: Place,
        rule: Rule,
        charset: Charset | None,
        depth: int,
    ) -> bytes | None:
        """An element under a rule that is not the one which its head leads to."""
        if rule.deed is Deed.RETYPE:
            return self._retyped(data[start:stop], place, rule, charset, depth)
        value = data[start:stop] if rule.op != SEQUENCE else b""
        if rule.op == SEQUENCE:
            new, _ = self._sequence(data, start, length, len(data), rule, place, charset, depth)
            return rule.constant if rule.action in ("X", "Z") else new
        if rule.op == KEEP or (rule.op == CONSTANT and not value):
            return None
        if rule.op == DROP:
            self.made.gone.append(rule.tag)
            return b""
        if rule.op == TEXT:
            self.made.texts_of(charset).add(value)
            return self._text(place, rule, value, charset) if value in self.memory.dirty else None
        if rule.op == NUMBER:
            self.made.numbers.add(value)
            is_dirty = value in self.memory.dirty_numbers
            return self.values.number(place, rule, value, self.memory) if is_dirty else None
        if rule.op == REMEMBERED:
            return self.values.uid(place, rule, value)
        if rule.op == NAMED:
            self.made.named.append((rule.tag, rule.vr, value, charset))
        if rule.op in (NAMED, CONSTANT):
            (self.made.put if rule.constant else self.made.gone).append(rule.tag)
            return rule.constant
        return self._deed(data, at, start, stop, len(data), place, rule, charset)

    def _retyped(self, value: bytes, place: Place, rule: Rule, charset: Charset | None, depth: int) -> bytes | None:
        """An element with the VR of PS3.6 in place of the one that was sent."""
        assert rule.then is not None
        if rule.then.deed is Deed.CHARSET:
            raise Broken("a character set under another VR than its own")
        whole = place.element(rule.tag, rule.vr, value)
        begin = len(whole) - len(value) - len(value) % 2
        new = self._ruled(whole, 0, begin, len(whole), len(whole) - begin, place, rule.then, charset, depth)
        return whole if new is None else new

    def _deed(
        self, data: Data, at: int, start: int, stop: int, end: int, place: Place, rule: Rule, charset: Charset | None
    ) -> bytes | None:
        value = data[start:stop]
        if rule.deed in (Deed.CODE, Deed.SCHEME):
            return self._code(place, rule, value, charset, is_public=False)
        if rule.deed is Deed.PERSON:
            self.made.put.append(rule.tag)
            self.made.named.append((rule.tag, rule.vr, value, charset))
            is_patient = rule.tag != ACCESSION
            found = {t: data[a:b] for t, a, b in spans(data, at, end, place, last=0x00100021)} if is_patient else {}
            return self.values.person(place, rule, value, found, charset)
        if rule.deed is Deed.DESCRIBE:
            self.made.depends = True
            self.made.cleaned.append(rule.tag)
            return self.values.described(place, rule, value, charset, self.memory)
        if rule.deed is Deed.BYTES:
            self.made.depends = True
            return self.values.raw(value, self.memory)
        if rule.deed is Deed.SHIFT and value:
            day = value[:8] if len(value) <= 26 else value
            if rule.vr != "TM":
                self.made.named.append((rule.tag, rule.vr, day, charset))
        self.made.put.append(rule.tag)
        return self.values.plain(place, rule, value)

    def _private(self, value: bytes, place: Place, rule: Rule, charset: Charset | None) -> bytes | None:
        """An element of a block whose creator says in PS3.15 Table E.3.10-1 that it is safe; the others go."""
        block = rule.tag >> 8
        if not rule.tag & 0xFF00 and rule.tag & 0xFF >= 0x10:
            creator = value.decode("latin-1").strip(" \0")
            self._creators[(rule.tag >> 16 << 8) | rule.tag & 0xFF] = creator
            if self.values.is_safe_creator(creator):
                return None
            self.made.gone.append(rule.tag)
            return b""
        safe = self.values.safe_rule(place, rule, self._creators.get(block, ""))
        if safe is None:
            self.made.gone.append(rule.tag)
            return b""
        return self._ruled(value, 0, 0, len(value), len(value), place, safe, charset, 0)

    def _mixed(
        self, data: Data, at: int, end: int, place: Place, charset: Charset | None, depth: int
    ) -> tuple[bytes | None, int]:
        """An element without a VR where the others have one, as some writers do inside sequences."""
        whole, stop = self.values.with_vr(data, at, end, place)
        if not whole:
            return b"", stop
        parts, _ = self._data_set(whole, 0, len(whole), place, charset, depth + 1, undefined=False)
        return whole if parts is None else b"".join(parts), stop

    def _padded(
        self,
        data: Data,
        at: int,
        start: int,
        stop: int,
        end: int,
        place: Place,
        rule: Rule,
        charset: Charset | None,
        depth: int,
    ) -> bytes | None:
        """An element of an odd length, which no writer may send, made even."""
        if stop > end or rule.op == SEQUENCE:
            raise Broken("a value that is longer than what holds it")
        if rule.deed in (Deed.MIXED, Deed.END, Deed.BROKEN, Deed.PIXELS):
            raise Broken("an odd length where none can be")
        vr = rule.vr if rule.vr in self.values.known_vrs else "UN"
        whole = place.element(rule.tag, vr, data[start:stop])
        parts, _ = self._elements(whole, 0, len(whole), place, charset, depth)
        return whole if parts is None else b"".join(parts)

    def _sorted(
        self, data: Data, at: int, end: int, place: Place, undefined: bool = False, is_top: bool = False
    ) -> tuple[bytes, int]:
        """The elements in the order of their tags, and where they ended. Raises Broken for one that is there twice."""
        found: dict[int, tuple[int, int]] = {}
        stop = at
        for tag, begin, stop in spans(data, at, end, place, heads=True, undefined=undefined, is_top=is_top):
            if tag in found:
                raise Broken("an attribute stands there twice")
            found[tag] = (begin, stop)
        whole = b"".join(data[begin:until] for _, (begin, until) in sorted(found.items()))
        return whole, stop + 8 * undefined
