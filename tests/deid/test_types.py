"""The Type of an attribute in an IOD; the expected ones are read from PS3.3 by hand, not from the generated tables."""

import json
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest
from pydicom import uid
from pydicom.datadict import tag_for_keyword

from medgem_node.deid import types

FILE = files("medgem_node.deid").joinpath("iod_types.json")
BY_HAND = {
    uid.CTImageStorage: {
        "PatientName": "2", "StudyDate": "2", "AccessionNumber": "2", "SeriesDate": "3", "ContentDate": "2C",
        "AcquisitionDate": "3", "KVP": "2", "FrameOfReferenceUID": "1", "DeviceSerialNumber": "3",
        "ContrastBolusAgent": "2", "RequestAttributesSequence.RequestedProcedureID": "1C", "SOPInstanceUID": "1",
    },
    uid.EnhancedMRImageStorage: {
        "ContentDate": "1", "AcquisitionDateTime": "1C", "DeviceSerialNumber": "1", "SoftwareVersions": "1",
        "AcquisitionContextSequence": "2", "ReferencedPerformedProcedureStepSequence": "1C",
        "PerFrameFunctionalGroupsSequence.FrameContentSequence.FrameAcquisitionDateTime": "1C",
    },
    uid.ComprehensiveSRStorage: {
        "ContentDate": "1", "PerformedProcedureCodeSequence": "2", "VerifyingObserverSequence": "1C",
        "VerifyingObserverSequence.VerifyingObserverName": "1", "VerifyingObserverSequence.VerificationDateTime": "1",
        "VerifyingObserverSequence.VerifyingObserverIdentificationCodeSequence": "2",
        "ReferencedRequestSequence.AccessionNumber": "2", "ReferencedRequestSequence.RequestedProcedureID": "2",
        "ContentSequence.PersonName": "1C", "ContentSequence.ContentSequence.ContentSequence.PersonName": "1C",
        "ContentSequence.ContentSequence.ConceptNameCodeSequence.CodeMeaning": "1",
    },
    uid.SegmentationStorage: {
        "ContentDate": "1", "ContentLabel": "1", "ContentDescription": "2", "SegmentSequence.SegmentLabel": "1",
        "SegmentSequence.SegmentDescription": "3", "DeviceSerialNumber": "1",
    },
    uid.RTStructureSetStorage: {
        "StructureSetLabel": "1", "StructureSetDate": "2", "StructureSetROISequence.ROIName": "2",
        "RTROIObservationsSequence.ROIInterpreter": "2", "OperatorsName": "2", "ReviewDate": "2C",
    },
    uid.UltrasoundImageStorage: {"ImageType": "2", "ProtocolName": "3", "ContentDate": "2C", "PatientID": "2"},
    uid.DigitalXRayImageStorageForPresentation: {
        "AcquisitionContextSequence": "2", "DetectorType": "2", "DetectorID": "3", "ImageLaterality": "1",
    },
    uid.KeyObjectSelectionDocumentStorage: {
        "ContentDate": "1", "ReferencedPerformedProcedureStepSequence": "2", "SeriesDate": "3",
        "CurrentRequestedProcedureEvidenceSequence.StudyInstanceUID": "1",
    },
    uid.GrayscaleSoftcopyPresentationStateStorage: {
        "PresentationCreationDate": "1", "PresentationCreationTime": "1", "ContentLabel": "1",
        "GraphicAnnotationSequence.TextObjectSequence.UnformattedTextValue": "1",
    },
    uid.EncapsulatedPDFStorage: {
        "ContentDate": "2", "AcquisitionDateTime": "2", "DocumentTitle": "2", "BurnedInAnnotation": "1",
        "EncapsulatedDocument": "1",
    },
    uid.TwelveLeadECGWaveformStorage: {
        "ContentDate": "1", "AcquisitionDateTime": "1", "AcquisitionContextSequence": "2",
        "WaveformSequence.ChannelDefinitionSequence.ChannelLabel": "3",
        "WaveformAnnotationSequence.UnformattedTextValue": "1C",
    },
    uid.PositronEmissionTomographyImageStorage: {
        "SeriesDate": "1", "SeriesTime": "1", "AcquisitionDate": "2", "AcquisitionTime": "2",
    },
}  # fmt: skip


