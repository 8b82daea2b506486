"""What a PACS and its viewer can show: which objects are written for it, in what form, and what to send instead."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medgem_node.errors import ConfigError

REGIONS = ("scoord", "scoord3d", "where-square")

_KIND = re.compile(r"[a-z][a-z0-9_]*(/[a-z0-9]+(-[a-z0-9]+)*)?")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


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

    @property
    def spares(self) -> tuple[str, ...]:
        """What is sent only where something else was refused, each once."""
        return tuple(dict.fromkeys(kind for line in self.instead.values() for kind in line))

    def replacements(self, refused: Collection[str], written: Collection[str]) -> dict[str, str]:
        """For each object that a peer refused, what it gets in its place: of what was written the first not refused."""
        found = {}
        for kind in self.objects:
            spares = self.instead.get(kind, ()) if kind in refused else ()
            if spare := next((s for s in spares if s in written and s not in refused), ""):
                found[kind] = spare
        return found

    def to_json(self) -> str:
        """All that decides what is written, as one line that is the same for the same profile."""
        fields = {"name": self.name, "objects": self.objects, "region": self.region, "instead": dict(self.instead)}
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ViewerProfile:
        """The reverse of `to_json`; the title is lost."""
        fields = json.loads(text)
        instead = {of: tuple(spares) for of, spares in fields["instead"].items()}
        return cls(fields["name"], fields["name"], tuple(fields["objects"]), fields["region"], instead)


def read_profiles(folder: Path) -> dict[str, ViewerProfile]:
    """Every profile of `folder` by its name. Raises ConfigError."""
    return {path.stem: read_profile(path) for path in sorted(folder.glob("*.toml"))}


def read_profile(path: Path) -> ViewerProfile:
    """The profile in `path`, named as its file. Raises ConfigError."""
    if not _NAME.fullmatch(path.stem):
        raise ConfigError(f"{path}: a viewer profile is named with small letters, digits and -")
    try:
        fields = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); look into conf/profiles") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: no valid TOML: {exc}") from exc
    if unknown := sorted(fields.keys() - {"title", "objects", "region", "instead"}):
        raise ConfigError(f'{path}: unknown key "{unknown[0]}"; known are title, objects, region, instead')
    instead = fields.get("instead", {})
    if not isinstance(instead, dict):
        raise ConfigError(f'{path}: [instead] holds lines of the form "segmentation/binary" = ["heatmap"]')
    profile = ViewerProfile(
        path.stem,
        str(fields.get("title", path.stem)),
        _kinds(fields.get("objects"), path, "objects"),
        fields.get("region", "scoord"),
        {of: _kinds(spares, path, f"instead.{of}") for of, spares in instead.items()},
    )
    _check(profile, path)
    return profile


def _kinds(value: object, path: Path, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and _KIND.fullmatch(v) for v in value):
        raise ConfigError(f'{path}: {key} must be a list of writers, as ["segmentation/binary", "measurement_report"]')
    return tuple(value)


def _check(profile: ViewerProfile, path: Path) -> None:
    if profile.region not in REGIONS:
        raise ConfigError(f'{path}: region = "{profile.region}" must be one of {", ".join(REGIONS)}')
    writers = [kind.partition("/")[0] for kind in profile.objects]
    if twice := [w for w in writers if writers.count(w) > 1]:
        raise ConfigError(f'{path}: objects names "{twice[0]}" twice; what is sent in its place stands in [instead]')
    if unknown := sorted(profile.instead.keys() - set(profile.objects)):
        raise ConfigError(f'{path}: [instead] names "{unknown[0]}", which is not among objects')
    if sent := [kind for kind in profile.spares if kind in profile.objects]:
        raise ConfigError(f'{path}: [instead] offers "{sent[0]}", which is among objects and so sent in any case')
