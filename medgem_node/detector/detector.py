"""A study's films through one model: select, read, preprocess, network, decode.

A few films at a time where that pays (`runtime.films_at_once`): a study of many takes no more memory in the network.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

from pydicom import Dataset

from medgem_node.card import ModelCard
from medgem_node.detector import decode, runtime
from medgem_node.detector.network import Outputs
from medgem_node.detector.preprocess import Letterbox, Preprocessing, to_tensor
from medgem_node.detector.readers import projection
from medgem_node.detector.selection import Selection, applicable
from medgem_node.errors import NotAnalysable, NotApplicable
from medgem_node.finding import Analysis

_Item = TypeVar("_Item")
_BY_HEADER = (  # what a header said, least telling first; what was found in the pixels says more than any of them
    "modality",
    "body-part",
    "localizer",
    "for-processing",
    "orientation",
    "oblique-view",
    "lateral-view",
)


@dataclass(frozen=True, slots=True, eq=False)
class _Film:
    """What is left of a film when it goes to the network: not its pixels."""

    image_uid: str
    tensor: runtime.Image
    letterbox: Letterbox
    shape: tuple[int, int]  # rows, columns
    spacing_mm: tuple[float, float] | None


class ProjectionDetector:
    """Analyses every film of a study that the model is meant for, each on its own."""

    def __init__(
        self, card: ModelCard, backend: str = "auto", *, at_once: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`backend`: see `runtime.load`. `at_once`: films that go through the network together; 0: as the device."""
        self.card = card
        self._clock = clock
        self._selection = Selection.parse(card.selection)
        self._preprocessing = Preprocessing.parse(card.preprocessing)
        self._network = runtime.load(card, backend)
        self._at_once = at_once or runtime.films_at_once(self._network)
        self._size = int(card.network["size"])

    def detect(self, instances: Sequence[Dataset]) -> Analysis:
        """One analysis of all films, in the order of their SOP Instance UIDs.

        A film that cannot be analysed does not keep the others from it; `detail` counts such films by reason.
        If there is none left, the most telling reason is raised: what the pixels said before what a header said.
        """
        began = self._clock()
        answers: list[Analysis | NotAnalysable] = []
        ordered = sorted(instances, key=lambda i: str(i.get("SOPInstanceUID", "")))
        for first in range(0, len(ordered), self._at_once):
            answers.extend(self._answers(ordered[first : first + self._at_once]))
        analyses = [a for a in answers if isinstance(a, Analysis)]
        refusals = [a for a in answers if isinstance(a, NotAnalysable)]
        if not analyses:
            raise _most_telling(refusals)
        merged = _merged(analyses, _left_out(refusals, len(instances)))
        parameters = {**merged.parameters, "weights sha256": self.card.weights_sha256[:16]}
        parameters["runtime"] = runtime.described(self._network)
        if self.card.site_calibration:
            parameters["site calibration"] = self.card.site_calibration
        return replace(merged, parameters=parameters, seconds=self._clock() - began)

    def _answers(self, instances: Sequence[Dataset]) -> list[Analysis | NotAnalysable]:
        """For each instance, in their order; those that can be read go through the network together."""
        read = [self._read(instance) for instance in instances]
        films = [film for film in read if isinstance(film, _Film)]
        outputs = iter(runtime.run_batch(self._network, [film.tensor for film in films]) if films else ())
        return [self._decoded(film, next(outputs)) if isinstance(film, _Film) else film for film in read]

    def _read(self, instance: Dataset) -> _Film | NotAnalysable:
        try:
            applicable(instance, self._selection)
            film = projection.read(instance)
            tensor, letterbox = to_tensor(film.pixels, self._size, film.exposed, self._preprocessing)
        except NotAnalysable as exc:
            return exc.with_traceback(None)  # which would keep the film's pixels as long as the reason
        rows, columns = film.pixels.shape
        return _Film(film.image_uid, tensor, letterbox, (rows, columns), film.spacing_mm)

    def _decoded(self, film: _Film, outputs: Outputs) -> Analysis | NotAnalysable:
        try:
            return decode.decode(outputs, film.letterbox, film.image_uid, *film.shape, film.spacing_mm, self.card)
        except NotAnalysable as exc:
            return exc.with_traceback(None)


def create(card: ModelCard, backend: str = "auto") -> ProjectionDetector:
    """The detector of `card`, ready to use. Raises ModelRejected."""
    return ProjectionDetector(card, backend)


def _most_telling(refusals: Sequence[NotAnalysable]) -> NotAnalysable:
    if not refusals:
        return NotApplicable("no-image", "the study holds no image")
    chosen = max(refusals, key=lambda r: _BY_HEADER.index(r.reason) if r.reason in _BY_HEADER else len(_BY_HEADER))
    if len(refusals) == 1:
        return chosen
    return type(chosen)(chosen.reason, f"{chosen}; {_left_out(refusals, len(refusals))}")


def _left_out(refusals: Sequence[NotAnalysable], images: int) -> str:
    if not refusals:
        return ""
    counts = ", ".join(f"{reason} {n}" for reason, n in sorted(Counter(r.reason for r in refusals).items()))
    return f"{len(refusals)} of {images} images not analysed ({counts})"


def _merged(analyses: Sequence[Analysis], left_out: str) -> Analysis:
    names = dict.fromkeys(chain.from_iterable(a.parameters for a in analyses))
    details = dict.fromkeys((*(a.detail for a in analyses), left_out))
    return replace(
        analyses[0],
        detail="; ".join(filter(None, details)),
        images=_joined(a.images for a in analyses),
        findings=_joined(a.findings for a in analyses),
        candidates=_joined(a.candidates for a in analyses),
        measurements=_joined(a.measurements for a in analyses),
        masks=_joined(a.masks for a in analyses),
        heatmaps=_joined(a.heatmaps for a in analyses),
        parameters={name: _values(analyses, name) for name in names},
    )


def _joined(parts: Iterable[tuple[_Item, ...]]) -> tuple[_Item, ...]:
    return tuple(chain.from_iterable(parts))


def _values(analyses: Sequence[Analysis], name: str) -> str:
    """One value if all films agree, else one for each film, in their order."""
    values = [a.parameters.get(name, "") for a in analyses]
    return values[0] if len(set(values)) == 1 else ", ".join(values)
