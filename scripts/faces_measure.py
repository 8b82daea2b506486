"""Measure the removal of faces on heads that packages of PyPI ship, in many poses; and its cost.

In a venv of its own, never the product's (the heads are those of pydeface, pyradiomics' source and nilearn):

    python -m venv V && V/bin/pip install SimpleITK scipy pydicom nilearn && V/bin/pip install --no-deps pydeface
    V/bin/pip install setuptools wheel versioneer cmake scikit-build
    V/bin/pip download --no-deps --no-binary :all: --no-build-isolation pyradiomics==3.0.1
    tar xzf pyradiomics-3.0.1.tar.gz
    PYTHONPATH=. V/bin/python scripts/faces_measure.py V/lib/python3.11/site-packages pyradiomics-3.0.1/data
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "deid"))

from head_phantom import Pose, Scan, encoded, image_of, series

from medgem_node.deid.faces import face_masks
from medgem_node.errors import CannotDeidentify


@dataclass(frozen=True)
class Subject:
    """A head (z, y, x) in LPS with the truth: brain by registration with MNI, face by pydeface's mask."""

    name: str
    values: NDArray[np.float32]
    brain: NDArray[np.bool_]
    face: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]


def main(packages: Path, radiomics: Path) -> None:
    """Prints one line of a Markdown table for each head and pose."""
    print(
        "| head | pose | brain pixels changed | face skin blanked | head blanked | CPU s |\n|---|---|---|---|---|---|"
    )
    for subject in subjects(packages, radiomics):
        for pose, degrees, top_mm, every in (
            ("as it is", 0, 0, 1), ("chin 20° up", -20, 0, 1), ("chin 20° down", 20, 0, 1),
            ("30 mm of the vertex cut off", 0, 30, 1), ("every 5th slice", 0, 0, 5),
        ):  # fmt: skip
            if subject.spacing_mm[2] > 3 and every > 1:
                continue
            report(subject, pose, degrees, top_mm, every)
    phantoms()
    large()


def report(subject: Subject, pose: str, degrees: float, top_mm: float, every: int) -> None:
    """One line: the patient turned about his left-right axis by turning the images' geometry."""
    count = len(subject.values) - int(top_mm / subject.spacing_mm[2])
    kept = range(0, count, every)
    a = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    images = []
    for number, k in enumerate(kept, 1):
        position = turn @ (np.array(subject.origin_mm) + np.array([0, 0, k * subject.spacing_mm[2]]))
        scan = Scan("MR", pixel_mm=subject.spacing_mm[0], slice_mm=subject.spacing_mm[2] * every)
        images.append(image_of(scan, number, position, turn[:, 0], turn[:, 1], subject.values[k]))
    _line(subject.name, pose, images, subject.brain[kept], subject.face[kept], subject.values[kept] > 100)


def phantoms() -> None:
    """The invented head in CT and MR, in poses."""
    poses = {
        "as it is": Pose(), "chin 20° up": Pose(pitch=-20), "chin 20° down": Pose(pitch=20),
        "turned 25°": Pose(yaw=25), "tilted 15°": Pose(roll=15), "a child's (0.75)": Pose(size=0.75),
    }  # fmt: skip
    scans = {"CT": Scan(), "MR T1": Scan("MR", noise=15), "MR T2": Scan("MR", noise=15, contrast="T2")}
    more = {
        "prone": Scan(prone=True), "5 mm": Scan(slice_mm=5.0, pixel_mm=1.0), "gantry 18°": Scan(gantry_degrees=18),
        "vertex and 25 mm cut off": Scan(high_mm=73), "sinus (top 60 mm cut off)": Scan(high_mm=38),
        "without the chin": Scan(low_mm=-60), "noise of 40 HU": Scan(noise=40),
    }  # fmt: skip
    for name, scan in scans.items():
        for pose, how in poses.items():
            _phantom(name, pose, scan, how)
    for pose, scan in more.items():
        _phantom("CT", pose, scan, Pose())
    _phantom("MR T1", "sagittal", Scan("MR", "sagittal", noise=15), Pose())
    _phantom("MR T1", "coronal, chin 20° up", Scan("MR", "coronal", noise=15), Pose(pitch=-20))
    _phantom("MR fat-saturated", "chin 20° down", Scan("MR", noise=15, contrast="fat-saturated"), Pose(pitch=20))


def large() -> None:
    """512 x 512 x 300: the phantom's pixels repeated."""
    images, _ = series(Scan(pixel_mm=2.0, slice_mm=262 / 300, width_mm=256.0))
    for image in images:
        pixels = np.frombuffer(image.PixelData, "<u2").reshape(image.Rows, image.Columns).repeat(4, 0).repeat(4, 1)
        image.PixelData, image.PixelSpacing = pixels.tobytes(), [0.5, 0.5]
        image.Rows, image.Columns = pixels.shape
    data = encoded(images)
    del images
    start = time.process_time()
    face_masks(data)
    seconds = time.process_time() - start
    tracemalloc.start()
    masks = face_masks(data)
    peak = tracemalloc.get_traced_memory()[1] >> 20
    held = sum(m.nbytes for m in masks.values()) >> 20
    print(
        f"\n512 x 512 x {len(data)} CT: {seconds:.1f} s CPU; {peak} MB at most beside the files, {held} MB of it masks"
    )


