"""Runs one other de-identifier over a folder, with its own defaults; names are kept. Needs only that tool installed.

python tests/bench/deid_peers.py TOOL IN OUT
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path


def _dicognito(pairs: list[tuple[Path, Path]]) -> None:
    import pydicom
    from dicognito.anonymizer import Anonymizer

    anonymizer = Anonymizer()
    for source, target in pairs:
        with _held(source), pydicom.dcmread(source) as dataset:
            anonymizer.anonymize(dataset)
            dataset.save_as(target)


def _dicom_anonymizer(pairs: list[tuple[Path, Path]]) -> None:
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file

    for source, target in pairs:
        with _held(source):
            anonymize_dicom_file(str(source), str(target))


def _deid(pairs: list[tuple[Path, Path]]) -> None:
    from deid.dicom import get_identifiers, replace_identifiers

    for source, target in pairs:
        with _held(source):
            ids = get_identifiers([str(source)])
            made = replace_identifiers(dicom_files=[str(source)], ids=ids, save=False)
            for dataset in made:
                dataset.save_as(target)


def _dcm_anonymizer(pairs: list[tuple[Path, Path]]) -> None:
    from dcm_anon.pipeline import anonymize_file
    from dcm_anon.uid_mapper import UIDMapper

    mapper = UIDMapper()
    for source, target in pairs:
        with _held(source):
            anonymize_file(source, target, mapper)


def _dcmanon(pairs: list[tuple[Path, Path]]) -> None:
    from dcmanon import Anonymizer

    anonymizer = Anonymizer()
    for source, target in pairs:
        with _held(source):
            target.write_bytes(anonymizer.anonymize(str(source)))


TOOLS: dict[str, Callable[[list[tuple[Path, Path]]], None]] = {
    "dicognito": _dicognito,
    "dicom-anonymizer": _dicom_anonymizer,
    "deid": _deid,
    "dcm-anonymizer": _dcm_anonymizer,
    "dcmanon": _dcmanon,
}


class _held:  # noqa: N801
    """A file that the tool refuses is not written; the next one has its turn."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, _: object) -> bool:
        if isinstance(error, Exception):
            print(f"{self._source.name}: {type(error).__name__}", file=sys.stderr)
        return isinstance(error, Exception)


def main(tool: str, source: Path, target: Path) -> None:
    """Copy every file of `source`."""
    warnings.simplefilter("ignore")
    files = sorted(path for path in source.rglob("*") if path.is_file())
    pairs = [(path, target / path.relative_to(source)) for path in files]
    for _, made in pairs:
        made.parent.mkdir(parents=True, exist_ok=True)
    TOOLS[tool](pairs)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
