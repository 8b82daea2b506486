"""The Type (1, 1C, 2, 2C, 3) of an attribute at its place in an IOD: PS3.5 section 7.4, from the tables of PS3.3.

Where modules of an IOD disagree the strictest counts: what satisfies it satisfies the others. The data are generated
by scripts/generate_iod_types.py and read when first asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

TYPES = ("1", "1C", "2", "2C", "3", "")
"""From the strictest to none."""

_Node = Mapping[int, tuple[str, int]]  # tag -> (Type, the node of the items or 0)


@dataclass(frozen=True, slots=True)
class _Tables:
    """`nodes` hold attributes, `classes` the nodes that a SOP Class begins with."""

    nodes: tuple[_Node, ...]
    classes: Mapping[str, tuple[int, ...]]


def type_of(sop_class_uid: str, parents: tuple[int, ...], tag: int) -> str:
    """The Type of an attribute, or an empty string if PS3.3 has none there.

    Parameters
    ----------
    parents
        The tags of the enclosing sequences, outermost first. A sequence within one of its own kind (content items,
        equivalent codes) counts once.
    """
    tag = _one_group(tag)
    nodes = _tables().nodes
    places = _places(_tables().classes.get(sop_class_uid, ()), parents)
    return strictest([entry[0] for place in places if (entry := nodes[place].get(tag))])


def is_known(sop_class_uid: str) -> bool:
    """Whether the tables hold the IOD of this SOP Class."""
    return sop_class_uid in _tables().classes


def strictest_type(parents: tuple[int, ...], tag: int) -> str:
    """What an attribute may have to satisfy at a place that its IOD does not name: under that sequence in any IOD.

    A sequence that never holds it says nothing, then any place counts.
    """
    tag = _one_group(tag)
    under, anywhere = _strictest_types()
    return under.get((parents[-1] if parents else 0, tag)) or anywhere.get(tag, "")


def strictest(types: Iterable[str]) -> str:
    """The first of TYPES among these; empty for none."""
    return min(types, key=TYPES.index, default="")


@lru_cache(maxsize=256)
def _places(places: tuple[int, ...], parents: tuple[int, ...]) -> tuple[int, ...]:
    """The nodes that describe an item of the last of `parents`."""
    nodes = _tables().nodes
    for outer, parent in zip((0, *parents), parents, strict=False):
        inner = tuple(entry[1] for place in places if (entry := nodes[place].get(parent)) and entry[1])
        places = inner or (places if parent == outer else ())
    return places


def _one_group(tag: int) -> int:
    """The tag in group 6000 (5000) for one of a repeating group (PS3.5 section 7.6)."""
    return tag & 0xFF00FFFF if tag >> 24 in (0x50, 0x60) and not tag >> 16 & 1 else tag


@cache
def _tables() -> _Tables:
    content = json.loads(files(__package__).joinpath("iod_types.json").read_text(encoding="utf-8"))
    nodes: tuple[_Node, ...] = tuple({tag: (kind, items) for tag, kind, items in node} for node in content["nodes"])
    return _Tables(nodes, {uid: tuple(numbers) for uid, numbers in content["classes"].items()})


@cache
def _strictest_types() -> tuple[Mapping[tuple[int, int], str], Mapping[int, str]]:
    """The strictest Type of all IODs by (enclosing sequence, tag), with 0 for the top, and by tag alone."""
    tables = _tables()
    under: dict[tuple[int, int], str] = {}
    anywhere: dict[int, str] = {}
    places = {(0, root) for numbers in tables.classes.values() for root in numbers}
    places.update((tag, items) for node in tables.nodes for tag, (_, items) in node.items() if items)
    for parent, number in places:
        for tag, (kind, _) in tables.nodes[number].items():
            if TYPES.index(kind) < TYPES.index(under.get((parent, tag), "")):
                under[parent, tag] = kind
            if TYPES.index(kind) < TYPES.index(anywhere.get(tag, "")):
                anywhere[tag] = kind
    return under, anywhere
