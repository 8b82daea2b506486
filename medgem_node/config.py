"""The configuration: read once, at the top, into frozen dataclasses; an unknown key is an error.

`conf/node.toml` shows every option with its default. Nothing below this file reads a file or the environment for
settings.
"""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from medgem_node.errors import ConfigError
from medgem_node.peer import ae_title
from medgem_node.rule import Rule
from medgem_node.viewer_profile import ViewerProfile, read_profiles

BACKENDS = ("auto", "torch", "onnx")
"""What computes a network, see detector/runtime.py."""


@dataclass(frozen=True, slots=True)
class NodeSection:
    """Who this node is, and where it keeps what it has."""

    ae_title: str = "MEDGEM"
    data: str = "medgem-data"
    models: str = ""
    rules: str = "rules.toml"
    deid: str = "deid.toml"
    key_variable: str = ""
    key_command: tuple[str, ...] = ()
    log_level: str = "INFO"


@dataclass(frozen=True, slots=True)
class ReceiveSection:
    """How studies come in."""

    host: str = "0.0.0.0"
    port: int = 11112
    called_ae: tuple[str, ...] = ()
    calling_ae: tuple[str, ...] = ()
    maximum_associations: int = 50
    maximum_pdu_bytes: int = 1_048_576
    maximum_instance_mb: int = 2048
    idle_seconds: float = 60.0
    minimum_free_mb: int = 512


@dataclass(frozen=True, slots=True)
class StoresSection:
    """Where bytes and states lie; empty means below the data folder."""

    database: str = ""
    archive: str = ""
    exchange: str = ""


@dataclass(frozen=True, slots=True)
class PipelineSection:
    """When a study is complete, and how often the steps look."""

    quiet_seconds: float = 60.0
    tick_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class EngineSection:
    """What runs the models."""

    name: str = "local"
    workers: int = 1
    threads: int = 0
    backend: str = "auto"
    lease_seconds: float = 900.0
    attempts: int = 3
    retry_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class ResultsSection:
    """What is written of an analysis: for which viewer or PACS. `profiles` is the folder that describes them."""

    profile: str = "generic"
    profiles: str = ""


@dataclass(frozen=True, slots=True)
class DeliverySection:
    """How results go out."""

    first_retry_seconds: float = 5.0
    longest_retry_seconds: float = 900.0
    timeout_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one node. `source` is the file that they came from, for messages.

    `deid` holds what each de-identification file asks for, by its name; without a name, the node's own.
    """

    node: NodeSection = field(default_factory=NodeSection)
    receive: ReceiveSection = field(default_factory=ReceiveSection)
    stores: StoresSection = field(default_factory=StoresSection)
    pipeline: PipelineSection = field(default_factory=PipelineSection)
    engine: EngineSection = field(default_factory=EngineSection)
    results: ResultsSection = field(default_factory=ResultsSection)
    delivery: DeliverySection = field(default_factory=DeliverySection)
    destinations: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    deid: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    viewer_profiles: Mapping[str, ViewerProfile] = field(default_factory=dict)
    source: str = "defaults"

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return Path(self.node.data).expanduser().absolute()

    @property
    def models(self) -> Path:
        """The models folder."""
        return Path(self.node.models).expanduser().absolute() if self.node.models else shipped("models")

    @property
    def profiles(self) -> Path:
        """The folder of viewer profiles."""
        own = self.results.profiles
        return Path(own).expanduser().absolute() if own else shipped("conf") / "profiles"

    def profile(self, name: str = "") -> ViewerProfile:
        """The viewer profile `name`; without a name the node's own."""
        return self.viewer_profiles[name or self.results.profile]

    @property
    def used_profiles(self) -> tuple[ViewerProfile, ...]:
        """The profiles that the node or one of its rules names, each once."""
        names = dict.fromkeys((self.results.profile, *(r.profile for r in self.rules if r.profile)))
        return tuple(self.viewer_profiles[name] for name in names)

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL of the ledger."""
        return self.stores.database or f"sqlite:///{self.data / 'ledger.sqlite'}"

    @property
    def archive_url(self) -> str:
        """Originals and results: the node only."""
        return self.stores.archive or (self.data / "archive").as_uri()

    @property
    def exchange_url(self) -> str:
        """De-identified copies and outcomes: the worker too."""
        return self.stores.exchange or (self.data / "exchange").as_uri()

    @property
    def key_file(self) -> Path:
        """The secret that pseudonyms are made with."""
        return self.data / "pseudonym.key"


def shipped(folder: str) -> Path:
    """`models` or `conf` as they came: in the checkout, else where the wheel put them."""
    checkout = Path(__file__).parent.parent / folder
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "medgem-node" / folder


def read_config(path: Path | None = None, settings: Iterable[str] = ()) -> Config:
    """The configuration of `path`, or the shipped one, with each `section.key=value` of `settings` put over it.

    Raises
    ------
    ConfigError
        One line: file, key, value, what to do.
    """
    path = path or shipped("conf") / "node.toml"
    source = str(path)
    content = _read_toml(path)
    for setting in settings:
        _put_over(content, setting)
    destinations = content.pop("destinations", {})
    if not isinstance(destinations, dict) or not all(isinstance(v, str) for v in destinations.values()):
        raise ConfigError(f'{source}: [destinations] holds lines of the form NAME = "dimse://AETITLE@host:port"')
    config: Config = replace(_build(Config, content, source, ""), destinations=destinations, source=source)
    rules_path = path.parent / config.node.rules
    rules = read_rules(rules_path)
    deid = {"": _read_deid(path.parent / config.node.deid)}
    deid |= {rule.deid: _read_toml(path.parent / rule.deid) for rule in rules if rule.deid}
    deid = {name: {"pixels": "trust"} | asked for name, asked in deid.items()}  # the copies go to our own worker only
    config = replace(config, rules=rules, deid=deid, viewer_profiles=read_profiles(config.profiles))
    _check(config, str(rules_path))
    return config


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The routing rules of `path`, in order. Raises ConfigError."""
    content = _read_toml(path)
    if unknown := sorted(content.keys() - {"rule"}):
        raise ConfigError(f'{path}: unknown key "{unknown[0]}"; rules are written as [[rule]]')
    rules = content.get("rule", [])
    if not isinstance(rules, list):
        raise ConfigError(f"{path}: rules are written as [[rule]], with two brackets")
    return tuple(_build(Rule, rule, str(path), f"rule {n}") for n, rule in enumerate(rules, 1))


