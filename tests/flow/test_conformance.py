"""Every kind of object that any viewer profile asks for, from radiographs and volumes, judged by strangers.

A profile that is added to conf/profiles, a writer and a variant join by themselves.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from harness import chest, validators, volume
from harness.chest import as_sent
from pydicom import Dataset, dcmread
from pydicom.uid import ParametricMapStorage, SegmentationStorage

from medgem_node import plug
from medgem_node.evidence import Source
from medgem_node.finding import Analysis, Mask, not_analysed
from medgem_node.geometry import frames, plane
from medgem_node.publication import write_objects
from medgem_node.viewer_profile import ViewerProfile, read_profile

ROOT = Path(__file__).parents[2]
CHECK_OBJECTS = Path("/work/shared/tools/viewer/check_objects.sh")

pytestmark = pytest.mark.skipif(bool(validators.missing()), reason=validators.missing())

Case = tuple[list[Dataset], Analysis]


def _of(*images: Dataset, **more: float) -> Case:
    of_volume = images[0].Modality in ("CT", "MR")
    return list(images), (volume.analysis if of_volume else chest.analysis)(*images, **more)


def _refused() -> Case:
    return [chest.film(256, 240)], not_analysed(
        chest.CARD.name, chest.CARD.version, "lateral-view", "the image is lateral"
    )


CASES: dict[str, Callable[[], Case]] = {
    "DX": lambda: _of(chest.film(256, 240)),
    "DX without a finding": lambda: _of(chest.film(256, 240), probability=0.12),
    "two DX": lambda: _of(chest.film(256, 240, uid_seed="a"), chest.film(200, 153, uid_seed="b", InstanceNumber=2)),
    "CR": lambda: _of(chest.real_film()),
    "CT": lambda: _of(*volume.study(6)),
    "oblique CT": lambda: _of(*volume.study(6, oblique=True)),
    "enhanced CT": lambda: _of(volume.enhanced(6)),
    "MR": lambda: _of(*volume.study(6, modality="MR")),
    "not analysed": _refused,
}


TOO_YOUNG = ("segmentation/labelmap",)
"""Of 2024: dicom3tools and dcmtk of 2022 and the tables of 2020 do not know its SOP class, nor reports that name it."""
IN_ALL_VARIANTS = ("DX", "oblique CT", "enhanced CT")
SHIPPED = tuple(read_profile(path) for path in sorted((ROOT / "conf/profiles").glob("*.toml")))


def _variants() -> Iterator[ViewerProfile]:
    """As many profiles as it takes to see each variant of each writer, and regions in space."""
    names = sorted(p.stem for p in (ROOT / "medgem_node/writers").glob("*.py") if p.stem != "__init__")
    names.sort(key=_late)
    known = {name: plug.load("writers", name).VARIANTS for name in names}
    variants = {name: [v for v in known[name] if f"{name}/{v}" not in TOO_YOUNG] for name in names}
    for k in range(max(map(len, variants.values()))):
        of_k = tuple(f"{name}/{v[min(k, len(v) - 1)]}" for name, v in variants.items())
        yield ViewerProfile(f"variant-{k + 1}", "", of_k)
    yield ViewerProfile("in-space", "", tuple(f"{name}/{v[0]}" for name, v in variants.items()), "scoord3d")


def _late(name: str) -> int:
    """Reports after what they refer to, the selection of all last."""
    return {"measurement_report": 1, "key_objects": 2}.get(name, 0)


VARIANTS = tuple(_variants())


@dataclass(frozen=True, slots=True)
class Written:
    """The objects of all profiles and the images they were made from, as files."""

    analysis: Analysis
    originals: list[Dataset]
    objects: list[Path]
    sources: list[Path]

    def of_class(self, *sop_class_uids: str) -> list[Path]:
        return [p for p in self.objects if dcmread(p, stop_before_pixels=True).SOPClassUID in sop_class_uids]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Written]:
    """What all profiles make of a case, under UIDs of their own, so that nothing is the same object twice."""
    made: dict[str, Written] = {}

    def write(case: str) -> Written:
        if case not in made:
            folder = tmp_path_factory.mktemp(re.sub(r"\W", "-", case))
            originals, analysis = CASES[case]()
            profiles = SHIPPED + VARIANTS if case in IN_ALL_VARIANTS else SHIPPED
            objects = [p for profile in profiles for p in _saved(folder, originals, analysis, profile)]
            (folder / "sources").mkdir()
            sources = [folder / f"sources/{n}.dcm" for n in range(len(originals))]
            for path, original in zip(sources, originals, strict=True):
                original.save_as(path, enforce_file_format=True)
            made[case] = Written(analysis, originals, objects, sources)
        return made[case]

    return write


def _saved(folder: Path, originals: list[Dataset], analysis: Analysis, profile: ViewerProfile) -> Iterator[Path]:
    source = Source(chest.CARD, chest.STATION, chest.AT, profile.region)
    sent = [as_sent(original) for original in originals]
    made = write_objects(analysis, sent, source, lambda role: chest.uid(f"{profile.name} {role}"), profile)
    assert made, f"{profile.name} leaves a study without an answer"
    (folder / "objects" / profile.name).mkdir(parents=True)
    for n, thing in enumerate(made):
        path = folder / "objects" / profile.name / f"{n}-{thing.kind.replace('/', '-')}.dcm"
        thing.instance.save_as(path, enforce_file_format=True)
        yield path


cases = pytest.mark.parametrize("case", CASES)


@cases
def test_no_stranger_finds_an_error(written: Callable[[str], Written], case: str) -> None:
    found = written(case)

    assert validators.judge(found.objects, found.sources) == {}


@cases
def test_dcmqi_gives_back_the_written_numbers(written: Callable[[str], Written], case: str) -> None:
    found = written(case)
    expected = {("122157", "%", round(100 * f.probability, 1)) for f in found.analysis.findings}
    of_findings = [m for f in found.analysis.findings for m in f.measurements]
    expected |= {(m.code.value, m.unit.value, round(m.value, 3)) for m in (*of_findings, *found.analysis.measurements)}

    for report in found.of_class(*validators.REPORTS):
        items = [item for group in validators.measurements(report) for item in group.get("measurementItems", ())]
        read = {(i["quantity"]["CodeValue"], i["units"]["CodeValue"], round(float(i["value"]), 3)) for i in items}
        assert read == expected


@cases
def test_dcmqi_gives_back_the_written_masks(written: Callable[[str], Written], case: str) -> None:
    found = written(case)

    for path in found.of_class(SegmentationStorage):
        of_images, read = _sources(dcmread(path)), validators.segments(path)
        voxels = dict.fromkeys((mask.label for mask in found.analysis.masks), 0)
        for mask in found.analysis.masks:
            for original, frame, pixels in _planes(found.originals, mask, of_images):
                there = _frame(read.get(mask.label), original, frame)
                assert np.array_equal(pixels, there if there is not None else np.zeros_like(pixels)), path.parent.name
                voxels[mask.label] += int(pixels.sum())
        assert {k: n for k, n in voxels.items() if n} == {k: int(v.values.sum()) for k, v in read.items()}


@cases
def test_dcmqi_gives_back_the_written_maps(written: Callable[[str], Written], case: str) -> None:
    for path in written(case).of_class(ParametricMapStorage):
        stored, read = dcmread(path), validators.parametric_map(path)
        pixels = np.frombuffer(stored.FloatPixelData, "<f4").reshape(-1, stored.Rows, stored.Columns)

        assert len(read.values) == len(pixels)
        for n, group in enumerate(stored.PerFrameFunctionalGroupsSequence):
            k = read.frame_at(group.PlanePositionSequence[0].ImagePositionPatient)
            assert k is not None
            assert np.array_equal(read.values[k], pixels[n])


def _sources(made: Dataset) -> set[str]:
    return {i.ReferencedSOPInstanceUID for s in made.ReferencedSeriesSequence for i in s.ReferencedInstanceSequence}


def _planes(originals: list[Dataset], mask: Mask, of_images: set[str]) -> Iterator[tuple[Dataset, int, np.ndarray]]:
    """The frames that a mask speaks of."""
    for original in originals:
        image = str(original.SOPInstanceUID)
        for frame in range(1, frames(original) + 1) if image in of_images else ():
            if (pixels := mask.plane(image, frame)) is not None:
                yield original, frame, pixels


def _frame(read: validators.Volume | None, original: Dataset, frame: int) -> np.ndarray | None:
    """What was read at the place of a frame of the original, whose rows and columns it shares."""
    if read is None:
        return None
    place = plane(original, frame)
    n = read.frame_at(place.position_mm if place else (0, 0, 0))
    if n is not None and place is not None:
        rows_mm, columns_mm = place.spacing_mm
        along = np.outer(columns_mm, place.across), np.outer(rows_mm, place.down)
        assert np.allclose(read.steps[:2], np.concatenate(along), atol=1e-4)
    return None if n is None else read.values[n]


FAULTS: dict[str, tuple[str, Callable[[Dataset], object]]] = {
    "dciodvfy": ("OT", lambda ds: ds.__delattr__("ConversionType")),
    "dcentvfy": ("OT", lambda ds: setattr(ds, "PatientBirthDate", "19010101")),
    "dicom-validator": ("SEG", lambda ds: ds.__delattr__("SegmentSequence")),
    "dsrdump": ("SR", lambda ds: ds.ContentSequence[-1].__delattr__("ValueType")),
    "dsr2html": ("KO", lambda ds: ds.ContentSequence[0].__delattr__("RelationshipType")),
    "dcmpschk": ("PR", lambda ds: ds.DisplayedAreaSelectionSequence[0].__delattr__("PresentationSizeMode")),
    "dcm2pnm": ("OT", lambda ds: setattr(ds, "PixelData", bytes(len(ds.PixelData)))),
    "tid1500reader": ("SR", lambda ds: ds.ContentSequence[-1].__delattr__("ValueType")),
}


@pytest.mark.parametrize("program", FAULTS)
def test_each_stranger_finds_a_fault_that_was_planted(
    written: Callable[[str], Written], tmp_path: Path, program: str
) -> None:
    modality, spoil = FAULTS[program]
    found = [p for p in written("DX").objects if p.parent.name == "variant-1"]
    path = next(p for p in found if dcmread(p, stop_before_pixels=True).Modality == modality)
    instance = dcmread(path)

    spoil(instance)
    instance.save_as(tmp_path / "spoilt.dcm")

    others = [p for p in found if p != path]
    assert validators.judge([tmp_path / "spoilt.dcm"], others).get(program)


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not CHECK_OBJECTS.exists(), reason="the team's validators are not on this machine")
@pytest.mark.parametrize("case", ["DX", "CR", "CT", "enhanced CT", "MR", "not analysed"])
def test_the_teams_validators_find_no_error(written: Callable[[str], Written], tmp_path: Path, case: str) -> None:
    """Those of above and PixelMed's, which takes ten seconds for a report: the shipped profiles in one folder."""
    found, told, folder = written(case), tmp_path / "told.json", tmp_path / "objects"
    sources = found.sources[0].parent
    for path in found.objects:
        if path.parent.name in {profile.name for profile in SHIPPED}:
            (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / path.parent.name)

    command = [str(CHECK_OBJECTS), str(folder), "--sources", str(sources), "-q", "--json", str(told)]
    done = subprocess.run(command, capture_output=True, text=True)

    said = json.loads(told.read_text("utf-8"))
    known = [pattern for patterns in validators.ALLOWED.values() for pattern in patterns]
    errors = [r for r in said if r["level"] == "error" and not any(re.search(k, r["message"]) for k in known)]
    assert errors == [], done.stdout[-3000:]
