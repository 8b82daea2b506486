"""The training loop: batches, steps, a checkpoint every few minutes, and at the end the weights.

`run.py` is one step, `checkpoint.py` what a killed training goes on from, `distributed.py` several GPUs.
`metrics.jsonl` gets a line for every report, `run.json` says what the weights come from: recipe, seed, commit and the
data's digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from medgem_node.detector.hiera import NetworkConfig
from medgem_node.detector.runtime import golden_case
from medgem_node.train import checkpoint
from medgem_node.train.augment import prepared
from medgem_node.train.batches import Batches
from medgem_node.train.data import Film, licences, read_films, read_recipe
from medgem_node.train.distributed import ranks
from medgem_node.train.leaks import refuse_leaks
from medgem_node.train.loss import Target
from medgem_node.train.nodules import usual_lungs
from medgem_node.train.provenance import commit
from medgem_node.train.run import Run
from medgem_node.train.schedule import check_stopping, rate
from medgem_node.train.validation import validated

Batch = tuple[Tensor, Target]
_CHECKPOINT_SECONDS = 180
_REPORT_STEPS = 25
_VALIDATE_STEPS = 250
_WEIGHTS = "weights.safetensors"
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
    first_stage: Path | None = None,
    look_for_leaks: bool = False,
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
    first_stage
        Trunk to start from, as pretrain.py leaves it; without it, a `lite0` trunk starts from ImageNet.
    look_for_leaks
        Before the first step, read every film and refuse a recipe of which one lies in two splits (see leaks.py).
    """
    torch.set_num_threads(threads or os.cpu_count() or 1)
    plan = read_recipe(recipe)
    config = network_config(recipe)
    with ranks() as own:
        if own.writes:
            out.mkdir(parents=True, exist_ok=True)
        else:
            report = _say_nothing
        if warning := check_stopping(plan):
            report(f"warning: {warning}")
        for line in licences(plan):
            report(f"licence of {line}")
        torch.manual_seed(plan.seed)
        run = Run.new(plan, config, own)
        goes_on = own.agreed(resume and checkpoint.exists(out))
        if look_for_leaks and not goes_on:
            refuse_leaks(plan, data, report, fold=fold)
        if goes_on:
            run.load(out)
        elif first_stage is not None:
            run.start_from(first_stage)
        elif config.trunk == "lite0":
            run.start_from_imagenet()
        films = [prepared(film, config.size) for film in read_films(plan, data, "train", training=True, fold=fold)]
        check = read_films(plan, data, "validation", training=True, fold=fold)
        held_back = [prepared(film, config.size) for film in check] if fold is None else []
        report(f"{len(films)} films to train on, {len(check)} to validate; step {run.step} of {plan.steps}")
        if own.writes:
            _note_origin(out, recipe, run, fold, first_stage, [*films, *check])
        batches = Batches(plan, config, films, held_back, usual_lungs(films)).ahead(run.step, plan.steps)
        with denormals_flushed():
            _steps(run, shown(batches, run.step, plan.steps, own.device), check, out, minutes, report)
        return _written(run, out, report) if own.writes else out / _WEIGHTS


def _written(run: Run, out: Path, report: Callable[[str], None]) -> Path:
    """The weights so far, and what a drawn chest gives with them."""
    weights, shipped = out / _WEIGHTS, run.shipped()
    checkpoint.write_tensors(weights, shipped.state_dict())
    golden = {"tolerance": _GOLDEN_TOLERANCE, "expected": golden_case(shipped)}
    (out / "golden.json").write_text(json.dumps(golden) + "\n", "utf-8")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if run.best.step:
        ended = ", which ended training" if run.is_over else ""
        report(f"best {run.recipe.stop_by} {run.best.value:.4f} at step {run.best.step}{ended}; its weights are kept")
    report(f"step {run.step} of {run.recipe.steps}: weights in {weights}, sha256 {digest}")
    return weights


def _say_nothing(text: str) -> None:
    """Of the ranks, the first alone speaks."""


def network_config(recipe: Path) -> NetworkConfig:
    """The table `[network]` of the manifest beside the recipe; its weights need not exist yet."""
    manifest = tomllib.loads(recipe.with_name("model.toml").read_text("utf-8"))
    return NetworkConfig.read(manifest["network"])


def _steps(
    run: Run, batches: Iterable[Batch], check: Sequence[Film], out: Path, minutes: float, report: Callable[[str], None]
) -> None:
    started = saved = time.monotonic()
    recent: dict[str, float] = {}
    for batch in batches:
        if run.ranks.agreed(run.is_over or time.monotonic() - started > 60 * minutes):
            break
        parts = run.learn(*batch)
        if not run.ranks.writes:
            continue
        recent = {k: 0.95 * recent.get(k, v) + 0.05 * v for k, v in parts.items()}
        if run.step % _REPORT_STEPS == 0:
            told = " ".join(f"{k} {v:.4f}" for k, v in recent.items())
            report(f"step {run.step} {told} ({time.monotonic() - started:.0f} s)")
            note(out, {"step": run.step, "rate": rate(run.recipe, run.step - 1), "loss": recent})
        if _is_looked_at(run):
            found = validated(run.average, check, run.recipe.size_at(run.step - 1, run.network.config.size))
            report(f"step {run.step} validation {' '.join(f'{k} {v:.4f}' for k, v in found.items())}")
            note(out, {"step": run.step, "validation": found})
            run.judge(found)
        if time.monotonic() - saved > _CHECKPOINT_SECONDS:
            run.save(out)
            saved = time.monotonic()
    if run.ranks.writes:
        run.save(out)


def _is_looked_at(run: Run) -> bool:
    if run.recipe.stop_by and run.step == run.recipe.steps:
        return True
    return run.step % _VALIDATE_STEPS == 0 and run.step <= run.recipe.validation_joins


def shown(batches: Iterator[Batch], first: int, end: int, device: torch.device) -> Iterator[Batch]:
    """The batches, ready for the GPU if there is one; with a progress bar if someone sits at a terminal."""
    for images, target in tqdm(batches, total=end, initial=first, unit="step", disable=not sys.stderr.isatty()):
        if device.type == "cuda":
            yield images.pin_memory(), Target(*(values.pin_memory() for values in target))
        else:
            yield images, target


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Focal gradients shrink until a CPU computes them a hundred times slower; below 1e-38 they are taken as 0."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def note(out: Path, values: Mapping[str, object]) -> None:
    """One line of `metrics.jsonl`."""
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(values) + "\n")


def _note_origin(
    out: Path, recipe: Path, run: Run, fold: int | None, first_stage: Path | None, films: Sequence[Film]
) -> None:
    origin = {
        "recipe_sha256": hashlib.sha256(recipe.read_bytes()).hexdigest(),
        "seed": run.recipe.seed,
        "fold": fold,
        "first_stage_sha256": hashlib.sha256(first_stage.read_bytes()).hexdigest() if first_stage else "",
        "commit": commit(),
        "films": len(films),
        "data_sha256": _digest(films),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": run.ranks.device.type,
        "ranks": run.ranks.world,
    }
    (out / "run.json").write_text(json.dumps(origin, indent=1) + "\n", "utf-8")
    note(out, {"slice": origin})  # one line each time it goes on: the code or the recipe may have changed since


def _digest(films: Sequence[Film]) -> str:
    """Over names and pixels; of films that are read when they are shown, over the size of their files instead."""
    digest = hashlib.sha256()
    for film in films:
        held = str(film.reading.path.stat().st_size).encode() if film.reading else film.pixels.tobytes()
        digest.update(film.name.encode() + held)
    return digest.hexdigest()
