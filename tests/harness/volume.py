"""Volumes and what a model could say of them, made by hand: a CT of a chest, an MR of a head, an enhanced CT.

Every number of an analysis is taken from the stored pixels by a threshold, so that a test can take it again.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from harness import chest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from medgem_node.finding import Analysis, Box, Code, Finding, Heatmap, Mask, Measurement, Point
from medgem_node.geometry import frames, plane

SPACING_MM = (3.0, 0.9, 0.7)  # between slices, rows, columns: three that cannot be mistaken for one another
NODULE_AT, CALCIFIED_AT, TUMOUR_AT, ENHANCING_AT = 80, 130, 700, 1000  # stored after rescale: HU, or MR intensity

NODULE = Code("427359005", "SCT", "Solitary nodule of lung")
EFFUSION = Code("60046008", "SCT", "Pleural effusion")
CALCIFICATION = Code("445512009", "SCT", "Calcification of coronary artery")
TUMOUR = Code("108369006", "SCT", "Neoplasm")
ENHANCING = Code("C113842", "NCIt", "Enhancing Lesion")
CORONARY, BRAIN = Code("41801008", "SCT", "Coronary artery"), Code("12738006", "SCT", "Brain")
PLEURA = Code("3120008", "SCT", "Pleura")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE_TYPE = Code("27925004", "SCT", "Nodule")
VOLUME, LONG_AXIS = Code("118565006", "SCT", "Volume"), Code("103339001", "SCT", "Long Axis")
AGATSTON = Code("450360000", "SCT", "Coronary artery calcium score")
MM3 = Code("mm3", "UCUM", "cubic millimeter")


def study(
    slices: int = 12,
    rows: int = 96,
    columns: int = 80,
    *,
    modality: str = "CT",
    oblique: bool = False,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    uid_seed: str = "volume",
    **attributes: object,
) -> list[Dataset]:
    """One series of single-frame slices, CT (a chest) or MR (a head), as valid as a vendor's should be."""
    values = _chest(slices, rows, columns) if modality == "CT" else _head(slices, rows, columns)
    made = []
    for k in range(slices):
        ds = _common(f"{uid_seed} {k}", uid_seed, CTImageStorage if modality == "CT" else MRImageStorage, modality)
        ds.InstanceNumber = k + 1
        ds.ImageOrientationPatient, ds.ImagePositionPatient = _place(k, spacing_mm, oblique)
        ds.SliceThickness, ds.PixelSpacing = spacing_mm[0], list(spacing_mm[1:])
        ds.AcquisitionNumber, ds.PatientPosition = 1, "HFS"
        _pixels(ds, values[k])
        if modality == "CT":
            ds.ImageType, ds.KVP = ["ORIGINAL", "PRIMARY", "AXIAL"], "120"
            ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
        else:
            ds.ImageType, ds.ScanningSequence, ds.SequenceVariant = ["ORIGINAL", "PRIMARY", "M"], "SE", "NONE"
            ds.ScanOptions, ds.MRAcquisitionType, ds.EchoTrainLength = "", "2D", "1"
            ds.RepetitionTime, ds.EchoTime, ds.SpacingBetweenSlices = "600", "12", spacing_mm[0]
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        made.append(ds)
    return made


