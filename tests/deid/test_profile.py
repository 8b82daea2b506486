"""What leaves: nothing of the patient, everything that the detector needs."""

import re
import shutil
import struct
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom.data
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)
from stranger import INSTANCE, SERIES, STUDY, raw_file, raw_film, raw_item

from medgem_node import part10, testing
from medgem_node.deid import reader
from medgem_node.deid.options import Profile
from medgem_node.deid.profile import check_config, deidentify, deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import CannotDeidentify, ConfigError

CORPUS = Path("/work/shared/data/dicom_corpus")
NESTED = 0x00409096  # Real World Value Mapping Sequence: no row, so its items are looked into
SECRETS = (b"uartermain", b"ebulon", b"ZQ-448812", b"ACC9917733", b"Brombeer", b"19510314", b"20200705", b"OLDTOWN")


def leaked(copy: bytes) -> list[bytes]:
    return [s for s in (*SECRETS, STUDY.encode(), SERIES.encode(), INSTANCE.encode()) if s.lower() in copy.lower()]


def nested(elements: list[tuple[int, str, bytes]], depth: int) -> tuple[int, str, bytes]:
    for _ in range(depth):
        elements = [(NESTED, "SQ", raw_item(elements))]
    return elements[0]


def test_an_overlay_bit_position_that_is_a_sequence_is_held(pseudonyms: Pseudonyms) -> None:
    film = testing.dx_instance()
    film.add_new(0x60000102, "SQ", [Dataset()])

    with pytest.raises(CannotDeidentify):
        deidentify(film, pseudonyms)


def test_identity_on_top_leaves_and_the_image_stays(film: Dataset, pseudonyms: Pseudonyms) -> None:
    data = part10.encode(film)

    copy = deidentify_bytes(data, pseudonyms)

    ds = part10.decode(copy)
    assert leaked(data)
    assert leaked(copy) == []
    assert ds.PixelData == film.PixelData
    for keyword in ("SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "PatientOrientation", "ImageType",
                    "Rows", "Columns", "BitsStored", "PixelSpacing", "WindowCenter", "PhotometricInterpretation",
                    "PixelRepresentation", "Manufacturer", "InstanceNumber"):  # fmt: skip
        assert ds[keyword].value == film[keyword].value, keyword


def test_the_copy_says_what_was_done_and_claims_no_more(film: Dataset, pseudonyms: Pseudonyms) -> None:
    ds = deidentify(film, pseudonyms)

    (code,) = ds.DeidentificationMethodCodeSequence
    assert ds.PatientIdentityRemoved == "YES"
    assert ds.LongitudinalTemporalInformationModified == "REMOVED"
    assert code.CodeValue == codes.DCM.BasicApplicationConfidentialityProfile.value == "113100"
    assert all(len(text) <= 64 for text in ds.DeidentificationMethod)


def test_the_patient_has_a_pseudonym_and_no_age_sex_or_date(film: Dataset, pseudonyms: Pseudonyms) -> None:
    ds = deidentify(film, pseudonyms)

    assert ds.PatientID == pseudonyms.patient_id("ZQ-448812", "OLDTOWN")
    assert ds.PatientName == pseudonyms.name("ZQ-448812", "OLDTOWN")
    assert ds.AccessionNumber == pseudonyms.accession("ACC9917733")
    assert ds.PatientSex == ds.PatientBirthDate == ds.StudyDate == ds.StudyTime == ""


def test_the_original_stays_as_it_is(film: Dataset, pseudonyms: Pseudonyms) -> None:
    before, meta = film.to_json(), film.file_meta.to_json()

    deidentify(film, pseudonyms)

    assert film.to_json() == before
    assert film.file_meta.to_json() == meta


@pytest.mark.parametrize("depth", [1, 3, 40])
def test_identity_inside_sequences_leaves_at_any_depth(depth: int, pseudonyms: Pseudonyms) -> None:
    inside = [
        (0x00080018, "UI", INSTANCE.encode()),
        (0x00080020, "DA", b"20200705"),
        (0x00100010, "PN", b"Quartermain^Zebulon"),
        (0x00100020, "LO", b"ZQ-448812"),
        (0x00109431, "SH", b"unlisted, unknown"),
        (0x00280010, "US", b"\7\0"),
        (0x00091001, "LO", b"Quartermain"),
    ]
    film = [*raw_film(), (0x00100010, "PN", b"Quartermain^Zebulon"), nested(inside, depth)]

    copy = deidentify_bytes(raw_file(film), pseudonyms)

    ds = part10.decode(copy)
    for _ in range(depth):
        (ds,) = ds[NESTED].value
    assert leaked(copy) == []
    assert ds.Rows == 7