@pytest.mark.parametrize("sop_class_uid", BY_HAND, ids=lambda u: u.name)
def test_a_type_is_that_of_the_standard(sop_class_uid: str) -> None:
    expected = BY_HAND[sop_class_uid]

    found = {path: types.type_of(sop_class_uid, *place(path)) for path in expected}

    assert found == expected


def test_an_attribute_has_no_type_where_its_iod_does_not_name_it() -> None:
    assert types.type_of(uid.CTImageStorage, *place("PresentationCreationDate")) == ""
    assert types.type_of(uid.CTImageStorage, *place("ContentSequence.PersonName")) == ""
    assert types.type_of("1.2.3", *place("PatientName")) == ""
    assert types.type_of(uid.CTImageStorage, (0x00111010,), 0x00111011) == ""


def test_the_strictest_of_two_modules_counts() -> None:
    """Instance Number: Type 2 in General Image, Type 1 in the Enhanced MR Image module."""
    assert types.type_of(uid.EnhancedMRImageStorage, *place("InstanceNumber")) == "1"
    assert types.strictest(["3", "2C", "", "1C"]) == "1C"
    assert types.strictest([]) == ""


def test_a_place_that_nobody_knows_needs_what_the_strictest_iod_needs() -> None:
    assert types.strictest_type(*place("SeriesDate")) == "1"  # PET
    assert types.strictest_type(*place("AcquisitionContextSequence")) == "2"
    assert types.strictest_type((0x00111010,), place("CodeMeaning")[1]) == "1"
    assert types.strictest_type((), 0x00111010) == ""


def test_every_group_of_a_repeating_one_is_the_first() -> None:
    assert types.type_of(uid.CTImageStorage, (), 0x60020010) == types.type_of(uid.CTImageStorage, (), 0x60000010) == "1"
    assert types.type_of(uid.CTImageStorage, (), 0x60010010) == ""


@pytest.mark.parametrize("depth", [40, 3000])
def test_a_deep_nest_is_answered(depth: int) -> None:
    content, name = tag_for_keyword("ContentSequence"), tag_for_keyword("PersonName")

    assert types.type_of(uid.ComprehensiveSRStorage, (content,) * depth, name) == "1C"


@pytest.mark.skipif(version("highdicom") != "0.28.2", reason="another highdicom carries another edition of PS3.3")
def test_the_generator_makes_the_types_again(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "generate_iod_types.py"

    subprocess.run([sys.executable, script, tmp_path / "types.json"], check=True)

    assert (tmp_path / "types.json").read_text("utf-8") == FILE.read_text("utf-8")


def test_the_tables_are_small_and_know_the_storage_classes() -> None:
    content = json.loads(FILE.read_text("utf-8"))
    current = {u for u, (name, kind, _, retired, _) in uid.UID_dictionary.items()
               if kind == "SOP Class" and name.endswith("Storage") and not retired and "DICOS" not in name}  # fmt: skip

    assert len(FILE.read_bytes()) < 300_000
    assert current - content["classes"].keys() == {
        "1.2.840.10008.5.1.4.1.1.601.1",  # Eddy Current Image, of non-destructive testing
        "1.2.840.10008.5.1.4.1.1.601.2",
    }


def test_types_are_read_without_highdicom_and_pydicom() -> None:
    program = (
        "import sys; from medgem_node.deid import options, table, types; before = types._tables.cache_info().currsize;"
        "types.type_of('1.2.840.10008.5.1.4.1.1.2', (), 0x00100010);"
        "print(before, sorted({'highdicom', 'pydicom'} & set(sys.modules)))"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.split(maxsplit=1) == ["0", "[]\n"]


def place(path: str) -> tuple[tuple[int, ...], int]:
    *parents, tag = (tag_for_keyword(keyword) or 0 for keyword in path.split("."))
    return tuple(parents), tag
