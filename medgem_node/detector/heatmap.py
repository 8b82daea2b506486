"""The map that is laid over the image, as the manifest's `[heatmap]` says.

`points`   where the cardiothoracic ratio was measured: each film's highest peak is 1. A manifest without the table.
`lesions`  the box head's own map, calibrated, on one scale for all films: half of it is the operating point. Nothing is
           stretched, so that a film without a lesion shows nothing that glows.

Never both: a viewer lays every heatmap over the image in the same colours, and a heart's border that glows would be
read as a lesion. The ratio's lines are drawn anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgem_node.card import ModelCard
from medgem_node.detector.confidence import probability
from medgem_node.detector.network import Outputs
from medgem_node.detector.preprocess import Letterbox
from medgem_node.finding import Heatmap
from medgem_node.pen import HEAT_FROM

Maps = NDArray[np.float32]
_POINTS = {
    "source": "points",
    "label": "Where the cardiothoracic ratio was measured",
    "meaning": "likely positions of the heart's and the thorax's borders; not an outline of disease",
}


def chosen(outputs: Outputs, letterbox: Letterbox, image_uid: str, card: ModelCard) -> Heatmap:
    """That of the first image, at the network's resolution: a writer resizes."""
    table = card.heatmap or _POINTS
    values = _points(outputs) if table["source"] == "points" else _lesions(outputs, card)
    return Heatmap(
        label=table["label"],
        images=(image_uid,),
        values=over_image(values, letterbox)[None],
        meaning=table["meaning"],
    )


def over_image(values: Maps, letterbox: Letterbox) -> Maps:
    """A square map over the network's whole input, cut to the image and as fine as the network sees it; 0..1."""
    rows, columns = (max(1, round(n * letterbox.scale)) for n in (letterbox.rows, letterbox.columns))
    small = Letterbox(1.0, letterbox.left, letterbox.top, rows, columns)
    return np.clip(small.crop_resize(values), 0, 1)


def level(score: float, fields: Mapping[str, Any]) -> float:
    """How much a score glows: its probability, stretched once for all films so that the operating point is at 0.5.

    What is below it is kept, but too weak to be painted: a film without a mark does not glow.
    """
    chance, limit = probability(score, fields), float(fields["operating_point"])
    if chance < limit:
        return HEAT_FROM * chance / limit
    return 0.5 + 0.5 * (chance - limit) / max(1 - limit, 1e-6)


def _points(outputs: Outputs) -> Maps:
    """All peaks in one map."""
    peaks = outputs.points[0].float().sigmoid().amax(dim=0).cpu().numpy()
    return np.asarray(peaks / max(float(peaks.max()), 1e-6), np.float32)


def _lesions(outputs: Outputs, card: ModelCard) -> Maps:
    """The highest of all kinds at each cell."""
    assert outputs.boxes is not None
    names, kinds = list(card.network["boxes"]), [fields for fields in card.findings if "output" in fields]
    scores = outputs.boxes[0, : len(names)].float().sigmoid().cpu().numpy()
    levels = [_levels(scores[names.index(fields["output"])], fields) for fields in kinds]
    return np.asarray(np.max(levels, axis=0), np.float32)


def _levels(scores: Maps, fields: Mapping[str, Any]) -> Maps:
    known, where = np.unique(scores, return_inverse=True)
    return np.array([level(float(score), fields) for score in known], np.float32)[where].reshape(scores.shape)