def test_ten_thousand_levels_are_held_and_crash_nothing(pseudonyms: Pseudonyms) -> None:
    depth = 10_000
    body = b"\x40\x00\x96\x90SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth

    with pytest.raises(CannotDeidentify):
        deidentify_bytes(raw_file([e for e in raw_film() if e[0] < NESTED]) + body, pseudonyms)


def test_preamble_file_meta_and_tail_tell_nothing(film: Dataset, pseudonyms: Pseudonyms) -> None:
    meta = [(0x00020016, "AE", b"QUARTERMAIN"), (0x00020102, "OB", b"Zebulon Quartermain")]
    trailing = [(0xFFFCFFFC, "OB", b"Quartermain^Zebulon")]
    named = [(0x00100010, "PN", b"Quartermain^Zebulon")]
    data = raw_file([*raw_film(), *named, *trailing], meta) + b"ZEBULON QUARTERMAIN, 19510314"
    data = b"Quartermain 19510314".ljust(128, b"\0") + data[128:]

    copy = deidentify_bytes(data, pseudonyms)

    ds = part10.decode(copy)
    assert leaked(copy) == []
    assert copy[:128] == bytes(128)
    assert set(ds.file_meta.keys()) == {0x00020000 + n for n in (0, 1, 2, 3, 16, 18, 19)}
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID != INSTANCE
    assert copy.endswith(bytes(48 * 2 * 2))


def test_private_overlay_curve_and_encrypted_elements_are_gone(pseudonyms: Pseudonyms) -> None:
    name = b"Quartermain^Zebulon"
    film = [
        *raw_film(),
        (0x00100010, "PN", name),
        (0x00091001, "UN", name),
        (0x00090010, "LO", b"MAKER"),
        (0x50000022, "LO", name),
        (0x60020022, "LO", name),
        (0x60021500, "LO", name),
        (0x60023000, "OB", name + b"!"),
        (0x04000500, "SQ", raw_item([(0x04000520, "OB", name)])),
        (0x4FFE0001, "SQ", raw_item([(0x00100010, "PN", name)])),
        (0x00880200, "SQ", raw_item([(0x7FE00010, "OB", name)])),
    ]

    copy = deidentify_bytes(raw_file(film), pseudonyms)

    assert leaked(copy) == []
    assert not [t for t in set(part10.decode(copy).keys()) if t.is_private or 0x5000 <= t.group < 0x7000]


def test_attributes_without_a_row_are_judged_by_their_vr(pseudonyms: Pseudonyms) -> None:
    film = [
        *raw_film(),
        (0x00100010, "PN", b"Quartermain^Zebulon"),
        (0x00080092, "ST", b"Mill Lane 4"),
        (0x00082228, "SQ", raw_item([(0x00080100, "SH", b"1")])),
        (0x00081167, "UI", INSTANCE.encode()),
        (0x00081190, "UR", b"http://pacs/19510314"),
        (0x00400044, "AE", b"QUARTERM"),
        (0x0014407E, "DA", b"20200705"),
        (0x00402004, "DA", b"20200705"),
        (0x0040A307, "PN", b"Somebody^Else"),
        (0x00081090, "LO", b"Model Quartermain 3"),
        (0x00181210, "SH", b"B30f"),
        (0x00187006, "LT", b"A detector that Hedwig looked after"),
        (0x00189004, "CS", b"ZEBULON"),
        (0x00280120, "US", b"\1\0"),
        (0x00200011, "IS", b"ZQ448812"),
        (0x0099FFEE, "LO", b"odd group"),
        (0x0098FFEE, "LO", b"even, unknown"),
    ]

    copy = deidentify_bytes(raw_file(film), pseudonyms)

    ds = part10.decode(copy)
    assert leaked(copy) == []
    assert ds.MultiFrameSourceSOPInstanceUID == pseudonyms.uid(INSTANCE)
    assert ds.ConvolutionKernel == "B30f"
    assert ds.PixelPaddingValue == 1
    assert ds.ManufacturerModelName == "Model [removed] 3"
    assert ds.DetectorDescription == "REMOVED"
    assert "RetrieveURL" not in ds
    assert ds.ContentQualification == ""
    assert 0x0098FFEE not in ds


