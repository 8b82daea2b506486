"""A model's manifest, `models/<name>/<version>/model.toml`: data, never code."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from medgem_node.errors import ModelRejected
from medgem_node.finding import Code

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SECTIONS = {
    "model",
    "weights",
    "network",
    "preprocessing",
    "selection",
    "masks",
    "findings",
    "measurements",
    "gate",
    "heatmap",
    "research",
}
HEATMAPS = ("points", "lesions")
"""What `source` of `[heatmap]` may name: the measurement's points, or the box head's own map."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the node knows of a model: who it is, what it may see, what its outputs mean.

    `network`, `preprocessing`, `selection`, `gate`, `masks`, `findings`, `measurements`, `heatmap` are the manifest's
    tables, read by the detector; `weights_sha256` is checked whenever the model is loaded, `onnx_sha256` when its ONNX
    graph is (both `onnx` empty: there is none). `may_say_normal` tells whether a study in which nothing was found may
    be called normal: only a model that looks for all that matters may.
    """

    name: str
    version: str
    title: str
    manufacturer: str
    status: str
    licence: str
    folder: Path
    weights: str
    weights_sha256: str
    network: Mapping[str, Any]
    preprocessing: Mapping[str, Any]
    selection: Mapping[str, Any]
    gate: Mapping[str, Any]
    masks: tuple[Mapping[str, Any], ...]
    findings: tuple[Mapping[str, Any], ...]
    measurements: tuple[Mapping[str, Any], ...]
    may_say_normal: bool = False
    site_calibration: str = ""  # when and with how many films; empty: the operating points are the manifest's own
    heatmap: Mapping[str, Any] = field(default_factory=dict)
    research: tuple[Mapping[str, Any], ...] = ()  # the labels that are told, if any; see detector/labels.py
    onnx: str = ""
    onnx_sha256: str = ""
    manifest_sha256: str = ""  # of model.toml: it changes with everything that decides an answer, the weights too

    @property
    def device_uid(self) -> str:
        """A UID that changes with every change of the weights (IHE AIR, Contributing Equipment)."""
        return device_uid(self.weights_sha256)

    def checked_weights(self) -> bytes:
        """The bytes of the weights file, after its digest was compared. Raises ModelRejected."""
        return _checked(self.folder / self.weights, self.weights_sha256, "weights were")

    def checked_onnx(self) -> bytes:
        """The bytes of the ONNX graph, after its digest was compared. Raises ModelRejected."""
        if not self.onnx:
            raise ModelRejected(
                f"{self.name} {self.version} has no ONNX graph; `medgem-node export` makes one, or use backend torch"
            )
        return _checked(self.folder / self.onnx, self.onnx_sha256, "ONNX graph was")


def _checked(path: Path, sha256: str, what_was: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelRejected(
            f"{path}: cannot be read ({exc.strerror}); restore the file or reinstall the model"
        ) from exc
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise ModelRejected(
            f"{path}: sha256 is {digest[:16]}..., model.toml says {sha256[:16]}...; "
            f"the {what_was} altered: restore the file or reinstall the model"
        )
    return data


def device_uid(weights_sha256: str) -> str:
    """`2.25.` and the first 16 bytes of the digest as one number (PS3.5 B.2)."""
    return f"2.25.{int(weights_sha256[:32], 16)}"


def code(fields: Mapping[str, str]) -> Code:
    """A manifest's `{value, scheme, meaning}`."""
    return Code(fields["value"], fields["scheme"], fields["meaning"])


def read_card(folder: Path) -> ModelCard:
    """The manifest in `folder`. Raises ModelRejected with file, key and what to do."""
    path = folder / "model.toml"
    try:
        manifest = path.read_bytes()
        fields = tomllib.loads(manifest.decode("utf-8"))
    except OSError as exc:
        raise ModelRejected(f"{path}: cannot be read ({exc.strerror}); check the models folder") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ModelRejected(f"{path}: no valid TOML: {exc}") from exc
    if unknown := sorted(fields.keys() - _SECTIONS):
        raise ModelRejected(f'{path}: unknown section "{unknown[0]}"; known are {", ".join(sorted(_SECTIONS))}')
    try:
        model, weights = fields["model"], fields["weights"]
        card = ModelCard(
            name=model["name"],
            version=model["version"],
            title=model["title"],
            manufacturer=model["manufacturer"],
            status=model["status"],
            licence=model["licence"],
            folder=folder,
            weights=weights["file"],
            weights_sha256=weights["sha256"],
            network=fields["network"],
            preprocessing=fields["preprocessing"],
            selection=fields.get("selection", {}),
            gate=fields.get("gate", {}),
            masks=tuple(fields.get("masks", ())),
            findings=tuple(fields.get("findings", ())),
            measurements=tuple(fields.get("measurements", ())),
            may_say_normal=model.get("may_say_normal", False),
            research=tuple(fields.get("research", ())),
            heatmap=fields.get("heatmap", {}),
            onnx=weights.get("onnx", ""),
            onnx_sha256=weights.get("onnx_sha256", ""),
            manifest_sha256=hashlib.sha256(manifest).hexdigest(),
        )
    except (KeyError, TypeError) as exc:
        raise ModelRejected(f"{path}: key {exc} is missing") from exc
    _check(card, path)
    return card


