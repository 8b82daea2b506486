import base64
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medgem_node.deid.keyring import KeyRing, key_source
from medgem_node.deid.pseudonym import Pseudonyms
from medgem_node.errors import ConfigError

KEY = bytes(range(32))
IN_BASE64 = base64.b64encode(KEY).decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "pseudonym.key"


def by_command(*arguments: str) -> bytes:
    source = key_source("", arguments, {})
    assert source is not None
    return source()


def test_the_key_file_of_today_is_epoch_1(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(KEY)
    file.chmod(0o600)

    ring = KeyRing.open(file)

    assert ring.epoch == 1
    assert ring.current().uid("1.2.3") == ring.node.uid("1.2.3") == Pseudonyms(KEY).uid("1.2.3")
    assert [path.name for path in file.parent.iterdir()] == ["pseudonym.key"]


def test_after_a_rotation_other_pseudonyms_leave_and_the_older_come_back(file: Path) -> None:
    ring = KeyRing.open(file)
    before = ring.current().uid("1.2.3")

    assert ring.rotate() == 2

    after = ring.current().uid("1.2.3")
    assert before != after
    assert ring.uid_map(["1.2.3"]) == {before: "1.2.3", after: "1.2.3"}
    assert ring.of(1).uid("1.2.3") == ring.node.uid("1.2.3") == before


def test_an_epoch_outlives_the_process_and_its_key_is_only_for_its_owner(file: Path) -> None:
    ring = KeyRing.open(file)
    ring.rotate()
    ring.rotate()

    again = KeyRing.open(file)

    assert again.epoch == 3
    assert again.uid_map(["1.2.3"]) == ring.uid_map(["1.2.3"])
    assert {path.name: path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == dict.fromkeys(
        ("pseudonym.key", "pseudonym.2.key", "pseudonym.3.key"), 0o600
    )


def test_a_rotation_by_another_process_is_seen_without_a_restart(file: Path) -> None:
    running, other = KeyRing.open(file), KeyRing.open(file)

    other.rotate()

    assert running.epoch == 2
    assert running.current().uid("1.2.3") == other.current().uid("1.2.3")


def test_rotations_at_once_agree_on_the_keys(file: Path) -> None:
    rings = [KeyRing.open(file) for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: rings[n % 4].rotate(), range(16)))

    assert len({ring.epoch for ring in rings}) == 1
    for epoch in range(1, rings[0].epoch + 1):
        assert len({ring.of(epoch).uid("1.2.3") for ring in rings}) == 1


def test_the_noted_pseudonyms_of_a_job_are_those_of_the_epoch(file: Path) -> None:
    ring = KeyRing.open(file)
    ring.rotate()

    epoch, noted = ring.noted()

    assert (epoch, noted.uid("1.2.3")) == (2, ring.current().uid("1.2.3"))
    assert noted.uids == {"1.2.3": ring.of(2).uid("1.2.3")}
    assert ring.noted()[1].uids == {}


def test_secrets_differ_by_purpose_and_epoch_and_stay(file: Path) -> None:
    ring = KeyRing.open(file)
    ring.rotate()

    made = [ring.secret("a", 1), ring.secret("a", 2), ring.secret("b", 1)]

    assert len({*made, file.read_bytes()}) == 4
    assert KeyRing.open(file).secret("a", 2) == made[1]
    with pytest.raises(ConfigError, match="no key of epoch 3"):
        ring.secret("a", 3)


def test_a_lost_master_key_is_not_replaced_by_a_new_one(file: Path) -> None:
    KeyRing.open(file).rotate()
    file.unlink()

    with pytest.raises(ConfigError, match="restore it from the backup"):
        KeyRing.open(file)
    assert not file.exists()


def test_a_lost_epoch_stops_the_node_rather_than_going_back(file: Path) -> None:
    ring = KeyRing.open(file)
    ring.rotate()
    ring.rotate()
    (file.parent / "pseudonym.2.key").unlink()

    with pytest.raises(ConfigError, match=r"pseudonym\.2\.key is missing"):
        KeyRing.open(file)


@pytest.mark.parametrize("content", [b"", b"short", bytes(60)])
def test_an_altered_epoch_is_refused(content: bytes, file: Path) -> None:
    KeyRing.open(file).rotate()
    (file.parent / "pseudonym.2.key").write_bytes(content)

    with pytest.raises(ConfigError, match="another key than the node has"):
        KeyRing.open(file)


def test_a_key_from_the_environment_leaves_no_key_on_the_disk(file: Path) -> None:
    source = key_source("NODE_KEY", (), {"NODE_KEY": IN_BASE64})

    ring = KeyRing.open(file, source)
    ring.rotate()

    assert ring.node.uid("1.2.3") == Pseudonyms(KEY).uid("1.2.3")
    assert KeyRing.open(file, source).current().uid("1.2.3") == ring.current().uid("1.2.3")
    written = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert not any(secret in written for secret in (KEY, IN_BASE64.encode(), ring._keys[1]))


def test_another_master_key_than_before_is_refused(file: Path) -> None:
    KeyRing.open(file, lambda: KEY)

    with pytest.raises(ConfigError, match="began with another key"):
        KeyRing.open(file, lambda: KEY[::-1])
    with pytest.raises(ConfigError, match="restore it from the backup"):
        KeyRing.open(file)  # the variable was forgotten: no new key is made
    assert not file.exists()


def test_a_key_that_moves_out_of_its_file_must_be_the_same(file: Path) -> None:
    before = KeyRing.open(file).node.uid("1.2.3")
    key = file.read_bytes()

    with pytest.raises(ConfigError, match="another key than the one that is configured"):
        KeyRing.open(file, lambda: KEY)
    assert KeyRing.open(file, lambda: key).node.uid("1.2.3") == before
    file.unlink()
    assert KeyRing.open(file, lambda: key).node.uid("1.2.3") == before


def test_a_command_gives_the_key_on_its_standard_output() -> None:
    assert by_command(sys.executable, "-c", f"import sys; print('{IN_BASE64}'); sys.stderr.write('noise')") == KEY


def test_a_command_is_run_without_a_shell(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gives no pseudonym key"):
        by_command("echo", IN_BASE64, ";", "touch", str(tmp_path / "made"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print(KEY); sys.exit(3)", r"failed \(exit code 3\)"),
        ("print(KEY[:20])", "32 random bytes in base64"),
        ("print('hunter2 ' + KEY)", "32 random bytes in base64"),
        ("print('A' * 43 + '=')", "32 random bytes in base64"),  # all zeros
        ("pass", "32 random bytes in base64"),
    ],
)
def test_a_command_that_gives_no_key_is_told_without_what_it_wrote(code: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        by_command(sys.executable, "-c", f"KEY = '{IN_BASE64}'\n{code}")
    said = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert IN_BASE64[:20] not in said
    assert "hunter2" not in said


def test_a_command_that_hangs_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medgem_node.deid.keyring.COMMAND_SECONDS", 0.3)
    code = f"import subprocess, time; print('{IN_BASE64}', flush=True); subprocess.run(['sleep', '30'])"

    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"no answer in 0\.3 s") as caught:
        by_command(sys.executable, "-c", code)

    assert time.monotonic() - began < 10
    assert caught.value.__context__ is None


def test_a_command_that_is_not_there_is_an_error_of_configuration() -> None:
    with pytest.raises(ConfigError, match="cannot be run"):
        by_command("/nowhere/at/all")


def test_a_variable_that_is_not_set_or_two_sources_are_errors() -> None:
    source = key_source("NODE_KEY", (), {})
    assert source is not None
    with pytest.raises(ConfigError, match="NODE_KEY, which holds the pseudonym key, is not set"):
        source()
    with pytest.raises(ConfigError, match="not from both"):
        key_source("NODE_KEY", ("true",), {})
    assert key_source("", (), {}) is None
