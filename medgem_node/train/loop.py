"""The training loop: batches, steps, a checkpoint every few minutes, and at the end the weights.

Every batch depends on the seed and the step's number only, so an interrupted training goes on as if it had not been.
A checkpoint is tensors (safetensors) and a line of JSON beside them, replaced whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.measure import chest_lines
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import to_tensor
from medgem_node.detector.runtime import golden_case
from medgem_node.errors import ConfigError
from medgem_node.finding import Point
from medgem_node.train.augment import augmented, prepared, turned
from medgem_node.train.data import Film, Recipe, read_films, read_recipe
from medgem_node.train.loss import Target, loss
from medgem_node.train.metrics import dice

_CHECKPOINT_SECONDS = 180
_REPORT_STEPS = 25
_VALIDATE_STEPS = 250
_GOLDEN_TOLERANCE = 0.01  # of averaged probabilities: other kernels differ by 1e-4, other weights by 1e-1
_STRIDE = 4  # of the heatmaps
_SIGMA_CELLS = (1.25, 2.0)  # across and along: the border's side is what counts, its level is less certain


def train(
    recipe: Path,
    data: Path,
    out: Path,
    *,
    minutes: float,
    threads: int,
    resume: bool,
    report: Callable[[str], None],
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
    """
    torch.set_num_threads(threads or os.cpu_count() or 1)
    plan = read_recipe(recipe)
    config = network_config(recipe)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    run = Run.new(plan, config)
    if resume and (out / "checkpoint.json").exists():
        run.load(out)
    films, held_back = (
        [prepared(film, config.size) for film in read_films(plan, data, split, training=True)]
        for split in ("train", "validation")
    )
    check = [f for f in read_films(plan, data, "validation", training=True) if f.kind == "contours"]
    report(f"{len(films)} films to train on, {len(held_back)} to validate; step {run.step} of {plan.steps}")
    _steps(run, Batches(plan, config, films, held_back), check, out, minutes, report)
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
        decayed = [p for p in network.parameters() if p.dim() > 1]
        others = [p for p in network.parameters() if p.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        average = deepcopy(network).eval().requires_grad_(False)
        return cls(recipe, network, average, torch.optim.AdamW(groups, lr=recipe.learning_rate))

    def learn(self, images: Tensor, target: Target) -> dict[str, float]:
        """One step; the parts of the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = _rate(self.recipe, self.step)
        torch.manual_seed(self.recipe.seed + self.step)  # of drop path and dropout
        self.network.train()
        parts = loss(self.network(images, len(target.masks)), target)
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


@dataclass(frozen=True, slots=True)
class Batches:
    """Batch number n, made of films by the recipe's shares."""

    recipe: Recipe
    config: NetworkConfig
    films: Sequence[Film]
    held_back: Sequence[Film] = ()

    def batch(self, step: int) -> tuple[Tensor, Target]:
        """(B, 1, H, W) and its truth; the same for the same step."""
        rng = np.random.default_rng((self.recipe.seed, step))
        samples = [self._sample(film, kind, rng) for film, kind in self._chosen(step, rng)]
        samples.sort(key=lambda sample: not sample[2].any())  # those with a truth to draw come first
        drawn = sum(bool(sample[2].any()) for sample in samples)
        images, masks, known, points, points_known, gate = (
            torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True)
        )
        truth = Target(masks[:drawn], known[:drawn], points[:drawn], points_known[:drawn], gate)
        return images.contiguous(memory_format=torch.channels_last), truth

    def ahead(self, first: int, end: int) -> Iterator[tuple[Tensor, Target]]:
        """The batches `first` to `end`, each made while the one before is learnt from."""
        with ThreadPoolExecutor(1) as maker:
            coming = maker.submit(self.batch, first)
            for step in range(first + 1, end + 1):
                now, coming = coming.result(), maker.submit(self.batch, step)
                yield now

    def _chosen(self, step: int, rng: Generator) -> list[tuple[Film, str]]:
        """Films with the gate's class that each is to show."""
        films = [*self.films, *(self.held_back if step >= self.recipe.validation_joins else ())]
        chosen = []
        for source in self.recipe.sources:
            own = [film for film in films if film.source == source.name]
            for n in rng.integers(0, len(own), source.share) if own else ():
                chosen.append((own[n], self.config.classes[0] if own[n].is_frontal else "other"))
        frontal = [film for film in films if film.is_frontal]
        for n in rng.integers(0, len(frontal), self.recipe.turned_share):
            chosen.append((frontal[n], str(rng.choice(self.config.classes[1:]))))
        return chosen

    def _sample(self, film: Film, kind: str, rng: Generator) -> tuple[NDArray[np.generic], ...]:
        size = self.config.size
        grey, truth = augmented(film, size, self.recipe.augment, rng)
        known = film.known
        if not film.is_frontal:
            grey = np.rot90(grey[:, :: int(rng.choice((1, -1)))], int(rng.integers(4)))
        elif kind != self.config.classes[0]:
            grey, known = turned(grey, kind, rng), (False,) * 3
        points, points_known = point_maps(truth, known)
        image = _input(np.ascontiguousarray(grey), size)
        gate = np.array(self.config.classes.index(kind))
        return image, truth, np.array(known, np.float32), points, points_known, gate


