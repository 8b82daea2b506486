from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data_store
import gdcm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, FileDataset, config, dcmread, dcmwrite, uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate, get_frame
from pydicom.tag import Tag

from medgem_node import frame
from medgem_node.detector.preprocess import to_tensor
from medgem_node.detector.readers.projection import Radiograph, read
from medgem_node.errors import NotAnalysable, NotApplicable, Unreadable

Film = Callable[..., FileDataset]
REAL_FILMS = Path(data_store.__path__[0]) / "data"
CORPUS = Path("/work/shared/data/dicom_corpus")
LITTLE, BIG = uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian


def levels(grey: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(grey * (2**bits - 1)).astype(np.int64)


def tensor(instance: Dataset) -> np.ndarray:
    radiograph = read(instance)
    return to_tensor(radiograph.pixels, 256, radiograph.exposed)[0]


def assert_twin(instance: Dataset, grey: np.ndarray, levels_apart: float = 0.02) -> None:
    """Within `levels_apart` of the 0..1 grey scale everywhere."""
    expected, _ = to_tensor(grey.astype(np.float32))
    np.testing.assert_allclose(tensor(instance) * 0.25, expected * 0.25, atol=levels_apart)


def lut(outputs: np.ndarray, first: int, bits: int, vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(outputs) % 65536, first, bits])
    if vr == "OW":
        item.add_new("LUTData", "OW", outputs.astype("<u2").tobytes())
    else:
        item.add_new("LUTData", "US", outputs.tolist())
    return item


