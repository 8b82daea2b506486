"""What the gate lets through and why it refuses: what was shown against what was answered, and its ROC.

The pixels alone decide here; the header, which a node asks first, has no say. Real pictures and made ones are counted
apart: nobody sends a hospital's node black squares, and a gate that refuses them has shown little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medgem_node.card import ModelCard
from medgem_node.detector.runtime import Network
from medgem_node.train.cases import ANALYSED, Case, judge
from medgem_node.train.data import Film, Recipe
from medgem_node.train.metrics.interval import proportion
from medgem_node.train.metrics.roc import auc_delong, curve

FRONTAL, OTHER, TURNED, MADE = "frontal chest", "other picture", "film of ours, altered", "made"
_ALTERED_AT_MOST = 25  # films of one source
_MADE_OF_A_KIND = 10
_SIDE = 512
_COMPUTED = "computed"
_ROC_POINTS = 60

Pixels = NDArray[np.float32]

ALTERED: dict[str, Callable[[Pixels], Pixels]] = {
    "rotated to the left": lambda grey: np.rot90(grey),
    "rotated to the right": lambda grey: np.rot90(grey, -1),
    "upside down": lambda grey: grey[::-1, ::-1],
    "mirrored": lambda grey: grey[:, ::-1],
    "inverted": lambda grey: grey.max() - grey,
    "cropped to one side": lambda grey: grey[:, : grey.shape[1] // 2],
    "cropped to the lower half": lambda grey: grey[grey.shape[0] // 2 :],
    "cropped to a quarter": lambda grey: grey[: grey.shape[0] // 2, : grey.shape[1] // 2],
}
"""What is done to an upright frontal film so that it must be refused."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture that was shown: what it is of, the answer, and the gate's probability of a frontal chest."""

    group: str  # FRONTAL, OTHER, TURNED or MADE
    what: str
    answer: str
    frontal: float

    @classmethod
    def of(cls, case: Case, group: str, what: str) -> Shown:
        """What became of a case."""
        return cls(group, what, case.answer, case.frontal)


def gate(network: Network, cases: Sequence[Case], recipe: Recipe, card: ModelCard) -> dict[str, Any]:
    """The confusion table of the cases, of films altered, and of made pictures.

    What the recipe says of a picture tells where it counts: one that begins with `computed` is a made one.
    """
    frontal = [Shown.of(c, FRONTAL, c.film.source) for c in cases if c.film.is_frontal]
    other = [_other(case) for case in _distinct(c for c in cases if c.film.kind == "other")]
    upright = [c.film for c in cases if c.film.is_frontal]
    return confusion([*frontal, *other, *_altered(network, upright, recipe, card), *_made(network, recipe.seed, card)])


def confusion(shown: Sequence[Shown]) -> dict[str, Any]:
    """What was shown against what was answered: counts, shares, and the ROC of the gate's probability."""
    real = [s for s in shown if s.group != MADE]
    return {
        "score": "the gate's probability of an upright frontal chest, from the pixels alone",
        "answers": sorted({s.answer for s in shown} | {ANALYSED}, key=lambda a: (a != ANALYSED, a)),
        "real": _rows(real),
        "made": _rows([s for s in shown if s.group == MADE]),
        "roc": {name: _roc(real, group) for name, group in (("other pictures", OTHER), ("films altered", TURNED))},
    }


def made_pictures(seed: int) -> Iterator[tuple[str, Pixels]]:
    """Pictures that show nobody, with what they are: ten of each that chance has a part in."""
    flat = np.zeros((_SIDE, _SIDE), np.float32)
    yield from (("black", flat), ("white", flat + 255), ("grey", flat + 128))
    yield "gradient", flat + np.linspace(0, 255, _SIDE, dtype=np.float32)
    rng = np.random.default_rng(seed)
    for _ in range(_MADE_OF_A_KIND):
        yield "noise, every pixel by itself", rng.uniform(0, 255, flat.shape).astype(np.float32)
        yield "noise, soft clouds", _clouds(rng)
        yield "text", _text(rng)
        yield "geometric phantom", _phantom(rng)


