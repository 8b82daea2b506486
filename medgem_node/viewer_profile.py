"""What a PACS and its viewer can show: which objects are written for it, in what form, and what to send instead."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medgem_node.errors import ConfigError

REGIONS = ("scoord", "scoord3d")


@dataclass(frozen=True, slots=True)
class ViewerProfile:
    """One file of `conf/profiles/`.

    Each of `objects` is a writer, or `writer/variant`; they are written in this order, so that a later one may refer to
    an earlier. `region` is how a report writes regions where it has the choice: `scoord` in the image, `scoord3d` in
    space. `instead` names, for an object that a peer refuses, what it gets in its place: the first that is not refused.
    """

    name: str
    title: str
    objects: tuple[str, ...]
    region: str = "scoord"
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_profile(path: Path) -> ViewerProfile:
    """The profile in `path`, named as its file. Raises ConfigError."""
    try:
        fields = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); look into conf/profiles") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: no valid TOML: {exc}") from exc
    if unknown := sorted(fields.keys() - {"title", "objects", "region", "instead"}):
        raise ConfigError(f'{path}: unknown key "{unknown[0]}"; known are title, objects, region, instead')
    instead = fields.get("instead", {})
    profile = ViewerProfile(
        path.stem,
        str(fields.get("title", path.stem)),
        _kinds(fields.get("objects"), path, "objects"),
        fields.get("region", "scoord"),
        {of: _kinds(others, path, f"instead.{of}") for of, others in instead.items()},
    )
    if profile.region not in REGIONS:
        raise ConfigError(f'{path}: region = "{profile.region}" must be one of {", ".join(REGIONS)}')
    if unknown := sorted(profile.instead.keys() - {*profile.objects, *sum(profile.instead.values(), ())}):
        raise ConfigError(f'{path}: [instead] names "{unknown[0]}", which is not among objects')
    return profile


def find_profile(folder: Path, name: str) -> ViewerProfile:
    """The profile `name` of `folder`. Raises ConfigError that lists those that there are."""
    path = folder / f"{name}.toml"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) or not path.exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise ConfigError(f'there is no viewer profile "{name}" in {folder}; known are {known}')
    return read_profile(path)


def _kinds(value: object, path: Path, key: str) -> tuple[str, ...]:
    kind = r"[a-z][a-z0-9_]*(/[a-z0-9]+(-[a-z0-9]+)*)?"
    if not isinstance(value, list) or not all(isinstance(v, str) and re.fullmatch(kind, v) for v in value) or not value:
        raise ConfigError(f'{path}: {key} must be a list of writers, as ["segmentation/binary", "measurement_report"]')
    return tuple(value)
