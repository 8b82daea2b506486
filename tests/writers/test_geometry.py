"""From a voxel to an object to the same voxel, for every way in which an image can lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import numpy as np
import pytest
from harness import chest, validators, volume
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from medgem_node.finding import Analysis, Mask
from medgem_node.geometry import frames, plane, size
from medgem_node.volume import volumes
from medgem_node.writers import segmentation

Images = list[Dataset]
ROWS, COLUMNS = 32, 24


def placed(across: Sequence[float], down: Sequence[float], step: Sequence[float]) -> Images:
    images = volume.study(slices=6, rows=ROWS, columns=COLUMNS)
    for k, image in enumerate(images):
        image.ImageOrientationPatient = [*across, *down]
        image.ImagePositionPatient = [round(a + k * s, 6) for a, s in zip((11.25, -7.5, 40), step, strict=True)]
    return images


def cropped() -> Images:
    """As a PACS would cut it: eight columns and four rows fewer, so that the first pixel lies elsewhere."""
    images = volume.study(slices=6, rows=ROWS + 4, columns=COLUMNS + 8, oblique=True)
    for image in images:
        o = np.array([float(v) for v in image.ImageOrientationPatient])
        rows_mm, columns_mm = (float(v) for v in image.PixelSpacing)
        moved = np.array([float(v) for v in image.ImagePositionPatient]) + 8 * columns_mm * o[:3] + 4 * rows_mm * o[3:]
        image.ImagePositionPatient = [round(float(v), 6) for v in moved]
        image.Rows, image.Columns = ROWS, COLUMNS
        image.PixelData = image.PixelData[: 2 * ROWS * COLUMNS]
    return images


def real(*names: str) -> Images:
    paths = [get_testdata_file(name, download=False) for name in names]
    if not all(paths):
        pytest.skip("pip install pydicom-data")
    return [dcmread(path) for path in paths]


LYING: dict[str, Callable[[], Images]] = {
    "axial": lambda: volume.study(slices=6, rows=ROWS, columns=COLUMNS),
    "oblique": lambda: volume.study(slices=6, rows=ROWS, columns=COLUMNS, oblique=True),
    "MR": lambda: volume.study(slices=6, rows=ROWS, columns=COLUMNS, modality="MR", oblique=True),
    "head first": lambda: list(reversed(volume.study(slices=6, rows=ROWS, columns=COLUMNS))),
    "sagittal": lambda: placed((0, 1, 0), (0, 0, -1), (-3, 0, 0)),
    "mirrored": lambda: placed((-1, 0, 0), (0, 1, 0), (0, 0, 3)),
    "upside down": lambda: placed((-1, 0, 0), (0, -1, 0), (0, 0, -3)),
    "flat": lambda: volume.study(slices=6, rows=ROWS, columns=COLUMNS, spacing_mm=(5.0, 0.4, 1.3)),
    "cropped": cropped,
    "enhanced": lambda: [volume.enhanced(slices=6, rows=ROWS, columns=COLUMNS)],
    "enhanced oblique": lambda: [volume.enhanced(slices=6, rows=ROWS, columns=COLUMNS, oblique=True)],
    "a real CT": lambda: real("CT_small.dcm"),
    "a real CT upside down": lambda: real("explicit_VR-UN.dcm"),
    "a real oblique MR": lambda: real("MR2_UNCR.dcm"),
    "a real tilted CT": lambda: real("J2K_pixelrep_mismatch.dcm"),
    "a real enhanced CT": lambda: real("eCT_Supplemental.dcm"),
}


@pytest.fixture(params=LYING)
def images(request: pytest.FixtureRequest) -> Images:
    return LYING[request.param]()


def by_hand(image: Dataset, frame: int) -> np.ndarray:
    """(4, 4), from (x, y, 0, 1) in image coordinates to mm, of the header alone: PS3.3 C.7.6.2.1.1."""
    own, shared = Dataset(), Dataset()
    if "PerFrameFunctionalGroupsSequence" in image:
        own = image.PerFrameFunctionalGroupsSequence[frame - 1]
        shared = image.SharedFunctionalGroupsSequence[0]

    def values(group: str, keyword: str) -> np.ndarray:
        holder = next((h[group].value[0] for h in (own, shared) if group in h), image)
        return np.array([float(v) for v in holder[keyword].value])

    orientation = values("PlaneOrientationSequence", "ImageOrientationPatient").reshape(2, 3)
    orientation = (orientation / np.linalg.norm(orientation, axis=1, keepdims=True)).ravel()  # real ones are rounded
    rows_mm, columns_mm = values("PixelMeasuresSequence", "PixelSpacing")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = orientation[:3] * columns_mm, orientation[3:] * rows_mm
    position = values("PlanePositionSequence", "ImagePositionPatient")
    affine[:3, 3] = position - (affine[:3, 0] + affine[:3, 1]) / 2  # it is the centre of a pixel, (0, 0) its corner
    return affine


def test_a_point_goes_into_space_and_comes_back_to_the_hundredth_of_a_pixel(images: Images) -> None:
    points = np.random.default_rng(3).uniform(-2, 40, (50, 2))

    for image in images:
        for frame in range(1, frames(image) + 1):
            found = plane(image, frame)
            assert found is not None
            there = found.to_patient(points)
            expected = np.column_stack([points, np.zeros(50), np.ones(50)]) @ by_hand(image, frame).T

            assert there == pytest.approx(expected[:, :3], abs=2e-3)
            assert found.to_image(there) == pytest.approx(points, abs=1e-6)


def voxels(images: Images) -> tuple[Analysis, dict[tuple[str, int], np.ndarray]]:
    """A segment that no flip and no shift leaves as it is, in every frame but the third; and where its voxels lie."""
    named = [(image, n) for image in images for n in range(1, frames(image) + 1)]
    rows, columns = size(images[0])
    pixels = np.zeros((len(named), rows, columns), bool)
    truth = {}
    for k, (image, frame) in enumerate(named):
        if k == 2:
            continue
        for row, column in ((3, 5), (3, 6), (3, 7), (9 + k, 5), (rows - 1, columns - 1)):
            pixels[k, row, column] = True
        at = np.argwhere(pixels[k])[:, ::-1] + 0.5
        truth[str(image.SOPInstanceUID), frame] = (
            np.column_stack([at, np.zeros(len(at)), np.ones(len(at))]) @ by_hand(image, frame).T
        )[:, :3]
    uids = tuple(str(image.SOPInstanceUID) for image, _ in named)
    numbers = tuple(n for _, n in named) if any("NumberOfFrames" in image for image in images) else ()
    mask = Mask("Nodule", chest.ORGAN, volume.NODULE_TYPE, uids, pixels, frames=numbers)
    analysis = Analysis(chest.CARD.name, chest.CARD.version, images=tuple(dict.fromkeys(uids)), masks=(mask,))
    return analysis, truth


def written(images: Images, variant: str = "binary") -> tuple[Dataset, np.ndarray]:
    analysis, truth = voxels(images)
    (found,) = segmentation.create(chest.SOURCE, variant).write(analysis, images, (), chest.uid)
    return chest.as_sent(found), np.concatenate(list(truth.values()))


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """The same points, in any order, to 0.002 mm: Decimal Strings hold no more."""
    assert found.shape == expected.shape
    distance = np.linalg.norm(found[:, None] - expected[None], axis=2)
    assert distance.min(axis=1).max() < 2e-3
    assert len(set(distance.argmin(axis=1))) == len(found)


@pytest.mark.parametrize("variant", ["binary", "labelmap"])
def test_voxels_lie_where_they_did_when_highdicom_reads_the_segmentation(images: Images, variant: str) -> None:
    seg, expected = written(images, variant)

    read = highdicom.seg.Segmentation.from_dataset(seg)
    if seg.NumberOfFrames > 1:
        found = read.get_volume(combine_segments=True, allow_missing_positions=True)
    else:
        found = read.get_volume(combine_segments=True)

    same(found.map_indices_to_reference(np.argwhere(found.array > 0)), expected)


@pytest.mark.skipif(
    bool(validators.missing("segimage2itkimage")), reason=validators.missing("segimage2itkimage") or "dcmqi"
)
def test_voxels_lie_where_they_did_when_dcmqi_reads_the_segmentation(images: Images, tmp_path: Path) -> None:
    seg, expected = written(images)
    (tmp_path / "seg.dcm").write_bytes(chest.as_bytes(seg))

    read = validators.segments(tmp_path / "seg.dcm")["Nodule"]

    at = np.argwhere(read.values)[:, ::-1]  # along a row, along a column, from frame to frame
    same(read.origin + at @ read.steps, expected)


def test_the_frames_name_the_frames_that_they_came_from(images: Images) -> None:
    seg, _ = written(images)
    _, truth = voxels(images)

    named = []
    for item in seg.PerFrameFunctionalGroupsSequence:
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        name = (source.ReferencedSOPInstanceUID, int(source.get("ReferencedFrameNumber", 1)))
        position = np.array([float(v) for v in item.PlanePositionSequence[0].ImagePositionPatient])
        image = next(i for i in images if i.SOPInstanceUID == name[0])
        assert position == pytest.approx((by_hand(image, name[1]) @ [0.5, 0.5, 0, 1])[:3], abs=1e-3)
        assert ("ReferencedFrameNumber" in source) == ("NumberOfFrames" in image)
        named.append(name)
    assert sorted(named) == sorted(truth)


def test_a_radiograph_is_given_a_place_that_highdicom_reads(tmp_path: Path) -> None:
    film = chest.film(64, 48, PixelSpacing=[0.5, 0.25], ImagerPixelSpacing=[0.5, 0.25])
    pixels = np.zeros((1, 64, 48), bool)
    pixels[0, 10, 20] = True
    mask = Mask("Nodule", chest.ORGAN, volume.NODULE_TYPE, (str(film.SOPInstanceUID),), pixels)
    analysis = Analysis(chest.CARD.name, chest.CARD.version, images=(str(film.SOPInstanceUID),), masks=(mask,))

    (seg,) = segmentation.create(chest.SOURCE).write(analysis, [film], (), chest.uid)

    found = highdicom.seg.Segmentation.from_dataset(chest.as_sent(seg)).get_volume(combine_segments=True)
    at = found.map_indices_to_reference(np.argwhere(found.array > 0))
    assert at == pytest.approx(np.array([[20 * 0.25, 10 * 0.5, 0]]))
    (place,) = volumes([film])
    assert place.slices[0].place.to_image(at) == pytest.approx(np.array([[20.5, 10.5]]))


def test_phases_and_directions_of_one_series_are_volumes_of_their_own() -> None:
    first = volume.study(slices=3, rows=ROWS, columns=COLUMNS)
    second = volume.study(slices=3, rows=ROWS, columns=COLUMNS, uid_seed="second")
    across = volume.study(slices=1, rows=ROWS, columns=COLUMNS, uid_seed="scout")
    across[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    for image in (*second, *across):
        image.SeriesInstanceUID = first[0].SeriesInstanceUID
        image.FrameOfReferenceUID = first[0].FrameOfReferenceUID

    found = volumes([*across, first[2], second[0], first[0], second[1], first[1], second[2]])

    names = [[str(s.image.SOPInstanceUID) for s in v.slices] for v in found]
    uid = [str(i.SOPInstanceUID) for i in (*first, *second, *across)]
    assert names == [[uid[6]], [uid[3], uid[4], uid[2]], [uid[0], uid[1], uid[5]]]
    order = [uid[6], uid[2], uid[3], uid[0], uid[4], uid[1], uid[5]]
    assert [v.role(order) for v in found] == ["1", "2", "4"]


def test_no_number_of_frames_is_believed_that_an_image_cannot_hold() -> None:
    film, volume_of_six = chest.film(64, 48), volume.enhanced(6)

    for said in (2_000_000_000, 10**30):
        film.NumberOfFrames = said
        assert frames(film) <= 16  # as many as there would be of one bit a pixel
    volume_of_six.NumberOfFrames = 2_000_000_000
    assert frames(volume_of_six) == 6
