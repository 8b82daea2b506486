"""Whether a map may be called an explanation: against boxes that readers drew, and beside what knows nothing of them.

The pointing game and the energy in the boxes are counted on every film with a lesion, whether or not the network found
it and whether or not the gate lets the film through. A map is an explanation only if its pointing beats every prior
with the whole 95 % interval of the paired difference; the priors are counted in the same run, on the same films:

`centre`       the middle of the film.
`usual place`  where the boxes of the other patients' films overlap most.
`lungs`        any point of the lungs that the network itself sees on the film, all alike: the expected rate.
`lung point`   the one point, told as a part of the lungs' width and height, that hits most films: chosen with all
               boxes known, so that no rule which knows the lungs alone can do better.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from medgem_node.card import ModelCard
from medgem_node.detector import explain, runtime
from medgem_node.detector.heatmap import over_image
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import Letterbox, Preprocessing, to_tensor
from medgem_node.errors import MedgemError, NotAnalysable
from medgem_node.train.data import read_films, read_recipe
from medgem_node.train.evaluate_lesions import NEAR
from medgem_node.train.film import Film
from medgem_node.train.metrics import explanation as metric
from medgem_node.train.metrics.froc import Box
from medgem_node.train.metrics.interval import means

PRIORS = ("centre", "usual place", "lungs", "lung point")
CHANCE = "lungs, in random order"
"""What the curves are compared with: pixels of the lungs first, then the others."""
_ALL = "all"
_GRID = (64, 64)  # where boxes of other films lie is known this finely
_BLUR = 8  # cells along each side of what a pixel is deleted into

Report = Callable[[str], None]
Columns = Mapping[str, NDArray[np.float64]]
"""Of each method or prior, a number for each film."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A film with its lesions, and what each method shows of it, cut to the film, as fine as the network sees it."""

    film: Film
    image: Tensor  # (1, 1, H, W), as the network takes it
    letterbox: Letterbox
    score: float  # the network's highest, of the kind
    lungs: metric.Cells
    maps: dict[str, metric.Map]  # each cut to the film
    squares: dict[str, metric.Map]  # each over the network's whole input

    @property
    def boxes(self) -> list[Box]:
        """As parts of the film's width and height; of a lesion of which only the centre is known, what counts as hit.

        That is 0.05 of the film's width to each side.
        """
        tall = self.film.pixels.shape[0] / self.film.pixels.shape[1]
        found = []
        for lesion in (known for known in self.film.lesions or () if known.counts):
            x0, y0, x1, y1 = lesion.box
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            found.append(lesion.box if lesion.sized else (x - NEAR, y - NEAR / tall, x + NEAR, y + NEAR / tall))
        return found

    @property
    def is_sized(self) -> bool:
        """Whether the boxes were drawn: energy in a made-up one says nothing."""
        return all(lesion.sized for lesion in self.film.lesions or ())


def evaluate_explanations(
    card: ModelCard, data: Path, *, split: str = "validation", curves_at_most: int = 3, report: Report
) -> dict[str, Any]:
    """Every figure for the first kind of box, on one split of the recipe's films; JSON-able. Raises MedgemError."""
    recipe, network = read_recipe(card.folder / "train.toml"), runtime.load(card)
    known = tuple(source for source in recipe.sources if source.lesion_kind and source.kind != "synthetic")
    films = [f for f in read_films(replace(recipe, sources=known), data, split) if f.lesions and f.is_frontal]
    report(f"{len(films)} films of the {split} split with lesions")
    figures = explanations(network, films, card, seed=recipe.seed, curves_at_most=curves_at_most, report=report)
    return {
        "model": card.name, "version": card.version, "weights_sha256": card.weights_sha256, "split": split,
        "seed": recipe.seed, "interval": "95 %: percentile bootstrap by patient, 2000 draws", **figures,
    }  # fmt: skip


