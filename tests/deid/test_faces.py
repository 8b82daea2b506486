import numpy as np
import pytest
from head_phantom import Pose, Scan, encoded, enhanced, series
from pydicom import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, XRay3DCraniofacialImageStorage
from scipy import ndimage

from medgem_node.deid import faces
from medgem_node.deid.cubes import Cubes, Slice
from medgem_node.deid.faces import face_masks, needed
from medgem_node.deid.head import Head
from medgem_node.deid.surface import connected, distance, otsu, within
from medgem_node.errors import CannotDeidentify

COARSE = {"pixel_mm": 3.0, "slice_mm": 4.0}
CASES = {
    "CT from top to neck": (Scan(**COARSE), Pose()),
    "CT prone, 5 mm, a turned child, its vertex cut off": (
        Scan(prone=True, pixel_mm=3.0, slice_mm=5.0, high_mm=60, noise=30),
        Pose(yaw=20, roll=8, size=0.78),
    ),
    "CT with a tilted gantry, chin up": (Scan(gantry_degrees=15, **COARSE), Pose(pitch=-20)),
    "T2 sagittal, chin down": (
        Scan("MR", "sagittal", contrast="T2", noise=15, depth_mm=180, **COARSE),
        Pose(pitch=20, size=1.08),
    ),
}


@pytest.fixture(scope="module")
def mr() -> tuple[list[Dataset], dict[str, np.ndarray]]:
    images, _ = series(Scan("MR", "coronal", noise=15, **COARSE))
    return images, face_masks(encoded(images))


@pytest.fixture(scope="module")
def ct() -> tuple[Cubes, Head]:
    images, _ = series(Scan(**COARSE))
    cubes = Cubes.of([s for image in images for s in Slice.all_of(image, True)], True)
    return cubes, Head.of(cubes.values, cubes.known, True)


def few(**changes: object) -> list[Dataset]:
    """Eight axial slices of a head, 4 mm apart, with attributes changed."""
    images, _ = series(Scan(low_mm=-60, high_mm=-28, pixel_mm=8.0, slice_mm=4.0))
    for image in images:
        for keyword, value in changes.items():
            setattr(image, keyword, value) if value is not None else delattr(image, keyword)
    return images


@pytest.mark.parametrize("case", CASES)
def test_the_skin_of_the_face_goes_and_no_brain_pixel_changes(case: str) -> None:
    scan, pose = CASES[case]
    images, truths = series(scan, pose)

    masks = face_masks(encoded(images))

    ordered = [masks[image.SOPInstanceUID] for image in images]
    face = sum(int(t.face.sum()) for t in truths)
    assert sum(int((m & t.brain).sum()) for m, t in zip(ordered, truths, strict=True)) == 0
    assert sum(int((m & t.face).sum()) for m, t in zip(ordered, truths, strict=True)) > 0.94 * face > 500
    lost = sum(int((m & t.head).sum()) for m, t in zip(ordered, truths, strict=True))
    assert lost < 0.25 * sum(int(t.head.sum()) for t in truths)


def test_an_enhanced_image_gets_the_same_mask_frame_by_frame(mr: tuple[list[Dataset], dict[str, np.ndarray]]) -> None:
    images, masks = mr
    whole = enhanced(images)

    found = face_masks(encoded([whole]))

    assert list(found) == [whole.SOPInstanceUID]
    assert np.array_equal(found[whole.SOPInstanceUID], np.stack([masks[i.SOPInstanceUID] for i in images]))


def test_in_mr_the_air_behind_the_head_goes_too_for_a_nose_may_be_folded_into_it(
    mr: tuple[list[Dataset], dict[str, np.ndarray]],
) -> None:
    images, masks = mr
    behind = masks[images[-2].SOPInstanceUID]

    assert behind.mean() > 0.95


