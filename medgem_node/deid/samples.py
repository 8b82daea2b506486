"""The stored samples of a frame: read as they are, and compressed again in the syntax they came in.

Samples stay in the colour space of the file. Which codec: docs/decisions/0002-permissive-decoders.md; a frame that was
written again is read back, for an encoder that changes a pixel must not go unnoticed.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin
from pydicom import Dataset, uid
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import get_encoder
from pydicom.pixels.utils import pixel_array

from medgem_node import frame
from medgem_node.deid import jpeg_lossless
from medgem_node.deid.layout import Broken, Syntax
from medgem_node.deid.pixels import Pixels
from medgem_node.deid.shape import Shape

Samples = NDArray[Any]


def shown(pixels: Pixels, shape: Shape, syntax: Syntax, number: int) -> Samples:
    """Frame `number`, from 0, to look at: (rows, columns) or (rows, columns, 3). Raises Broken, NotAnalysable.

    Of native pixels as `native` has them; of compressed ones in RGB.
    """
    if not pixels.is_encapsulated:
        return native(pixels, shape, syntax, number)
    with frame.coded("pixel-data", "the pixels cannot be decoded"):
        return frame.decoded_frame(_alone(shape, syntax, _stream(pixels, shape, number)), 1)


def native(pixels: Pixels, shape: Shape, syntax: Syntax, number: int) -> Samples:
    """A frame as stored: (rows, columns), or (rows, columns, samples), or (rows, columns / 2, 4) if `is_halved`."""
    if shape.allocated == 1:
        return np.asarray(bits(pixels, shape, syntax)[number])
    size = shape.frame_bytes()
    values = np.frombuffer(pixels.between(number * size, (number + 1) * size), shape.kind(pixels.tag, syntax.little))
    if shape.is_halved:
        return values.reshape(shape.rows, shape.columns // 2, 4)
    if shape.is_planar:
        return np.moveaxis(values.reshape(shape.samples, shape.rows, shape.columns), 0, -1)
    return values.reshape((shape.rows, shape.columns, shape.samples)[: 2 + (shape.samples > 1)])


def bits(pixels: Pixels, shape: Shape, syntax: Syntax) -> Samples:
    """All frames of a native image of one bit a pixel, which share bytes (PS3.5 8.1.1)."""
    if not syntax.little or shape.samples != 1:
        raise Broken("single bits in an order that nothing here reads")
    count = shape.frames * shape.rows * shape.columns
    whole = np.frombuffer(pixels.between(0, pixels.size_bytes), np.uint8)
    return np.unpackbits(whole, count=count, bitorder="little").reshape(shape.frames, shape.rows, shape.columns)


def stored(pixels: Pixels, shape: Shape, syntax: Syntax, number: int) -> Samples:
    """A compressed frame as stored, without a change of colours. Raises Broken where it cannot be written again."""
    if syntax.uid not in _CODECS:
        raise Broken(f"nothing here compresses frames again in {uid.UID(syntax.uid).name}")
    if shape.rows * shape.columns > frame.MAX_PIXELS:
        raise Broken("a frame of more pixels than any has")
    with frame.coded("pixel-data", "the pixels cannot be decoded"):
        return _CODECS[syntax.uid][0](_alone(shape, syntax, _stream(pixels, shape, number)))


def compressed(values: Samples, pixels: Pixels, shape: Shape, syntax: Syntax, number: int) -> bytes:
    """A code stream of these samples, to stand for frame `number`."""
    with frame.coded("pixel-data", "the pixels cannot be compressed again"):
        before = _stream(pixels, shape, number)
        stream = _CODECS[syntax.uid][1](np.ascontiguousarray(values), shape, before)
        if syntax.uid not in LOSSY and not np.array_equal(stored_again(stream, shape, syntax), values):
            raise Broken("an encoder changed pixels")
    return stream


def stored_again(stream: bytes, shape: Shape, syntax: Syntax) -> Samples:
    """What a code stream decodes to."""
    return _CODECS[syntax.uid][0](_alone(shape, syntax, stream))


def _stream(pixels: Pixels, shape: Shape, number: int) -> bytes:
    return b"".join(pixels.chunks[n] for n in pixels.frames(shape.frames)[number])


def _alone(shape: Shape, syntax: Syntax, stream: bytes) -> Dataset:
    """One frame as an image, with what a decoder asks of its header."""
    alone = Dataset()
    alone.file_meta = FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = uid.UID(syntax.uid)
    alone.Rows, alone.Columns, alone.SamplesPerPixel = shape.rows, shape.columns, shape.samples
    alone.BitsAllocated, alone.BitsStored, alone.HighBit = shape.allocated, shape.stored, shape.stored - 1
    alone.PixelRepresentation = int(shape.is_signed)
    is_palette = shape.photometric == "PALETTE COLOR"  # looked at as indices: its tables do not come along
    alone.PhotometricInterpretation = "MONOCHROME2" if is_palette else shape.photometric
    if shape.samples > 1:
        alone.PlanarConfiguration = int(shape.is_planar)
    alone.PixelData = encapsulate([stream])
    alone["PixelData"].VR = "OB"
    return alone


def _decoded(plugin: str) -> Callable[[Dataset], Samples]:
    return lambda alone: np.asarray(pixel_array(alone, raw=True, decoding_plugin=plugin))


def _encoded(syntax: uid.UID, plugin: str) -> Callable[[Samples, Shape, bytes], bytes]:
    def encode(values: Samples, shape: Shape, _: bytes) -> bytes:
        photometric = "YBR_RCT" if shape.photometric == "YBR_ICT" else shape.photometric
        stream = get_encoder(syntax).encode(
            values,
            encoding_plugin=plugin,
            rows=shape.rows,
            columns=shape.columns,
            samples_per_pixel=shape.samples,
            number_of_frames=1,
            bits_allocated=shape.allocated,
            bits_stored=shape.stored,
            pixel_representation=int(shape.is_signed),
            photometric_interpretation=photometric,
            planar_configuration=0,
        )
        return bytes(stream)

    return encode


def _jpeg_decoded(alone: Dataset) -> Samples:
    """In what Pillow makes of it, which is what it takes back: grey or RGB."""
    from pydicom.encaps import get_frame

    return np.asarray(Image.open(io.BytesIO(get_frame(alone.PixelData, 0, number_of_frames=1))))


def _jpeg_encoded(values: Samples, _: Shape, before: bytes) -> bytes:
    """With the tables of the frame as it was: what was not masked loses next to nothing more."""
    was = Image.open(io.BytesIO(before))
    if not isinstance(was, JpegImagePlugin.JpegImageFile) or was.mode not in ("L", "RGB"):
        raise Broken("a JPEG frame of unusual colours")
    sampling = JpegImagePlugin.get_sampling(was)
    made = io.BytesIO()
    Image.fromarray(values).save(made, "JPEG", qtables=was.quantization, subsampling=max(sampling, 0))
    return made.getvalue()


def _jpeg_lossless_encoded(values: Samples, shape: Shape, _: bytes) -> bytes:
    unsigned = values.view(f"u{values.dtype.itemsize}")
    return jpeg_lossless.encoded(unsigned & ((1 << shape.stored) - 1), shape.stored)


_JPEG_2000 = (_decoded("pylibjpeg"), _encoded(uid.JPEG2000Lossless, "pylibjpeg"))
_JPEG_LS = (_decoded("pyjpegls"), _encoded(uid.JPEGLSLossless, "pyjpegls"))
_JPEG_LOSSLESS = (_decoded("gdcm"), _jpeg_lossless_encoded)
_CODECS: dict[str, tuple[Callable[[Dataset], Samples], Callable[[Samples, Shape, bytes], bytes]]] = {
    uid.RLELossless: (_decoded("pydicom"), _encoded(uid.RLELossless, "pydicom")),
    uid.JPEGBaseline8Bit: (_jpeg_decoded, _jpeg_encoded),
    uid.JPEGLossless: _JPEG_LOSSLESS,
    uid.JPEGLosslessSV1: _JPEG_LOSSLESS,
    uid.JPEGLSLossless: _JPEG_LS,
    uid.JPEGLSNearLossless: _JPEG_LS,  # which allows an error of 0
    uid.JPEG2000Lossless: _JPEG_2000,
    uid.JPEG2000: _JPEG_2000,  # which allows the reversible transform
}
LOSSY = frozenset({str(uid.JPEGBaseline8Bit)})
"""Where a frame that is compressed again loses something again."""
