from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, FileDataset, dcmread, dcmwrite, uid
from pydicom.dataset import FileMetaDataset

Film = Callable[..., FileDataset]


@pytest.fixture(scope="session")
def grey() -> np.ndarray:
    """A film in 0..1, (220, 180), bright = dense: two dark lungs, a spine, a heart, some texture."""
    y, x = np.mgrid[0:220, 0:180] + 0.5
    lungs = np.exp(-(((np.abs(x - 90) - 40) / 24) ** 4) - ((y - 100) / 70) ** 4)
    heart = np.exp(-(((x - 110) / 25) ** 2) - ((y - 140) / 30) ** 2)
    texture = 0.05 * np.sin(x / 3) * np.cos(y / 4)
    return np.clip(0.75 - 0.6 * lungs + 0.3 * heart + texture, 0, 1)


@pytest.fixture(scope="session")
def film() -> Film:
    """Builds a CR instance of stored values, as it comes from a file."""

    def build(
        values: np.ndarray, bits: int = 12, syntax: str = uid.ExplicitVRLittleEndian, **header: Any
    ) -> FileDataset:
        instance = Dataset()
        instance.SOPClassUID = uid.ComputedRadiographyImageStorage
        instance.SOPInstanceUID = header.pop("SOPInstanceUID", "2.25.1")
        instance.Modality = "CR"
        instance.Rows, instance.Columns = values.shape[:2]
        instance.SamplesPerPixel = 3 if values.ndim == 3 else 1
        if values.ndim == 3:
            instance.PlanarConfiguration = 0
        instance.PhotometricInterpretation = "RGB" if values.ndim == 3 else "MONOCHROME2"
        instance.BitsAllocated = 8 if bits <= 8 else 16
        instance.BitsStored, instance.HighBit = bits, bits - 1
        instance.PixelRepresentation = int(values.min() < 0)
        kind = f"{'>' if syntax == uid.ExplicitVRBigEndian else '<'}{'i' if values.min() < 0 else 'u'}"
        data = values.astype(f"{kind}{instance.BitsAllocated // 8}").tobytes()
        instance.PixelData = data + b"\0" * (len(data) % 2)
        instance["PixelData"].VR = "OB" if bits <= 8 else "OW"
        for keyword, value in header.items():
            setattr(instance, keyword, value)
        instance.file_meta = FileMetaDataset()
        instance.file_meta.TransferSyntaxUID = syntax
        return reread(instance)

    return build


def reread(instance: Dataset) -> FileDataset:
    """What a reader gets of `instance` after it was written."""
    buffer = io.BytesIO()
    dcmwrite(buffer, instance, enforce_file_format=True)
    buffer.seek(0)
    return dcmread(buffer)