def gdcm_compressed(instance: Dataset, syntax: int, tmp_path: Path) -> FileDataset:
    source, target = str(tmp_path / "source.dcm"), str(tmp_path / "target.dcm")
    dcmwrite(source, instance, enforce_file_format=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(source)
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(target)
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return dcmread(target)


# Twins: one image in every encoding gives one tensor


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_depth_and_polarity_do_not_matter(film: Film, grey: np.ndarray, bits: int, photometric: str) -> None:
    stored = levels(1 - grey if photometric == "MONOCHROME1" else grey, bits)

    assert_twin(film(stored, bits, PhotometricInterpretation=photometric), grey)


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, LITTLE, BIG, uid.DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("bits", [8, 12])
def test_byte_order_and_deflation_do_not_matter(film: Film, grey: np.ndarray, syntax: str, bits: int) -> None:
    instance = film(levels(grey, bits), bits, syntax)

    assert instance.file_meta.TransferSyntaxUID == syntax
    assert_twin(instance, grey)


@pytest.mark.parametrize("syntax", [LITTLE, BIG])
def test_signed_values_with_rescale_do_not_matter(film: Film, grey: np.ndarray, syntax: str) -> None:
    instance = film(levels(grey, 12) - 2048, 12, syntax, RescaleSlope="0.684", RescaleIntercept="-17.5")

    assert instance.PixelRepresentation == 1
    assert_twin(instance, grey)


def test_a_negative_slope_turns_the_grey_scale(film: Film, grey: np.ndarray) -> None:
    assert_twin(film(levels(1 - grey, 12), RescaleSlope="-1", RescaleIntercept="4095"), grey)


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "IDENTITY", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_polarity_is_turned_once(film: Film, grey: np.ndarray, photometric: str, shape: str, inverted: bool) -> None:
    stored = levels(1 - grey if inverted else grey, 12)

    assert_twin(film(stored, PhotometricInterpretation=photometric, PresentationLUTShape=shape), grey)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
@pytest.mark.parametrize(("bits", "offset"), [(8, 0), (10, 0), (12, 0), (12, -2048), (16, 0), (16, -32768)])
def test_lossless_compression_does_not_matter(
    film: Film, grey: np.ndarray, syntax: str, bits: int, offset: int
) -> None:
    instance = film(levels(grey, bits) + offset, bits)
    expected = read(instance).pixels

    instance.compress(uid.UID(syntax), generate_instance_uid=False)

    assert (read(instance).pixels == expected).all()


@pytest.mark.parametrize(("bits", "offset"), [(8, 0), (10, 0), (12, 0), (12, -2048), (16, 0), (16, -32768)])
@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLosslessProcess14"])
def test_jpeg_lossless_does_not_matter(
    film: Film, grey: np.ndarray, tmp_path: Path, bits: int, offset: int, syntax: str
) -> None:
    instance = film(levels(grey, bits) + offset, bits)

    compressed = gdcm_compressed(instance, getattr(gdcm.TransferSyntax, syntax), tmp_path)

    assert compressed.file_meta.TransferSyntaxUID in (uid.JPEGLossless, uid.JPEGLosslessSV1)
    assert (read(compressed).pixels == read(instance).pixels).all()


@pytest.mark.parametrize("syntax", ["JPEGBaselineProcess1", "JPEGExtendedProcess2_4"])
def test_lossy_jpeg_hardly_matters(film: Film, grey: np.ndarray, tmp_path: Path, syntax: str) -> None:
    instance = film(levels(grey, 8), 8)

    compressed = gdcm_compressed(instance, getattr(gdcm.TransferSyntax, syntax), tmp_path)

    assert_twin(compressed, grey, 0.06)


def jpeg_of_flat_blocks(blocks: np.ndarray, precision: int = 12) -> bytes:
    """JPEG Extended, every 8 x 8 block of one value (ITU-T T.81): DC coefficients only, exact."""
    rows, columns = (8 * n for n in blocks.shape)
    tables = b"\xff\xdb\x00\x43\x00" + b"\x08" * 64  # a flat block's DC is 8 times its value
    frame_header = b"\xff\xc1\x00\x0b" + bytes([precision, rows >> 8, rows & 255, columns >> 8, columns & 255])
    frame_header += b"\x01\x01\x11\x00"
    dc = b"\xff\xc4\x00\x23\x00" + bytes([0, 0, 0, 0, 16] + [0] * 11) + bytes(range(16))  # 5 bits: the size
    ac = b"\xff\xc4\x00\x14\x10" + bytes([1] + [0] * 15) + b"\x00"  # 0: end of block
    bits = ""
    before = 2 ** (precision - 1)
    for value in blocks.ravel().tolist():
        step = value - before
        size = abs(step).bit_length()
        bits += f"{size:05b}" + (f"{step if step > 0 else step + 2**size - 1:0{size}b}" if size else "") + "0"
        before = value
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    return b"\xff\xd8" + tables + frame_header + dc + ac + scan + data + b"\xff\xd9"


def extended(film: Film, blocks: np.ndarray, bits: int, precision: int = 12) -> FileDataset:
    instance = film(np.kron(blocks, np.ones((8, 8), int)), bits)
    instance.file_meta.TransferSyntaxUID = uid.JPEGExtended12Bit
    instance.PixelData = encapsulate([jpeg_of_flat_blocks(blocks, precision)])
    instance["PixelData"].VR = "OB"
    return instance


def test_jpeg_of_12_bits_is_decoded_exactly(film: Film) -> None:
    blocks = np.random.default_rng(3).integers(0, 4096, (12, 9))

    assert (read(extended(film, blocks, 12)).pixels[::8, ::8] == blocks).all()


def test_an_overshoot_of_a_lossy_codec_stays_white(film: Film) -> None:
    blocks = np.full((9, 9), 900)
    blocks[4, 4] = 1030  # of 10 bits stored; masked, it would be 6

    assert read(extended(film, blocks, 10)).pixels.max() == 1023


def test_a_linear_window_does_not_matter(film: Film, grey: np.ndarray) -> None:
    hounsfield = film(levels(grey, 12), WindowCenter=["40", "300.5"], WindowWidth=["400", "1501.25"])

    assert_twin(hounsfield, grey)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
def test_neither_does_one_that_names_its_function(film: Film, grey: np.ndarray, function: str) -> None:
    assert_twin(film(levels(grey, 12), WindowCenter="40.5", WindowWidth="0.5", VOILUTFunction=function), grey)


def test_a_sigmoid_window_is_applied(film: Film, grey: np.ndarray) -> None:
    inner = 0.02 + 0.96 * grey
    stored = np.rint(2048 + 1024 / 4 * np.log(inner / (1 - inner))).astype(int)

    instance = film(stored, WindowCenter="2048", WindowWidth="1024", VOILUTFunction="SIGMOID")

    assert_twin(instance, grey)


@pytest.mark.parametrize("vr", ["US", "OW"])
@pytest.mark.parametrize("output_bits", [8, 12, 16])
@pytest.mark.parametrize("offset", [0, -2048])
def test_a_voi_lut_is_applied(film: Film, grey: np.ndarray, vr: str, output_bits: int, offset: int) -> None:
    inputs = np.arange(4096) / 4095
    outputs = np.rint(inputs**2 * (2**output_bits - 1)).astype(int)

    instance = film(levels(np.sqrt(grey), 12) + offset, VOILUTSequence=[lut(outputs, offset, output_bits, vr)])

    assert_twin(instance, grey)


def test_an_8_bit_lut_may_hold_two_entries_in_a_word(film: Film, grey: np.ndarray) -> None:
    outputs = np.rint((np.arange(4096) / 4095) ** 2 * 255).astype(np.uint8)
    item = lut(outputs, 0, 8)
    item.add_new("LUTData", "OW", outputs.tobytes())

    assert_twin(film(levels(np.sqrt(grey), 12), VOILUTSequence=[item]), grey)


@pytest.mark.parametrize("output_bits", [10, 12, 16])
def test_a_modality_lut_is_applied(film: Film, grey: np.ndarray, output_bits: int) -> None:
    outputs = np.rint((np.arange(1024) / 1023) ** 2 * (2**output_bits - 1)).astype(int)

    instance = film(levels(np.sqrt(grey), 10), 10, ModalityLUTSequence=[lut(outputs, 0, output_bits)])

    assert_twin(instance, grey)


def test_inputs_beyond_a_lut_give_its_ends(film: Film, grey: np.ndarray) -> None:
    stored = levels(grey, 12)

    instance = film(stored, VOILUTSequence=[lut(np.arange(0, 2000), 1000, 12)])

    assert (read(instance).pixels == np.clip(stored - 1000, 0, 1999)).all()


def test_a_lut_that_is_too_short_is_unreadable(film: Film, grey: np.ndarray) -> None:
    item = lut(np.arange(4096), 0, 12)
    item.LUTData = [1, 2, 3]

    with pytest.raises(Unreadable) as error:
        read(film(levels(grey, 12), VOILUTSequence=[item]))

    assert error.value.reason == "header"


def test_overlay_bits_in_the_pixel_data_do_not_matter(film: Film, grey: np.ndarray) -> None:
    overlay = np.random.default_rng(1).integers(0, 16, grey.shape) << 12

    assert_twin(film(levels(grey, 12) | overlay, 12), grey)


def test_values_stored_in_the_high_bits_are_found(film: Film, grey: np.ndarray) -> None:
    stray = np.random.default_rng(1).integers(0, 16, grey.shape)

    assert_twin(film(levels(grey, 12) << 4 | stray, 12, HighBit=15), grey)


def test_more_pixel_data_than_declared_does_not_matter(film: Film, grey: np.ndarray) -> None:
    instance = film(levels(grey, 12))
    instance.PixelData += b"\xff" * 100

    assert_twin(instance, grey)


def test_a_grey_film_in_colour_is_read_by_luminance(film: Film, grey: np.ndarray) -> None:
    assert_twin(film(np.repeat(levels(grey, 8)[..., None], 3, axis=2), 8), grey)


def test_a_grey_film_with_a_palette_is_read(film: Film, grey: np.ndarray) -> None:
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", (np.arange(256) * 257).astype("<u2").tobytes()))
    }

    assert_twin(film(levels(grey, 8), 8, PhotometricInterpretation="PALETTE COLOR", **palette), grey)


