"""One film, and what is known of it: what training and evaluation are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medgem_node.train.lesions import Lesion


class Reading(Protocol):
    """How the pixels of a film are had that is read only when it is shown."""

    @property
    def path(self) -> Path:
        """The file that they are in."""

    def __call__(self) -> NDArray[Any]:
        """(rows, columns). Raises Unreadable."""


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """One film and what is known of it. `truth`: (3, rows, columns): right lung, left lung, heart.

    Grey and truth are float; of a film that `augment.prepared` made, they are 0..255 in eight bits. A film of a source
    that does not fit into memory has no pixels (0, 0) until it is `loaded`.
    """

    name: str
    group: str
    source: str
    kind: str
    pixels: NDArray[Any]
    truth: NDArray[Any] | None = None
    lesions: tuple[Lesion, ...] | None = None  # None: nothing is known; empty: it is known that there is none
    view: str = ""  # "PA", "AP", or "" if not known
    shows: str = ""  # of kind `other`: what the picture is of
    labels: Mapping[str, float] = field(default_factory=dict)  # what is to be learnt, 0..1; not there: nothing is known
    reading: Reading | None = None  # of a film that is not loaded

    @property
    def known(self) -> tuple[bool, bool, bool]:
        """Of which of the three masks there is a truth."""
        if self.truth is None:
            return False, False, False
        return True, True, self.kind in ("contours", "other")

    @property
    def is_frontal(self) -> bool:
        """Whether the gate should let it through."""
        return self.kind not in ("other", "synthetic")

    def loaded(self) -> Film:
        """The film with its pixels. Raises Unreadable."""
        if self.reading is None:
            return self
        pixels = self.reading()
        truth = np.zeros((3, *pixels.shape), pixels.dtype) if self.kind == "other" else None
        return replace(self, pixels=pixels, truth=truth, reading=None)
