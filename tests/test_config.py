from pathlib import Path

import pytest

from medgem_node import cli
from medgem_node.config import read_config, shipped
from medgem_node.deid.options import Option
from medgem_node.errors import ConfigError
from medgem_node.node import open_node
from medgem_node.peer import Peer


def written(folder: Path, node: str = "", rules: str = "") -> Path:
    (folder / "node.toml").write_text(node, "utf-8")
    (folder / "rules.toml").write_text(rules, "utf-8")
    return folder / "node.toml"


def test_the_shipped_configuration_is_valid_and_shows_every_default(tmp_path: Path) -> None:
    empty = read_config(written(tmp_path))

    shown = read_config(shipped("conf") / "node.toml")

    for section in ("node", "receive", "stores", "pipeline", "engine", "results", "delivery"):
        assert getattr(shown, section) == getattr(empty, section)


def test_every_option_is_in_the_shipped_file() -> None:
    text = (shipped("conf") / "node.toml").read_text("utf-8")

    config = read_config()

    for section in (config.node, config.receive, config.stores, config.pipeline, config.engine, config.delivery):
        for name in section.__slots__:
            assert f"\n{name} = " in text, name


@pytest.mark.parametrize(
    ("node", "rules", "says"),
    [
        ('[node]\nae_tittle = "X"', "", 'unknown key "ae_tittle" in [node]; did you mean "ae_title"?'),
        ("[nod]\n", "", 'unknown key "nod"; did you mean "node"?'),
        ('[node]\nae_title = "MUCH TOO LONG A TITLE"', "", "1 to 16 ASCII characters"),
        ('[node]\nae_title = "BACK\\\\SLASH"', "", "without backslash"),
        ("[receive]\nport = 70000", "", "receive.port = 70000 must be 1 to 65535"),
        ('[receive]\nport = "104"', "", "receive.port = '104' must be int"),
        ("[receive]\nmaximum_associations = -1", "", "maximum_associations = -1 is too small"),
        ("[receive]\nport = true", "", "receive.port = True must be int"),
        ("[node\n", "", "no valid TOML"),
        ("", '[[rule]]\nname = "a"', "key 'model' is missing in [rule 1]"),
        (
            "",
            '[[rule]]\nname = "a"\nmodel = "m"\nsend_to = ["PACS"]',
            'sends to "PACS", which is not in [destinations]',
        ),
        (
            "",
            '[[rule]]\nname = "a"\nmodel = "m"\nmatch = [{ keyword = "Modalty", operator = "is" }]',
            '"Modalty" is no DICOM',
        ),
        (
            "",
            '[[rule]]\nname = "a"\nmodel = "m"\nmatch = [{ keyword = "Modality", operator = "=" }]',
            'operator "=" is unknown',
        ),
        ("", '[[rules]]\nname = "a"', 'unknown key "rules"'),
    ],
)
def test_a_mistake_is_told_with_file_key_value_and_what_to_do(tmp_path: Path, node: str, rules: str, says: str) -> None:
    path = written(tmp_path, node, rules)

    with pytest.raises(ConfigError) as raised:
        read_config(path)

    assert says in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value).strip()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")


def test_settings_are_put_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[receive]\nport = 104")

    config = read_config(path, ["receive.port=11113", 'node.ae_title="OTHER"', "node.log_level=DEBUG"])

    assert (config.receive.port, config.node.ae_title, config.node.log_level) == (11113, "OTHER", "DEBUG")


def test_a_config_mistake_ends_the_command_with_code_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, '[node]\nae_tittle = "X"')

    code = cli.main(["start", "--config", str(path)])

    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_port_in_use_ends_start_with_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = written(tmp_path, f'[node]\ndata = "{tmp_path}/data"\n[receive]\nhost = "127.0.0.1"\nport = {port}')

        code = cli.main(["start", "--config", str(path)])

    assert code == 2
    assert f"receive.port = {port}" in capsys.readouterr().err


def test_a_peer_is_written_as_an_address() -> None:
    peer = Peer.parse("dimse://PACS@10.0.0.5:104?calling=MEDGEM2")

    assert (peer.ae_title, peer.host, peer.port, peer.calling) == ("PACS", "10.0.0.5", 104, "MEDGEM2")


@pytest.mark.parametrize(
    "url",
    ["PACS", "dimse://10.0.0.5:104", "dimse://PACS@host", "http://PACS@h:1", "dimse://P@h:99999", "dimse://P@h:1?x=1"],
)
def test_what_is_no_peer_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        Peer.parse(url)


def test_a_de_identification_that_does_not_run_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, f'[node]\ndata = "{tmp_path}/data"')
    (tmp_path / "deid.toml").write_text('profile = "basic"\noptions = ["Clean Pixel Datum"]', "utf-8")

    with pytest.raises(ConfigError, match=r'deid.toml: unknown option "Clean Pixel Datum" in options; did you mean'):
        open_node(read_config(path))


def test_a_rules_own_de_identification_is_read_beside_it_and_checked_at_the_start(tmp_path: Path) -> None:
    path = written(tmp_path, f'[node]\ndata = "{tmp_path}/data"')
    (tmp_path / "rules.toml").write_text('[[rule]]\nname = "heads"\nmodel = "chest-xray"\ndeid = "heads.toml"', "utf-8")
    with pytest.raises(ConfigError, match=r"heads.toml: cannot be read"):
        read_config(path)
    (tmp_path / "heads.toml").write_text('options = ["Clean Recognizable Visual Features"]', "utf-8")

    node = open_node(read_config(path))

    assert node.profiles["heads.toml"].options == {Option.CLEAN_RECOGNIZABLE_VISUAL_FEATURES}
    assert node.profiles[""].options == frozenset()
    node.ledger.close()
