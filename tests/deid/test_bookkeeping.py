"""What a copy says of itself, read back as a stranger would."""

from collections.abc import Sequence
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medgem_node import __version__
from medgem_node.deid import bookkeeping, layout, table, types
from medgem_node.deid.bookkeeping import REPLACED, Done, elements, method
from medgem_node.deid.options import BASIC, Option

READ = Done(frozenset({Option.CLEAN_PIXEL_DATA}), pixels="masked")


def told(done: Done, uid: UID = ExplicitVRLittleEndian, earlier: Sequence[bytes] = ()) -> Dataset:
    syntax = layout.Syntax.of(uid)
    parts = [layout.element(tag, vr, value, syntax) for tag, vr, value in elements(done, syntax, earlier)]
    return dcmread(BytesIO(layout.join([(0x00020010, "UI", uid.encode())], syntax, parts)))


def claimed(ds: Dataset) -> set[str]:
    return {item.CodeValue for item in ds.DeidentificationMethodCodeSequence}


@pytest.mark.parametrize("uid", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_copy_says_what_was_done_to_it(uid: UID) -> None:
    ds = told(Done(frozenset({Option.CLEAN_DESCRIPTORS})), uid)

    assert ds.PatientIdentityRemoved == "YES"
    assert ds.DeidentificationMethod == [
        "Basic Application Level Confidentiality Profile", "Clean Descriptors",
        f"PS3.15 {table.EDITION} Table E.1-1", f"medgem-node {__version__}",
    ]  # fmt: skip
    assert [(i.CodeValue, i.CodingSchemeDesignator, i.CodeMeaning) for i in ds.DeidentificationMethodCodeSequence] == [
        ("113100", "DCM", "Basic Application Confidentiality Profile"),
        ("113105", "DCM", "Clean Descriptors Option"),
    ]
    assert ds.LongitudinalTemporalInformationModified == "REMOVED"


def test_the_elements_stand_in_the_order_of_their_tags() -> None:
    syntax = layout.Syntax.of(ExplicitVRLittleEndian)
    tags = [tag for tag, _, _ in elements(Done(pixels="clean", faces_removed=True), syntax)]

    assert tags == sorted(set(tags))
    assert set(tags) - REPLACED == {bookkeeping.BURNED_IN, bookkeeping.RECOGNIZABLE}


def test_every_option_that_ran_is_claimed_by_name_and_code() -> None:
    done = Done(frozenset(Option) - {Option.RETAIN_FULL_DATES}, pixels="masked", faces_removed=True)

    ds = told(done)

    expected = {getattr(codes.cid7050, keyword).value for keyword in codes.cid7050.dir()}
    assert claimed(ds) == expected - {codes.cid7050.RetainLongitudinalTemporalInformationFullDatesOption.value}
    assert set(done.options) < set(ds.DeidentificationMethod)


@pytest.mark.parametrize("pixels", ["not examined", "clean", "masked"])
@pytest.mark.parametrize("dates", [Option.RETAIN_FULL_DATES, Option.RETAIN_MODIFIED_DATES])
def test_no_value_of_the_method_is_longer_than_its_vr_allows(pixels: str, dates: Option) -> None:
    done = Done(frozenset(Option) - {dates}, pixels=pixels, faces_removed=True)  # type: ignore[arg-type]

    assert all(len(value) <= 64 and value.isascii() and "\\" not in value for value in method(done))


def test_an_image_that_nobody_read_is_not_called_clean() -> None:
    ds = told(Done(frozenset({Option.CLEAN_PIXEL_DATA}), pixels="not examined"))

    assert codes.cid7050.CleanPixelDataOption.value not in claimed(ds)
    assert "Clean Pixel Data" not in ds.DeidentificationMethod
    assert "BurnedInAnnotation" not in ds


@pytest.mark.parametrize("pixels", ["clean", "masked"])
def test_an_image_that_was_read_says_so(pixels: str) -> None:
    ds = told(Done(frozenset({Option.CLEAN_PIXEL_DATA}), pixels=pixels))  # type: ignore[arg-type]

    assert codes.cid7050.CleanPixelDataOption.value in claimed(ds)
    assert ds.BurnedInAnnotation == "NO"


def test_an_image_that_was_read_unasked_claims_no_option() -> None:
    ds = told(Done(pixels="clean"))

    assert claimed(ds) == {codes.cid7050.BasicApplicationConfidentialityProfile.value}
    assert ds.BurnedInAnnotation == "NO"


def test_a_face_is_said_to_be_gone_only_where_one_was_taken_off() -> None:
    asked = frozenset({Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES})

    without, removed = told(Done(asked)), told(Done(asked, faces_removed=True))

    assert "RecognizableVisualFeatures" not in without
    assert codes.cid7050.CleanRecognizableVisualFeaturesOption.value not in claimed(without)
    assert removed.RecognizableVisualFeatures == "NO"
    assert codes.cid7050.CleanRecognizableVisualFeaturesOption.value in claimed(removed)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (Option.RETAIN_FULL_DATES, "UNMODIFIED"),
        (Option.RETAIN_MODIFIED_DATES, "MODIFIED"),
        (Option.RETAIN_UIDS, "REMOVED"),
    ],
)
def test_what_became_of_dates_is_told(option: Option, said: str) -> None:
    assert told(Done(frozenset({option}))).LongitudinalTemporalInformationModified == said


