"""What folders need of an engine, on top of the one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medgem_node.deid import layout
from medgem_node.deid.bookkeeping import Done
from medgem_node.deid.file_copy import Buffer
from medgem_node.deid.options import BASIC, Profile
from medgem_node.deid.profile import deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.deid.text import Identity, named


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy in pieces."""

    parts: tuple[Buffer, ...]
    sop_instance_uid: str
    study_instance_uid: str
    identity: Identity
    changes: Mapping[int, str] = field(default_factory=dict)
    done: Done = field(default_factory=Done)
    pixels: str = "not examined"


@dataclass(frozen=True, slots=True)
class Deidentifier:
    """Makes copies under one key and profile."""

    pseudonyms: Pseudonyms
    profile: Profile = BASIC

    def copy(self, data: Buffer, face_mask: Any = None) -> Copy:
        """A copy of a Part 10 file. Raises CannotDeidentify."""
        data = bytes(data)
        made = deidentify_bytes(data, self.pseudonyms)
        _, syntax, body = layout.split(data)
        header, _ = layout.header(body, syntax)
        _, syntax, body = layout.split(made)
        ours, _ = layout.header(body, syntax)
        values = {
            e.tag: e.value.decode().strip("\0 ")
            for e in ours
            if isinstance(e.value, bytes) and e.tag in (0x80018, 0x20000D)
        }
        return Copy((made,), values[0x80018], values[0x20000D], Identity.of(named(header)), {0x00100030: "removed"})