def _check(card: ModelCard, path: Path) -> None:
    if not _NAME.fullmatch(card.name) or not _VERSION.fullmatch(card.version):
        raise ModelRejected(f'{path}: name "{card.name}" or version "{card.version}" is malformed')
    if (card.folder.parent.name, card.folder.name) != (card.name, card.version):
        raise ModelRejected(
            f"{path}: says {card.name} {card.version}, but lies in {card.folder.parent.name}/{card.folder.name}"
        )
    _check_file(card.weights, card.weights_sha256, path, "weights")
    if card.onnx or card.onnx_sha256:
        _check_file(card.onnx, card.onnx_sha256, path, "onnx")
    if not isinstance(card.may_say_normal, bool):
        raise ModelRejected(f"{path}: may_say_normal in [model] must be true or false")
    for fields in card.findings:
        _check_tiers(fields.get("tiers"), path)
        _check_confidence(fields, path)
        if "output" in fields:
            _check_box(card, fields, path)
    if card.heatmap:
        _check_heatmap(card, path)


def _check_box(card: ModelCard, fields: Mapping[str, Any], path: Path) -> None:
    """What the detector needs to report a box, told before the first film."""
    if missing := [key for key in ("label", "code", "site", "right", "left", "operating_point") if key not in fields]:
        raise ModelRejected(f'{path}: a [[findings]] with boxes misses the key "{missing[0]}"')
    if fields["output"] not in card.network.get("boxes", ()):
        raise ModelRejected(f'{path}: [[findings]] output "{fields["output"]}" is none of the boxes of [network]')


def _check_file(name: Any, sha256: Any, path: Path, what: str) -> None:
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ModelRejected(f'{path}: {what} file "{name}" must lie in the model\'s own folder')
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ModelRejected(f"{path}: {what} sha256 is malformed")


def _check_tiers(tiers: Any, path: Path) -> None:
    if tiers is None:
        return
    high, medium = (tiers.get("high"), tiers.get("medium")) if isinstance(tiers, dict) and len(tiers) == 2 else (0, 0)
    if not isinstance(high, float) or not isinstance(medium, float) or not 1 >= high >= medium > 0.5:
        raise ModelRejected(f"{path}: tiers in [[findings]] must be {{ high = 0.9, medium = 0.7 }}, 1 to above 0.5")


def _check_confidence(fields: Mapping[str, Any], path: Path) -> None:
    """What makes a score a probability, and from where on it is reported."""
    where = f'{path}: [[findings]] "{fields.get("label")}"'
    if not _is_share(fields.get("operating_point", 0.5)):
        raise ModelRejected(f"{where}: operating_point must be a number from 0 to 1")
    if not isinstance(fields.get("calibrated", True), bool):
        raise ModelRejected(f"{where}: calibrated must be true or false")
    line = [fields.get(key) for key in ("slope", "offset")]
    if line != [None, None] and not (all(isinstance(v, int | float) for v in line) and line[0] > 0):  # type: ignore[operator]
        raise ModelRejected(f"{where}: slope and offset must be two numbers, slope above 0")
    if "isotonic" in fields and (line != [None, None] or not _rises(fields["isotonic"])):
        raise ModelRejected(f"{where}: isotonic must be rising pairs [score, probability], without slope and offset")


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _rises(knots: Any) -> bool:
    """Whether these are two or more pairs of numbers 0..1, the first rising, the second never falling."""
    if not isinstance(knots, list) or not all(isinstance(k, list) and len(k) == 2 for k in knots) or len(knots) < 2:
        return False
    return all(_is_share(v) for k in knots for v in k) and all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(knots))


def _check_heatmap(card: ModelCard, path: Path) -> None:
    table, kinds = card.heatmap, {"source": str, "label": str, "meaning": str, "explains": bool}
    is_table = isinstance(table, dict) and table.keys() == kinds.keys()
    if not is_table or not all(isinstance(table[key], kind) for key, kind in kinds.items()):
        raise ModelRejected(f"{path}: [heatmap] wants source, label and meaning as texts, explains as true or false")
    if table["source"] not in HEATMAPS:
        raise ModelRejected(f'{path}: [heatmap] source "{table["source"]}" is not one of {", ".join(HEATMAPS)}')
    if table["source"] == "lesions" and not (card.network.get("boxes") and any("output" in f for f in card.findings)):
        raise ModelRejected(f"{path}: [heatmap] source lesions wants boxes in [network] and a finding with an output")
    if not table["explains"] and "expla" in table["label"].lower():
        raise ModelRejected(
            f"{path}: [heatmap] is called an explanation, yet explains is false: it was not shown to be"
        )


def find_cards(models: Path) -> tuple[ModelCard, ...]:
    """Every model below `models/<name>/<version>/`, newest version of each name last."""
    folders = (p.parent for p in models.glob("*/*/model.toml"))
    return tuple(sorted((read_card(f) for f in folders), key=lambda c: (c.name, _order(c.version))))


def find_card(models: Path, name: str, version: str = "") -> ModelCard:
    """The model `name`, of `version` or the newest. Raises ModelRejected."""
    if not _NAME.fullmatch(name) or (version and not _VERSION.fullmatch(version)):
        raise ModelRejected(f'"{name}" "{version}" is no model name and version')
    if version:
        return read_card(models / name / version)
    versions = [p.parent.name for p in (models / name).glob("*/model.toml") if _VERSION.fullmatch(p.parent.name)]
    if not versions:
        raise ModelRejected(f'no model "{name}" in {models}; `medgem-node models` lists what is there')
    return read_card(models / name / max(versions, key=_order))


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
