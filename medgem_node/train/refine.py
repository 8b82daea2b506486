"""Teaching the query decoder on a network that is otherwise finished and stays as it is.

A few minutes: the frozen network sees each film once a step and only the queries learn. Films of sources with known
lesions alone, by the shares of the network's own recipe. A checkpoint is replaced whole; what goes on from it gives the
same weights as if it had not been interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.queries import QueryDecoder
from medgem_node.detector.runtime import golden_case
from medgem_node.errors import ConfigError, ModelRejected
from medgem_node.train import checkpoint
from medgem_node.train.augment import prepared
from medgem_node.train.batches import Batches
from medgem_node.train.data import Film, Recipe, read_films, read_recipe
from medgem_node.train.evaluate_queries import compare, table
from medgem_node.train.loop import network_config
from medgem_node.train.loss import Target
from medgem_node.train.nodules import usual_lungs
from medgem_node.train.query_loss import query_loss
from medgem_node.train.schedule import rate

STEPS = 160
"""At 384 pixels, four to five minutes of one core."""
QUERIES = 20
_OWN = "queries."  # what the names of the query decoder's weights begin with
_CHECKPOINT = "refining"
_CHECKPOINT_SECONDS = 60
_REPORT_STEPS = 25
_LEARNING_RATE = 5e-4
_WARMUP_STEPS = 20
_WEIGHT_DECAY = 0.05
_EMA_DECAY = 0.98
_BOXES = 0.3  # weight of the boxes' loss beside the scores'
_GOLDEN_TOLERANCE = 0.01


def refine(
    recipe: Path,
    data: Path,
    weights: Path,
    out: Path,
    *,
    minutes: float,
    threads: int,
    resume: bool,
    report: Callable[[str], None],
    steps: int = STEPS,
    queries: int = QUERIES,
    fold: int | None = None,
) -> Path:
    """Teach for at most `minutes`, then compare with the box head alone; the weights of both, in `out`.

    Parameters
    ----------
    recipe
        `train.toml` of the network; its `model.toml` stands beside it, with the key `queries` or without.
    weights
        Of the finished network, with a query decoder to go on from or without. Nothing but that decoder changes.
    out
        Folder of the checkpoint, of `weights.safetensors`, `golden.json` and `comparison.json`. To ship the queries,
        copy the first two into the model's folder and write the sha256 and `queries` into `model.toml`.
    threads
        0: all cores.
    fold
        The fold that the network was trained without (see data.py).

    Raises
    ------
    ModelRejected
        If the weights are not those of the network.
    ConfigError
        If the checkpoint is of other weights, steps or seed.
    """
    torch.set_num_threads(threads or os.cpu_count() or 1)
    out.mkdir(parents=True, exist_ok=True)
    plan = refining_plan(read_recipe(recipe), steps)
    config = replace(network_config(recipe), queries=queries)
    torch.manual_seed(plan.seed)
    run = Refining.new(plan, frozen(config, weights), hashlib.sha256(weights.read_bytes()).hexdigest())
    if resume and checkpoint.exists(out, _CHECKPOINT):
        run.load(out)
    films = [
        prepared(f, config.size) for f in _with_known_lesions(read_films(plan, data, "train", training=True, fold=fold))
    ]
    report(f"{len(films)} films to refine on; step {run.step} of {steps}")
    _steps(run, Batches(plan, config, films, (), usual_lungs(films)), out, minutes, report)
    check = _with_known_lesions(read_films(plan, data, "validation", training=True, fold=fold))
    return _written(run, check, out, report)


def refining_plan(recipe: Recipe, steps: int) -> Recipe:
    """The recipe's sources with lesions, its augmentation and shares, for so many steps. Raises ConfigError."""
    sources = tuple(s for s in recipe.sources if (s.lesion_kind or s.catalogue) and not s.evaluate_only)
    if not any(s.lesion_share for s in sources):
        raise ConfigError("train.toml: no source has a lesion_share, so there is nothing to refine boxes by")
    return replace(
        recipe, sources=sources, turned_share=0, small_steps=0, validation_joins=steps + 1, cycle_ends=(steps,),
        learning_rate=_LEARNING_RATE, warmup_steps=min(_WARMUP_STEPS, steps // 4), weight_decay=_WEIGHT_DECAY,
    )  # fmt: skip


def frozen(config: NetworkConfig, weights: Path) -> ChestNetwork:
    """The network with these weights, of which only the query decoder learns. Raises ModelRejected."""
    network: ChestNetwork = ChestNetwork(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        odd = network.load_state_dict(load_file(weights), strict=False)
    except (OSError, SafetensorError, RuntimeError) as exc:
        raise ModelRejected(f"{weights}: not the weights of this network ({type(exc).__name__})") from exc
    missing = [name for name in odd.missing_keys if not name.startswith(_OWN)]
    if missing or odd.unexpected_keys:
        raise ModelRejected(f"{weights}: not the weights of this network ({[*missing, *odd.unexpected_keys][0]})")
    network.eval().requires_grad_(False)
    _queries(network).requires_grad_(True)
    return network


@dataclass(slots=True)
class Refining:
    """A refinement between two steps."""

    plan: Recipe
    network: ChestNetwork
    average: QueryDecoder
    optimiser: torch.optim.AdamW
    weights_sha256: str
    step: int = 0

    @classmethod
    def new(cls, plan: Recipe, network: ChestNetwork, weights_sha256: str) -> Refining:
        """Before the first step."""
        own = _queries(network)
        groups = [
            {"params": [p for p in own.parameters() if (p.dim() > 1) == matrices], "weight_decay": decay}
            for matrices, decay in ((True, plan.weight_decay), (False, 0.0))
        ]
        average = deepcopy(own).eval().requires_grad_(False)
        return cls(plan, network, average, torch.optim.AdamW(groups, lr=plan.learning_rate), weights_sha256)

    def learn(self, images: Tensor, target: Target) -> dict[str, float]:
        """One step; the parts of the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.plan, self.step)
        torch.manual_seed(self.plan.seed + self.step)  # of dropout
        own = _queries(self.network).train()
        parts = query_loss(self._refined(images[: len(target.masks)]), target)
        self.optimiser.zero_grad(set_to_none=True)
        (parts["queries"] + _BOXES * parts["query boxes"]).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(own.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(_EMA_DECAY, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), own.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        return {name: float(part.detach()) for name, part in parts.items()}

    def _refined(self, images: Tensor) -> Tensor:
        assert self.network.boxes is not None
        with torch.no_grad():
            features = self.network.trunk(images)
            maps = self.network.decoder(features)
            boxes = self.network.boxes(maps[2])
        refined = self.network.refine(boxes, features, maps)
        assert refined is not None
        return refined

    def refined_network(self) -> ChestNetwork:
        """The network with the average of its query decoder."""
        network = deepcopy(self.network).eval().requires_grad_(False)
        _queries(network).load_state_dict(self.average.state_dict())
        return network

    def save(self, out: Path) -> None:
        """Replaces the checkpoint in `out`."""
        line = {**self._origin(), "step": self.step}
        tensors = checkpoint.above("queries.", _queries(self.network).state_dict())
        tensors |= checkpoint.above("average.", self.average.state_dict())
        checkpoint.write(out, line, tensors | checkpoint.of_optimiser(self.optimiser), _CHECKPOINT)

    def load(self, out: Path) -> None:
        """Go on where `save` was. Raises ConfigError."""
        line, tensors = checkpoint.read(out, self.plan.seed, _CHECKPOINT)
        for key, value in self._origin().items():
            if line[key] != value:
                raise ConfigError(f"{out}: checkpoint has {key} {line[key]}, asked for is {value}")
        self.step = line["step"]
        _queries(self.network).load_state_dict(checkpoint.below("queries.", tensors))
        self.average.load_state_dict(checkpoint.below("average.", tensors))
        checkpoint.to_optimiser(self.optimiser, tensors)

    def _origin(self) -> Mapping[str, object]:
        return {
            "seed": self.plan.seed, "steps": self.plan.steps, "queries": self.average.most,
            "weights": self.weights_sha256,
        }  # fmt: skip


def _steps(run: Refining, batches: Batches, out: Path, minutes: float, report: Callable[[str], None]) -> None:
    started = saved = time.monotonic()
    recent: dict[str, float] = {}
    for batch in batches.ahead(run.step, run.plan.steps) if run.step < run.plan.steps else ():
        if time.monotonic() - started > 60 * minutes:
            break
        parts = run.learn(*batch)
        recent = {k: 0.95 * recent.get(k, v) + 0.05 * v for k, v in parts.items()}
        if run.step % _REPORT_STEPS == 0:
            told = " ".join(f"{k} {v:.4f}" for k, v in recent.items())
            report(f"step {run.step} {told} ({time.monotonic() - started:.0f} s)")
        if time.monotonic() - saved > _CHECKPOINT_SECONDS:
            run.save(out)
            saved = time.monotonic()
    run.save(out)


def _written(run: Refining, check: Sequence[Film], out: Path, report: Callable[[str], None]) -> Path:
    """Weights, golden case and comparison of what was taught so far."""
    network, weights = run.refined_network(), out / "weights.safetensors"
    checkpoint.write_tensors(weights, network.state_dict())
    golden = {"tolerance": _GOLDEN_TOLERANCE, "expected": golden_case(network)}
    (out / "golden.json").write_text(json.dumps(golden) + "\n", "utf-8")
    found = compare(network, check, seed=run.plan.seed)
    told = {**run._origin(), "step": run.step, "sources": found}
    (out / "comparison.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    for line in table(found):
        report(line)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    report(f"step {run.step} of {run.plan.steps}: weights in {weights}, sha256 {digest}")
    return weights


def _with_known_lesions(films: Sequence[Film]) -> list[Film]:
    return [film for film in films if film.lesions is not None]


def _queries(network: ChestNetwork) -> QueryDecoder:
    assert network.queries is not None
    return network.queries