def explanations(
    network: ChestNetwork,
    films: Sequence[Film],
    card: ModelCard,
    *,
    seed: int,
    curves_at_most: int = 3,
    shuffled_at_most: int = 6,
    report: Report = lambda text: None,
) -> dict[str, Any]:
    """By source and for all of them: `pointing_game`, `energy_in_box`, `deletion`, `insertion`, `is_explanation`.

    `beats` names the priors that a map leads with the whole interval, `is_explanation` whether these are all.
    Deletion and insertion on `curves_at_most` films of each source, weights shuffled on `shuffled_at_most` of all.
    Raises MedgemError where there is nothing to measure: no box head, or no film with a lesion.
    """
    ill = [film for film in films if any(lesion.counts for lesion in film.lesions or ())]
    if network.boxes is None or not ill:
        raise MedgemError("explanations cannot be measured: no film with a lesion, or a model without boxes")
    shown = [one for film in ill if (one := show(network, film, card)) is not None]
    report(f"maps of {len(shown)} films; pixels deleted and inserted")
    found: dict[str, Any] = {"methods": list(explain.methods_of(network)), "priors": list(PRIORS)}
    for source, own in _by_source(shown):
        found[source] = against_boxes(own, seed=seed)
        found[source].update(_curves(network, own[:curves_at_most], seed) if curves_at_most and source != _ALL else {})
    report("weights shuffled")
    found["weights_shuffled"] = shuffled(network, shown[:shuffled_at_most], seed=seed)
    return found


def show(network: ChestNetwork, film: Film, card: ModelCard) -> Shown | None:
    """Every method's map of a film; None of one that cannot be read."""
    try:
        film = film.loaded()
        tensor, letterbox = to_tensor(film.pixels, network.config.size, None, Preprocessing.parse(card.preprocessing))
    except NotAnalysable:
        return None
    image = torch.from_numpy(tensor)[None].to(next(network.parameters()).device)
    squares = {name: explain.METHODS[name](network, image) for name in explain.methods_of(network)}
    outputs = runtime.run(network, tensor)
    names = list(card.network["masks"])
    chances = outputs.masks[0].sigmoid().numpy()
    lungs = np.max([chances[names.index(name)] for name in ("right-lung", "left-lung")], axis=0)
    maps = {name: over_image(values, letterbox) for name, values in squares.items()}
    score = float(squares["lesions"].max())
    return Shown(film, image, letterbox, score, over_image(lungs, letterbox) > 0.5, maps, squares)


def against_boxes(shown: Sequence[Shown], *, seed: int) -> dict[str, Any]:
    """Pointing and energy of every method and prior, and each method's lead over each prior on the same films."""
    groups = [one.film.group for one in shown]
    points = _pointing(shown)
    methods = [name for name in points if name not in PRIORS]
    lead = _leads(points, methods, groups, seed)
    found = {
        "films_with_lesions": len(shown),
        "hit": "highest point in a box" if all(s.is_sized for s in shown) else f"in a box, or within {NEAR} of the "
        "film's width beside a centre of which no box is known",
        "pointing_game": _means(points, groups, seed),
        "pointing_game_lead": lead,
        "beats": {name: [prior for prior, d in lead[name].items() if d["low"] > 0] for name in methods},
        "is_explanation": {name: all(d["low"] > 0 for d in lead[name].values()) for name in methods},
    }  # fmt: skip
    sized = [one for one in shown if one.is_sized]
    if sized:
        inside, of = _energy(sized), [one.film.group for one in sized]
        found["energy_in_box"] = _means(inside, of, seed)
        found["energy_in_box_lead"] = _leads(inside, methods, of, seed)
    return found


def shuffled(network: ChestNetwork, shown: Sequence[Shown], *, seed: int) -> dict[str, Any]:
    """How like its own map a method's stays when weights lose their order, from the heads down to the stem.

    Rank correlation, mean of the films; a map that stays alike does not show what the weights have learnt.
    """
    other = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Any] = {"films": len(shown)}
    for name, modules in _downwards(other):
        for module in modules:
            _shuffle(module, generator)
        found[name] = {
            method: round(float(np.mean([_likeness(other, one, method) for one in shown])), 4)
            for method in explain.methods_of(network)
        }
    return found


def _by_source(shown: Sequence[Shown]) -> list[tuple[str, list[Shown]]]:
    sources: dict[str, list[Shown]] = {}
    for one in shown:
        sources.setdefault(one.film.source, []).append(one)
    return [*sorted(sources.items()), (_ALL, list(shown))]


def _pointing(shown: Sequence[Shown]) -> Columns:
    """Hits of each film, 0 to 1, by method and prior."""
    columns = _by_map(shown, metric.points_at)
    best = metric.best_lung_point([one.lungs for one in shown], [one.boxes for one in shown])
    return {**columns, "lung point": np.array(best, np.float64)}


def _energy(shown: Sequence[Shown]) -> Columns:
    """The share of each map that lies in the boxes, likewise."""
    return {name: np.nan_to_num(shares) for name, shares in _by_map(shown, metric.energy_in).items()}  # empty: none


