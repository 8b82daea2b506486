"""Fixtures that most tests share: a configuration in a temporary folder, and a node on it."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded
os.environ.setdefault("OMP_NUM_THREADS", "2")

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from medgem_node import config as configuration
from medgem_node.config import Config
from medgem_node.node import Node, open_node

RULES = """
[[rule]]
name = "chest X-ray"
model = "chest-xray"
send_to = [{destinations}]
match = [{{ keyword = "Modality", operator = "in", value = ["CR", "DX"] }}]
"""


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    """A configuration file with its rules, read back: `make_config(destinations={...}, settings=[...])`."""

    def make(destinations: dict[str, str] | None = None, settings: tuple[str, ...] = ()) -> Config:
        destinations = destinations or {}
        lines = ["[node]", f'data = "{tmp_path / "data"}"', "[receive]", 'host = "127.0.0.1"', "port = 0"]
        lines += ["minimum_free_mb = 1", "[pipeline]", "quiet_seconds = 0.5", "tick_seconds = 0.1", "[destinations]"]
        lines += [f"{name} = {json.dumps(url)}" for name, url in destinations.items()]
        (tmp_path / "node.toml").write_text("\n".join(lines), "utf-8")
        names = ", ".join(json.dumps(name) for name in destinations)
        (tmp_path / "rules.toml").write_text(RULES.format(destinations=names), "utf-8")
        return configuration.read_config(tmp_path / "node.toml", settings)

    return make


@pytest.fixture
def config(make_config: Callable[..., Config]) -> Config:
    return make_config()


@pytest.fixture
def node(config: Config) -> Iterator[Node]:
    opened = open_node(replace(config))
    yield opened
    opened.ledger.close()
