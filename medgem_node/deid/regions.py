"""Where an ultrasound image holds ultrasound: the Sequence of Ultrasound Regions (PS3.3 C.8.5.5)."""

from __future__ import annotations

from medgem_node.deid.layout import ITEM, ITEM_END, SEQUENCE_END, UNDEFINED, Broken, Syntax, read_head
from medgem_node.deid.reader import Box

TAG = 0x00186011
_SIDES = (0x0018601A, 0x00186018, 0x0018601E, 0x0018601C)  # Min Y0, Min X0, Max Y1, Max X1


def regions(value: bytes, syntax: Syntax, rows: int, columns: int) -> list[Box]:
    """The regions within the image, from the raw value of the sequence. Raises Broken."""
    found: list[Box] = []
    sides: dict[int, int] = {}
    at = 0
    while at + 8 <= len(value):
        tag, _, length, start = read_head(value[at : at + 12], 0, syntax)
        at += start
        if tag in (ITEM, SEQUENCE_END):
            found += _box(sides, rows, columns)
            sides = {}
            if tag == SEQUENCE_END:
                return found
        elif tag != ITEM_END:
            if length == UNDEFINED or at + length > len(value):
                raise Broken("regions of ultrasound that cannot be read")
            if tag in _SIDES:
                sides[tag] = syntax.number(value[at : at + length])
            at += length
    return found + _box(sides, rows, columns)


def _box(sides: dict[int, int], rows: int, columns: int) -> list[Box]:
    """Ends are inclusive there; a region that is no area is none."""
    if len(sides) != len(_SIDES):
        return []
    top, left, bottom, right = (sides[tag] for tag in _SIDES)
    box = Box(min(top, rows), min(left, columns), min(bottom + 1, rows), min(right + 1, columns))
    return [box] if box.height > 1 and box.width > 1 else []
