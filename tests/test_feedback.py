"""What a radiologist's document says of ours: every rule of `medgem_node.verdict`, as viewers write them."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from harness import chest, reader
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ComprehensiveSRStorage, generate_uid

from medgem_node import agreement, part10
from medgem_node.agreement import FindingAgreement, ModelAgreement
from medgem_node.errors import NotUnderstood
from medgem_node.feedback import Concept, Document, is_document, read_document
from medgem_node.finding import Analysis, Finding, not_analysed
from medgem_node.ledger.feedback import Answer
from medgem_node.region import Region, is_same, overlap
from medgem_node.verdict import ACCEPTING, REJECTING, Opinion, Verdict, judge_key_objects, judge_report
from medgem_node.writers import measurement_report, segmentation

CARDIOMEGALY = Code("8186001", "SCT", "Cardiomegaly")
EFFUSION = Code("60046008", "SCT", "Pleural effusion")
LABELS = ["Cardiac width", "Cardiomegaly", "Lung", "Lung", "Thoracic width"]
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@cache
def written(answer: str = "findings") -> bytes:
    film = chest.film()
    analysis = chest.analysis(film)
    if answer == "none":
        analysis = not_analysed(analysis.model, analysis.version, "lateral-view", "The view is lateral")
    elif answer == "absent":
        analysis = replace(analysis, findings=tuple(replace(f, present=False) for f in analysis.findings))
    elif answer == "nodules":
        analysis = Analysis(analysis.model, analysis.version, images=analysis.images, findings=nodules(analysis))
    made: list[Dataset] = []
    for module in (segmentation, measurement_report):
        made.extend(module.create(chest.SOURCE).write(analysis, [film], made, chest.uid))
    return chest.as_bytes(made[-1])


def nodules(analysis: Analysis) -> tuple[Finding, ...]:
    """Two of a kind, apart from each other."""
    code = chest.Code("427359005", "SCT", "Solitary nodule of lung")
    boxes = (chest.Box(100, 100, 140, 140), chest.Box(300, 200, 330, 240))
    return tuple(Finding(code, "nodule", 0.8, True, 0.5, analysis.images[0], box) for box in boxes)


@pytest.fixture
def ours() -> Dataset:
    return dcmread(io.BytesIO(written()))


def ours_of(answer: str) -> Dataset:
    return dcmread(io.BytesIO(written(answer)))


def judged(theirs: Dataset, ours: Dataset, *, successor: bool = False) -> list[Opinion]:
    return list(judge_report(read_document(chest.as_sent(theirs)), read_document(ours), successor=successor))


def verdicts(opinions: list[Opinion]) -> dict[str, str]:
    return {o.finding: str(o.verdict) for o in opinions}


def of(opinions: list[Opinion], finding: str) -> Opinion:
    return next(o for o in opinions if o.finding == finding)


def test_a_copy_with_our_tracking_uids_that_changes_nothing_accepts_every_finding(ours: Dataset) -> None:
    opinions = judged(reader.tracked_report(ours), ours)

    assert sorted(o.finding for o in opinions) == LABELS
    assert {o.verdict for o in opinions} == {Verdict.ACCEPTED}


def test_what_a_workstation_leaves_out_of_a_group_is_no_change(ours: Dataset) -> None:
    theirs = reader.tracked_report(ours)
    for group in reader.groups_of(theirs):
        kept = (codes.DCM.TrackingUniqueIdentifier, codes.DCM.ImageRegion)
        group.ContentSequence = [reader.part(group, concept) for concept in kept]

    assert {o.verdict for o in judged(theirs, ours)} == {Verdict.ACCEPTED}


@pytest.mark.parametrize(("ratio", "verdict"), [("0.553", "accepted"), ("0.48", "edited")])
def test_a_number_is_edited_beyond_what_rounding_explains(ours: Dataset, ratio: str, verdict: str) -> None:
    theirs = reader.tracked_report(ours)
    number = reader.part(reader.groups_of(theirs)[0], Code("CTR", "99MEDGEM", "Cardiothoracic ratio"))
    number.MeasuredValueSequence[0].NumericValue = ratio

    opinion = of(judged(theirs, ours), "Cardiomegaly")

    assert opinion.verdict == verdict
    assert opinion.detail == ({"numbers": {"CTR": [0.55, 0.48]}} if verdict == "edited" else {})


@pytest.mark.parametrize(("pixels", "verdict"), [(0.4, "accepted"), (20.0, "edited")])
def test_a_region_is_edited_when_a_corner_is_more_than_a_pixel_off(ours: Dataset, pixels: float, verdict: str) -> None:
    theirs = reader.tracked_report(ours)
    region = reader.part(reader.groups_of(theirs)[0], codes.DCM.ImageRegion)
    region.GraphicData = [value + pixels for value in region.GraphicData]

    opinion = of(judged(theirs, ours), "Cardiomegaly")

    assert opinion.verdict == verdict
    if verdict == "edited":
        width, height = 163.2, 174.08  # of the box in pixels
        common = (width - pixels) * (height - pixels)
        expected = common / (2 * width * height - common)
        assert opinion.detail["region_overlap"] == pytest.approx(expected, abs=0.01)


def test_another_finding_site_or_side_is_an_edit_and_says_which(ours: Dataset) -> None:
    theirs = reader.tracked_report(ours)
    heart, _, _, lung, _ = reader.groups_of(theirs)
    reader.part(heart, codes.DCM.Finding).ConceptCodeSequence = [reader._code(EFFUSION)]
    reader.part(heart, codes.SCT.FindingSite).ConceptCodeSequence = [reader._code(Code("39607008", "SCT", "Lung"))]
    side = reader.part(lung, codes.SCT.FindingSite).ContentSequence[0]
    side.ConceptCodeSequence = [reader._code(Code("7771000", "SCT", "Left"))]

    opinions = judged(theirs, ours)

    assert of(opinions, "Cardiomegaly").verdict is Verdict.EDITED
    assert of(opinions, "Cardiomegaly").detail == {
        "finding": ["SCT 8186001", "SCT 60046008"],
        "sites": [["SCT 80891009"], ["SCT 39607008"]],
    }
    assert {"lateralities": [["SCT 24028007"], ["SCT 7771000"]]} in [o.detail for o in opinions]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [(codes.SCT.Absent, "rejected"), (codes.SCT.Present, "accepted"), (codes.SCT.Undetermined, "commented")],
)
def test_a_coded_evaluation_rejects_confirms_or_leaves_open(ours: Dataset, answer: Code, verdict: str) -> None:
    theirs = reader.tracked_report(ours)
    reader.evaluate(reader.groups_of(theirs)[0], CARDIOMEGALY, answer)

    assert verdicts(judged(theirs, ours))["Cardiomegaly"] == verdict


def test_present_rejects_what_we_called_absent() -> None:
    ours = ours_of("absent")
    theirs = reader.tracked_report(ours)

    assert verdicts(judged(theirs, ours))["Cardiomegaly absent"] == "accepted"
    reader.evaluate(reader.groups_of(theirs)[0], CARDIOMEGALY, codes.SCT.Present)
    assert verdicts(judged(theirs, ours))["Cardiomegaly absent"] == "rejected"


def test_no_abnormality_as_its_finding_rejects_it(ours: Dataset) -> None:
    theirs = reader.tracked_report(ours)
    finding = reader.part(reader.groups_of(theirs)[0], codes.DCM.Finding)
    finding.ConceptCodeSequence = [reader._code(codes.DCM.NoAbnormality)]

    assert verdicts(judged(theirs, ours))["Cardiomegaly"] == "rejected"


def test_only_a_complete_successor_rejects_what_it_leaves_out(ours: Dataset) -> None:
    theirs = reader.tracked_report(ours)
    del reader.groups_of(theirs)[0]

    assert "Cardiomegaly" not in verdicts(judged(theirs, ours))
    assert verdicts(judged(theirs, ours, successor=True))["Cardiomegaly"] == "rejected"
    theirs.CompletionFlag = "PARTIAL"
    assert "Cardiomegaly" not in verdicts(judged(theirs, ours, successor=True))


def test_a_finding_without_a_region_that_a_viewer_could_not_restore_is_not_rejected_by_its_absence(
    ours: Dataset,
) -> None:
    plain = reader.groups_of(ours)[1]
    number = reader.part(plain, Code("CARDIACWIDTH", "99MEDGEM", "Cardiac width"))
    del number.ContentSequence
    kept = [item for item in plain.ContentSequence if item.ValueType != "SCOORD"]
    plain.ContentSequence = kept
    shapes = reader.shapes_of(ours_of("findings"))

    theirs = reader.ohif_report(ours, [*shapes[:1], *shapes[2:]], predecessor=ours)
    tracked = reader.tracked_report(ours)
    del reader.groups_of(tracked)[1]

    assert verdicts(judged(theirs, ours, successor=True))["Cardiac width"] == "commented"
    assert verdicts(judged(tracked, ours, successor=True))["Cardiac width"] == "rejected"


def test_a_tracking_uid_that_is_none_is_not_kept(ours: Dataset) -> None:
    theirs = reader.ohif_report(ours, reader.shapes_of(ours), predecessor=ours)
    with pytest.warns(UserWarning, match="Invalid value for VR UI"):
        reader.part(reader.groups_of(theirs)[0], codes.DCM.TrackingUniqueIdentifier).UID = "Miller"

    assert read_document(theirs).groups[0].tracking_uid == ""


def test_ohif_restored_and_stored_again_accepts_everything_though_it_measures_anew(ours: Dataset) -> None:
    theirs = reader.ohif_report(ours, reader.shapes_of(ours), predecessor=ours)

    opinions = judged(theirs, ours, successor=True)

    assert sorted(o.finding for o in opinions) == LABELS
    assert {o.verdict for o in opinions} == {Verdict.ACCEPTED}


def test_a_measurement_deleted_in_ohif_is_rejected_and_the_others_stay(ours: Dataset) -> None:
    _, *others = reader.shapes_of(ours)

    opinions = judged(reader.ohif_report(ours, others, predecessor=ours), ours, successor=True)

    assert verdicts(opinions) == {**dict.fromkeys(LABELS, "accepted"), "Cardiomegaly": "rejected"}
    assert of(opinions, "Cardiomegaly").detail == {"why": "left out"}


@pytest.mark.parametrize(("right", "verdict"), [(20, "edited"), (150, "commented"), (200, "rejected")])
def test_a_box_moved_in_ohif_is_edited_while_it_is_surely_the_same(ours: Dataset, right: int, verdict: str) -> None:
    heart, *others = reader.shapes_of(ours)
    moved = replace(heart, points=tuple((x + right, y) for x, y in heart.points))

    opinions = judged(reader.ohif_report(ours, [moved, *others], predecessor=ours), ours, successor=True)

    assert of(opinions, "Cardiomegaly").verdict == verdict
    added = [o for o in opinions if o.verdict is Verdict.ADDED]
    assert len(added) == (verdict == "rejected")  # it stands elsewhere now: one gone, one come


def test_a_line_moved_in_ohif_is_edited(ours: Dataset) -> None:
    shapes = reader.shapes_of(ours)
    (x0, y0), (x1, y1) = shapes[1].points
    shapes[1] = replace(shapes[1], points=((x1, y1), (x0 + 12, y0)))  # ends may come in either order

    opinions = judged(reader.ohif_report(ours, shapes, predecessor=ours), ours, successor=True)

    assert of(opinions, "Cardiac width").verdict is Verdict.EDITED
    assert of(opinions, "Cardiac width").detail["region_overlap"] == pytest.approx(1 - 12 / 163.2, abs=0.001)


def test_two_findings_of_a_kind_are_told_apart_by_their_place() -> None:
    ours = ours_of("nodules")
    _, second = reader.shapes_of(ours)

    opinions = judged(reader.ohif_report(ours, [second], predecessor=ours), ours, successor=True)

    assert {o.subject: str(o.verdict) for o in opinions} == {
        read_document(ours).groups[0].tracking_uid: "rejected",
        read_document(ours).groups[1].tracking_uid: "accepted",
    }


def test_the_same_box_under_another_finding_is_an_edit(ours: Dataset) -> None:
    heart, *others = reader.shapes_of(ours)
    named = replace(heart, finding=EFFUSION)

    opinions = judged(reader.ohif_report(ours, [named, *others], predecessor=ours), ours, successor=True)

    assert of(opinions, "Cardiomegaly").detail == {"finding": ["SCT 8186001", "SCT 60046008"]}


def test_a_group_of_the_readers_own_is_a_possible_miss(ours: Dataset) -> None:
    heart, *_ = shapes = reader.shapes_of(ours)
    own = replace(heart, finding=EFFUSION, points=((10, 400), (60, 400), (60, 460), (10, 460), (10, 400)))

    opinions = judged(reader.ohif_report(ours, [*shapes, own], predecessor=ours), ours, successor=True)

    (added,) = [o for o in opinions if o.verdict is Verdict.ADDED]
    assert added.finding == "SCT 60046008"


def test_a_miss_of_a_finding_that_the_model_knows_is_counted_under_its_name() -> None:
    ours = ours_of("nodules")
    first, *_ = shapes = reader.shapes_of(ours)
    third = replace(first, points=tuple((x, y + 250) for x, y in first.points))

    opinions = judged(reader.ohif_report(ours, [*shapes, third], predecessor=ours), ours, successor=True)

    assert [(o.finding, str(o.verdict)) for o in opinions] == [
        ("Solitary nodule of lung", "accepted"),
        ("Solitary nodule of lung", "accepted"),
        ("Solitary nodule of lung", "added"),
    ]


def test_what_the_reader_draws_on_other_images_or_calls_absent_is_no_miss(ours: Dataset) -> None:
    heart, *_ = shapes = reader.shapes_of(ours)
    elsewhere = replace(heart, finding=EFFUSION, image=(heart.image[0], generate_uid()))
    absent = replace(heart, finding=EFFUSION, points=((10, 400), (60, 400), (60, 460), (10, 460), (10, 400)))
    theirs = reader.ohif_report(ours, [*shapes, elsewhere, absent], predecessor=ours)
    reader.evaluate(reader.groups_of(theirs)[-1], EFFUSION, codes.SCT.Absent)

    assert {o.verdict for o in judged(theirs, ours, successor=True)} == {Verdict.ACCEPTED}


def test_a_private_code_may_be_free_text_and_is_never_repeated(ours: Dataset) -> None:
    heart, *_ = shapes = reader.shapes_of(ours)
    typed = Code("CORNERSTONEFREET", "CORNERSTONEJS", "Mrs Miller, see 1960")
    own = replace(heart, finding=typed, points=((10, 400), (60, 400), (60, 460), (10, 460), (10, 400)))
    other = replace(own, finding=Code("Miller", "SCT", "Miller"), points=tuple((x + 300, y) for x, y in own.points))

    opinions = judged(reader.ohif_report(ours, [*shapes, own, other], predecessor=ours), ours, successor=True)

    assert [o.finding for o in opinions if o.verdict is Verdict.ADDED] == ["private code", "private code"]
    assert "Miller" not in str(opinions)


def test_a_study_that_was_not_analysed_cannot_have_missed_anything() -> None:
    ours = ours_of("none")
    (whole,) = reader.shapes_of(ours)
    theirs = reader.ohif_report(ours, [replace(whole, finding=EFFUSION)], predecessor=ours)

    assert [o.verdict for o in judged(theirs, ours, successor=True)] == [Verdict.COMMENTED]


@pytest.mark.parametrize("predecessor", [True, False])
def test_a_dictated_report_says_nothing_that_could_be_counted(ours: Dataset, predecessor: bool) -> None:
    theirs = reader.text_report(ours, predecessor=predecessor)

    (opinion,) = judged(theirs, ours, successor=predecessor)

    assert (opinion.verdict, opinion.finding) == (Verdict.COMMENTED, "")


def test_a_report_that_draws_our_finding_anew_without_succeeding_ours_is_a_comment(ours: Dataset) -> None:
    theirs = reader.ohif_report(ours, reader.shapes_of(ours)[:1])

    assert verdicts(judged(theirs, ours)) == {"Cardiomegaly": "commented"}


def test_a_region_in_space_cannot_be_compared_with_one_in_the_image(ours: Dataset) -> None:
    theirs = reader.tracked_report(ours)
    region = reader.part(reader.groups_of(theirs)[0], codes.DCM.ImageRegion)
    region.ValueType, region.ReferencedFrameOfReferenceUID = "SCOORD3D", generate_uid()
    region.GraphicType, region.GraphicData = "POLYGON", [0, 0, 5, 9, 0, 5, 9, 9, 5, 0, 0, 5]
    del region.ContentSequence

    opinion = of(judged(theirs, ours), "Cardiomegaly")

    assert opinion.verdict is Verdict.COMMENTED
    assert opinion.detail == {"why": "its region cannot be compared with ours"}


@pytest.mark.parametrize("title", ACCEPTING, ids=lambda c: c.meaning)
def test_key_objects_put_to_use_accept_the_result(ours: Dataset, title: Concept) -> None:
    assert of_key_objects(Code(title.value, title.scheme, title.meaning), ours) == ["accepted"]


@pytest.mark.parametrize("title", REJECTING, ids=lambda c: c.meaning)
def test_key_objects_that_reject_the_object_reject_the_result(ours: Dataset, title: Concept) -> None:
    assert of_key_objects(Code(title.value, title.scheme, title.meaning), ours) == ["rejected"]


@pytest.mark.parametrize(
    "title",
    [
        codes.DCM.ForTeaching,
        codes.DCM.IncorrectModalityWorklistEntry,
        codes.DCM.DataRetentionPolicyExpired,
        codes.DCM.QualityIssue,
        Code("1", "99HOSPITAL", "Miller"),
    ],
    ids=lambda c: c.meaning,
)
def test_key_objects_for_any_other_purpose_are_a_comment(ours: Dataset, title: Code) -> None:
    assert of_key_objects(title, ours) == ["commented"]


def of_key_objects(title: Code, ours: Dataset) -> list[str]:
    document = read_document(chest.as_sent(reader.key_objects(title, [ours])))
    assert document.is_key_objects
    assert document.references == {str(ours.SOPInstanceUID)}
    opinions = judge_key_objects(document)
    assert "Miller" not in str(opinions)
    return [str(o.verdict) for o in opinions]


def test_who_and_when_are_read(ours: Dataset) -> None:
    signed, anonymous = reader.tracked_report(ours), reader.ohif_report(ours, reader.shapes_of(ours))
    signed.TimezoneOffsetFromUTC, signed.ContentDate, signed.ContentTime = "-0330", "20261122", "083000.5"

    assert (read_document(signed).reader, read_document(signed).verified) == ("reader rita", True)
    assert read_document(signed).content_at == NOON
    assert (read_document(anonymous).reader, read_document(anonymous).verified) == ("", False)
    del anonymous.ContentDate
    assert read_document(anonymous).content_at is None


def test_every_structured_report_and_key_object_selection_is_a_document() -> None:
    film = chest.film()

    assert is_document(ComprehensiveSRStorage)
    assert not is_document(str(film.SOPClassUID))


def test_a_damaged_document_is_read_or_named_but_never_crashes(ours: Dataset) -> None:
    theirs = chest.as_bytes(reader.ohif_report(ours, reader.shapes_of(ours), predecessor=ours))
    mine = read_document(ours)
    read = refused = 0
    for at in range(132, len(theirs), 149):
        for damaged in (theirs[:at], theirs[:at] + bytes([theirs[at] ^ 0x21]) + theirs[at + 1 :]):
            try:
                document = read_document(part10.decode(damaged))
            except NotUnderstood:
                refused += 1
                continue
            judge_report(document, mine, successor=True)
            read += 1
    assert read > 20
    assert refused > 5


@pytest.mark.parametrize("value", [[float("nan")] * 10, [1e30] * 10, [], [1.0, 2.0, 3.0], [5.0] * 10])
def test_impossible_coordinates_are_no_region_or_have_no_area(ours: Dataset, value: list[float]) -> None:
    theirs = reader.tracked_report(ours)
    region = reader.part(reader.groups_of(theirs)[0], codes.DCM.ImageRegion)
    region.GraphicData = value

    assert of(judged(theirs, ours, successor=True), "Cardiomegaly").verdict is not Verdict.REJECTED


# -- shapes --------------------------------------------------------------------------------------------------------


def square(x: float, y: float, side: float, z: float | None = None, graphic: str = "POLYLINE") -> Region:
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    return Region("1.2", 1, graphic, tuple(c if z is None else (*c, z) for c in corners))


def test_a_polygon_is_the_same_wherever_it_begins() -> None:
    region = square(10, 10, 50)
    turned = replace(region, points=(*region.points[2:], *region.points[:3]))

    assert is_same(region, turned)
    assert not is_same(region, replace(turned, frame=2))
    assert overlap(region, replace(turned, frame=2)) == 0


@pytest.mark.parametrize(("right", "expected"), [(0, 1.0), (25, 1 / 3), (50, 0.0)])
def test_overlap_is_intersection_over_union_in_the_image_and_in_space(right: float, expected: float) -> None:
    flat, moved = square(0, 0, 50), square(right, 0, 50)
    in_space = square(0, 0, 50, 7.0, "POLYGON"), square(right, 0, 50, 7.0, "POLYGON")

    assert overlap(flat, moved) == pytest.approx(expected, abs=0.01)
    assert overlap(*in_space) == pytest.approx(expected, abs=0.01)


def test_shapes_in_other_planes_do_not_overlap() -> None:
    assert overlap(square(0, 0, 50, 7.0), square(0, 0, 50, 12.0)) == 0


def test_circles_and_ellipses_have_an_area() -> None:
    circle = Region("1.2", 1, "CIRCLE", ((50.0, 50.0), (70.0, 50.0)))
    ellipse = Region("1.2", 1, "ELLIPSE", ((30.0, 50.0), (70.0, 50.0), (50.0, 30.0), (50.0, 70.0)))

    assert overlap(circle, ellipse) == pytest.approx(1, abs=0.02)
    assert overlap(circle, square(30, 30, 40)) == pytest.approx(3.1416 / 4, abs=0.02)


# -- counting ------------------------------------------------------------------------------------------------------


def an_answer(document: str, verdict: Verdict = Verdict.ACCEPTED, hour: int = 0, **changes: Any) -> Answer:
    made = Answer(
        document=document,
        sop_instance_uid=document,
        sop_class_uid=ComprehensiveSRStorage,
        study_instance_uid="1",
        job_id="j",
        model="m",
        version="1.0.0",
        reader="r",
        at=NOON + timedelta(hours=hour),
        replaces=(),
        verdict=verdict,
        finding="Nodule",
    )
    return replace(made, **changes)


def standing(*answers: Answer) -> list[str]:
    return [a.document for a in agreement.standing(answers)]


def test_a_later_document_of_the_same_reader_replaces_the_earlier() -> None:
    first, second = an_answer("a"), an_answer("b", Verdict.REJECTED, 1)

    assert standing(first, second) == ["b"]
    assert standing(first, replace(second, reader="another")) == ["a", "b"]
    assert standing(first, replace(second, job_id="another")) == ["a", "b"]


def test_a_comment_replaces_no_verdict() -> None:
    assert standing(an_answer("a"), an_answer("b", Verdict.COMMENTED, 1)) == ["a"]


def test_a_predecessor_is_replaced_whoever_wrote_the_successor() -> None:
    assert standing(an_answer("a"), an_answer("b", reader="chief", replaces=("a",))) == ["b"]


def test_key_objects_and_reports_of_one_reader_stand_beside_each_other() -> None:
    key_objects = an_answer("b", sop_class_uid="1.2.840.10008.5.1.4.1.1.88.59", finding="")

    assert standing(an_answer("a"), key_objects) == ["a", "b"]


@pytest.mark.parametrize(
    ("successes", "of_all", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_the_interval_is_wilsons(successes: int, of_all: int, low: float, high: float) -> None:
    assert agreement.wilson(successes, of_all) == pytest.approx((low, high), abs=5e-4)


def test_agreement_is_counted_by_model_version_and_finding_with_the_studies_that_nobody_answered() -> None:
    answers = [an_answer("a", job_id="1", study_instance_uid="1"), an_answer("b", Verdict.EDITED, job_id="2")]
    answers += [an_answer("c", Verdict.ADDED, job_id="3"), an_answer("d", job_id="4", version="1.1.0", finding="")]

    old, new = agreement.count(answers, {("m", "1.0.0"): 40})

    nodule = FindingAgreement("Nodule", accepted=1, edited=1, rejected=0, added=1, commented=0)
    assert old == ModelAgreement("m", "1.0.0", 40, 1, (nodule,))
    assert nodule.judged == 2
    assert (new.version, new.delivered, new.findings[0].finding) == ("1.1.0", 0, "the whole result")
    text = "\n".join(agreement.lines([old, new]))
    assert "m 1.0.0: 1 of 40 delivered studies answered" in text
    assert "50% (9% to 91%)" in text
    assert old.to_dict()["findings"][0]["agreement"] == 0.5


def test_documents_are_told_from_each_other_by_no_field_that_is_missing() -> None:
    empty = Dataset()
    empty.SOPClassUID = ComprehensiveSRStorage

    assert read_document(empty) == Document(None, False, False, False, "", None, frozenset(), frozenset(), ())
