"""What the doctor says, for each thing that is commonly wrong."""

import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, AllStoragePresentationContexts

from medgem_node import cli, doctor, testing
from medgem_node.card import find_card
from medgem_node.config import Config, read_config, shipped
from medgem_node.node import now, open_node, start_acceptor
from medgem_node.testing import FakePacs

MakeConfig = Callable[..., Config]
REPORTS = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)


def peer_checks(config: Config) -> list[doctor.Check]:
    from medgem_node.peer import Peer

    return list(doctor.check_peer("PACS", Peer.parse(config.destinations["PACS"]), config))


def test_a_pacs_that_is_not_reachable(make_config: MakeConfig) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    (check,) = peer_checks(make_config({"PACS": f"dimse://PACS@127.0.0.1:{port}"}))

    assert (check.state, "not reachable" in check.says) == ("wrong", True)
    assert "firewall" in check.mend


def test_a_pacs_that_does_not_know_our_title(make_config: MakeConfig) -> None:
    ae = AE("PACS")
    ae.require_calling_aet = ["SOMEBODY"]
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    port = server.socket.getsockname()[1]

    (check,) = peer_checks(make_config({"PACS": f"dimse://PACS@127.0.0.1:{port}"}))
    server.shutdown()

    assert check.state == "wrong"
    assert "does not know our AE title" in check.says
    assert 'register AE title "MEDGEM"' in check.mend


def test_a_pacs_that_we_call_by_the_wrong_title(make_config: MakeConfig) -> None:
    ae = AE("PACS")
    ae.require_called_aet = True
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", 0), block=False)
    port = server.socket.getsockname()[1]

    (check,) = peer_checks(make_config({"PACS": f"dimse://WRONG@127.0.0.1:{port}"}))
    server.shutdown()

    assert "does not answer to the AE title we called" in check.says


def test_a_pacs_that_refuses_segmentations_is_told_what_it_gets_instead(make_config: MakeConfig) -> None:
    with FakePacs(refuse=[SegmentationStorage]) as pacs:
        takes, check = peer_checks(make_config({"PACS": pacs.url}))

    assert takes.state == "ok"
    assert "presentation state" in takes.says
    assert " segmentation," not in takes.says.replace("label map segmentation", "")
    assert check.state == "warning"
    assert check.says == (
        'viewer profile "generic" sends the segmentation, which is not accepted: it gets the presentation state instead'
    )
    assert check.mend == "allow this SOP class at the PACS"


def test_a_pacs_for_which_nothing_stands_in_is_told_the_loss(make_config: MakeConfig) -> None:
    with FakePacs(refuse=REPORTS) as pacs:
        _, check = peer_checks(make_config({"PACS": pacs.url}))

    assert "report (Comprehensive 3D SR), which is not accepted: findings and measurements will not show" in check.says
    assert "allow this SOP class" in check.mend


def test_a_pacs_that_takes_pictures_only_is_recommended_the_profile_for_it(make_config: MakeConfig) -> None:
    others = [str(c.abstract_syntax) for c in AllStoragePresentationContexts]
    others.remove(str(SecondaryCaptureImageStorage))
    with FakePacs(refuse=others) as pacs:
        takes, *checks = peer_checks(make_config({"PACS": pacs.url}))

    assert takes.says.endswith("accepts heatmap (Secondary Capture); viewer profiles that fit: sc-only")
    assert [c.state for c in checks] == ["warning", "warning"]
    assert {c.mend for c in checks} == {'set results.profile = "sc-only", which fits'}


def test_a_pacs_that_knows_our_title_and_takes_none_of_our_results(make_config: MakeConfig) -> None:
    with FakePacs(refuse=[str(c.abstract_syntax) for c in AllStoragePresentationContexts]) as pacs:
        (check,) = peer_checks(make_config({"PACS": pacs.url}))

    assert (check.state, "accepts none of our results" in check.says) == ("wrong", True)