def test_this_program_is_contributing_equipment_without_a_place_or_a_time() -> None:
    (item,) = told(READ).ContributingEquipmentSequence

    purpose = item.PurposeOfReferenceCodeSequence[0]
    concept = codes.DCM.DeIdentifyingEquipment
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning) == (
        concept.value, concept.scheme_designator, concept.meaning,
    )  # fmt: skip
    assert (item.Manufacturer, item.SoftwareVersions) == ("medgem-node", __version__)
    assert {keyword_for_tag(e.tag) for e in item} == {
        "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "PurposeOfReferenceCodeSequence",
    }  # fmt: skip
    assert not [e.tag for e in item.iterall() if table.resolve(e.tag, (), "", BASIC)]


def test_equipment_that_stays_comes_before_ours() -> None:
    syntax = layout.Syntax.of(ExplicitVRLittleEndian)
    scanner = layout.element(0x00080070, "LO", b"Foundry", syntax)

    items = told(Done(frozenset({Option.RETAIN_DEVICE_IDENTITY})), earlier=[scanner]).ContributingEquipmentSequence

    assert [item.Manufacturer for item in items] == ["Foundry", "medgem-node"]


def test_what_is_written_belongs_into_every_image() -> None:
    """Patient, SOP Common and General Image have these attributes; an image has all three."""
    for sop_class_uid in ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.6.1"):
        for tag in (*REPLACED, bookkeeping.BURNED_IN, bookkeeping.RECOGNIZABLE):
            assert types.type_of(sop_class_uid, (), tag), keyword_for_tag(tag)


def test_the_tags_are_those_of_the_dictionary() -> None:
    named = {
        "PatientIdentityRemoved": bookkeeping.PATIENT_IDENTITY_REMOVED,
        "DeidentificationMethod": bookkeeping.METHOD,
        "DeidentificationMethodCodeSequence": bookkeeping.METHOD_CODES,
        "ContributingEquipmentSequence": bookkeeping.CONTRIBUTING_EQUIPMENT,
        "BurnedInAnnotation": bookkeeping.BURNED_IN,
        "RecognizableVisualFeatures": bookkeeping.RECOGNIZABLE,
        "LongitudinalTemporalInformationModified": bookkeeping.TEMPORAL,
    }

    assert {keyword: tag_for_keyword(keyword) for keyword in named} == named


def test_the_same_deed_is_told_in_the_same_bytes() -> None:
    syntax = layout.Syntax.of(ExplicitVRLittleEndian)

    assert elements(READ, syntax) == elements(Done(READ.options, "masked"), syntax)
