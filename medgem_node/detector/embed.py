"""The embedding of a film, by the same path as its analysis: select, read, preprocess, network, gate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from medgem_node.card import ModelCard
from medgem_node.detector import decode, runtime
from medgem_node.detector.preprocess import Preprocessing, to_tensor
from medgem_node.detector.readers import projection
from medgem_node.detector.selection import Selection, applicable
from medgem_node.errors import ModelRejected


class Embedder:
    """Gives a vector for each film that the model is meant for. Raises ModelRejected if the model has no embedding."""

    def __init__(self, card: ModelCard) -> None:
        self.dimensions = int(card.network.get("embedding", 0))
        if not self.dimensions:
            raise ModelRejected(
                f"{card.name} {card.version} has no embedding, so no similar cases; `medgem-node train-embedding` "
                "adds one, or choose another model"
            )
        self._card = card
        self._selection = Selection.parse(card.selection)
        self._preprocessing = Preprocessing.parse(card.preprocessing)
        self._network = runtime.load(card)

    def embed(self, instance: Dataset) -> NDArray[np.float32]:
        """(dimensions,), of length 1. Raises NotApplicable, Unreadable as an analysis would."""
        applicable(instance, self._selection)
        film = projection.read(instance)
        tensor, letterbox = to_tensor(film.pixels, self._network.config.size, film.exposed, self._preprocessing)
        outputs = runtime.run(self._network, tensor)
        reading = decode.read(outputs, self._card)
        decode.admit(reading, self._card)
        decode.check_anatomy(reading, letterbox, self._card)
        assert outputs.embedding is not None
        vector: NDArray[Any] = outputs.embedding[0].numpy()
        return vector.astype(np.float32)
