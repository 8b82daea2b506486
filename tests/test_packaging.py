"""What a wheel of this checkout holds, and what it must not."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zipfile import ZipFile

import pytest

CHECKOUT = Path(__file__).parent.parent
PARTS = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "conf", "models", "medgem_node", "tests", "docs")
SHARE = "share/medgem-node/"
IMAGES = (".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".nii", ".gz", ".npy", ".npz")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin")

pytestmark = pytest.mark.slow


def data_files() -> dict[str, list[str]]:
    """Folder in the installation to files of the checkout, globs resolved; a file that is missing stays listed."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(CHECKOUT / "setup.cfg", "utf-8")
    return {
        folder: [f for pattern in listed.split() for f in _resolved(pattern)]
        for folder, listed in parser["options.data_files"].items()
    }


def _resolved(pattern: str) -> list[str]:
    if "*" not in pattern:
        return [pattern]
    return sorted(str(p.relative_to(CHECKOUT)) for p in CHECKOUT.glob(pattern) if p.is_file())


def _reason_not_to_build() -> str:
    try:
        if int(version("setuptools").split(".")[0]) < 77:
            return f"setuptools {version('setuptools')} is too old to build this project; it needs 77"
    except PackageNotFoundError:
        return "setuptools is not installed, and a test downloads nothing"
    missing = [f for files in data_files().values() for f in files if not (CHECKOUT / f).is_file()]
    return f"the model is not complete: {', '.join(missing)}" if missing else ""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    if reason := _reason_not_to_build():
        pytest.skip(reason)
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        path = CHECKOUT / part
        if path.is_dir():
            shutil.copytree(path, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.part"))
        else:
            shutil.copyfile(path, source / part)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    made = subprocess.run([*command, "--wheel-dir", str(out), str(source)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    (path,) = out.glob("*.whl")
    with ZipFile(path) as opened:
        yield opened


def test_the_wheel_holds_what_the_program_reads(wheel: ZipFile) -> None:
    names = set(wheel.namelist())

    for file in (CHECKOUT / "medgem_node").rglob("*"):
        if file.suffix in (".py", ".json", ".typed") and "__pycache__" not in file.parts:
            assert str(file.relative_to(CHECKOUT)) in names


def test_the_wheel_holds_configuration_and_model(wheel: ZipFile) -> None:
    names = wheel.namelist()

    for folder, files in data_files().items():
        for file in files:
            assert any(n.endswith(f".data/data/{folder}/{Path(file).name}") for n in names), file


def test_the_wheel_holds_its_licence(wheel: ZipFile) -> None:
    (licence,) = [n for n in wheel.namelist() if n.endswith("licenses/LICENSE")]

    assert wheel.read(licence) == (CHECKOUT / "LICENSE").read_bytes()


def test_the_wheel_holds_no_test_image_or_pickle(wheel: ZipFile) -> None:
    names = wheel.namelist()

    assert not [n for n in names if n.startswith(("tests/", "docs/")) or "/tests/" in n]
    assert not [n for n in names if n.lower().endswith((*IMAGES, *PICKLES))]
    assert not [n for n in names if wheel.read(n)[128:132] == b"DICM"]


def test_every_shipped_file_of_a_model_is_listed() -> None:
    listed = {file for files in data_files().values() for file in files}

    for file in (CHECKOUT / "models").rglob("*"):
        if file.is_file():
            assert str(file.relative_to(CHECKOUT)) in listed
