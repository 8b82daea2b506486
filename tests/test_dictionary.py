"""The names of PS3.6 without pydicom's start: the same answers, and no pydicom."""

import subprocess
import sys

import pynetdicom
from pydicom import datadict
from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom._uid_dict import UID_dictionary

from medgem_node import dictionary

REPEATED = [int(mask.replace("x", digit), 16) for mask in RepeatersDictionary for digit in "024E"]


def test_every_tag_has_the_name_and_vr_that_pydicom_gives() -> None:
    tags = [tag for tag in (*DicomDictionary, *REPEATED) if not tag >> 16 & 1]

    assert len(tags) > 5000
    for tag in tags:
        assert dictionary.vr_of(tag) == datadict.dictionary_VR(tag)
        assert dictionary.keyword_of(tag) == datadict.keyword_for_tag(tag)


def test_every_keyword_has_its_tag() -> None:
    keywords = [row[4] for row in DicomDictionary.values() if row[4]]

    assert all(dictionary.tag_of(keyword) == datadict.tag_for_keyword(keyword) for keyword in keywords)
    assert dictionary.tag_of("PatientsName") is None
    assert dictionary.UIDS.items() >= UID_dictionary.items()


def test_what_pynetdicom_adds_is_known_whether_it_is_there_or_not() -> None:
    assert dictionary.UIDS["1.2.840.10008.1.2.4.112"] == pynetdicom.UID_dictionary["1.2.840.10008.1.2.4.112"]
    assert set(dictionary.UIDS) == set(pynetdicom.UID_dictionary)


def test_a_tag_without_a_name_is_written_as_a_number() -> None:
    assert dictionary.vr_of(0x00091001) == dictionary.keyword_of(0x00091001) == ""
    assert dictionary.name_of(0x00091001) == "(0009,1001)"
    assert dictionary.name_of(0x00100010) == "PatientName"


def test_reading_a_configuration_loads_no_pixel_decoder() -> None:
    code = "import sys, medgem_node.config; print(sorted({'pydicom', 'numpy', 'gdcm'} & set(sys.modules)))"

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert said.stdout == "[]\n"
