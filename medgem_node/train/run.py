"""What changes while training: the network, its average, the optimiser, the step, and the best average so far."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from medgem_node.detector.hiera import Block, LiteHiera, NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.errors import ConfigError
from medgem_node.train import checkpoint
from medgem_node.train.data import Recipe
from medgem_node.train.distributed import Ranks
from medgem_node.train.imagenet import load_stem
from medgem_node.train.loss import Known, Target, known, loss
from medgem_node.train.schedule import Best, rate

_STEM = "trunk.stem."  # of LiteHiera: what has seen ImageNet
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_MASK_LOSSES = ("entropy", "focal")
_RANK_SEEDS = 1 << 32  # apart: no rank repeats what another draws at some other step


@dataclass(slots=True)
class Run:
    """A training between two steps."""

    recipe: Recipe
    network: ChestNetwork
    average: ChestNetwork
    optimiser: torch.optim.AdamW
    ranks: Ranks
    wrapped: nn.Module  # the network, as all ranks learn it
    scaler: torch.amp.GradScaler
    step: int = 0
    best: Best = field(default_factory=Best)
    best_average: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def new(cls, recipe: Recipe, config: NetworkConfig, ranks: Ranks | None = None) -> Run:
        """Before the first step. Raises ConfigError."""
        for value, choices in ((recipe.precision, [*_PRECISIONS]), (recipe.mask_loss, [*_MASK_LOSSES])):
            if value not in choices:
                raise ConfigError(f'train.toml: "{value}" is not one of {", ".join(choices)}')
        ranks = ranks or Ranks()
        network = ChestNetwork(config).to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for block in network.modules():
            if isinstance(block, Block):
                block.checkpointing = recipe.checkpointing
        average = deepcopy(network).eval().requires_grad_(False)
        scaled = recipe.precision == "float16" and ranks.device.type == "cuda"  # else no gradient underflows
        scaler = torch.amp.GradScaler("cuda", enabled=scaled)
        return cls(recipe, network, average, optimiser(network, recipe), ranks, ranks.wrapped(network), scaler)

    def start_from_imagenet(self) -> None:
        """The stem's weights, in the network and in its average. Raises ConfigError."""
        for network in (self.network, self.average):
            assert isinstance(network.trunk, LiteHiera)
            load_stem(network.trunk.stem)

    def start_from(self, trunk: Path) -> None:
        """The trunk's weights, as pretrain.py leaves them. Raises ConfigError."""
        tensors = load_file(trunk)
        for network in (self.network, self.average):
            try:
                network.trunk.load_state_dict(tensors)
            except RuntimeError as exc:
                raise ConfigError(f"{trunk}: not the trunk of this model's network") from exc

    def learn(self, images: Tensor, target: Target) -> dict[str, float]:
        """One step; the parts of the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.recipe, self.step) * group["scale"]
        torch.manual_seed(self.recipe.seed + self.step + _RANK_SEEDS * self.ranks.rank)  # of drop path and dropout
        parts = self._parts(images, target)
        total = torch.stack([self.recipe.loss[name] * part for name, part in parts.items()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(total * self.ranks.world if self.ranks.world > 1 else total).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        self._follow()
        told = self.ranks.summed(torch.stack([part.detach() for part in parts.values()]))
        return dict(zip(parts, told.tolist(), strict=True))

    def _parts(self, images: Tensor, target: Target) -> dict[str, Tensor]:
        """Of this rank's films; over the ranks they add up to the batch's."""
        where, whole = self.ranks.device, known(target)
        images, target = self.ranks.part(images, target)
        images, target = images.to(where, non_blocking=True), Target(*(t.to(where, non_blocking=True) for t in target))
        whole = Known(*(count.to(where) for count in whole))
        self.wrapped.train()
        precision = _PRECISIONS[self.recipe.precision]
        with torch.autocast(where.type, precision, enabled=precision is not torch.float32):
            outputs = self.wrapped(images, len(target.masks))
        outputs = outputs._make(None if o is None else o.float() for o in outputs)
        parts = loss(outputs, target, whole, focal=self.recipe.mask_loss == "focal")
        if odd := parts.keys() - self.recipe.loss.keys():
            raise ConfigError(f"train.toml: [loss] gives no weight to {', '.join(sorted(odd))}")
        return parts

    def _follow(self) -> None:
        """The average takes a step towards the network."""
        keep = min(self.recipe.ema_decay, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)

    def judge(self, found: Mapping[str, float]) -> None:
        """Keep the average if it is the best so far by the figure of `stop_by`. Raises ConfigError."""
        if not (figure := self.recipe.stop_by):
            return
        if figure not in found:
            raise ConfigError(f'train.toml: stop_by "{figure}" is not one of {", ".join(found) or "no figures"}')
        self.best = self.best.after(found[figure], self.step)
        if self.best.step == self.step:
            self.best_average = {key: value.clone() for key, value in self.average.state_dict().items()}

    @property
    def is_over(self) -> bool:
        """Whether the figure has long been no better."""
        return self.best.is_over(self.recipe.patience)

    def shipped(self) -> ChestNetwork:
        """The average, at its best if there is a figure to say so."""
        if not self.best_average:
            return self.average
        network = deepcopy(self.average)
        network.load_state_dict(self.best_average)
        return network

    def save(self, out: Path) -> None:
        """Replaces the checkpoint in `out`."""
        line: dict[str, Any] = {"step": self.step, "seed": self.recipe.seed}
        tensors = checkpoint.above("network.", self.network.state_dict())
        tensors |= checkpoint.above("average.", self.average.state_dict())
        tensors |= checkpoint.of_optimiser(self.optimiser)
        if self.recipe.stop_by:
            line["best"] = asdict(self.best)
            tensors |= checkpoint.above("best.", self.best_average)
        if self.scaler.is_enabled():
            line["scaler"] = self.scaler.state_dict()
        checkpoint.write(out, line, tensors)

    def load(self, out: Path) -> None:
        """Go on where `save` was. Raises ConfigError if it was another recipe's."""
        line, tensors = checkpoint.read(out, self.recipe.seed)
        self.step = line["step"]
        self.network.load_state_dict(checkpoint.below("network.", tensors))
        self.average.load_state_dict(checkpoint.below("average.", tensors))
        checkpoint.to_optimiser(self.optimiser, tensors)
        if "best" in line:
            self.best = Best(**line["best"])
            self.best_average = checkpoint.below("best.", tensors)
        if "scaler" in line:
            self.scaler.load_state_dict(line["scaler"])


def optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; only matrices decay, and a stem that has seen ImageNet learns slower."""
    groups = []
    for stem in (False, True):
        own = [p for name, p in network.named_parameters() if name.startswith(_STEM) == stem]
        scale = recipe.stem_rate if stem else 1.0
        for decay, matrices in ((recipe.weight_decay, True), (0.0, False)):
            params = [p for p in own if (p.dim() > 1) == matrices]
            groups += [{"params": params, "weight_decay": decay, "scale": scale}] if params else []
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)
