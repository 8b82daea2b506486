"""Radiographs of the chest and what a model could say of them, made by hand."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from medgem_node.card import ModelCard
from medgem_node.evidence import Source, Station
from medgem_node.finding import Analysis, Box, Code, Finding, Heatmap, Mask, Measurement, Point

AT = datetime(2026, 3, 2, 9, 45, 7, tzinfo=UTC)
STATION = Station(serial_number="node-1", ae_title="MEDGEM")
CARD = ModelCard(
    name="chest-heart",
    version="1.2.3",
    title="Heart size in chest radiographs",
    manufacturer="medgem-node contributors",
    status="research",
    licence="Apache-2.0",
    folder=Path("models/chest-heart/1.2.3"),
    weights="weights.safetensors",
    weights_sha256=hashlib.sha256(b"weights").hexdigest(),
    network={},
    preprocessing={},
    selection={},
    gate={},
    masks=(),
    findings=(),
    measurements=(),
)
SOURCE = Source(CARD, STATION, AT)
CARDIOMEGALY = Code("8186001", "SCT", "Cardiomegaly")
HEART, LUNG = Code("80891009", "SCT", "Heart"), Code("39607008", "SCT", "Lung")
ORGAN = Code("91723000", "SCT", "Anatomical Structure")
RIGHT, LEFT = Code("24028007", "SCT", "Right"), Code("7771000", "SCT", "Left")
MM, MM2, RATIO = (
    Code("mm", "UCUM", "millimeter"),
    Code("mm2", "UCUM", "square millimeter"),
    Code("1", "UCUM", "no units"),
)
AREA = Code("42798000", "SCT", "Area")
CARDIAC = Code("CARDIACWIDTH", "99MEDGEM", "Cardiac width")
THORACIC = Code("THORACICWIDTH", "99MEDGEM", "Thoracic width")
CARDIOTHORACIC = Code("CTR", "99MEDGEM", "Cardiothoracic ratio")


def uid(role: str) -> str:
    """Stable, as the node's own."""
    return f"2.25.{int(hashlib.sha256(role.encode()).hexdigest()[:30], 16)}"


def as_sent(instance: Dataset) -> Dataset:
    """The instance as it comes from the archive: read from bytes, nothing decoded yet."""
    return dcmread(io.BytesIO(as_bytes(instance)))


def as_bytes(instance: Dataset) -> bytes:
    buffer = io.BytesIO()
    instance.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def real_film() -> Dataset:
    """A CR of 1955 x 1841 pixels, MONOCHROME1, with a Pixel Spacing of zero."""
    path = get_testdata_file("RG1_UNCR.dcm", download=False)
    assert path, "pip install pydicom-data"
    return dcmread(path)


def film(rows: int = 512, columns: int = 480, *, uid_seed: str = "film", **attributes: object) -> Dataset:
    """A synthetic DX of a chest with a Pixel Spacing, as valid as a vendor's should be."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.SOPClassUID = DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[uid_seed])
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    for stem in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{stem}Date", "20260302")
        setattr(ds, f"{stem}Time", "093000")
    ds.AccessionNumber, ds.StudyID, ds.StudyDescription = "ACC001", "1", "Chest PA"
    ds.Modality, ds.SeriesDescription, ds.SeriesNumber, ds.InstanceNumber = "DX", "PA", 1, 1
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber = "Synthetic", "Phantom", "1"
    ds.SoftwareVersions, ds.InstitutionName, ds.ReferringPhysicianName = "1", "Test Hospital", "Ref^Doctor"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Phantom^Chest", "SYN001", "19600101", "O"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.AcquisitionContextSequence = []
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.PresentationLUTShape, ds.LossyImageCompression, ds.BurnedInAnnotation = "IDENTITY", "00", "NO"
    ds.PatientOrientation, ds.ImageLaterality, ds.BodyPartExamined = ["L", "F"], "U", "CHEST"
    ds.AnatomicRegionSequence = [_code("816094009", "SCT", "Chest")]
    ds.ImagerPixelSpacing = ds.PixelSpacing = [400 / rows] * 2
    ds.PixelSpacingCalibrationType, ds.PixelSpacingCalibrationDescription = "FIDUCIAL", "synthetic"
    ds.DetectorType, ds.DetectorConfiguration, ds.DetectorID = "DIRECT", "AREA", "1"
    ds.ViewPosition, ds.PositionerType = "PA", "NONE"
    view = _code("272479007", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]
    ds.WindowCenter, ds.WindowWidth = "1800", "3600"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = thorax(rows, columns).astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def thorax(rows: int, columns: int) -> np.ndarray:
    """Twelve bits that look like a chest: body, lungs, heart, ribs."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    u, v = x / columns, y / rows
    grey = np.where(((u - 0.5) / 0.46) ** 2 + ((v - 0.55) / 0.6) ** 2 < 1, 2300.0, 200.0)
    for centre in (0.29, 0.71):
        lung = ((u - centre) / 0.17) ** 2 + ((v - 0.47) / 0.33) ** 2
        grey = np.where(lung < 1, 900 + 250 * lung, grey)
    grey = np.where(((u - 0.54) / 0.17) ** 2 + ((v - 0.62) / 0.17) ** 2 < 1, 2500, grey)
    for k in range(9):
        rib = np.abs(v - (0.16 + 0.075 * k) - 0.4 * (u - 0.5) ** 2)
        grey = np.where((rib < 0.008) & (grey > 300), grey + 260, grey)
    return np.clip(grey + np.random.default_rng(1).normal(0, 30, grey.shape), 0, 4095).astype(np.uint16)