def enhanced(
    slices: int = 12,
    rows: int = 96,
    columns: int = 80,
    *,
    oblique: bool = False,
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    uid_seed: str = "enhanced",
    **attributes: object,
) -> Dataset:
    """The same chest as one Enhanced CT, a frame for each slice."""
    values = _chest(slices, rows, columns)
    ds = _common(uid_seed, uid_seed, EnhancedCTImageStorage, "CT")
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    ds.InstanceNumber, ds.NumberOfFrames, ds.BurnedInAnnotation = 1, slices, "NO"
    ds.LossyImageCompression, ds.PresentationLUTShape = "00", "IDENTITY"
    ds.AcquisitionDateTime, ds.AcquisitionNumber, ds.ContentQualification = "20260302093000", 1, "RESEARCH"
    ds.PixelPresentation, ds.VolumetricProperties, ds.VolumeBasedCalculationTechnique = "MONOCHROME", "VOLUME", "NONE"
    ds.MultienergyCTAcquisition = "NO"
    ds.PatientPosition, ds.AcquisitionContextSequence = "HFS", []
    orientation = _place(0, spacing_mm, oblique)[0]
    ds.SharedFunctionalGroupsSequence = [
        _item(
            PixelMeasuresSequence=[_item(SliceThickness=spacing_mm[0], PixelSpacing=list(spacing_mm[1:]))],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=orientation)],
            FrameAnatomySequence=[_item(FrameLaterality="U", AnatomicRegionSequence=[_code(codes.SCT.Chest)])],
            IrradiationEventIdentificationSequence=[_item(IrradiationEventUID=chest.uid(f"irradiation {uid_seed}"))],
            FrameVOILUTSequence=[_item(WindowCenter="-300", WindowWidth="1600")],
            PixelValueTransformationSequence=[_item(RescaleIntercept="-1024", RescaleSlope="1", RescaleType="HU")],
            CTImageFrameTypeSequence=[
                _item(
                    FrameType=ds.ImageType,
                    PixelPresentation="MONOCHROME",
                    VolumetricProperties="VOLUME",
                    VolumeBasedCalculationTechnique="NONE",
                )
            ],
        )
    ]
    organization = chest.uid(f"dimension {uid_seed}")
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    ds.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization, DimensionIndexPointer=0x00209057, FunctionalGroupPointer=0x00209111
        )
    ]
    ds.PerFrameFunctionalGroupsSequence = [
        _item(
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=k + 1, DimensionIndexValues=[k + 1])],
            PlanePositionSequence=[_item(ImagePositionPatient=_place(k, spacing_mm, oblique)[1])],
        )
        for k in range(slices)
    ]
    _pixels(ds, values)
    for keyword in ("WindowCenter", "WindowWidth"):
        delattr(ds, keyword)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def analysis(*images: Dataset, probability: float = 0.93) -> Analysis:
    """What thresholds find: in a CT a nodule and calcium, with an effusion that is absent; in an MR a tumour.

    `images` are the slices in their order, or one enhanced image. The model is `chest.CARD`'s.
    """
    numbers = [(image, n) for image in images for n in range(1, frames(image) + 1)]
    named = tuple(str(image.SOPInstanceUID) for image, _ in numbers)
    order = tuple(n for _, n in numbers) if len(named) > len(images) else ()
    values = np.concatenate([pixels(image) for image in images])
    spoken = _of_ct if images[0].Modality == "CT" else _of_mr
    return replace(
        spoken(values, named, order, _voxel_mm(images), probability),
        images=tuple(dict.fromkeys(named)),
        parameters={"input": "voxels"},
    )


def pixels(image: Dataset) -> np.ndarray:
    """(frames, rows, columns) in HU, or in an MR's intensity."""
    stored = image.pixel_array.reshape(-1, int(image.Rows), int(image.Columns)).astype(np.int32)
    return stored - 1024 if image.Modality == "CT" else stored


def masks_of(values: np.ndarray, modality: str) -> dict[str, np.ndarray]:
    """The structures of `analysis`, by their masks' labels."""
    if modality == "CT":
        return {
            "Nodule": (values >= NODULE_AT) & (values < CALCIFIED_AT),
            "Coronary calcification": values >= CALCIFIED_AT,
        }
    return {"Whole tumour": values >= TUMOUR_AT, "Enhancing tumour": values >= ENHANCING_AT}


