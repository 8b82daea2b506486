"""The whole hospital: dcmtk's storescu as modality, our node in its own processes, Orthanc as PACS, OHIF as viewer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import ohif, pacs
from pydicom import Dataset

from medgem_node import testing
from medgem_node.testing import RunningNode, wait_for

SHARED = Path(__file__).resolve().parents[3] / "shared" / "tools" / "viewer" / "check_objects.sh"

pytestmark = [
    pytest.mark.viewer,
    pytest.mark.skipif(bool(pacs.missing()), reason=pacs.missing() or "-"),
    pytest.mark.skipif(not shutil.which("storescu"), reason="dcmtk is not installed: run scripts/install-viewer"),
]


@pytest.fixture
def film() -> Dataset:
    """The bundled film, with a pixel spacing as a real one has."""
    film = testing.real_film()
    film.PixelSpacing = film.ImagerPixelSpacing = [0.2, 0.2]
    return film


def sent_through(film: Dataset, orthanc: pacs.Orthanc, folder: Path) -> list[Dataset]:
    """What Orthanc holds of the study after the modality sent `film` to Orthanc and to the node."""
    film.save_as(folder / "film.dcm", enforce_file_format=True)
    url = f"dimse://{orthanc.aet}@127.0.0.1:{orthanc.dicom_port}"
    with RunningNode(folder / "node", {"PACS": url}) as node:
        for title, port in ((orthanc.aet, orthanc.dicom_port), ("MEDGEM", node.port)):
            command = ["storescu", "-aec", title, "127.0.0.1", str(port), str(folder / "film.dcm")]
            subprocess.run(command, check=True, timeout=60, env={**os.environ, "TCP_NODELAY": "1"})
        wait_for(lambda: orthanc.rest("/statistics")["CountInstances"] >= 4, 120)
    return orthanc.instances(film.StudyInstanceUID)


def test_a_film_sent_by_a_modality_is_seen_with_its_results_in_the_viewer(film: Dataset, tmp_path: Path) -> None:
    if ohif.missing():
        pytest.skip(ohif.missing())
    with pacs.Orthanc(tmp_path / "orthanc") as orthanc:
        held = sent_through(film, orthanc, tmp_path)
        assert sorted(d.Modality for d in held) == ["CR", "OT", "SEG", "SR"]
        assert {(str(d.PatientName), d.PatientID) for d in held} == {("Invented^Ida", "DEMO-4711")}

        with ohif.Viewer() as viewer:
            seen = viewer.look(orthanc.web_url, film.StudyInstanceUID, tmp_path / "shots")

    assert seen.missing == []
    assert seen.measurements
    assert set(seen.segments) == {"Right lung", "Left lung", "Heart"}


@pytest.mark.skipif(not SHARED.exists(), reason="the acceptance tools of ../shared are not there")
def test_independent_validators_find_no_error_in_the_results(film: Dataset, tmp_path: Path) -> None:
    with pacs.Orthanc(tmp_path / "orthanc") as orthanc:
        held = sent_through(film, orthanc, tmp_path)
    for folder in ("results", "sources"):
        (tmp_path / folder).mkdir()
    for instance in held:
        folder = tmp_path / ("sources" if instance.Modality == "CR" else "results")
        instance.save_as(folder / f"{instance.Modality}.dcm", enforce_file_format=True)

    command = [str(SHARED), str(tmp_path / "results"), "--sources", str(tmp_path / "sources")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)

    assert "RESULT: PASS" in done.stdout, done.stdout[-4000:]