@pytest.mark.parametrize(
    ("text", "is_clean"),
    [
        (b"mr quartermain left", False),
        (b"ZEBULONS KNEE", False),
        (b"for ZQ 448812 only", False),
        (b"acc9917733", False),
        (b"born 14.03.1951", False),
        (b"seen 2020-07-05", False),
        (b"07/05/2020", False),
        (b"see 1.2.276.0.7230010.3.1.4", False),
        (b"Li was here", False),
        (b"QUARTZ", True),
        (b"linear grid 2.1", True),
        (b"LIST", True),
        (b"hidden\0Q", False),
    ],
)
def test_a_text_stays_only_if_it_names_nobody(text: bytes, is_clean: bool, pseudonyms: Pseudonyms) -> None:
    film = [
        *raw_film(),
        (0x00080020, "DA", b"20200705"),
        (0x00080050, "SH", b"ACC9917733"),
        (0x00080090, "PN", b"Li^Hedwig"),
        (0x00100010, "PN", b"Quartermain^Zebulon"),
        (0x00100020, "LO", b"ZQ-448812"),
        (0x00100030, "DA", b"19510314"),
        (0x00081090, "LO", text),
    ]

    ds = part10.decode(deidentify_bytes(raw_file(film), pseudonyms))

    assert (ds.ManufacturerModelName == text.decode()) is is_clean


@pytest.mark.parametrize(
    ("charset", "codec", "name", "part"),
    [
        ("ISO_IR 192", "utf-8", "Yamada^Tarou=山田^太郎=やまだ^たろう", "山田"),
        ("GB18030", "gb18030", "Wang^XiaoDong=王^小东", "小东"),
        ("ISO_IR 126", "iso8859_7", "Διονυσιος", "ΔΙΟΝΥΣΙΟΣ"),
        ("ISO_IR 100", "latin-1", "Äneas^Rüdiger", "RÜDIGER"),
        ("\\ISO 2022 IR 87", "iso2022_jp", "Yamada^Tarou=山田^太郎", "太郎"),
        ("\\ISO 2022 IR 149", "euc_kr", "Hong^Gildong=\x1b$)C洪^\x1b$)C吉洞", "\x1b$)C吉洞"),
    ],
)
def test_names_in_every_script_leave_and_the_charset_stays(
    charset: str, codec: str, name: str, part: str, pseudonyms: Pseudonyms
) -> None:
    encoded, text = name.encode(codec), part.encode(codec)
    film = [
        *raw_film(),
        (0x00080005, "CS", charset.encode()),
        (0x00100010, "PN", encoded),
        (0x00100020, "LO", b"ZQ-448812"),
        (0x00081090, "LO", b"by " + text),
        nested([(0x00081070, "PN", encoded), (0x00081090, "LO", text)], 2),
    ]

    copy = deidentify_bytes(raw_file(film), pseudonyms)

    ds = part10.decode(copy)
    assert encoded not in copy
    assert text not in copy
    assert str(ds.PatientName).startswith("ANON^")
    assert ds.ManufacturerModelName == "by [removed]"
    assert charset.count("\\") + 1 == ds["SpecificCharacterSet"].VM


def test_a_character_set_that_cannot_be_decoded_hides_nothing(pseudonyms: Pseudonyms) -> None:
    name = "山田".encode("shift_jis")
    film = [
        *raw_film(),
        (0x00080005, "CS", b"\\ISO 2022 IR 87"),
        (0x00100010, "PN", b"Yamada=" + name),
        (0x00081090, "LO", b"\x1b%5" + name),
    ]

    assert name not in deidentify_bytes(raw_file(film), pseudonyms)


