"""From the box head's output to findings: each box at a calibrated probability, with side and place.

`[[findings]]` tables of the manifest with the key `output` name a kind of box. Its score is made a probability as
`confidence.py` tells; at or above `operating_point` it is reported. Of a kind that was not found there is no
probability at all: a mark's is that it lies on a lesion, and a lesion that was overlooked has no mark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medgem_node.card import ModelCard, code
from medgem_node.detector import boxes, measure
from medgem_node.detector.confidence import is_calibrated, probability, tier
from medgem_node.detector.network import Outputs
from medgem_node.detector.preprocess import Letterbox
from medgem_node.finding import Box, Code, Finding

_LEAST_SCORE = 0.05  # weaker ones are many, and at any false rate worth having none is a lesion

Sides = Mapping[str, NDArray[np.bool_]]


def candidates(
    outputs: Outputs, letterbox: Letterbox, lungs: Sides, image_uid: str, card: ModelCard
) -> tuple[Finding, ...]:
    """Every box of the first image whose centre lies in the image, most probable first.

    Parameters
    ----------
    lungs
        The masks `right-lung` and `left-lung`, in the image's own rows and columns.
    """
    kinds = [fields for fields in card.findings if "output" in fields]
    if outputs.boxes is None or not kinds:
        return ()
    names = list(card.network["boxes"])
    found = boxes.decode(outputs.boxes, len(names), queries=outputs.queries, at_least=_LEAST_SCORE)[0]
    made, where = [], _Lungs.of(lungs)
    for fields in kinds:
        own = [f for f in found if f.kind == names.index(fields["output"])]
        made += [_finding(f, fields, letterbox, where, image_uid) for f in own if _inside(f, letterbox)]
    return tuple(sorted(made, key=lambda finding: -finding.probability))


def reported(found: Sequence[Finding], image_uid: str, card: ModelCard) -> tuple[Finding, ...]:
    """The boxes at or above their operating point; for a kind without one, that it was looked for and not found."""
    present = [finding for finding in found if finding.present]
    for fields in card.findings:
        if "output" in fields and not any(finding.label == fields["label"] for finding in present):
            best = max((f.probability for f in found if f.label == fields["label"]), default=0.0)
            present.append(_made(fields, best, None, None, image_uid))
    return tuple(present)


def _finding(
    found: boxes.Found, fields: Mapping[str, Any], letterbox: Letterbox, lungs: _Lungs | None, image_uid: str
) -> Finding:
    x0, y0, x1, y1 = found.box_xyxy
    (left, top), (right, bottom) = letterbox.to_image(x0, y0), letterbox.to_image(x1, y1)
    box = Box(
        max(0.0, left), max(0.0, top), min(float(letterbox.columns), right), min(float(letterbox.rows), bottom)
    )  # fmt: skip
    side = lungs.side(box, fields) if lungs else None
    return _made(fields, probability(found.score, fields), box, side, image_uid)


def _made(fields: Mapping[str, Any], chance: float, box: Box | None, side: Code | None, image_uid: str) -> Finding:
    calibrated = box is not None and is_calibrated(fields)
    present = box is not None and chance >= fields["operating_point"]
    return Finding(
        code=code(fields["code"]),
        label=fields["label"],
        probability=chance,
        present=present,
        operating_point=float(fields["operating_point"]),
        image=image_uid,
        box=box,
        site=code(fields["site"]) if side is not None or box is None else None,
        laterality=side,
        tier=tier(chance, present, fields.get("tiers")) if calibrated else "",
        calibrated=calibrated,
    )


def _inside(found: boxes.Found, letterbox: Letterbox) -> bool:
    x0, y0, x1, y1 = found.box_xyxy
    x, y = letterbox.to_image((x0 + x1) / 2, (y0 + y1) / 2)
    return 0 <= x < letterbox.columns and 0 <= y < letterbox.rows


@dataclass(frozen=True, slots=True)
class _Lungs:
    """Where the lungs lie: the mean column of each, and the box around both."""

    right: float
    left: float
    around: Box

    @classmethod
    def of(cls, lungs: Sides) -> _Lungs | None:
        """None where a lung was not found."""
        right, left = (np.flatnonzero(lungs[name].any(axis=0)) for name in ("right-lung", "left-lung"))
        around = measure.bounding_box(lungs["right-lung"] | lungs["left-lung"])
        if not right.size or not left.size or around is None:
            return None
        return cls(float(right.mean()), float(left.mean()), around)

    def side(self, box: Box, fields: Mapping[str, Any]) -> Code | None:
        """The lung that the centre is nearer to by columns; None in neck or abdomen, or at a side marker."""
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        if not (self.around.x0 <= x <= self.around.x1 and self.around.y0 <= y <= self.around.y1):
            return None
        return code(fields["right" if abs(x - self.right) < abs(x - self.left) else "left"])