def _by_map(shown: Sequence[Shown], measured: Callable[[metric.Map, Sequence[Box]], float]) -> Columns:
    """One number of each film for every method, the centre, the usual place and the lungs."""
    boxes = [one.boxes for one in shown]
    pairs = list(zip(shown, boxes, strict=True))
    usual = metric.usual_places(boxes, [one.film.group for one in shown], _GRID)
    found = {name: [measured(one.maps[name], own) for one, own in pairs] for name in shown[0].maps}
    found["centre"] = [measured(metric.centre_prior(one.lungs.shape), own) for one, own in pairs]
    found["usual place"] = [measured(place, own) for place, own in zip(usual, boxes, strict=True)]
    found["lungs"] = [_share_of_lungs(one, own) for one, own in pairs]
    return {name: np.array(numbers, np.float64) for name, numbers in found.items()}


def _share_of_lungs(one: Shown, boxes: Sequence[Box]) -> float:
    """How much of the lungs lies in the boxes; of the film, where the network sees no lung."""
    lungs = one.lungs if one.lungs.any() else np.ones_like(one.lungs)
    return float(metric.cells_in(lungs.shape, boxes)[lungs].mean())


def _leads(columns: Columns, methods: Sequence[str], groups: Sequence[str], seed: int) -> dict[str, Any]:
    priors = [name for name in PRIORS if name in columns]
    return {m: _means({p: columns[m] - columns[p] for p in priors}, groups, seed) for m in methods}


def _means(columns: Columns, groups: Sequence[str], seed: int) -> dict[str, dict[str, float | int]]:
    return dict(zip(columns, means(np.stack(list(columns.values()), axis=1), groups, seed=seed), strict=True))


def _curves(network: ChestNetwork, shown: Sequence[Shown], seed: int) -> dict[str, Any]:
    """Areas under deletion (low is good) and insertion (high is good); pixels turn into the film much blurred."""
    groups, methods = [one.film.group for one in shown], list(shown[0].maps)
    found: dict[str, Any] = _means({"score": np.array([one.score for one in shown])}, groups, seed)
    for name, insert in (("deletion", False), ("insertion", True)):
        areas = np.array([_areas(network, one, seed, insert=insert) for one in shown])
        columns = dict(zip([*methods, CHANCE], areas.T, strict=True))
        found[name] = _means(columns, groups, seed)
        found[f"{name}_lead"] = _means({m: columns[m] - columns[CHANCE] for m in methods}, groups, seed)
    return found


def _areas(network: ChestNetwork, one: Shown, seed: int, *, insert: bool) -> list[float]:
    """Of each method, then of chance."""
    image = one.image[0, 0].cpu().numpy()
    blank = _resized(_resized(image, _BLUR), len(image))
    where = one.image.device

    def score(shown: metric.Map) -> float:
        with torch.no_grad():
            return _score(network, torch.from_numpy(shown)[None, None].to(where))

    orders = [_resized(values, len(image)) for values in one.squares.values()]
    orders.append(_chance(one, image.shape, seed))
    return [metric.deletion(score, image, order, blank, insert=insert) for order in orders]


def _score(network: ChestNetwork, image: Tensor) -> float:
    assert network.boxes is not None
    return float(network.boxes(network.decoder(network.trunk(image))[2])[0, 0].amax().sigmoid())


def _chance(one: Shown, shape: tuple[int, ...], seed: int) -> metric.Map:
    values = np.random.default_rng(seed).random(shape, np.float32)
    rows, columns = one.lungs.shape
    top, left = one.letterbox.top, one.letterbox.left
    part = values[top : top + rows, left : left + columns]
    part += one.lungs[: part.shape[0], : part.shape[1]]
    return values


def _resized(values: metric.Map, side: int) -> metric.Map:
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32)


def _downwards(network: ChestNetwork) -> Iterator[tuple[str, list[nn.Module]]]:
    """The parts that a box comes from, heads first; a normalisation goes with the part that it follows."""
    assert network.boxes is not None
    yield "boxes", [network.boxes]
    yield "decoder", [network.decoder]
    together: list[nn.Module] = []
    for name, module in reversed(list(network.trunk.named_children())):
        together.append(module)
        if not isinstance(module, nn.LayerNorm):
            yield name, together
            together = []


@torch.no_grad()
def _shuffle(module: nn.Module, generator: torch.Generator) -> None:
    """Each tensor keeps its values, in another order: the scale of what it computes stays."""
    for tensor in module.parameters():
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        tensor.copy_(tensor.flatten()[order].reshape(tensor.shape))


def _likeness(network: ChestNetwork, one: Shown, method: str) -> float:
    return metric.rank_correlation(one.squares[method], explain.METHODS[method](network, one.image))
