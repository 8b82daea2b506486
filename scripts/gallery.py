"""The pictures of docs/results.md: our objects in Orthanc, as the OHIF viewer shows them. Called by scripts/gallery.

The film is a real one of the package `pydicom-data` under an invented name; it goes through a running node and the
shipped model. The CT is drawn, and what is said of it comes from thresholds: no CT model is shipped yet.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import chest, ohif, pacs, volume
from PIL import Image
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from medgem_node import testing
from medgem_node.config import shipped
from medgem_node.dimse import scu
from medgem_node.publication import write_objects
from medgem_node.viewer_profile import read_profile

PROFILE = replace(read_profile(shipped("conf") / "profiles" / "ohif.toml"), instead={})
THRESHOLD = replace(chest.CARD, name="threshold", version="0.0.0", title="A threshold, not a model")
PICTURES = {"SR": "report", "SEG": "segments", "OT": "heatmap", "PM": "overlay"}
LOOKS = (("SR",), ("OT", "SEG"))  # each from anew: what is laid over an image stays when the next is opened


def main(folder: Path) -> int:
    """Write all pictures into `folder`; 0 only if the viewer showed all that was asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        with pacs.Orthanc(work / "orthanc") as orthanc, ohif.Viewer(1440, 860) as viewer:
            missing = _film(orthanc, viewer, work, folder) + _ct(orthanc, viewer, work, folder)
    for name in missing:
        print(f"  MISSING  {name}")
    return 1 if missing else 0


def _film(orthanc: pacs.Orthanc, viewer: ohif.Viewer, work: Path, folder: Path) -> list[str]:
    film = testing.real_film()
    study = str(film.StudyInstanceUID)
    orthanc.upload(film)
    url = f"dimse://{orthanc.aet}@127.0.0.1:{orthanc.dicom_port}"
    with testing.RunningNode(work / "node", {"PACS": url}, [f"results.profile={PROFILE.name}"]) as node:
        scu.store(node.peer, "MODALITY", [film])
        testing.wait_for(lambda: any(_reports(orthanc, study)), 240)
        node.stop()  # which delivers what is left first
    report = _reports(orthanc, study)[0]
    _html(report, work, folder)
    return _pictures(orthanc, viewer, study, work, folder / "film", LOOKS)


def _ct(orthanc: pacs.Orthanc, viewer: ohif.Viewer, work: Path, folder: Path) -> list[str]:
    study = chest.uid("gallery")
    slices = volume.study(32, 320, 400, spacing_mm=(2.5, 0.8, 0.8), uid_seed="gallery", StudyInstanceUID=study)
    analysis = replace(volume.analysis(*slices), model=THRESHOLD.name, version=THRESHOLD.version)
    source = replace(chest.SOURCE, card=THRESHOLD, region=PROFILE.region)
    results = [w.instance for w in write_objects(analysis, slices, source, chest.uid, PROFILE)]
    orthanc.upload(*slices, *results)
    key = analysis.findings[0].image
    drawn = [str(r.SOPInstanceUID) for r in results if key in _sources(r)]
    look = {"jump": "odule", "at": [*drawn, key]}
    return _pictures(orthanc, viewer, study, work, folder / "ct", (*LOOKS, ("PM",)), **look)


def _sources(result: Dataset) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in result.get("SourceImageSequence", ())]


def _reports(orthanc: pacs.Orthanc, study: str) -> list[Dataset]:
    return [i for i in orthanc.instances(study) if i.SOPClassUID == Comprehensive3DSRStorage]


def _pictures(
    orthanc: pacs.Orthanc,
    viewer: ohif.Viewer,
    study: str,
    work: Path,
    stem: Path,
    looks: Sequence[Sequence[str]],
    **look: Any,
) -> list[str]:
    missing = []
    for kinds in looks:
        out = work / stem.name / kinds[0]
        seen = viewer.look(orthanc.web_url, study, out, kinds, **look)
        missing += [f"{stem.name}: {what}" for what in seen.missing]
        for kind in kinds:
            if shot := seen.shots.get(kind):
                file = stem.with_name(f"{stem.name}-{PICTURES[kind]}.jpg")
                Image.open(shot.file).convert("RGB").save(file, quality=88, optimize=True)
                print(f"  {file}  {file.stat().st_size // 1024} kB", flush=True)
    return missing


def _html(report: Dataset, work: Path, folder: Path) -> None:
    """The report as dcmtk's dsr2html renders it, and a picture of that page."""
    path, page, shot = work / "report.dcm", folder / "report.html", work / "report.png"
    report.save_as(path, enforce_file_format=True)
    subprocess.run(["dsr2html", str(path), str(page)], check=True)
    chromium = str(shutil.which("chromium"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1500"]
    command = [chromium, *options, f"--screenshot={shot}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    Image.open(shot).convert("RGB").quantize(16).save(folder / "report.png", optimize=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/results")))
