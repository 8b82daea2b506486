"""A copy is called as its original, unless that tells whom it shows."""

import pytest

from medgem_node.deid.file_name import FileNames
from medgem_node.deid.pseudonym import Pseudonyms

PSEUDONYMS = Pseudonyms(b"k" * 32)
NAMES = FileNames(PSEUDONYMS)
UID = "1.2.840.113619.2.55.3.1"


def named(*words: str) -> object:
    return lambda text: any(word in text.lower() for word in words)


def written(name: str, *words: str, uids: tuple[str, ...] = ()) -> str:
    return NAMES.written(name, named(*words), uids)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["IM0001", "series 1/IM-0001-0002.dcm", "a/b/c.d/v1.2.3.dcm", "Müller/1.ima", "2020/7/5"]
)
def test_a_name_that_tells_nothing_is_kept(name: str) -> None:
    assert written(name) == name


def test_a_component_that_names_somebody_becomes_a_digest_and_keeps_its_suffix() -> None:
    made = written("scans/Doe_John.DCM/doe.tar", "doe")

    first, second, third = made.split("/")
    assert first == "scans"
    assert len(second) == 20
    assert second.endswith(".DCM")
    assert len(third) == 16
    assert made == written("scans/Doe_John.DCM/doe.tar", "doe")
    assert made != FileNames(Pseudonyms(b"j" * 32)).written("scans/Doe_John.DCM/doe.tar", named("doe"), ())[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("mark", [".", "_", "-"])
def test_a_uid_becomes_that_of_the_copy_in_the_same_form(mark: str) -> None:
    uid = PSEUDONYMS.uid(UID)

    assert written(f"CT.{UID.replace('.', mark)}.dcm") == f"CT.{uid.replace('.', mark)}.dcm"


def test_a_short_uid_is_known_by_the_copy_that_it_belongs_to() -> None:
    assert written("1.2.3.dcm") == "1.2.3.dcm"
    assert written("1.2.3.dcm", uids=(PSEUDONYMS.uid("1.2.3"),)) == f"{PSEUDONYMS.uid('1.2.3')}.dcm"


def test_uids_stay_where_the_profile_keeps_them() -> None:
    name = f"{UID}/{UID}.1.dcm"

    assert FileNames(PSEUDONYMS, keeps_uids=True).written(name, named(), ())[0] == name  # type: ignore[arg-type]


def test_the_names_that_a_copy_may_have_had_hold_the_one_that_it_got() -> None:
    name = f"Doe_John/CT.{UID}.dcm"

    possible = list(NAMES.possible(name))

    assert len(possible) == 4
    assert written(name, "doe") in possible
    assert written(name) in possible


def test_a_name_beside_a_uid_is_found() -> None:
    assert "doe" not in written(f"doe_{UID}.dcm", "doe")
