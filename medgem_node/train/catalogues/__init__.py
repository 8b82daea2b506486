"""Data sets as they are published: a file for each, which reads its own lists where a site has put them."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from medgem_node.errors import ConfigError
from medgem_node.train.catalogues.catalogue import Catalogue

NAMES = ("chexpert", "nih-chestxray14", "mimic-cxr-jpg", "vindr-cxr", "jsrt", "csv")


def find(name: str) -> Catalogue:
    """What reads the data set `name`. Raises ConfigError."""
    if name not in NAMES:
        raise ConfigError(f'there is no catalogue "{name}"; known are {", ".join(NAMES)}')
    file = {"csv": "table"}.get(name, name.replace("-", "_"))
    return cast(Catalogue, import_module(f"medgem_node.train.catalogues.{file}"))
