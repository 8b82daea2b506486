from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import pytest
from harness import chest
from harness.chest import as_sent
from pydicom import Dataset

from medgem_node.card import ModelCard
from medgem_node.evidence import Source
from medgem_node.finding import Analysis
from medgem_node.writers import heatmap, measurement_report, segmentation

Write = Callable[..., dict[str, Dataset]]


@pytest.fixture
def write() -> Write:
    """What the three writers make in their order, read back from bytes: `{"SEG 1": ..., "OT 1": ..., "SR 1": ...}`."""

    def written(
        analysis: Analysis, originals: Sequence[Dataset], at: datetime = chest.AT, card: ModelCard = chest.CARD
    ) -> dict[str, Dataset]:
        source = Source(card, chest.STATION, at)
        sent = [as_sent(original) for original in originals]
        made: list[Dataset] = []
        for module in (segmentation, heatmap, measurement_report):
            made.extend(module.create(source).write(analysis, sent, made, chest.uid))
        return {f"{r.Modality} {r.InstanceNumber}": r for r in map(as_sent, made)}

    return written
