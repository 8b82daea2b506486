"""The training loop: batches, steps, a checkpoint every few minutes, and at the end the weights.

A checkpoint is tensors (safetensors) and a line of JSON beside them, replaced whole. `metrics.jsonl` gets a line for
every report, `run.json` says what the weights come from: recipe, seed, commit and the data's digest.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medgem_node.detector.hiera import LiteHiera, NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.runtime import golden_case
from medgem_node.errors import ConfigError
from medgem_node.train.augment import prepared
from medgem_node.train.batches import Batches
from medgem_node.train.data import Film, Recipe, read_films, read_recipe
from medgem_node.train.imagenet import load_stem
from medgem_node.train.loss import Target, loss
from medgem_node.train.nodules import usual_lungs
from medgem_node.train.validation import validated

_CHECKPOINT_SECONDS = 180
_REPORT_STEPS = 25
_VALIDATE_STEPS = 250
_STEM = "trunk.stem."  # of LiteHiera: what has seen ImageNet
_GOLDEN_TOLERANCE = 0.01  # of averaged probabilities: other kernels differ by 1e-4, other weights by 1e-1


def train(
    recipe: Path,
    data: Path,
    out: Path,
    *,
    minutes: float,
    threads: int,
    resume: bool,
    report: Callable[[str], None],
    fold: int | None = None,
) -> Path:
    """Train for at most `minutes`; the weights so far, in `out`, and whether more steps remain, in the report.

    Parameters
    ----------
    recipe
        `train.toml`; the network's own table is read from `model.toml` beside it.
    out
        Folder of the checkpoint, of `weights.safetensors` and of `golden.json`; to ship them, copy both into the
        model's folder (`golden.json` into `golden/`) and write the weights' sha256 into `model.toml`.
    threads
        0: all cores.
    fold
        Hold this fold of the patients back and never train on it, to choose by (see data.py).
    """
    torch.set_num_threads(threads or os.cpu_count() or 1)
    plan = read_recipe(recipe)
    config = network_config(recipe)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    run = Run.new(plan, config)
    if resume and (out / "checkpoint.json").exists():
        run.load(out)
    elif config.trunk == "lite0":
        run.start_from_imagenet()
    films = [prepared(film, config.size) for film in read_films(plan, data, "train", training=True, fold=fold)]
    check = read_films(plan, data, "validation", training=True, fold=fold)
    held_back = [prepared(film, config.size) for film in check] if fold is None else []
    report(f"{len(films)} films to train on, {len(check)} to validate; step {run.step} of {plan.steps}")
    _note_origin(out, recipe, plan, fold, [*films, *check])
    with _denormals_flushed():
        _steps(run, Batches(plan, config, films, held_back, usual_lungs(films)), check, out, minutes, report)
    weights = out / "weights.safetensors"
    _save(weights, run.average.state_dict())
    golden = {"tolerance": _GOLDEN_TOLERANCE, "expected": golden_case(run.average)}
    (out / "golden.json").write_text(json.dumps(golden) + "\n", "utf-8")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    report(f"step {run.step} of {plan.steps}: weights in {weights}, sha256 {digest}")
    return weights


def network_config(recipe: Path) -> NetworkConfig:
    """The table `[network]` of the manifest beside the recipe; its weights need not exist yet."""
    manifest = tomllib.loads(recipe.with_name("model.toml").read_text("utf-8"))
    return NetworkConfig.read(manifest["network"])


@dataclass(slots=True)
class Run:
    """What changes while training."""

    recipe: Recipe
    network: ChestNetwork
    average: ChestNetwork
    optimiser: torch.optim.AdamW
    step: int = 0

    @classmethod
    def new(cls, recipe: Recipe, config: NetworkConfig) -> Run:
        """Before the first step."""
        network = ChestNetwork(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        groups = []
        for stem in (False, True):
            own = [p for name, p in network.named_parameters() if name.startswith(_STEM) == stem]
            scale = recipe.stem_rate if stem else 1.0
            for decay, matrices in ((recipe.weight_decay, True), (0.0, False)):
                params = [p for p in own if (p.dim() > 1) == matrices]
                groups += [{"params": params, "weight_decay": decay, "scale": scale}] if params else []
        average = deepcopy(network).eval().requires_grad_(False)
        return cls(recipe, network, average, torch.optim.AdamW(groups, lr=recipe.learning_rate))

    def start_from_imagenet(self) -> None:
        """The stem's weights, in the network and in its average. Raises ConfigError."""
        for network in (self.network, self.average):
            assert isinstance(network.trunk, LiteHiera)
            load_stem(network.trunk.stem)

    def learn(self, images: Tensor, target: Target) -> dict[str, float]:
        """One step; the parts of the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.recipe, self.step) * group["scale"]
        torch.manual_seed(self.recipe.seed + self.step)  # of drop path and dropout
        self.network.train()
        parts = loss(self.network(images, len(target.masks)), target)
        if odd := parts.keys() - self.recipe.loss.keys():
            raise ConfigError(f"train.toml: [loss] gives no weight to {', '.join(sorted(odd))}")
        total = torch.stack([self.recipe.loss[name] * part for name, part in parts.items()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(self.recipe.ema_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        return {name: float(part.detach()) for name, part in parts.items()}

    def save(self, out: Path) -> None:
        """Tensors first, then the line that names them: a torn pair is never resumed."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for n, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{n}.{k}": v for k, v in state.items()}
        _save(out / f"checkpoint-{self.step}.safetensors", tensors)
        line = out / "checkpoint.json.part"
        line.write_text(json.dumps({"step": self.step, "seed": self.recipe.seed}), "utf-8")
        os.replace(line, out / "checkpoint.json")
        for old in out.glob("checkpoint-*.safetensors"):
            if old.name != f"checkpoint-{self.step}.safetensors":
                old.unlink()

    def load(self, out: Path) -> None:
        """Go on where `save` was. Raises ConfigError if it was another recipe's."""
        line = json.loads((out / "checkpoint.json").read_text("utf-8"))
        if line["seed"] != self.recipe.seed:
            raise ConfigError(f"{out}: checkpoint has seed {line['seed']}, the recipe {self.recipe.seed}")
        self.step = line["step"]
        tensors = load_file(out / f"checkpoint-{self.step}.safetensors")
        state = self.optimiser.state_dict()
        for key, value in tensors.items():
            kind, rest = key.split(".", 1)
            if kind == "optimiser":
                n, name = rest.split(".")
                state["state"].setdefault(int(n), {})[name] = value
        self.optimiser.load_state_dict(state)
        self.network.load_state_dict(_below("network.", tensors))
        self.average.load_state_dict(_below("average.", tensors))


