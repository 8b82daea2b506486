"""A site's own operating points of a model, `<data folder>/site/<model>-<version>.toml`: data, never code.

`medgem-node calibrate` writes the file, from films that the site knows to be free of lesions. The node sends what it
says with every job, so that a worker anywhere uses the same; they count only for the very manifest that they were
chosen with, as its calibration says what a probability means. A file that cannot be read stops the model rather than
being passed over.
"""

from __future__ import annotations

import os
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from medgem_node.card import ModelCard
from medgem_node.errors import ModelRejected

_MEND = "calibrate again, or delete the file"
_MOST_MARKS = 1000.0
_PLAIN = re.compile(r"[ -!#-\[\]-~]*")  # what stands between quotes in TOML as it is


@dataclass(frozen=True, slots=True)
class Point:
    """From which probability (or score) on one kind of mark is reported, and what that gave on the site's own films.

    `false_marks`, `low` and `high`: marks a film without lesions, with the 95 % interval.
    """

    output: str
    operating_point: float
    false_marks: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SiteCalibration:
    """Operating points, what they were chosen with, and with which manifest. `date`: YYYY-MM-DD."""

    model: str
    version: str
    manifest_sha256: str
    date: str
    films: int
    patients: int
    wished: float  # false marks a film, at most
    points: tuple[Point, ...]

    def __str__(self) -> str:
        return f"{self.date}, {self.films} films"

    def fits(self, card: ModelCard) -> bool:
        """Whether it was made with the manifest of `card`."""
        mine = (self.model, self.version, self.manifest_sha256)
        return mine == (card.name, card.version, card.manifest_sha256)

    @classmethod
    def parse(cls, table: Mapping[str, Any], where: str) -> SiteCalibration:
        """Of a file's table, or of a job's. Raises ModelRejected that names `where`."""
        points = table.get("points")
        if not isinstance(points, Sequence) or not points or not all(isinstance(p, Mapping) for p in points):
            raise ModelRejected(f"{where}: [[points]] are missing; {_MEND}")
        made = tuple(_made(Point, p, where) for p in points)
        site: SiteCalibration = _made(cls, {**table, "points": made}, where)
        for point in site.points:
            if not 0 <= point.operating_point <= 1:
                raise ModelRejected(f"{where}: operating_point = {point.operating_point} is not from 0 to 1; {_MEND}")
            if not 0 <= point.low <= point.false_marks <= point.high < _MOST_MARKS:
                raise ModelRejected(f"{where}: low, false_marks and high of {point.output} make no interval; {_MEND}")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", site.date) or not re.fullmatch(r"[0-9a-f]{64}", site.manifest_sha256):
            raise ModelRejected(f"{where}: date or manifest_sha256 is malformed; {_MEND}")
        return site


def file_of(data: Path, model: str, version: str) -> Path:
    """Where a model's calibration lies below the data folder."""
    return data / "site" / f"{model}-{version}.toml"


def read_site(data: Path, model: str, version: str) -> SiteCalibration | None:
    """The calibration of a model's version, if the site has one. Raises ModelRejected if its file is malformed."""
    path = file_of(data, model, version)
    try:
        return SiteCalibration.parse(tomllib.loads(path.read_text("utf-8")), str(path))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ModelRejected(f"{path}: cannot be read ({exc.strerror}); {_MEND}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ModelRejected(f"{path}: no valid TOML: {exc}; {_MEND}") from exc


def write_site(data: Path, site: SiteCalibration) -> Path:
    """Writes the file, replacing it whole; where it lies."""
    path = file_of(data, site.model, site.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{secrets.token_hex(8)}.new")
    with open(new, "xb") as file:
        file.write(to_toml(site).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())  # a file that a power cut left empty would stop the model
    os.replace(new, path)
    return path


def to_toml(site: SiteCalibration) -> str:
    """What `read_site` reads."""
    lines = ["# Operating points of this site, chosen by `medgem-node calibrate`."]
    lines += [_line(f.name, getattr(site, f.name)) for f in fields(site) if f.name != "points"]
    for point in site.points:
        lines += ["", "[[points]]", *(_line(f.name, getattr(point, f.name)) for f in fields(point))]
    return "\n".join(lines) + "\n"


def overlaid(card: ModelCard, site: SiteCalibration | None) -> ModelCard:
    """The card with the site's operating points; as it is where they were made with another manifest."""
    if site is None or not site.fits(card):
        return card
    chosen = {point.output: point.operating_point for point in site.points}
    findings = tuple(
        {**f, "operating_point": chosen[f["output"]]} if f.get("output") in chosen else f for f in card.findings
    )
    return replace(card, findings=findings, site_calibration=str(site))


def _made(cls: Any, table: Mapping[str, Any], where: str) -> Any:
    kinds = {f.name: str(f.type) for f in fields(cls)}
    if odd := sorted(table.keys() ^ kinds.keys()):
        raise ModelRejected(f'{where}: key "{odd[0]}" is {"unknown" if odd[0] in table else "missing"}; {_MEND}')
    return cls(**{name: _typed(table[name], kind, f"{where}: {name}") for name, kind in kinds.items()})


def _typed(value: Any, kind: str, where: str) -> Any:
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if kind == "str" and isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    if kind.startswith("tuple"):
        return value
    raise ModelRejected(f"{where} is no {kind}; {_MEND}")


def _line(name: str, value: str | float) -> str:
    return f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}"
