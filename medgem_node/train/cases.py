"""Films with the node's answers: what every figure of an evaluation is counted from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from medgem_node.card import ModelCard
from medgem_node.detector import decode, runtime
from medgem_node.detector.measure import chest_lines
from medgem_node.detector.preprocess import Preprocessing, to_tensor
from medgem_node.detector.runtime import Network
from medgem_node.errors import NotAnalysable
from medgem_node.finding import Analysis
from medgem_node.train.data import Film

ANALYSED = "analysed"


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A film with the node's answer: an analysis, or the reason why not.

    `frontal`: the gate's probability of an upright frontal chest, 0 of a picture that did not get as far;
    `apart`: between mask and heatmap, see `decode.disagreement`.
    """

    film: Film
    analysis: Analysis | None
    reason: str = ""
    apart: float = float("nan")
    frontal: float = 0.0

    @property
    def answer(self) -> str:
        """`analysed`, or the reason why not."""
        return self.reason or ANALYSED

    @property
    def ratio(self) -> float:
        """The measured cardiothoracic ratio; NaN if none was reported."""
        measured = self.analysis.measurements if self.analysis else ()
        return next((m.value for m in measured if m.code.value == "CTR"), float("nan"))

    @property
    def true_ratio(self) -> float:
        """The ratio on the truth's masks; NaN without them."""
        if self.film.truth is None:
            return float("nan")
        right, left, heart = self.film.truth > 0.5
        lines = chest_lines(right, left, heart)
        return lines.ratio if lines else float("nan")


def judge(network: Network, film: Film, card: ModelCard) -> Case:
    """The film through the code that the node runs, from the pixels on: no header has a say here.

    Of a film that is read only when it is shown, the case keeps neither pixels nor masks: there may be many.
    """
    try:
        shown = film.loaded()
        tensor, box = to_tensor(shown.pixels, network.config.size, None, Preprocessing.parse(card.preprocessing))
    except NotAnalysable as exc:
        return Case(_kept(film, (1, 1)), None, exc.reason)
    rows, columns = shown.pixels.shape
    kept = _kept(film, (rows, columns))
    outputs = runtime.run(network, tensor)
    reading = decode.read(outputs, card)
    frontal = reading.classes[card.network["classes"][0]]
    try:
        analysis = decode.decode(outputs, box, film.name, rows, columns, None, card)
    except NotAnalysable as exc:
        return Case(kept, None, exc.reason, frontal=frontal)
    lines = chest_lines(*(mask.pixels[0] for mask in analysis.masks))
    points = decode.points_in_image(reading.points, box)
    apart = decode.disagreement(lines, points) if lines else float("nan")
    small = replace(analysis, masks=(), heatmaps=()) if film.reading else analysis
    return Case(kept, small, apart=apart, frontal=frontal)


def _kept(film: Film, shape: tuple[int, int]) -> Film:
    """A film that is loaded as it is; of another, pixels of the right shape that take no room."""
    if film.reading is None:
        return film
    return replace(film, pixels=np.broadcast_to(np.zeros((), np.float32), shape), truth=None)


def by_source(cases: Iterable[Case]) -> list[tuple[str, list[Case]]]:
    """Cases of each source, sources by name."""
    sources: dict[str, list[Case]] = {}
    for case in cases:
        sources.setdefault(case.film.source, []).append(case)
    return sorted(sources.items())
