"""A site's own operating points, chosen on films that it knows to be free of lesions.

The films take the path of a job: a de-identified copy, then the detector. Nothing of them is kept but the scores.
"""

from __future__ import annotations

import csv
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from medgem_node import part10
from medgem_node.card import ModelCard
from medgem_node.deid.profile import deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.detector.detector import create
from medgem_node.errors import CannotDeidentify, ConfigError, NotAnalysable, NotUnderstood
from medgem_node.finding import Analysis
from medgem_node.inbox import patient
from medgem_node.seams import Detector
from medgem_node.site import Point, SiteCalibration
from medgem_node.train.choose import false_marks_at, operating_point
from medgem_node.train.metrics.froc import Scored

LEAST_FILMS = 20
LEAST_PATIENTS = 10
"""Fewer say too little of how often a site's films are marked."""
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_SEED = 20261123


@dataclass(frozen=True, slots=True, eq=False)
class Films:
    """The marks of the films that were analysed, by the output that found them; why the others were not."""

    patients: tuple[str, ...]
    marks: dict[str, list[list[float]]]
    left_out: Counter[str]

    def scored(self, output: str) -> list[Scored]:
        """As false marks, each: these films have no lesion."""
        none = np.empty(0)
        every = zip(self.patients, self.marks[output], strict=True)
        return [Scored(patient, none, np.array(scores, float)) for patient, scores in every]


def normals(folder: Path, listed: str) -> list[Path]:
    """The films of a folder that are free of lesions: `all`, or those that a CSV (image, normal) gives a 1.

    Raises ConfigError, also for a name that is not there: it may be the very film that is meant.
    """
    if listed == "all":
        return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    try:
        with open(listed, newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise ConfigError(f"{listed}: cannot be read ({type(exc).__name__}); name a CSV file, or `all`") from exc
    if not rows or not {"image", "normal"} <= rows[0].keys():
        raise ConfigError(f"{listed}: there must be the columns image and normal")
    if odd := {row["normal"] for row in rows} - {"0", "1"}:
        raise ConfigError(f"{listed}: {len(odd)} values of normal are neither 0 nor 1")
    paths = [folder / row["image"] for row in rows if row["normal"] == "1"]
    if missing := sum(not path.is_file() for path in paths):
        raise ConfigError(f"{listed}: {missing} of its {len(paths)} normal images are not in {folder}")
    return paths


def analysed(card: ModelCard, paths: Sequence[Path], step: Callable[[], object] = lambda: None) -> Films:
    """Every film through the model, each once however often it is there; `step` is called after each."""
    outputs = {f["label"]: f["output"] for f in card.findings if "output" in f}
    if not outputs:
        raise ConfigError(f"{card.name} {card.version} has no marks whose operating point could be chosen")
    detector, pseudonyms = create(card), Pseudonyms(secrets.token_bytes(32))
    films = Films((), {output: [] for output in outputs.values()}, Counter())
    seen: set[str] = set()
    patients: list[str] = []
    for path in paths:
        for who, analysis in _film(path, detector, pseudonyms, seen, films.left_out):
            patients.append(who)
            for label, output in outputs.items():
                own = [f.probability for f in analysis.candidates if f.label == label and f.box]
                films.marks[output].append(own)
        step()
    return Films(tuple(patients), films.marks, films.left_out)


def calibrated(card: ModelCard, films: Films, false_marks: float, date: str) -> SiteCalibration:
    """The operating point of each kind of mark. Raises ConfigError if the films are too few."""
    if len(films.patients) < LEAST_FILMS:
        why = ", ".join(f"{reason} {n}" for reason, n in sorted(films.left_out.items())) or "none left out"
        raise ConfigError(f"{len(films.patients)} films could be analysed ({why}); at least {LEAST_FILMS} are needed")
    if len(set(films.patients)) < LEAST_PATIENTS:
        raise ConfigError(
            f"the films are of {len(set(films.patients))} patients, by name and number; at least {LEAST_PATIENTS} are "
            "needed, or no interval can be stated: give films whose patients can be told apart"
        )
    return SiteCalibration(
        model=card.name,
        version=card.version,
        manifest_sha256=card.manifest_sha256,
        date=date,
        films=len(films.patients),
        patients=len(set(films.patients)),
        wished=float(false_marks),
        points=tuple(_point(output, films.scored(output), false_marks) for output in films.marks),
    )


def _point(output: str, films: Sequence[Scored], false_marks: float) -> Point:
    point = operating_point(films, false_marks)
    rate = false_marks_at(films, point, seed=_SEED)
    return Point(output, point, float(rate["value"]), float(rate["low"]), float(rate["high"]))


def _film(
    path: Path, detector: Detector, pseudonyms: Pseudonyms, seen: set[str], left_out: Counter[str]
) -> Iterator[tuple[str, Analysis]]:
    """Patient (a pseudonym) and analysis of one file; nothing if it was seen, or cannot be analysed."""
    try:
        who, uid, instance = _picture(path) if path.suffix.lower() in PICTURES else _dicom(path, pseudonyms)
        if uid in seen:
            left_out["there twice"] += 1
            return
        seen.add(uid)
        yield who, detector.detect([instance])
    except NotAnalysable as exc:
        left_out[exc.reason] += 1
    except CannotDeidentify:
        left_out["not-deidentified"] += 1
    except (NotUnderstood, OSError):
        left_out["unreadable"] += 1


def _dicom(path: Path, pseudonyms: Pseudonyms) -> tuple[str, str, Dataset]:
    data = path.read_bytes()
    original = part10.decode(data)
    part10.check(original, ("SOPInstanceUID",))
    copy = part10.decode(deidentify_bytes(data, pseudonyms))
    return pseudonyms.digest("patient", patient(original)), str(original.get("SOPInstanceUID")), copy


def _picture(path: Path) -> tuple[str, str, Dataset]:
    """A picture file as the radiograph that it is said to be: it has no header that could tell, and no patient."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture if picture.mode.startswith("I") else picture.convert("L"))
    stored = np.clip(pixels, 0, 65535).astype("<u2")
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = DigitalXRayImageStorageForPresentation, generate_uid(prefix=None)
    made.Modality, made.PhotometricInterpretation, made.SamplesPerPixel = "DX", "MONOCHROME2", 1
    made.Rows, made.Columns = stored.shape
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.PixelData = stored.tobytes()
    digest = hashlib.sha256(made.PixelData).hexdigest()
    return digest, digest, made