def _of_ct(values: np.ndarray, named: tuple, order: tuple, voxel_mm: tuple, probability: float) -> Analysis:
    found = masks_of(values, "CT")
    nodule, calcium = found["Nodule"], found["Coronary calcification"]
    key, of_calcium = _key(nodule, named, order), _key(calcium, named, order)
    volume = Measurement(
        VOLUME, float(nodule.sum() * np.prod(voxel_mm)), MM3, "Nodule volume", mask="Nodule", method="voxels", **key
    )
    box = _box(nodule[_index(nodule)])
    ends = (Point(box.x0, (box.y0 + box.y1) / 2), Point(box.x1, (box.y0 + box.y1) / 2))
    long_axis = Measurement(LONG_AXIS, (box.x1 - box.x0) * voxel_mm[2], chest.MM, "Nodule width", points=ends, **key)
    score = Measurement(
        AGATSTON,
        agatston(values, voxel_mm),
        chest.RATIO,
        "Agatston score",
        mask="Coronary calcification",
        method="Agatston scoring method",
        **of_calcium,
    )
    solitary = Finding(
        NODULE,
        "Lung nodule",
        probability,
        probability >= 0.5,
        0.5,
        box=box,
        site=chest.LUNG,
        laterality=chest.RIGHT,
        mask="Nodule",
        measurements=(volume, long_axis),
        tier="high" if probability >= 0.9 else "review",
        **key,
    )
    calcified = Finding(
        CALCIFICATION,
        "Coronary calcification",
        0.84,
        True,
        0.5,
        box=_box(calcium[_index(calcium)]),
        site=CORONARY,
        mask="Coronary calcification",
        tier="medium",
        **of_calcium,
    )
    effusion = Finding(EFFUSION, "Pleural effusion", 0.04, False, 0.5, site=PLEURA, **key)
    return _analysis(
        (solitary, calcified, effusion),
        (volume, score),
        (
            Mask("Nodule", ABNORMAL, NODULE_TYPE, named, nodule, chest.RIGHT, (255, 64, 64), order),
            Mask("Coronary calcification", ABNORMAL, CALCIFICATION, named, calcium, None, (255, 220, 64), order),
        ),
        Heatmap("Lung nodule", named, _glow(nodule), "where the model saw a nodule", order),
    )


def _of_mr(values: np.ndarray, named: tuple, order: tuple, voxel_mm: tuple, probability: float) -> Analysis:
    found = masks_of(values, "MR")
    whole, enhancing = found["Whole tumour"], found["Enhancing tumour"]
    key = _key(whole, named, order)
    measured = tuple(
        Measurement(VOLUME, float(mask.sum() * np.prod(voxel_mm)), MM3, f"{label} volume", mask=label, **key)
        for label, mask in found.items()
    )
    tumour = Finding(
        TUMOUR,
        "Tumour",
        probability,
        probability >= 0.5,
        0.5,
        box=_box(whole[_index(whole)]),
        site=BRAIN,
        laterality=chest.LEFT,
        mask="Whole tumour",
        measurements=measured[:1],
        **key,
    )
    return _analysis(
        (tumour,),
        measured,
        (
            Mask("Whole tumour", ABNORMAL, TUMOUR, named, whole, None, (64, 200, 255), order),
            Mask("Enhancing tumour", ABNORMAL, ENHANCING, named, enhancing, None, (255, 64, 64), order),
        ),
        Heatmap("Tumour", named, _glow(whole), "where the model saw a tumour", order),
    )


def agatston(values: np.ndarray, voxel_mm: tuple[float, float, float]) -> float:
    """Agatston et al. 1990, for one lesion in a slice: its area times a weight by its highest density."""
    score = 0.0
    for plane_hu in values:
        marked = plane_hu >= CALCIFIED_AT
        area = float(marked.sum() * voxel_mm[1] * voxel_mm[2])
        if area >= 1:
            score += area * min(4, int(plane_hu[marked].max()) // 100)
    return score * voxel_mm[0] / 3


def _analysis(findings: tuple, measurements: tuple, masks: tuple, heatmap: Heatmap) -> Analysis:
    return Analysis(
        chest.CARD.name,
        chest.CARD.version,
        findings=findings,
        measurements=measurements,
        masks=masks,
        heatmaps=(heatmap,),
    )


def _index(mask: np.ndarray) -> int:
    return int(mask.sum(axis=(1, 2)).argmax())


def _key(mask: np.ndarray, named: tuple, order: tuple) -> dict:
    """The slice with most of a structure."""
    n = _index(mask)
    return {"image": named[n], "frame": order[n] if order else 1}


def _box(mask: np.ndarray) -> Box:
    ys, xs = np.nonzero(mask)
    return Box(float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))


