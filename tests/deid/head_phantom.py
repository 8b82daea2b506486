"""An invented head: ellipsoids for skull, brain, eyes, nose, lips, chin, ears and neck, imaged as CT or MR.

Lengths are mm. Head coordinates are the patient's (x to the left, y to the back, z to the vertex) from the middle of
the brain; proportions are an adult's (head 188 mm long, 148 wide). Nobody's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from medgem_node import part10

AIR, FAT, SOFT, BONE, GREY, WHITE, CSF, EYE, PLASTIC = range(9)
_HU = np.array([-1000, -90, 45, 950, 38, 30, 8, 15, 120], np.float32)
_MR = {
    "T1": np.array([0, 620, 260, 40, 330, 450, 90, 110, 0], np.float32),
    "T2": np.array([0, 420, 130, 30, 330, 240, 900, 950, 0], np.float32),
    "fat-saturated": np.array([0, 90, 200, 30, 330, 240, 900, 950, 0], np.float32),
}
Points = NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """How the head lies: degrees nodded (chin down is positive), turned to the left, tilted; and how large it is."""

    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    size: float = 1.0
    shift_mm: tuple[float, float, float] = (3.0, -5.0, 12.0)

    def to_head(self, points: Points) -> Points:
        a, b, c = np.radians([self.pitch, self.yaw, self.roll])
        nod = [[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]]
        turn = [[np.cos(b), np.sin(b), 0], [-np.sin(b), np.cos(b), 0], [0, 0, 1]]
        tilt = [[np.cos(c), 0, np.sin(c)], [0, 1, 0], [-np.sin(c), 0, np.cos(c)]]
        found: Points = ((points - np.float32(self.shift_mm)) @ np.float32(np.array(nod) @ turn @ tilt).T) / self.size
        return found


@dataclass(frozen=True)
class Scan:
    """How it is imaged: plane, in-plane and between-slice spacing, and what of z is covered (patient, mm)."""

    modality: str = "CT"
    plane: str = "axial"
    pixel_mm: float = 2.0
    slice_mm: float = 2.5
    low_mm: float = -150.0
    high_mm: float = 112.0
    prone: bool = False
    noise: float = 0.0
    contrast: str = "T1"  # of MR
    body_part: str = "HEAD"
    gantry_degrees: float = 0.0
    depth_mm: float = 204.0  # of a sagittal stack
    width_mm: float = 204.0  # right to left

    def frames(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int, int]:
        """Positions of the first pixels, directions across and down, rows, columns."""
        length, width = int(256 / self.pixel_mm), int(self.width_mm / self.pixel_mm)
        left = self.width_mm / 2
        height = int((self.high_mm - self.low_mm) / self.pixel_mm)
        if self.plane == "axial":
            sign = -1.0 if self.prone else 1.0
            across, down = np.array([sign, 0, 0]), np.array([0, sign, 0])
            z = np.arange(self.low_mm, self.high_mm, self.slice_mm)
            positions = np.stack([np.full(len(z), -left * sign), np.full(len(z), -128.0 * sign), z], axis=1)
            if self.gantry_degrees:
                t = np.radians(self.gantry_degrees)
                down = np.array([0, sign * np.cos(t), sign * np.sin(t)])
            return positions, across, down, length, width
        reach = self.depth_mm / 2 if self.plane == "sagittal" else 128.0
        steps = np.arange(-reach, reach, self.slice_mm)
        n = len(steps)
        down = np.array([0, 0, -1.0])
        if self.plane == "sagittal":
            positions = np.stack([steps, np.full(n, -128.0), np.full(n, self.high_mm)], axis=1)
            return positions, np.array([0, 1.0, 0]), down, height, length
        positions = np.stack([np.full(n, -left), steps, np.full(n, self.high_mm)], axis=1)
        return positions, np.array([1.0, 0, 0]), down, height, width


def tissue(p: Points, table_y: float | None = None, patient: Points | None = None) -> NDArray[np.uint8]:
    """What lies at points of the head."""
    x, y, z = np.abs(p[..., 0]), p[..., 1], p[..., 2]
    found = np.full(x.shape, AIR, np.uint8)
    if table_y is not None and patient is not None:
        found[np.abs(patient[..., 1] - table_y) < 4] = PLASTIC
    skin, inner = _skin(x, y, z, 0.0), _skin(x, y, z, 4.0)
    found[skin] = FAT
    found[inner] = SOFT
    found[_in(x, y, z, (0, 8, 0), (68, 88, 80)) & (z > _base(y) - 8)] = BONE
    found[_in(x, y, z, (0, -40, -95), (46, 40, 24)) & ~_in(x, y, z, (0, -34, -92), (36, 32, 22))] = BONE  # jaw
    found[_in(x, y, z, (28, -60, -60), (17, 20, 18))] = BONE
    found[_in(x, y, z, (28, -58, -60), (14, 16, 15))] = AIR  # antrum
    found[(x < 12) & (y > -80) & (y < -25) & (z > -76) & (z < -38)] = AIR  # nose
    found[_in(x, y, z, (5, -96, -66), (3, 16, 4))] = AIR  # nostril
    found[_in(x, y, z, (32, -66, -36), (20, 22, 18))] = FAT  # orbit
    found[_in(x, y, z, (32, -73, -36), (12, 12, 12))] = EYE
    found[(x**2 + (y - 38) ** 2 < 14**2) & (z < -66) & skin] = BONE  # spine
    found[_in(x, y, z, (0, 8, 0), (62, 82, 74)) & (z > _base(y))] = CSF
    brain = in_brain(p)
    folds = np.sin(0.28 * x) * np.sin(0.25 * y + 1) * np.sin(0.27 * z) > 0.1
    found[brain] = np.where(folds[brain], WHITE, GREY)
    found[brain & _in(x, y, z, (12, 5, 10), (8, 30, 9))] = CSF  # ventricles
    return found


def in_brain(p: Points) -> NDArray[np.bool_]:
    """The truth: within 2.5 mm of the inner table."""
    x, y, z = np.abs(p[..., 0]), p[..., 1], p[..., 2]
    cerebrum = _in(x, y, z, (0, 8, 0), (59.5, 79.5, 71.5)) & (z > _base(y) + 2.5)
    stem = (x**2 + (y - 22) ** 2 < 9**2) & (z > -85) & (z < -40)
    return cerebrum | stem


def in_head(p: Points) -> NDArray[np.bool_]:
    """The head, with what air lies in it."""
    return _skin(np.abs(p[..., 0]), p[..., 1], p[..., 2], 0.0)


def in_face(p: Points) -> NDArray[np.bool_]:
    """The outer 4 mm of what is recognised: brows to chin, before the ears."""
    x, y, z = np.abs(p[..., 0]), p[..., 1], p[..., 2]
    skin = _skin(x, y, z, 0.0) & ~_skin(x, y, z, 4.0)
    face: NDArray[np.bool_] = skin & (y < -45) & (z < -22) & (z > -126)
    return face


@dataclass(frozen=True)
class Truth:
    """Of one image: where brain, skin of the face and head are."""

    brain: NDArray[np.bool_]
    face: NDArray[np.bool_]
    head: NDArray[np.bool_]


def series(scan: Scan, pose: Pose | None = None, seed: int = 0) -> tuple[list[Dataset], list[Truth]]:
    """Images and the truth of each."""
    pose = pose or Pose()
    positions, across, down, rows, columns = scan.frames()
    grid = np.arange(rows)[:, None, None] * down * scan.pixel_mm + np.arange(columns)[:, None] * across * scan.pixel_mm
    rng = np.random.default_rng(seed)
    images, truths = [], []
    for number, position in enumerate(positions, 1):
        points = np.float32(grid + position)
        head = pose.to_head(points)
        table = (-118.0 if scan.prone else 112.0) if scan.modality == "CT" else None
        values = (_HU if scan.modality == "CT" else _MR[scan.contrast])[tissue(head, table, points)]
        if scan.noise:
            values = values + rng.normal(0, scan.noise, values.shape)
            values = np.abs(values + 1j * rng.normal(0, scan.noise, values.shape)) if scan.modality == "MR" else values
        images.append(image_of(scan, number, position, across, down, values))
        truths.append(Truth(in_brain(head), in_face(head), in_head(head)))
    return images, truths


def encoded(images: list[Dataset]) -> list[bytes]:
    """The images as Part 10 files."""
    return [part10.encode(image) for image in images]


def enhanced(images: list[Dataset]) -> Dataset:
    """The same as one multi-frame MR image."""
    whole = Dataset()
    whole.update(images[0])
    whole.file_meta = images[0].file_meta
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    whole.NumberOfFrames = len(images)
    whole.PerFrameFunctionalGroupsSequence = []
    for image in images:
        group, position, orientation, measures = (Dataset() for _ in range(4))
        position.ImagePositionPatient, orientation.ImageOrientationPatient = (
            image.ImagePositionPatient,
            image.ImageOrientationPatient,
        )
        measures.PixelSpacing = image.PixelSpacing
        group.PlanePositionSequence, group.PlaneOrientationSequence = [position], [orientation]
        group.PixelMeasuresSequence = [measures]
        whole.PerFrameFunctionalGroupsSequence.append(group)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(whole, keyword)
    whole.PixelData = b"".join(image.PixelData for image in images)
    return whole


def image_of(
    scan: Scan,
    number: int,
    position: NDArray[np.float64],
    across: NDArray[np.float64],
    down: NDArray[np.float64],
    values: NDArray[np.float32],
) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    is_ct = scan.modality == "CT"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CTImageStorage if is_ct else MRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"2.25.7100{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "2.25.71", "2.25.710", "2.25.711"
    ds.Modality, ds.BodyPartExamined, ds.ImageType = scan.modality, scan.body_part, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.PatientName, ds.PatientID, ds.InstanceNumber = "Nobody^Head", "HEAD-1", number
    ds.ImagePositionPatient = [f"{v:.4f}" for v in position]
    ds.ImageOrientationPatient = [f"{v:.8f}" for v in (*across, *down)]
    ds.PixelSpacing, ds.SliceThickness = [scan.pixel_mm] * 2, scan.slice_mm
    ds.Rows, ds.Columns = values.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    if is_ct:
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.PixelData = np.clip(np.rint(values + (1024 if is_ct else 0)), 0, 4095).astype("<u2").tobytes()
    return ds


def _skin(x: Points, y: Points, z: Points, depth: float) -> NDArray[np.bool_]:
    """The head without its outer millimetres."""

    def part(centre: tuple[float, float, float], axes: tuple[float, float, float]) -> NDArray[np.bool_]:
        a, b, c = (max(axis - depth, 1.0) for axis in axes)
        return _in(x, y, z, centre, (a, b, c))

    body = part((0, 8, 0), (74, 94, 86))
    body |= part((0, -36, -62), (64, 52, 62)) | part((0, -43, -98), (54, 44, 30)) | part((0, -79, -114), (20, 14, 13))
    body |= part((0, -76, -21), (50, 13, 11))  # brows
    body &= ~_in(x, y, z, (32, -98, -37), (17 + depth, 15 + depth, 11 + depth))  # sockets
    body |= part((0, -92, -50), (12, 18, 22)) | part((0, -104, -60), (11, 11, 9)) | part((12, -94, -63), (7, 9, 7))
    body |= part((0, -88, -82), (25, 8, 5)) | part((0, -87, -92), (22, 8, 5)) | part((32, -74, -36), (14, 13, 12))
    body |= part((78, 16, -32), (9, 15, 31)) & ~_in(x, y, z, (88, 12, -30), (5, 9, 20))  # ears
    neck = (x / (56 - depth)) ** 2 + ((y - 22) / (62 - depth)) ** 2 <= 1
    whole: NDArray[np.bool_] = body | (neck & (z < -70))
    return whole


def _base(y: Points) -> Points:
    """How high the floor of the skull lies: frontal, middle and posterior fossa."""
    floor: Points = np.where(y < -22, -24.0, np.where(y < 14, -46.0, -62.0)).astype(np.float32)
    return floor


def _in(
    x: Points, y: Points, z: Points, centre: tuple[float, float, float], axes: tuple[float, float, float]
) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 + (
        (z - centre[2]) / axes[2]
    ) ** 2 <= 1
    return inside
