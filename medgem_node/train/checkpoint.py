"""A state on disk that a killed training goes on from: tensors (safetensors), and a line of JSON that names them.

The tensors are written first and the line replaces the one before, whole; so a torn pair is never gone on from, and
saving twice is the same as once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medgem_node.errors import ConfigError

NAME = "checkpoint"


def exists(out: Path, name: str = NAME) -> bool:
    """Whether there is one to go on from."""
    return (out / f"{name}.json").exists()


def write(out: Path, line: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str = NAME) -> None:
    """Replace the checkpoint in `out`; `line` has at least `step` and `seed`."""
    kept = out / f"{name}-{line['step']}.safetensors"
    write_tensors(kept, tensors)
    part = out / f"{name}.json.part"
    part.write_text(json.dumps(line), "utf-8")
    os.replace(part, out / f"{name}.json")
    for old in out.glob(f"{name}-*.safetensors"):
        if old != kept:
            old.unlink()


def read(out: Path, seed: int, name: str = NAME) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The line and the tensors, on the CPU. Raises ConfigError if it was a recipe with another seed."""
    line = json.loads((out / f"{name}.json").read_text("utf-8"))
    if line["seed"] != seed:
        raise ConfigError(f"{out}: checkpoint has seed {line['seed']}, the recipe {seed}")
    return line, load_file(out / f"{name}-{line['step']}.safetensors")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Replaces the file whole."""
    part = path.with_suffix(".part")
    save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, part)
    os.replace(part, path)


def of_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Its moments and step counts, to be written."""
    states = optimiser.state_dict()["state"].items()
    return {f"optimiser.{n}.{name}": value for n, state in states for name, value in state.items()}


def to_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The reverse of `of_optimiser`."""
    state = optimiser.state_dict()
    for key, value in below("optimiser.", tensors).items():
        n, name = key.split(".")
        state["state"].setdefault(int(n), {})[name] = value
    optimiser.load_state_dict(state)


def above(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with `prefix` before each name."""
    return {prefix + key: value for key, value in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
