"""Teaches the text encoder and its cross-attention on a trunk that stays as it is.

A batch holds films and phrases that are true of them: some of the phrases of each, in any order. A phrase should fit
the films of which all of it is told better than the others, and a film the phrases that are told of it better than
others (symmetric contrast). Where the place of what a phrase names is known, its attention should lie there (pointing).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.nn import functional

from medgem_node.card import ModelCard
from medgem_node.detector import runtime
from medgem_node.detector.preprocess import Letterbox
from medgem_node.detector.text import CROSSINGS, Grounding, TextConfig, Tokeniser, read_numbers
from medgem_node.errors import ConfigError, ModelRejected
from medgem_node.train.data import read_recipe
from medgem_node.train.frozen import Seen, seen
from medgem_node.train.phrases import Box, Phrase

WEIGHTS, TABLE = "text.safetensors", "text.json"
_STEPS = 300
_FILMS = 20  # of each batch
_POINTED = 6  # of them, those of which a place is known
_TOLD = 3  # phrases of a film that are put together, at most
_LEARNING_RATE = 1e-3
_POINTING = 0.5  # its weight beside the contrast
_PIECES = 2000


def train_text(card: ModelCard, data: Path, out: Path, *, report: Callable[[str], None]) -> dict[str, Any]:
    """Train with the gate, without it and without cross-attention; the first is kept in `out`, all are measured.

    Measured on the validation split; `text-evaluation.json` is what is returned.
    """
    from medgem_node.train.evaluate_text import evaluated

    network, recipe = runtime.load(card), read_recipe(card.folder / "train.toml")
    taught = seen(network, recipe, data, "train", maps=True, report=report)
    held_out = seen(network, recipe, data, "validation", maps=True, report=report)
    tokeniser = Tokeniser.build([phrase.text for film in taught for phrase in film.phrases], _PIECES)
    widths = network.config.widths
    config = TextConfig(channels=(widths[1], widths[2]), pieces=len(tokeniser.pieces))
    result: dict[str, Any] = {
        "model": card.name, "version": card.version, "weights_sha256": card.weights_sha256, "split": "validation",
        "trained_on_films": len(taught), "pieces": config.pieces, "seed": recipe.seed,
    }  # fmt: skip
    for crossing in CROSSINGS:
        grounding = taught_grounding(taught, tokeniser, replace(config, crossing=crossing), seed=recipe.seed)
        result[crossing] = evaluated(grounding, tokeniser, held_out, taught, seed=recipe.seed)
        report(f"{crossing}: {json.dumps(result[crossing])}")
        if crossing == CROSSINGS[0]:
            write(grounding, tokeniser, card.weights_sha256, out)
    (out / "text-evaluation.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    return result


def taught_grounding(
    films: Sequence[Seen], tokeniser: Tokeniser, config: TextConfig, *, seed: int, steps: int = _STEPS
) -> Grounding:
    """Trained on the films' phrases. Raises ConfigError if nothing is told of any film."""
    if not films:
        raise ConfigError("no film of the training split has a phrase; name `labels` or `reports` in a source")
    torch.manual_seed(seed)
    grounding = Grounding(config).train()
    optimiser = torch.optim.AdamW(grounding.parameters(), lr=_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = _chosen(films, rng)
        loss = _loss(grounding, tokeniser, chosen, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(grounding.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return grounding.eval().requires_grad_(False)


def _chosen(films: Sequence[Seen], rng: Generator) -> list[Seen]:
    pointed = [n for n, film in enumerate(films) if _placed(film)]
    some = rng.choice(pointed, min(_POINTED, len(pointed)), replace=False) if pointed else np.zeros(0, int)
    rest = rng.choice(len(films), min(_FILMS, len(films)), replace=False)
    return [films[n] for n in dict.fromkeys([*some.tolist(), *rest.tolist()])][:_FILMS]


def _placed(film: Seen) -> list[Phrase]:
    return [phrase for phrase in film.phrases if phrase.boxes]


def _loss(grounding: Grounding, tokeniser: Tokeniser, films: Sequence[Seen], rng: Generator) -> Tensor:
    captions = [_some(film.phrases, rng) for film in films]
    pointed = [(n, placed[rng.integers(len(placed))]) for n, film in enumerate(films) if (placed := _placed(film))]
    captions += [(phrase,) for _, phrase in pointed]
    texts = [". ".join(phrase.text for phrase in caption) for caption in captions]
    fine, coarse = stacked(films)
    fit = grounding(tokeniser.batch(texts, grounding.config.longest), fine, coarse)
    told = [{phrase.text for phrase in film.phrases} for film in films]
    true = torch.tensor([[{p.text for p in caption} <= words for words in told] for caption in captions])
    loss = contrast(fit.scores, true)
    if fit.maps is None or not pointed:
        return loss
    rows = [len(films) + n for n in range(len(pointed))]
    inside = [covered(phrase.boxes, films[n].letterbox, fine.shape[-1]) for n, phrase in pointed]
    return loss + _POINTING * pointing(fit.maps[rows, [n for n, _ in pointed]], torch.stack(inside))


def _some(phrases: Sequence[Phrase], rng: Generator) -> tuple[Phrase, ...]:
    """A few of them, in any order."""
    order = rng.permutation(len(phrases))[: rng.integers(1, min(len(phrases), _TOLD) + 1)]
    return tuple(phrases[n] for n in order)


def stacked(films: Sequence[Seen]) -> tuple[Tensor, Tensor]:
    """The films' maps at strides 16 and 32."""
    maps = [(film.fine, film.coarse) for film in films]
    return torch.stack([f for f, _ in maps if f is not None]).float(), torch.stack(
        [c for _, c in maps if c is not None]
    ).float()


def contrast(scores: Tensor, true: Tensor) -> Tensor:
    """Symmetric cross-entropy with every true pair wanted alike (Radford et al. 2021, with more than one true).

    `scores`, `true`: (phrases, films).
    """
    return (_entropy(scores, true) + _entropy(scores.T, true.T)) / 2


def _entropy(scores: Tensor, true: Tensor) -> Tensor:
    wanted = true / true.sum(dim=1, keepdim=True).clamp(min=1)
    counts = true.any(dim=1).float()
    return -((wanted * functional.log_softmax(scores, dim=1)).sum(dim=1) * counts).sum() / counts.sum().clamp(min=1)


def pointing(maps: Tensor, inside: Tensor) -> Tensor:
    """How surprised one is, by maps of (B, h, w) that sum to 1, that what was named lies in `inside` (0..1 a cell)."""
    return -(maps * inside).sum(dim=(1, 2)).clamp(min=1e-6).log().mean()


def covered(boxes: Sequence[Box], letterbox: Letterbox, cells: int) -> Tensor:
    """(cells, cells): how much of each cell of the network's square lies in a box."""
    size = max(letterbox.rows, letterbox.columns) * letterbox.scale
    total: NDArray[np.float64] = np.zeros((cells, cells))
    for box in boxes:
        x0, y0, x1, y1 = (v / size * cells for v in in_square(box, letterbox))
        edges = np.arange(cells)
        along = [
            np.clip(np.minimum(edges + 1, high) - np.maximum(edges, low), 0, 1) for low, high in ((y0, y1), (x0, x1))
        ]
        total = np.maximum(total, along[0][:, None] * along[1][None])
    return torch.from_numpy(total.astype(np.float32))


def in_square(box: Box, letterbox: Letterbox) -> Box:
    """A box in parts of the film, in pixels of the network's square."""
    x0, y0 = letterbox.to_network(box[0] * letterbox.columns, box[1] * letterbox.rows)
    x1, y1 = letterbox.to_network(box[2] * letterbox.columns, box[3] * letterbox.rows)
    return x0, y0, x1, y1


def write(grounding: Grounding, tokeniser: Tokeniser, trunk_sha256: str, out: Path) -> None:
    """Weights (safetensors) and their table (JSON: configuration, vocabulary, digests of the weights and the trunk)."""
    out.mkdir(parents=True, exist_ok=True)
    data = save_tensors({name: tensor.contiguous() for name, tensor in grounding.state_dict().items()})
    table = {
        "config": asdict(grounding.config), "pieces": tokeniser.pieces, "trunk_sha256": trunk_sha256,
        "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    (out / WEIGHTS).write_bytes(data)
    (out / TABLE).write_text(json.dumps(table, indent=1) + "\n", "utf-8")


def read(folder: Path, trunk_sha256: str) -> tuple[Grounding, Tokeniser]:
    """What `write` wrote. Raises ModelRejected if it was altered, or belongs to another trunk."""
    try:
        table, data = json.loads((folder / TABLE).read_text("utf-8")), (folder / WEIGHTS).read_bytes()
    except (OSError, ValueError) as exc:
        raise ModelRejected(
            f"{folder}: no text encoder here ({type(exc).__name__}); run `medgem-node train-text`"
        ) from exc
    if table["sha256"] != hashlib.sha256(data).hexdigest():
        raise ModelRejected(f"{folder / WEIGHTS}: the weights were altered; restore the file or train it again")
    if table["trunk_sha256"] != trunk_sha256:
        raise ModelRejected(f"{folder}: this text encoder was trained on other weights of the model; train it again")
    grounding = Grounding(read_numbers(table["config"]))
    grounding.load_state_dict(load_tensors(data), strict=True)
    return grounding.eval().requires_grad_(False), Tokeniser(tuple(table["pieces"]))
