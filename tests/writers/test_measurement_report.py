from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from harness import chest
from pydicom import Dataset
from pydicom.sr.codedict import codes

from medgem_node.errors import MedgemError, ModelRejected
from medgem_node.finding import not_analysed

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


@pytest.fixture
def film() -> Dataset:
    return chest.film()


def test_a_finding_is_a_group_with_its_box_its_probability_and_its_site(write, film: Dataset) -> None:
    analysis = chest.analysis(film)

    report = write(analysis, [film])["SR 1"]

    group = _groups(report)[0]
    assert group[COMMENT][0].TextValue == "Cardiomegaly 71%, Cardiothoracic ratio 0.55"
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

    group = next(g for g in _groups(report) if g[COMMENT][0].TextValue.startswith("Cardiac width"))

    assert group["112039"][0].TextValue.startswith("Cornerstone3DTools@^0.1.0:Length:")
    assert len(group[REGION][0].GraphicData) == 4


def test_a_lungs_area_names_its_segment_and_shares_its_tracking_uid(write, film: Dataset) -> None:
    results = write(chest.analysis(film), [film])
    report, seg = results["SR 1"], results["SEG 1"]

    group = next(g for g in _groups(report) if g[COMMENT][0].TextValue.startswith("Left lung area"))

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
    assert group[COMMENT][0].TextValue.startswith("No cardiomegaly by AI, Cardiothoracic ratio 0.43")
    assert group[FINDING][0].ConceptCodeSequence[0].CodeValue == chest.HEART.value
    assert group[chest.CARDIOMEGALY.value][0].ConceptCodeSequence[0].CodeValue == codes.SCT.Absent.value
    looked_for = next(i for i in report.ContentSequence if _name(i) == "C0034375").ContentSequence
    assert [(_name(i), i.ConceptCodeSequence[0].CodeValue) for i in looked_for] == [
        (chest.CARDIOMEGALY.value, codes.SCT.Absent.value)
    ]
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
    assert _comments(report) == ["Not analysed: the image is a lateral view"]
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

    assert _comments(report) == ["Not analysed: the pixels cannot be decoded"]
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

    assert _comments(report) == ["Not analysed: the header is not valid"]


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
