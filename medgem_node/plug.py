"""Finds a member of a plural folder by its name in the configuration."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from urllib.parse import urlsplit

from medgem_node.errors import ConfigError
from medgem_node.seams import Store

KINDS = ("stores", "engines", "writers", "destinations")
_STORE_OF_SCHEME = {"file": "local"}


def load(kind: str, name: str) -> ModuleType:
    """The module `medgem_node/<kind>/<name>.py`, else the entry point `name` of the group `medgem_node.<kind>`.

    Identifiers only, so that no configuration can name a path. Raises ConfigError.
    """
    if kind not in KINDS or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ConfigError(f'"{name}" is no name of one of the {kind}; use letters, digits and _')
    module = f"medgem_node.{kind}.{name}"
    try:
        return import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name != module:
            raise ConfigError(f'{kind} "{name}" needs the package {exc.name}: pip install it') from exc
    for point in entry_points(group=f"medgem_node.{kind}", name=name):
        found: ModuleType = point.load()
        return found
    raise ConfigError(f'there is no {kind} "{name}"; check its spelling, or install the package that brings it')


def open_store(url: str) -> Store:
    """The store that `file:///path` or `s3://bucket/path` names. Raises ConfigError."""
    scheme = urlsplit(url).scheme
    store: Store = load("stores", _STORE_OF_SCHEME.get(scheme, scheme)).create(url)
    return store
