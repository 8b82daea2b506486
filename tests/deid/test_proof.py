"""The proof distrusts the profile: it finds what another error would have left."""

import ast
from io import BytesIO
from pathlib import Path

import mutants
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medgem_node import part10
from medgem_node.deid import proof
from medgem_node.deid.options import Option, Profile
from medgem_node.deid.profile import deidentify, deidentify_bytes
from medgem_node.deid.proof import leaks
from medgem_node.deid.proof_pixels import pixel_leaks, rapid_reader
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


def test_an_organ_for_an_id_raises_no_alarm_and_an_organ_for_a_name_does(film: Dataset, pseudonyms: Pseudonyms) -> None:
    film.StudyID, film.PatientName = "Thyroid", "Tongue^Zebulon"
    copy = deidentify(film, pseudonyms)
    copy.ManufacturerModelName = "Thyroid"
    clean = part10.encode(copy)
    copy.ManufacturerModelName = "Tongue"

    assert leaks(part10.encode(film), [clean]) == []
    assert leaks(part10.encode(film), [part10.encode(copy)]) == ["PatientName"]


def test_an_untouched_file_leaks_everything(film: Dataset) -> None:
    found = leaks(part10.encode(film), [part10.encode(film)])

    assert set(found) == {
        "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AccessionNumber",
        "StudyDate", "StudyTime", "StudyID", "ReferringPhysicianName", "StudyInstanceUID", "SeriesInstanceUID",
        "SOPInstanceUID",        "SourceApplicationEntityTitle", "PatientIdentityRemoved",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("option", "keyword", "others"),
    [
        (Option.RETAIN_UIDS, "SeriesInstanceUID", ["PatientBirthDate", "InstitutionName", "PatientAge"]),
        (Option.RETAIN_FULL_DATES, "StudyDate", ["PatientBirthDate", "InstitutionName", "SeriesInstanceUID"]),
        (Option.RETAIN_DEVICE_IDENTITY, "StationName", ["InstitutionName", "StudyDate", "OperatorsName"]),
        (Option.RETAIN_INSTITUTION_IDENTITY, "InstitutionName", ["StationName", "PatientSex", "StudyDescription"]),
        (Option.RETAIN_PATIENT_CHARACTERISTICS, "PatientAge", ["PatientBirthDate", "PatientComments", "StationName"]),
        (Option.CLEAN_DESCRIPTORS, "StudyDescription", ["PatientName", "AccessionNumber", "StationName"]),
    ],
)
def test_an_option_waives_what_it_retains_and_nothing_else(option: Option, keyword: str, others: list[str]) -> None:
    original = mutants.original("Quartermain^Zebulon", "ISO_IR 192", ExplicitVRLittleEndian)
    source = dcmread(BytesIO(original))
    made = deidentify_bytes(original, Pseudonyms(b"k" * 32))

    def left(*keywords: str) -> bytes:
        copy = dcmread(BytesIO(made))
        for each in keywords:
            copy[each] = source[each]
        return part10.encode(copy)

    assert keyword in leaks(original, [left(keyword)])
    assert leaks(original, [left(keyword)], frozenset({option})) == []
    for other in others:
        assert other in leaks(original, [left(keyword, other)], frozenset({option}))


def test_who_is_born_on_a_day_that_stays_raises_no_alarm_until_the_birth_date_stays(
    film: Dataset, pseudonyms: Pseudonyms
) -> None:
    options = frozenset({Option.RETAIN_FULL_DATES})
    film.PatientBirthDate = film.StudyDate
    copy = deidentify(film, pseudonyms, Profile(options))
    clean = part10.encode(copy)
    copy.PatientBirthDate = film.PatientBirthDate

    assert copy.StudyDate == film.StudyDate
    assert leaks(part10.encode(film), [clean], options) == []
    assert leaks(part10.encode(film), [part10.encode(copy)], options) == ["PatientBirthDate"]


def test_text_where_a_sequence_belongs_is_read_as_a_value(film: Dataset, pseudonyms: Pseudonyms) -> None:
    copy = deidentify(film, pseudonyms)
    copy.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    whole = part10.encode(copy)
    at = whole.index(b"\x28\0\x02\0")
    leaking, clean = (
        whole[:at] + b"\x18\0\x12\0" + len(text).to_bytes(4, "little") + text + whole[at:]
        for text in (b"Quartermain ", b"barium")
    )

    assert leaks(part10.encode(film), [clean]) == []
    assert leaks(part10.encode(film), [leaking]) == ["PatientName"]


@pytest.mark.parametrize("number", [1, 2])
def test_what_the_copies_before_said_hides_nothing(number: int, film: Dataset, pseudonyms: Pseudonyms) -> None:
    original = part10.encode(film)
    copy = deidentify(film, pseudonyms)
    for _ in range(number):
        assert leaks(original, [part10.encode(copy)]) == []

    copy.ManufacturerModelName = "Zebulon Q"

    assert leaks(original, [part10.encode(copy)]) == ["PatientName"]
    assert leaks(original, [part10.encode(copy)]) == ["PatientName"]


