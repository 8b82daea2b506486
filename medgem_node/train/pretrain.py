"""A first stage that needs no labels: blocks of a picture are hidden, and the trunk learns to tell what they held.

Hidden blocks are mid-grey; one convolution at stride 16 and one at stride 32 predict every pixel; only the hidden
ones cost, by their absolute error. What is left is the trunk, which `train` starts from (`--first-stage`).

References: Xie et al. 2022 (SimMIM), arXiv:2111.09886.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from medgem_node.detector import runtime
from medgem_node.detector.hiera import LiteHiera, NetworkConfig
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import to_tensor
from medgem_node.errors import ConfigError
from medgem_node.train import checkpoint
from medgem_node.train.augment import prepared
from medgem_node.train.batches import Batches
from medgem_node.train.data import Film, Recipe, read_films, read_recipe
from medgem_node.train.imagenet import load_stem
from medgem_node.train.loop import denormals_flushed, network_config, note, shown
from medgem_node.train.run import optimiser
from medgem_node.train.schedule import rate

_NAME = "pretraining"  # of its checkpoint
_CHECKPOINT_SECONDS = 180
_REPORT_STEPS = 25
_VALIDATE_STEPS = 250
_FINE, _COARSE = 16, 32  # strides of the last two of the trunk's maps


class Reconstruction(nn.Module):
    """The trunk, and two convolutions that are thrown away when it has learnt."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.trunk = ChestNetwork(config).trunk
        self.fine = nn.Conv2d(config.widths[1], _FINE**2, 1)
        self.coarse = nn.Conv2d(config.widths[2], _COARSE**2, 1)

    def forward(self, image: Tensor, hidden: Tensor) -> Tensor:
        """(B, 1, H, W) and where it is hidden, the same shape, bool -> the whole image as the trunk imagines it."""
        features = self.trunk(image.masked_fill(hidden, 0.0))
        fine = functional.pixel_shuffle(self.fine(features[-2]), _FINE)  # (B, 256, H/16, W/16) -> (B, 1, H, W)
        return fine + functional.pixel_shuffle(self.coarse(features[-1]), _COARSE)  # (B, 1, H, W)


def blocks(shape: Sequence[int], masked: float, block: int, made: torch.Generator) -> Tensor:
    """Where an image of (B, 1, H, W) is hidden: the same share of each one's blocks, drawn at random."""
    batch, rows, columns = shape[0], shape[-2] // block, shape[-1] // block
    order = torch.rand(batch, rows * columns, generator=made).argsort(dim=1)
    chosen = (order < round(masked * rows * columns)).reshape(batch, 1, rows, columns)
    return chosen.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)  # (B, 1, H, W)


def hidden_error(imagined: Tensor, image: Tensor, hidden: Tensor) -> Tensor:
    """Mean absolute error where the image was hidden."""
    return ((imagined - image).abs() * hidden).sum() / hidden.sum()


