"""The judgement of strangers: what other people's programs say of the objects that we write.

Each check returns the errors of one program, without those of `ALLOWED`. `missing` tells what is not installed
(scripts/install-viewer); a test skips with its words.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from harness.pacs import viewer_folder
from pydicom import Dataset, dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

ALLOWED = {
    "dsrdump": (
        r"W: Check for template constraints not yet supported",  # of dcmtk itself, for every template
        r"W: .*VR checker does not support",  # character sets of more than one byte
    ),
    "dicom-validator": (
        r"\(0018,1002\) \(Device UID\) is unexpected",  # of Contributing Equipment; younger than these tables
    ),
}


class Unread(Exception):
    """A program could not read an object at all."""


REPORTS = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)


def missing(*programs: str) -> str:
    """What is not installed, as a reason to skip; empty if all is there."""
    absent = [name for name in programs or PROGRAMS if not program(name)]
    if not absent and "validate_iods" in (programs or PROGRAMS) and not _standard().exists():
        absent = ["dicom-validator's standard"]
    return f"{', '.join(absent)} not installed: run scripts/install-viewer" if absent else ""


def judge(paths: Sequence[Path], sources: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Every error of every program that knows the object's kind, by program."""
    errors = {"dcentvfy": dcentvfy([*paths, *sources]), "dicom-validator": dicom_validator(paths)}
    with ThreadPoolExecutor(2) as pool:
        for path, found in zip(paths, pool.map(_judge, paths), strict=True):
            for program, error in found:
                errors.setdefault(program, []).append(f"{path.parent.name}/{path.name}: {error}")
    return {program: found for program, found in errors.items() if found}


def _judge(path: Path) -> list[tuple[str, str]]:
    of_kind = CHECKS.get(dcmread(path, stop_before_pixels=True).SOPClassUID, ())
    found = []
    for check in (dciodvfy, dcmdump, *of_kind, highdicom_reads):
        try:
            found += [(check.__name__, error) for error in check(path)]
        except (AttributeError, KeyError, TypeError, ValueError, Unread) as exc:
            found.append((check.__name__, f"{type(exc).__name__}: {exc}"))
    return found


def dciodvfy(path: Path) -> list[str]:
    """dicom3tools: attributes by IOD."""
    return _kept(
        "dciodvfy", (line for line in _run("dciodvfy", "-new", path)[1] if line.startswith(("Error", "Abort")))
    )


def dcentvfy(paths: Iterable[Path]) -> list[str]:
    """dicom3tools: that all instances say the same of their patient, study, series and equipment."""
    return _kept("dcentvfy", (line for line in _run("dcentvfy", *paths)[1] if line.startswith(("Error", "Abort"))))


def dicom_validator(paths: Sequence[Path]) -> list[str]:
    """dicom-validator (PyPI): attributes by IOD, by another's reading of the standard."""
    lines = _run("validate_iods", "-src", _standard(), "-e", "2020b", *paths)[1]
    errors, file, where = [], "", ""
    for line in map(str.strip, lines):
        if validated := re.match(r'Validating DICOM file "?([^"]*)', line):
            file = "/".join(Path(validated[1]).parts[-2:])
        elif line.startswith("Module ") or re.match(r"^\(.*\):$", line):
            where = line
        elif line.startswith("Tag (") or re.search(r"nknown SOPClassUID|Missing SOPClassUID|failed|Invalid", line):
            errors.append(f"{file}: {where} {line}")
    ran = sum("Validating DICOM file" in line for line in lines)
    return _kept("dicom-validator", errors) + ([] if ran >= len(paths) else [f"checked {ran} of {len(paths)} files"])


def dcmdump(path: Path) -> list[str]:
    """dcmtk: that the file parses without a word."""
    status, lines = _run("dcmdump", path, only_errors=True)
    return _kept("dcmdump", [*lines, *([] if status == 0 else [f"exit {status}"])])


def dsrdump(path: Path) -> list[str]:
    """dcmtk: the content tree, without a warning."""
    status, lines = _run("dsrdump", path, only_errors=True)
    return _kept("dsrdump", [*lines, *([] if status == 0 else [f"exit {status}"])])


