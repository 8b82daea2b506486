"""What is blanked in frames, and that nothing else changes."""

import struct

import numpy as np
import pytest
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.encoders.base import get_encoder
from pydicom.pixels.utils import pixel_array

from medgem_node.deid import jpeg_lossless, layout, pixels
from medgem_node.deid.masking import blanked
from medgem_node.deid.pixels import Pixels
from medgem_node.deid.reader import Box
from medgem_node.errors import CannotDeidentify

NATIVE, IMPLICIT, BIG = uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian
BOX = Box(3, 5, 9, 13)
ROWS, COLUMNS = 48, 66


def image(
    array: np.ndarray, photometric: str = "MONOCHROME2", syntax: str = NATIVE, stored: int = 0, planar: int = 0
) -> tuple[Dataset, Pixels, dict[int, bytes], layout.Syntax]:
    """Frames, compressed where the syntax asks for it, and as the remover sees them."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.NumberOfFrames, ds.Rows, ds.Columns = array.shape[:3]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = (array.shape[3] if array.ndim == 4 else 1), photometric
    ds.BitsAllocated = array.dtype.itemsize * 8
    ds.BitsStored = stored or ds.BitsAllocated
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(array.dtype.kind == "i")
    if ds.SamplesPerPixel > 1:
        ds.PlanarConfiguration = planar
    parsed = layout.Syntax.of(syntax)
    if parsed.encapsulated:
        ds.PixelData = encapsulate([encoded(frame, ds, syntax) for frame in array])
    else:
        order = array if not planar else np.moveaxis(array, -1, 1)
        ds.PixelData = order.astype(array.dtype.newbyteorder("<" if parsed.little else ">")).tobytes()
    ds["PixelData"].VR = "OB" if parsed.encapsulated else "OW"
    return ds, taken(ds, parsed), raw_values(ds, parsed), parsed


def encoded(frame: np.ndarray, ds: Dataset, syntax: str) -> bytes:
    if syntax == uid.JPEGBaseline8Bit:
        import io

        from PIL import Image

        made = io.BytesIO()
        Image.fromarray(frame).save(made, "JPEG", quality=90)
        return made.getvalue()
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return jpeg_lossless.encoded(frame.view(f"u{frame.itemsize}") & (1 << ds.BitsStored) - 1, ds.BitsStored)
    lossless = {uid.JPEG2000: uid.JPEG2000Lossless, uid.JPEGLSNearLossless: uid.JPEGLSLossless}.get(syntax, syntax)
    return get_encoder(lossless).encode(
        frame, number_of_frames=1, rows=ds.Rows, columns=ds.Columns, samples_per_pixel=ds.SamplesPerPixel,
        bits_allocated=ds.BitsAllocated, bits_stored=ds.BitsStored, pixel_representation=ds.PixelRepresentation,
        photometric_interpretation=ds.PhotometricInterpretation, planar_configuration=0,
    )  # fmt: skip


def taken(ds: Dataset, syntax: layout.Syntax) -> Pixels:
    if syntax.encapsulated:
        element = layout.element_head(0x7FE00010, "OB", 0xFFFFFFFF, syntax) + ds.PixelData
        element += struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    else:
        element = layout.element(0x7FE00010, "OW", ds.PixelData, syntax)
    found = pixels.take(memoryview(element), 0, syntax)
    assert found is not None
    return found


def raw_values(ds: Dataset, syntax: layout.Syntax) -> dict[int, bytes]:
    end = "<" if syntax.little else ">"
    return {
        int(e.tag): struct.pack(end + "H", e.value) if e.VR == "US" else str(e.value).encode()
        for e in ds
        if e.VR in ("US", "CS", "IS")
    }


def seen(ds: Dataset, masked: Pixels, syntax: layout.Syntax) -> np.ndarray:
    """Frames of the copy, by pydicom."""
    copy = Dataset()
    copy.update(ds)
    copy.file_meta = ds.file_meta
    parts = [bytes(p) for p in masked.parts(syntax)]
    copy.PixelData = b"".join(parts[1:-1] if syntax.encapsulated else parts[1:])
    copy["PixelData"].VR = "OB" if syntax.encapsulated else "OW"
    array = pixel_array(copy, raw=True)
    return array if ds.NumberOfFrames > 1 else array[None]


def noise(kind: str, *shape: int, bits: int = 0) -> np.ndarray:
    made = np.random.default_rng(7)
    dtype = np.dtype(kind)
    bits = bits or dtype.itemsize * 8
    low, high = (-(1 << bits - 1), 1 << bits - 1) if dtype.kind == "i" else (0, 1 << bits)
    return made.integers(low, high, shape).astype(dtype)


@pytest.mark.parametrize(
    ("array", "photometric", "syntax", "planar", "black"),
    [
        (noise("u1", 1, ROWS, COLUMNS), "MONOCHROME2", NATIVE, 0, None),
        (noise("u2", 3, ROWS, COLUMNS), "MONOCHROME2", IMPLICIT, 0, None),
        (noise("i2", 3, ROWS, COLUMNS), "MONOCHROME2", BIG, 0, None),
        (noise("u2", 1, ROWS, COLUMNS), "MONOCHROME1", NATIVE, 0, "max"),
        (noise("u4", 1, ROWS, COLUMNS), "MONOCHROME2", NATIVE, 0, None),
        (noise("u1", 2, ROWS, COLUMNS), "PALETTE COLOR", NATIVE, 0, None),
        (noise("u1", 2, ROWS, COLUMNS, 3), "RGB", NATIVE, 0, [0, 0, 0]),
        (noise("u1", 2, ROWS, COLUMNS, 3), "RGB", NATIVE, 1, [0, 0, 0]),
        (noise("u1", 2, ROWS, COLUMNS, 3), "YBR_FULL", NATIVE, 0, [0, 128, 128]),
        (noise("u2", 2, ROWS, COLUMNS, bits=12), "MONOCHROME2", uid.RLELossless, 0, None),
        (noise("i2", 1, ROWS, COLUMNS), "MONOCHROME2", uid.RLELossless, 0, None),
        (noise("u1", 2, ROWS, COLUMNS, 3), "YBR_FULL", uid.RLELossless, 0, [0, 128, 128]),
        (noise("u2", 2, ROWS, COLUMNS, bits=12), "MONOCHROME2", uid.JPEG2000Lossless, 0, None),
        (noise("i2", 1, ROWS, COLUMNS, bits=12), "MONOCHROME2", uid.JPEG2000, 0, None),
        (noise("u1", 1, ROWS, COLUMNS, 3), "YBR_RCT", uid.JPEG2000Lossless, 0, [0, 0, 0]),
        (noise("u2", 2, ROWS, COLUMNS, bits=12), "MONOCHROME2", uid.JPEGLSLossless, 0, None),
        (noise("u1", 1, ROWS, COLUMNS, 3), "RGB", uid.JPEGLSNearLossless, 0, [0, 0, 0]),
        (noise("u2", 2, ROWS, COLUMNS, bits=12), "MONOCHROME2", uid.JPEGLosslessSV1, 0, None),
        (noise("u2", 1, ROWS, COLUMNS), "MONOCHROME2", uid.JPEGLossless, 0, None),
        (noise("u1", 1, 21, 25), "MONOCHROME2", uid.JPEGLosslessSV1, 0, None),
        (noise("i2", 1, ROWS, COLUMNS, bits=12), "MONOCHROME2", uid.JPEGLosslessSV1, 0, None),
        (noise("i2", 1, ROWS, COLUMNS), "MONOCHROME2", uid.JPEGLosslessSV1, 0, None),
        (noise("u1", 1, ROWS, COLUMNS, 3), "RGB", uid.JPEGLosslessSV1, 0, [0, 0, 0]),
    ],
    ids=lambda v: getattr(v, "dtype", None) or (v.name[:24] if isinstance(v, uid.UID) else None),
)
def test_a_box_turns_black_and_every_other_pixel_keeps_its_value(
    array: np.ndarray, photometric: str, syntax: str, planar: int, black: object
) -> None:
    stored = 12 if array.dtype.itemsize == 2 and abs(int(array.max())) < 4096 else 0
    ds, whole, values, parsed = image(array, photometric, syntax, stored, planar)

    copy = seen(ds, blanked(whole, values, parsed, [BOX]), parsed)

    keep = np.ones(array.shape[1:3], bool)
    keep[BOX.top : BOX.bottom, BOX.left : BOX.right] = False
    assert (copy[:, keep] == array[:, keep]).all()
    for n, frame in enumerate(array):
        expected = black if isinstance(black, list) else frame.max() if black == "max" else frame.min()
        assert (copy[n][~keep] == expected).all()


def test_single_bits_are_blanked_across_the_bytes_that_frames_share() -> None:
    array = noise("u1", 3, 5, 7, bits=1)
    ds, _, _, parsed = image(array)
    packed = np.packbits(array.reshape(-1), bitorder="little").tobytes()
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit, ds.PixelData = 0, packed + b"\0" * (len(packed) % 2)
    mask = np.zeros((3, 5, 7), bool)
    mask[1, 2:4, 1:6] = True

    masked = blanked(taken(ds, parsed), raw_values(ds, parsed), parsed, mask)

    assert (seen(ds, masked, parsed) == np.where(mask, 0, array)).all()


def test_pixels_that_share_their_colour_are_blanked_together() -> None:
    ds, _, _, parsed = image(noise("u1", 1, 4, 8, 3), "YBR_FULL")
    ds.PhotometricInterpretation = "YBR_FULL_422"
    raw = noise("u1", 4, 4, 4)  # Y Y Cb Cr
    ds.PixelData = raw.tobytes()

    masked = blanked(taken(ds, parsed), raw_values(ds, parsed), parsed, [Box(1, 3, 2, 5)])

    copy = np.frombuffer(masked.between(0, 64), np.uint8).reshape(4, 4, 4)
    assert (copy[1, 1:3] == [0, 0, 128, 128]).all()
    changed = (copy != raw).any(axis=2)
    assert changed.sum() == 2
    assert changed[1, 1:3].all()


def test_float_pixels_take_the_fill_that_is_asked_for() -> None:
    array = np.random.default_rng(1).normal(size=(1, 4, 6)).astype("<f4")
    values = {0x00280010: b"\4\0", 0x00280011: b"\6\0", 0x00280100: b"\x20\0", 0x00280004: b"MONOCHROME2"}

    masked = blanked(
        Pixels(0x7FE00008, "OF", (array.tobytes(),)), values, layout.Syntax.of(NATIVE), [Box(0, 0, 2, 2)], fill=-1000
    )

    copy = np.frombuffer(masked.between(0, 96), "<f4").reshape(4, 6)
    assert (copy[:2, :2] == -1000).all()
    assert (copy[2:] == array[0, 2:]).all()


def test_frames_that_are_not_touched_stay_byte_for_byte_and_offsets_stay_true() -> None:
    array = noise("u2", 4, ROWS, COLUMNS, bits=12)
    ds, whole, values, parsed = image(array, syntax=uid.JPEG2000Lossless, stored=12)
    mask = np.zeros(array.shape, bool)
    mask[2, 2:9, 3:20] = True

    masked = blanked(whole, values, parsed, mask)

    before = list(generate_frames(ds.PixelData, number_of_frames=4))
    after = b"".join(bytes(p) for p in masked.parts(parsed)[1:-1])
    assert [a == b for a, b in zip(before, generate_frames(after, number_of_frames=4), strict=True)] == [
        *(True, True, False, True)
    ]
    assert all(masked.chunks[n] is whole.chunks[n] for n in (0, 1, 3))
    assert (seen(ds, masked, parsed) == np.where(mask, array.min(axis=(1, 2), keepdims=True), array)).all()


def test_of_native_pixels_only_the_rows_of_the_box_are_copied() -> None:
    array = noise("u2", 8, 200, 100)
    _, whole, values, parsed = image(array)

    masked = blanked(whole, values, parsed, [Box(10, 10, 20, 30)])

    copied = sum(len(c) for c in masked.chunks if isinstance(c, bytes))
    assert copied == 8 * 10 * 100 * 2
    assert masked.size_bytes == whole.size_bytes


def test_masks_add_up() -> None:
    array = noise("u2", 2, ROWS, COLUMNS)
    ds, whole, values, parsed = image(array)

    masked = blanked(blanked(whole, values, parsed, [BOX], 0), values, parsed, [Box(5, 8, 15, 20)], 1)

    copy = seen(ds, masked, parsed)
    assert (copy[:, 3:5, 5:13] == 0).all()
    assert (copy[:, 5:15, 8:20] == 1).all()


def test_jpeg_baseline_frames_say_that_they_lost_something_again_and_lose_little() -> None:
    y, x = np.mgrid[:64, :96]
    array = np.stack([(x + y + 20 * n) % 200 for n in range(2)]).astype(np.uint8)
    ds, whole, values, parsed = image(array, syntax=uid.JPEGBaseline8Bit)

    masked = blanked(whole, values, parsed, [Box(0, 0, 16, 16)])

    before, after = seen(ds, whole, parsed).astype(int), seen(ds, masked, parsed).astype(int)
    assert masked.is_lossy_again
    assert (after[:, :16, :16].max(axis=(1, 2)) <= before.min(axis=(1, 2)) + 3).all()
    assert np.abs(before - after)[:, 16:, 16:].max() <= 2


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.JPEGExtended12Bit])
def test_what_cannot_be_written_again_is_held(syntax: str) -> None:
    _, _, values, _ = image(noise("u2", 1, ROWS, COLUMNS))
    stream = Pixels(0x7FE00010, "OB", (b"\xff\xd8\xff" + bytes(30),), True)

    with pytest.raises(CannotDeidentify, match="compresses frames again"):
        blanked(stream, values, layout.Syntax.of(syntax), [BOX])


def test_a_frame_that_cannot_be_decoded_is_held() -> None:
    _, whole, values, parsed = image(noise("u2", 1, ROWS, COLUMNS, bits=12), syntax=uid.JPEG2000Lossless, stored=12)
    broken = Pixels(whole.tag, "OB", (whole.chunks[0][:60],), True)

    with pytest.raises(CannotDeidentify, match="cannot be decoded"):
        blanked(broken, values, parsed, [BOX])


def test_a_mask_of_another_size_is_held() -> None:
    _, whole, values, parsed = image(noise("u2", 1, ROWS, COLUMNS))

    with pytest.raises(CannotDeidentify, match="another size"):
        blanked(whole, values, parsed, np.ones((ROWS, COLUMNS + 1), bool))
