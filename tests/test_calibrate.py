"""A site's films through the code of a job, up to the operating point; the detector alone is a stand-in."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset

from medgem_node import part10, testing
from medgem_node.card import ModelCard, find_card
from medgem_node.commands import calibrate as command
from medgem_node.config import Config
from medgem_node.detector.readers import projection
from medgem_node.errors import ConfigError, NotApplicable
from medgem_node.finding import Analysis, Box, Code, Finding
from medgem_node.site import read_site
from medgem_node.train import calibrate
from medgem_node.train.calibrate import analysed, calibrated, normals

LABEL, OUTPUT = "Nodule or mass", "nodule-or-mass"
BOX = Box(1, 1, 9, 9)


class Bright:
    """Marks a film once, as surely as its corner is bright; a black corner is refused."""

    def __init__(self, card: ModelCard, *_: object) -> None:
        self.card, self.identities = card, set[str]()

    def detect(self, instances: Sequence[Dataset]) -> Analysis:
        (instance,) = instances
        self.identities.add(str(instance.get("PatientID")))
        assert "DEMO" not in "".join(self.identities)
        score = float(projection.read(instance).pixels[0, 0]) / 4095
        if score == 0:
            raise NotApplicable("not-a-frontal-chest", "it is black")
        nodule = Code("27925004", "SCT", "Nodule")
        mark = Finding(nodule, LABEL, score, score > 0.5, 0.5, str(instance.SOPInstanceUID), BOX)
        absent = replace(mark, box=None, probability=1.0)
        return Analysis(self.card.name, self.card.version, candidates=(mark, absent))


@pytest.fixture
def card(config: Config, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    monkeypatch.setattr(calibrate, "create", Bright)
    shipped = find_card(config.models, "chest-xray")
    return replace(shipped, findings=({"label": LABEL, "output": OUTPUT, "operating_point": 0.5},))


def film(score: float, **attributes: object) -> Dataset:
    pixels = np.full((64, 64), 100, np.uint16)
    pixels[0, 0] = round(score * 4095)
    return testing.dx_instance(pixels, **attributes)


def write(folder: Path, name: str, instance: Dataset) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(part10.encode(instance))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twenty films of ten patients, marked at 0.05, 0.10 ... 1.00."""
    folder = tmp_path / "images"
    for n in range(20):
        write(folder, f"{n:02d}.dcm", film((n + 1) / 20, PatientID=f"DEMO-{n // 2}"))
    return folder


def test_the_point_lets_no_more_false_marks_through_than_wished(card: ModelCard, images: Path) -> None:
    site = calibrated(card, analysed(card, normals(images, "all")), 0.5, "2026-11-23")

    (point,) = site.points
    assert (site.films, site.patients, site.wished, site.manifest_sha256) == (20, 10, 0.5, card.manifest_sha256)
    assert point.operating_point == pytest.approx(0.55, abs=1e-3)  # the tenth mark, of twenty
    assert (point.output, point.false_marks) == (OUTPUT, 0.5)
    assert 0.1 < point.low < 0.5 < point.high < 0.9


def test_what_is_no_film_or_refused_or_there_twice_is_counted_and_not_used(card: ModelCard, images: Path) -> None:
    twin = film(0.9)
    write(images, "a.dcm", twin)
    write(images, "b.dcm", twin)
    write(images, "c.dcm", film(0.0))
    (images / "d.dcm").write_bytes(b"no DICOM")
    (images / "e.png").write_bytes(b"no PNG")

    films = analysed(card, normals(images, "all"))

    assert len(films.patients) == 21
    assert dict(films.left_out) == {"there twice": 1, "not-a-frontal-chest": 1, "unreadable": 2}


def test_pictures_without_a_header_are_films_each_of_its_own_patient(card: ModelCard, tmp_path: Path) -> None:
    deep = np.full((64, 64), 1000, np.uint16)
    deep[0, 0] = 2000
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.full((64, 64), 200, np.uint8)).save(tmp_path / "shallow.png")

    films = analysed(card, normals(tmp_path, "all"))

    assert len(set(films.patients)) == 2
    assert films.marks[OUTPUT] == [[pytest.approx(2000 / 4095)], [pytest.approx(200 / 4095)]]


def test_a_list_says_which_films_are_normal(images: Path, tmp_path: Path) -> None:
    listed = tmp_path / "normals.csv"
    listed.write_text("image,normal\n00.dcm,1\n01.dcm,0\n02.dcm,1\n", "utf-8")

    assert [p.name for p in normals(images, str(listed))] == ["00.dcm", "02.dcm"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,normal\n00.dcm,yes\n", "neither 0 nor 1"),
        ("image,normal\n99.dcm,1\n", "1 of its 1 normal images are not in"),
        ("film,normal\n00.dcm,1\n", "columns image and normal"),
        ("", "columns image and normal"),
        (None, "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(images: Path, tmp_path: Path, text: str | None, says: str) -> None:
    listed = tmp_path / "normals.csv"
    if text is not None:
        listed.write_text(text, "utf-8")

    with pytest.raises(ConfigError, match=says):
        normals(images, str(listed))


def test_films_whose_patients_cannot_be_told_apart_are_refused(card: ModelCard, tmp_path: Path) -> None:
    for n in range(20):
        write(tmp_path / "images", f"{n:02d}.dcm", film((n + 1) / 20, PatientID="DEMO-1"))

    with pytest.raises(ConfigError, match=r"of 1 patients.*at least 10"):
        calibrated(card, analysed(card, normals(tmp_path / "images", "all")), 0.5, "2026-11-23")


def test_too_few_films_are_refused_with_what_was_left_out(card: ModelCard, images: Path) -> None:
    write(images, "00.dcm", film(0.0))

    with pytest.raises(ConfigError, match=r"19 films could be analysed \(not-a-frontal-chest 1\); at least 20"):
        calibrated(card, analysed(card, normals(images, "all")), 0.5, "2026-11-23")


def test_a_model_without_marks_cannot_be_calibrated(card: ModelCard, images: Path) -> None:
    with pytest.raises(ConfigError, match="no marks"):
        analysed(replace(card, findings=()), normals(images, "all"))


def run(config: Config, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    parser.set_defaults(config=Path(config.source), data=None, set=[])
    command.add(lambda name, run, text: (parser.set_defaults(run=run), parser)[1])
    options = parser.parse_args(arguments)
    return int(options.run(options))


def test_the_command_writes_what_the_node_reads_and_only_when_asked(
    card: ModelCard, config: Config, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medgem_node.card.find_card", lambda *_: card)

    assert run(config, str(images), "--model", card.name, "--false-marks", "0.25") == 0
    assert read_site(config.data, card.name, card.version) is None
    assert run(config, str(images), "--model", card.name, "--false-marks", "0.25", "--write") == 0

    site = read_site(config.data, card.name, card.version)
    assert site is not None
    assert site.points[0].operating_point == pytest.approx(0.8, abs=1e-3)
    assert "DEMO" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "11", "many"])
def test_a_rate_that_is_none_is_refused(config: Config, rate: str) -> None:
    with pytest.raises(SystemExit):
        run(config, "IMAGES", "--model", "chest-xray", f"--false-marks={rate}")