def dsr2html(path: Path) -> list[str]:
    """dcmtk: the report as a page, without a warning."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        status, lines = _run("dsr2html", path, page, only_errors=True)
        written = page.read_text("utf-8", "replace") if page.exists() else ""
    whole = [] if status == 0 and "</html>" in written and len(written) > 500 else [f"exit {status}, no whole page"]
    return _kept("dsrdump", [*lines, *whole])


def dcmpschk(path: Path) -> list[str]:
    """dcmtk: a presentation state, by the reference implementation of them."""
    lines = _run("dcmpschk", path)[1]
    blocks = "\n".join(line.removeprefix("E: ").strip() for line in lines if line.startswith("E:")).split("Error: ")[1:]
    errors = ["; ".join(filter(None, block.splitlines())) for block in blocks]
    errors += [line for line in lines if line.startswith("W: ") and not line.startswith("W: Test")]
    done = any("Test passed" in line or "Test failed" in line for line in lines)
    return _kept("dcmpschk", errors) + ([] if done else ["did not finish"])


def dcm2pnm(path: Path) -> list[str]:
    """dcmtk: that the picture can be shown, and what it shows is not one shade."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.ppm"
        status, lines = _run("dcm2pnm", path, picture, only_errors=True)
        pixels = np.frombuffer(picture.read_bytes()[-4096:], np.uint8) if picture.exists() else np.zeros(1, np.uint8)
    return [*lines, *([] if status == 0 and np.ptp(pixels) else [f"exit {status}, nothing to see"])]


def tid1500reader(path: Path) -> list[str]:
    """dcmqi: that it reads as many groups as there are."""
    groups, there = len(measurements(path)), _groups(dcmread(path))
    return [] if groups == there else [f"read {groups} of {there} measurement groups"]


def segimage2itkimage(path: Path) -> list[str]:
    """dcmqi: that it reads every segment."""
    read, there = len(segments(path)), len(dcmread(path, stop_before_pixels=True).SegmentSequence)
    return [] if read == there else [f"read {read} of {there} segments"]


def paramap2itkimage(path: Path) -> list[str]:
    """dcmqi: that it reads the map."""
    return [] if np.isfinite(parametric_map(path).values).all() else ["values that are no numbers"]


def highdicom_reads(path: Path) -> list[str]:
    """highdicom: that its own class takes the object back, and finds as many groups, segments or references."""
    instance = dcmread(path)
    kind = instance.SOPClassUID
    if kind in REPORTS:
        content = highdicom.sr.srread(path).content
        read = (
            *content.get_planar_roi_measurement_groups(),
            *content.get_volumetric_roi_measurement_groups(),
            *content.get_image_measurement_groups(),
        )
        return [] if len(read) == _groups(instance) else [f"read {len(read)} of {_groups(instance)} groups"]
    if kind == SegmentationStorage:
        read = highdicom.seg.segread(path)
        return [] if read.number_of_segments == len(instance.SegmentSequence) else ["lost a segment"]
    if kind == ParametricMapStorage:
        highdicom.imread(path).get_frames()
    if kind == KeyObjectSelectionDocumentStorage:
        document = highdicom.ko.KeyObjectSelectionDocument.from_dataset(instance)
        for reference in document.content.get_references():
            document.resolve_reference(reference.referenced_sop_instance_uid)
    return []


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """What dcmqi gives back: (frames, rows, columns), and where it lies, mm in LPS.

    `origin` is the centre of the first voxel; `steps` lead from it along a row, a column, and to the next frame.
    """

    values: np.ndarray
    origin: np.ndarray
    steps: np.ndarray

    def frame_at(self, position: Sequence[float]) -> int | None:
        """The frame whose first voxel lies at a position; None if there is none."""
        step = self.steps[2]
        n = round(float((np.asarray(position) - self.origin) @ step / (step @ step)))
        apart = np.linalg.norm(self.origin + n * step - np.asarray(position))
        return n if apart < 1e-3 and 0 <= n < len(self.values) else None


