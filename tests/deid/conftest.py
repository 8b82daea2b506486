"""A film with an identity everywhere, made in code."""

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from stranger import INSTANCE, SERIES, STUDY

from medgem_node.deid.pseudonym import Pseudonyms


@pytest.fixture
def pseudonyms() -> Pseudonyms:
    return Pseudonyms(b"k" * 32)


@pytest.fixture
def film() -> Dataset:
    """A small computed radiograph of Zebulon Quartermain."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.SourceApplicationEntityTitle = "QUARTERM_AE"
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = INSTANCE, SERIES, STUDY
    ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = "Quartermain^Zebulon", "ZQ-448812", "OLDTOWN"
    ds.PatientBirthDate, ds.PatientSex, ds.StudyDate, ds.StudyTime = "19510314", "M", "20200705", "171157"
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = "ACC9917733", "S1", "Brombeer^Hedwig"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition, ds.PatientOrientation = "CR", "CHEST", "PA", ["L", "F"]
    ds.ImageType, ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = ["DERIVED", "PRIMARY"], "Foundry", 1, 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 6, 8, 16, 12, 11
    ds.PixelSpacing, ds.WindowCenter, ds.WindowWidth = [0.2, 0.2], 2048, 4096
    ds.add_new(0x7FE00010, "OW", np.arange(48, dtype="<u2").tobytes())
    return ds
