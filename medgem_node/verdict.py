"""What a document says of our results, finding by finding. Pure: compares what was read, and guesses nothing.

A *successor* names our report, or a document already heard that answers it, among its predecessors.

| the document | what it says of ours | verdict |
|---|---|---|
| report, a group with our tracking UID | the same, within tolerance; what it leaves out is no change | accepted |
| " | other finding, site, side, region or number | edited |
| " | coded as absent where we said present, or the reverse; or its finding is "no abnormality" | rejected |
| " | coded as undetermined; or a region that cannot be compared | commented |
| successor, a group without our tracking UID | our region, and our finding or none | accepted |
| " | our region and another finding | edited |
| " | our finding, and a region that overlaps ours by half or more | edited |
| " | our finding or none, and a region that overlaps less, or cannot be compared | commented |
| successor, complete, with groups | no group for our finding | rejected |
| " | the same, but ours has no region and no group our tracking UIDs: a viewer may not have shown it | commented |
| any report that names ours | a group on our images that is none of ours | added |
| any report that names ours | nothing of the above | commented, the whole result |
| key objects with a title of `ACCEPTING` | our object | accepted, the whole result |
| key objects with a title of `REJECTING` | our object | rejected, the whole result |
| key objects with any other title | our object | commented, the whole result |

In a group without our tracking UID (OHIF gives every group a new one) numbers are the viewer's own, computed anew, and
are not compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pydicom.sr.codedict import codes

from medgem_node.feedback import Concept, Document, Group
from medgem_node.region import is_same, overlap

NUMBER_TOLERANCE = 0.01
"""Relative; viewers round."""

SAME_FINDING_OVERLAP = 0.5

ACCEPTING = tuple(
    Concept.of(getattr(codes.DCM, name))
    for name in (
        *("OfInterest", "ForReferringProvider", "ForSurgery", "ForTherapy"),
        *("ForPatient", "BestInSet", "DiagnosisInputUsed", "ForReportAttachment"),
    )
)
"""Titles of CID 7010 that put an object to use. Teaching, conference and research take wrong results too."""

REJECTING = tuple(
    Concept.of(getattr(codes.DCM, name)) for name in ("RejectedForQualityReasons", "RejectedForPatientSafetyReasons")
)
"""Of CID 7011. A wrong worklist entry and the end of retention (113038, 113039) say nothing of what a model said."""

_NOT_ANALYSED = (Concept.of(codes.cid6042.NotAttempted), Concept.of(codes.cid6042.Failed))
_STATUS = (
    *_NOT_ANALYSED,
    *(Concept.of(codes.cid6042.PartiallySucceeded), Concept.of(codes.cid6042.Succeeded)),
)
_NOTHING = (Concept.of(codes.DCM.NoAbnormality), Concept.of(codes.SCT.Normal))
_PRESENT, _ABSENT = Concept.of(codes.SCT.Present), Concept.of(codes.SCT.Absent)
_UNDETERMINED = Concept.of(codes.SCT.Undetermined)
_PROBABILITY = Concept.of(codes.DCM.Probability)
_PUBLIC = ("SCT", "SRT", "DCM", "LN", "UMLS", "NCIt", "RADLEX", "FMA")


class Verdict(StrEnum):
    """What a reader makes of one finding."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"
    ADDED = "added"  # the reader's own: a possible miss
    COMMENTED = "commented"  # it speaks of ours, but does not say so that it could be counted


@dataclass(frozen=True, slots=True)
class Opinion:
    """One verdict. `finding` is in words of ours or a public code, never a stranger's text; empty: the whole result.

    `subject` is the tracking UID; `detail` says what was changed, without identity.
    """

    verdict: Verdict
    finding: str = ""
    subject: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


def judge_key_objects(document: Document) -> tuple[Opinion, ...]:
    """What a key object selection that names our objects makes of the result as a whole."""
    verdict = Verdict.COMMENTED
    if document.title in ACCEPTING:
        verdict = Verdict.ACCEPTED
    elif document.title in REJECTING:
        verdict = Verdict.REJECTED
    return (Opinion(verdict, detail={"title": _public(document.title)}),)


