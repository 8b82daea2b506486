"""Films of a published data set, or of a site's own table: listed at once, read when they are shown.

What a film teaches: its labels as the source's `policy` says; its lesions, if `lesion_labels` names labels that the
data set has boxes of. A film is known to be free of them where each such label is denied; where one is present, or in
doubt, without a box, nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medgem_node.errors import ConfigError, Unreadable
from medgem_node.train import catalogues
from medgem_node.train.catalogues.catalogue import Licence, Record
from medgem_node.train.film import Film
from medgem_node.train.lesions import Lesion
from medgem_node.train.pictures import read_pixels
from medgem_node.train.policies import Policies
from medgem_node.train.shelf import Shelf

if TYPE_CHECKING:
    from medgem_node.train.data import Source


@dataclass(frozen=True, slots=True)
class FromFile:
    """A film's pixels as they are in its file."""

    path: Path
    shelf: Shelf = field(compare=False, repr=False)

    def __call__(self) -> NDArray[Any]:
        """(rows, columns) float. Raises Unreadable."""
        try:
            pixels = read_pixels(self.path)
        except Exception:  # of 100 000 files some are torn: whatever a decoder raises means that this is no picture
            pixels = None
        if pixels is None:  # no path: a site's may name a patient
            raise Unreadable("pixel-data", "a film of a catalogue cannot be read; `medgem-node data` counts such")
        return pixels


def licence(source: Source) -> Licence:
    """Under which terms the source's films are had; a site's own are under those that its recipe tells."""
    told = catalogues.find(source.catalogue).LICENCE
    return Licence(source.licence or "none told", told.url) if source.catalogue == "csv" else told


def check_licence(source: Source) -> None:
    """Returns if whoever wrote the recipe accepts it. Raises ConfigError with what is to be read, and where."""
    if not source.accept_licence:
        terms = licence(source)
        raise ConfigError(
            f"source {source.name}: {source.catalogue} comes under: {terms.name} {terms.url}".rstrip()
            + "; read it, and say accept_licence = true in its [[sources]] table if you may use the films so"
        )


def films(source: Source, data: Path, shelf: Shelf) -> Iterator[tuple[Record, Film]]:
    """Every film of the source with what its lists say. Raises ConfigError."""
    check_licence(source)
    catalogue = catalogues.find(source.catalogue)
    policies = Policies.parse(source.policy, catalogue.LABELS, f"source {source.name}")
    if catalogue.LABELS and (odd := sorted(set(source.lesion_labels) - set(catalogue.LABELS))):
        raise ConfigError(f'source {source.name}: {source.catalogue} has no label "{odd[0]}"')
    place = data / source.images
    for record in catalogue.records(place):
        if record.image.name.startswith(source.skip) or (record.view == "lateral" and not source.laterals):
            continue
        yield record, _film(record, source, place, policies, shelf)


def _film(record: Record, source: Source, place: Path, policies: Policies, shelf: Shelf) -> Film:
    name = _name(record.image, place)
    targets = policies.targets(record.labels, name)
    lateral = record.view == "lateral"
    return Film(
        name,
        record.patient,
        source.name,
        "other" if lateral else "frontal",
        np.zeros((0, 0), np.float32),
        lesions=None if lateral else _lesions(record, source.lesion_labels, targets),
        view="" if lateral else record.view or source.view,
        shows="lateral chest" if lateral else "",
        labels={} if lateral else targets,
        reading=FromFile(record.image, shelf),
    )


def _name(image: Path, place: Path) -> str:
    """As no other film of the source is called: from the data set's folder on."""
    base = place if place.is_dir() else place.parent
    parts = (image.relative_to(base) if image.is_relative_to(base) else image).with_suffix("").parts
    return "/".join(parts)


def _lesions(record: Record, labels: tuple[str, ...], targets: Mapping[str, float]) -> tuple[Lesion, ...] | None:
    own = [marked for marked in record.marked if marked.label in labels]
    boxed = {marked.label for marked in own}
    if not labels or not all(label in boxed or targets.get(label) == 0 for label in labels):
        return None
    return tuple(Lesion(marked.box, counts=marked.sure) for marked in own)