def _steps(
    run: Run, batches: Batches, check: Sequence[Film], out: Path, minutes: float, report: Callable[[str], None]
) -> None:
    started = saved = time.monotonic()
    recent: dict[str, float] = {}
    for batch in batches.ahead(run.step, run.recipe.steps):
        if time.monotonic() - started > 60 * minutes:
            break
        parts = run.learn(*batch)
        recent = {k: 0.95 * recent.get(k, v) + 0.05 * v for k, v in parts.items()}
        if run.step % _REPORT_STEPS == 0:
            told = " ".join(f"{k} {v:.4f}" for k, v in recent.items())
            report(f"step {run.step} {told} ({time.monotonic() - started:.0f} s)")
            _note(out, {"step": run.step, "rate": rate(run.recipe, run.step), "loss": recent})
        if run.step % _VALIDATE_STEPS == 0 and run.step <= run.recipe.validation_joins:
            found = validated(run.average, check, run.recipe.size_at(run.step - 1, run.network.config.size))
            report(f"step {run.step} validation {' '.join(f'{k} {v:.4f}' for k, v in found.items())}")
            _note(out, {"step": run.step, "validation": found})
        if time.monotonic() - saved > _CHECKPOINT_SECONDS:
            run.save(out)
            saved = time.monotonic()
    run.save(out)


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Focal gradients shrink until a CPU computes them a hundred times slower; below 1e-38 they are taken as 0."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _note(out: Path, values: Mapping[str, object]) -> None:
    """One line of `metrics.jsonl`."""
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(values) + "\n")


def _note_origin(out: Path, recipe: Path, plan: Recipe, fold: int | None, films: Sequence[Film]) -> None:
    digest = hashlib.sha256()
    for film in films:
        digest.update(film.name.encode() + film.pixels.tobytes())
    origin = {
        "recipe_sha256": hashlib.sha256(recipe.read_bytes()).hexdigest(),
        "seed": plan.seed,
        "fold": fold,
        "commit": _commit(),
        "films": len(films),
        "data_sha256": digest.hexdigest(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    (out / "run.json").write_text(json.dumps(origin, indent=1) + "\n", "utf-8")
    _note(out, {"slice": origin})  # one line each time it goes on: the code or the recipe may have changed since


def _commit() -> str:
    """Of the code that trains; empty outside a checkout."""
    found = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def rate(recipe: Recipe, step: int) -> float:
    """A warm-up, then cosines with warm restarts (Loshchilov and Hutter 2017)."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    start = max((end for end in recipe.cycle_ends if end <= step), default=recipe.warmup_steps)
    end = min(end for end in recipe.cycle_ends if end > step)
    peak = recipe.learning_rate if end == recipe.cycle_ends[0] else recipe.learning_rate / 2
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - start) / (end - start))))


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    part = path.with_suffix(".part")
    save_file({key: value.contiguous() for key, value in tensors.items()}, part)
    os.replace(part, path)