def analysis(*films: Dataset, probability: float = 0.71, ratio: float = 0.55, fit: tuple = (0.5, 0.54)) -> Analysis:
    """Cardiomegaly or not, lungs and heart, both widths and their ratio, on each film."""
    parts = [_one(film, probability, ratio, fit) for film in films]
    images = tuple(str(film.SOPInstanceUID) for film in films)
    first = parts[0]
    return replace(
        first,
        images=images,
        findings=tuple(f for p in parts for f in p.findings),
        measurements=tuple(m for p in parts for m in p.measurements),
        masks=tuple(
            replace(m, images=images, pixels=np.concatenate([p.masks[k].pixels for p in parts]))
            for k, m in enumerate(first.masks)
        )
        if len({p.masks[0].pixels.shape for p in parts}) == 1
        else tuple(m for p in parts for m in p.masks),
        heatmaps=tuple(h for p in parts for h in p.heatmaps),
    )


def _one(film: Dataset, probability: float, ratio: float, fit: tuple) -> Analysis:
    rows, columns, image = int(film.Rows), int(film.Columns), str(film.SOPInstanceUID)
    middle, level = fit
    y, x = np.mgrid[0:rows, 0:columns]

    def ellipse(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return ((x + 0.5) / columns - cx) ** 2 / rx**2 + ((y + 0.5) / rows - cy) ** 2 / ry**2 < 1

    heart = ellipse(middle + 0.04, level + 0.08, 0.17, 0.17)
    right, left = (ellipse(middle + s * 0.21, level - 0.07, 0.17, 0.33) & ~heart for s in (-1, 1))
    spacing = float(film.PixelSpacing[0]) if film.get("PixelSpacing") else 0.0
    unit, scale = (MM, spacing) if spacing else (Code("{pixels}", "UCUM", "pixels"), 1.0)
    h0, h1, hy = columns * (middle - 0.13), columns * (middle + 0.21), rows * (level + 0.1)
    t0, t1, ty = columns * (middle - 0.37), columns * (middle + 0.37), rows * (level + 0.06)
    cardiac, thoracic = (Point(h0, hy), Point(h1, hy)), (Point(t0, ty), Point(t1, ty))

    def measured(code: Code, value: float, of: Code, label: str, points: tuple = (), mask: str = "") -> Measurement:
        return Measurement(code, float(value), of, label, image, points, mask)

    box = Box(h0, rows * (level - 0.09), h1, rows * (level + 0.25))
    return Analysis(
        CARD.name,
        CARD.version,
        images=(image,),
        parameters={"input": "512x512"},
        findings=(
            Finding(
                CARDIOMEGALY,
                "Cardiomegaly",
                probability,
                probability >= 0.5,
                0.5,
                image,
                box,
                HEART,
                mask="Heart",
                measurements=(measured(CARDIOTHORACIC, ratio, RATIO, "Cardiothoracic ratio", cardiac + thoracic),),
            ),
        ),
        measurements=(
            measured(CARDIAC, (h1 - h0) * scale, unit, "Cardiac width", cardiac),
            measured(THORACIC, (t1 - t0) * scale, unit, "Thoracic width", thoracic),
        )
        + (
            measured(AREA, right.sum() * scale**2, MM2, "Right lung area", mask="Right lung"),
            measured(AREA, left.sum() * scale**2, MM2, "Left lung area", mask="Left lung"),
        )
        * bool(spacing),
        masks=(
            Mask("Right lung", ORGAN, LUNG, (image,), right[None], RIGHT, (64, 200, 255)),
            Mask("Left lung", ORGAN, LUNG, (image,), left[None], LEFT, (120, 230, 160)),
            Mask("Heart", ORGAN, HEART, (image,), heart[None], None, (255, 90, 90)),
        ),
        heatmaps=(
            Heatmap(
                "Cardiomegaly",
                (image,),
                _glow(middle + 0.04, level + 0.08)[None],
                "where the model saw cardiomegaly",
            ),
        ),
    )


def _glow(cx: float, cy: float) -> np.ndarray:
    y, x = (np.mgrid[0:32, 0:32] + 0.5) / 32
    return np.exp(-(((x - cx) / 0.12) ** 2 + ((y - cy) / 0.12) ** 2)).astype(np.float32)


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
