"""What a trunk that is no longer trained makes of the films, computed once, for what is learnt on top of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medgem_node.detector import boxes
from medgem_node.detector.embedding import pooled
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import Letterbox, to_tensor
from medgem_node.train.augment import prepared, with_lesions
from medgem_node.train.data import Film, Recipe, Source, entries
from medgem_node.train.phrases import Lungs, Phrase, teller


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One film: what is told of it, and what the trunk makes of it.

    `summaries`: (1 + copies, 2C), `embedding.pooled` of the film and of it as other hospitals might have taken it.
    `fine`, `coarse`: the maps at strides 16 and 32, (C, H/16, W/16) and (C', H/32, W/32), float16; None if not kept.
    """

    name: str
    source: str
    group: str
    view: str
    has_lesion: bool | None
    phrases: tuple[Phrase, ...]
    letterbox: Letterbox
    summaries: Tensor
    lungs: Lungs | None = None
    marks: tuple[tuple[float, float], ...] = ()  # centres of the box head's marks, best first, as parts of the film
    fine: Tensor | None = None
    coarse: Tensor | None = None


def seen(
    network: ChestNetwork,
    recipe: Recipe,
    data: Path,
    split: str,
    *,
    copies: int = 0,
    maps: bool = False,
    report: Callable[[str], None],
) -> list[Seen]:
    """The real films of a split of which anything is told; `copies`: how often each is taken otherwise, too."""
    found: list[Seen] = []
    for source in filter(_is_told, recipe.sources):
        told = teller(source, data)
        for entry in entries(replace(recipe, sources=(source,)), data):
            if entry.split != split or (film := entry.film()) is None:
                continue
            rng = np.random.default_rng((recipe.seed, len(found)))
            found.append(_seen(network, film.loaded(), told, recipe, rng, copies, maps))
        report(f"{split}: {len(found)} films seen, to the end of {source.name}")
    return [s for s in found if s.phrases]


def _is_told(source: Source) -> bool:
    known = source.labels or source.reports or source.view or source.lesion_kind in ("boxes", "centres")
    return bool(known) and not source.evaluate_only and source.kind not in ("other", "synthetic")


@torch.inference_mode()
def _seen(
    network: ChestNetwork, film: Film, told: Any, recipe: Recipe, rng: np.random.Generator, copies: int, maps: bool
) -> Seen:
    size = network.config.size
    tensor, letterbox = to_tensor(film.pixels, size)
    features = network.trunk(torch.from_numpy(tensor)[None])
    decoded = network.decoder(features)
    lungs = _lungs(network.masks(decoded[-1])[0].sigmoid().numpy(), network.config.masks, letterbox)
    marks = _marks(network.boxes(decoded[2]), len(network.config.boxes), letterbox) if network.boxes else ()
    summaries = [pooled(features[-1])]
    small = prepared(film, size) if copies else film
    for _ in range(copies):
        grey, _, _ = with_lesions(small, size, recipe.augment, rng)
        other = to_tensor(grey * 255, size)[0]
        summaries.append(pooled(network.trunk(torch.from_numpy(other)[None])[-1]))
    fine, coarse = (features[n][0].half() if maps else None for n in (-2, -1))
    has_lesion = None if film.lesions is None else bool(film.lesions)
    return Seen(
        film.name, film.source, film.group, film.view, has_lesion, told(film, lungs), letterbox, torch.cat(summaries),
        lungs, marks, fine, coarse,
    )  # fmt: skip


def _marks(maps: Tensor, kinds: int, letterbox: Letterbox) -> tuple[tuple[float, float], ...]:
    centres = []
    for found in boxes.decode(maps, kinds)[0]:
        x0, y0, x1, y1 = found.box_xyxy
        x, y = letterbox.to_image((x0 + x1) / 2, (y0 + y1) / 2)
        centres.append((x / letterbox.columns, y / letterbox.rows))
    return tuple(centres)


def _lungs(maps: NDArray[np.float32], names: Sequence[str], letterbox: Letterbox) -> Lungs | None:
    if not {"right-lung", "left-lung"} <= set(names):
        return None
    right, left = (
        letterbox.mask(maps[names.index(name)]) for name in ("right-lung", "left-lung")
    )  # fmt: skip
    return Lungs.of(right, left)
