"""What a radiologist sees: our objects in a real PACS, shown by a real viewer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import chest, ohif, pacs
from pydicom import Dataset

from medgem_node.finding import Analysis, not_analysed
from medgem_node.writers import heatmap, measurement_report, segmentation

pytestmark = [
    pytest.mark.viewer,
    pytest.mark.skipif(bool(pacs.missing() or ohif.missing()), reason=pacs.missing() or ohif.missing()),
]


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[pacs.Orthanc]:
    with pacs.Orthanc(tmp_path / "orthanc") as running:
        yield running


def _results(analysis: Analysis, film: Dataset) -> list[Dataset]:
    made: list[Dataset] = []
    for module in (segmentation, heatmap, measurement_report):
        made.extend(module.create(chest.SOURCE).write(analysis, [film], made, chest.uid))
    return made


def test_the_viewer_shows_findings_segments_and_heatmap_of_a_film(orthanc: pacs.Orthanc, tmp_path: Path) -> None:
    film = chest.film(1024, 960)
    orthanc.upload(film, *_results(chest.analysis(film), film))

    seen = ohif.inspect(
        orthanc.web_url,
        film.StudyInstanceUID,
        tmp_path / "shots",
        min_measurements=5,
        min_segments=3,
        show=("OT", "SEG", "SR"),
    )

    assert seen["missing"] == []
    assert len(seen["measurements"]) == 5
    labels = {m["label"] for m in seen["measurements"]}
    assert "Cardiomegaly 71%, Cardiothoracic ratio 0.55" in labels
    segments = {s["label"] for seg in seen["segmentations"] for s in seg["segments"]}
    assert segments == {"Right lung", "Left lung", "Heart"}
    assert not seen["blockedRequests"]


def test_the_viewer_does_not_show_what_is_absent_as_found(orthanc: pacs.Orthanc, tmp_path: Path) -> None:
    film = chest.real_film()
    film.PixelSpacing = [0.2, 0.2]  # zero in the file, and OHIF shows nothing of an image with that
    orthanc.upload(film, *_results(chest.analysis(film, probability=0.12, ratio=0.43), film))

    seen = ohif.inspect(
        orthanc.web_url,
        film.StudyInstanceUID,
        tmp_path / "shots",
        min_measurements=5,
        min_segments=3,
        show=("OT", "SEG", "SR"),
    )

    assert seen["missing"] == []
    assert not any("Cardiomegaly" in str(m.get("finding")) for m in seen["measurements"])
    assert "No cardiomegaly by AI, Cardiothoracic ratio 0.43, probability of cardiomegaly 12%" in {
        m["label"] for m in seen["measurements"]
    }


def test_the_viewer_shows_why_nothing_was_analysed(orthanc: pacs.Orthanc, tmp_path: Path) -> None:
    film = chest.film()
    refusal = not_analysed(chest.CARD.name, chest.CARD.version, "lateral-view", "the image is a lateral view")
    orthanc.upload(film, *_results(refusal, film))

    seen = ohif.inspect(
        orthanc.web_url, film.StudyInstanceUID, tmp_path / "shots", min_measurements=1, min_segments=0, show=("SR",)
    )

    assert seen["missing"] == []
    assert [m["label"] for m in seen["measurements"]] == ["Not analysed: the image is a lateral view"]
    assert [m.get("finding") for m in seen["measurements"]] == ["DCM:111225:Not Attempted"]
