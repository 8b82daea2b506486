"""Decisions are made once for a place, and are those of the table."""

import pytest
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage

from medgem_node.deid import actions, layout
from medgem_node.deid.actions import CONSTANT, DROP, KEEP, NAMED, REMEMBERED, SEQUENCE, TEXT, Actions, Deed, Kind
from medgem_node.deid.options import BASIC, Option, Profile

EXPLICIT = layout.Syntax.of("1.2.840.10008.1.2.1")


@pytest.mark.parametrize(
    ("tag", "vr", "op"),
    [
        (0x00280010, "US", KEEP),
        (0x00081090, "LO", TEXT),
        (0x00081090, "UN", actions.OTHER),
        (0x00100040, "CS", CONSTANT),
        (0x00080090, "PN", NAMED),
        (0x00080018, "UI", REMEMBERED),
        (0x00091001, "LO", DROP),
        (0x60000022, "LO", DROP),
        (0x0098FFEE, "LO", DROP),
    ],
)
def test_an_attribute_has_the_opcode_of_its_row_or_vr(tag: int, vr: str, op: int) -> None:
    assert Actions(BASIC, CTImageStorage).top(EXPLICIT).rule(tag, vr).op == op


def test_a_decision_is_made_when_first_asked_for_and_kept() -> None:
    place = Actions(BASIC, CTImageStorage).top(EXPLICIT)

    entry = place[b"\x28\0\x10\0US"]

    assert len(place) == 1
    assert place[b"\x28\0\x10\0US"] is entry


def test_sequences_within_their_own_kind_are_one_place() -> None:
    top = Actions(Profile(frozenset({Option.CLEAN_STRUCTURED_CONTENT})), CTImageStorage).top(EXPLICIT)
    content = top.within(0x0040A730, Kind.OPEN)

    assert content.within(0x0040A730, Kind.OPEN) is content


def test_what_goes_still_tells_who_is_named() -> None:
    rule = Actions(BASIC, CTImageStorage).top(EXPLICIT).rule(0x00101001, "PN")

    assert (rule.op, rule.constant) == (NAMED, b"")
    gone = Actions(BASIC, CTImageStorage).top(EXPLICIT).rule(0x00101002, "SQ")
    assert gone.op == SEQUENCE
    assert gone.place is not None
    assert gone.place.kind is Kind.GONE


def test_what_an_iod_needs_gets_a_dummy() -> None:
    single = Actions(BASIC, CTImageStorage).top(EXPLICIT).rule(0x00080023, "DA")
    enhanced = Actions(BASIC, EnhancedCTImageStorage).top(EXPLICIT).rule(0x00080023, "DA")

    assert not single.constant.endswith(b"19000101")
    assert enhanced.constant.endswith(b"19000101")


def test_an_attribute_that_is_wanted_is_noted_and_judged_all_the_same() -> None:
    rule = Actions(BASIC, CTImageStorage, frozenset({0x00280010})).top(EXPLICIT).rule(0x00280010, "US")

    assert rule.deed is Deed.NOTE
    assert rule.then is not None
    assert rule.then.op == KEEP