@dataclass(slots=True)
class Pretraining:
    """A first stage between two steps. `recipe` has its own steps only."""

    recipe: Recipe
    network: Reconstruction
    optimiser: torch.optim.AdamW
    step: int = 0

    @classmethod
    def new(cls, recipe: Recipe, config: NetworkConfig) -> Pretraining:
        """Before the first step. Raises ConfigError."""
        first = recipe.pretrain
        sizes = [config.size, *([recipe.small_size] if recipe.small_steps else [])]
        if first.steps < 1 or not 0 < first.masked < 1 or any(first.block < 1 or size % first.block for size in sizes):
            raise ConfigError(
                "train.toml: [pretrain] needs steps, masked between 0 and 1, and a block that parts the size"
            )
        plan = replace(recipe, cycle_ends=(first.steps,), warmup_steps=min(recipe.warmup_steps, first.steps // 10))
        network = Reconstruction(config).to(runtime.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(plan, network, optimiser(network, plan))

    def learn(self, images: Tensor) -> float:
        """One step; the error."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.recipe, self.step) * group["scale"]
        torch.manual_seed(self.recipe.seed + self.step)  # of drop path
        made = torch.Generator().manual_seed(self.recipe.seed + self.step)
        error = self._error(images, made)
        self.optimiser.zero_grad(set_to_none=True)
        error.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return error.item()

    def _error(self, images: Tensor, made: torch.Generator) -> Tensor:
        self.network.train()
        where = next(self.network.parameters()).device
        hidden = blocks(images.shape, self.recipe.pretrain.masked, self.recipe.pretrain.block, made).to(where)
        images = images.to(where, non_blocking=True)
        return hidden_error(self.network(images, hidden), images, hidden)

    @torch.inference_mode()
    def checked(self, films: Sequence[Film], size: int) -> float:
        """The mean error on films that are not trained on, each with the same blocks hidden every time."""
        self.network.eval()
        made, errors = torch.Generator().manual_seed(0), []
        where, first = next(self.network.parameters()).device, self.recipe.pretrain
        for film in films:
            image = torch.from_numpy(to_tensor(film.loaded().pixels, size)[0])[None].to(where)
            hidden = blocks(image.shape, first.masked, first.block, made).to(where)
            errors.append(hidden_error(self.network(image, hidden), image, hidden).item())
        return sum(errors) / len(errors)

    def save(self, out: Path) -> None:
        """Replaces the checkpoint in `out`."""
        tensors = checkpoint.above("network.", self.network.state_dict()) | checkpoint.of_optimiser(self.optimiser)
        checkpoint.write(out, {"step": self.step, "seed": self.recipe.seed}, tensors, _NAME)

    def load(self, out: Path) -> None:
        """Go on where `save` was. Raises ConfigError if it was another recipe's."""
        line, tensors = checkpoint.read(out, self.recipe.seed, _NAME)
        self.step = line["step"]
        self.network.load_state_dict(checkpoint.below("network.", tensors))
        checkpoint.to_optimiser(self.optimiser, tensors)


def pretrain(
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
    """Learn from pictures alone for at most `minutes`; the trunk so far, `first-stage.safetensors` in `out`.

    Parameters
    ----------
    recipe
        `train.toml`, of which `[pretrain]`, the sources and the augmentation are used; `model.toml` beside it.
    fold
        As of `loop.train`: give both the same, or the first stage has seen what the second is judged on.
    """
    torch.set_num_threads(threads or os.cpu_count() or 1)
    plan, config = read_recipe(recipe), network_config(recipe)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    stage = Pretraining.new(plan, config)
    if resume and checkpoint.exists(out, _NAME):
        stage.load(out)
    elif isinstance(stage.network.trunk, LiteHiera):
        load_stem(stage.network.trunk.stem)
    films = [prepared(film, config.size) for film in read_films(plan, data, "train", training=True, fold=fold)]
    check = [film for film in read_films(plan, data, "validation", training=True, fold=fold) if film.is_frontal]
    report(f"{len(films)} films to learn from, {len(check)} to check by; step {stage.step} of {stage.recipe.steps}")
    with denormals_flushed():
        _steps(stage, Batches(stage.recipe, config, films), check, out, minutes, report)
    kept = out / "first-stage.safetensors"
    checkpoint.write_tensors(kept, stage.network.trunk.state_dict())
    digest = hashlib.sha256(kept.read_bytes()).hexdigest()
    report(f"step {stage.step} of {stage.recipe.steps}: trunk in {kept}, sha256 {digest}")
    return kept


def _steps(
    stage: Pretraining,
    batches: Batches,
    check: Sequence[Film],
    out: Path,
    minutes: float,
    report: Callable[[str], None],
) -> None:
    started = saved = time.monotonic()
    recent, end, where = 0.0, stage.recipe.steps, runtime.device()
    for images, _ in shown(batches.ahead(stage.step, end), stage.step, end, where):
        if time.monotonic() - started > 60 * minutes:
            break
        error = stage.learn(images)
        recent = 0.95 * (recent or error) + 0.05 * error
        if stage.step % _REPORT_STEPS == 0:
            report(f"step {stage.step} hidden pixels {recent:.4f} ({time.monotonic() - started:.0f} s)")
            note(out, {"pretraining": stage.step, "rate": rate(stage.recipe, stage.step - 1), "error": recent})
        if check and (stage.step % _VALIDATE_STEPS == 0 or stage.step == end):
            found = stage.checked(check, stage.recipe.size_at(stage.step - 1, batches.config.size))
            report(f"step {stage.step} validation {found:.4f}")
            note(out, {"pretraining": stage.step, "validation": found})
        if time.monotonic() - saved > _CHECKPOINT_SECONDS:
            stage.save(out)
            saved = time.monotonic()
    stage.save(out)