# Padding


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("padding", [0, 4095])
def test_padding_is_black_whatever_its_value(film: Film, grey: np.ndarray, photometric: str, padding: int) -> None:
    stored = 5 + levels((1 - grey if photometric == "MONOCHROME1" else grey) * 0.99, 12)
    y, x = np.mgrid[0:220, 0:180]
    outside = np.hypot(y - 110, x - 90) > 100
    stored[outside] = padding

    instance = film(stored, PhotometricInterpretation=photometric, PixelPaddingValue=padding)
    radiograph = read(instance)

    assert radiograph.exposed is not None
    assert (radiograph.exposed == ~outside).all()
    expected, _ = to_tensor(grey.astype(np.float32), exposed=~outside)
    np.testing.assert_allclose(tensor(instance) * 0.25, expected * 0.25, atol=0.02)


def test_a_range_of_padding_values_is_padding(film: Film, grey: np.ndarray) -> None:
    stored = 100 + levels(grey * 0.9, 12)
    stored[:30] = 7
    stored[-30:] = 9

    exposed = read(film(stored, PixelPaddingValue=5, PixelPaddingRangeLimit=10)).exposed

    assert exposed is not None
    assert exposed.any(axis=1).nonzero()[0].tolist() == list(range(30, 190))


def test_a_saturated_island_of_the_padding_value_is_image(film: Film, grey: np.ndarray) -> None:
    stored = 100 + levels(grey * 0.9, 12)
    stored[:20] = 0
    stored[100:120, 80:100] = 0

    exposed = read(film(stored, PixelPaddingValue=0)).exposed

    assert exposed is not None
    assert not exposed[:20].any()
    assert exposed[20:].all()


