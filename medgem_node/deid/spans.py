"""Where elements begin and end, for what is looked ahead at, skipped or put in order. Raises Broken."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from medgem_node.deid.actions import Place
from medgem_node.deid.layout import (
    ITEM,
    ITEM_END,
    PIXEL_TAGS,
    SEQUENCE_END,
    UNDEFINED,
    UNKNOWN_SYNTAX,
    Broken,
    Syntax,
    read_head,
)  # fmt: skip

Data = bytes | mmap.mmap


def spans(
    data: Data,
    at: int,
    end: int,
    place: Place,
    *,
    last: int = 0xFFFFFFFF,
    heads: bool = False,
    undefined: bool = False,
    is_top: bool = False,
) -> Iterator[tuple[int, int, int]]:
    """Tag, where the value (with `heads` the element) begins, and where it ends, up to the tag `last`."""
    while at < end:
        tag, vr, length, start = read_head(data, at, place.syntax)
        if tag == ITEM_END and undefined:
            return
        if tag > last or (is_top and (tag in PIXEL_TAGS or tag >> 16 == 0)):
            return
        if tag >> 16 == 0xFFFE:
            if last != 0xFFFFFFFF:
                return
            raise Broken("an item where an element should be")
        stop = past_sequence(data, start, end, place, vr) if length == UNDEFINED else start + length
        if stop > end:
            raise Broken("a value that is longer than what holds it")
        yield tag, at if heads else start, stop
        at = stop
    if undefined:
        raise Broken("an item without its end")


def span_end(data: Data, at: int, end: int, place: Place) -> int:
    """Where the element at `at` ends."""
    _, vr, length, start = read_head(data, at, place.syntax)
    stop = past_sequence(data, start, end, place, vr) if length == UNDEFINED else start + length
    if stop > end:
        raise Broken("a value that is longer than what holds it")
    return stop


def past_sequence(data: Data, at: int, end: int, place: Place, vr: str) -> int:
    """Behind the delimiter of a sequence of undefined length whose first item is at `at`."""
    levels: list[tuple[bool, Syntax]] = [(True, _within(vr, place.syntax))]
    while levels:
        is_sequence, syntax = levels[-1]
        tag, vr, length, start = read_head(data, at, syntax)
        at = start
        if tag == (SEQUENCE_END if is_sequence else ITEM_END):
            levels.pop()
        elif is_sequence and tag != ITEM:
            raise Broken("a sequence of other things than items")
        elif length != UNDEFINED:
            at = start + length
        else:
            levels.append((not is_sequence, syntax if is_sequence else _within(vr, syntax)))
        if at > end:
            raise Broken("a value that is longer than what holds it")
    return at


def _within(vr: str, syntax: Syntax) -> Syntax:
    """How the items of a sequence of undefined length are written (PS3.5 6.2.2)."""
    if vr not in ("", "SQ", "UN"):
        raise Broken("an undefined length where none may be")
    return UNKNOWN_SYNTAX if vr == "UN" else syntax
