"""Pictures and drawn truths as arrays: whatever a file holds, as one plane in which bright is dense."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medgem_node.detector.measure import connected_parts

PICTURES = (".png", ".jpg", ".jpeg")
_JSRT_SIDE = 2048
_FINE = 1024  # contours are drawn this large, then averaged down: a soft edge, and no half pixel too wide


def read_pixels(path: Path) -> NDArray[np.float32] | None:
    """(rows, columns), bright = dense; None if the file holds no readable picture of 64 pixels or more a side."""
    if path.suffix.lower() in PICTURES:
        return _picture(path)
    return _jsrt(path) if path.suffix.lower() == ".img" else _dicom(path)


def shrunk(values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """(rows, columns), averaged (or interpolated) to `shape`."""
    image = Image.fromarray(values).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32)


def drawn(contours: Sequence[Sequence[Sequence[float]]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Each contour, its points as parts of width and height, as a mask of `shape`: (contours, rows, columns)."""
    return np.stack([shrunk(_polygon(contour), (shape[0], shape[1])) for contour in contours])


def lung_masks(path: Path, kind: str) -> NDArray[np.float32]:
    """Right lung, left lung and an empty heart, (3, rows, columns), of a mask of both (`lungs`) or of `sides`."""
    labels: NDArray[Any] = np.asarray(Image.open(path))
    if kind == "sides":
        lungs = np.stack((labels & 1 > 0, labels & 2 > 0))
    else:
        first, second = sorted(connected_parts(np.asarray(labels > 0)), key=np.count_nonzero)[-2:]
        in_order = _middle_column(first) < _middle_column(second)
        lungs = np.stack((first, second) if in_order else (second, first))
    return np.concatenate((lungs, np.zeros_like(lungs[:1]))).astype(np.float32)


def _picture(path: Path) -> NDArray[np.float32]:
    image = Image.open(path)
    if image.mode.startswith(("I", "F")):  # more than 8 bits, which a conversion to "L" would cut off
        return np.asarray(image, np.float32)
    return np.asarray(image.convert("L"), np.float32)


def _jsrt(path: Path) -> NDArray[np.float32] | None:
    """A film of JSRT: 2048 x 2048 numbers of two bytes, big end first, no header, 0..4095; the densest is the least."""
    stored = np.fromfile(path, ">u2")
    if stored.size != _JSRT_SIDE**2:
        return None
    return 4095 - stored.reshape(_JSRT_SIDE, _JSRT_SIDE).astype(np.float32)


def _dicom(path: Path) -> NDArray[np.float32] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd headers are no news here
            dataset = pydicom.dcmread(path, force=True)
            pixels = np.asarray(dataset.pixel_array, np.float32)
    except Exception:  # a folder of odd files: whatever a decoder raises means that it is no picture
        return None
    if dataset.get("SamplesPerPixel", 1) == 3:
        pixels = pixels.mean(axis=-1)
    while pixels.ndim > 2:
        pixels = pixels[len(pixels) // 2]
    if min(pixels.shape) < 64 or max(pixels.shape) > 6000 or np.ptp(pixels) == 0:
        return None
    return -pixels if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else pixels


def _polygon(contour: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    image = Image.new("L", (_FINE, _FINE))
    ImageDraw.Draw(image).polygon([(x * _FINE - 0.5, y * _FINE - 0.5) for x, y in contour], fill=1)
    return np.asarray(image, np.float32)


def _middle_column(mask: NDArray[np.bool_]) -> float:
    return float(np.flatnonzero(mask.any(axis=0)).mean())