def test_padding_of_the_other_signedness_is_found(film: Film, grey: np.ndarray) -> None:
    stored = levels(grey * 0.9, 12)
    stored[:20] = -2000
    instance = film(stored, 16)
    instance.add_new("PixelPaddingValue", "US", 65536 - 2000)

    exposed = read(instance).exposed

    assert exposed is not None
    assert not exposed[:20].any()


def test_without_padding_all_is_exposed(film: Film, grey: np.ndarray) -> None:
    assert read(film(levels(grey, 12))).exposed is None
    assert read(film(5 + levels(grey * 0.9, 12), PixelPaddingValue=0)).exposed is None


# Geometry and words


@pytest.mark.parametrize(
    ("header", "spacing_mm"),
    [
        ({"PixelSpacing": [0.15, 0.14], "ImagerPixelSpacing": [0.2, 0.2]}, (0.15, 0.14)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2)),
        ({"PixelSpacing": [0, 0]}, None),
        ({"ImagerPixelSpacing": [-0.1, 0.1]}, None),
        ({"PixelSpacing": 0.1}, None),
        ({}, None),
    ],
)
def test_spacing_is_what_the_header_really_says(
    film: Film, grey: np.ndarray, header: dict[str, Any], spacing_mm: tuple[float, float] | None
) -> None:
    assert read(film(levels(grey, 12), **header)).spacing_mm == spacing_mm


def test_the_header_words_are_kept(film: Film, grey: np.ndarray) -> None:
    radiograph = read(film(levels(grey, 12), ViewPosition="PA", BodyPartExamined="CHEST", SOPInstanceUID="2.25.77"))

    assert (radiograph.image_uid, radiograph.view, radiograph.body_part, radiograph.modality) == (
        "2.25.77",
        "PA",
        "CHEST",
        "CR",
    )
    assert radiograph.pixels.dtype == np.float32


# What is refused, and how


def refused(instance: Dataset) -> NotAnalysable:
    with pytest.raises(NotAnalysable) as error:
        read(instance)
    return error.value


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Rows": 0}, "image-size"),
        ({"Rows": 65535, "Columns": 65535}, "image-size"),
        ({"Rows": 2}, "image-size"),
        ({"Rows": None}, "image-size"),
        ({"Rows": 221}, "pixel-data-truncated"),
        ({"NumberOfFrames": 2}, "multi-frame"),
        ({"NumberOfFrames": "-3"}, "pixel-data"),
        ({"BitsAllocated": 12}, "pixel-data"),
        ({"BitsStored": 20}, "pixel-data"),
        ({"BitsStored": 0}, "pixel-data"),
        ({"HighBit": 16}, "pixel-data"),
        ({"SamplesPerPixel": 4}, "pixel-data"),
        ({"SamplesPerPixel": None}, "pixel-data"),
        ({"PixelRepresentation": 7}, "pixel-data"),
        ({"PhotometricInterpretation": "ARGB"}, "pixel-data"),
        ({"PhotometricInterpretation": None}, "pixel-data"),
        ({"PixelData": b""}, "no-pixel-data"),
        ({"PixelData": None}, "no-pixel-data"),
        ({"RescaleSlope": "1e999"}, "header"),
        ({"ModalityLUTSequence": [Dataset()]}, "header"),
        ({"PixelPaddingValue": "x"}, "header"),
    ],
)
def test_a_header_that_cannot_be_is_answered_with_a_reason(
    film: Film, grey: np.ndarray, change: dict[str, Any], reason: str
) -> None:
    instance = film(levels(grey, 12))
    with config.disable_value_validation():
        for keyword, value in change.items():
            setattr(instance, keyword, value)

    assert refused(instance).reason == reason