def test_text_in_an_unknown_charset_cannot_be_read_and_goes(pseudonyms: Pseudonyms) -> None:
    film = [*raw_film(), (0x00080005, "CS", b"ISO_IR 999"), (0x00081090, "LO", b"M\xfcller"), (0x00181210, "SH", b"B3")]

    ds = part10.decode(deidentify_bytes(raw_file(film), pseudonyms))

    assert "SpecificCharacterSet" not in ds
    assert ds.ManufacturerModelName == "REMOVED"
    assert ds.ConvolutionKernel == "B3"


def test_a_patient_called_hand_costs_the_detector_no_body_part(film: Dataset, pseudonyms: Pseudonyms) -> None:
    film.PatientName, film.BodyPartExamined = "Hand^Chest", "HAND"
    film.ImageType = ["DERIVED", "PRIMARY", "HANDSOME"]

    ds = deidentify(film, pseudonyms)

    assert ds.BodyPartExamined == "HAND"
    assert ds.ImageType == ["DERIVED", "PRIMARY", "OTHER"]


def test_a_meaning_under_a_local_coding_scheme_is_free_text(pseudonyms: Pseudonyms) -> None:
    def code(scheme: bytes, meaning: bytes) -> bytes:
        return raw_item([(0x00080100, "SH", b"1"), (0x00080102, "SH", scheme), (0x00080104, "LO", meaning)])

    items = code(b"SCT", b"Chest") + code(b"99LOCAL", b"Aunt Emma") + code(b"SCT", b"Quartermain sign")
    film = [*raw_film(), (0x00100010, "PN", b"Quartermain^Zebulon"), (0x00082218, "SQ", items)]

    ds = part10.decode(deidentify_bytes(raw_file(film), pseudonyms))

    assert [item.CodeMeaning for item in ds.AnatomicRegionSequence] == ["Chest", "REMOVED", "[removed] sign"]


def test_an_identifier_under_the_wrong_vr_leaves_all_the_same(pseudonyms: Pseudonyms) -> None:
    uid = INSTANCE.encode().ljust(34, b"\0")  # a sequence under UN is implicit inside (PS3.5 6.2.2)
    implicit = struct.pack("<HHLHHL", 0xFFFE, 0xE000, 42, 0x0008, 0x1155, 34) + uid
    film = [
        *(e for e in raw_film() if e[0] != 0x00080018),
        (0x00080018, "UN", INSTANCE.encode()),
        (0x00100010, "LO", b"Quartermain^Zebulon"),
        (0x0040A307, "LO", b"Quartermain^Zebulon"),
        (0x00281201, "OB", b"Quartermain^Zebulon"),
        (0x00280106, "UN", b"\1\0"),
        (0x00081140, "UN", implicit),
    ]

    copy = deidentify_bytes(raw_file(film), pseudonyms)

    assert leaked(copy) == []
    ds = part10.decode(copy)
    assert ds.SOPInstanceUID == ds.ReferencedImageSequence[0].ReferencedSOPInstanceUID == pseudonyms.uid(INSTANCE)
    assert ds.SmallestImagePixelValue == 1


def test_references_between_two_instances_of_a_study_still_lead_there(film: Dataset, pseudonyms: Pseudonyms) -> None:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = film.SOPClassUID, INSTANCE
    second = part10.decode(part10.encode(film))
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = INSTANCE + ".9"
    second.SourceImageSequence = [reference]

    first_copy, second_copy = deidentify(film, pseudonyms), deidentify(second, pseudonyms)

    assert second_copy.StudyInstanceUID == first_copy.StudyInstanceUID
    assert second_copy.SourceImageSequence[0].ReferencedSOPInstanceUID == first_copy.SOPInstanceUID
    assert second_copy.SOPInstanceUID != first_copy.SOPInstanceUID


def test_an_empty_sequence_of_type_2_stays_and_one_of_type_3_is_not_left_empty(pseudonyms: Pseudonyms) -> None:
    study = raw_item([(0x00081155, "UI", INSTANCE.encode())])
    digital = (0x00080016, "UI", DigitalXRayImageStorageForPresentation.encode())
    film = [
        *(e for e in raw_film() if e[0] != digital[0]),
        digital,
        (0x00081110, "SQ", study),
        (0x00400555, "SQ", study),
        (0x00082228, "SQ", b""),
    ]

    ds = part10.decode(deidentify_bytes(raw_file(film), pseudonyms))

    assert "ReferencedStudySequence" not in ds
    assert len(ds.AcquisitionContextSequence) == len(ds.PrimaryAnatomicStructureSequence) == 0