def _read_deid(path: Path) -> dict[str, Any]:
    """What the de-identification is asked to do; without a file, the Basic Profile and nothing else."""
    return _read_toml(path) if path.exists() else {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ConfigError(
            f"{path}: cannot be read ({exc.strerror}); check the path, or run `medgem-node init`"
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: no valid TOML: {exc}") from exc


def _put_over(content: dict[str, Any], setting: str) -> None:
    name, equals, text = setting.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise ConfigError(f'--set "{setting}": write section.key=value, as receive.port=11112')
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = content.setdefault(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f'--set "{setting}": "{section}" is no section')
    table[key] = value


def _build(cls: Any, content: Any, source: str, section: str) -> Any:
    where = f" in [{section}]" if section else ""
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: [{section}] must be a table of keys and values")
    hints = get_type_hints(cls)
    known = [
        f.name
        for f in fields(cls)
        if f.name not in ("source", *(("rules", "destinations", "deid", "viewer_profiles") if cls is Config else ()))
    ]
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            raise ConfigError(f'{source}: unknown key "{key}"{where}{_suggestion(key, known)}')
        values[key] = _typed(hints[key], value, source, f"{section}.{key}" if section else key)
    try:
        return cls(**values)
    except TypeError as exc:
        missing = str(exc).rpartition(":")[2].strip()
        raise ConfigError(f"{source}: key {missing} is missing{where}") from exc
    except ConfigError as exc:
        raise ConfigError(f"{source}: {exc}{where}") from exc


def _suggestion(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known are {', '.join(known)}"


def _typed(hint: Any, value: Any, source: str, key: str) -> Any:
    if is_dataclass(hint):
        return _build(hint, value, source, key)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{source}: {key} = {value!r} must be a list")
        return tuple(_typed(get_args(hint)[0], item, source, key) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if hint is not Any and type(value) not in allowed:
        names = " or ".join(getattr(t, "__name__", str(t)) for t in allowed)
        raise ConfigError(f"{source}: {key} = {value!r} must be {names}")
    return value


def _check(config: Config, rules_path: str) -> None:
    source = config.source
    for key, titles in (
        ("node.ae_title", (config.node.ae_title,)),
        ("receive.called_ae", tuple(t for t in config.receive.called_ae if t != "*")),
        ("receive.calling_ae", config.receive.calling_ae),
    ):
        for title in titles:
            try:
                ae_title(title)
            except ConfigError as exc:
                raise ConfigError(f"{source}: {key} = {exc}") from exc
    if not 0 <= config.receive.port <= 65535:
        raise ConfigError(
            f"{source}: receive.port = {config.receive.port} must be 1 to 65535 (104 and 11112 are DICOM's)"
        )
    for section in (config.receive, config.pipeline, config.engine, config.delivery):
        for entry in fields(section):
            value = getattr(section, entry.name)
            least = (
                0 if entry.name in ("port", "threads", "minimum_free_mb", "quiet_seconds", "retry_seconds") else 1e-3
            )
            if isinstance(value, int | float) and value < least:
                raise ConfigError(f"{source}: {entry.name} = {value} is too small")
    if config.engine.backend not in BACKENDS:
        raise ConfigError(f'{source}: engine.backend = "{config.engine.backend}" must be {", ".join(BACKENDS)}')
    if config.node.log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(f'{source}: node.log_level = "{config.node.log_level}" must be DEBUG, INFO, WARNING or ERROR')
    _check_profile(config, config.results.profile, f"{source}: results.profile")
    for rule in config.rules:
        if rule.profile:
            _check_profile(config, rule.profile, f'{rules_path}: rule "{rule.name}": profile')
        for name in rule.send_to:
            if name not in config.destinations:
                raise ConfigError(
                    f'{rules_path}: rule "{rule.name}" sends to "{name}", which is not in [destinations] of {source}'
                    f"{_suggestion(name, list(config.destinations))}"
                )


def _check_profile(config: Config, name: str, where: str) -> None:
    if name not in config.viewer_profiles:
        known = list(config.viewer_profiles)
        raise ConfigError(
            f'{where} = "{name}": there is no such file in {config.profiles}{_suggestion(name, known)}'
            if known
            else f"{where}: there is no viewer profile in {config.profiles}; correct results.profiles"
        )
