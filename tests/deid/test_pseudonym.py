import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.uid import UID, CTImageStorage

from medgem_node.deid.pseudonym import KEPT_UIDS, NotedPseudonyms, Pseudonyms, read_or_make_key
from medgem_node.errors import ConfigError


def test_a_key_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "pseudonym.key"

    first, second = read_or_make_key(path), read_or_make_key(path)

    assert first == second
    assert len(first) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["pseudonym.key"]


def test_two_first_starts_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"

    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: read_or_make_key(path), range(32)))

    assert len(keys) == 1


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    path.write_bytes(bytes(32))
    path.chmod(0o640)

    with pytest.raises(ConfigError, match="chmod 600"):
        read_or_make_key(path)


def test_a_short_key_is_refused_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pseudonym.key"
    path.write_bytes(b"short")
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="backup"):
        read_or_make_key(path)
    assert path.read_bytes() == b"short"


def test_a_folder_that_cannot_be_used_is_an_error_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="check the folder"):
        read_or_make_key(tmp_path / "file" / "pseudonym.key")


def test_a_pseudonymous_uid_is_valid_and_the_same_in_every_process() -> None:
    here = Pseudonyms(b"k" * 32).uid("1.2.3.4")
    code = "from medgem_node.deid.pseudonym import Pseudonyms; print(Pseudonyms(b'k'*32).uid('1.2.3.4'), end='')"

    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert here == there
    assert UID(here).is_valid
    assert here.startswith("2.25.")


def test_well_known_uids_mean_the_same_everywhere_and_stay(pseudonyms: Pseudonyms) -> None:
    talairach = "1.2.840.10008.1.4.1.1"

    assert pseudonyms.uid(CTImageStorage) == CTImageStorage
    assert pseudonyms.uid(talairach) == talairach
    assert pseudonyms.uid("1.2.840.10008.5.1.4.1.1.2.20200705.1") != "1.2.840.10008.5.1.4.1.1.2.20200705.1"


def test_padding_makes_no_other_pseudonym(pseudonyms: Pseudonyms) -> None:
    assert pseudonyms.uid("1.2.3\0") == pseudonyms.uid("1.2.3")
    assert pseudonyms.patient_id("42 ") == pseudonyms.patient_id("42")


def test_the_originals_are_found_again_from_the_originals(pseudonyms: Pseudonyms) -> None:
    originals = ["1.2.3.1", "1.2.3.2"]

    found = pseudonyms.uid_map(originals)

    assert [found[pseudonyms.uid(original)] for original in originals] == originals


def test_another_key_issuer_or_kind_of_value_makes_another_pseudonym(pseudonyms: Pseudonyms) -> None:
    other = Pseudonyms(b"x" * 32)

    assert pseudonyms.uid("1.2.3") != other.uid("1.2.3")
    assert pseudonyms.patient_id("42", "A") != pseudonyms.patient_id("42", "B")
    assert pseudonyms.patient_id("A", "B") != pseudonyms.patient_id("AB", "")
    assert pseudonyms.digest("patient", "42") != pseudonyms.digest("study", "42")
    assert pseudonyms.accession("42") not in pseudonyms.patient_id("42")


def test_pseudonyms_fit_their_vr_and_patients_without_an_id_stay_apart(pseudonyms: Pseudonyms) -> None:
    assert len(pseudonyms.accession("A" * 16)) == 16
    assert len(pseudonyms.patient_id("A" * 64)) == 29
    assert pseudonyms.name("42").startswith("ANON^")
    assert pseudonyms.patient_id("") == pseudonyms.name(" ") == pseudonyms.accession("") == ""


def test_the_pseudonyms_of_a_key_are_those_of_every_version_before(pseudonyms: Pseudonyms) -> None:
    """Taken from version 0.1; a node that is updated knows its patients still."""
    assert pseudonyms.uid("1.2.3.4") == "2.25.168934886183637939328909076285572017293"
    assert pseudonyms.patient_id("ZQ-448812", "OLDTOWN") == "65733342673047089967255647224"
    assert pseudonyms.accession("ACC9917733") == "0155744943515460"
    assert pseudonyms.name("ZQ-448812", "OLDTOWN") == "ANON^bdb09e77a4"
    assert pseudonyms.digest("job", "a|b") == "f64d1b2ded21e56111b06c5d54ea01c3d02a93603766bf7309c81b93232c631b"


def test_a_uid_that_was_forgotten_is_made_again_the_same(pseudonyms: Pseudonyms) -> None:
    first = pseudonyms.uid("1.2.3")

    for n in range(KEPT_UIDS):
        pseudonyms.uid(f"1.2.3.{n}")

    assert len(pseudonyms._uids) <= KEPT_UIDS
    assert pseudonyms.uid("1.2.3") == first


def test_another_process_gets_the_same_pseudonyms(pseudonyms: Pseudonyms) -> None:
    with ProcessPoolExecutor(1) as pool:
        there = pool.submit(pseudonyms.uid, "1.2.3").result()

    assert there == pseudonyms.uid("1.2.3")


def test_a_patient_is_shifted_alike_in_every_study_and_never_by_nothing(pseudonyms: Pseudonyms) -> None:
    shifts = {pseudonyms.days(f"{n}") for n in range(5000)}

    assert pseudonyms.days("42", "A", "1.2.3") == pseudonyms.days("42 ", "A", "1.2.4")
    assert pseudonyms.days("42", "A") != pseudonyms.days("42", "B")
    assert -3650 <= min(shifts) < -3600
    assert -60 < max(shifts) <= -31


def test_a_patient_without_an_id_is_shifted_by_his_study(pseudonyms: Pseudonyms) -> None:
    assert pseudonyms.days("", "", "1.2.3") == pseudonyms.days(" ", "A", "1.2.3")
    assert pseudonyms.days("", "", "1.2.3") != pseudonyms.days("", "", "1.2.4")
    assert pseudonyms.days("", "", "1.2.3") != pseudonyms.days("1.2.3")


def test_noted_pseudonyms_are_the_same_and_say_what_they_stood_for(pseudonyms: Pseudonyms) -> None:
    noted = NotedPseudonyms(b"k" * 32)

    made = noted.uid("1.2.3\0"), noted.patient_id("42 ", "A"), noted.accession("7")

    assert made == (pseudonyms.uid("1.2.3"), pseudonyms.patient_id("42", "A"), pseudonyms.accession("7"))
    assert (noted.uids, noted.accessions) == ({"1.2.3": made[0]}, {"7": made[2]})
    assert noted.patients == {("42", "A"): made[1]}
