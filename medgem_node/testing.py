"""What tests and the demo need: a small PACS, invented images, patience."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)
from pynetdicom import AE, evt

from medgem_node import part10
from medgem_node.config import shipped
from medgem_node.dimse import contexts, scu
from medgem_node.errors import MedgemError
from medgem_node.node import die_with_parent, now
from medgem_node.peer import Peer

_IDENTITY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"),
    *("StudyID", "StudyDescription", "ReferringPhysicianName", "InstitutionName"),
)


@dataclass(frozen=True)
class Arrival:
    """One instance that the PACS took, and when."""

    dataset: Dataset
    at: datetime
    calling_ae: str


@dataclass
class FakePacs(AbstractContextManager["FakePacs"]):
    """A C-STORE SCP that keeps what it takes, in memory and as files in `folder`.

    `refuse` are SOP Class UIDs that it does not accept; `status` is what it answers to C-STORE.
    """

    folder: Path | None = None
    title: str = "DEMOPACS"
    port: int = 0
    refuse: Sequence[str] = ()
    status: Callable[[Dataset], int] = lambda _: 0x0000
    arrivals: list[Arrival] = field(default_factory=list)

    def __enter__(self) -> FakePacs:
        ae = AE(ae_title=self.title)
        ae.supported_contexts = [c for c in contexts.accepted() if c.abstract_syntax not in self.refuse]
        ae.maximum_associations = 50
        self._server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = self._server.socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()

    @property
    def peer(self) -> Peer:
        """How to call it."""
        return Peer(self.title, "127.0.0.1", self.port)

    @property
    def url(self) -> str:
        """How a configuration writes it."""
        return f"dimse://{self.title}@127.0.0.1:{self.port}"

    @property
    def instances(self) -> dict[str, Dataset]:
        """What a PACS would hold: of each SOP Instance UID the last that came."""
        return {str(a.dataset.SOPInstanceUID): a.dataset for a in list(self.arrivals)}

    def of_study(self, study_instance_uid: str) -> list[Dataset]:
        """The instances of one study."""
        return [d for d in self.instances.values() if d.StudyInstanceUID == study_instance_uid]

    def _store(self, event: evt.Event) -> int:
        data = event.encoded_dataset()
        dataset = part10.decode(data)
        if status := self.status(dataset):
            return status
        if self.folder is not None:
            folder = self.folder / str(dataset.StudyInstanceUID)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{dataset.Modality}-{dataset.SOPInstanceUID}.dcm").write_bytes(data)
        self.arrivals.append(Arrival(dataset, now(), event.assoc.requestor.primitive.calling_ae_title.strip()))
        return 0x0000


@dataclass
class RunningNode(AbstractContextManager["RunningNode"]):
    """`medgem-node start` in processes of its own, with everything below `folder`; its log is `folder/node.log`."""

    folder: Path
    destinations: Mapping[str, str]
    settings: Sequence[str] = ()
    port: int = 0

    def __enter__(self) -> RunningNode:
        self.port = self.port or _free_port()
        conf = self.folder / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        rules = (shipped("conf") / "rules.toml").read_text("utf-8")
        names = json.dumps(list(self.destinations))
        (conf / "rules.toml").write_text(rules.replace('send_to = ["PACS"]', f"send_to = {names}"), "utf-8")
        lines = ["[node]", f"data = {json.dumps(str(self.folder / 'node'))}", "[receive]", 'host = "127.0.0.1"']
        lines += [f"port = {self.port}", "[pipeline]", "quiet_seconds = 1.0", "tick_seconds = 0.2", "[destinations]"]
        lines += [f"{name} = {json.dumps(url)}" for name, url in self.destinations.items()]
        (conf / "node.toml").write_text("\n".join(lines) + "\n", "utf-8")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def config_file(self) -> Path:
        """Its configuration."""
        return self.folder / "conf" / "node.toml"

    @property
    def log_file(self) -> Path:
        """What it says."""
        return self.folder / "node.log"

    @property
    def peer(self) -> Peer:
        """How to call it."""
        return Peer("MEDGEM", "127.0.0.1", self.port)

    def start(self) -> None:
        """Start it, and wait until it answers C-ECHO."""
        command = [sys.executable, "-m", "medgem_node.cli", "start", "--config", str(self.config_file)]
        for setting in self.settings:
            command += ["--set", setting]
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
            )
        wait_for(self._answers, 60)

    def kill(self) -> None:
        """SIGKILL to every process of it at once, as a power cut would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end, as `systemctl stop` does."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the node ended at once; see {self.log_file}")
        try:
            scu.echo(self.peer, "MODALITY", timeout_seconds=5)
        except MedgemError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What `condition` answers as soon as it is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        pause.wait(0.05)
    raise TimeoutError(f"not within {seconds} s")


