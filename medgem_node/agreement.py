"""How far radiologists agree with each model, counted from what they sent back."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.uid import KeyObjectSelectionDocumentStorage

from medgem_node.config import Config
from medgem_node.ledger.feedback import Answer, Feedback
from medgem_node.node import open_node
from medgem_node.verdict import Verdict

WHOLE = "the whole result"
_JUDGED = (Verdict.ACCEPTED, Verdict.EDITED, Verdict.REJECTED)


@dataclass(frozen=True, slots=True)
class FindingAgreement:
    """What one finding of one model got. `accepted` of `judged` is the agreement; `added` are possible misses."""

    finding: str
    accepted: int
    edited: int
    rejected: int
    added: int
    commented: int

    @property
    def judged(self) -> int:
        """How often it was accepted, edited or rejected."""
        return self.accepted + self.edited + self.rejected

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {name: getattr(self, name) for name in ("accepted", "edited", "rejected", "added", "commented")}
        low, high = wilson(self.accepted, self.judged)
        share = round(self.accepted / self.judged, 4) if self.judged else None
        interval = [round(low, 4), round(high, 4)] if self.judged else None
        return {"finding": self.finding, "n": self.judged, **counts, "agreement": share, "interval_95": interval}


@dataclass(frozen=True, slots=True)
class ModelAgreement:
    """What one version of a model got: of `delivered` studies `answered` came back with anything."""

    model: str
    version: str
    delivered: int
    answered: int
    findings: tuple[FindingAgreement, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        studies = {"studies_delivered": self.delivered, "studies_answered": self.answered}
        return {
            "model": self.model,
            "version": self.version,
            **studies,
            "findings": [f.to_dict() for f in self.findings],
        }


def wilson(successes: int, of: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953); (0, 1) of nothing."""
    if of == 0:
        return 0.0, 1.0
    share, spread = successes / of, z * z / of
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, centre - half), min(1.0, centre + half)


def count(answers: Sequence[Answer], delivered: dict[tuple[str, str], int]) -> tuple[ModelAgreement, ...]:
    """Agreement by model and version; of `answers`, the oldest first, only those that stand are counted."""
    of_model: dict[tuple[str, str], list[Answer]] = {key: [] for key in sorted(delivered)}
    for answer in answers:
        of_model.setdefault((answer.model, answer.version), []).append(answer)
    return tuple(
        ModelAgreement(
            model=model,
            version=version,
            delivered=delivered.get((model, version), 0),
            answered=len({a.study_instance_uid for a in found}),
            findings=tuple(_by_finding(standing(found))),
        )
        for (model, version), found in sorted(of_model.items())
    )


def standing(answers: Sequence[Answer]) -> list[Answer]:
    """What counts: of each reader's reports on a job the last that says something, of the key objects alike.

    A document that another one names as its predecessor is replaced, whoever wrote it. Readers without a name are one.
    """
    replaced = {uid for answer in answers for uid in answer.replaces}
    kept = [a for a in answers if a.sop_instance_uid not in replaced]
    latest: dict[tuple[str, str, bool], str] = {}
    for answer in sorted(kept, key=lambda a: a.verdict is not Verdict.COMMENTED):  # stable: comments never win
        latest[_voice(answer)] = answer.document
    return [a for a in kept if latest[_voice(a)] == a.document]


def _voice(answer: Answer) -> tuple[str, str, bool]:
    return answer.job_id, answer.reader, answer.sop_class_uid == KeyObjectSelectionDocumentStorage


def _by_finding(answers: Iterable[Answer]) -> Iterator[FindingAgreement]:
    counted: dict[str, Counter[Verdict]] = defaultdict(Counter)
    for answer in answers:
        counted[answer.finding or WHOLE][answer.verdict] += 1
    for finding, counts in sorted(counted.items(), key=lambda item: (item[0] == WHOLE, item[0])):
        yield FindingAgreement(finding, *(counts[verdict] for verdict in Verdict))


def read_agreement(config: Config, model: str = "") -> tuple[ModelAgreement, ...]:
    """The agreement as the ledger of a node has it."""
    node = open_node(config)
    try:
        feedback = Feedback(node.ledger.engine)
        return count(feedback.answers(model), feedback.delivered(model))
    finally:
        node.ledger.close()


def lines(models: Sequence[ModelAgreement]) -> Iterator[str]:
    """The same as a table."""
    if not models:
        yield "no result was delivered yet"
    for model in models:
        yield f"{model.model} {model.version}: {model.answered} of {model.delivered} delivered studies answered"
        if not model.findings:
            continue
        width = max(len("finding"), *(len(f.finding) for f in model.findings))
        titles = ("n", *(str(v) for v in Verdict))
        yield f"  {'finding':<{width}}  {'  '.join(f'{t:>9}' for t in titles)}  agreement (95 % interval)"
        for f in model.findings:
            numbers = (f.judged, f.accepted, f.edited, f.rejected, f.added, f.commented)
            low, high = wilson(f.accepted, f.judged)
            share = f"{f.accepted / f.judged:.0%} ({low:.0%} to {high:.0%})" if f.judged else "-"
            yield f"  {f.finding:<{width}}  {'  '.join(f'{n:>9}' for n in numbers)}  {share}"
