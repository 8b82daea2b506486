"""Labels of a whole film that a network may be taught: findings by their names, for research only.

Never a verdict. Whether a film is "normal" is not a thing that a data set of findings can teach: in one popular source
of normal films these had been picked by the size of their files, and a network that learnt "abnormal" from them reached
an area under the curve of 0.89 there and 0.51, which is chance, on other films of the same hospital.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from medgem_node.errors import ConfigError

if TYPE_CHECKING:
    from medgem_node.card import ModelCard
    from medgem_node.detector.network import Outputs

_VERDICTS = {
    "normal", "abnormal", "normality", "abnormality", "abnormalities", "healthy", "unhealthy", "unremarkable",
    "nonormal", "nofinding", "nofindings", "finding", "findings", "anyfinding", "disease", "diseased", "nodisease",
    "sick", "ill", "clear", "pathology", "pathological", "nopathology", "negative", "positive",
}  # fmt: skip
_WORDS = {"normal", "abnormal", "abnormality", "abnormalities", "healthy", "unremarkable"}
_HOW = "research only: not calibrated, not for care"


def check_labels(labels: Iterable[str]) -> None:
    """Returns if each label names one finding. Raises ConfigError for one that judges the whole film."""
    seen: set[str] = set()
    for label in labels:
        words = re.findall(r"[a-z]+", label.casefold())
        if not words or label in seen:
            raise ConfigError(f'label "{label}" of a network is empty or stands twice')
        if "".join(words) in _VERDICTS or _WORDS & set(words):
            raise ConfigError(
                f'label "{label}" judges the whole film, which no data set here can teach: normal films were picked '
                "otherwise than abnormal ones, and a network learns how; name findings (Edema) instead"
            )
        seen.add(label)


def for_research(outputs: Outputs, card: ModelCard) -> Mapping[str, str]:
    """What `[[research]]` of the manifest asks for, as parameters of the analysis: never a finding. Off without it."""
    if outputs.labels is None or not card.research:
        return {}
    chances = dict(zip(card.network["labels"], outputs.labels[0].float().sigmoid().tolist(), strict=True))
    return {f"research: {label}": f"{chances[label]:.2f} ({_HOW})" for label in asked(card)}


def asked(card: ModelCard) -> tuple[str, ...]:
    """The labels that `[[research]]` names. Raises ConfigError if the network has no such label, or may not."""
    labels = tuple(str(fields.get("label", "")) for fields in card.research)
    check_labels(labels)
    if odd := [label for label in labels if label not in card.network.get("labels", ())]:
        raise ConfigError(f'{card.folder}: [[research]] names "{odd[0]}", which the network was not taught')
    return labels
