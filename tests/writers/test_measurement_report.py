from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from harness import chest, volume
from harness.chest import as_bytes, as_sent
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from medgem_node.errors import ConfigError, MedgemError, ModelRejected
from medgem_node.evidence import Earlier
from medgem_node.finding import Analysis, not_analysed
from medgem_node.geometry import plane
from medgem_node.writers import measurement_report, segmentation

TRACKING, FINDING, COMMENT, REGION = "112040", "121071", "121106", "111030"


def _items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        yield child
        yield from _items(child)


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def _groups(report: Dataset) -> list[dict[str, list[Dataset]]]:
    groups = []
    for item in _items(report):
        if _name(item) == codes.DCM.MeasurementGroup.value:
            group: dict[str, list[Dataset]] = {}
            for child in item.ContentSequence:
                group.setdefault(_name(child), []).append(child)
            groups.append(group)
    return groups


def _comments(report: Dataset) -> list[str]:
    return [group[COMMENT][0].TextValue for group in _groups(report)]


def _referenced(item: Dataset) -> set[str]:
    return {
        str(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for i in _items(item) if "ReferencedSOPSequence" in i
    }


def _overall(report: Dataset) -> list[tuple[str, str]]:
    container = next(i for i in report.ContentSequence if _name(i) == "C0034375")
    return [(_name(i), str(_value(i))) for i in container.ContentSequence]


def _value(item: Dataset) -> str:
    code = item.ConceptCodeSequence[0]
    return str(code.get("CodeValue") or code.LongCodeValue)


def _report(
    analysis: Analysis,
    originals: Sequence[Dataset],
    variant: str = "comprehensive-3d",
    made: Sequence[Dataset] | None = None,
    **source: object,
) -> Dataset:
    """The report alone, over the segmentation or what else was made before."""
    us = replace(chest.SOURCE, **source)
    sent = [as_sent(original) for original in originals]
    if made is None:
        made = segmentation.create(us).write(analysis, sent, (), chest.uid)
    return as_sent(measurement_report.create(us, variant).write(analysis, sent, made, chest.uid)[0])


@pytest.fixture
def film() -> Dataset:
    return chest.film()


def test_a_finding_is_a_group_with_its_box_its_probability_and_its_site(write, film: Dataset) -> None:
    analysis = chest.analysis(film)

    report = write(analysis, [film])["SR 1"]

    group = _groups(report)[0]
    assert group[COMMENT][0].TextValue == "AI: Cardiomegaly 71%, Cardiothoracic ratio 0.55"
    assert group[FINDING][0].ConceptCodeSequence[0].CodeValue == chest.CARDIOMEGALY.value
    assert group[codes.SCT.FindingSite.value][0].ConceptCodeSequence[0].CodeValue == chest.HEART.value
    x0, y0, x1, y1 = analysis.findings[0].box.xyxy
    ring = np.array(group[REGION][0].GraphicData).reshape(-1, 2)
    assert np.allclose(ring, [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
    probability = group[codes.DCM.Probability.value][0].MeasuredValueSequence[0]
    assert (probability.NumericValue, probability.MeasurementUnitsCodeSequence[0].CodeValue) == (71, "%")
    parameters = [item.TextValue for item in group["111002"]]
    assert f"weights_sha256={chest.CARD.weights_sha256}" in parameters
    assert "operating_point=0.5" in parameters


def test_a_score_that_is_not_calibrated_is_never_written_as_a_probability(film: Dataset) -> None:
    analysis = chest.analysis(film)
    findings = tuple(replace(finding, calibrated=False) for finding in analysis.findings)

    report = _report(replace(analysis, findings=findings), [film], made=())

    assert not [item for item in _items(report) if _name(item) == codes.DCM.Probability.value]
    assert _comments(report)[0] == "AI: Cardiomegaly, Cardiothoracic ratio 0.55"


def test_every_number_says_where_it_was_taken(write, film: Dataset) -> None:
    report = write(chest.analysis(film), [film])["SR 1"]

    for group in _groups(report):
        for item in (i for same in group.values() for i in same if i.ValueType == "NUM"):
            coordinates = [i for i in item.ContentSequence if i.ValueType == "SCOORD"]
            assert coordinates
            assert all(i.RelationshipType == "INFERRED FROM" for i in coordinates)


def test_a_ratio_stands_with_its_finding_and_has_both_its_lines(write, film: Dataset) -> None:
    report = write(chest.analysis(film), [film])["SR 1"]

    ratio = _groups(report)[0][chest.CARDIOTHORACIC.value][0]

    assert float(ratio.MeasuredValueSequence[0].NumericValue) == 0.55
    assert [len(i.GraphicData) for i in ratio.ContentSequence] == [4, 4]


def test_a_width_is_a_length_that_a_viewer_restores(write, film: Dataset) -> None:
    report = write(chest.analysis(film), [film])["SR 1"]

    group = next(g for g in _groups(report) if g[COMMENT][0].TextValue.startswith("AI: Cardiac width"))

    assert group["112039"][0].TextValue.startswith("Cornerstone3DTools@^0.1.0:Length:")
    assert len(group[REGION][0].GraphicData) == 4


def test_a_lungs_area_names_its_segment_and_shares_its_tracking_uid(write, film: Dataset) -> None:
    results = write(chest.analysis(film), [film])
    report, seg = results["SR 1"], results["SEG 1"]

    group = next(g for g in _groups(report) if g[COMMENT][0].TextValue.startswith("AI: Left lung area"))

    reference = group[codes.DCM.SourceOfMeasurement.value][0].ReferencedSOPSequence[0]
    segment = seg.SegmentSequence[int(reference.ReferencedSegmentNumber) - 1]
    assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
    assert segment.SegmentLabel == "Left lung"
    assert segment.TrackingUID == group[TRACKING][0].UID
    site = group[codes.SCT.FindingSite.value][0]
    assert site.ContentSequence[0].ConceptCodeSequence[0].CodeValue == chest.LEFT.value


def test_no_two_groups_share_a_tracking_uid(write, film: Dataset) -> None:
    analysis = chest.analysis(film)
    twice = replace(analysis, findings=analysis.findings * 2)

    groups = _groups(write(twice, [film])["SR 1"])

    tracked = [str(g[TRACKING][0].UID) for g in groups]
    assert len(set(tracked)) == len(tracked)


def test_an_absent_finding_is_nowhere_coded_as_found(write, film: Dataset) -> None:
    report = write(chest.analysis(film, probability=0.12, ratio=0.43), [film])["SR 1"]

    group = _groups(report)[0]
    assert group[COMMENT][0].TextValue.startswith("AI: No cardiomegaly by AI, Cardiothoracic ratio 0.43")
    assert group[FINDING][0].ConceptCodeSequence[0].CodeValue == chest.HEART.value
    assert group[chest.CARDIOMEGALY.value][0].ConceptCodeSequence[0].CodeValue == codes.SCT.Absent.value
    looked_for = next(i for i in report.ContentSequence if _name(i) == "C0034375").ContentSequence
    assert [(_name(i), i.ConceptCodeSequence[0].CodeValue) for i in looked_for][-1] == (
        chest.CARDIOMEGALY.value,
        codes.SCT.Absent.value,
    )
    assert codes.DCM.NoAbnormality.value not in {_name(i) for i in _items(report)}


def test_a_finding_of_the_whole_image_has_the_whole_image_as_region(write, film: Dataset) -> None:
    analysis = chest.analysis(film)
    whole = replace(analysis, findings=(replace(analysis.findings[0], box=None),))

    ring = np.array(_groups(write(whole, [film])["SR 1"])[0][REGION][0].GraphicData).reshape(-1, 2)

    assert (ring.min(axis=0).tolist(), ring.max(axis=0).tolist()) == ([0, 0], [480, 512])


def test_everything_that_is_named_is_evidence(write, film: Dataset) -> None:
    results = write(chest.analysis(film), [film])
    report = results["SR 1"]

    evidence = {
        str(instance.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }

    assert _referenced(report) == {film.SOPInstanceUID, results["SEG 1"].SOPInstanceUID, results["OT 1"].SOPInstanceUID}
    assert _referenced(report) <= evidence


def test_the_report_is_complete_unverified_and_for_research_only(write, film: Dataset) -> None:
    report = write(chest.analysis(film), [film])["SR 1"]

    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert "research use only" in report.SeriesDescription
    assert "RESEARCH USE ONLY - NOT FOR DIAGNOSIS" in report.ContentSequence[-1].TextValue
    device = [i for i in _items(report) if _name(i) == codes.DCM.DeviceObserverUID.value]
    assert device[0].UID == chest.CARD.device_uid == report.ContributingEquipmentSequence[0].DeviceUID


@pytest.mark.parametrize(
    ("reason", "code"), [("lateral-view", "111225"), ("unreadable", "111224"), ("failed-worker", "111224")]
)
def test_a_study_that_was_not_analysed_is_answered_with_a_coded_reason(
    write, film: Dataset, reason: str, code: str
) -> None:
    refusal = not_analysed(chest.CARD.name, chest.CARD.version, reason, "the image is a lateral view")

    report = write(refusal, [film])["SR 1"]

    (group,) = _groups(report)
    assert group[FINDING][0].ConceptCodeSequence[0].CodeValue == code
    assert _comments(report) == ["AI: Not analysed: the image is a lateral view"]
    assert report.SeriesDescription == "AI: not analysed (research use only)"


def _stranger(**changes: object) -> Dataset:
    film = chest.film(64, 48)
    for keyword, value in changes.items():
        if value is None:
            delattr(film, keyword)
        else:
            setattr(film, keyword, value)
    return film


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelData": None},
        {"PixelData": b"\0\0"},
        {"Rows": 0},
        {"Rows": None, "Columns": None, "PixelData": None},
        {"PatientID": None, "StudyDate": None, "StudyTime": None, "AccessionNumber": None, "PatientName": None},
        {"PatientName": "", "PatientBirthDate": "", "ReferringPhysicianName": None, "StudyID": None},
        {"Modality": None},
        {"PatientOrientation": None, "ImagerPixelSpacing": None, "PixelSpacing": None},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Modality": "SR"},  # no image at all
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.9.1.1", "Modality": "ECG", "Rows": None, "Columns": None},
    ],
)
def test_strangers_headers_are_answered_too(write, changes: dict[str, object]) -> None:
    refusal = not_analysed(chest.CARD.name, chest.CARD.version, "unreadable", "the pixels cannot be decoded")

    report = write(refusal, [_stranger(**changes)])["SR 1"]

    assert _comments(report) == ["AI: Not analysed: the pixels cannot be decoded"]
    for keyword in ("PatientID", "PatientName", "StudyDate", "AccessionNumber", "StudyID", "PatientSex"):
        assert keyword in report


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says what is wrong with the header
@pytest.mark.parametrize("changes", [{"PatientSex": "X?"}, {"StudyDate": "yesterday"}, {"PatientWeight": "heavy"}])
def test_invalid_values_are_answered_as_they_came(write, changes: dict[str, str]) -> None:
    film = chest.film(64, 48)
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import DataElement

    for keyword, value in changes.items():
        vr = dictionary_VR(keyword)
        film[keyword] = DataElement(tag_for_keyword(keyword), "LO" if vr == "DS" else vr, value, validation_mode=0)
    refusal = not_analysed(chest.CARD.name, chest.CARD.version, "unreadable", "the header is not valid")

    report = write(refusal, [film])["SR 1"]

    assert _comments(report) == ["AI: Not analysed: the header is not valid"]


def test_an_analysis_without_any_result_says_so(write, film: Dataset) -> None:
    empty = replace(chest.analysis(film), findings=(), measurements=(), masks=(), heatmaps=())

    report = write(empty, [film])["SR 1"]

    assert _comments(report) == ["AI ran and reports neither a finding nor a measurement"]


def test_what_the_model_holds_back_is_said_first(write, film: Dataset) -> None:
    doubt = "the cardiothoracic ratio is not reported: its value is not plausible"
    analysis = chest.analysis(film)
    held_back = replace(analysis, detail=doubt, findings=(), measurements=analysis.measurements[2:])

    report = write(held_back, [film])["SR 1"]

    assert _comments(report)[0] == f"AI note: {doubt}"
    assert _groups(report)[0][FINDING][0].ConceptCodeSequence[0].CodeValue == codes.cid6042.PartiallySucceeded.value
    assert not any("ardiomegaly" in comment for comment in _comments(report))


def test_a_private_coding_scheme_names_who_is_responsible(write, film: Dataset) -> None:
    (scheme,) = write(chest.analysis(film), [film])["SR 1"].CodingSchemeIdentificationSequence

    assert scheme.CodingSchemeDesignator == "99MEDGEM"
    assert scheme.CodingSchemeResponsibleOrganization == chest.CARD.manufacturer


def test_a_number_that_is_none_is_refused(write, film: Dataset) -> None:
    analysis = chest.analysis(film)
    broken = replace(analysis.measurements[0], value=float("nan"))

    with pytest.raises(MedgemError, match="no finite number"):
        write(replace(analysis, measurements=(broken,)), [film])


def test_an_analysis_of_another_model_is_refused(write, film: Dataset) -> None:
    with pytest.raises(ModelRejected):
        write(replace(chest.analysis(film), version="9.9.9"), [film])


def test_an_analysis_of_an_image_that_is_not_there_is_refused(write, film: Dataset) -> None:
    with pytest.raises(MedgemError, match="not among the evidence"):
        write(chest.analysis(film), [chest.film(uid_seed="another")])


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_evidence_of_two_patients_or_studies_is_refused(write, film: Dataset, keyword: str) -> None:
    other = chest.film(uid_seed="other")
    setattr(other, keyword, "1.2.3")

    with pytest.raises(MedgemError, match="not of one patient and one study"):
        write(chest.analysis(film), [film, other])


def test_what_is_only_offered_for_review_makes_no_study_abnormal(write, film: Dataset) -> None:
    analysis = chest.analysis(film)
    doubtful = replace(analysis, findings=tuple(replace(f, tier="review") for f in analysis.findings))

    overall = dict(_overall(write(doubtful, [film])["SR 1"]))

    assert any(f.present for f in doubtful.findings)
    assert overall[codes.DCM.OverallAssessment.value] == codes.cid222.NormalityUndetermined.value


def test_a_study_with_a_finding_is_abnormal(write, film: Dataset) -> None:
    assert _overall(write(chest.analysis(film), [film])["SR 1"]) == [
        (codes.DCM.SummaryOfDetections.value, codes.cid6042.Succeeded.value),
        (codes.DCM.CADProcessingAndFindingsSummary.value, codes.cid6047.AllAlgorithmsSucceededWithFindings.value),
        (codes.DCM.OverallAssessment.value, codes.cid222.Abnormal.value),
        (chest.CARDIOMEGALY.value, codes.SCT.Present.value),
    ]


@pytest.mark.parametrize(
    ("may_say_normal", "detail", "tier", "assessment"),
    [
        (False, "", "high", codes.cid222.NormalityUndetermined),
        (True, "", "high", codes.cid222.Normal),
        (True, "the ratio is not reported", "high", codes.cid222.NormalityUndetermined),
        (True, "", "review", codes.cid222.NormalityUndetermined),
    ],
)
def test_a_study_in_which_nothing_was_found_is_normal_only_if_the_card_says_so(
    film: Dataset, may_say_normal: bool, detail: str, tier: str, assessment: object
) -> None:
    analysis = chest.analysis(film, probability=0.05, ratio=0.4)
    found = tuple(replace(f, tier=tier) for f in analysis.findings)

    report = _report(
        replace(analysis, detail=detail, findings=found),
        [film],
        made=(),
        card=replace(chest.CARD, may_say_normal=may_say_normal),
    )

    assert dict(_overall(report))[codes.DCM.OverallAssessment.value] == assessment.value


def test_a_study_of_which_nothing_was_asked_is_not_called_normal(film: Dataset) -> None:
    empty = replace(chest.analysis(film), findings=(), measurements=(), masks=(), heatmaps=())

    report = _report(empty, [film], made=(), card=replace(chest.CARD, may_say_normal=True))

    assert dict(_overall(report))[codes.DCM.OverallAssessment.value] == codes.cid222.NormalityUndetermined.value


@pytest.mark.parametrize(
    ("reason", "value"),
    [("lateral-view", "lateral-view"), ("pixel-data-truncated", "pixel-data-short"), ("a-reason-of-tomorrow", "other")],
)
def test_why_a_study_was_not_analysed_is_a_code_of_its_own(film: Dataset, reason: str, value: str) -> None:
    refusal = not_analysed(chest.CARD.name, chest.CARD.version, reason, "a sentence")

    answers = _overall(_report(refusal, [film]))

    status = codes.cid6042.Failed if reason.startswith("pixel") else codes.cid6042.NotAttempted
    assert answers == [(codes.DCM.SummaryOfDetections.value, status.value), ("REASON", value)]


@pytest.mark.parametrize(
    ("tier", "answers"),
    [
        ("", []),
        ("high", [("CONFIDENCETIER", "75540009")]),
        ("medium", [("CONFIDENCETIER", "255508009")]),
        ("review", [("CONFIDENCETIER", "REVIEW"), ("121075", "REVIEW")]),
    ],
)
def test_a_finding_says_how_sure_it_is_and_what_to_do(film: Dataset, tier: str, answers: list) -> None:
    analysis = chest.analysis(film)

    report = _report(replace(analysis, findings=(replace(analysis.findings[0], tier=tier),)), [film], made=())

    group = _groups(report)[0]
    named = {name: _value(group[name][0]) for name in ("CONFIDENCETIER", "121075") if name in group}
    assert named == dict(answers)
    assert group[COMMENT][0].TextValue.endswith(", to be reviewed") is (tier == "review")


def _library(report: Dataset) -> list[Dataset]:
    """The groups of the image library."""
    whole = next(i for i in report.ContentSequence if _name(i) == codes.DCM.ImageLibrary.value)
    return list(whole.ContentSequence)


def _facts(item: Dataset) -> dict[str, str | float]:
    read = {
        "CODE": _value,
        "NUM": lambda i: float(i.MeasuredValueSequence[0].NumericValue),
        "TEXT": lambda i: str(i.TextValue),
        "DATE": lambda i: str(i.Date),
        "TIME": lambda i: str(i.Time),
        "UIDREF": lambda i: str(i.UID),
    }
    facts = [i for i in item.get("ContentSequence", ()) if i.ValueType != "IMAGE"]
    assert all(i.RelationshipType == "HAS ACQ CONTEXT" for i in facts)
    return {i.ConceptNameCodeSequence[0].CodeMeaning: read[i.ValueType](i) for i in facts}


def test_the_library_says_how_a_film_was_taken(film: Dataset) -> None:
    film.ImageLaterality = "R"

    (group,) = _library(_report(chest.analysis(film), [film], made=()))

    assert _facts(group) == {
        "Modality": "DX",
        "Image Laterality": codes.cid244.Right.value,
        "Study Date": "20260302",
        "Study Time": "093000",
        "Content Date": "20260302",
        "Content Time": "093000",
        "Acquisition Date": "20260302",
        "Acquisition Time": "093000",
        "Pixel Data Rows": 512,
        "Pixel Data Columns": 480,
        "Image View": codes.cid4010.PosteroAnterior.value,
        "Patient Orientation Row": "L",
        "Patient Orientation Column": "F",
        "Horizontal Pixel Spacing": 0.78125,
        "Vertical Pixel Spacing": 0.78125,
    }
    assert _referenced(group) == {film.SOPInstanceUID}


def test_the_library_says_once_what_all_slices_have_alike() -> None:
    slices = volume.study(4, 32, 40)

    (group,) = _library(_report(volume.analysis(*slices), slices))

    assert _facts(group)["Modality"] == "CT"
    assert _facts(group)["Frame of Reference UID"] == slices[0].FrameOfReferenceUID
    assert (_facts(group)["Vertical Pixel Spacing"], _facts(group)["Slice Thickness"]) == (0.9, 3.0)
    entries = [i for i in group.ContentSequence if i.ValueType == "IMAGE"]
    positions = [_facts(entry) for entry in entries]
    assert positions == [{"Image Position (Patient) Z": -100.0 + 3 * k} for k in range(4)]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "changes",
    [
        {"ViewPosition": "SIDEWAYS", "ViewCodeSequence": []},
        {"AnatomicRegionSequence": [], "BodyPartExamined": "LEFT ELBOW?"},
        {"PatientOrientation": ["?"], "ImageLaterality": "X"},
        {"AcquisitionDate": "", "ContentTime": "0930", "StudyTime": "093000.123456"},
        {"ImagerPixelSpacing": [0, 0], "PixelSpacing": [0, 0]},
        {"Modality": "??"},
    ],
)
def test_the_library_leaves_out_what_a_header_does_not_say_well(changes: dict[str, object]) -> None:
    film = chest.film(64, 48, **changes)
    refusal = not_analysed(chest.CARD.name, chest.CARD.version, "header", "a value is invalid")

    (group,) = _library(_report(refusal, [film]))

    assert _facts(group)["Pixel Data Rows"] == 64
    assert not {"X", "??", "?", "SIDEWAYS", 0.0} & set(_facts(group).values())


@pytest.fixture(scope="module")
def slices() -> list[Dataset]:
    return volume.study(10, 64, 56, oblique=True)


def test_a_finding_in_a_volume_has_its_key_slice_and_its_whole_segment(slices: list[Dataset]) -> None:
    analysis = volume.analysis(*slices)
    seg = segmentation.create(chest.SOURCE).write(analysis, slices, (), chest.uid)[0]

    groups = _groups(_report(analysis, slices, made=[seg]))

    drawn, whole = (g for g in groups if seg.SegmentSequence[0].TrackingUID == g[TRACKING][0].UID)
    assert _referenced(drawn[REGION][0]) == {analysis.findings[0].image}
    assert drawn[COMMENT][0].TextValue.startswith("AI: Lung nodule 93%, Nodule volume")
    (reference,) = whole[codes.DCM.ReferencedSegment.value]
    assert reference.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID
    assert reference.ReferencedSOPSequence[0].ReferencedSegmentNumber == 1
    number = whole[volume.VOLUME.value][0].MeasuredValueSequence[0]
    assert number.FloatingPointValue == analysis.measurements[0].value
    assert number.MeasurementUnitsCodeSequence[0].CodeValue == "mm3"
    assert volume.VOLUME.value not in drawn


def test_a_report_of_one_thing_has_one_group_for_it(slices: list[Dataset]) -> None:
    whole = volume.analysis(*slices)
    analysis = replace(whole, findings=whole.findings[:1], measurements=())

    (group,) = _groups(_report(analysis, slices))

    assert volume.VOLUME.value in group
    assert REGION in group


def test_an_agatston_score_names_its_method(slices: list[Dataset]) -> None:
    analysis = volume.analysis(*slices)

    groups = _groups(_report(analysis, slices))

    score = next(g[volume.AGATSTON.value][0] for g in groups if volume.AGATSTON.value in g)
    assert float(score.MeasuredValueSequence[0].FloatingPointValue) == round(analysis.measurements[1].value, 4) > 0
    (method,) = (i for i in score.ContentSequence if _name(i) == codes.SCT.MeasurementMethod.value)
    assert _value(method) == codes.DCM.AgatstonScoringMethod.value


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("region", ["scoord", "scoord3d"])
def test_no_group_stands_without_a_region_under_its_own_tracking_uid(modality: str, region: str) -> None:
    images = volume.study(6, 48, 40, modality=modality)

    groups = _groups(_report(volume.analysis(*images), images, region=region))

    drawn = {str(g[TRACKING][0].UID) for g in groups if REGION in g}
    assert {str(g[TRACKING][0].UID) for g in groups} == drawn
    assert len(drawn) == len([g for g in groups if REGION in g])
    assert any(REGION not in g for g in groups) is (region == "scoord")
    assert " volume " in groups[0][COMMENT][0].TextValue


def test_without_a_segmentation_a_volume_is_reported_with_its_key_slice(slices: list[Dataset]) -> None:
    groups = _groups(_report(volume.analysis(*slices), slices, made=()))

    assert all(REGION in group for group in groups)
    assert sum(volume.VOLUME.value in group for group in groups) == 1


def test_a_region_of_a_multi_frame_image_names_its_frame() -> None:
    image = volume.enhanced(10, 64, 56)
    analysis = volume.analysis(image)

    groups = _groups(_report(analysis, [image], made=()))

    frame = groups[0][REGION][0].ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber
    assert frame == analysis.findings[0].frame > 1
    for item in (i for g in groups for same in g.values() for i in same if i.ValueType == "NUM"):
        for place in (i for i in item.ContentSequence if i.ValueType == "SCOORD"):
            assert "ReferencedFrameNumber" in place.ContentSequence[0].ReferencedSOPSequence[0]


def test_a_frame_that_is_not_there_is_refused() -> None:
    image = volume.enhanced(4, 32, 40)
    analysis = volume.analysis(image)

    with pytest.raises(MedgemError, match="frame"):
        _report(replace(analysis, findings=(replace(analysis.findings[0], frame=5),)), [image], made=())


def test_a_region_in_space_is_where_the_box_was(slices: list[Dataset]) -> None:
    analysis = volume.analysis(*slices)
    finding = analysis.findings[0]

    group = _groups(_report(analysis, slices, region="scoord3d"))[0]

    (region,) = group[REGION]
    key = next(s for s in slices if s.SOPInstanceUID == finding.image)
    assert (region.ValueType, region.ReferencedFrameOfReferenceUID) == ("SCOORD3D", key.FrameOfReferenceUID)
    positions = np.array(region.GraphicData, np.float64).reshape(-1, 3)
    back = plane(key).to_image(positions)
    x0, y0, x1, y1 = finding.box.xyxy
    assert np.allclose(back, [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], atol=1e-4)
    assert np.allclose((positions - plane(key).position_mm) @ plane(key).normal, 0, atol=1e-4)


@pytest.mark.parametrize(("across_mm", "written"), [(0.7, "SCOORD"), (0.9, "SCOORD3D")])
def test_regions_go_into_space_where_pixels_are_not_square(across_mm: float, written: str) -> None:
    slices = volume.study(6, 64, 56, spacing_mm=(2.5, 0.7, across_mm))

    report = _report(volume.analysis(*slices), slices, region="where-square")

    assert {i.ValueType for i in _items(report)} & {"SCOORD", "SCOORD3D"} == {written}


@pytest.mark.parametrize("variant", ["comprehensive", "enhanced"])
def test_only_a_3d_report_has_regions_in_space(slices: list[Dataset], variant: str) -> None:
    report = _report(volume.analysis(*slices), slices, variant, region="scoord3d")

    assert {i.ValueType for i in _items(report)} & {"SCOORD", "SCOORD3D"} == {"SCOORD"}


def test_a_film_has_no_regions_in_space(film: Dataset) -> None:
    report = _report(chest.analysis(film), [film], region="scoord3d")

    assert "SCOORD3D" not in {i.ValueType for i in _items(report)}


def test_a_variant_is_another_object_with_the_same_tracking_uids(film: Dataset) -> None:
    reports = {v: _report(chest.analysis(film), [film], v) for v in measurement_report.VARIANTS}

    assert [r.SOPClassUID for r in reports.values()] == [
        Comprehensive3DSRStorage,
        ComprehensiveSRStorage,
        EnhancedSRStorage,
    ]
    assert reports["comprehensive-3d"].SOPInstanceUID == chest.uid("sr")
    assert reports["enhanced"].SeriesInstanceUID == chest.uid("sr-enhanced-series")
    assert (
        len({r.SOPInstanceUID for r in reports.values()}) == len({r.SeriesInstanceUID for r in reports.values()}) == 3
    )
    assert len({tuple(g[TRACKING][0].UID for g in _groups(r)) for r in reports.values()}) == 1


def test_an_unknown_variant_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="known are comprehensive-3d, comprehensive, enhanced"):
        measurement_report.create(chest.SOURCE, "basic")