def judge_report(document: Document, ours: Document, *, successor: bool) -> tuple[Opinion, ...]:
    """What a report makes of each finding of `ours`, and what it adds."""
    claims = _merged(group for group in ours.groups if _label(group))
    theirs = _merged(group for group in document.groups if group.finding not in _STATUS)
    by_uid = {group.tracking_uid: group for group in theirs if group.tracking_uid}
    tracked = [(claim, by_uid[claim.tracking_uid]) for claim in claims if claim.tracking_uid in by_uid]
    opinions = [_compared(claim, group, numbers=True) for claim, group in tracked]
    claims = [c for c in claims if c.tracking_uid not in by_uid]
    theirs = [g for g in theirs if all(g is not group for _, group in tracked)]
    if successor:
        pairs = _paired(claims, theirs)
        opinions += [_compared(claim, group, numbers=False) for claim, group in pairs]
        claims = [c for c in claims if all(c is not claim for claim, _ in pairs)]
        theirs = [g for g in theirs if all(g is not group for _, group in pairs)]
    unclear = [(claim, group) for claim in claims for group in theirs if _may_be_same(claim, group)]
    for claim in claims:
        if any(c is claim for c, _ in unclear):
            opinions.append(_about(claim, Verdict.COMMENTED, why="a group that may or may not be this finding"))
        elif successor and document.complete and document.groups and (claim.region or tracked):
            opinions.append(_about(claim, Verdict.REJECTED, why="left out"))
        elif successor and document.complete and document.groups:
            opinions.append(_about(claim, Verdict.COMMENTED, why="left out, as it has no region to restore"))
    own = [group for group in theirs if all(group is not g for _, g in unclear)]
    opinions += _additions(own, ours)
    return tuple(opinions) or (Opinion(Verdict.COMMENTED, detail={"title": _public(document.title)}),)


def _additions(own: Sequence[Group], ours: Document) -> list[Opinion]:
    """Groups of the reader's own on our images; of a study that was not analysed nothing can have been missed."""
    if any(g.finding in _NOT_ANALYSED for g in ours.groups):
        return []
    places = {g.region.place for g in ours.groups if g.region} | ours.references
    seen = [g for g in own if g.region and g.region.place in places and not _says_absent(g)]
    ours_in_words: dict[Concept | None, str] = {
        asked: asked.meaning for asked in map(_asked, ours.groups) if asked is not None
    }
    return [Opinion(Verdict.ADDED, ours_in_words.get(g.finding, _public(g.finding)), g.tracking_uid) for g in seen]


# -- one of ours with one of theirs --------------------------------------------------------------------------------


def _compared(claim: Group, group: Group, *, numbers: bool) -> Opinion:
    answer = _answer(claim, group)
    if answer == _UNDETERMINED:
        return _about(claim, Verdict.COMMENTED, why="undetermined")
    if answer is not None and answer != _claimed(claim):
        return _about(claim, Verdict.REJECTED, why=f"coded as {answer.meaning.lower()}")
    if group.finding in _NOTHING and claim.finding not in _NOTHING:
        return _about(claim, Verdict.REJECTED, why="its finding is no abnormality")
    changes = _changes(claim, group, numbers=numbers)
    if changes:
        return _about(claim, Verdict.EDITED, **changes)
    if claim.region and group.region and overlap(claim.region, group.region) is None:
        return _about(claim, Verdict.COMMENTED, why="its region cannot be compared with ours")
    return _about(claim, Verdict.ACCEPTED)


def _answer(claim: Group, group: Group) -> Concept | None:
    """Present, absent or undetermined, as the reader coded it of our finding."""
    answers = (_PRESENT, _ABSENT, _UNDETERMINED)
    asked = _asked(claim)
    given = [a for question, a in group.evaluations if a in answers and question == asked]
    return given[-1] if given else None


def _changes(claim: Group, group: Group, *, numbers: bool) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if group.finding is not None and claim.finding is not None and group.finding != claim.finding:
        changes["finding"] = [_public(claim.finding), _public(group.finding)]
    for name in ("sites", "lateralities"):
        before, after = getattr(claim, name), getattr(group, name)
        if before and after and set(before) != set(after):
            changes[name] = [sorted(map(_public, before)), sorted(map(_public, after))]
    if claim.region and group.region and not is_same(claim.region, group.region):
        common = overlap(claim.region, group.region)
        if common is not None:
            changes["region_overlap"] = round(common, 3)
    if numbers and (changed := _changed_numbers(claim, group)):
        changes["numbers"] = changed
    return changes


