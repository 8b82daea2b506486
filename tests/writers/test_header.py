"""What results carry over from the original: the orders of the study, each object as its kind writes them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from harness import chest
from harness.chest import as_sent
from pydicom import Dataset


def _request(**attributes: str) -> Dataset:
    item = Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = "RP7", "SPS7"
    item.RequestedProcedureDescription = "Thorax p.a. für Äneas"
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def test_every_result_names_the_order_that_the_study_was_made_for(write) -> None:
    film = chest.film(64, 48, RequestAttributesSequence=[_request(AccessionNumber="ACC-2"), _request()])

    results = write(chest.analysis(film), [film])

    for name in ("SEG 1", "OT 1"):
        assert results[name].RequestAttributesSequence == as_sent(film).RequestAttributesSequence
    first, second = results["SR 1"].ReferencedRequestSequence
    assert (first.RequestedProcedureID, first.RequestedProcedureDescription) == ("RP7", "Thorax p.a. für Äneas")
    assert (first.AccessionNumber, second.AccessionNumber) == ("ACC-2", film.AccessionNumber)
    assert first.StudyInstanceUID == film.StudyInstanceUID
    assert (first.PlacerOrderNumberImagingServiceRequest, list(first.ReferencedStudySequence)) == ("", [])


def test_a_study_without_an_order_names_none(write) -> None:
    film = chest.film(64, 48)

    for result in write(chest.analysis(film), [film]).values():
        assert "RequestAttributesSequence" not in result
        assert not result.get("ReferencedRequestSequence")


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed: run scripts/install-viewer")
def test_dciodvfy_accepts_the_orders(write, tmp_path: Path) -> None:
    film = chest.film(64, 48, RequestAttributesSequence=[_request()])

    for name, result in write(chest.analysis(film), [film]).items():
        path = tmp_path / f"{name}.dcm"
        result.save_as(path, enforce_file_format=True)
        said = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60)
        assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []


def test_other_ids_that_were_emptied_are_not_carried_over(write) -> None:
    whole, emptied = Dataset(), Dataset()
    whole.PatientID, whole.TypeOfPatientID = "OTHER7", "TEXT"
    emptied.IssuerOfPatientID = "Hospital A"

    first = write(chest.analysis(film := chest.film(64, 48, OtherPatientIDsSequence=[whole, emptied])), [film])
    second = write(chest.analysis(film := chest.film(64, 48, OtherPatientIDsSequence=[emptied])), [film])

    assert [i.PatientID for i in first["SR 1"].OtherPatientIDsSequence] == ["OTHER7"]
    assert "OtherPatientIDsSequence" not in second["SR 1"]