def _earlier(role: str) -> Earlier:
    def uid(role: str) -> str:
        return chest.uid(f"revision 1 {role}")

    return Earlier(uid, {uid(role): ComprehensiveSRStorage})


@pytest.mark.parametrize("role", ["sr", "sr-comprehensive"])
def test_a_revision_names_the_report_that_it_replaces(film: Dataset, role: str) -> None:
    report = _report(chest.analysis(film), [film], earlier=_earlier(role))

    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (before,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == film.StudyInstanceUID
    assert series.SeriesInstanceUID == chest.uid(f"revision 1 {role}-series")
    assert before.ReferencedSOPInstanceUID == chest.uid(f"revision 1 {role}")
    assert before.ReferencedSOPClassUID == ComprehensiveSRStorage


def test_a_report_that_was_never_delivered_is_no_predecessor(film: Dataset) -> None:
    report = _report(chest.analysis(film), [film], earlier=_earlier("seg-1"))

    assert "PredecessorDocumentsSequence" not in report


def test_every_object_of_the_run_is_evidence_of_the_report(film: Dataset) -> None:
    state = chest.film(64, 48, uid_seed="state", SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1", Modality="PR")

    report = _report(chest.analysis(film), [film], made=[state])

    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    named = {i.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
    assert named == {film.SOPInstanceUID, state.SOPInstanceUID}


def _spoken(analysis: Analysis) -> list[tuple[str, float]]:
    """Every number of an analysis, once."""
    of_findings = [m for f in analysis.findings for m in f.measurements]
    measured = dict.fromkeys((*analysis.measurements, *of_findings))
    probabilities = [("122157", round(100 * f.probability, 2)) for f in analysis.findings]
    return sorted([*probabilities, *((m.code.value, round(m.value, 4)) for m in measured)])


@pytest.mark.parametrize("variant", ["comprehensive-3d", "comprehensive", "enhanced"])
@pytest.mark.parametrize("kind", ["film", "CT", "MR"])
def test_highdicom_reads_every_number_back(kind: str, variant: str) -> None:
    originals = [chest.film(64, 48)] if kind == "film" else volume.study(6, 48, 40, modality=kind)
    analysis = (chest if kind == "film" else volume).analysis(*originals)

    report = _report(analysis, originals, variant)

    content = sr.srread(io.BytesIO(as_bytes(report))).content
    groups = [
        *content.get_planar_roi_measurement_groups(),
        *content.get_volumetric_roi_measurement_groups(),
        *content.get_image_measurement_groups(),
    ]
    assert sorted((m.name.value, m.value) for g in groups for m in g.get_measurements()) == _spoken(analysis)
    assert all(g.tracking_uid for g in groups)


@pytest.mark.parametrize("tool", [["dsrdump"], ["dsr2html"]])
@pytest.mark.parametrize("kind", ["film", "refused", "CT"])
def test_dcmtk_renders_the_report_without_a_warning(tmp_path: Path, kind: str, tool: list[str]) -> None:
    if shutil.which(tool[0]) is None:
        pytest.skip("dcmtk is not installed: run scripts/install-viewer")
    originals = volume.study(4, 32, 40) if kind == "CT" else [chest.film(64, 48)]
    analysis = (volume if kind == "CT" else chest).analysis(*originals)
    if kind == "refused":
        analysis = not_analysed(analysis.model, analysis.version, "pixel-data-truncated", "the pixel data is too short")

    for variant in measurement_report.VARIANTS:
        path = tmp_path / f"{variant}.dcm"
        path.write_bytes(as_bytes(_report(analysis, originals, variant)))
        said = subprocess.run([*tool, str(path)], capture_output=True, timeout=60)
        assert (said.returncode, said.stderr) == (0, b""), variant
        assert b"Measurement Report" in said.stdout
