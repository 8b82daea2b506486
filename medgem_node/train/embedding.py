"""Teaches the embedding on a trunk that stays as it is: minutes, on weights that are finished.

Two films should lie as near each other as what is told of them is alike (Jaccard index of view and weak labels), and
a film as near as can be to itself as another hospital might have taken it (Khosla et al. 2020, arXiv:2004.11362, with
shares instead of classes). A film of which no finding is told is only compared with itself: that nothing was written
does not mean that there is nothing, and in one source such films were picked by the size of their files.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from medgem_node.card import ModelCard
from medgem_node.detector import runtime
from medgem_node.detector.embedding import EmbeddingHead
from medgem_node.detector.network import ChestNetwork
from medgem_node.train.data import read_recipe
from medgem_node.train.frozen import Seen, seen
from medgem_node.train.metrics.interval import interval
from medgem_node.train.metrics.retrieval import precision_at

_TEMPERATURE = 0.1
_STEPS = 300
_BATCH = 256
_LEARNING_RATE = 1e-3
_GOLDEN_TOLERANCE = 0.01  # as loop.py has it
NEIGHBOURS = 5


def train_embedding(
    card: ModelCard, data: Path, out: Path, *, dimensions: int, copies: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """`weights.safetensors` and `golden.json` in `out`: those of `card` with an embedding; and what it is worth.

    To ship them: copy both into the model's folder (`golden.json` into `golden/`), write `embedding = N` into the
    manifest's `[network]` and the weights' sha256 into its `[weights]`.

    Parameters
    ----------
    copies
        How often each film is shown as another hospital might have taken it; each costs as much as the film itself.
    """
    network, recipe = runtime.load(card), read_recipe(card.folder / "train.toml")
    taught = seen(network, recipe, data, "train", copies=copies, report=report)
    held_out = seen(network, recipe, data, "validation", report=report)
    head = taught_head(taught, network.config.widths[2], dimensions, seed=recipe.seed)
    result = {
        "model": card.name, "version": card.version, "weights_sha256": card.weights_sha256, "split": "validation",
        "trained_on_films": len(taught), "copies": copies, "seed": recipe.seed,
        "interval": "95 %: percentile bootstrap by patient, 2000 draws",
        "embedding": by_source(held_out, head, seed=recipe.seed),
        "pooled trunk, no head": by_source(held_out, None, seed=recipe.seed),
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write(with_head(network, head), out)
    (out / "embedding.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return result


def taught_head(films: Sequence[Seen], width: int, dimensions: int, *, seed: int, steps: int = _STEPS) -> EmbeddingHead:
    """A head that puts films near each other as far as what is told of them is alike."""
    torch.manual_seed(seed)
    head = EmbeddingHead(width, dimensions)
    summaries = torch.stack([film.summaries for film in films])  # (films, 1 + copies, 2C)
    alike = likeness(films)
    optimiser = torch.optim.AdamW(head.parameters(), lr=_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps)
    rng = np.random.default_rng(seed)
    batch = min(_BATCH // summaries.shape[1], len(films))
    for _ in range(steps):
        chosen = torch.from_numpy(rng.choice(len(films), batch, replace=False))
        points = head.project(summaries[chosen].flatten(0, 1))  # (batch * (1 + copies), dimensions)
        wanted = alike[chosen][:, chosen].repeat_interleave(summaries.shape[1], 0)
        loss = contrastive(points, wanted.repeat_interleave(summaries.shape[1], 1))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return head.eval().requires_grad_(False)


def likeness(films: Sequence[Seen]) -> Tensor:
    """(films, films): 0..1, by what is told of both; NaN where no finding is told of one of two different films."""
    told = [{p.text for p in film.phrases if " in the " not in p.text} for film in films]
    ill = np.array([bool(findings_of(film)) for film in films])
    names = {text: n for n, text in enumerate(sorted(set().union(*told)))}
    marks = np.zeros((len(films), len(names)), np.float32)
    for row, words in zip(marks, told, strict=True):
        row[[names[text] for text in words]] = 1
    both = marks @ marks.T
    either = marks.sum(1)[:, None] + marks.sum(1)[None] - both
    alike = np.where(ill[:, None] & ill[None], both / np.maximum(either, 1), np.nan)
    np.fill_diagonal(alike, 1)
    return torch.from_numpy(alike.astype(np.float32))


def contrastive(points: Tensor, alike: Tensor) -> Tensor:
    """Cross-entropy between how near the other points are and how alike they are; NaN is left out of both."""
    logits = points @ points.T / _TEMPERATURE
    out = torch.isnan(alike) | torch.eye(len(points), dtype=torch.bool)
    wanted = torch.where(out, 0.0, alike)
    shares = wanted / wanted.sum(dim=1, keepdim=True).clamp(min=1e-6)
    near = functional.log_softmax(logits.masked_fill(out, -math.inf), dim=1).masked_fill(out, 0.0)
    counts = (wanted.sum(dim=1) > 0).float()
    return -((shares * near).sum(dim=1) * counts).sum() / counts.sum().clamp(min=1)


def with_head(network: ChestNetwork, head: EmbeddingHead) -> ChestNetwork:
    """The same network with that embedding."""
    config = replace(network.config, embedding=head.out.out_features)
    made = ChestNetwork(config)
    own = {f"embedding.{name}": tensor for name, tensor in head.state_dict().items()}
    kept = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("embedding.")}
    made.load_state_dict({**kept, **own}, strict=True)
    return made.eval().requires_grad_(False)


def by_source(films: Sequence[Seen], head: EmbeddingHead | None, *, seed: int) -> dict[str, Any]:
    """Each source by itself: between two sources films are told apart by how they were digitised."""
    return {
        source: measured([film for film in films if film.source == source], head, seed=seed)
        for source in sorted({film.source for film in films})
    }


@torch.inference_mode()
def measured(films: Sequence[Seen], head: EmbeddingHead | None, *, seed: int) -> dict[str, Any]:
    """Precision among each film's nearest films of other patients, beside the share of such films in all.

    "same patient" is the one figure with the patient's own other films among the candidates.
    """
    summaries = torch.stack([film.summaries[0] for film in films])
    points = functional.normalize(summaries, dim=1) if head is None else head.project(summaries)
    near, groups = (points @ points.T).numpy(), np.array([film.group for film in films])
    ill = _less_common([findings_of(film) for film in films])
    lesions = np.array([np.nan if film.has_lesion is None else float(film.has_lesion) for film in films])
    views = np.array([film.view for film in films])
    of_others = groups[:, None] != groups[None]
    told, known = np.array([bool(words) for words in ill]), ~np.isnan(lesions)
    shared = np.array([[bool(a & b) for b in ill] for a in ill])
    same = ~of_others & ~np.eye(len(films), dtype=np.bool_)
    both_lesions, with_lesion = (lesions[:, None] == 1) & (lesions[None] == 1), lesions == 1
    of_known = of_others & with_lesion[:, None] & known[None]
    return {
        "same view": _precision(near, views[:, None] == views[None], of_others, groups, seed),
        "a lesion, asked with one": _precision(near, both_lesions, of_known, groups, seed),
        "a less common weak label": _precision(near, shared, of_others & told[:, None] & told[None], groups, seed),
        "same patient": _precision(near, same, ~np.eye(len(films), dtype=np.bool_), groups, seed),
    }


def findings_of(film: Seen) -> frozenset[str]:
    """What is told of it, without view and place."""
    return frozenset(p.text for p in film.phrases if not p.text.endswith(" view") and " in the " not in p.text)


def _less_common(told: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """Without the labels of more than half of those that have any: chance alone would find them."""
    counts = Counter(text for words in told for text in words)
    common = {text for text, n in counts.items() if 2 * n > sum(map(bool, told))}
    return [words - common for words in told]


def _precision(
    near: NDArray[np.float32],
    relevant: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    groups: NDArray[np.str_],
    seed: int,
) -> dict[str, Any]:
    rows = precision_at(near, relevant, asked, NEIGHBOURS)
    counted = ~np.isnan(rows[:, 0])
    if not counted.any():
        return {"films": 0}
    found = interval(rows[counted], groups[counted].tolist(), lambda r: float(r[:, 0].mean()), seed=seed)
    return {f"precision_at_{NEIGHBOURS}": found, "chance": round(float(rows[counted, 1].mean()), 4)}


def write(network: ChestNetwork, out: Path) -> None:
    """`weights.safetensors` and `golden.json` of `network` in `out`."""
    draft = out / "weights.part"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, draft)
    draft.replace(out / "weights.safetensors")
    golden = {"tolerance": _GOLDEN_TOLERANCE, "expected": runtime.golden_case(network)}
    (out / "golden.json").write_text(json.dumps(golden) + "\n", "utf-8")
