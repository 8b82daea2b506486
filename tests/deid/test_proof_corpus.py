"""Correct copies of real, odd files raise no alarm, under each option.

Pixels stay as they are: reading text from them takes nine tenths of the time, and holds files that can be proved.
"""

import logging
import warnings
from pathlib import Path

import pytest

from medgem_node.deid.image import Image
from medgem_node.deid.options import Option, Profile
from medgem_node.deid.profile import Deidentifier
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import CannotDeidentify, LeakFound

CORPUS = Path("/work/shared/data/dicom_corpus")
PROFILES = [frozenset[Option](), *(frozenset({option}) for option in Option), frozenset(Option)]


def outcomes(options: frozenset[Option]) -> tuple[int, int, list[str]]:
    """How many files were copied and held, and what was said of whose copies."""
    deidentifier = Deidentifier(Pseudonyms(b"k" * 32), Profile(options, pixels="trust"))
    processed, held, alarms = 0, 0, []
    for path in sorted(path for path in CORPUS.rglob("*") if path.is_file()):
        try:
            deidentifier.copy(path.read_bytes())
            processed += 1
        except LeakFound as exc:
            alarms.append(f"{path.name}: {exc}")
        except CannotDeidentify:
            held += 1
    return processed, held, alarms


@pytest.mark.acceptance
@pytest.mark.skipif(not CORPUS.is_dir(), reason="the folder of odd files is not here")
@pytest.mark.parametrize("options", PROFILES, ids=lambda options: ", ".join(sorted(options)) or "basic")
def test_no_copy_of_a_real_file_raises_an_alarm(options: frozenset[Option], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "cleaned", lambda image, *_: (image, "not examined"))
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the files' own faults
        processed, held, alarms = outcomes(options)
    logging.disable(logging.NOTSET)

    print(f"processed {processed}, held {held}, alarms {len(alarms)}")
    assert processed > held
    assert alarms == []