def chest_film(seed: int = 0, rows: int = 512, columns: int = 512) -> NDArray[np.uint16]:
    """A drawing of a frontal chest film, 12 bit, bright = dense: (rows, columns) uint16. Not a patient, and no test
    of a model's accuracy; it only has lungs, a heart, and noise where a film has them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns]
    x, y = (x + 0.5) / columns, (y + 0.5) / rows

    def oval(cx: float, cy: float, rx: float, ry: float) -> NDArray[np.float64]:
        edge = 12 * (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 - 1)
        inside: NDArray[np.float64] = 1 / (1 + np.exp(np.clip(edge, -30, 30)))
        return inside

    body = oval(0.5, 0.62, 0.47, 0.66)
    lungs = np.maximum(oval(0.31, 0.47, 0.15, 0.30), oval(0.70, 0.47, 0.14, 0.29))
    heart = oval(0.54, 0.62, 0.17, 0.15)
    spine = oval(0.5, 0.5, 0.05, 0.6)
    film = 0.08 + 0.62 * body - 0.45 * lungs * (1 - heart) + 0.12 * heart + 0.10 * spine
    film += 0.03 * np.sin(60 * y + 8 * (x - 0.5) ** 2 * 60) * lungs  # ribs
    film += rng.normal(0, 0.01, film.shape)
    pixels: NDArray[np.uint16] = np.clip(film * 4095, 0, 4095).astype(np.uint16)
    return pixels


def dx_instance(pixels: NDArray[np.uint16] | None = None, **attributes: Any) -> Dataset:
    """A Digital X-Ray image for presentation of an invented patient; `attributes` replace or (None) remove any."""
    pixels = chest_film() if pixels is None else pixels
    dataset = _invented(DigitalXRayImageStorageForPresentation, "DX")
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.PatientOrientation, dataset.ImageLaterality = ["L", "F"], "U"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.ImagerPixelSpacing = dataset.PixelSpacing = [round(350 / pixels.shape[0], 4)] * 2
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape, dataset.LossyImageCompression = "IDENTITY", "00"
    dataset.BurnedInAnnotation, dataset.DetectorType = "NO", "DIRECT"
    dataset.PositionerType, dataset.AcquisitionContextSequence = "NONE", []
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    _set_pixels(dataset, pixels)
    return _with(dataset, attributes)


def ct_study(slices: int = 3, rows: int = 64, columns: int = 64, **attributes: Any) -> list[Dataset]:
    """An axial CT series of an invented patient, foot to head."""
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    made = []
    for n in range(slices):
        dataset = _invented(CTImageStorage, "CT")
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.InstanceNumber = n + 1
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * n]
        dataset.PixelSpacing, dataset.SliceThickness, dataset.KVP = [0.7, 0.7], 2.5, 120
        dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
        _set_pixels(dataset, np.full((rows, columns), 1000 + n, np.uint16))
        made.append(_with(dataset, attributes))
    return made


def _invented(sop_class: str, modality: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.PatientName, dataset.PatientID = "Invented^Ida", "DEMO-4711"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19600229", "F", "066Y"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = "20260301"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = "101500"
    dataset.AccessionNumber, dataset.StudyID, dataset.StudyDescription = "ACC-0815", "1", "Demonstration"
    dataset.ReferringPhysicianName, dataset.InstitutionName = "Referrer^Rita", "Invented Hospital"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Invented", "Film 1"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = modality, 1, 1
    return dataset


def _set_pixels(dataset: Dataset, pixels: NDArray[np.uint16]) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"


def _with(dataset: Dataset, attributes: dict[str, Any]) -> Dataset:
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def real_film(name: str = "RG1_UNCR.dcm") -> Dataset:
    """A real chest radiograph of the package `pydicom-data`, under an invented identity (extra `demo`).

    It is a Philips computed radiograph with many round opacities; its Pixel Spacing of zero is taken out.
    """
    from pydicom.data import get_testdata_file

    path = get_testdata_file(name, download=False)
    if path is None:
        raise FileNotFoundError(f"{name} is not there; pip install 'medgem-node[demo]'")
    dataset = dcmread(str(path))
    study, series = generate_uid(), generate_uid()
    invented = _invented(str(dataset.SOPClassUID), str(dataset.Modality))
    for keyword in _IDENTITY:
        setattr(dataset, keyword, invented[keyword].value)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study, series, generate_uid()
    for keyword in ("OtherPatientIDs", "ImageComments", "SourceImageSequence"):
        if keyword in dataset:
            del dataset[keyword]
    dataset.BodyPartExamined = "CHEST"
    if "PixelSpacing" in dataset and not all(float(v) > 0 for v in dataset.PixelSpacing):
        del dataset.PixelSpacing
    return _with(dataset, {})
