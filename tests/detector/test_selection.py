from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, config, uid
from pydicom.datadict import dictionary_description

from medgem_node.detector.selection import Selection, applicable
from medgem_node.errors import ModelRejected, NotAnalysable, NotApplicable

ODD_TEXT = st.text("CRLAF \\^_7é\0", max_size=12)
TABLE_E1 = Path("/work/shared/notes/ps315_table.json")


def header(**elements: Any) -> Dataset:
    instance = Dataset()
    instance.SOPClassUID = uid.ComputedRadiographyImageStorage
    instance.Modality = "CR"
    with config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that pydicom doubts even so
        for keyword, value in elements.items():
            setattr(instance, keyword, value)
    return instance


def coded(value: str, scheme: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


def reason(instance: Dataset, selection: Selection | None = None) -> str:
    with pytest.raises(NotApplicable) as error:
        applicable(instance, selection or Selection())
    return error.value.reason


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"Modality": "DX", "SOPClassUID": uid.DigitalXRayImageStorageForPresentation},
        {"Modality": "RG"},
        {"BodyPartExamined": "CHEST", "ViewPosition": "PA", "PatientOrientation": ["L", "F"]},
        {"BodyPartExamined": "thorax pa", "ViewPosition": "AP"},
        {"BodyPartExamined": "LUNG", "ViewPosition": "", "PatientOrientation": ["", ""]},
        {"BodyPartExamined": "", "ViewPosition": None, "PatientOrientation": None, "ImageType": None},
        {"ImageType": ["ORIGINAL", "PRIMARY", ""], "PresentationIntentType": "FOR PRESENTATION"},
        {"ViewCodeSequence": coded("272479007", "SCT", "postero-anterior")},
        {"ViewCodeSequence": coded("R-10206", "SRT", "antero-posterior")},
        {"ViewCodeSequence": coded("17", "99VENDOR", "Thorax p.a.")},
        {"AnatomicRegionSequence": coded("816094009", "SCT", "Chest")},
        {"AnatomicRegionSequence": coded("51185008", "SCT", "Chest")},
        {"AnatomicRegionSequence": coded("T-D3000", "SRT", "Chest")},
        {"AnatomicRegionSequence": coded("17", "99VENDOR", "Chest PA")},
    ],
)
def test_a_frontal_chest_film_is_applicable(elements: dict[str, Any]) -> None:
    applicable(header(**elements), Selection())


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"Modality": "CT"}, "modality"),
        ({"Modality": "MG"}, "modality"),
        ({"Modality": None}, "modality"),
        ({"BodyPartExamined": "HAND"}, "body-part"),
        ({"BodyPartExamined": "LSPINE"}, "body-part"),
        ({"BodyPartExamined": "CHESTWALL"}, "body-part"),
        ({"AnatomicRegionSequence": coded("85562004", "SCT", "Hand")}, "body-part"),
        ({"AnatomicRegionSequence": coded("T-D8700", "SRT", "Hand")}, "body-part"),
        ({"AnatomicRegionSequence": coded("17", "99VENDOR", "Hand")}, "body-part"),
        ({"BodyPartExamined": "CHEST", "AnatomicRegionSequence": coded("85562004", "SCT", "Hand")}, "body-part"),
        ({"ViewPosition": "LL"}, "lateral-view"),
        ({"ViewPosition": "RL"}, "lateral-view"),
        ({"ViewPosition": "LATERAL"}, "lateral-view"),
        ({"ViewPosition": "lat"}, "lateral-view"),
        ({"ViewPosition": "L LAT"}, "lateral-view"),
        ({"ViewPosition": "LLAT"}, "lateral-view"),
        ({"ViewPosition": "LLD"}, "lateral-view"),
        ({"ViewPosition": "RLD"}, "lateral-view"),
        ({"ViewPosition": "LAO"}, "oblique-view"),
        ({"ViewPosition": "RLO"}, "oblique-view"),
        ({"ViewPosition": "LORDOTIC"}, "oblique-view"),
        ({"ViewCodeSequence": coded("399067008", "SCT", "lateral")}, "lateral-view"),
        ({"ViewCodeSequence": coded("399173006", "SCT", "")}, "lateral-view"),
        ({"ViewCodeSequence": coded("R-10236", "SRT", "")}, "lateral-view"),
        ({"ViewCodeSequence": coded("17", "99VENDOR", "Thorax lateral")}, "lateral-view"),
        ({"ViewCodeSequence": coded("399135007", "SCT", "left anterior oblique")}, "oblique-view"),
        ({"PatientOrientation": ["A", "F"]}, "lateral-view"),
        ({"PatientOrientation": ["P", "F"]}, "lateral-view"),
        ({"PatientOrientation": ["P", "H"]}, "lateral-view"),
        ({"PatientOrientation": ["R", "F"]}, "orientation"),
        ({"PatientOrientation": ["H", "L"]}, "orientation"),
        ({"PatientOrientation": "L"}, "orientation"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for-processing"),
        ({"SOPClassUID": uid.DigitalXRayImageStorageForProcessing}, "for-processing"),
    ],
)
def test_any_other_image_is_not_and_says_why(elements: dict[str, Any], expected: str) -> None:
    assert reason(header(**elements)) == expected