def point_maps(truth: NDArray[np.float32], known: Sequence[bool]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A peak at each point of the measurement, on masks of (3, H, W): (4, H/4, W/4); and which of them are known."""
    rows, columns = (n // _STRIDE for n in truth.shape[1:])
    maps = np.zeros((4, rows, columns), np.float32)
    lines = chest_lines(truth[0] > 0.5, truth[1] > 0.5, truth[2] > 0.5 if known[2] else np.ones(truth.shape[1:], bool))
    if lines is None:
        return maps, np.zeros(4, np.float32)
    for peak, point in zip(maps, lines.points, strict=True):
        peak[:] = _peak(point, rows, columns)
    return maps, np.array([known[2], known[2], known[0] and known[1], known[0] and known[1]], np.float32)


def _peak(point: Point, rows: int, columns: int) -> NDArray[np.float32]:
    column = min(max(int(point.x / _STRIDE), 0), columns - 1)
    row = min(max(int(point.y / _STRIDE), 0), rows - 1)
    x = (np.arange(columns, dtype=np.float32) - column) / _SIGMA_CELLS[0]
    y = (np.arange(rows, dtype=np.float32) - row) / _SIGMA_CELLS[1]
    return np.exp(-0.5 * (x**2 + y[:, None] ** 2))


def _input(grey: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    if np.ptp(grey) < 1e-3:  # nothing to scale by; the detector refuses such an image before the network
        return np.full((1, size, size), -2.0, np.float32)
    return to_tensor(grey * 255, size)[0]


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
        if run.step % _VALIDATE_STEPS == 0 and run.step <= run.recipe.validation_joins:
            report(f"step {run.step} validation {_validated(run.average, check)}")
        if time.monotonic() - saved > _CHECKPOINT_SECONDS:
            run.save(out)
            saved = time.monotonic()
    run.save(out)


@torch.inference_mode()
def _validated(network: ChestNetwork, films: Sequence[Film]) -> str:
    size = network.config.size
    scores = []
    for film in films:
        tensor, box = to_tensor(film.pixels, size)
        maps = network(torch.from_numpy(tensor)[None]).masks[0].sigmoid().numpy()
        assert film.truth is not None
        scores.append([dice(box.crop_resize(m) > 0.5, t > 0.5) for m, t in zip(maps, film.truth, strict=True)])
    return " ".join(f"{name} {score:.4f}" for name, score in zip(network.config.masks, np.mean(scores, 0), strict=True))


def _rate(recipe: Recipe, step: int) -> float:
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
