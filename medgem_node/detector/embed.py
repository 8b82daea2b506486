"""The embedding of a film, by the same path as its analysis: select, read, preprocess, network, gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom import Dataset
from torch import Tensor
from torch.nn import functional

from medgem_node.card import ModelCard
from medgem_node.detector import decode, runtime
from medgem_node.detector.embedding import pooled
from medgem_node.detector.network import Outputs
from medgem_node.detector.preprocess import Preprocessing, to_tensor
from medgem_node.detector.readers import projection
from medgem_node.detector.selection import Selection, applicable


class Embedder:
    """Gives a vector for each film that the model is meant for: that of the embedding head, else the trunk's own.

    A trained head was no better than the trunk's pooled map (docs/models.md), so a model needs none for similar cases.
    """

    def __init__(self, card: ModelCard) -> None:
        self._card = card
        self._selection = Selection.parse(card.selection)
        self._preprocessing = Preprocessing.parse(card.preprocessing)
        self._network = runtime.load(card)
        config = self._network.config
        self.dimensions = config.embedding or 2 * config.widths[2]

    def embed(self, instance: Dataset) -> NDArray[np.float32]:
        """(dimensions,), of length 1. Raises NotApplicable, Unreadable as an analysis would."""
        applicable(instance, self._selection)
        film = projection.read(instance)
        tensor, letterbox = to_tensor(film.pixels, self._network.config.size, film.exposed, self._preprocessing)
        outputs = runtime.run(self._network, tensor)
        reading = decode.read(outputs, self._card)
        decode.admit(reading, self._card)
        decode.check_anatomy(reading, letterbox, self._card)
        vector: NDArray[Any] = self._vector(outputs, torch.from_numpy(tensor)).numpy()
        return vector.astype(np.float32)

    @torch.inference_mode()
    def _vector(self, outputs: Outputs, image: Tensor) -> Tensor:
        """(dimensions,) of an image of (1, H, W)."""
        if outputs.embedding is not None:
            return outputs.embedding[0]
        where = next(self._network.parameters()).device
        coarsest = self._network.trunk(image[None].to(where))[-1]  # (1, C, H/32, W/32)
        return functional.normalize(pooled(coarsest), dim=1)[0].cpu()