def measurements(path: Path) -> list[dict[str, Any]]:
    """The groups of a report, as dcmqi reads them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        status, lines = _run("tid1500reader", "--inputDICOM", path, "--outputMetadata", out)
        if status or not out.exists():
            raise Unread(f"tid1500reader: exit {status}: {lines[-3:]}")
        return list(json.loads(out.read_text("utf-8")).get("Measurements") or [])


def segments(path: Path) -> dict[str, Volume]:
    """The segments by their labels, as dcmqi reads them."""
    whole = dcmread(path, stop_before_pixels=True).get("MaximumFractionalValue")
    with tempfile.TemporaryDirectory() as folder:
        options = ("--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd")
        status, lines = _run("segimage2itkimage", *options)
        if status or not (Path(folder) / "meta.json").exists():
            raise Unread(f"segimage2itkimage: exit {status}: {lines[-3:]}")
        told = json.loads((Path(folder) / "meta.json").read_text("utf-8"))["segmentAttributes"]
        found = {}
        for n, group in enumerate(told, 1):
            volume = _nrrd(Path(folder) / f"{n}.nrrd")
            for segment in group:  # marked by its label, or in a fractional segmentation by the fraction
                marked = volume.values == (whole or segment["labelID"])
                found[segment["SegmentLabel"]] = Volume(marked, volume.origin, volume.steps)
    return found


def parametric_map(path: Path) -> Volume:
    """The map, as dcmqi reads it."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd")
        status, lines = _run("paramap2itkimage", *options)
        found = sorted(Path(folder).glob("*.nrrd"))
        if status or not found:
            raise Unread(f"paramap2itkimage: exit {status}: {lines[-3:]}")
        return _nrrd(found[0])


def _nrrd(path: Path) -> Volume:
    """Nearly raw raster data, teem.sourceforge.net/nrrd/format.html: as much of it as dcmqi writes."""
    head, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    types = {"short": "<i2", "unsigned char": "u1", "float": "<f4", "double": "<f8", "unsigned short": "<u2"}
    values = np.frombuffer(gzip.decompress(data) if fields["encoding"] == "gzip" else data, types[fields["type"]])
    columns, rows, frames = (int(v) for v in fields["sizes"].split())
    vectors = [[float(v) for v in part.split(",")] for part in re.findall(r"\(([^)]*)\)", fields["space directions"])]
    origin = [float(v) for v in fields["space origin"].strip("()").split(",")]
    return Volume(values.reshape(frames, rows, columns), np.array(origin), np.array(vectors))


def _groups(report: Dataset) -> int:
    def named(item: Dataset, value: str) -> bool:
        names = item.get("ConceptNameCodeSequence") or ()
        return any(name.get("CodeValue") == value for name in names)

    boxes = [item for item in report.ContentSequence if named(item, "126010")]
    return sum(named(item, "125007") for box in boxes for item in box.get("ContentSequence", ()))


def _kept(program: str, errors: Iterable[str]) -> list[str]:
    return [e for e in errors if e.strip() and not any(re.search(known, e) for known in ALLOWED.get(program, ()))]


def program(name: str) -> str | None:
    """Where a program is: as scripts/install-viewer put it, else on PATH."""
    ours = viewer_folder() / "validators/bin" / name
    return str(ours) if ours.exists() else shutil.which(name)


def _standard() -> Path:
    return viewer_folder() / "validators/standard"


def _run(name: str, *options: object, only_errors: bool = False) -> tuple[int, list[str]]:
    path = program(name)
    assert path, missing(name)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([path, *map(str, options)], capture_output=True, timeout=300, env=environment)
    said = done.stderr if only_errors else done.stdout + b"\n" + done.stderr
    return done.returncode, said.decode("utf-8", "replace").splitlines()


PROGRAMS = (
    *("dciodvfy", "dcentvfy", "validate_iods", "dcmdump", "dsrdump", "dsr2html", "dcmpschk", "dcm2pnm"),
    *("tid1500reader", "segimage2itkimage", "paramap2itkimage"),
)
CHECKS = {
    **dict.fromkeys(REPORTS, (dsrdump, dsr2html, tid1500reader)),
    KeyObjectSelectionDocumentStorage: (dsrdump, dsr2html),
    SegmentationStorage: (segimage2itkimage,),
    ParametricMapStorage: (paramap2itkimage,),
    GrayscaleSoftcopyPresentationStateStorage: (dcmpschk,),
    SecondaryCaptureImageStorage: (dcm2pnm,),
}