def test_the_profile_of_the_rule_that_sends_there_is_the_one_that_is_judged(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    with FakePacs(refuse=[SegmentationStorage]) as pacs:
        source = Path(make_config({"PACS": pacs.url}).source)
        rules = (tmp_path / "rules.toml").read_text("utf-8").replace("[[rule]]", '[[rule]]\nprofile = "sc-only"')
        (tmp_path / "rules.toml").write_text(rules, "utf-8")

        assert [c.state for c in peer_checks(read_config(source))] == ["ok"]


def test_a_pacs_that_takes_everything(make_config: MakeConfig) -> None:
    with FakePacs() as pacs:
        (check,) = peer_checks(make_config({"PACS": pacs.url}))

    assert check.state == "ok"
    assert check.says.endswith("viewer profiles that fit: generic, ohif, sc-only, weasis")


def test_a_port_in_use(make_config: MakeConfig) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        check = doctor.check_port(make_config(settings=(f"receive.port={port}",)))

    assert check.state == "wrong"
    assert f"receive.port = {port}" in check.says
    assert "ss -ltnp" in check.mend


def test_a_port_that_this_very_node_uses_is_well(make_config: MakeConfig) -> None:
    node = open_node(make_config())
    acceptor = start_acceptor(node)

    check = doctor.check_port(make_config(settings=(f"receive.port={acceptor.port}",)))

    acceptor.stop()
    node.ledger.close()
    assert check.state == "ok"


@pytest.mark.parametrize(("free_mb", "state"), [(100, "wrong"), (1000, "warning"), (100_000, "ok")])
def test_a_disk_that_is_nearly_full(make_config: MakeConfig, free_mb: int, state: str) -> None:
    config = make_config(settings=("receive.minimum_free_mb=512",))

    assert doctor.check_disk(config, free_mb * 2**20).state == state


def test_weights_that_are_missing(make_config: MakeConfig, tmp_path: Path) -> None:
    models = copied_models(tmp_path)
    weights_of(models).unlink(missing_ok=True)

    check, *_ = doctor.check_models(make_config(settings=(f'node.models="{models}"',)))

    assert check.state == "wrong"
    assert "cannot be read" in check.says


def test_weights_that_were_altered(make_config: MakeConfig, tmp_path: Path) -> None:
    models = copied_models(tmp_path)
    weights_of(models).write_bytes(b"other weights")

    check, *_ = doctor.check_models(make_config(settings=(f'node.models="{models}"',)))

    assert check.state == "wrong"
    assert "the weights were altered" in check.says


def test_the_shipped_weights_are_intact(make_config: MakeConfig) -> None:
    assert [c.state for c in doctor.check_models(make_config())] == ["ok"]


def test_a_clock_before_this_version_was_made(make_config: MakeConfig) -> None:
    check = doctor.check_clock(make_config(), datetime(2001, 1, 1, tzinfo=UTC))

    assert check.state == "wrong"
    assert "timedatectl" in check.mend


def test_a_clock_that_was_set_back(make_config: MakeConfig) -> None:
    node = open_node(make_config())
    acceptor = start_acceptor(node)
    from medgem_node.dimse import scu
    from medgem_node.peer import Peer

    scu.store(Peer("MEDGEM", "127.0.0.1", acceptor.port), "MODALITY", [testing.dx_instance()])
    acceptor.stop()
    node.ledger.close()

    check = doctor.check_clock(make_config(), max(now() - timedelta(hours=5), doctor.RELEASED))

    assert check.state == ("wrong" if now() - timedelta(hours=5) > doctor.RELEASED else check.state)
    assert doctor.check_clock(make_config(), now() + timedelta(days=1)).state in ("ok", "warning")


def test_a_typo_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('[node]\nae_tittle = "X"', "utf-8")

    (check,) = doctor.examine(tmp_path / "node.toml")

    assert check.state == "wrong"
    assert 'did you mean "ae_title"?' in check.says


def test_the_command_says_it_in_plain_words_and_ends_with_1(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_config({"PACS": "dimse://PACS@127.0.0.1:1"})

    code = cli.main(["doctor", "--config", str(tmp_path / "node.toml")])

    said = capsys.readouterr().out
    assert code == 1
    assert "WRONG   destination PACS: PACS at 127.0.0.1:1 is not reachable" in said
    assert "        -> check that the PACS runs" in said


def test_files_that_were_never_acknowledged_are_counted(make_config: MakeConfig) -> None:
    config = make_config()
    node = open_node(config)
    node.archive.put("studies/1.2.3/1.2.3.4-0123456789abcdef.dcm", b"left by a crash")
    node.ledger.close()

    (check,) = doctor.check_orphans(config)

    assert check.says.startswith("1 files")


def copied_models(tmp_path: Path) -> Path:
    shutil.copytree(shipped("models"), tmp_path / "models")
    return tmp_path / "models"


def weights_of(models: Path) -> Path:
    card = find_card(models, read_config().rules[0].model)
    return card.folder / card.weights
