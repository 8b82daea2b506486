"""A study's films through one model: select, read, preprocess, network, decode."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import TypeVar

from pydicom import Dataset

from medgem_node.card import ModelCard
from medgem_node.detector import decode, runtime
from medgem_node.detector.preprocess import Preprocessing, to_tensor
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


class ProjectionDetector:
    """Analyses every film of a study that the model is meant for, each on its own."""

    def __init__(self, card: ModelCard, clock: Callable[[], float] = time.monotonic) -> None:
        self.card = card
        self._clock = clock
        self._selection = Selection.parse(card.selection)
        self._preprocessing = Preprocessing.parse(card.preprocessing)
        self._network = runtime.load(card)
        self._size = int(card.network["size"])

    def detect(self, instances: Sequence[Dataset]) -> Analysis:
        """One analysis of all films, in the order of their SOP Instance UIDs.

        A film that cannot be analysed does not keep the others from it; `detail` counts such films by reason.
        If there is none left, the most telling reason is raised: what the pixels said before what a header said.
        """
        began = self._clock()
        analyses: list[Analysis] = []
        refusals: list[NotAnalysable] = []
        for instance in sorted(instances, key=lambda i: str(i.get("SOPInstanceUID", ""))):
            try:
                analyses.append(self._film(instance))
            except NotAnalysable as exc:
                refusals.append(exc)
        if not analyses:
            raise _most_telling(refusals)
        merged = _merged(analyses, _left_out(refusals, len(instances)))
        parameters = {**merged.parameters, "weights sha256": self.card.weights_sha256[:16]}
        if self.card.site_calibration:
            parameters["site calibration"] = self.card.site_calibration
        return replace(merged, parameters=parameters, seconds=self._clock() - began)

    def _film(self, instance: Dataset) -> Analysis:
        applicable(instance, self._selection)
        film = projection.read(instance)
        tensor, letterbox = to_tensor(film.pixels, self._size, film.exposed, self._preprocessing)
        outputs = runtime.run(self._network, tensor)
        rows, columns = film.pixels.shape
        return decode.decode(outputs, letterbox, film.image_uid, rows, columns, film.spacing_mm, self.card)


def create(card: ModelCard) -> ProjectionDetector:
    """The detector of `card`, ready to use. Raises ModelRejected."""
    return ProjectionDetector(card)


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
