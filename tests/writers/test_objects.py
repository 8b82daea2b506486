"""What all objects have in common: identity, time, reproducibility, and the judgement of strangers."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from harness import chest, volume
from harness.chest import as_bytes, as_sent
from pydicom import Dataset
from pydicom.uid import UID

from medgem_node.finding import Analysis, not_analysed
from medgem_node.writers import heatmap, measurement_report, segmentation

CHECK_OBJECTS = Path("/work/shared/tools/viewer/check_objects.sh")
REFUSAL = not_analysed(chest.CARD.name, chest.CARD.version, "lateral-view", "the image is a lateral view")

COPIED = """
PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientAge StudyInstanceUID StudyDate StudyTime
StudyID AccessionNumber StudyDescription ReferringPhysicianName AdmissionID
"""
NAMES = {
    "Greek": ("ISO_IR 126", "Διονυσιος"),
    "Latin": ("ISO_IR 100", "Äneas^Rüdiger"),
    "Chinese": ("GB18030", "Wang^XiaoDong=王^小东"),
    "UTF-8": ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Half-width Japanese": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "Korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
}


def _raw(instance: Dataset, keyword: str) -> bytes:
    return as_sent(instance).get_item(keyword).value


@pytest.mark.parametrize("name", NAMES)
def test_a_name_survives_in_every_character_set(write, name: str) -> None:
    character_set, text = NAMES[name]
    film = chest.film(64, 48)
    film.SpecificCharacterSet, film.PatientName, film.StudyDescription = character_set, text, text.split("^")[0]

    for result in write(chest.analysis(film), [film]).values():
        assert str(result.PatientName) == text
        assert _raw(result, "PatientName") == _raw(film, "PatientName")
        assert _raw(result, "StudyDescription") == _raw(film, "StudyDescription")
        assert result.SpecificCharacterSet == film.SpecificCharacterSet


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_bytes_that_fit_no_declared_character_set_are_passed_on_untouched(write) -> None:
    film = as_sent(chest.film(64, 48))
    del film.SpecificCharacterSet
    tag = film.data_element("PatientName").tag
    film = as_sent(film)
    film[tag] = film.get_item(tag)._replace(value="张三".encode("gbk"), length=4)
    film.set_original_encoding(False, True, film._character_set)

    for result in write(REFUSAL, [film]).values():
        assert _raw(result, "PatientName") == "张三".encode("gbk")


def test_a_name_survives_being_looked_at_before(write) -> None:
    film = chest.film(64, 48)
    film.SpecificCharacterSet, film.PatientName = NAMES["Japanese"]
    sent = _raw(film, "PatientName")
    seen = as_sent(film)
    assert str(seen.PatientName) == NAMES["Japanese"][1]

    for module in (segmentation, heatmap, measurement_report):
        for result in module.create(chest.SOURCE).write(chest.analysis(seen), [seen], [], chest.uid):
            assert _raw(result, "PatientName") == sent


def test_identity_is_the_originals_and_nothing_else_is(write) -> None:
    film = chest.film(AdmissionID="V77", IssuerOfPatientID="Hospital A", PatientAge="066Y")

    results = write(chest.analysis(film), [film])

    assert list(results) == ["SEG 1", "OT 1", "SR 1"]
    for result in results.values():
        for keyword in COPIED.split():
            assert result[keyword].value == film[keyword].value, keyword
        assert result.SeriesInstanceUID != film.SeriesInstanceUID
        assert (result.Manufacturer, result.DeviceSerialNumber, result.StationName) == (
            "medgem-node",
            "node-1",
            "MEDGEM",
        )
        assert "InstitutionName" not in result
        assert result.ContributingEquipmentSequence[0].PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert "research use only" in result.SeriesDescription


def test_a_models_long_name_does_not_hide_what_the_results_are_for(write) -> None:
    film, name = chest.film(64, 48), "a-model-with-a-name-of-more-words-than-fit-into-a-description"
    card = replace(chest.CARD, name=name)

    for result in write(replace(chest.analysis(film), model=name), [film], card=card).values():
        assert result.SeriesDescription.endswith("(research use only)")
        assert len(result.SeriesDescription) <= 64


def test_a_patient_id_in_any_alphabet_is_one_patient_whoever_looked_at_it(write) -> None:
    films = [chest.film(64, 48, uid_seed=f"{k}", SpecificCharacterSet="ISO_IR 192", PatientID="患者7") for k in "ab"]
    first, second = map(as_sent, films)
    assert first.PatientID == "患者7"

    (report,) = measurement_report.create(chest.SOURCE).write(REFUSAL, [first, second], [], chest.uid)

    assert as_sent(report).PatientID == "患者7"


@pytest.mark.parametrize("films", [1, 2])
def test_a_second_run_writes_the_same_bytes(write, films: int) -> None:
    originals = [chest.film(72, 61, uid_seed=f"film {k}") for k in range(films)]
    analysis = chest.analysis(*originals)

    first = {name: as_bytes(result) for name, result in write(analysis, originals).items()}
    time.sleep(1.1)  # so that a clock would show
    second = {name: as_bytes(result) for name, result in write(analysis, originals).items()}

    assert first == second


def test_every_uid_is_derived_or_the_originals(write) -> None:
    film = chest.film(72, 64)
    roles = ["sr", "sr-series", "seg-1", "seg-series-1", "sc-1", "sc-series", "frame-of-reference-1"]
    roles += ["dimension-organization-1", *(f"tracking-{m}-1" for m in ("Right lung", "Left lung", "Heart"))]
    roles += ["tracking-Cardiac width-1", "tracking-Thoracic width-1"]
    known = {chest.uid(role) for role in roles} | {chest.CARD.device_uid}
    known |= {film.SOPInstanceUID, film.SeriesInstanceUID, film.StudyInstanceUID}

    for result in write(chest.analysis(film), [film]).values():
        found = {str(e.value) for e in result.iterall() if e.VR == "UI" and not UID(str(e.value)).is_transfer_syntax}
        assert {u for u in found if not u.startswith("1.2.840.10008.")} <= known


def test_times_are_the_given_one_in_the_originals_zone(write) -> None:
    at = datetime(2026, 3, 2, 23, 30, tzinfo=timezone(timedelta(hours=1)))
    tokyo, silent = chest.film(64, 48, TimezoneOffsetFromUTC="+0900"), chest.film(64, 48)

    there, here = (write(chest.analysis(film), [film], at)["SR 1"] for film in (tokyo, silent))

    assert (there.ContentDate, there.ContentTime, there.TimezoneOffsetFromUTC) == ("20260303", "073000", "+0900")
    assert (here.ContentDate, here.ContentTime) == ("20260302", "233000")
    assert "TimezoneOffsetFromUTC" not in here  # it would redate the study, whose zone nobody told
    assert here.ContributingEquipmentSequence[0].ContributionDateTime == "20260302233000+0100"


def test_loss_in_the_source_is_told_of_its_pictures(write) -> None:
    lossy = {"LossyImageCompressionRatio": "10", "LossyImageCompressionMethod": "ISO_10918_1"}
    film = chest.film(64, 48, LossyImageCompression="01", **lossy)

    results = write(chest.analysis(film), [film])

    assert results["SEG 1"].LossyImageCompression == results["OT 1"].LossyImageCompression == "01"
    assert "LossyImageCompression" not in results["SR 1"]


def _case(name: str) -> tuple[list[Dataset], Analysis]:
    if name in ("CT", "oblique CT", "MR"):
        slices = volume.study(6, 64, 56, modality=name[-2:], oblique=name.startswith("oblique"))
        return slices, volume.analysis(*slices)
    film, real = chest.film(), chest.real_film()
    analysis = {
        "synthetic DX": (film, chest.analysis(film)),
        "real CR": (real, chest.analysis(real, probability=0.12, ratio=0.43)),
        "refused": (film, REFUSAL),
        "broken": (real, not_analysed(chest.CARD.name, chest.CARD.version, "unreadable", "no pixels")),
    }
    return [analysis[name][0]], analysis[name][1]


def _saved(write, folder: Path, name: str) -> tuple[Path, Path]:
    originals, analysis = _case(name)
    results, sources = folder / "results", folder / "sources"
    results.mkdir()
    sources.mkdir()
    for k, original in enumerate(originals):
        original.save_as(sources / f"{k}.dcm", enforce_file_format=True)
    written = write(analysis, originals)
    for label, result in written.items():
        result.save_as(results / f"{label.replace(' ', '')}.dcm", enforce_file_format=True)
    made = [result for result in written.values() if result.Modality != "SR"]
    for variant in measurement_report.VARIANTS[1:]:
        (report,) = measurement_report.create(chest.SOURCE, variant).write(analysis, originals, made, chest.uid)
        report.save_as(results / f"{variant}.dcm", enforce_file_format=True)
    return results, sources


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed: run scripts/install-viewer")
@pytest.mark.parametrize("name", ["synthetic DX", "real CR", "refused", "broken", "CT", "oblique CT", "MR"])
def test_dciodvfy_finds_no_error(write, tmp_path: Path, name: str) -> None:
    results, _ = _saved(write, tmp_path, name)

    for path in results.iterdir():
        said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60)
        errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
        assert errors == [], path.name


@pytest.mark.acceptance
@pytest.mark.skipif(not CHECK_OBJECTS.exists(), reason="the team's validators are not on this machine")
@pytest.mark.parametrize("name", ["synthetic DX", "real CR", "refused", "broken", "CT", "oblique CT", "MR"])
def test_all_validators_find_no_error(write, tmp_path: Path, name: str) -> None:
    results, sources = _saved(write, tmp_path, name)

    said = subprocess.run([str(CHECK_OBJECTS), str(results), "--sources", str(sources)], capture_output=True, text=True)

    assert re.search(r"RESULT: PASS files=\d+ errors=0 .*missing_tools=0", said.stdout), said.stdout[-3000:]
