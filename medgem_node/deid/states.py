"""What is remembered from one object to the next: who is named, which texts name them, what became of sequences."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from medgem_node.deid import cleaning
from medgem_node.deid.cleaning import described_value
from medgem_node.deid.text import Charset, Identity, Named, decoded

NamedKey = tuple[int, str, bytes, Charset | None]
"""Tag, VR, raw value and codecs of what tells who somebody is."""

_NUMBERS = re.compile(rb"[0-9+\-.eE \\\0]*")
_MOST_TEXTS = 100_000
_MOST_SEQUENCES = 20_000


@dataclass(slots=True)
class Remade:
    """What one pass, or one sequence of it, came across.

    `texts` and `numbers` are the values that stay if they name nobody; `depends` says that something was decided by
    the identity that was supposed. Tags of what went, was replaced or cleaned stand in `gone`, `put`, `cleaned`.
    `joined` are the parts that it holds already, kept so that no other takes their place in memory.
    """

    named: list[NamedKey] = field(default_factory=list)
    texts: dict[Charset | None, set[bytes]] = field(default_factory=dict)
    numbers: set[bytes] = field(default_factory=set)
    gone: list[int] = field(default_factory=list)
    put: list[int] = field(default_factory=list)
    cleaned: list[int] = field(default_factory=list)
    depends: bool = False
    joined: dict[int, object] = field(default_factory=dict)

    def texts_of(self, charset: Charset | None) -> set[bytes]:
        """The texts in these codecs."""
        found = self.texts.get(charset)
        if found is None:
            found = self.texts[charset] = set()
        return found

    def join(self, other: Remade) -> None:
        """What a part of it came across."""
        if other.named:
            self.named += other.named
        for charset, values in other.texts.items():
            if values:
                self.texts_of(charset).update(values)
        if other.numbers:
            self.numbers |= other.numbers
        if other.gone:
            self.gone += other.gone
        if other.put:
            self.put += other.put
        if other.cleaned:
            self.cleaned += other.cleaned
        self.depends = self.depends or other.depends


SequenceKey = tuple[int, Charset | None, int, bytes]


@dataclass(slots=True)
class Memory:
    """What was found out under one identity. `dirty` texts name somebody."""

    key: frozenset[NamedKey]
    identity: Identity
    dirty: set[bytes] = field(default_factory=set)
    dirty_numbers: set[bytes] = field(default_factory=set)
    sequences: dict[SequenceKey, tuple[bytes | None, Remade]] = field(default_factory=dict)
    _clean: dict[Charset | None, set[bytes]] = field(default_factory=dict)
    _clean_numbers: set[bytes] = field(default_factory=set)

    @classmethod
    def of(cls, named: frozenset[NamedKey]) -> Memory:
        """For an object that names these."""
        return cls(named, Identity.of([Named(*one) for one in sorted(named, key=repr)]))

    def remember(self, key: SequenceKey, made: tuple[bytes | None, Remade]) -> None:
        """What became of a sequence."""
        if len(self.sequences) >= _MOST_SEQUENCES:
            self.sequences.clear()
        self.sequences[key] = made

    def learn(self, made: Remade) -> bool:
        """Ask of each text whether it names somebody; whether one did of which that was not known."""
        before = len(self.dirty) + len(self.dirty_numbers)
        for charset, values in made.texts.items():
            clean = self._clean.setdefault(charset, set())
            for value in values - clean - self.dirty:
                (clean if self.is_clean(value, charset) else self.dirty).add(value)
            if len(clean) > _MOST_TEXTS:
                clean.clear()
        for value in made.numbers - self._clean_numbers - self.dirty_numbers:
            (self._clean_numbers if self.are_numbers(value) else self.dirty_numbers).add(value)
        if len(self._clean_numbers) > _MOST_TEXTS:
            self._clean_numbers.clear()
        has_new = len(self.dirty) + len(self.dirty_numbers) > before
        if has_new:
            self.sequences.clear()
        return has_new

    def is_clean(self, value: bytes, charset: Charset | None) -> bool:
        """Whether a text can be read and names nobody."""
        if b"\0" not in value and not self.identity.may_name(value):
            return True
        text = decoded(value, charset)
        return text is not None and "\0" not in text.rstrip("\0 ") and not self.identity.is_named_in(text)

    def are_numbers(self, value: bytes) -> bool:
        """Whether a DS or IS holds numbers of which none is an identifier."""
        return bool(_NUMBERS.fullmatch(value)) and not self.identity.is_number(value)

    def cleaned(self, value: bytes, charset: Charset | None, vr: str) -> bytes:
        """A text that names somebody, without that."""
        new = cleaning.cleaned(value, charset, vr, self.identity)
        return b"REMOVED" if new is None or not self.is_clean(new, charset) else new

    def described(self, value: bytes, charset: Charset | None, vr: str) -> bytes:
        """The words of a text that are known to name nobody."""
        new = described_value(value, charset, vr, self.identity)
        return b"REMOVED" if new is None or not self.is_clean(new, charset) else new