def test_what_an_enhanced_image_must_say_gets_a_dummy(film: Dataset, pseudonyms: Pseudonyms) -> None:
    film.ContentDate, film.AcquisitionDateTime, film.DeviceSerialNumber = "20200705", "20200705101112", "SN-1"
    single = deidentify(film, pseudonyms)
    film.SOPClassUID = EnhancedCTImageStorage

    enhanced = deidentify(film, pseudonyms)

    assert single.ContentDate == ""
    assert "DeviceSerialNumber" not in single
    assert enhanced.ContentDate == "19000101"
    assert enhanced.DeviceSerialNumber == "REMOVED"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_native_transfer_syntax_stays_and_so_do_its_pixels(
    syntax: str, film: Dataset, pseudonyms: Pseudonyms
) -> None:
    film.RealWorldValueMappingSequence = [Dataset()]
    film.RealWorldValueMappingSequence[0].RealWorldValueSlope = 1.5
    film.PixelPaddingValue = 7
    film.file_meta.TransferSyntaxUID = syntax
    film["PixelData"].VR = "OW"
    data = part10.encode(film)

    copy = deidentify_bytes(data, pseudonyms)

    original, ds = part10.decode(data), part10.decode(copy)
    assert leaked(copy) == []
    assert ds.file_meta.TransferSyntaxUID == syntax
    assert ds.PixelData == original.PixelData
    assert (ds.Rows, ds.PixelPaddingValue, ds.RealWorldValueMappingSequence[0].RealWorldValueSlope) == (6, 7, 1.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((0x00080016, "UI", b"1.2.3.4"), "SOP Class"),
        ((0x00080016, "UI", b""), "SOP Class"),
        ((0x00280301, "CS", b"YES"), "Burned In"),
        ((0x00280301, "CS", b"PERHAPS"), "Burned In"),
        ((0x0020000D, "UI", b""), "lacks"),
        ((0x00280010, "US", b"\xff\0"), "fewer pixels"),
    ],
)
def test_what_may_show_a_name_or_cannot_be_judged_is_held(
    change: tuple[int, str, bytes], reason: str, pseudonyms: Pseudonyms
) -> None:
    film = [*(e for e in raw_film() if e[0] != change[0]), change, (0x00100010, "PN", b"Quartermain^Zebulon")]

    with pytest.raises(CannotDeidentify, match=reason) as held:
        deidentify_bytes(raw_file(film), pseudonyms)
    assert "uartermain" not in str(held.value)


def test_a_duplicate_attribute_is_held(pseudonyms: Pseudonyms) -> None:
    film = [*raw_film(), (0x00081090, "LO", b"A"), (0x00081090, "LO", b"B")]

    with pytest.raises(CannotDeidentify, match="twice"):
        deidentify_bytes(raw_file(film), pseudonyms)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_held_or_come_out_clean(data: st.DataObject, film: Dataset, pseudonyms: Pseudonyms) -> None:
    whole = bytearray(part10.encode(film))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(132, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(140, len(whole)))])

    held, copy = None, b""
    try:
        copy = deidentify_bytes(damaged, pseudonyms, Profile(pixels="trust"))
    except CannotDeidentify as exc:
        held = exc

    assert held is None or not any(s.decode().lower() in str(held).lower() for s in SECRETS)
    assert held is None or (held.__cause__ is None and (held.__suppress_context__ or held.__context__ is None))
    assert held is not None or b"YES" in copy


def test_the_same_file_and_key_make_the_same_bytes_in_every_process(
    film: Dataset, pseudonyms: Pseudonyms, tmp_path: Path
) -> None:
    (tmp_path / "film.dcm").write_bytes(part10.encode(film))
    code = (
        "import sys; from medgem_node.deid.profile import deidentify_bytes as d;"
        "from medgem_node.deid.pseudonym import Pseudonyms as P;"
        "sys.stdout.buffer.write(d(open(sys.argv[1], 'rb').read(), P(b'k' * 32)))"
    )

    there = subprocess.run([sys.executable, "-c", code, tmp_path / "film.dcm"], capture_output=True, check=True).stdout

    assert there == deidentify_bytes(part10.encode(film), pseudonyms)
    assert there != deidentify_bytes(part10.encode(film), Pseudonyms(b"x" * 32))


