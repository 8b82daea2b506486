"""The proof distrusts the profile: it finds what another error would have left."""

import pytest
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medgem_node import part10
from medgem_node.deid.profile import deidentify, deidentify_bytes
from medgem_node.deid.proof import leaks
from medgem_node.deid.pseudonym import Pseudonyms


@pytest.mark.parametrize(
    ("planted", "keyword"),
    [
        ("dear mr QUARTERMAIN", "PatientName"),
        ("zebulons", "PatientName"),
        ("brombeer", "ReferringPhysicianName"),
        ("id zq-448812.", "PatientID"),
        ("ACC9917733", "AccessionNumber"),
        ("on 19510314", "PatientBirthDate"),
        ("20200705101112", "StudyDate"),
        ("as in 1.3.6.1.4.1.55555.20200705.1.3 there", "SOPInstanceUID"),
    ],
)
def test_a_value_that_was_left_is_told_by_its_keyword(
    planted: str, keyword: str, film: Dataset, pseudonyms: Pseudonyms
) -> None:
    copy = deidentify(film, pseudonyms)
    copy.RealWorldValueMappingSequence = [Dataset()]
    copy.RealWorldValueMappingSequence[0].LUTExplanation = planted

    found = leaks(part10.encode(film), [part10.encode(copy)])

    assert keyword in found
    assert not any(planted.lower() in text.lower() for text in found)


@pytest.mark.parametrize("codec", ["utf-8", "shift_jis", "gb18030", "euc_jp"])
def test_a_name_is_found_in_other_encodings_than_its_own(codec: str, film: Dataset, pseudonyms: Pseudonyms) -> None:
    film.SpecificCharacterSet = "ISO_IR 192"
    film.PatientName = "Yamada^Tarou=山田^太郎"
    copy = deidentify(film, pseudonyms)
    copy.add_new(0x00091001, "OB", "氏名 山田".encode(codec))

    assert leaks(part10.encode(film), [part10.encode(copy)]) == ["PatientName", "a private attribute"]


def test_a_leak_inside_a_deflated_data_set_is_found(film: Dataset, pseudonyms: Pseudonyms) -> None:
    copy = deidentify(film, pseudonyms)
    copy.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    clean = part10.encode(copy)
    copy.ManufacturerModelName = "Quartermain"

    assert leaks(part10.encode(film), [clean]) == []
    assert leaks(part10.encode(film), [part10.encode(copy)]) == ["PatientName"]


def test_pixels_short_numbers_and_standard_words_raise_no_alarm(film: Dataset, pseudonyms: Pseudonyms) -> None:
    film.PatientName, film.PatientID, film.AccessionNumber = "Chest^Li", "2048", "409600"
    film.WindowWidth = "4096.0"
    film.SeriesNumber = 14096001
    film.PixelData = b"Quartermain^Zebulon 19510314".ljust(96, b"Q")

    assert leaks(part10.encode(film), [deidentify_bytes(part10.encode(film), pseudonyms)]) == []


def test_an_untouched_file_leaks_everything(film: Dataset) -> None:
    found = leaks(part10.encode(film), [part10.encode(film)])

    assert set(found) == {
        "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyDate",
        "StudyTime", "StudyID", "ReferringPhysicianName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID",
        "SourceApplicationEntityTitle", "PatientIdentityRemoved",
    }  # fmt: skip