@pytest.mark.parametrize(
    "keyword", ["Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "PixelData"]
)
def test_a_header_that_lacks_something_is_answered_with_a_reason(film: Film, grey: np.ndarray, keyword: str) -> None:
    instance = film(levels(grey, 12))
    delattr(instance, keyword)

    assert isinstance(refused(instance), Unreadable)


@pytest.mark.parametrize("syntax", ["", "1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.8.1", "1.2.3.4"])
def test_a_transfer_syntax_without_decoder_is_answered_with_a_reason(film: Film, grey: np.ndarray, syntax: str) -> None:
    instance = film(levels(grey, 12))
    instance.file_meta.TransferSyntaxUID = uid.UID(syntax)

    assert refused(instance).reason == "transfer-syntax"


def test_so_is_a_missing_one(film: Film, grey: np.ndarray) -> None:
    instance = film(levels(grey, 12))
    del instance.file_meta

    assert refused(instance).reason == "transfer-syntax"


def test_a_colour_image_is_refused(film: Film, grey: np.ndarray) -> None:
    coloured = np.stack([levels(grey, 8), levels(1 - grey, 8), levels(grey, 8)], axis=2)

    error = refused(film(coloured, 8))

    assert isinstance(error, NotApplicable)
    assert error.reason == "colour-image"


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_truncated_compressed_pixel_data_is_never_half_an_image(film: Film, grey: np.ndarray, syntax: str) -> None:
    instance = film(levels(grey, 12))
    instance.compress(uid.UID(syntax), generate_instance_uid=False)
    stream = get_frame(instance.PixelData, 0, number_of_frames=1)
    for part in (0.02, 0.5, 0.9):
        instance.PixelData = encapsulate([stream[: int(part * len(stream))]])

        assert refused(instance).reason in ("pixel-data-truncated", "pixel-data")


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGBaselineProcess1", "JPEGExtendedProcess2_4"])
def test_neither_is_a_truncated_jpeg(film: Film, grey: np.ndarray, tmp_path: Path, syntax: str) -> None:
    instance = gdcm_compressed(film(levels(grey, 8), 8), getattr(gdcm.TransferSyntax, syntax), tmp_path)
    stream = get_frame(instance.PixelData, 0, number_of_frames=1)
    instance.PixelData = encapsulate([stream[: len(stream) // 2]])

    assert refused(instance).reason == "pixel-data-truncated"


def test_jpeg_of_a_depth_that_does_not_exist_is_refused(film: Film) -> None:
    assert refused(extended(film, np.full((9, 9), 900), 12, precision=16)).reason == "pixel-data"


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_a_codestream_of_another_size_is_not_decoded(
    film: Film, grey: np.ndarray, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = film(levels(grey, 12))
    instance.compress(uid.UID(syntax), generate_instance_uid=False)
    instance.Rows -= 1
    monkeypatch.setattr(frame, "_decode", lambda *_, **__: pytest.fail("was decoded"))

    assert refused(instance).reason == "pixel-data"


def test_a_run_length_bomb_is_not_decoded(film: Film, grey: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = film(levels(grey, 12))
    instance.compress(uid.RLELossless, generate_instance_uid=False)
    stream = get_frame(instance.PixelData, 0, number_of_frames=1)
    instance.PixelData = encapsulate([stream + b"\x81\x00" * 1_000_000])
    monkeypatch.setattr(frame, "_decode", lambda *_, **__: pytest.fail("was decoded"))

    assert refused(instance).reason == "pixel-data"


def test_a_reason_quotes_no_header(film: Film, grey: np.ndarray) -> None:
    instance = film(levels(grey, 12), PatientName="SECRET^NAME")
    with config.disable_value_validation():
        instance.PhotometricInterpretation = "SECRET^NAME"
        instance.PixelPaddingValue = "SECRET^NAME"

    assert "SECRET" not in str(refused(instance))


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"]
        )
        | st.sampled_from(["PixelPaddingValue", "PixelPaddingRangeLimit"]),
        st.integers(0, 65535) | st.sampled_from([0, 1, 8, 12, 16, 32]),
        max_size=3,
    ),
    st.dictionaries(
        st.sampled_from(["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "PixelSpacing"]),
        st.sampled_from(["", "0", "-1", "1e300", "1e-300", "nan", "inf", "x", "1\\2", "1\\2\\3"]),
        max_size=3,
    ),
    st.dictionaries(
        st.sampled_from(["PhotometricInterpretation", "VOILUTFunction", "PresentationLUTShape", "NumberOfFrames"]),
        st.sampled_from(["", "SIGMOID", "INVERSE", "MONOCHROME1", "RGB", "YBR_FULL_422", "0", "-1", "1", "A\\B"]),
        max_size=2,
    ),
)
def test_no_header_ends_in_another_exception(
    film: Film, grey: np.ndarray, numbers: dict[str, int], decimals: dict[str, str], words: dict[str, str]
) -> None:
    instance = film(levels(grey, 12))
    with config.disable_value_validation():
        for keyword, value in numbers.items():
            instance.add_new(Tag(keyword), "US", value)
        for keyword, text in (decimals | words).items():
            set_raw(instance, keyword, text)

    try:
        shape = read(instance).pixels.shape
    except NotAnalysable:
        return
    assert shape == (instance.Rows, instance.Columns)


def set_raw(instance: FileDataset, keyword: str, text: str) -> None:
    """As if it had been read from a file: parsed when it is looked at."""

    tag = Tag(keyword)
    raw = text.encode() + b" " * (len(text) % 2)
    instance._dict[tag] = RawDataElement(tag, dictionary_VR(tag), len(raw), raw, 0, False, True)


# Real films


def test_twins_of_a_real_chest_film_agree() -> None:
    one, other = (tensor(dcmread(REAL_FILMS / name)) for name in ("RG1_UNCR.dcm", "RG1_J2KI.dcm"))

    assert np.abs(one - other).mean() * 0.25 < 0.005
    assert one[0, 96:160, 112:144].mean() > one[0, 96:160, 60:90].mean()  # mediastinum denser than lung


def real_files() -> list[Path]:
    with_name = sorted(REAL_FILMS.glob("*.dcm"))
    return with_name + sorted(p for p in CORPUS.glob("*/*") if p.suffix not in (".csv", ".md"))


def test_every_real_file_gives_a_radiograph_or_a_reason() -> None:
    if not CORPUS.exists():
        pytest.skip("the DICOM corpus is not on this machine")
    answers: dict[str, int] = {}
    for path in real_files():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                instance = dcmread(path, force=True)
            except Exception:  # not DICOM enough to get this far
                continue
        try:
            answer = type(read(instance)).__name__
        except NotAnalysable as error:
            answer = error.reason
        answers[answer] = answers.get(answer, 0) + 1

    assert answers[Radiograph.__name__] > 60
    print(answers)


def test_12_bit_jpeg_is_near_its_uncompressed_twin() -> None:
    lossy = CORPUS / "combo" / "RG3_JPLY"
    if not lossy.exists():
        pytest.skip("the DICOM corpus is not on this machine")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compressed = read(dcmread(lossy, force=True)).pixels

    difference = np.abs(compressed - read(dcmread(REAL_FILMS / "RG3_UNCR.dcm")).pixels)

    assert difference.mean() < 2  # of 1023
    assert difference.max() < 60