def _distinct(cases: Iterable[Case]) -> list[Case]:
    """Without pictures that were there before, pixel for pixel: collections hold one in many encodings."""
    first: dict[object, Case] = {}
    for case in cases:
        key = case.film.name if case.film.reading else (case.film.pixels.shape, case.film.pixels.tobytes())
        first.setdefault(key, case)
    return list(first.values())


def _other(case: Case) -> Shown:
    what = case.film.shows or case.film.source
    return Shown.of(case, MADE if what.startswith(_COMPUTED) else OTHER, what)


def _rows(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    found = []
    for group in (FRONTAL, OTHER, TURNED, MADE):
        own = [s for s in shown if s.group == group]
        for what in dict.fromkeys(s.what for s in own):
            answers = Counter(s.answer for s in own if s.what == what)
            n = sum(answers.values())
            right = answers[ANALYSED] if group == FRONTAL else n - answers[ANALYSED]
            counts = dict(sorted(answers.items()))
            found.append({"group": group, "shown": what, "n": n, "answers": counts, "right": proportion(right, n)})
    return found


def _roc(shown: Sequence[Shown], against: str) -> dict[str, Any]:
    """Frontal films against one group. Altered films are of the same patients, so there the interval is a rough one."""
    own = [s for s in shown if s.group in (FRONTAL, against)]
    scores, truth = [s.frontal for s in own], [s.group == FRONTAL for s in own]
    counts = {"positive": sum(truth), "negative": len(truth) - sum(truth)}
    if not all(counts.values()):
        return counts
    false_rate, true_rate = curve(scores, truth)
    step = max(1, len(false_rate) // _ROC_POINTS)
    chosen = sorted({*range(0, len(false_rate), step), len(false_rate) - 1})
    points = [[round(float(false_rate[n]), 4), round(float(true_rate[n]), 4)] for n in chosen]
    return {**auc_delong(scores, truth), "curve": points}


def _altered(network: Network, films: Sequence[Film], recipe: Recipe, card: ModelCard) -> Iterator[Shown]:
    """Some films of each source that was trained on, altered as a sender or a file converter might have done."""
    for source in recipe.sources:
        own = [f for f in films if f.source == source.name and not source.evaluate_only]
        for film in own[:: max(1, len(own) // _ALTERED_AT_MOST)][:_ALTERED_AT_MOST]:
            upright = film.loaded()
            for what, alter in ALTERED.items():
                pixels = np.ascontiguousarray(alter(upright.pixels))
                yield Shown.of(judge(network, replace(upright, pixels=pixels, truth=None), card), TURNED, what)


def _made(network: Network, seed: int, card: ModelCard) -> Iterator[Shown]:
    for what, pixels in made_pictures(seed):
        yield Shown.of(judge(network, Film(what, what, "made", "other", pixels), card), MADE, what)


def _clouds(rng: np.random.Generator) -> Pixels:
    coarse = Image.fromarray(rng.uniform(0, 255, (8, 8)).astype(np.float32))
    return np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float32)


def _text(rng: np.random.Generator) -> Pixels:
    """A page of lines, as a scanned report or a film of the examination's particulars."""
    image = Image.new("L", (_SIDE, _SIDE), 0)
    draw = ImageDraw.Draw(image)
    for line in range(40, _SIDE - 40, 28):
        words = ["".join(chr(97 + int(c)) for c in rng.integers(0, 26, rng.integers(2, 10))) for _ in range(7)]
        draw.text((30, line), " ".join(words), fill=255, font_size=18)
    return np.asarray(image, np.float32)


def _phantom(rng: np.random.Generator) -> Pixels:
    """Discs and bars of several densities on an even ground."""
    image = Image.new("L", (_SIDE, _SIDE), int(rng.integers(20, 120)))
    draw = ImageDraw.Draw(image)
    for row in range(3):
        for column in range(3):
            x, y, half = 90 + 165 * column, 90 + 165 * row, int(rng.integers(20, 60))
            place = (x - half, y - half, x + half, y + half)
            (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(place, fill=int(rng.integers(0, 256)))
    return np.asarray(image, np.float32)