def _glow(mask: np.ndarray) -> np.ndarray:
    """A quarter of the resolution, brightest where most of the structure is."""
    count, rows, columns = mask.shape
    small = mask[:, : rows // 4 * 4, : columns // 4 * 4].reshape(count, rows // 4, 4, columns // 4, 4).mean(axis=(2, 4))
    return (small / max(float(small.max()), 1e-6)).astype(np.float32)


def _voxel_mm(images: tuple) -> tuple[float, float, float]:
    first = plane(images[0])
    last = plane(images[-1], frames(images[-1]))
    count = sum(frames(image) for image in images)
    apart = np.linalg.norm(np.subtract(last.position_mm, first.position_mm)) / max(1, count - 1)
    return (round(float(apart), 6), *first.spacing_mm)


def _chest(slices: int, rows: int, columns: int) -> np.ndarray:
    """12 bits, HU + 1024: body, lungs, a nodule in the right lung, calcium in a coronary artery."""
    w, v, u = _unit(slices, rows, columns)
    hu = np.where(((u - 0.5) / 0.46) ** 2 + ((v - 0.5) / 0.42) ** 2 < 1, 40.0, -1000.0)
    for centre in (0.28, 0.72):
        hu = np.where(((u - centre) / 0.16) ** 2 + ((v - 0.47) / 0.28) ** 2 < 1, -850.0, hu)
    nodule = ((u - 0.27) / 0.09) ** 2 + ((v - 0.42) / 0.07) ** 2 + ((w - 0.4) / 0.2) ** 2
    hu = np.where(nodule < 1, 100.0, hu)
    calcium = ((u - 0.56) / 0.05) ** 2 + ((v - 0.4) / 0.03) ** 2 + ((w - 0.6) / 0.15) ** 2
    hu = np.where(calcium < 1, 420.0, hu)
    return _noisy(hu + 1024)


def _head(slices: int, rows: int, columns: int) -> np.ndarray:
    w, v, u = _unit(slices, rows, columns)
    head = np.where(((u - 0.5) / 0.4) ** 2 + ((v - 0.5) / 0.44) ** 2 < 1, 500.0, 20.0)
    tumour = ((u - 0.62) / 0.15) ** 2 + ((v - 0.42) / 0.12) ** 2 + ((w - 0.5) / 0.3) ** 2
    head = np.where(tumour < 1, 800.0, head)
    return _noisy(np.where(tumour < 0.4, 1100.0, head))


def _unit(slices: int, rows: int, columns: int) -> np.ndarray:
    counts = np.array([slices, rows, columns], np.float32).reshape(3, 1, 1, 1)
    return (np.mgrid[0:slices, 0:rows, 0:columns] + np.float32(0.5)) / counts


def _noisy(values: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).uniform(-10, 10, values.shape)
    return np.clip(values + noise, 0, 4095).astype(np.uint16)


def _place(k: int, spacing_mm: tuple[float, float, float], oblique: bool) -> tuple[list[float], list[float]]:
    """Orientation and position of slice `k`; oblique: turned by 20 degrees about x, then 15 about z."""
    a, b = (np.radians(20), np.radians(15)) if oblique else (0.0, 0.0)
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    axes = turn @ tilt
    orientation = [round(float(v), 9) for v in (*axes[:, 0], *axes[:, 1])]
    position = np.array([-30.0, -42.0, -100.0]) + axes[:, 2] * spacing_mm[0] * k
    return orientation, [round(float(v), 6) for v in position]


def _common(seed: str, series: str, sop_class_uid: str, modality: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class_uid, generate_uid(entropy_srcs=[seed])
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.StudyInstanceUID = generate_uid(entropy_srcs=["study of a volume"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=["series", series])
    ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference", series])
    ds.PositionReferenceIndicator = ""
    for stem in ("Study", "Series", "Acquisition", "Content"):
        setattr(ds, f"{stem}Date", "20260302")
        setattr(ds, f"{stem}Time", "093000")
    body = "CHEST" if modality == "CT" else "BRAIN"
    ds.AccessionNumber, ds.StudyID, ds.StudyDescription = "ACC002", "2", f"{modality} {body.lower()}"
    ds.Modality, ds.SeriesDescription, ds.SeriesNumber = modality, "synthetic", 2
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber = "Synthetic", "Phantom", "1"
    ds.SoftwareVersions, ds.InstitutionName, ds.ReferringPhysicianName = "1", "Test Hospital", "Ref^Doctor"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Phantom^Volume", "SYN002", "19600101", "O"
    ds.BodyPartExamined = body
    ds.WindowCenter, ds.WindowWidth = ("-300", "1600") if modality == "CT" else ("600", "1200")
    return ds


def _pixels(ds: Dataset, values: np.ndarray) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape[-2:]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = values.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"


def _item(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _code(concept: object) -> Dataset:
    return _item(CodeValue=concept.value, CodingSchemeDesignator=concept.scheme_designator, CodeMeaning=concept.meaning)