def test_the_manifest_may_select_otherwise() -> None:
    selection = Selection.parse({"modalities": ["MG"], "body_parts": ["BREAST"], "orientations": ["P\\F", "L\\F"]})

    applicable(header(Modality="MG", BodyPartExamined="BREAST"), selection)
    assert reason(header(Modality="CR"), selection) == "modality"


def test_a_manifest_with_an_unknown_key_is_rejected() -> None:
    with pytest.raises(ModelRejected, match='"modality" in \\[selection\\]'):
        Selection.parse({"modality": ["CR"]})


@pytest.mark.parametrize("keyword", ["BodyPartExamined", "ViewPosition", "PatientOrientation", "Modality"])
def test_a_reason_repeats_no_free_text(keyword: str) -> None:
    instance = header(**{keyword: "SECRET NAME LAT"})

    with pytest.raises(NotAnalysable) as error:
        applicable(instance, Selection())

    assert "SECRET" not in str(error.value)


def test_neither_does_that_of_a_region() -> None:
    with pytest.raises(NotAnalysable) as error:
        applicable(header(AnatomicRegionSequence=coded("SECRET", "SECRET", "SECRET")), Selection())

    assert "SECRET" not in str(error.value)


def test_an_image_without_sop_class_is_unreadable() -> None:
    instance = header()
    del instance.SOPClassUID

    with pytest.raises(NotAnalysable) as error:
        applicable(instance, Selection())

    assert error.value.reason == "header"


@given(
    st.dictionaries(
        st.sampled_from(["Modality", "BodyPartExamined", "ViewPosition", "PatientOrientation", "ImageType"]),
        st.none() | ODD_TEXT | st.lists(ODD_TEXT, max_size=3) | st.integers(),
    )
)
def test_no_header_ends_in_another_exception(elements: dict[str, Any]) -> None:
    instance = header(**elements)

    try:
        applicable(instance, Selection())
    except NotAnalysable as error:
        answer = error.reason
    else:
        answer = "applicable"

    assert answer


def test_what_is_read_here_survives_deidentification() -> None:
    if not TABLE_E1.exists():
        pytest.skip("the table of PS3.15 is not on this machine")
    changed = {row["keyword"] for row in json.loads(TABLE_E1.read_text())["rows"]}

    for keyword in (
        "Modality",
        "SOPClassUID",
        "ImageType",
        "PresentationIntentType",
        "BodyPartExamined",
        "AnatomicRegionSequence",
        "ViewPosition",
        "ViewCodeSequence",
        "PatientOrientation",
    ):
        assert dictionary_description(keyword)
        assert keyword not in changed