def _changed_numbers(claim: Group, group: Group) -> dict[str, list[float]]:
    return {
        ours.concept.value: [ours.value, theirs.value]
        for ours in claim.numbers
        for theirs in group.numbers
        if ours.concept == theirs.concept
        and ours.unit == theirs.unit
        and not math.isclose(ours.value, theirs.value, rel_tol=NUMBER_TOLERANCE, abs_tol=1e-6)
    }


def _about(claim: Group, verdict: Verdict, **detail: Any) -> Opinion:
    return Opinion(verdict, _label(claim), claim.tracking_uid, detail)


def _label(group: Group) -> str:
    """What a group of ours claims, in our own words; empty for a status, which claims nothing."""
    if group.finding in _STATUS:
        return ""
    asked = _asked(group)
    if asked is None:
        return ""
    return f"{asked.meaning} absent" if _says_absent(group) else asked.meaning


def _asked(group: Group) -> Concept | None:
    """The finding that a group is about: what it evaluates, its finding, or its first number."""
    evaluated = (question for question, answer in group.evaluations if answer in (_PRESENT, _ABSENT))
    numbers = (number.concept for number in group.numbers if number.concept != _PROBABILITY)
    return next(evaluated, None) or group.finding or next(numbers, None)


def _claimed(group: Group) -> Concept:
    return _ABSENT if _says_absent(group) else _PRESENT


def _says_absent(group: Group) -> bool:
    return any(answer == _ABSENT for _, answer in group.evaluations)


def _public(code: Concept | None) -> str:
    """Scheme and value of a public code; a private one may be anybody's free text."""
    if code is None:
        return "no code"
    if code.scheme in _PUBLIC and re.fullmatch(r"(RID|[A-Z]-?)?[0-9A-F-]{3,18}", code.value):
        return f"{code.scheme} {code.value}"
    return "private code"


def _merged(groups: Iterable[Group]) -> list[Group]:
    """A finding in a volume has a planar and a volumetric group under one tracking UID: they are one."""
    found: dict[str, Group] = {}
    for n, group in enumerate(groups):
        uid = group.tracking_uid or f"untracked {n}"
        before = found.get(uid)
        found[uid] = group if before is None else _joined(before, group)
    return list(found.values())


def _joined(a: Group, b: Group) -> Group:
    return replace(
        a,
        finding=a.finding or b.finding,
        sites=a.sites or b.sites,
        lateralities=a.lateralities or b.lateralities,
        numbers=a.numbers + b.numbers,
        evaluations=a.evaluations + b.evaluations,
        region=a.region or b.region,
    )


# -- without tracking UIDs: by place -------------------------------------------------------------------------------


def _paired(claims: Sequence[Group], theirs: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Each of ours with at most one of theirs, the surest pairs first."""
    scored = [(_sureness(c, g), n, m) for n, c in enumerate(claims) for m, g in enumerate(theirs)]
    pairs: dict[int, int] = {}
    for sureness, n, m in sorted(scored, key=lambda s: (-s[0], s[1], s[2])):
        if sureness > 0 and n not in pairs and m not in pairs.values():
            pairs[n] = m
    return [(claims[n], theirs[m]) for n, m in pairs.items()]


def _sureness(claim: Group, group: Group) -> float:
    """How surely they are the same; 0: not to be taken for it."""
    if claim.region is None or group.region is None:
        return 0.0
    if is_same(claim.region, group.region):
        return 4.0 if group.finding == claim.finding else 3.0 if group.finding is None else 2.0
    common = overlap(claim.region, group.region) or 0.0
    return common if group.finding == claim.finding and common >= SAME_FINDING_OVERLAP else 0.0


def _may_be_same(claim: Group, group: Group) -> bool:
    """Whether it cannot be told if a group of theirs is ours: our finding or none, not clearly elsewhere."""
    if group.finding is not None and group.finding != claim.finding:
        return False
    if claim.region is None or group.region is None:
        return group.finding is not None  # the same finding, nobody knows where
    common = overlap(claim.region, group.region)
    return common is None or common > 0