def test_the_new_surface_is_rough_by_seed(ct: tuple[Cubes, Head]) -> None:
    _, head = ct

    once, again, other = (head.face(np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert np.array_equal(once, again)
    assert (once != other).sum() > 1000


def test_a_mask_that_leaves_the_face_or_takes_brain_is_held(ct: tuple[Cubes, Head]) -> None:
    cubes, head = ct
    good = head.face(np.random.default_rng(0))
    nose_stays = good.copy()
    nose_stays[:, :, int(head.centre[2]) - 6 : int(head.centre[2]) + 6] = False

    faces._verify(cubes, head, good, is_ct=True)

    with pytest.raises(CannotDeidentify, match="still be there"):
        faces._verify(cubes, head, nose_stays, is_ct=True)
    with pytest.raises(CannotDeidentify, match="brain"):
        faces._verify(cubes, head, good | head.brain, is_ct=True)


def test_phases_at_one_place_are_one_volume_and_a_tilted_gantry_leads_back_to_the_pixel() -> None:
    images, _ = series(Scan(gantry_degrees=18, low_mm=-80, high_mm=40, pixel_mm=2.0, slice_mm=4.0))
    slices = [s for image in images for s in Slice.all_of(image, True)]

    cubes = Cubes.of(slices + slices, True)

    inner = slices[len(slices) // 2]
    back = cubes.onto(cubes.values > 700, inner.place, inner.size)
    bone = inner.values > 700
    assert (back & bone).sum() > 0.8 * bone.sum() > 100
    assert np.array_equal(cubes.values, Cubes.of(slices, True).values)


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (lambda: few(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
        (lambda: few(ImagePositionPatient=None), "no place"),
        (lambda: few(ImageOrientationPatient=None), "no place"),
        (lambda: few(RescaleSlope=None), "Hounsfield"),
        (lambda: few(PixelData=None), "searched"),
        (lambda: few(PhotometricInterpretation="MONOCHROME1"), "no plain slice"),
        (lambda: few(SOPClassUID=XRay3DCraniofacialImageStorage, Modality="DX"), "projection"),
        (lambda: few(SOPClassUID=SecondaryCaptureImageStorage, ImagePositionPatient=None), "no place"),
        (lambda: few()[:1] + few()[-1:], "too far apart"),
        (lambda: few()[:7] + few(PixelSpacing=[4.0, 4.0])[7:], "differ"),
        (lambda: few(PixelData=bytes(32 * 25 * 2)), "cannot be told|empty"),
        (lambda: series(Scan("MR", "sagittal", 8.0, 8.0, depth_mm=16))[0], "cannot be told|volume"),
    ],
)
def test_what_may_show_a_face_but_cannot_be_judged_is_held(images: object, reason: str) -> None:
    with pytest.raises(CannotDeidentify, match=reason) as held:
        face_masks(encoded(images()))

    assert "Nobody" not in str(held.value)
    assert "2.25" not in str(held.value)


def test_bytes_that_are_no_dicom_are_held() -> None:
    with pytest.raises(CannotDeidentify):
        face_masks([b"no DICOM"])


def test_a_few_axial_slices_give_no_face_when_rendered() -> None:
    assert face_masks(encoded(few()[:5])) == {}


def test_a_part_without_head_is_not_decoded_and_a_trunk_has_none() -> None:
    trunk = few(BodyPartExamined="CHEST")
    unsaid = few(BodyPartExamined="")
    wide = np.full((unsaid[0].Rows, unsaid[0].Columns), 1060, "<u2")
    for image in unsaid:
        image.PixelData, image.PixelSpacing = wide.tobytes(), [16.0, 16.0]

    assert face_masks([b"".join(encoded(few(BodyPartExamined="KNEE", PixelData=None))[:1])]) == {}
    assert face_masks(encoded(trunk)) == {}
    assert face_masks(encoded(unsaid)) == {}


def test_what_is_not_said_to_be_elsewhere_is_looked_at() -> None:
    def header(modality: bytes, part: bytes, sop_class: bytes = b"") -> dict[int, bytes]:
        return {0x00080060: modality, 0x00180015: part, 0x00080016: sop_class}

    assert needed(header(b"CT", b"HEAD"))
    assert needed(header(b"MR", b""))
    assert needed(header(b"CT", b"CHEST"))
    assert needed(header(b"MR", b"CSPINE"))
    assert needed(header(b"DX", b"", b"1.2.840.10008.5.1.4.1.1.13.1.2\0"))
    assert not needed(header(b"MR", b"KNEE"))
    assert not needed(header(b"CR", b"SKULL"))
    assert not needed({})


@pytest.mark.parametrize("seed", range(3))
def test_shapes_agree_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = rng.random((23, 17, 19)) > 0.97
    allowed = rng.random((23, 17, 19)) > 0.6
    start = np.zeros_like(allowed)
    start[tuple(np.argwhere(allowed)[0])] = True
    exact = ndimage.distance_transform_edt(~shape)
    labels, _ = ndimage.label(allowed)

    assert np.array_equal(within(shape, 2.5), exact <= 2.5)
    assert np.allclose(distance(shape, 20), exact)
    assert np.array_equal(connected(start, allowed), labels == labels[start][0])


def test_otsu_parts_two_classes_and_bears_a_constant() -> None:
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(10, 2, 4000), rng.normal(100, 10, 2000)]).astype(np.float32)

    assert 16 < otsu(two) < 80
    assert otsu(np.full(100, 7, np.float32)) == 7