def subjects(packages: Path, radiomics: Path) -> list[Subject]:
    """pydeface's mean T1 of many heads, and two patients of pyradiomics (T1 with contrast medium, 6.5 mm)."""
    template = _read(packages / "pydeface/data/mean_reg2mean.nii.gz")
    kept = _read(packages / "pydeface/data/facemask.nii.gz")
    mni = _read(packages / "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    fixed = mni > 0  # with a margin the head's edge wins
    start = sitk.Similarity3DTransform(sitk.CenteredTransformInitializer(mni, template, sitk.Similarity3DTransform()))
    to_template = _registered(mni, template, _affine(start), (4, 2), fixed).GetInverse()
    brain = sitk.Resample(mni > 0, template, to_template, sitk.sitkNearestNeighbor, 0)
    face = sitk.Resample(kept < 0.5, template, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    found = [_subject("pydeface's mean T1", template, brain, face)]
    for name in ("brain1", "brain2"):
        head = _read(radiomics / f"{name}_image.nrrd")
        values = sitk.GetArrayFromImage(head)
        dull = sitk.Clamp(head, upperBound=float(np.percentile(values, 97)))
        moments = sitk.CenteredTransformInitializerFilter.MOMENTS
        start = sitk.CenteredTransformInitializer(dull, template, sitk.Similarity3DTransform(), moments)
        rigid = _registered(dull, template, sitk.Similarity3DTransform(start), (2, 1), None)
        back = _registered(dull, template, _affine(rigid), (2, 1), None)
        truth = [sitk.Resample(m, head, back, sitk.sitkNearestNeighbor, 0) for m in (brain, face)]
        found.append(_subject(f"pyradiomics {name}", head, *truth))
    return found


def _phantom(name: str, pose: str, scan: Scan, how: Pose) -> None:
    images, truths = series(scan, how)
    brain, face, head = (np.stack([getattr(t, part) for t in truths]) for part in ("brain", "face", "head"))
    _line(f"phantom, {name}", pose, images, brain, face, head)


def _line(
    name: str,
    pose: str,
    images: list[Dataset],
    brain: NDArray[np.bool_],
    face: NDArray[np.bool_],
    head: NDArray[np.bool_],
) -> None:
    start = time.process_time()
    try:
        masks = face_masks(encoded(images))
    except CannotDeidentify as exc:
        print(f"| {name} | {pose} | held: {exc} | | | |")
        return
    seconds = time.process_time() - start
    mask = np.stack([masks[str(image.SOPInstanceUID)] for image in images])
    print(
        f"| {name} | {pose} | {int((mask & brain).sum())} of {int(brain.sum())} | "
        f"{(mask & face).sum() / face.sum():.1%} | {(mask & head).sum() / head.sum():.1%} | {seconds:.1f} |"
    )


def _subject(name: str, head: sitk.Image, brain: sitk.Image, face: sitk.Image) -> Subject:
    values = sitk.GetArrayFromImage(head)
    values = (values / values.max() * 4000).astype(np.float32)
    tissue = ndimage.binary_fill_holes(ndimage.binary_opening(values > 250, iterations=2))
    steps = tuple(max(1, round(4.0 / s)) for s in head.GetSpacing()[:2])
    inner = ndimage.binary_erosion(tissue, np.ones((1, 2 * steps[1] + 1, 2 * steps[0] + 1)), border_value=1)
    skin = tissue & ~inner & (sitk.GetArrayFromImage(face) > 0)
    return Subject(name, values, sitk.GetArrayFromImage(brain) > 0, skin, head.GetSpacing(), head.GetOrigin())


def _read(path: Path) -> sitk.Image:
    return sitk.DICOMOrient(sitk.ReadImage(str(path), sitk.sitkFloat32), "LPS")


def _affine(similarity: sitk.Similarity3DTransform) -> sitk.AffineTransform:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(similarity.GetMatrix())
    affine.SetTranslation(similarity.GetTranslation())
    affine.SetCenter(similarity.GetCenter())
    return affine


def _registered(
    fixed: sitk.Image, moving: sitk.Image, start: sitk.Transform, shrink: tuple[int, int], where: sitk.Image | None
) -> sitk.Transform:
    """`start`, moved until mutual information is largest."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(40)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.15, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-4, 400)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(list(shrink))
    method.SetSmoothingSigmasPerLevel([3, 1])
    if where is not None:
        method.SetMetricFixedMask(where)
    method.SetInitialTransform(start, True)
    method.Execute(fixed, moving)
    return start


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