def test_a_name_in_one_of_many_equal_sequences_is_found(film: Dataset, pseudonyms: Pseudonyms) -> None:
    copy = deidentify(film, pseudonyms)
    items = [Dataset() for _ in range(9)]
    for n, item in enumerate(items):
        item.MeasurementUnitsCodeSequence = [Dataset()]
        item.MeasurementUnitsCodeSequence[0].CodeMeaning = "Quartermain" if n == 7 else "millimeter"
    copy.RealWorldValueMappingSequence = items

    assert leaks(part10.encode(film), [part10.encode(copy)]) == ["PatientName"]


def test_safe_private_attributes_may_stay_only_with_their_option() -> None:
    original = mutants.original("Quartermain^Zebulon", "ISO_IR 192", ExplicitVRLittleEndian)
    safe = dcmread(BytesIO(deidentify_bytes(original, Pseudonyms(b"k" * 32))))
    other = dcmread(BytesIO(deidentify_bytes(original, Pseudonyms(b"k" * 32))))
    safe.private_block(0x00E1, "ELSCINT1", create=True).add_new(0x21, "DS", "7")
    other.private_block(0x00E1, "ELSCINT1", create=True).add_new(0x22, "DS", "7")
    option = frozenset({Option.RETAIN_SAFE_PRIVATE})

    assert leaks(original, [part10.encode(safe)], option) == []
    assert leaks(original, [part10.encode(safe)]) == ["a private attribute"]
    assert leaks(original, [part10.encode(other)], option) == ["a private attribute"]


def test_what_cannot_be_read_is_not_proved(film: Dataset, pseudonyms: Pseudonyms) -> None:
    original = part10.encode(film)
    copy = deidentify_bytes(original, pseudonyms)

    assert leaks(b"no file", [copy]) == ["unreadable"]
    assert leaks(original, [b"no file"]) == ["unreadable"]
    assert leaks(original[:400], [copy]) == ["unreadable"]


def test_a_copy_in_pieces_is_the_same_copy(film: Dataset, pseudonyms: Pseudonyms) -> None:
    original = part10.encode(film)
    copy = original[:200], memoryview(original)[200:431], original[431:]

    assert leaks(original, copy) == leaks(original, [original])


@pytest.mark.parametrize("fault", [b"", b"\xff", b"\xff\xff\xff\xff", b"\xfe\xff\xdd\xe0", b"\0" * 40])
def test_no_bytes_of_a_stranger_raise(fault: bytes, film: Dataset) -> None:
    original = part10.encode(film)

    for at in range(132, len(original), 31):
        assert isinstance(leaks(original, [original[:at] + fault + original[at + len(fault) :]]), list)


def test_the_proof_imports_nothing_of_the_remover() -> None:
    folder = Path(proof.__file__).parent
    ours = {path.stem for path in folder.glob("proof*.py")} | {"options"}

    for path in folder.glob("proof*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        named = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        named |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        named |= {f"medgem_node.deid.{a.name}" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)
                  and n.module == "medgem_node.deid" for a in n.names}  # fmt: skip
        of_deid = {name.removeprefix("medgem_node.deid").strip(".") for name in named if "medgem_node.deid" in name}
        assert of_deid - {""} <= ours
        assert not {name for name in named if name.startswith("medgem_node")} - {
            "medgem_node.dictionary", *(f"medgem_node.deid.{name}" for name in ours), "medgem_node.deid",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("QUARTERMAIN, Z", ["pixels", "PatientName"]),
        ("Quarternain", ["pixels", "PatientName"]),
        ("ZQ-44B812 M", ["pixels", "PatientID"]),
        ("14.03.1951", ["pixels", "PatientBirthDate"]),
        ("KV 120 L", []),
        ("QUARTERS", []),
    ],
)
def test_text_in_pixels_is_compared_as_it_may_be_misread(line: str, found: list[str]) -> None:
    needles = {"PatientName": ["Quartermain^Zebulon"], "PatientID": ["ZQ-448812"], "PatientBirthDate": ["19510314"]}

    assert pixel_leaks([np.zeros((8, 8), np.uint8)], needles, lambda _: [line]) == found


@pytest.mark.slow
def test_a_name_drawn_into_pixels_is_read_there() -> None:
    pytest.importorskip("rapidocr_onnxruntime", reason="the text reader is not installed")
    picture = Image.new("L", (400, 120), 20)
    ImageDraw.Draw(picture).text((20, 40), "QUARTERMAIN", 250, ImageFont.load_default(32))
    needles = {"PatientName": ["Quartermain^Zebulon"]}
    reader = rapid_reader()

    assert pixel_leaks([np.asarray(picture)], needles, reader) == ["pixels", "PatientName"]
    assert pixel_leaks([np.full((120, 400), 20, np.uint8)], needles, reader) == []