def test_a_copy_of_a_copy_is_an_image_still(film: Dataset, pseudonyms: Pseudonyms) -> None:
    twice = deidentify(deidentify(film, pseudonyms), pseudonyms)

    assert twice.PixelData == film.PixelData
    assert len(twice.DeidentificationMethodCodeSequence) == 1


def test_a_configuration_that_claims_more_than_runs_is_refused() -> None:
    shipped = Path(__file__).parents[2] / "conf" / "deid.toml"
    check_config(tomllib.loads(shipped.read_text(encoding="utf-8")))

    with pytest.raises(ConfigError, match="option"):
        check_config({"profile": "basic", "options": ["CleanDesc"]})
    with pytest.raises(ConfigError, match="unknown key"):
        check_config({"profil": "basic"})


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy is not installed")
@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG1_J2KI.dcm"])
def test_a_real_film_is_as_valid_as_it_was(
    name: str, pseudonyms: Pseudonyms, errors_of: Callable[[bytes], Counter[str]]
) -> None:
    path = _installed(name)
    if path is None:
        pytest.skip(f"pydicom-data with {name} is not installed")
    data = path.read_bytes()

    copy = deidentify_bytes(data, pseudonyms, Profile(pixels="trust"))

    assert errors_of(copy) - errors_of(data) == Counter()
    original, ds = part10.decode(data), part10.decode(copy)
    assert (ds.pixel_array == original.pixel_array).all()
    assert ds.PixelData == original.PixelData


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus of real files is not here")
def test_every_real_file_comes_out_clean_or_is_held(pseudonyms: Pseudonyms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "installed", lambda: None)  # what needs reading is held; test_burned_in reads
    came_out = 0
    for path in sorted(p for p in CORPUS.rglob("*") if p.is_file()):
        try:
            copy = deidentify_bytes(path.read_bytes(), pseudonyms, Profile(pixels="trust"))
        except CannotDeidentify:
            continue
        came_out += 1
        with tempfile.TemporaryFile() as file:
            file.write(copy)
            file.seek(0)
            assert dcmread(file, stop_before_pixels=True).PatientIdentityRemoved == "YES"

    assert came_out > 150


@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus of real files is not here")
@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy is not installed")
def test_real_files_are_as_valid_as_they_were(
    pseudonyms: Pseudonyms, errors_of: Callable[[bytes], Counter[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "installed", lambda: None)
    small = sorted(p for p in CORPUS.rglob("*") if p.is_file() and p.stat().st_size < 200_000)
    judged, new = 0, {}
    for path in small[::8]:
        data = path.read_bytes()
        try:
            copy = deidentify_bytes(data, pseudonyms, Profile(pixels="trust"))
        except CannotDeidentify:
            continue
        judged += 1
        kinds = [Counter(re.sub(r"<[^<>]*[0-9.]{6,}[^<>]*>|2\.25\.\d+", "", e) for e in errors_of(each).elements())
                 for each in (copy, data)]  # fmt: skip
        if more := kinds[0] - kinds[1]:
            new[path.name] = more

    assert judged > 10
    assert new == {}


@pytest.fixture
def errors_of(tmp_path: Path) -> Callable[[bytes], Counter[str]]:
    def errors(data: bytes) -> Counter[str]:
        (tmp_path / "judged.dcm").write_bytes(data)
        run = subprocess.run(["dciodvfy", tmp_path / "judged.dcm"], capture_output=True, check=False)
        lines = (run.stdout + run.stderr).decode("latin-1").splitlines()
        return Counter(line for line in lines if line.startswith("Error"))

    return errors


def _installed(name: str) -> Path | None:
    """A test file of pydicom-data, if it lies on the disk; never fetched."""
    for folder in (*map(Path, sys.path), Path(pydicom.data.__file__).parents[2]):
        path = folder / "data_store" / "data" / name
        if path.exists():
            return path
    return None
