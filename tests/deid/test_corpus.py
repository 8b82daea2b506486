"""Nothing planted is in the copies, what must stay stays, and references lead on: in eight character sets."""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
from letters import CHARSETS
from planted import FEW, OBJECTS, Corpus, rows, write_corpus
from pydicom import Dataset, dcmread
from scoring import score

from medgem_node import part10
from medgem_node.deid.options import BASIC, Option, Profile
from medgem_node.deid.profile import deidentify_bytes
from medgem_node.deid.pseudonym import Pseudonyms

_COLUMN = {
    Option.RETAIN_UIDS: "RtnUIDs",
    Option.RETAIN_DEVICE_IDENTITY: "RtnDevId",
    Option.RETAIN_INSTITUTION_IDENTITY: "RtnInstId",
    Option.RETAIN_PATIENT_CHARACTERISTICS: "RtnPatChars",
    Option.RETAIN_FULL_DATES: "RtnLongFull",
}
_OPTIONS = {
    int(row[0], 16): row[5] or {}
    for row in json.loads(files("medgem_node.deid").joinpath("table_e1.json").read_text("utf-8"))["rows"]
    if "x" not in row[0] and row[0] != "PRIVATE"
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Corpus]:
    folder = tmp_path_factory.mktemp("planted")
    return folder, write_corpus(folder, FEW)


@pytest.fixture(scope="module")
def one(corpus: tuple[Path, Corpus]) -> bytes:
    return (corpus[0] / "latin/ct1.dcm").read_bytes()


def copied(corpus: tuple[Path, Corpus], target: Path, profile: Profile = BASIC) -> Path:
    folder, written = corpus
    pseudonyms = Pseudonyms(b"k" * 32)
    for file in written.core:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        (target / file).write_bytes(deidentify_bytes((folder / file).read_bytes(), pseudonyms, profile))
    return target


def test_the_corpus_holds_each_object_and_character_set_and_every_planted_value(corpus: tuple[Path, Corpus]) -> None:
    folder, written = corpus

    found = score(written, folder)

    assert found.leaks == written.planted
    assert not found.lost
    assert not found.broken
    assert FEW.keys() == CHARSETS.keys()
    assert set(OBJECTS) == {name for names in FEW.values() for name in names}
    assert {p.keyword for p in written.planted if p.where == "top"} >= {
        k for _, k, vr, _ in rows() if vr in ("PN", "LO")
    }


def test_the_basic_profile_lets_no_planted_value_out_and_breaks_no_reference(
    corpus: tuple[Path, Corpus], tmp_path: Path
) -> None:
    found = score(corpus[1], copied(corpus, tmp_path))

    assert Counter((leak.where, leak.keyword) for leak in found.leaks) == {}
    assert found.lost == ()
    assert found.broken == ()
    assert found.dropped == ()
    assert found.written == len(corpus[1].core)


@pytest.mark.parametrize("option", _COLUMN)
def test_an_option_keeps_its_rows_and_only_those(one: bytes, option: Option) -> None:
    original = part10.decode(one)
    basic = part10.decode(deidentify_bytes(one, Pseudonyms(b"k" * 32)))

    copy = part10.decode(deidentify_bytes(one, Pseudonyms(b"k" * 32), Profile(frozenset({option}))))

    kept = {tag for tag, options in _OPTIONS.items() if options.get(_COLUMN[option]) == "K"}
    plain = [t for t in kept if t in original and original[t].VR not in ("SQ", "AS")]  # those are cleaned inside
    assert plain
    assert {t for t in plain if _text(copy, t) != _text(original, t)} == set()
    others = [t for t in _OPTIONS if t in original and t not in kept and _text(original, t)]
    assert {t for t in others if t in copy and _text(copy, t) == _text(original, t)} == {
        t for t in others if t in basic and _text(basic, t) == _text(original, t)
    }


def _text(ds: Dataset, tag: int) -> str:
    return str(ds[tag].value) if tag in ds else ""


def test_what_the_corpus_says_is_read_back_by_pydicom(corpus: tuple[Path, Corpus]) -> None:
    assert all(dcmread(corpus[0] / file).PatientID for file in corpus[1].core)
