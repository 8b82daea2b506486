"""What commands share: the configuration that their arguments ask for, a model's arguments, and a line of output."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from medgem_node.config import Config, read_config
from medgem_node.errors import ConfigError
from medgem_node.peer import Peer

Run = Callable[[argparse.Namespace], int]
"""Runs a command; the exit code."""
Command = Callable[[str, Run, str], argparse.ArgumentParser]
"""Makes a command of a name, what runs it and a sentence of help; arguments are added to what it gives."""


def say(text: str, stream: TextIO | None = None) -> None:
    """One line for whoever called."""
    print(text, file=stream, flush=True)


def common_arguments() -> argparse.ArgumentParser:
    """The parent of every command's parser."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="node.toml; default: the one that came with the package"
    )
    common.add_argument("--data", type=Path, metavar="DIR", help="data folder, instead of node.data")
    common.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="put one setting over the file's"
    )
    common.add_argument("--verbose", action="store_true", help="show where an internal error came from")
    return common


def model_arguments(made: argparse.ArgumentParser) -> None:
    """`--model` and `--model-version`, as `options.model` and `options.version_of_model`."""
    made.add_argument("--model", required=True, metavar="NAME", help="as `medgem-node models` lists it")
    made.add_argument("--model-version", dest="version_of_model", default="", metavar="X.Y.Z", help="default: newest")


def training_arguments(made: argparse.ArgumentParser) -> None:
    """What `train` and `pretrain` are told alike. Neither reads node.toml, so their `--config` names the recipe."""
    made.add_argument("recipe", nargs="?", type=Path, metavar="TRAIN.TOML", help="or --config TRAIN.TOML")
    made.add_argument("data_folder", type=Path, metavar="IMAGES")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoints and weights")
    made.add_argument("--minutes", type=float, default=60.0, help="stop after so long; --resume goes on")
    made.add_argument("--threads", type=int, default=0, help="0: all cores")
    made.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    made.add_argument("--fold", type=int, metavar="N", help="hold fold N of the patients back, to choose by")


def recipe_of(options: argparse.Namespace) -> Path:
    """The recipe, however it was named. Raises ConfigError."""
    named: list[Path] = [path for path in (options.recipe, options.config) if path is not None]
    if len(named) != 1:
        raise ConfigError("name one recipe: TRAIN.TOML before IMAGES, or --config TRAIN.TOML")
    return named[0]


def as_asked(options: argparse.Namespace) -> dict[str, Any]:
    """What every training takes: how long, on how many threads, whether to go on, and where it reports to."""
    return {"minutes": options.minutes, "threads": options.threads, "resume": options.resume, "report": say}


def configured(options: argparse.Namespace) -> Config:
    """The configuration of the file that was asked for, with the settings put over it. Raises ConfigError."""
    return read_config(options.config, settings(options))


def settings(options: argparse.Namespace) -> list[str]:
    """`section.key=value` of each setting."""
    given = list(options.set)
    if options.data is not None:
        given.append(f"node.data={json.dumps(str(options.data))}")
    return given


def named_peer(text: str, config: Config) -> Peer:
    """A name of [destinations], or an address. Raises ConfigError."""
    return Peer.parse(config.destinations.get(text, text))
