"""How many patients are alike, by hand-made exports whose groups are known."""

from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from medgem_node import part10
from medgem_node.deid import anonymity
from medgem_node.errors import ConfigError

KEYWORDS = ("PatientAge", "PatientSex", "StudyDate")


def one(age: str, sex: str, *dates: str) -> anonymity.Patient:
    return {"PatientAge": frozenset({age}), "PatientSex": frozenset({sex}), "StudyDate": frozenset(dates)}


def test_patients_are_alike_by_age_band_sex_and_month() -> None:
    found = [one("041Y", "F", "20200701"), one("044Y", "F", "20200731"), one("045Y", "F", "20200701")]

    said = anonymity.groups(found, KEYWORDS, 2)

    assert (said["patients"], said["groups"], said["smallest_group"]) == (3, 2, 1)
    assert said["small_groups"] == [
        {"patients": 1, "PatientAge": "45-49", "PatientSex": "F", "StudyDate": "202007"},
    ]
    assert said["share_below_k"] == 0.3333
    assert anonymity.sentence(said).startswith("k-anonymity: 1 of 3 patients are in groups of fewer than 2")


def test_it_names_the_coarser_steps_that_help() -> None:
    found = [one("041Y", "F", "20200701"), one("046Y", "F", "20200701")]

    said = anonymity.groups(found, KEYWORDS, 2)

    assert {(r["keyword"], r["to"], r["patients_below_k"]) for r in said["generalise"]} == {
        ("PatientAge", "bands of 10 years", 0),
        ("PatientAge", "bands of 20 years", 0),
        ("PatientAge", "left out", 0),
    }


def test_a_patient_with_two_studies_is_one_patient_and_more_unlike_others() -> None:
    found = [one("041Y", "M", "20200701", "20210301"), one("041Y", "M", "20200701")]

    said = anonymity.groups(found, KEYWORDS, 2)

    assert said["patients_below_k"] == 2
    assert said["small_groups"][1]["StudyDate"] == "202007 / 202103"


@pytest.mark.parametrize(
    ("age", "band"), [("000D", "0-4"), ("011M", "0-4"), ("090Y", "90-94"), ("", ""), ("old", "old")]
)
def test_ages_fall_into_bands(age: str, band: str) -> None:
    said = anonymity.groups([one(age, "F")], ("PatientAge",), 2)

    assert said["small_groups"][0]["PatientAge"] == band


def test_no_patients_are_no_small_group() -> None:
    said = anonymity.groups([], KEYWORDS, 5)

    assert said["patients_below_k"] == said["share_below_k"] == said["smallest_group"] == 0
    assert anonymity.sentence(said) == "k-anonymity: each of 0 patients is in a group of 5 or more"


def test_files_are_read_by_patient_and_without_an_id_by_study(film: Dataset, tmp_path: Path) -> None:
    names = []
    for number, (patient_id, study) in enumerate([("A", "1"), ("A", "2"), ("", "3"), ("", "4")]):
        film.PatientID, film.StudyInstanceUID = patient_id, f"2.25.{study}"
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        film.Modality = "CR" if number else "DX"
        names.append(f"{number}.dcm")
        (tmp_path / names[-1]).write_bytes(part10.encode(film))

    found = anonymity.patients(tmp_path, names, ("Modality", "PatientSex"))

    assert sorted(sorted(p["Modality"]) for p in found) == [["CR"], ["CR"], ["CR", "DX"]]


@pytest.mark.parametrize("keyword", ["PatientsAge", "", "ReferencedImageSequence"])
def test_what_is_no_attribute_is_refused(keyword: str) -> None:
    with pytest.raises(ConfigError, match="--quasi"):
        anonymity.identifiers([keyword])
