"""Whether several passes of one film make better marks: dropout left on, or the film moved a little each time.

    python tests/bench/bench_certainty.py MODEL_FOLDER IMAGES [--passes 5]

On the validation split of the model's recipe, never on the test split. Prints one JSON object for each way, of all
films that are known to have lesions or none: lesions found for false marks, films with from films without, the error
of a calibration fitted on other patients, and the mean risk of the surest marks as the least sure are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from medgem_node.card import read_card
from medgem_node.detector import boxes, runtime
from medgem_node.detector.boxes import Found
from medgem_node.detector.hiera import DropPath
from medgem_node.detector.network import ChestNetwork
from medgem_node.detector.preprocess import Preprocessing, to_tensor
from medgem_node.train import evaluate_lesions
from medgem_node.train.choose import Marked, calibration
from medgem_node.train.data import read_films, read_recipe
from medgem_node.train.film import Film
from medgem_node.train.metrics.froc import Marks, froc
from medgem_node.train.metrics.roc import auc_delong
from medgem_node.train.metrics.selective import mean_risk

LEAST = 0.02  # score of a mark
RATES = (0.5, 1.0, 2.0)
SUREST = 100  # marks
Move = tuple[float, float, float]
MOVES: tuple[Move, ...] = ((0.95, 6, 4), (1.05, -6, 4), (0.97, 4, -6), (1.03, -4, -6), (0.93, 0, 0), (1.07, 2, 2))
"""Scale, and pixels to the right and down. No mirror image: the heart lies on one side."""
_SEED = 20261123


def main() -> None:
    """One line for each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    card = read_card(options.model)
    network, recipe = runtime.load(card, "torch"), read_recipe(options.model / "train.toml")
    real = tuple(s for s in recipe.sources if s.kind not in ("synthetic", "other") and not s.evaluate_only)
    films = [
        f for f in read_films(replace(recipe, sources=real), options.images, "validation") if f.lesions is not None
    ]
    marked: dict[str, list[Marked]] = {"one pass": [], "dropout": [], "moved": []}
    for film in films:
        tensor, box = to_tensor(film.pixels, network.config.size, None, Preprocessing.parse(card.preprocessing))
        image = torch.from_numpy(tensor)[None]
        ways = {
            "one pass": [found(network, image)],
            "dropout": list(dropped(network, image, options.passes)),
            "moved": list(moved(network, image, options.passes)),
        }
        for way, passes in ways.items():
            marks = [(box.to_image(*f.box_xyxy[:2]), box.to_image(*f.box_xyxy[2:]), f.score) for f in fused(passes)]
            marked[way].append(scored(film, marks))
    for way, cases in marked.items():
        print(json.dumps({"way": way, "films": len(cases), **figures(cases)}), flush=True)


def scored(film: Film, marks: Sequence[tuple[tuple[float, float], tuple[float, float], float]]) -> Marked:
    """A film's marks against its lesions, as `evaluate` does it."""
    width = film.pixels.shape[1]
    own = [(x0 / width, y0 / width, x1 / width, y1 / width) for (x0, y0), (x1, y1), _ in marks]
    truth = evaluate_lesions.marks_of(film, None, "").lesions
    judged = evaluate_lesions.compared(film, Marks(film.group, own, [score for _, _, score in marks], truth))
    return Marked(film.source, judged)


@torch.inference_mode()
def found(network: ChestNetwork, image: Tensor) -> list[Found]:
    """The boxes of one pass."""
    maps = network(image).boxes
    assert maps is not None
    return boxes.decode(maps, len(network.config.boxes), at_least=LEAST)[0]


def dropped(network: ChestNetwork, image: Tensor, passes: int) -> Iterator[list[Found]]:
    """With the paths and units of training left out at random (Gal and Ghahramani 2016, arXiv:1506.02142)."""
    torch.manual_seed(_SEED)
    at_random = [m for m in network.modules() if isinstance(m, DropPath | torch.nn.Dropout)]
    for module in at_random:
        module.train()
    for _ in range(passes):
        yield found(network, image)
    for module in at_random:
        module.eval()


def moved(network: ChestNetwork, image: Tensor, passes: int) -> Iterator[list[Found]]:
    """The film as it is, then moved and scaled a little; boxes come back in its own place."""
    yield found(network, image)
    for scale, right, down in MOVES[: passes - 1]:
        yield [back(f, scale, right, down, image.shape[-1]) for f in found(network, shifted(image, scale, right, down))]


def shifted(image: Tensor, scale: float, right: float, down: float) -> Tensor:
    """(1, 1, S, S), about its centre; what comes in from outside is as dark as the darkest."""
    side, least = image.shape[-1], image.min()
    theta = torch.tensor([[[1 / scale, 0, -2 * right / side / scale], [0, 1 / scale, -2 * down / side / scale]]])
    grid = functional.affine_grid(theta, list(image.shape), align_corners=False)
    return functional.grid_sample(image - least, grid, align_corners=False) + least


def back(box: Found, scale: float, right: float, down: float, side: int) -> Found:
    """A box of the moved film, where it lies in the film as it is."""
    middle = side / 2
    x0, y0, x1, y1 = box.box_xyxy
    xs, ys = (
        ((x - right - middle) / scale + middle for x in (x0, x1)),
        ((y - down - middle) / scale + middle for y in (y0, y1)),
    )
    (a, c), (b, d) = xs, ys
    return replace(box, box_xyxy=(a, b, c, d))


def fused(passes: Sequence[Sequence[Found]]) -> list[Found]:
    """Boxes that lie in each other's inner half are one; its score is the mean of the passes', 0 where none saw it."""
    rest = sorted(((f, n) for n, own in enumerate(passes) for f in own), key=lambda pair: -pair[0].score)
    kept: list[Found] = []
    while rest:
        strongest = rest[0][0]
        own = [(f, n) for f, n in rest if f is strongest or boxes._same(f, strongest)]
        best = {n: f.score for f, n in reversed(own)}
        kept.append(replace(strongest, score=sum(best.values()) / len(passes)))
        members = {id(f) for f, _ in own}
        rest = [(f, n) for f, n in rest if id(f) not in members]
    return kept


def figures(cases: Sequence[Marked]) -> dict[str, object]:
    """What the marks of one way are worth."""
    way, _, errors = calibration(cases)
    pairs = [(s, not hit) for f in cases for s, hit in zip(f.scores, f.on_lesion, strict=True)]
    surest = sorted(pairs, reverse=True)[:SUREST]
    return {
        "sensitivity": froc([f.scored for f in cases], RATES, seed=_SEED),
        "auc": auc_delong([f.highest for f in cases], [not f.is_free for f in cases]),
        "calibration": {way: errors[way]},
        "mean_risk_of_surest": round(mean_risk([s for s, _ in surest], [wrong for _, wrong in surest]), 4),
    }


if __name__ == "__main__":
    main()
